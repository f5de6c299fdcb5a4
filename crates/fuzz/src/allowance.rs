//! [`within_allowance`]: what a decoder may allocate, measured and enforced.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What any decode may allocate at once, however short its input.
pub const ALLOWED_BYTES: u64 = 64 * 1_024;
/// What it may allocate at once beyond that, per byte of its input: a value is a handle of 24 or 32 bytes, however few
/// bytes say that it is there.
pub const ALLOWED_FACTOR: u64 = 24;

/// Runs a decode of `input_bytes`.
///
/// Panics: if it held more than [`ALLOWED_BYTES`] and [`ALLOWED_FACTOR`] per byte at once, or if the decode did.
pub fn within_allowance<T>(input_bytes: usize, decode: impl FnOnce() -> T) -> T {
    let mut decoded = None;
    // A panic must not pass through the counter, which would go on counting what follows.
    let used = allocation_counter::measure(|| decoded = Some(catch_unwind(AssertUnwindSafe(decode))));
    let allowed = ALLOWED_BYTES + ALLOWED_FACTOR * input_bytes as u64;
    let decoded = decoded.expect("a measured closure runs").unwrap_or_else(|panic| resume_unwind(panic));
    assert!(
        used.bytes_max <= allowed,
        "{input_bytes} bytes made the decoder hold {} bytes; {allowed} are allowed",
        used.bytes_max
    );
    decoded
}
