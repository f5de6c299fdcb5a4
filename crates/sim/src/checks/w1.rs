//! W1: an acked write survives any crash or power cut of its region. With it R2 and R3 across crashes: what a region
//! acked to peers, or a barrier was told of, is there after the next start.

use std::collections::BTreeMap;

use tombolo_causality::{LogId, Seq};
use tombolo_codec::Position;

use crate::checks::Checked;
use crate::clients::Fate;
use crate::process::Recovered;
use crate::rare::Rare;
use crate::world::{World, region_of, shard_of};

/// Per node, what it said it holds.
pub(crate) struct Promises(Vec<BTreeMap<LogId, Seq>>);

impl Promises {
    pub(crate) fn new(nodes: usize) -> Self {
        Self(vec![BTreeMap::new(); nodes])
    }

    pub(crate) fn promise(&mut self, node: usize, position: &Position) {
        let known = self.0[node].entry(position.log).or_default();
        *known = position.seq.max(*known);
    }
}

impl World {
    pub(crate) fn check_w1(
        &mut self,
        node: usize,
        shard: usize,
        found: &Recovered,
        is_damaged: bool,
    ) -> Checked {
        let ours = |log: &LogId| usize::from(log.shard.0) == shard;
        if is_damaged {
            // What a disk lost with an older image, or to rot, is not a crash's work; the start begins anew.
            self.checks.w1.0[node].retain(|log, _| !ours(log));
            self.truth.held[node].retain(|log, _| !ours(log));
            self.checks.c2b.forget(node, shard);
            self.checks.c6.forget(node, shard);
        } else {
            for (&log, &seq) in self.checks.w1.0[node].iter().filter(|(log, _)| ours(log)) {
                if !found.replica.holds(log, seq) {
                    return Err(format!(
                        "W1: region {} said it holds {log:?} through {seq}, and lost it",
                        region_of(node)
                    ));
                }
            }
        }
        for log in &found.logs {
            self.truth.synced(node, log.log, log.end.seq);
        }
        // A process that ended in the middle of an install left a checkpoint, and files that know nothing of it.
        let id = shard_of(shard);
        if let Some(checkpoint) = &found.checkpoint {
            let standing = checkpoint.logs.iter().map(|end| (end.region, end.epoch, end.seq));
            let sealed = checkpoint.sealed.iter().map(|it| (it.seal.region, it.seal.epoch, it.seal.end));
            for (region, epoch, end) in standing.chain(sealed) {
                self.truth.synced(node, LogId { shard: id, region, epoch }, end);
            }
        }
        Ok(())
    }

    /// After a disk lost something: an acked op of which no copy is left is not promised any more.
    pub(crate) fn reassess_fates(&mut self) {
        for shard in 0..self.clients.adds.len() {
            for add in 0..self.clients.adds[shard].len() {
                if self.clients.adds[shard][add].fate != Fate::Kept {
                    continue;
                }
                let places = self.truth.places[shard].get(&add).map_or(&[][..], Vec::as_slice);
                if !places.iter().any(|&(log, seq)| self.truth.is_anywhere(log, seq)) {
                    self.clients.adds[shard][add].fate = Fate::Lost;
                    self.rare.count(Rare::TailLostWithDisk);
                }
            }
        }
    }
}
