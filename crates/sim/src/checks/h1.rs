//! H1: the stamps a region's clock issues grow strictly, across restarts, and across restores as far as anybody can know.

use std::collections::BTreeMap;

use tombolo_causality::{Epoch, RegionId, ShardId, Time};
use tombolo_codec::Batch;

use crate::checks::Checked;
use crate::truth::Truth;
use crate::world::World;

/// The greatest reading that a batch of a region carries: in this epoch, and durable in an earlier one.
#[derive(Default)]
pub(crate) struct Readings {
    issued: BTreeMap<(RegionId, ShardId), (Epoch, Time)>,
    durable: BTreeMap<(RegionId, ShardId), Time>,
}

impl Readings {
    /// A batch became durable somewhere: no later one may carry a reading at or below its own.
    pub(crate) fn durable(&mut self, batch: &Batch) {
        let header = batch.header();
        let known = self.durable.entry((header.log.region, header.log.shard)).or_default();
        *known = header.clock.max(*known);
    }

    /// A disk lost something: readings that no copy is left of cannot be known any more.
    pub(crate) fn forget_lost(&mut self, truth: &Truth) {
        self.durable.clear();
        for (&(log, seq), batch) in &truth.batches {
            if truth.is_anywhere(log, seq) {
                self.durable(batch);
            }
        }
    }

    fn last(&self, batch: &Batch) -> Time {
        let log = batch.header().log;
        let place = (log.region, log.shard);
        let durable = self.durable.get(&place).copied().unwrap_or_default();
        match self.issued.get(&place) {
            Some(&(epoch, time)) if epoch == log.epoch => time.max(durable),
            _ => durable,
        }
    }
}

impl World {
    pub(crate) fn check_h1(&mut self, node: usize, batch: &Batch) -> Checked {
        let (log, clock) = (batch.header().log, batch.header().clock);
        let last = self.checks.h1.last(batch);
        // A region whose disk came back older does not know what it issued before it has heard from all others.
        if clock <= last && !self.nodes[node].is_ignorant {
            return Err(format!("H1: {log:?} goes on at {clock:?}, after {last:?}"));
        }
        self.checks.h1.issued.insert((log.region, log.shard), (log.epoch, clock));
        Ok(())
    }
}
