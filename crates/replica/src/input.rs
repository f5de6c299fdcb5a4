//! What a shard is told: by clients, by its own disk, by peers.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, Seq, ShardId, TenantId, Time, VersionVector};
use tombolo_codec::limits::ENTRIES_BYTES_TARGET;
use tombolo_codec::{Batch, Op, PeerMessage, Position, Roster, Schema, SessionPart};

use crate::exchange::held::Held;
use crate::heal::merge::Difference;
use crate::verify::entry::EntryName;
use crate::verify::mend::Mending;

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once its batch is durable and applied.
    Sync,
    /// Once its batch is staged; applying, offering and acks wait for the sync all the same.
    Relaxed,
}

/// What does not change while the process lives.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster.
    pub cluster: ClusterId,
    /// This shard.
    pub shard: ShardId,
    /// This region.
    pub region: RegionId,
    /// This incarnation.
    pub epoch: Epoch,
    /// Who belongs to the cluster at the start; see [`Input::Members`].
    pub roster: Roster,
    /// When a write is answered.
    pub durability: Durability,
    /// Declared kinds.
    pub schema: Arc<Schema>,
    /// How far ahead of this region's clock a stamp may lie, in milliseconds.
    pub drift_ms_max: u64,
    /// Most numbers a session may hold above its settled mark.
    pub session_numbers_max: usize,
    /// For how long anything may be sent again, in milliseconds; see [`Options::window_start`].
    pub window_ms: u64,
    /// What a peer may cost.
    pub peer_limits: PeerLimits,
}

/// What a peer may cost in memory, however slow it is or long away (R9). Small worlds lower them to meet what large
/// ones do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLimits {
    /// Bytes of one log on their way to one peer, not yet acknowledged; and half of what may wait here of one log.
    pub window_bytes: usize,
    /// Cuts that peers may have open at once: each keeps a copy of what changes meanwhile.
    pub cuts_max: usize,
    /// Bytes at which an answer with entries ends; a leaf alone may have ten times as many.
    pub entries_bytes: usize,
    /// Bytes that stand for a digest where a difference is looked for, 1 to 8. Few are cheap; should two entries be taken
    /// for one, the digests of whole sections tell, and it is looked for again with all eight.
    pub digest_bytes: u8,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            window_bytes: 1_024 * 1_024,
            cuts_max: 4,
            entries_bytes: ENTRIES_BYTES_TARGET,
            digest_bytes: 3,
        }
    }
}

impl Options {
    /// What was opened or stamped before this is refused at the doors.
    #[must_use]
    pub fn window_start(&self, wall: Time) -> Time {
        wall.minus_ms(self.window_ms)
    }

    /// What was opened or stamped longer ago is refused at every door in the cluster, by any clock within the bound: a
    /// copy may have been admitted two bounds ahead of one clock, and another clock may lie one bound behind.
    #[must_use]
    pub fn forgettable_after_ms(&self) -> u64 {
        self.window_ms.saturating_add(self.drift_ms_max.saturating_mul(3))
    }
}

/// The moment an input is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// The wall clock's reading.
    pub wall: Time,
    /// Milliseconds of a clock that never goes back; for ages only.
    pub monotonic_ms: u64,
}

/// Names a caller's question until it is answered; drawn by the shell, unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names one connection to a peer; frames of another one are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(pub u64);

/// A request's part in this shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WritePart {
    /// Whose keys.
    pub tenant: TenantId,
    /// The request's place in its session.
    pub session: Option<SessionPart>,
    /// Whether it was sent before.
    pub retry: bool,
    /// Stamps drawn here come after this time.
    pub after: Time,
    /// The ops, in order.
    pub ops: Vec<Op>,
    /// Whether counters' values after the ops are wanted.
    pub wants_values: bool,
}

/// What a shard is told.
#[derive(Debug)]
pub enum Input {
    /// Would this be admitted? Answered with the part itself, so that it can be handed over for good.
    Check {
        /// Whose answer.
        ticket: Ticket,
        /// What.
        part: Box<WritePart>,
    },
    /// Admit, log, answer.
    Write {
        /// Whose answer.
        ticket: Ticket,
        /// What.
        part: Box<WritePart>,
    },
    /// Read, once the positions are covered here.
    Read {
        /// Whose answer.
        ticket: Ticket,
        /// Whose keys.
        tenant: TenantId,
        /// The keys.
        keys: Vec<Bytes>,
        /// What must be covered first.
        after: Vec<Position>,
    },
    /// Tell each region that holds these positions, as it comes to hold them.
    Await {
        /// Whose answer.
        ticket: Ticket,
        /// Positions in this shard.
        positions: Vec<Position>,
    },
    /// The caller of a read, await or verification no longer waits.
    Cancel {
        /// Whose.
        ticket: Ticket,
    },

    /// Batches of a log were handed to the operating system.
    Staged {
        /// Which log.
        log: LogId,
        /// Through which batch.
        through: Seq,
    },
    /// Batches of a log are durable here.
    Durable {
        /// Which log.
        log: LogId,
        /// Through which batch.
        through: Seq,
    },
    /// A log can never be written again: a write or sync failed.
    StorageFailed {
        /// Which log.
        log: LogId,
        /// What the machine said.
        text: String,
    },
    /// The disk is full, or has room again.
    StorageFull {
        /// Whether it is full.
        is_full: bool,
    },

    /// A connection to a peer came up and it said who it is.
    PeerUp {
        /// The peer.
        peer: RegionId,
        /// Its incarnation.
        epoch: Epoch,
        /// The connection.
        link: Link,
    },
    /// The peer answered this region's hello.
    PeerAnswer {
        /// The peer.
        peer: RegionId,
        /// The connection.
        link: Link,
        /// All it may come to hold, of this shard.
        received: VersionVector,
        /// All it has applied, of this shard.
        applied: VersionVector,
    },
    /// A connection ended.
    PeerDown {
        /// The peer.
        peer: RegionId,
        /// The connection.
        link: Link,
    },
    /// A batch came from a peer, verified.
    Remote {
        /// The peer it came from, not necessarily its writer.
        from: RegionId,
        /// The connection.
        link: Link,
        /// The batch.
        batch: Batch,
    },
    /// A peer wants a log.
    Subscribe {
        /// The peer.
        from: RegionId,
        /// The connection.
        link: Link,
        /// Which log.
        log: LogId,
        /// From which batch on.
        seq: Seq,
    },
    /// A peer no longer wants a log from here.
    Unsubscribe {
        /// The peer.
        from: RegionId,
        /// The connection.
        link: Link,
        /// Which log.
        log: LogId,
    },
    /// A peer applied batches.
    Acked {
        /// The peer.
        from: RegionId,
        /// The connection.
        link: Link,
        /// Its new ends.
        positions: Vec<Position>,
    },
    /// Batches that [`crate::Effect::Load`] asked for; none if the log is not there.
    Loaded {
        /// The peer they go to.
        peer: RegionId,
        /// The connection.
        link: Link,
        /// Which log.
        log: LogId,
        /// In order.
        batches: Vec<Batch>,
    },
    /// A peer that is not whole asks what this region holds, and says which incarnations of the members it knows.
    WholeAsked {
        /// The peer.
        from: RegionId,
        /// The connection.
        link: Link,
        /// Digest of the roster it asks under.
        roster: u64,
        /// Every member but the peer.
        epochs: Vec<(RegionId, Epoch)>,
    },
    /// What a peer holds, under the incarnations that were named to it.
    WholeAnswered {
        /// The peer.
        from: RegionId,
        /// The connection.
        link: Link,
        /// As this region asked.
        roster: u64,
        /// As this region asked.
        epochs: Vec<(RegionId, Epoch)>,
        /// All it may come to hold, of this shard.
        received: VersionVector,
    },
    /// A peer asks whether its log is applied here through a batch, because nothing in that can be sent again.
    StableAsked {
        /// The peer.
        from: RegionId,
        /// The connection.
        link: Link,
        /// Digest of the roster it asks under.
        roster: u64,
        /// Its log.
        log: LogId,
        /// Through which batch.
        through: Seq,
    },
    /// A whole peer says that it is.
    StableAnswered {
        /// The peer.
        from: RegionId,
        /// The connection.
        link: Link,
        /// As this region asked.
        roster: u64,
        /// This region's log.
        log: LogId,
        /// Through which batch.
        through: Seq,
        /// How far the peer may have written its own log.
        own: Position,
    },
    /// A peer does not keep what was asked of a log.
    NotRetained {
        /// The peer.
        from: RegionId,
        /// The connection.
        link: Link,
        /// Which log.
        log: LogId,
        /// What was asked for.
        seq: Seq,
    },
    /// A peer says something of the cut of this shard that one side of the connection has open for the other.
    Cut {
        /// The peer.
        from: RegionId,
        /// The connection.
        link: Link,
        /// One of the messages about cuts and entries.
        message: Box<PeerMessage>,
    },
    /// What [`crate::Effect::Install`] asked for is durable.
    Installed {
        /// As it was given.
        difference: Box<Difference>,
    },
    /// What [`crate::Effect::Install`] asked for cannot be done; nothing has changed.
    InstallFailed {
        /// Why.
        text: String,
    },
    /// Regions joined, are leaving, or were removed. What this was told is durable here.
    Members(Roster),
    /// What a peer does not apply of this shard, as [`Held`] says.
    HeldThere {
        /// The peer.
        from: RegionId,
        /// The connection.
        link: Link,
        /// What it said.
        held: Held,
    },
    /// Compare this shard with a peer's, entry by entry, while writes go on.
    Verify {
        /// Whose answer.
        ticket: Ticket,
        /// With whom.
        peer: RegionId,
        /// Entries to be replaced by the peer's, if they are damaged; none: nothing is changed.
        mend: Option<BTreeSet<EntryName>>,
    },
    /// What waited has been handled; see [`crate::Effect::Proceed`].
    Proceed,
    /// What [`crate::Effect::Mend`] asked for is durable.
    Mended {
        /// As it was given.
        mending: Box<Mending>,
    },
    /// What [`crate::Effect::Mend`] asked for cannot be done; nothing has changed.
    MendFailed {
        /// Why.
        text: String,
    },
    /// Look after sessions that have expired and garbage; to be told every second or so.
    Tick,
    /// Stop or resume applying what a region wrote.
    PauseApply {
        /// The region.
        peer: RegionId,
        /// Whether to stop.
        is_paused: bool,
    },
    /// This region's own clock is, or is no longer, too far ahead of its peers.
    ClockAhead {
        /// Whether it is.
        is_ahead: bool,
    },
}

impl Input {
    /// What a peer's message tells one shard; none if it is none of a single shard's.
    #[must_use]
    pub fn said(from: RegionId, link: Link, message: PeerMessage) -> Option<(ShardId, Self)> {
        Some(match message {
            PeerMessage::Subscribe { log, from: seq } => {
                (log.shard, Self::Subscribe { from, link, log, seq })
            }
            PeerMessage::Unsubscribe { log } => (log.shard, Self::Unsubscribe { from, link, log }),
            PeerMessage::WholeAsk { shard, roster, epochs } => {
                (shard, Self::WholeAsked { from, link, roster, epochs })
            }
            PeerMessage::WholeAnswer { shard, roster, epochs, received } => {
                let mut vector = VersionVector::new();
                for Position { log, seq } in received {
                    if log.shard == shard && seq > Seq::ZERO {
                        vector.raise(log.region, log.epoch, seq);
                    }
                }
                (shard, Self::WholeAnswered { from, link, roster, epochs, received: vector })
            }
            PeerMessage::StableAsk { roster, log, through } => {
                (log.shard, Self::StableAsked { from, link, roster, log, through })
            }
            PeerMessage::StableAnswer { roster, log, through, own } => {
                (log.shard, Self::StableAnswered { from, link, roster, log, through, own })
            }
            PeerMessage::NotRetained { log, from: seq } => {
                (log.shard, Self::NotRetained { from, link, log, seq })
            }
            PeerMessage::CutAsk { shard, .. }
            | PeerMessage::Cut { shard, .. }
            | PeerMessage::CutRefused { shard }
            | PeerMessage::EntriesAsk { shard, .. }
            | PeerMessage::Entries { shard, .. }
            | PeerMessage::CutDone { shard, .. } => {
                (shard, Self::Cut { from, link, message: Box::new(message) })
            }
            PeerMessage::Held { shard, paused, halted, received } => {
                let name = |log: LogId| (log.region, log.epoch);
                let held = Held {
                    paused: paused.into_iter().collect(),
                    halted: halted.into_iter().map(|(log, why)| (name(log), why)).collect(),
                    received: received.into_iter().map(|at| (name(at.log), at.seq)).collect(),
                };
                (shard, Self::HeldThere { from, link, held })
            }
            PeerMessage::Hello(_)
            | PeerMessage::Members(_)
            | PeerMessage::Acks { .. }
            | PeerMessage::Heartbeat { .. }
            | PeerMessage::Goodbye => return None,
        })
    }
}
