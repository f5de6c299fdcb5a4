//! C2: state is a function of the version vector: equal vectors, equal canonical digests; and replaying from nothing what
//! a vector names gives the state that grew in place.

use std::collections::BTreeMap;

use tombolo_causality::{Epoch, LogId, ShardId, VersionVector};
use tombolo_codec::{Batch, Digest, Position};
use tombolo_replica::{Now, Replica};
use xxhash_rust::xxh3::xxh3_128;

use crate::checks::Checked;
use crate::rare::Rare;
use crate::world::{World, region_of, shard_of};

/// What every vector was seen to stand for, and where first.
#[derive(Default)]
pub(crate) struct States(BTreeMap<u128, (Digest, usize)>);

fn hash(shard: ShardId, vector: &VersionVector) -> u128 {
    let mut bytes = Vec::with_capacity(2 + vector.len() * 26);
    bytes.extend_from_slice(&shard.0.to_le_bytes());
    for ((region, epoch), seq) in vector {
        bytes.extend_from_slice(&region.get().to_le_bytes());
        bytes.extend_from_slice(&epoch.0.to_le_bytes());
        bytes.extend_from_slice(&seq.0.to_le_bytes());
    }
    xxh3_128(&bytes)
}

impl States {
    pub(crate) fn known(&self, shard: ShardId, vector: &VersionVector) -> Option<Digest> {
        self.0.get(&hash(shard, vector)).map(|&(digest, _)| digest)
    }
}

impl World {
    /// Compares a shard with every one that stood at the same vector; gives its vector.
    pub(crate) fn look_at(&mut self, node: usize, shard: usize) -> Result<VersionVector, String> {
        let now = self.nodes[node].now(self.queue.now());
        let Some(replica) = self.nodes[node].replica(shard) else { return Ok(VersionVector::new()) };
        let report = replica.report(now);
        self.hash.mix(u64::from_le_bytes(*report.digest.0.first_chunk().expect("digests are longer")));
        let entry = self.checks.c2.0.entry(hash(shard_of(shard), &report.vector));
        let (known, first) = *entry.or_insert((report.digest, node));
        if known != report.digest {
            return Err(format!(
                "C2: regions {} and {} differ at {:?} of shard {shard}",
                region_of(first),
                region_of(node),
                report.vector
            ));
        }
        if first != node {
            self.rare.count(Rare::EqualVectors);
        }
        Ok(report.vector)
    }

    pub(crate) fn check_replay(&mut self, node: usize, shard: usize) -> Checked {
        let Some(live) = self.nodes[node].replica(shard) else { return Ok(()) };
        self.compare_with_logs(node, shard, live).map_err(|why| format!("C2: {why}"))
    }

    /// Compares a state with what replaying all that its vector covers gives.
    pub(crate) fn compare_with_logs(&self, node: usize, shard: usize, live: &Replica) -> Checked {
        let report = live.report(Now::default());
        let id = shard_of(shard);
        let mut fresh = Replica::open(self.options(node, id, Epoch(1)), None);
        let ours = self.truth.batches.iter().filter(|((log, _), _)| log.shard == id);
        let mut logs: BTreeMap<LogId, Vec<&Batch>> = BTreeMap::new();
        for (&(log, _), batch) in ours {
            logs.entry(log).or_default().push(batch);
        }
        // In another order than they were found in at the start.
        for batch in logs.into_values().rev().flatten() {
            let position = Position { log: batch.header().log, seq: batch.header().seq };
            if live.covers(&position) {
                fresh.replay(batch).map_err(|why| format!("replay: {why}"))?;
            }
        }
        let again = fresh.report(Now::default());
        if (&again.vector, again.digest) != (&report.vector, report.digest) {
            return Err(format!(
                "shard {shard} of region {} is not what its logs say: {:?} against {:?}",
                region_of(node),
                again.vector,
                report.vector
            ));
        }
        Ok(())
    }
}
