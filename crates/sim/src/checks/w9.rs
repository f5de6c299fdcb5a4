//! W9: state, version vector, sessions and clock of a checkpoint appear in one atomic step: what a start finds is the
//! state that its vector stands for.

use crate::checks::Checked;
use crate::process::Recovered;
use crate::world::{World, region_of};

impl World {
    pub(crate) fn check_w9(&mut self, node: usize, found: &Recovered) -> Checked {
        let Some(checkpoint) = &found.checkpoint else { return Ok(()) };
        let shard = found.shard;
        let epoch = tombolo_causality::Epoch(1);
        let alone = tombolo_replica::Replica::open(self.options(node, shard, epoch), Some(checkpoint));
        let report = alone.report(tombolo_replica::Now::default());
        let known = self.checks.c2.known(shard, &report.vector);
        if known.is_some_and(|digest| digest != report.digest) {
            return Err(format!(
                "W9: the checkpoint of region {} is not what its vector says",
                region_of(node)
            ));
        }
        Ok(())
    }
}
