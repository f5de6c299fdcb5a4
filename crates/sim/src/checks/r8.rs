//! R8: no amnesia: a node that lost history takes it back from peers before it is whole, and what it seals then is the
//! end that anybody holds.

use tombolo_causality::LogId;
use tombolo_codec::{Batch, Position};

use crate::checks::Checked;
use crate::rare::Rare;
use crate::world::{World, region_of};

impl World {
    pub(crate) fn became_whole(&mut self, node: usize, shard: usize) -> Checked {
        self.hash.mix(0x77);
        self.rare.count(Rare::BecameWhole);
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        process.shards[shard].is_whole = true;
        let process = self.nodes[node].process.as_ref().expect("just seen");
        let is_gone = |other: usize| self.is_gone(node) || self.is_gone(other);
        for &(other, log, seq) in &process.others_held {
            // What a disk lost since then is not asked for; what it still has is.
            let seq = seq.min(self.truth.held(other, log));
            let position = Position { log, seq };
            if usize::from(log.shard.0) == shard
                && !self.nodes[other].is_rolled_back
                && !is_gone(other)
                && !self.holds(node, &position)
            {
                return Err(format!(
                    "R8: region {} is whole without {position:?} of region {}",
                    region_of(node),
                    other + 1
                ));
            }
        }
        if self.nodes[node].is_whole() {
            self.nodes[node].is_ignorant = false;
        }
        if self.nodes[node].is_rolled_back && self.nodes[node].is_whole() {
            self.nodes[node].is_rolled_back = false;
            self.rare.count(Rare::RollbackHealed);
        }
        Ok(())
    }

    /// A batch takes logs over: at the greatest end that anybody holds durable.
    pub(crate) fn check_seals(&self, writer: usize, batch: &Batch) -> Checked {
        if self.is_gone(writer) {
            return Ok(());
        }
        for seal in batch.records().seals() {
            let log = LogId { shard: batch.header().log.shard, region: seal.region, epoch: seal.epoch };
            for node in self.remaining() {
                let held = self.truth.held(node, log);
                if held > seal.end {
                    return Err(format!(
                        "R8: {log:?} is sealed at {}, region {} holds {held}",
                        seal.end,
                        region_of(node)
                    ));
                }
            }
        }
        Ok(())
    }
}
