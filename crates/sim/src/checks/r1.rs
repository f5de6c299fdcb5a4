//! R1: per log, batches are taken in order, each once, whatever is duplicated, reordered or replayed.

use std::collections::BTreeMap;

use tombolo_causality::{LogId, Seq};
use tombolo_codec::Batch;

use crate::checks::Checked;
use crate::world::{World, region_of};

/// Per node, the process and what it was last handed of each log.
pub(crate) struct Order(Vec<(u64, BTreeMap<LogId, Seq>)>);

impl Order {
    pub(crate) fn new(nodes: usize) -> Self {
        Self(vec![(u64::MAX, BTreeMap::new()); nodes])
    }
}

impl World {
    /// A log goes on behind a difference that was installed.
    pub(crate) fn note_jump(&mut self, node: usize, log: LogId, end: Seq) {
        let life = self.nodes[node].life;
        let (known_life, known) = &mut self.checks.r1.0[node];
        if *known_life == life
            && let Some(last) = known.get_mut(&log)
        {
            *last = end.max(*last);
        }
    }

    pub(crate) fn check_r1(&mut self, node: usize, batch: &Batch) -> Checked {
        let (log, seq, life) = (batch.header().log, batch.header().seq, self.nodes[node].life);
        // A sync that failed leaves the replica with batches that no recovery vouches for.
        let held = self.truth.held(node, log);
        let (known_life, known) = &mut self.checks.r1.0[node];
        if *known_life != life {
            *known_life = life;
            known.clear();
        }
        let last = known.get(&log).copied().unwrap_or(held);
        if seq != last.next() {
            return Err(format!("R1: region {} takes {seq} of {log:?} after {last}", region_of(node)));
        }
        known.insert(log, seq);
        Ok(())
    }
}
