//! R10: a removed region's late batches change nothing: once its logs were taken over, no member takes more of them, and
//! no log of it stands in the end. That what was taken over counts once is told by the digits of its adds.

use std::collections::BTreeSet;

use tombolo_codec::Batch;

use crate::checks::Checked;
use crate::world::{World, node_of, region_of};

impl World {
    /// A replica hands a batch to its disk.
    pub(crate) fn check_r10(&self, node: usize, batch: &Batch) -> Checked {
        let (log, seq) = (batch.header().log, batch.header().seq);
        if self.is_gone(node) || !self.truth.is_late(log, seq) {
            return Ok(());
        }
        let end = self.truth.seals.get(&log).map(|&(end, ..)| end);
        Err(format!(
            "R10: region {} takes {seq} of {log:?}, which was taken over at {end:?}",
            region_of(node)
        ))
    }

    /// Why removed regions are not all taken over yet; none if they are.
    pub(crate) fn without_heir(&self, node: usize, shard: usize) -> Option<String> {
        let replica = self.nodes[node].replica(shard)?;
        let region = region_of(node);
        let removed: BTreeSet<_> = self.truth.gone.iter().copied().map(region_of).collect();
        if replica.roster().removed != removed {
            return Some(format!("R10: region {region} has not heard of all that were removed: {removed:?}"));
        }
        let without = replica.without_heir();
        if !without.is_empty() {
            return Some(format!("R10: nobody took {without:?} over, says shard {shard} of region {region}"));
        }
        let report = replica.report(tombolo_replica::Now::default());
        let stands = report.vector.iter().find(|((writer, _), _)| self.is_gone(node_of(*writer)));
        stands.map(|(log, _)| format!("R10: {log:?} of a removed region stands in region {region}"))
    }
}
