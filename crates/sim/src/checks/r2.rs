//! R2: a reported position is durable there: nothing is acked, offered or shipped before its own sync.

use tombolo_codec::{Batch, Position};

use crate::checks::Checked;
use crate::world::{World, region_of};

impl World {
    /// Whether a node's disk holds a position, whatever its replica says.
    pub(crate) fn check_held(&self, node: usize, position: &Position, what: &str) -> Checked {
        let held = self.truth.held(node, position.log);
        // What a removed region takes over is of no account any more.
        if held >= position.seq || self.is_gone(node) {
            return Ok(());
        }
        // A log that was taken over is held where its seal is.
        let resolved = self.truth.resolve(position);
        if resolved.is_some_and(|at| at.log != position.log && self.truth.held(node, at.log) >= at.seq) {
            return Ok(());
        }
        Err(format!("{what} names {position:?}, but region {} has {held} durable", region_of(node)))
    }

    pub(crate) fn check_shipped(&self, node: usize, batch: &Batch) -> Checked {
        let position = Position { log: batch.header().log, seq: batch.header().seq };
        self.check_held(node, &position, "R2: a batch that is shipped")
    }
}
