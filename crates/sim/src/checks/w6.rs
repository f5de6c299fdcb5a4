//! W6: a full disk gives typed errors that may be retried, reads go on, and writes resume when space returns (which the
//! end of every seed shows: there all must be answered).

use tombolo_codec::Reject;
use tombolo_wal::WalError;

use crate::checks::Checked;
use crate::plan::Fault;
use crate::rare::Rare;
use crate::world::World;

/// A write was refused for want of space.
pub(crate) fn refused(reject: &Reject) -> Checked {
    if reject.retry_after_ms.is_none() {
        return Err(format!("W6: refused without saying when to retry: {reject}"));
    }
    Ok(())
}

impl World {
    /// A checkpoint was not written.
    pub(crate) fn check_refused_checkpoint(&self, error: &WalError) -> Checked {
        if error.is_full() || error.to_string().contains("injected") {
            return Ok(());
        }
        Err(format!("W6: a checkpoint failed on a sound disk: {error}"))
    }

    /// A log's files did not give what a peer asked for.
    pub(crate) fn check_unreadable(&mut self, node: usize, error: &WalError) -> Checked {
        let rots = self.plan.faults.iter().any(|(fault, _)| *fault == Fault::Rot);
        match error {
            WalError::NotRetained { .. } | WalError::Rot { .. } if rots => {
                self.rare.count(Rare::Quarantined);
                Ok(())
            }
            // Pruned between the question and the read.
            WalError::NotRetained { .. } if self.plan.is_pruning => Ok(()),
            error => Err(format!("region {} cannot read what it holds: {error}", node + 1)),
        }
    }
}
