//! C4: a write that has seen a value beats it: a stamp drawn by a region lies above the cell's and above the caller's, and what a first
//! attempt brings does too, or is refused.

use tombolo_causality::{Stamp, Time};
use tombolo_codec::{Op, StampSource, Verb};
use tombolo_replica::Outcome;

use crate::checks::Checked;

/// Compares the stamps that a region drew with what stood there, and with what the caller had seen; and of a first
/// attempt also those that its sender fixed.
pub(crate) fn check(
    ops: &[Op],
    seen: &[Option<Stamp>],
    (after, is_retry): (Option<Time>, bool),
    outcome: &Outcome,
) -> Checked {
    for (at, op) in ops.iter().enumerate() {
        let Verb::Set { stamp, .. } = op.verb else { continue };
        if let StampSource::Fixed(fixed) = stamp {
            if !is_retry && seen.get(at).copied().flatten().is_some_and(|seen| seen >= fixed) {
                return Err(format!(
                    "C4: a first attempt at {fixed:?} was taken, below what stood there: {seen:?}"
                ));
            }
            continue;
        }
        let Some(drawn) = outcome.stamps.get(at).copied().flatten() else {
            return Err(format!("C4: a write of {:?} was answered without its stamp", op.key));
        };
        if seen.get(at).copied().flatten().is_some_and(|seen| seen >= drawn) {
            return Err(format!("C4: {drawn:?} does not beat what it has seen: {seen:?}"));
        }
        if after.is_some_and(|after| after >= drawn.time) {
            return Err(format!("C4: {drawn:?} is not after the caller's {after:?}"));
        }
    }
    Ok(())
}
