//! R4: after heal, every region becomes whole, all vectors and states are equal, and nobody lags, within a bounded time.

use tombolo_codec::checkpoint::CellContent;
use tombolo_replica::Behind;

use crate::checks::Checked;
use crate::world::{World, region_of};

impl World {
    /// Why the regions have not come together yet; none if they have.
    pub(crate) fn unrest(&self) -> Option<String> {
        let now = self.queue.now();
        let mut with_conditionals = None;
        for shard in 0..usize::from(self.plan.shards) {
            let mut first = None;
            for node in self.remaining() {
                let region = region_of(node);
                let at = self.nodes[node].now(now);
                let Some(replica) = self.nodes[node].replica(shard) else {
                    return Some(format!("region {region} is down"));
                };
                let report = replica.report(at);
                if !report.is_whole {
                    let waiting = report.waiting_for;
                    return Some(format!(
                        "R8: shard {shard} of region {region} is not whole, waits for {waiting:?}, lacks {:?}, blocked {:?}, halted {:?}",
                        replica.missing(),
                        replica.blocked().collect::<Vec<_>>(),
                        report.halted
                    ));
                }
                if let Some(why) = self.without_heir(node, shard) {
                    return Some(why);
                }
                if let Some((log, why)) = report.halted.first() {
                    return Some(format!("region {region} halted {log:?}: {why}"));
                }
                if report.conditionals_count > 0 && self.plan.window > 3_600 * crate::queue::SECOND {
                    // Told last: it follows from what else is amiss.
                    with_conditionals =
                        Some(format!("shard {shard} of region {region} still has conditionals"));
                }
                let lagging = report.peers.iter().find(|peer| peer.facts.behind != Behind::default());
                if let Some(peer) = lagging {
                    return Some(format!(
                        "shard {shard}: region {} lags behind {region}: {:?}",
                        peer.region, peer.facts.behind
                    ));
                }
                let epochs: Vec<_> =
                    self.nodes.iter().filter_map(|node| node.process.as_ref().map(|p| p.epoch)).collect();
                if report.vector.iter().any(|((_, epoch), _)| !epochs.contains(&epoch)) {
                    return Some(format!("a log of an earlier epoch still stands: {:?}", report.vector));
                }
                let state = (report.vector, report.digest);
                match &first {
                    None => first = Some(state),
                    Some(first) if *first != state => {
                        return Some(format!(
                            "C1: shard {shard} of region {region} differs: {:?}, {:?}",
                            state.0, first.0
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        with_conditionals
    }

    /// However often a region restarted, a counter has one slot for it.
    pub(crate) fn check_slots(&self, node: usize, shard: usize) -> Checked {
        let Some(replica) = self.nodes[node].replica(shard) else { return Ok(()) };
        for cell in &replica.checkpoint().cells {
            if let CellContent::Counter { slots, .. } = &cell.content
                && slots.len() > self.nodes.len()
            {
                return Err(format!(
                    "R4: `{}` has {} slots",
                    String::from_utf8_lossy(&cell.key),
                    slots.len()
                ));
            }
        }
        Ok(())
    }

    /// What rot took has come back.
    pub(crate) fn check_missing(&mut self) -> Checked {
        for node in self.remaining() {
            for (log, seq) in std::mem::take(&mut self.nodes[node].missing) {
                let position = tombolo_codec::Position { log, seq };
                // What a later seal cut off was never durable anywhere.
                let is_lost = self.truth.seals.get(&log).is_some_and(|&(end, ..)| end < seq);
                if !is_lost && !self.holds(node, &position) {
                    return Err(format!(
                        "W3: DATA_LOSS: region {} never got {position:?} back",
                        region_of(node)
                    ));
                }
                self.rare.count(crate::rare::Rare::QuarantineRepaired);
            }
        }
        Ok(())
    }
}
