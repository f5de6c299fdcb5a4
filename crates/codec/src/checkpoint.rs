//! A shard's state at an exact version vector, as one file: state, vector, sessions and clock bound in one piece (W9).
//!
//! Layout: magic `TMCP`, format version u16, two zero bytes, cluster id, shard u16, two zero bytes, payload length u32,
//! blake3 over all of that and the payload, then the payload: [`Checkpoint`] archived with rkyv.
#![allow(missing_docs, reason = "what rkyv derives for an enum's variants comes without docs")]

use rkyv::{Archive, Deserialize, Serialize};
use tombolo_causality::{ClusterId, Epoch, RegionId, Seq, SessionId, ShardId, Stamp, Time};

use crate::digest::{Digest, PayloadDigest};
use crate::op::Kind;
use crate::records::{Expire, Seal, Stable};

const MAGIC: [u8; 4] = *b"TMCP";
const VERSION: u16 = 2;
const HEADER_BYTES: usize = 64;
const DIGESTED_BYTES: usize = 32;
/// A checkpoint longer than this is not read: a shard is meant to stay far below.
const PAYLOAD_BYTES_MAX: usize = u32::MAX as usize;

/// Why a file is not a checkpoint of this shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Too short, or not the first bytes of one.
    #[error("not a checkpoint")]
    Magic,
    /// A format this build does not read.
    #[error("checkpoint format version {0}; this build reads {VERSION}")]
    Version(u16),
    /// Another cluster's.
    #[error("a checkpoint of cluster {found}, expected {expected}")]
    Cluster {
        /// Ours.
        expected: ClusterId,
        /// Its.
        found: ClusterId,
    },
    /// Another shard's.
    #[error("a checkpoint of shard {found}, expected {expected}")]
    Shard {
        /// The one asked for.
        expected: ShardId,
        /// The one it holds.
        found: ShardId,
    },
    /// The bytes are not those that were written.
    #[error("checkpoint damaged: {0}")]
    Damaged(&'static str),
}

/// A log's end in a checkpoint, with all that its next batch must fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct LogEnd {
    /// Who wrote it.
    pub region: RegionId,
    /// In which incarnation.
    pub epoch: Epoch,
    /// Its last applied batch.
    pub seq: Seq,
    /// That batch's digest.
    pub digest: Digest,
    /// Ops of the log so far.
    pub ops_total: u64,
    /// That batch's clock reading.
    pub clock: Time,
}

/// A log that another one took over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Archive, Serialize, Deserialize)]
pub struct SealedLog {
    /// The log and its end.
    pub seal: Seal,
    /// The region of the log that holds the record.
    pub by_region: RegionId,
    /// Its incarnation.
    pub by_epoch: Epoch,
    /// The batch that holds the record.
    pub by_seq: Seq,
}

/// A log's totals in a counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Archive, Serialize, Deserialize)]
pub struct SlotState {
    /// Who wrote the log.
    pub region: RegionId,
    /// In which incarnation.
    pub epoch: Epoch,
    /// Sum of the positive deltas.
    pub positive: u128,
    /// Sum of the negative deltas, as a positive number.
    pub negative: u128,
}

/// A cell's content.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
#[rkyv(attr(allow(missing_docs)))]
pub enum CellContent {
    /// A counter.
    Counter {
        /// The stamp of its last delete.
        generation: Option<Stamp>,
        /// Totals per log.
        slots: Vec<SlotState>,
    },
    /// A register.
    Register {
        /// The winner's stamp.
        stamp: Stamp,
        /// The value; none: a tombstone.
        value: Option<Vec<u8>>,
        /// When it stops being visible.
        expires_at: Option<Time>,
        /// The log position that wrote it.
        dot: Seal,
    },
}

/// A cell.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct CellState {
    /// Whose.
    pub tenant: u32,
    /// Of which kind.
    pub kind: Kind,
    /// The key.
    pub key: Vec<u8>,
    /// What it holds.
    pub content: CellContent,
}

/// A request number above a session's settled mark.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Archive, Serialize, Deserialize)]
pub struct NumberState {
    /// The number.
    pub number: u64,
    /// Of its payload.
    pub digest: PayloadDigest,
}

/// A session.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct SessionState {
    /// Which.
    pub id: SessionId,
    /// Its settled mark.
    pub mark: u64,
    /// Numbers logged at or above the mark.
    pub numbers: Vec<NumberState>,
}

/// One add of a conditional request.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Archive, Serialize, Deserialize)]
pub struct ConditionalAdd {
    /// Whose.
    pub tenant: u32,
    /// The counter's key.
    pub key: Vec<u8>,
    /// The generation it was admitted under.
    pub generation: Option<Stamp>,
    /// By how much.
    pub delta: i64,
}

/// A conditional request that is not covered.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ConditionalState {
    /// Which session.
    pub session: SessionId,
    /// Its number.
    pub number: u64,
    /// Of its payload.
    pub digest: PayloadDigest,
    /// The log position that holds it.
    pub dot: Seal,
    /// Its adds.
    pub adds: Vec<ConditionalAdd>,
}

/// A floor under a home's sessions whose tables are still here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct FloorState {
    /// Whose sessions, and from when on.
    pub floor: Expire,
    /// The log position that holds it.
    pub dot: Seal,
}

/// A stability record that this state does not reach yet.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct StableState {
    /// What it says.
    pub stable: Stable,
    /// The log position that holds it.
    pub dot: Seal,
}

/// All of a shard.
#[derive(Clone, PartialEq, Eq, Debug, Default, Archive, Serialize, Deserialize)]
pub struct Checkpoint {
    /// No reading at or below it is issued again.
    pub clock: Time,
    /// The version vector.
    pub logs: Vec<LogEnd>,
    /// Logs taken over.
    pub sealed: Vec<SealedLog>,
    /// Every cell.
    pub cells: Vec<CellState>,
    /// Every session.
    pub sessions: Vec<SessionState>,
    /// Every conditional.
    pub conditionals: Vec<ConditionalState>,
    /// Floors under sessions whose tables are still here.
    pub floors: Vec<FloorState>,
    /// Floors under sessions whose tables are gone, the highest of each home.
    pub forgotten: Vec<Expire>,
    /// Stability records that wait to be reached.
    pub stables: Vec<StableState>,
}

impl Checkpoint {
    /// As the content of a file.
    ///
    /// Errors: [`CheckpointError::Damaged`] if the state is longer than a file may be.
    pub fn encode(&self, cluster: ClusterId, shard: ShardId) -> Result<Vec<u8>, CheckpointError> {
        let payload = rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("encoding into memory cannot fail");
        let payload_bytes =
            u32::try_from(payload.len()).map_err(|_| CheckpointError::Damaged("a shard above 4 GiB"))?;
        let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&cluster.0.to_le_bytes());
        out.extend_from_slice(&shard.0.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&payload_bytes.to_le_bytes());
        let digest = Digest::of(&[&out[..DIGESTED_BYTES], &payload]);
        out.extend_from_slice(&digest.0);
        out.extend_from_slice(&payload);
        Ok(out)
    }

    /// From the content of a file.
    ///
    /// Errors: [`CheckpointError`].
    pub fn decode(bytes: &[u8], cluster: ClusterId, shard: ShardId) -> Result<Self, CheckpointError> {
        let Some((head, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(CheckpointError::Magic);
        };
        if head[..4] != MAGIC {
            return Err(CheckpointError::Magic);
        }
        let version = u16::from_le_bytes([head[4], head[5]]);
        if version != VERSION {
            return Err(CheckpointError::Version(version));
        }
        let stated = u32::from_le_bytes([head[28], head[29], head[30], head[31]]) as usize;
        if stated != payload.len() || stated > PAYLOAD_BYTES_MAX {
            return Err(CheckpointError::Damaged("its length is not the one it states"));
        }
        if Digest::of(&[&head[..DIGESTED_BYTES], payload]).0 != head[DIGESTED_BYTES..] {
            return Err(CheckpointError::Damaged("digest mismatch"));
        }
        let found = ClusterId(u128::from_le_bytes(*head[8..].first_chunk().expect("inside the header")));
        if found != cluster {
            return Err(CheckpointError::Cluster { expected: cluster, found });
        }
        let found = ShardId(u16::from_le_bytes([head[24], head[25]]));
        if found != shard {
            return Err(CheckpointError::Shard { expected: shard, found });
        }
        rkyv::from_bytes::<Self, rkyv::rancor::Error>(payload)
            .map_err(|_| CheckpointError::Damaged("the payload does not read"))
    }
}
