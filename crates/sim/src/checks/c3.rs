//! C3: the merge laws: the same writes joined in another order, and in parts, give the same cell. C4, C6: a register's
//! winner depends on (stamp, value) alone, so no smaller one ever shows again.

use std::collections::BTreeMap;

use tombolo_causality::{LogId, Seq, Stamp, Time};
use tombolo_codec::checkpoint::CellContent;
use tombolo_codec::{Kind, Position};
use tombolo_crdt::{Counter, Dot, Register};

use crate::chance::Chance;
use crate::checks::Checked;
use crate::world::{World, region_of, shard_of};

type Written = (Stamp, Option<Vec<u8>>, Option<Time>, Dot<LogId>);
type Added = (LogId, Option<Stamp>, u64, u64);

/// Joins registers one by one or in parts, in an order that chance draws.
fn joined(writes: &[Written], chance: &mut Chance) -> Option<Register<LogId>> {
    let mut parts: Vec<Register<LogId>> = writes
        .iter()
        .map(|(stamp, value, expires_at, dot)| Register::new(*stamp, value.as_deref(), *expires_at, *dot))
        .collect();
    while parts.len() > 1 {
        let one = parts.swap_remove(chance.index(parts.len()));
        let at = chance.index(parts.len());
        parts[at].merge(&one);
    }
    parts.pop()
}

impl World {
    /// Compares every register of a shard with the join of all writes that the shard holds, and samples counters.
    pub(crate) fn check_c3(&mut self, node: usize, shard: usize) -> Checked {
        let Some(replica) = self.nodes[node].replica(shard) else { return Ok(()) };
        let checkpoint = replica.checkpoint();
        let id = shard_of(shard);
        let mut writes: BTreeMap<Vec<u8>, Vec<Written>> = BTreeMap::new();
        let mut deletes: BTreeMap<Vec<u8>, Stamp> = BTreeMap::new();
        let mut adds: BTreeMap<Vec<u8>, Vec<Added>> = BTreeMap::new();
        for (&(log, seq), batch) in &self.truth.batches {
            if log.shard != id || !replica.covers(&Position { log, seq }) {
                continue;
            }
            for write in batch.records().writes() {
                if write.cell.kind == Kind::Counter {
                    let stamp = deletes.entry(write.cell.key.to_vec()).or_insert(write.stamp);
                    *stamp = write.stamp.max(*stamp);
                    continue;
                }
                let value = write.value.map(<[u8]>::to_vec);
                let written = (write.stamp, value, write.expires_at, Dot { log, seq: Seq(seq.0) });
                writes.entry(write.cell.key.to_vec()).or_default().push(written);
            }
            // A conditional add carries the delete it was admitted under, also where that went with a disk (F28).
            for conditional in batch.records().conditionals() {
                for (cell, generation, _) in &conditional.adds {
                    if let Some(generation) = *generation {
                        let stamp = deletes.entry(cell.key.to_vec()).or_insert(generation);
                        *stamp = generation.max(*stamp);
                    }
                }
            }
            for add in batch.records().adds().filter(|add| !add.cell.key.starts_with(b"a")) {
                adds.entry(add.cell.key.to_vec()).or_default().push((
                    log,
                    add.generation,
                    add.positive,
                    add.negative,
                ));
            }
        }
        for cell in &checkpoint.cells {
            let is_right = match &cell.content {
                CellContent::Register { stamp, value, expires_at, .. } => {
                    let expected = writes.get(&cell.key).and_then(|writes| joined(writes, &mut self.chance));
                    expected.is_some_and(|expected| {
                        (expected.stamp(), expected.value(), expected.expires_at())
                            == (*stamp, value.as_deref(), *expires_at)
                    })
                }
                CellContent::Counter { generation, slots } if !cell.key.starts_with(b"a") => {
                    let mut counters: Vec<Counter<LogId>> = Vec::new();
                    for &(log, generation, positive, negative) in adds.get(&cell.key).into_iter().flatten() {
                        // Adds of one log stay together: a slot is the prefix of a log.
                        let at = counters.iter().position(|counter| counter.has(log));
                        let at = at.unwrap_or_else(|| {
                            counters.push(Counter::new());
                            counters.len() - 1
                        });
                        counters[at].add(log, generation, positive, negative);
                    }
                    let mut whole = Counter::new();
                    if let Some(&stamp) = deletes.get(&cell.key) {
                        whole.delete(stamp);
                    }
                    while !counters.is_empty() {
                        let one = counters.swap_remove(self.chance.index(counters.len()));
                        whole.merge(&one);
                    }
                    let sum = slots.iter().fold(0i128, |sum, slot| {
                        sum + i128::try_from(slot.positive).unwrap_or(0)
                            - i128::try_from(slot.negative).unwrap_or(0)
                    });
                    (whole.generation(), whole.value()) == (*generation, sum)
                }
                CellContent::Counter { .. } => true,
            };
            if !is_right {
                let key = String::from_utf8_lossy(&cell.key);
                return Err(format!(
                    "C3: `{key}` of region {} is not the join of its writes",
                    region_of(node)
                ));
            }
        }
        Ok(())
    }
}
