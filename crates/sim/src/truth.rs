//! What is true whatever the regions say: every batch that was ever written, and what each disk certainly holds.
//!
//! The world fills it from appends, syncs and recoveries; checkers compare it with what replicas claim.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_causality::{LogId, RegionId, Seq, SessionId, ShardId};
use tombolo_codec::{Batch, Position};

/// Adds that one counter holds, each a base-4 digit of its value.
pub(crate) const DIGITS: usize = 20;

/// Names a session's number in a shard.
pub(crate) type NumberKey = (ShardId, RegionId, u64, u64);

pub(crate) fn number_key(shard: ShardId, session: &SessionId, number: u64) -> NumberKey {
    (shard, session.home, session.random, number)
}

#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) batches: BTreeMap<(LogId, Seq), Batch>,
    /// Per node, through where each log is durable on its disk or in its checkpoint.
    pub(crate) held: Vec<BTreeMap<LogId, Seq>>,
    /// Per shard and add, the batches that hold it.
    pub(crate) places: Vec<BTreeMap<usize, Vec<(LogId, Seq)>>>,
    pub(crate) numbers: BTreeMap<NumberKey, Vec<(LogId, Seq)>>,
    /// Nodes whose region was removed: what they alone hold is given up.
    pub(crate) gone: BTreeSet<usize>,
    /// By the log taken over: its end, and where that stands.
    pub(crate) seals: BTreeMap<LogId, (Seq, LogId, Seq)>,
    /// Of the longest batch.
    pub(crate) batch_bytes_max: usize,
}

impl Truth {
    pub(crate) fn new(nodes: usize, shards: usize) -> Self {
        Self { held: vec![BTreeMap::new(); nodes], places: vec![BTreeMap::new(); shards], ..Self::default() }
    }

    /// A batch was written for the first time.
    pub(crate) fn wrote(&mut self, batch: &Batch) {
        let (log, seq) = (batch.header().log, batch.header().seq);
        let shard = usize::from(log.shard.0);
        for add in adds_of(batch) {
            self.places[shard].entry(add).or_default().push((log, seq));
        }
        let records = batch.records();
        for op in records.ops() {
            self.numbers.entry(number_key(log.shard, &op.session, op.number)).or_default().push((log, seq));
        }
        for conditional in records.conditionals() {
            let key = number_key(log.shard, &conditional.op.session, conditional.op.number);
            self.numbers.entry(key).or_default().push((log, seq));
        }
        for seal in records.seals() {
            let sealed = LogId { shard: log.shard, region: seal.region, epoch: seal.epoch };
            // A removed region may seal what its heir has sealed, or is about to.
            if self.gone.contains(&crate::world::node_of(log.region)) {
                self.seals.entry(sealed).or_insert((seal.end, log, seq));
            } else {
                self.seals.insert(sealed, (seal.end, log, seq));
            }
        }
        self.batch_bytes_max = self.batch_bytes_max.max(batch.bytes().len());
        self.batches.insert((log, seq), batch.clone());
    }

    /// Through where a node's disk holds a log.
    pub(crate) fn held(&self, node: usize, log: LogId) -> Seq {
        self.held[node].get(&log).copied().unwrap_or(Seq::ZERO)
    }

    pub(crate) fn synced(&mut self, node: usize, log: LogId, through: Seq) {
        let held = self.held[node].entry(log).or_default();
        *held = through.max(*held);
    }

    /// Whether any member's disk holds a batch.
    pub(crate) fn is_anywhere(&self, log: LogId, seq: Seq) -> bool {
        (0..self.held.len()).any(|node| !self.gone.contains(&node) && self.held(node, log) >= seq)
    }

    /// Whether whoever holds a position holds what stands at another place.
    pub(crate) fn is_at_or_after(&self, position: &Position, mut place: (LogId, Seq)) -> bool {
        loop {
            if place.0 == position.log {
                return position.seq >= place.1;
            }
            match self.seals.get(&place.0) {
                Some(&(end, by, at)) if end >= place.1 => place = (by, at),
                _ => return false,
            }
        }
    }

    /// Follows seals from a position; none if a seal cut it off.
    pub(crate) fn resolve(&self, position: &Position) -> Option<Position> {
        let mut at = *position;
        while let Some(&(end, log, seq)) = self.seals.get(&at.log) {
            if at.seq > end {
                return None;
            }
            at = Position { log, seq };
        }
        Some(at)
    }
}

/// The accounted adds that a batch holds, also conditional ones.
pub(crate) fn adds_of(batch: &Batch) -> Vec<usize> {
    let mut adds = Vec::new();
    let mut take = |key: &[u8], positive: u64, negative: u64| {
        let Some(number) =
            key.strip_prefix(b"a").and_then(|rest| std::str::from_utf8(rest).ok()?.parse::<usize>().ok())
        else {
            return;
        };
        let total = positive | negative;
        adds.extend(
            (0..DIGITS).filter(|digit| total >> (2 * digit) & 3 != 0).map(|digit| number * DIGITS + digit),
        );
    };
    let records = batch.records();
    for add in records.adds() {
        take(add.cell.key, add.positive, add.negative);
    }
    for conditional in records.conditionals() {
        for (cell, _, delta) in conditional.adds {
            take(cell.key, delta.unsigned_abs(), 0);
        }
    }
    adds
}
