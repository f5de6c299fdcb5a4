//! F28: a conditional add raises its counter to its generation as any add does, or an add of an earlier generation that
//! comes later would count in one region and not in another.

use std::collections::BTreeMap;

use tombolo_causality::{Stamp, VersionVector};
use tombolo_codec::checkpoint::CellContent;

use crate::checks::Checked;
use crate::world::{World, region_of, shard_of};

impl World {
    /// Looks at the counters that conditionals name which were applied since the last look.
    pub(crate) fn check_raised(&self, node: usize, shard: usize, vector: &VersionVector) -> Checked {
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        let (target, mut raised) = (&process.shards[shard], BTreeMap::<Vec<u8>, Stamp>::new());
        for (log, end) in vector.logs(shard_of(shard)) {
            let from = target.seen.get(log.region, log.epoch);
            if from >= end {
                continue;
            }
            for (_, batch) in self.truth.batches.range((log, from.next())..=(log, end)) {
                for (cell, generation, _) in batch.records().conditionals().flat_map(|one| one.adds) {
                    let Some(generation) = generation else { continue };
                    let known = raised.entry(cell.key.to_vec()).or_insert(generation);
                    *known = generation.max(*known);
                }
            }
        }
        if raised.is_empty() {
            return Ok(());
        }
        for cell in target.replica.checkpoint().cells {
            if let CellContent::Counter { generation, .. } = cell.content
                && let Some(expected) = raised.remove(&cell.key)
                && generation < Some(expected)
            {
                let key = String::from_utf8_lossy(&cell.key);
                return Err(format!(
                    "F28: `{key}` of region {} is at {generation:?}, a conditional add at {expected:?}",
                    region_of(node)
                ));
            }
        }
        match raised.pop_first() {
            Some((key, _)) => {
                Err(format!("F28: a conditional add left no trace of `{}`", String::from_utf8_lossy(&key)))
            }
            None => Ok(()),
        }
    }
}
