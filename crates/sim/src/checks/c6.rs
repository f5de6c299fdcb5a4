//! C6: a deleted value with a smaller stamp never shows again, also after restart, absence, restore, difference: a region
//! that applied a write or a delete of a register shows nothing with a smaller stamp there, until its disk comes back
//! older; after heal no region does.

use std::collections::BTreeMap;

use bytes::Bytes;
use tombolo_causality::{LogId, Seq, Stamp, VersionVector};
use tombolo_codec::{Kind, ReadValue};

use crate::checks::Checked;
use crate::world::{World, region_of, shard_of};

/// Per node and shard, the greatest stamp applied to each register, and through where that was looked up.
pub(crate) struct Greatest(Vec<Vec<Of>>);

#[derive(Clone, Default)]
struct Of {
    stamps: BTreeMap<Bytes, Stamp>,
    through: BTreeMap<LogId, Seq>,
}

impl Greatest {
    pub(crate) fn new(nodes: usize, shards: usize) -> Self {
        Self(vec![vec![Of::default(); shards]; nodes])
    }

    pub(crate) fn forget(&mut self, node: usize, shard: usize) {
        self.0[node][shard] = Of::default();
    }
}

impl World {
    /// Notes what was applied of logs, and gives the registers that it wrote.
    fn note_written(&mut self, node: usize, shard: usize, ends: &[(LogId, Seq)]) -> Vec<Bytes> {
        let of = &mut self.checks.c6.0[node][shard];
        let mut touched = Vec::new();
        for &(log, end) in ends {
            let through = of.through.entry(log).or_default();
            if *through >= end {
                continue;
            }
            for (_, batch) in self.truth.batches.range((log, through.next())..=(log, end)) {
                let records = batch.records();
                for write in records.writes().filter(|write| write.cell.kind == Kind::Register) {
                    let key = Bytes::copy_from_slice(write.cell.key);
                    let greatest = of.stamps.entry(key.clone()).or_insert(write.stamp);
                    *greatest = write.stamp.max(*greatest);
                    touched.push(key);
                }
            }
            *through = end;
        }
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// A shard applied something: looks at the registers that were written since the last look.
    pub(crate) fn check_written(&mut self, node: usize, shard: usize, vector: &VersionVector) -> Checked {
        let mut ends: Vec<(LogId, Seq)> = vector.logs(shard_of(shard)).collect();
        // What stood at the last look and was taken over since was applied to its end first.
        let known = self.checks.c6.0[node][shard].through.iter();
        let sealed = known.filter(|(log, _)| vector.get(log.region, log.epoch) == Seq::ZERO);
        let end_of = |log: LogId| self.truth.seals.get(&log).map(|&(end, ..)| (log, end));
        ends.extend(sealed.filter_map(|(&log, _)| end_of(log)));
        let touched = self.note_written(node, shard, &ends);
        self.compare_registers(node, shard, touched)
    }

    /// Looks at every register of a shard, whatever its logs went through.
    pub(crate) fn check_registers(&mut self, node: usize, shard: usize) -> Checked {
        let Some(replica) = self.nodes[node].replica(shard) else { return Ok(()) };
        let id = shard_of(shard);
        let vector = replica.report(tombolo_replica::Now::default()).vector;
        let mut ends: Vec<(LogId, Seq)> = vector.logs(id).collect();
        let sealed = self.truth.seals.iter().filter(|(log, _)| log.shard == id);
        let sealed = sealed.map(|(&log, &(end, ..))| (log, end));
        ends.extend(sealed.filter(|&(log, end)| replica.holds(log, end)));
        self.note_written(node, shard, &ends);
        let keys = self.checks.c6.0[node][shard].stamps.keys().cloned().collect();
        self.compare_registers(node, shard, keys)
    }

    fn compare_registers(&mut self, node: usize, shard: usize, keys: Vec<Bytes>) -> Checked {
        let values = self.read(node, shard, keys.clone());
        for (key, value) in keys.into_iter().zip(values) {
            let ReadValue::Register { stamp, .. } = value else { continue };
            let greatest = self.checks.c6.0[node][shard].stamps.get(&key).copied();
            if greatest.is_some_and(|greatest| stamp < greatest) {
                return Err(format!(
                    "C6: `{}` shows {stamp:?} in region {}, shard {shard}, which applied {greatest:?}",
                    String::from_utf8_lossy(&key),
                    region_of(node)
                ));
            }
        }
        Ok(())
    }
}
