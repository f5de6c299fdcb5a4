//! Values that merge: whatever the order, the grouping and the repetition, the result is the same (C3).
//!
//! A value's state is what its logs' prefixes say; merging takes, per log, the longer prefix (design.md §3.2). Nothing
//! here knows where a value is kept or how it travels. `L` is whatever names a log to the caller.
//!
//! Start with [`Counter`], then [`Register`].

mod counter;
mod register;

pub use counter::{Counter, Slot};
pub use register::{Dot, Register};
