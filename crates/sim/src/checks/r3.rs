//! R3: a barrier never says `reached` early; a kill right after cannot make the effect vanish.

use tombolo_causality::RegionId;
use tombolo_replica::Ticket;

use crate::checks::Checked;
use crate::rare::Rare;
use crate::world::{World, node_of};

impl World {
    pub(crate) fn reached(&mut self, node: usize, shard: usize, ticket: Ticket, region: RegionId) -> Checked {
        self.hash.mix(u64::from(region.get()));
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        let Some(&position) = process.shards[shard].barriers.get(&ticket) else { return Ok(()) };
        self.rare.count(Rare::BarrierReached);
        let target = node_of(region);
        if self.is_gone(target) {
            return Ok(());
        }
        // A disk that rotted or came back older voids what was said before, once the region has said hello.
        let struck = &self.nodes[target];
        let present = struck.process.as_ref().map(|process| process.epoch);
        let heard = process.links.get(&target).and_then(|link| link.peer_epoch);
        let has_heard = heard.is_some() && heard == present;
        if struck.is_ignorant || struck.is_rolled_back || struck.is_rotten {
            return if has_heard { self.check_held(target, &position, "R3: reached") } else { Ok(()) };
        }
        self.check_held(target, &position, "R3: reached")?;
        self.checks.w1.promise(target, &position);
        if self.nodes[target].is_up() && target != node && !self.is_healing && self.chance.percent(6) {
            self.rare.count(Rare::KilledAfterBarrier);
            self.crash(target, true);
        }
        Ok(())
    }
}
