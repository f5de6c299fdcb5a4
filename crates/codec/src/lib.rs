//! Bytes: every format that leaves a process, known to this crate alone.
//!
//! Batches ([`Batch`]) are the unit that is appended, hashed, shipped and applied; [`PeerMessage`] is what regions say
//! to each other besides, [`ClientRequest`] and [`ClientAnswer`] what the SDK and a region say; [`Token`] is what an
//! acknowledged write returns; [`Checkpoint`] is a shard's state on disk. Lengths are checked before anything is
//! allocated, digests before anything is read. Nothing here touches a device. Start with [`batch`].

pub mod batch;
pub mod checkpoint;
mod client;
mod digest;
mod entries;
pub mod limits;
mod membership;
mod op;
mod packed;
mod peer;
pub mod records;
mod reject;
mod schema;
mod token;

pub use batch::{Batch, BatchError, Header, HeaderError};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use client::{
    AwaitScope, ClientAnswer, ClientRequest, Laggard, LaggardReason, ReadValue, WireOp, WireVerb, WriteDone,
    decode_answer, decode_request,
};
pub use digest::{Digest, PayloadDigest};
pub use entries::{Entries, LEAVES_COUNT, LeafAsk, LeafSums, Section};
pub use membership::{MEMBERSHIP_BYTES_MAX, MemberEntry, Membership, MembershipError, Roster, Standing};
pub use op::{Kind, Op, SessionPart, StampSource, Verb, request_digest};
pub use peer::{Hello, PEER_VERSION, PeerMessage, PeerMessageError, Position, decode_peer};
pub use records::{CellName, Records, RecordsBuilder};
pub use reject::{Applied, Reject, RejectCode};
pub use schema::{Schema, SchemaError};
pub use token::{SealKey, SessionToken, Token, TokenError};
