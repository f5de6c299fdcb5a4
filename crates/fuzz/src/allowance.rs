//! [`within_allowance`]: what a decoder may allocate, measured and enforced.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What any decode may allocate at once, however short its input.
pub const ALLOWED_BYTES: u64 = 64 * 1_024;
/// What it may allocate at once beyond that, per byte of its input: a value is a handle of 24 or 32 bytes, however few
/// bytes say that it is there.
pub const ALLOWED_FACTOR: u64 = 24;

/// What a message between regions may allocate at once beside that factor. Some say much in few bytes: the sums of a
/// cut's four sections stand in memory as 32 KiB each, however many leaves are empty, and each of the 4,096 cells that
/// one message may hold takes up to 48 bytes above the factor.
pub const PEER_ALLOWED_BYTES: u64 = 256 * 1_024;

/// Runs a decode of `input_bytes`.
///
/// Panics: if it held more than [`ALLOWED_BYTES`] and [`ALLOWED_FACTOR`] per byte at once, or if the decode did.
pub fn within_allowance<T>(input_bytes: usize, decode: impl FnOnce() -> T) -> T {
    within(ALLOWED_BYTES, input_bytes, decode)
}

/// Runs a decode of a message between regions.
///
/// Panics: as [`within_allowance`], with [`PEER_ALLOWED_BYTES`].
pub fn within_peer_allowance<T>(input_bytes: usize, decode: impl FnOnce() -> T) -> T {
    within(PEER_ALLOWED_BYTES, input_bytes, decode)
}

fn within<T>(fixed_bytes: u64, input_bytes: usize, decode: impl FnOnce() -> T) -> T {
    let mut decoded = None;
    // A panic must not pass through the counter, which would go on counting what follows.
    let used = allocation_counter::measure(|| decoded = Some(catch_unwind(AssertUnwindSafe(decode))));
    let allowed = fixed_bytes + ALLOWED_FACTOR * input_bytes as u64;
    let decoded = decoded.expect("a measured closure runs").unwrap_or_else(|panic| resume_unwind(panic));
    assert!(
        used.bytes_max <= allowed,
        "{input_bytes} bytes made the decoder hold {} bytes; {allowed} are allowed",
        used.bytes_max
    );
    decoded
}
