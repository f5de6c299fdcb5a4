//! Ops: what a client asks for, in the one form that every door parses into.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};
use tombolo_causality::{SessionId, Stamp, TenantId, Time};

use crate::digest::PayloadDigest;

/// What a cell is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Serialize, Deserialize)]
pub enum Kind {
    /// Goes up and down.
    Counter,
    /// The last writer wins.
    Register,
}

impl Kind {
    /// The word doors print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Register => "register",
        }
    }

    /// The byte that stands for it in a batch.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Counter => 1,
            Self::Register => 2,
        }
    }

    /// The kind a byte of a batch stands for.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Counter),
            2 => Some(Self::Register),
            _ => None,
        }
    }
}

/// Who fixes the stamp of a set or delete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StampSource {
    /// The sender fixed it; every copy carries it.
    Fixed(Stamp),
    /// The admitting region fixes it, with this op id (128 random bits drawn by the door).
    Here(u128),
}

/// What an op does to its cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Moves a counter up or down.
    Add {
        /// By how much.
        delta: i64,
    },
    /// Writes a register.
    Set {
        /// The value.
        value: Bytes,
        /// When it stops being visible, by hybrid time; none: never.
        expires_at: Option<Time>,
        /// Its stamp.
        stamp: StampSource,
    },
    /// Deletes a register, or starts a new generation of a counter.
    Delete {
        /// Which cell; none: whatever is there under the key.
        kind: Option<Kind>,
        /// Its stamp.
        stamp: StampSource,
    },
}

/// One op on one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Op {
    /// The key, without the tenant.
    pub key: Bytes,
    /// What to do.
    pub verb: Verb,
}

/// The place of a request in its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionPart {
    /// Which session.
    pub id: SessionId,
    /// The request's number: 1, 2, 3…
    pub number: u64,
    /// All numbers below it are settled.
    pub settled: u64,
    /// Of the whole request, over all shards.
    pub digest: PayloadDigest,
}

/// How much of a request is gathered before it is hashed.
const GATHERED_BYTES: usize = 64 * 1_024;
/// Ops for which room is made at once.
const GATHERED_OPS: usize = 1_024;

/// Digest of a whole request, as dedup compares it.
///
/// Stamps stay out: a retry names the stamps that the first attempt was answered with.
#[must_use]
pub fn request_digest(tenant: TenantId, ops: &[Op]) -> PayloadDigest {
    // Gathered first: blake3 takes one long run several times faster than many short ones.
    let mut hash = blake3::Hasher::new();
    let mut gathered = Vec::with_capacity(ops.len().min(GATHERED_OPS) * 48);
    gathered.extend_from_slice(&tenant.0.to_le_bytes());
    let mut head = [0u8; 32];
    for op in ops {
        let (verb, number, value): (u8, u64, &[u8]) = match &op.verb {
            Verb::Add { delta } => (1, delta.cast_unsigned(), &[]),
            Verb::Set { value, expires_at, .. } => (2, expires_at.map_or(u64::MAX, |at| at.0), value),
            Verb::Delete { kind, .. } => (3, u64::from(kind.map_or(0, Kind::code)), &[]),
        };
        head[0] = verb;
        head[1..9].copy_from_slice(&number.to_le_bytes());
        head[9..17].copy_from_slice(&(op.key.len() as u64).to_le_bytes());
        head[17..25].copy_from_slice(&(value.len() as u64).to_le_bytes());
        gathered.extend_from_slice(&head);
        gathered.extend_from_slice(&op.key);
        if value.len() < GATHERED_BYTES {
            gathered.extend_from_slice(value);
        }
        if value.len() >= GATHERED_BYTES || gathered.len() >= GATHERED_BYTES {
            hash.update(&gathered);
            gathered.clear();
        }
        if value.len() >= GATHERED_BYTES {
            hash.update(value);
        }
    }
    hash.update(&gathered);
    let full = hash.finalize();
    let mut half = [0u8; 16];
    half.copy_from_slice(&full.as_bytes()[..16]);
    PayloadDigest(half)
}
