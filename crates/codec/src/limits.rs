//! One table of limits, checked at every door and again where bytes are decoded.

/// The longest key.
pub const KEY_BYTES_MAX: usize = 1_024;
/// The longest register value.
pub const VALUE_BYTES_MAX: usize = 256 * 1_024;
/// Most ops in one request.
pub const REQUEST_OPS_MAX: usize = 8_192;
/// Longest request or answer of a client, encoded.
pub const REQUEST_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Longest payload of one batch.
pub const BATCH_PAYLOAD_BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// A batch is closed once its values and keys reach this size.
pub const BATCH_BYTES_TARGET: usize = 1_024 * 1_024;
/// A batch is closed once it holds this many ops.
pub const BATCH_OPS_TARGET: u32 = 32_768;
/// Longest frame between regions: a batch with its header, or a hello over all logs.
pub const FRAME_BYTES_MAX: usize = BATCH_PAYLOAD_BYTES_MAX + 64 * 1_024;
/// Most numbers a session may hold above its settled mark, per shard.
pub const SESSION_NUMBERS_MAX: usize = 1_024;
/// Most keys in one read.
pub const READ_KEYS_MAX: usize = 8_192;
/// Most waiters at one region.
pub const WAITERS_MAX: usize = 65_536;
/// Longest wait a client may ask for.
pub const AWAIT_MS_MAX: u64 = 600_000;
/// A part of a state that one region sends another is cut at about this size: it shares a lane with batches.
pub const ENTRIES_BYTES_TARGET: usize = 192 * 1_024;
/// Most leaves that one question names.
pub const ENTRIES_LEAVES_MAX: usize = 256;
/// Most cells in one answer with entries: a cell is much larger in memory than the few bytes that may stand for it.
pub const ENTRIES_CELLS_MAX: usize = 4_096;
