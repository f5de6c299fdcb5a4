//! C7: difference and snapshot give the state that replaying the logs gives: the checkpoint that is made of them before
//! it is written, and the shard's state after they were installed.

use tombolo_causality::Epoch;
use tombolo_codec::Checkpoint;
use tombolo_replica::Replica;

use crate::checks::Checked;
use crate::world::{World, shard_of};

impl World {
    /// A shard installed a difference.
    pub(crate) fn check_c7(&self, node: usize, shard: usize) -> Checked {
        let Some(live) = self.nodes[node].replica(shard) else { return Ok(()) };
        self.compare_with_logs(node, shard, live).map_err(|why| format!("C7: after an install: {why}"))
    }

    /// A checkpoint that holds a difference is about to be written.
    pub(crate) fn check_checkpoint(&self, node: usize, shard: usize, checkpoint: &Checkpoint) -> Checked {
        let restored = Replica::open(self.options(node, shard_of(shard), Epoch(1)), Some(checkpoint));
        self.compare_with_logs(node, shard, &restored).map_err(|why| format!("C7: a checkpoint: {why}"))
    }
}
