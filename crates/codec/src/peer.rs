//! What regions say to each other besides batches: hellos, subscriptions, acks, heartbeats.

use rkyv::{Archive, Deserialize, Serialize};
use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, Seq, ShardId, Time};

use crate::checkpoint::{Checkpoint, SealedLog};
use crate::entries::{Entries, LEAVES_COUNT, LeafAsk, LeafSums, Section};
use crate::membership::Membership;
use crate::packed::Packed;

/// Version of the peer protocol; another one is refused in the hello.
pub const PEER_VERSION: u16 = 4;

/// A point in a log: "through this seq".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Serialize, Deserialize)]
pub struct Position {
    /// Which log.
    pub log: LogId,
    /// Through which batch.
    pub seq: Seq,
}

/// The first message on a control stream, and the answer to the other side's.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Hello {
    /// Must be the receiver's own.
    pub cluster: ClusterId,
    /// Must be the one the certificate names.
    pub region: RegionId,
    /// The sender's incarnation.
    pub epoch: Epoch,
    /// Protocol version.
    pub version: u16,
    /// Number of shards; must be the receiver's own.
    pub shards_count: u16,
    /// The membership that the sender goes by.
    pub members: Membership,
    /// The incarnation of the receiver that this answers; none in a first hello.
    pub answers: Option<Epoch>,
    /// The highest seq the sender *has received* of each log, over all shards, durable or not: what it may come to
    /// hold. A region is whole when it holds all of this from every member (R8).
    pub received: Vec<Position>,
    /// What the sender has applied and durable of each log, over all shards.
    pub applied: Vec<Position>,
    /// The sender's wall reading, for the skew check.
    pub clock: Time,
}

/// What regions say on the control stream.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Who I am and what I hold.
    Hello(Hello),
    /// Send me this log from this seq on, and go on as you get more.
    Subscribe {
        /// Which log.
        log: LogId,
        /// The first batch wanted.
        from: Seq,
    },
    /// Stop sending this log.
    Unsubscribe {
        /// Which log.
        log: LogId,
    },
    /// What the sender has applied and durable; only what changed since the last one.
    Acks {
        /// The sender's incarnation; acks of another one are void.
        epoch: Epoch,
        /// The new ends.
        applied: Vec<Position>,
    },
    /// Who belongs to the cluster, as the sender has come to know.
    Members(Membership),
    /// What do you hold of this shard, now that you and I know the members to be these, in these incarnations?
    WholeAsk {
        /// Which shard.
        shard: ShardId,
        /// Digest of the roster under which it is asked; under another one nobody answers.
        roster: u64,
        /// Every member but the asker, in its present incarnation as the asker knows it.
        epochs: Vec<(RegionId, Epoch)>,
    },
    /// This; frames of other incarnations are not taken any more.
    WholeAnswer {
        /// Which shard.
        shard: ShardId,
        /// As asked.
        roster: u64,
        /// As asked.
        epochs: Vec<(RegionId, Epoch)>,
        /// The highest seq received of each log, durable or not.
        received: Vec<Position>,
    },
    /// Have you applied my log through here, and how far is yours? Asked once nothing in it can be sent again.
    StableAsk {
        /// Digest of the roster under which it is asked; under another one nobody answers.
        roster: u64,
        /// A log of the sender.
        log: LogId,
        /// Through which batch.
        through: Seq,
    },
    /// Yes: by a region that is whole.
    StableAnswer {
        /// As asked.
        roster: u64,
        /// The log that was asked about.
        log: LogId,
        /// Through which batch.
        through: Seq,
        /// How far the answering region may have written its own log of that shard.
        own: Position,
    },
    /// What you want of a log is not kept here any more: it begins later, or is not here at all.
    NotRetained {
        /// Which log.
        log: LogId,
        /// What was wanted.
        from: Seq,
    },
    /// Open a cut of a shard for me: what I lack is not kept as batches any more.
    CutAsk {
        /// Which shard.
        shard: ShardId,
        /// The logs that the asker knows to be taken over: digests compare only where both sides know the same.
        sealed: Vec<SealedLog>,
        /// How many of its lowest bytes stand for a digest, 1 to 8: few find most of what differs, and the digests of
        /// whole sections tell whether it was all.
        digest_bytes: u8,
    },
    /// A shard's state at an exact vector, to be asked for piece by piece.
    Cut {
        /// Which shard.
        shard: ShardId,
        /// Names the cut on this connection.
        cut: u64,
        /// Vector, seals, floors and stability records; no entries.
        head: Checkpoint,
        /// Digests of all sections; none if the asker knows of seals that this side does not: it then asks for all.
        #[rkyv(with = Packed)]
        sums: Option<Vec<LeafSums>>,
    },
    /// No cut now: too many are open. Ask again in a while.
    CutRefused {
        /// Which shard.
        shard: ShardId,
    },
    /// Send me the entries of these leaves that I do not have.
    EntriesAsk {
        /// Which shard.
        shard: ShardId,
        /// Of which cut.
        cut: u64,
        /// Of which section.
        section: Section,
        /// Which leaves, ascending.
        #[rkyv(with = Packed)]
        leaves: Vec<LeafAsk>,
    },
    /// These.
    Entries {
        /// Which shard.
        shard: ShardId,
        /// Of which cut.
        cut: u64,
        /// Of which section.
        section: Section,
        /// Entries that the asker did not name.
        #[rkyv(with = Packed)]
        entries: Entries,
        /// Digests that the asker named and that are not in the cut, by their places in the question, ascending.
        #[rkyv(with = Packed)]
        unknown: Vec<u32>,
        /// Leaves of the question that did not fit into this answer; ask again.
        rest: Vec<u16>,
        /// Digests of what was sent of the first of them.
        sent: Vec<u64>,
    },
    /// All of a cut that was wanted has come, or it is not wanted any more.
    CutDone {
        /// Which shard.
        shard: ShardId,
        /// Which cut.
        cut: u64,
    },
    /// Sent when idle, so that lag is right.
    Heartbeat {
        /// The sender's wall reading.
        clock: Time,
        /// The end of the sender's own logs, per shard.
        ends: Vec<(ShardId, Seq)>,
        /// The revision of the membership that all of the sender's shards go by.
        revision: u64,
    },
    /// The sender stops; do not wait for it.
    Goodbye,
    /// What the sender does not apply of a shard, and why: said when it changes, and on a new connection if it is anything.
    Held {
        /// Which shard.
        shard: ShardId,
        /// Regions whose writes it was asked not to apply for now.
        paused: Vec<RegionId>,
        /// Logs it takes in no more, and why.
        halted: Vec<(LogId, String)>,
        /// Logs of which it has received more than it applies in good time, and through where.
        received: Vec<Position>,
    },
}

/// Bytes that are not a peer message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a message between regions of version {PEER_VERSION}: {0}")]
pub struct PeerMessageError(String);

impl PeerMessage {
    /// The shard on whose lane it travels, behind that shard's batches; none: on the control stream.
    ///
    /// Parts of a state are bulk: they must not stand before acks and heartbeats.
    #[must_use]
    pub const fn lane(&self) -> Option<ShardId> {
        match self {
            Self::Cut { shard, .. } | Self::EntriesAsk { shard, .. } | Self::Entries { shard, .. } => {
                Some(*shard)
            }
            _ => None,
        }
    }

    /// As the body of a frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("encoding into memory cannot fail").into_vec()
    }
}

/// Reads a frame's body.
///
/// Errors: [`PeerMessageError`]; close the connection with it.
pub fn decode_peer(body: &[u8]) -> Result<PeerMessage, PeerMessageError> {
    let message = rkyv::from_bytes::<PeerMessage, rkyv::rancor::Error>(body)
        .map_err(|error| PeerMessageError(error.to_string()))?;
    let is_region = |id: RegionId| RegionId::new(id.get()).is_ok();
    let are_regions = |positions: &[Position]| positions.iter().all(|p| is_region(p.log.region));
    let are_members = |epochs: &[(RegionId, Epoch)]| epochs.iter().all(|&(region, _)| is_region(region));
    let is_sealed_by_regions =
        |sealed: &SealedLog| is_region(sealed.seal.region) && is_region(sealed.by_region);
    let is_sound = match &message {
        PeerMessage::Hello(hello) => {
            is_region(hello.region)
                && hello.members.is_sound()
                && are_regions(&hello.received)
                && are_regions(&hello.applied)
        }
        PeerMessage::Subscribe { log, .. }
        | PeerMessage::Unsubscribe { log }
        | PeerMessage::NotRetained { log, .. }
        | PeerMessage::StableAsk { log, .. } => is_region(log.region),
        PeerMessage::StableAnswer { log, own, .. } => is_region(log.region) && is_region(own.log.region),
        PeerMessage::Acks { applied, .. } => are_regions(applied),
        PeerMessage::Members(members) => members.is_sound(),
        PeerMessage::WholeAsk { epochs, .. } => are_members(epochs),
        PeerMessage::WholeAnswer { epochs, received, .. } => are_members(epochs) && are_regions(received),
        PeerMessage::Held { paused, halted, received, .. } => {
            paused.iter().all(|&region| is_region(region))
                && halted.iter().all(|(log, _)| is_region(log.region))
                && are_regions(received)
        }
        PeerMessage::CutAsk { sealed, digest_bytes, .. } => {
            sealed.iter().all(is_sealed_by_regions) && (1..=8).contains(digest_bytes)
        }
        PeerMessage::Cut { head, .. } => {
            head.sealed.iter().all(is_sealed_by_regions) && head.logs.iter().all(|end| is_region(end.region))
        }
        PeerMessage::Entries { rest, .. } => rest.iter().all(|&leaf| usize::from(leaf) < LEAVES_COUNT),
        PeerMessage::CutRefused { .. }
        | PeerMessage::EntriesAsk { .. }
        | PeerMessage::CutDone { .. }
        | PeerMessage::Heartbeat { .. }
        | PeerMessage::Goodbye => true,
    };
    if is_sound {
        Ok(message)
    } else {
        Err(PeerMessageError("a region id outside 1..=1023, or members out of order".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_decodes_to_what_it_was_and_garbage_is_refused() {
        let log = LogId { shard: ShardId(3), region: RegionId::new(2).unwrap(), epoch: Epoch(9) };
        let message = PeerMessage::Hello(Hello {
            cluster: ClusterId(1),
            region: RegionId::new(2).unwrap(),
            epoch: Epoch(9),
            version: PEER_VERSION,
            shards_count: 16,
            members: Membership::of([(RegionId::new(2).unwrap(), "b".to_owned(), "b:1".to_owned())]),
            answers: Some(Epoch(4)),
            received: vec![Position { log, seq: Seq(8) }],
            applied: vec![],
            clock: Time(5),
        });
        let bytes = message.encode();
        assert_eq!(decode_peer(&bytes).as_ref(), Ok(&message));
        // Frames carry their length, so a part of a message never gets here; should it, it is another message at best.
        for end in 0..bytes.len() {
            assert_ne!(decode_peer(&bytes[..end]).as_ref(), Ok(&message));
        }
        assert!(decode_peer(&[0xff; 64]).is_err());
    }
}
