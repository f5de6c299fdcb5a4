//! The logs of one shard: short local names for them, their applied ends, and which were taken over by which.

use std::collections::BTreeMap;

use tombolo_causality::{Epoch, LogId, RegionId, Seq, ShardId, Time, VersionVector};
use tombolo_codec::checkpoint::{LogEnd, SealedLog};
use tombolo_codec::records::Seal;
use tombolo_codec::{Digest, Header};

/// A log's name inside its shard.
pub type LogName = (RegionId, Epoch);

/// A log's name inside this process: an index, so that a counter's slot stays small. Never leaves the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LogIndex(u32);

/// What a log's next batch must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) digest: Digest,
    pub(crate) ops_total: u64,
    pub(crate) clock: Time,
}

impl Tail {
    pub(crate) const START: Self = Self { digest: Digest::ZERO, ops_total: 0, clock: Time::ZERO };

    pub(crate) fn of(header: &Header) -> Self {
        Self { digest: header.digest, ops_total: header.ops_total, clock: header.clock }
    }
}

/// Where a seal stands: the log that took over, and the batch that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedBy {
    pub(crate) end: Seq,
    pub(crate) by: LogName,
    pub(crate) at: Seq,
}

/// Names, applied ends and seals of a shard's logs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logs {
    names: Vec<LogName>,
    indexes: BTreeMap<LogName, LogIndex>,
    vector: VersionVector,
    tails: BTreeMap<LogName, Tail>,
    sealed: BTreeMap<LogName, SealedBy>,
}

impl Logs {
    pub(crate) fn index(&mut self, name: LogName) -> LogIndex {
        if let Some(&index) = self.indexes.get(&name) {
            return index;
        }
        let index =
            LogIndex(u32::try_from(self.names.len()).expect("fewer than 2^32 logs in one process life"));
        self.names.push(name);
        self.indexes.insert(name, index);
        index
    }

    pub(crate) fn name(&self, index: LogIndex) -> LogName {
        self.names[index.0 as usize]
    }

    pub(crate) fn vector(&self) -> &VersionVector {
        &self.vector
    }

    pub(crate) fn end(&self, name: LogName) -> Seq {
        self.vector.get(name.0, name.1)
    }

    pub(crate) fn tail(&self, name: LogName) -> Tail {
        self.tails.get(&name).copied().unwrap_or(Tail::START)
    }

    pub(crate) fn sealed(&self, name: LogName) -> Option<SealedBy> {
        self.sealed.get(&name).copied()
    }

    /// Through which batch the log's content is in this state, whether the log still stands or was taken over.
    pub(crate) fn held(&self, name: LogName) -> Seq {
        self.sealed(name).map_or_else(|| self.end(name), |sealed| sealed.end)
    }

    /// Through which batch every log's content is in this state: those that stand, and those that were taken over.
    pub(crate) fn all_held(&self) -> BTreeMap<LogName, Seq> {
        let sealed = self.sealed.iter().map(|(&name, sealed)| (name, sealed.end));
        self.vector.iter().chain(sealed).collect()
    }

    /// Whether this state holds a log through `seq`.
    pub(crate) fn holds(&self, name: LogName, seq: Seq) -> bool {
        self.held(name) >= seq
    }

    /// Follows seals: a position in a log that was taken over is reached where its seal is.
    ///
    /// None if it lies beyond the end that the seal names: a crash took it before it was durable, nobody ever holds it.
    pub(crate) fn resolve(&self, mut name: LogName, mut seq: Seq) -> Option<(LogName, Seq)> {
        // Each step leads to a log that ended later, so the walk ends.
        while let Some(sealed) = self.sealed(name) {
            if seq > sealed.end {
                return None;
            }
            (name, seq) = (sealed.by, sealed.at);
        }
        Some((name, seq))
    }

    pub(crate) fn advance(&mut self, header: &Header) {
        let name = (header.log.region, header.log.epoch);
        self.vector.advance(name.0, name.1, header.seq);
        self.tails.insert(name, Tail::of(header));
    }

    /// A state merge brought this state to a later end of a log.
    pub(crate) fn jump(&mut self, end: &LogEnd) {
        let name = (end.region, end.epoch);
        self.vector.raise(end.region, end.epoch, end.seq);
        let tail = Tail { digest: end.digest, ops_total: end.ops_total, clock: end.clock };
        self.tails.insert(name, tail);
    }

    pub(crate) fn seal(&mut self, seal: Seal, by: LogName, at: Seq) {
        let name = (seal.region, seal.epoch);
        self.vector.remove(name.0, name.1);
        self.tails.remove(&name);
        self.sealed.insert(name, SealedBy { end: seal.end, by, at });
    }

    /// The greatest clock reading among a region's logs that stand.
    pub(crate) fn clock_of(&self, region: RegionId) -> Time {
        let own = self.tails.iter().filter(|((writer, _), _)| *writer == region);
        own.map(|(_, tail)| tail.clock).max().unwrap_or(Time::ZERO)
    }

    pub(crate) fn ends(&self) -> Vec<LogEnd> {
        self.vector
            .iter()
            .map(|((region, epoch), seq)| {
                let tail = self.tail((region, epoch));
                LogEnd {
                    region,
                    epoch,
                    seq,
                    digest: tail.digest,
                    ops_total: tail.ops_total,
                    clock: tail.clock,
                }
            })
            .collect()
    }

    pub(crate) fn sealed_logs(&self) -> Vec<SealedLog> {
        self.sealed
            .iter()
            .map(|(&(region, epoch), sealed)| SealedLog {
                seal: Seal { region, epoch, end: sealed.end },
                by_region: sealed.by.0,
                by_epoch: sealed.by.1,
                by_seq: sealed.at,
            })
            .collect()
    }

    pub(crate) fn restore(ends: &[LogEnd], sealed: &[SealedLog]) -> Self {
        let mut logs = Self::default();
        for end in ends {
            let name = (end.region, end.epoch);
            logs.vector.raise(end.region, end.epoch, end.seq);
            logs.tails.insert(name, Tail { digest: end.digest, ops_total: end.ops_total, clock: end.clock });
        }
        for sealed in sealed {
            let by = (sealed.by_region, sealed.by_epoch);
            let name = (sealed.seal.region, sealed.seal.epoch);
            logs.sealed.insert(name, SealedBy { end: sealed.seal.end, by, at: sealed.by_seq });
        }
        logs
    }
}

/// A log's full name.
pub(crate) const fn log_id(shard: ShardId, name: LogName) -> LogId {
    LogId { shard, region: name.0, epoch: name.1 }
}
