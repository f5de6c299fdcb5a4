//! Decoders under bytes that nobody meant to write: real ones, edited.
//!
//! Each test starts from what the product's own builders make ([`seeds`]), edits it by a script drawn from a number
//! ([`Script`]), and checks three things: the decoder does not panic, does not hold far more memory than it was given
//! bytes ([`within_allowance`]), and encodes again what it accepted. Under `cargo test` each target takes a second;
//! a nightly run sets `TOMBOLO_FUZZ_SECONDS`, and `TOMBOLO_FUZZ_FIRST` to numbers not seen before. A failure prints
//! the number that repeats it. No product crate may depend on this one. Start with [`drive`] and `tests/messages.rs`.

mod allowance;
mod drive;
mod script;
pub mod seeds;

pub use self::allowance::{
    ALLOWED_BYTES, ALLOWED_FACTOR, PEER_ALLOWED_BYTES, within_allowance, within_peer_allowance,
};
pub use self::drive::{Driven, FIRST_VARIABLE, SECONDS_VARIABLE, drive};
pub use self::script::{Edit, Number, Script, Width};
