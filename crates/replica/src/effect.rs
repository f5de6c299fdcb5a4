//! What a shard wants done, in order: the shell does it and decides nothing.

use smallvec::SmallVec;
use tombolo_causality::{LogId, RegionId, Seq, Stamp, VersionVector};
use tombolo_codec::{Batch, PeerMessage, Position, ReadValue, Reject};

use crate::heal::merge::Difference;
use crate::input::{Link, Ticket, WritePart};
use crate::verify::VerifyReport;
use crate::verify::mend::Mending;

/// What a write came to in this shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The log positions that hold it: one, but for a replay of which only several logs together are known to; none if
    /// there was nothing to log and nothing was ever logged.
    pub positions: SmallVec<[Position; 1]>,
    /// Whether all of it had been logged before.
    pub replayed: bool,
    /// Whether it was logged by a region that is not its session's authority: its number is not settled yet.
    pub conditional: bool,
    /// The stamp of each op that fixed one.
    pub stamps: Vec<Option<Stamp>>,
    /// For adds, the counter's value after the op, if asked for; for deletes 1 if something visible went, else 0.
    pub values: Vec<Option<i128>>,
}

impl Outcome {
    /// Of ops that had been logged before: their stamps and values are not kept.
    pub(crate) fn replayed(
        positions: impl IntoIterator<Item = Position>,
        conditional: bool,
        ops_count: usize,
    ) -> Self {
        let (stamps, values) = (vec![None; ops_count], vec![None; ops_count]);
        Self { positions: positions.into_iter().collect(), replayed: true, conditional, stamps, values }
    }
}

/// The answer to a ticket.
#[derive(Debug)]
pub enum Answer {
    /// To a check: the part itself, to be handed over.
    Checked(Result<Box<WritePart>, Reject>),
    /// To a write.
    Written(Result<Outcome, Reject>),
    /// To a read.
    Read(Vec<ReadValue>),
    /// To a verification.
    Verified(Result<Box<VerifyReport>, Reject>),
}

/// Something an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Stable code, such as `clock_ahead`.
    pub code: &'static str,
    /// What happened.
    pub text: String,
}

/// What a shard wants done.
#[derive(Debug)]
pub enum Effect {
    /// Write a batch to its log, then say how far it is durable.
    Append(Batch),
    /// Answer a caller.
    Answer {
        /// Which.
        ticket: Ticket,
        /// With what.
        answer: Answer,
    },
    /// Tell the waiter of a barrier that a region holds its positions.
    Reached {
        /// Which waiter.
        ticket: Ticket,
        /// Which region.
        region: RegionId,
    },
    /// Tell the waiter of a barrier that a region restarted and may no longer hold them.
    Voided {
        /// Which waiter.
        ticket: Ticket,
        /// Which region.
        region: RegionId,
    },
    /// Send a batch to a peer, on the log's lane.
    Ship {
        /// To whom.
        peer: RegionId,
        /// On which connection.
        link: Link,
        /// What.
        batch: Batch,
    },
    /// Read batches from the log's files and hand them back.
    Load {
        /// For whom.
        peer: RegionId,
        /// For which connection.
        link: Link,
        /// Which log.
        log: LogId,
        /// The first one.
        from: Seq,
        /// About how many bytes.
        bytes_max: usize,
    },
    /// Send a control message to a peer.
    Send {
        /// To whom.
        peer: RegionId,
        /// On which connection.
        link: Link,
        /// What.
        message: PeerMessage,
    },
    /// End a connection: the process at its other end may have been succeeded by another. One that lives connects anew.
    Disconnect {
        /// To whom.
        peer: RegionId,
        /// Which connection.
        link: Link,
    },
    /// This shard's part of the answer to a peer's hello.
    Describe {
        /// To whom.
        peer: RegionId,
        /// On which connection.
        link: Link,
        /// All this shard may come to hold.
        received: VersionVector,
        /// All it has applied.
        applied: VersionVector,
    },
    /// Tell every peer that this much is applied and durable here; only the latest of a log matters.
    Ack(Position),
    /// A batch of another region was applied: how old it was by the writer's clock.
    Applied {
        /// Who wrote it.
        region: RegionId,
        /// How many ops.
        ops_count: u32,
        /// Milliseconds from the writer closing it to it being visible here; negative clocks count as 0.
        age_ms: f64,
    },
    /// Join this with the state in a checkpoint ([`crate::joined`]), make that durable, let the files of the logs that
    /// moved go on behind it, then say [`crate::Input::Installed`]. Nothing of it may be visible before.
    Install(Box<Difference>),
    /// Put these entries right in a checkpoint ([`Mending::mend`]), make that durable, then say [`crate::Input::Mended`].
    Mend(Box<Mending>),
    /// Say [`crate::Input::Proceed`] once what waits has been handled: there is more to do than one step should take.
    Proceed,
    /// This shard has caught up with all that any member held when the process started.
    BecameWhole,
    /// Raise a finding.
    Notice(Notice),
}
