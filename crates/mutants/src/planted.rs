//! Which mutant is at work: one at a time per thread, so that several seeds can run side by side.

use std::cell::Cell;

use crate::Mutant;

thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Lets a mutant work on this thread from here on; none: all rules are kept.
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Whether a rule is to be broken.
#[must_use]
pub fn is_planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}
