//! R9: a slow or absent region costs bounded memory: queues and windows keep their bounds, and what is kept for a peer
//! goes with its connection.

use crate::checks::Checked;
use crate::rare::Rare;
use crate::truth::DIGITS;
use crate::world::{World, region_of};

impl World {
    pub(crate) fn check_r9(&mut self, node: usize, shard: usize) -> Checked {
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        let (replica, recovered) =
            (&process.shards[shard].replica, process.shards[shard].recovered_queue_bytes);
        let burden = replica.burden();
        let limits = self.plan.peer_limits;
        // What is asked for while there is room may exceed it by one batch, or by one read of files.
        let batch_bytes = self.truth.batch_bytes_max;
        let counters_count = self.clients.adds[shard].len() / DIGITS + 1;
        // Everything a shard can have an entry for: sessions have one of their own, and one for conditionals.
        let shared_count = usize::try_from(self.plan.keys).unwrap_or(usize::MAX) * 3 * 2;
        let names_count = counters_count + shared_count + 2 * self.clients.sessions.len();
        let cuts_count = burden.cuts_count + burden.own_cuts_count;
        let bounds = [
            ("queue bytes", burden.queue_bytes, recovered.max(2 * limits.window_bytes) + batch_bytes),
            ("bytes in flight", burden.in_flight_bytes, 2 * limits.window_bytes + batch_bytes),
            ("cursors of absent peers", burden.stray_cursors_count, 0),
            ("open cuts", burden.cuts_count, limits.cuts_max.min(self.nodes.len() - 1)),
            ("cuts on connections that ended", burden.stray_cuts_count, 0),
            ("cuts of its own", burden.own_cuts_count, 1),
            ("entries copied for cuts", burden.copied_entries_count, cuts_count * names_count),
        ];
        if burden.in_flight_bytes >= limits.window_bytes {
            self.rare.count(Rare::WindowFull);
        }
        if burden.queue_bytes >= 2 * limits.window_bytes {
            self.rare.count(Rare::QueueFull);
        }
        match bounds.into_iter().find(|&(_, found, most)| found > most) {
            Some((what, found, most)) => Err(format!(
                "R9: shard {shard} of region {}: {found} {what}, {most} at most",
                region_of(node)
            )),
            None => Ok(()),
        }
    }
}
