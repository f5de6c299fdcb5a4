//! A region's disk: per log the batches that are durable and those that are not yet, and perhaps a checkpoint.
//!
//! It never damages a batch: what is durable stays, what is not may go with a crash, from the end.

use std::collections::{BTreeMap, VecDeque};

use tombolo_causality::{Epoch, RegionId, Seq};
use tombolo_codec::{Batch, Checkpoint};

use crate::rng::Rng;

pub(crate) type LogName = (RegionId, Epoch);

pub(crate) fn name_of(batch: &Batch) -> LogName {
    (batch.header().log.region, batch.header().log.epoch)
}

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) logs: BTreeMap<LogName, Vec<Batch>>,
    pub(crate) pending: BTreeMap<LogName, VecDeque<Batch>>,
    pub(crate) checkpoint: Option<Checkpoint>,
}

impl Disk {
    /// Through which batch a log is durable here.
    pub(crate) fn durable(&self, name: LogName) -> Seq {
        Seq(self.logs.get(&name).map_or(0, Vec::len) as u64)
    }

    /// Through which batch a log was appended here.
    pub(crate) fn appended(&self, name: LogName) -> Seq {
        Seq(self.durable(name).0 + self.pending.get(&name).map_or(0, VecDeque::len) as u64)
    }

    /// Appends a batch; R1: the next one of its log, unless this disk is one that loses what it was given.
    pub(crate) fn append(&mut self, batch: Batch, is_honest: bool) -> Result<(), String> {
        let (name, seq) = (name_of(&batch), batch.header().seq);
        let expected = self.appended(name).next();
        if seq != expected && is_honest {
            return Err(format!("R1: batch {seq} of {name:?} is appended where {expected} comes next"));
        }
        self.pending.entry(name).or_default().push_back(batch);
        Ok(())
    }

    /// Makes the first `count` pending batches of a log durable; `is_kept`: whether they really are.
    pub(crate) fn sync(&mut self, name: LogName, count: usize, is_kept: bool) -> Seq {
        let pending = self.pending.get_mut(&name).expect("only logs with pending batches are synced");
        let mut through = Seq::ZERO;
        for batch in pending.drain(..count) {
            through = batch.header().seq;
            if is_kept {
                self.logs.entry(name).or_default().push(batch);
            }
        }
        self.pending.retain(|_, pending| !pending.is_empty());
        through
    }

    /// The process died: of what was not durable a prefix of each log may have reached the disk.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        for (name, mut pending) in std::mem::take(&mut self.pending) {
            let kept = if rng.percent(50) { 0 } else { rng.below(pending.len() + 1) };
            self.logs.entry(name).or_default().extend(pending.drain(..kept));
        }
    }

    /// An older image of the disk comes back: each log loses what lies beyond `keep`.
    pub(crate) fn roll_back(&mut self, mut keep: impl FnMut(LogName, usize) -> usize) {
        self.checkpoint = None;
        for (&name, batches) in &mut self.logs {
            let keep = keep(name, batches.len());
            batches.truncate(keep);
        }
    }
}
