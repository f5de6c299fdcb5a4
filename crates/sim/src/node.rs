//! [`Node`] and its [`Process`]: one disk, one clock, and while it runs one incarnation with its shards, commit
//! threads and links, wired as the daemon wires them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tombolo_causality::{Epoch, LogId, RegionId, Seq, ShardId, Time, VersionVector};
use tombolo_codec::{Batch, Checkpoint, Membership};
use tombolo_replica::{Link, Now, Replica, Ticket};
use tombolo_wal::{GroupCommit, MemoryDisk};

use crate::cut_disk::CutDisk;
use crate::queue::{MS, Micros};

/// When the world begins, by a clock that is right.
const BEGINNING_UNIX_US: i64 = 1_750_000_000_000_000;

/// A wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallClock {
    pub(crate) offset_us: i64,
    pub(crate) drift_ppm: i64,
}

impl WallClock {
    pub(crate) fn read(&self, now: Micros) -> Time {
        let now = i64::try_from(now).expect("worlds are short");
        let us = BEGINNING_UNIX_US + now + now / 1_000_000 * self.drift_ppm + self.offset_us;
        Time::from_unix_ns(u128::try_from(us).unwrap_or(0) * 1_000)
    }
}

/// A region's machine.
pub(crate) struct Node {
    pub(crate) id: RegionId,
    pub(crate) disk: CutDisk,
    /// Images of the disk as it was.
    pub(crate) images: Vec<(MemoryDisk, Membership)>,
    /// Who belongs to the cluster, as its disk says.
    pub(crate) document: Membership,
    /// Whether its region has ever been a member.
    pub(crate) is_declared: bool,
    pub(crate) clock: WallClock,
    pub(crate) is_relaxed: bool,
    pub(crate) sync_takes: Micros,
    pub(crate) slow_until: Micros,
    /// Counts processes: what was meant for an earlier one is dropped.
    pub(crate) life: u64,
    pub(crate) process: Option<Process>,
    /// Its process ended for good.
    pub(crate) is_dead: bool,
    /// Its disk came back older, and it is not whole since.
    pub(crate) is_rolled_back: bool,
    /// Its disk lost something, and it is not whole since.
    pub(crate) is_ignorant: bool,
    /// Bits of its disk rotted before this start.
    pub(crate) is_rotten: bool,
    /// Ranges that rot took: they must come back.
    pub(crate) missing: Vec<(LogId, Seq)>,
    /// A manifest that rotted, as it was.
    pub(crate) manifest: Option<Vec<u8>>,
}

/// One incarnation.
pub(crate) struct Process {
    pub(crate) epoch: Epoch,
    pub(crate) started: Micros,
    pub(crate) shards: Vec<Shard>,
    pub(crate) threads: Vec<CommitThread>,
    /// Logs whose next batch waits for room.
    pub(crate) stalled: BTreeSet<LogId>,
    pub(crate) links: BTreeMap<usize, LinkState>,
    /// Acks not sent yet, per peer: only the latest of a log matters.
    pub(crate) acks: Vec<BTreeMap<LogId, Seq>>,
    pub(crate) next_link: u64,
    /// The checkpoints written last by this process, for pruning.
    pub(crate) checkpoints: BTreeMap<ShardId, Checkpoint>,
    pub(crate) pruned: BTreeSet<LogId>,
    pub(crate) is_clock_ahead: bool,
    pub(crate) is_restart_due: bool,
    /// What other members held when it started.
    pub(crate) others_held: Vec<(usize, LogId, Seq)>,
}

/// One shard in a process.
pub(crate) struct Shard {
    pub(crate) replica: Replica,
    pub(crate) is_flush_due: bool,
    pub(crate) is_whole: bool,
    pub(crate) paused: BTreeSet<RegionId>,
    /// What was last seen applied, per log.
    pub(crate) seen: VersionVector,
    pub(crate) barriers: BTreeMap<Ticket, tombolo_codec::Position>,
    /// Bytes of the longest queue that recovery left: read from its own disk, they wait for what that lost.
    pub(crate) recovered_queue_bytes: usize,
    /// Whether its last install failed.
    pub(crate) has_failed_install: bool,
}

/// One commit thread: it takes what waits, writes it, syncs, tells, and begins again.
pub(crate) struct CommitThread {
    pub(crate) group: GroupCommit<CutDisk>,
    pub(crate) inbox: VecDeque<Batch>,
    pub(crate) is_busy: bool,
    pub(crate) is_retry_due: bool,
}

/// One end of a connection.
pub(crate) struct LinkState {
    pub(crate) connection: u64,
    pub(crate) link: Link,
    pub(crate) peer_epoch: Option<Epoch>,
    pub(crate) described: BTreeMap<ShardId, (VersionVector, VersionVector)>,
    pub(crate) next_ack: Micros,
    pub(crate) is_ack_due: bool,
}

impl Node {
    pub(crate) fn now(&self, now: Micros) -> Now {
        let started = self.process.as_ref().map_or(now, |process| process.started);
        Now { wall: self.clock.read(now), monotonic_ms: (now - started) / MS }
    }

    /// Whether what its disk was known to hold is still there: no fault has struck it since it was last looked at.
    pub(crate) fn is_sound(&self) -> bool {
        self.is_up() || !(self.is_rotten || self.is_rolled_back)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn replica(&self, shard: usize) -> Option<&Replica> {
        self.process.as_ref().map(|process| &process.shards[shard].replica)
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.shards.iter().all(|shard| shard.is_whole))
    }
}

impl Process {
    pub(crate) fn thread_of(&self, shard: ShardId) -> usize {
        usize::from(shard.0) % self.threads.len()
    }
}
