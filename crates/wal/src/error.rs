//! [`WalError`]: what the log refuses or cannot do, with the facts needed to act on it.

use tombolo_causality::{ClusterId, LogId, RegionId, Seq};

use crate::disk::DiskError;

/// Why the log did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// The disk refused; [`WalError::is_full`] tells what may be tried again.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A write or sync of this log failed earlier. Nothing of it is acked any more by this process (W5).
    #[error("log {log:?} is closed for writing since: {reason}")]
    Poisoned {
        /// Which.
        log: LogId,
        /// The first failure.
        reason: String,
    },
    /// Not the next batch of its log.
    #[error("log {log:?} expects {expected:?}, was given {found:?}")]
    OutOfOrder {
        /// Which.
        log: LogId,
        /// The next seq.
        expected: Seq,
        /// The batch's seq.
        found: Seq,
    },
    /// The batch follows another batch than the log's last one: somebody's log forked (W2, W4).
    #[error("log {log:?} {seq:?} does not follow the batch before it")]
    BrokenChain {
        /// Which.
        log: LogId,
        /// The batch refused.
        seq: Seq,
    },
    /// A batch of another shard or log than the one it was handed to.
    #[error("a batch of log {found:?} was handed to {expected}")]
    WrongLog {
        /// The shard or log.
        expected: String,
        /// The batch's.
        found: LogId,
    },
    /// Data of another cluster.
    #[error("{path} belongs to cluster {found}, this is cluster {expected}")]
    WrongCluster {
        /// Where.
        path: String,
        /// Ours.
        expected: ClusterId,
        /// Its.
        found: ClusterId,
    },
    /// A data directory of another region.
    #[error("{path} belongs to region {found}, this is region {expected}")]
    WrongRegion {
        /// Where.
        path: String,
        /// Ours.
        expected: RegionId,
        /// Its.
        found: RegionId,
    },
    /// A data directory made for another number of shards.
    #[error("{path} was made for {found} shards, the cluster has {expected}")]
    WrongShards {
        /// Where.
        path: String,
        /// Ours.
        expected: u16,
        /// Its.
        found: u16,
    },
    /// A data directory of a format this build does not read.
    #[error("{path} has format version {found}; this build reads {expected}")]
    Format {
        /// Where.
        path: String,
        /// Ours.
        expected: u32,
        /// Its.
        found: u32,
    },
    /// The manifest is missing beside data, or does not read.
    #[error("{path}: {what}")]
    Manifest {
        /// Where.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// History that this node does not hold: pruned, or never had.
    #[error("log {log:?}: {from:?} is not held here; the first after it is {first:?}")]
    NotRetained {
        /// Which.
        log: LogId,
        /// The seq asked for.
        from: Seq,
        /// The lowest seq above it that is held, if any.
        first: Option<Seq>,
    },
    /// Bytes that were right when written do not verify.
    #[error("log {log:?} {seq:?} in {path} is damaged: {what}")]
    Rot {
        /// Which.
        log: LogId,
        /// The first batch that does not read.
        seq: Seq,
        /// Where.
        path: String,
        /// What was found.
        what: String,
    },
    /// The log's thread has stopped.
    #[error("the committer has stopped")]
    Stopped,
}

impl WalError {
    /// Whether the same call may succeed once space returns (W6).
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_full())
    }

    /// Whether the data directory belongs to somebody else: nothing in it was changed.
    #[must_use]
    pub const fn is_wrong_directory(&self) -> bool {
        matches!(
            self,
            Self::WrongCluster { .. }
                | Self::WrongRegion { .. }
                | Self::WrongShards { .. }
                | Self::Format { .. }
        )
    }
}
