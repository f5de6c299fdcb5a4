//! Logs of others (and of this region's earlier epochs): received in order, made durable, then applied.
//!
//! Each log keeps its own queue, so one that waits or is halted does not hold up the others. A batch is taken in once
//! every log it seals is applied here through its end: else the seal could outlive what it seals. It is applied once it
//! is durable here, all before it are applied, and its writer is not paused.

use std::collections::{BTreeMap, VecDeque};

use tombolo_causality::{RegionId, Seq};
use tombolo_codec::Batch;
use tombolo_mutants::{Mutant, is_planted};

use crate::input::PeerLimits;
use crate::state::logs::{LogName, Logs, Tail};

/// What became of a received batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// The next one: write it.
    Next,
    /// Had it before.
    Duplicate,
    /// Some before it are missing.
    Gap {
        /// The first that is missing.
        expected: Seq,
    },
    /// It contradicts what was received before (W2): the log is halted.
    Fork(String),
    /// The log is halted or was taken over.
    Refused,
}

/// Why the next batch of a log is not taken in, or not applied although it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocked {
    /// The log it waits for.
    pub(crate) on: LogName,
    /// Through which batch.
    pub(crate) end: Seq,
    /// The batch that waits: it holds the seal.
    pub(crate) at: Seq,
}

#[derive(Debug)]
struct Incoming {
    received: Seq,
    tail: Tail,
    durable: Seq,
    queue: VecDeque<Batch>,
    queue_bytes: usize,
    /// Whether batches were dropped for want of room. Then the queue is longer than a window: it will fall below, and
    /// what was dropped is asked for again.
    is_dropping: bool,
    blocked: Option<Blocked>,
    /// Whether the batch that waits was not taken in.
    is_held_back: bool,
    halted: Option<String>,
}

/// What was received of every log but the one written here.
#[derive(Debug)]
pub(crate) struct Intake {
    logs: BTreeMap<LogName, Incoming>,
    /// A log whose queue is twice this long takes in no more: each new subscription starts with an empty window at its
    /// source, so windows alone do not bound what gathers here while nothing is applied (R9). It asks again once a
    /// whole window fits.
    window_bytes: usize,
}

impl Default for Intake {
    fn default() -> Self {
        Self::new(PeerLimits::default().window_bytes)
    }
}

impl Intake {
    pub(crate) fn new(window_bytes: usize) -> Self {
        Self { logs: BTreeMap::new(), window_bytes }
    }

    /// The longest queue, in bytes.
    pub(crate) fn queue_bytes(&self) -> usize {
        self.logs.values().map(|log| log.queue_bytes).max().unwrap_or(0)
    }

    fn log(&mut self, name: LogName, applied: &Logs) -> &mut Incoming {
        self.logs.entry(name).or_insert_with(|| {
            let end = applied.end(name);
            Incoming {
                received: end,
                tail: applied.tail(name),
                durable: end,
                queue: VecDeque::new(),
                queue_bytes: 0,
                is_dropping: false,
                blocked: None,
                is_held_back: false,
                halted: None,
            }
        })
    }

    /// Whether a batch of a log finds no room and is dropped; see [`Intake::take_drained`].
    pub(crate) fn is_dropped(&mut self, name: LogName, seq: Seq) -> bool {
        let Some(log) = self.logs.get_mut(&name) else { return false };
        if seq <= log.received || log.halted.is_some() {
            return false;
        }
        if log.is_held_back {
            return true;
        }
        // What follows a dropped batch is no gap to ask for at once: it comes again with that.
        let is_full = log.queue_bytes >= 2 * self.window_bytes && !is_planted(Mutant::QueueWithoutBound);
        let is_dropped = is_full || (log.is_dropping && seq > log.received.next());
        log.is_dropping |= is_dropped;
        is_dropped
    }

    /// Whether a log dropped batches and now has room for them, from the one after the last received on; said once.
    pub(crate) fn take_drained(&mut self, name: LogName) -> bool {
        let Some(log) = self.logs.get_mut(&name) else { return false };
        let is_drained = log.is_dropping && log.queue_bytes < self.window_bytes;
        log.is_dropping &= !is_drained;
        is_drained
    }

    /// The next batch of a log seals what is not here yet: it is dropped, and all that follows it, until
    /// [`Intake::take_released`]. Says whether that is new.
    pub(crate) fn hold_back(&mut self, name: LogName, blocked: Blocked, applied: &Logs) -> bool {
        let log = self.log(name, applied);
        let is_next = blocked.at == log.received.next() && log.halted.is_none();
        if is_next {
            log.blocked = Some(blocked);
            log.is_held_back = true;
        }
        is_next
    }

    /// Whether a log's next batch was held back, and is to be asked for again now; said once.
    pub(crate) fn take_released(&mut self, name: LogName) -> bool {
        let Some(log) = self.logs.get_mut(&name).filter(|log| log.is_held_back) else { return false };
        log.is_held_back = false;
        log.blocked = None;
        true
    }

    /// Takes a batch in, if it is the next one of its log.
    pub(crate) fn receive(&mut self, batch: &Batch, applied: &Logs) -> Receipt {
        let header = batch.header();
        let name = (header.log.region, header.log.epoch);
        if applied.sealed(name).is_some() {
            return Receipt::Refused;
        }
        let log = self.log(name, applied);
        if log.halted.is_some() {
            return Receipt::Refused;
        }
        if header.seq <= log.received {
            let is_fork = header.seq == log.received && header.digest != log.tail.digest;
            return if is_fork {
                log.fork(format!("two batches {} of {name:?}", header.seq))
            } else {
                Receipt::Duplicate
            };
        }
        let expected = log.received.next();
        if header.seq > expected {
            return Receipt::Gap { expected };
        }
        if header.previous != log.tail.digest {
            return log.fork(format!("batch {} of {name:?} does not follow the one held here", header.seq));
        }
        log.received = header.seq;
        log.tail = Tail::of(header);
        log.queue_bytes += batch.bytes().len();
        log.queue.push_back(batch.clone());
        Receipt::Next
    }

    /// A difference brought the state to a later end of a log: what waits here up to there is in it.
    pub(crate) fn jump(&mut self, name: LogName, applied: &Logs) {
        let end = applied.end(name);
        let log = self.log(name, applied);
        while log.queue.front().is_some_and(|batch| batch.header().seq <= end) {
            log.queue_bytes -= log.queue.pop_front().map_or(0, |batch| batch.bytes().len());
        }
        if log.received < end {
            log.received = end;
            log.tail = applied.tail(name);
        }
        log.durable = log.durable.max(end);
        log.blocked = None;
        log.is_held_back = false;
        log.is_dropping = false;
    }

    /// Through which batch a log was received, durable or not.
    pub(crate) fn received(&self, name: LogName, applied: &Logs) -> Seq {
        self.logs.get(&name).map_or_else(|| applied.held(name), |log| log.received)
    }

    /// Every log received so far with its end.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (LogName, Seq)> + '_ {
        self.logs.iter().map(|(&name, log)| (name, log.received))
    }

    pub(crate) fn set_durable(&mut self, name: LogName, through: Seq) {
        if let Some(log) = self.logs.get_mut(&name) {
            log.durable = through.max(log.durable);
        }
    }

    /// The batch that may be applied next, if it is durable and the log is not halted.
    pub(crate) fn next(&self, name: LogName) -> Option<&Batch> {
        let log = self.logs.get(&name)?;
        let batch = log.queue.front()?;
        let is_durable = batch.header().seq <= log.durable || is_planted(Mutant::ReceivedIsApplied);
        (log.halted.is_none() && is_durable).then_some(batch)
    }

    /// The next batch of a log was applied.
    pub(crate) fn pop(&mut self, name: LogName) {
        if let Some(log) = self.logs.get_mut(&name) {
            log.queue_bytes -= log.queue.pop_front().map_or(0, |batch| batch.bytes().len());
            // What was not taken in stands behind the queue, and goes on waiting.
            if !log.is_held_back {
                log.blocked = None;
            }
        }
    }

    pub(crate) fn block(&mut self, name: LogName, blocked: Blocked) {
        if let Some(log) = self.logs.get_mut(&name) {
            log.blocked = Some(blocked);
        }
    }

    /// Logs whose next batch waits for another log.
    pub(crate) fn blocked(&self) -> impl Iterator<Item = (LogName, &Blocked)> + '_ {
        self.logs.iter().filter_map(|(&name, log)| log.blocked.as_ref().map(|blocked| (name, blocked)))
    }

    /// Logs of a region.
    pub(crate) fn of_region(&self, region: RegionId) -> Vec<LogName> {
        self.logs.keys().copied().filter(|name| name.0 == region).collect()
    }

    /// Forgets a log that was taken over.
    pub(crate) fn forget(&mut self, name: LogName) {
        self.logs.remove(&name);
    }

    pub(crate) fn halt(&mut self, name: LogName, why: String, applied: &Logs) {
        self.log(name, applied).halted = Some(why);
    }

    /// Logs of which something waits to be applied: its first seq, the last one received, and how much it is.
    pub(crate) fn queues(&self) -> impl Iterator<Item = (LogName, Seq, Seq, usize)> + '_ {
        self.logs.iter().filter_map(|(&name, log)| {
            let front = log.queue.front()?.header().seq;
            Some((name, front, log.received, log.queue_bytes))
        })
    }

    /// Halted logs with the reason.
    pub(crate) fn halted(&self) -> impl Iterator<Item = (LogName, &str)> + '_ {
        self.logs.iter().filter_map(|(&name, log)| log.halted.as_deref().map(|why| (name, why)))
    }
}

impl Incoming {
    fn fork(&mut self, why: String) -> Receipt {
        self.halted = Some(why.clone());
        Receipt::Fork(why)
    }
}

#[cfg(test)]
mod tests;
