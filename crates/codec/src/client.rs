//! What the SDK and a region say over QUIC: requests with an id, answers with the same id, in any order.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};
use tombolo_causality::{Epoch, RegionId, Stamp, Time};

use crate::limits;
use crate::op::{Kind, Op, StampSource, Verb};
use crate::reject::{Reject, RejectCode};

/// What an op does, on the wire.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum WireVerb {
    /// Moves a counter.
    Add(i64),
    /// Writes a register; the stamp is fixed by the sender or, if none, by the region.
    Set {
        /// The value.
        value: Vec<u8>,
        /// When it stops being visible.
        expires_at: Option<Time>,
        /// Its stamp.
        stamp: Option<Stamp>,
    },
    /// Deletes.
    Delete {
        /// Which cell; none: whatever is there.
        kind: Option<Kind>,
        /// Its stamp.
        stamp: Option<Stamp>,
    },
}

/// One op on the wire.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct WireOp {
    /// The key.
    pub key: Vec<u8>,
    /// What to do.
    pub verb: WireVerb,
}

/// Which regions a barrier waits for.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum AwaitScope {
    /// Every declared region.
    All,
    /// These.
    Named(Vec<String>),
    /// Any this many, the answering one included.
    AtLeast(u16),
}

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum ClientRequest {
    /// The first request on a connection: who asks.
    Authenticate {
        /// The bearer token; empty where the region listens with `auth = "none"`.
        token: String,
    },
    /// Opens a session homed here.
    OpenSession,
    /// Ops, all admitted before any is logged.
    Write {
        /// Sealed session id, number, settled mark.
        session: Option<(String, u64, u64)>,
        /// Whether this was sent before.
        retry: bool,
        /// Stamps drawn here come after this time: the greatest the sender has seen.
        after: Time,
        /// The ops, in order.
        ops: Vec<WireOp>,
    },
    /// Values of keys, once this region covers the token.
    Read {
        /// The keys.
        keys: Vec<Vec<u8>>,
        /// A sealed token.
        after: Option<String>,
        /// How long to wait for it.
        timeout_ms: u64,
    },
    /// A barrier.
    Await {
        /// A sealed token.
        token: String,
        /// For which regions.
        scope: AwaitScope,
        /// How long.
        timeout_ms: u64,
    },
}

/// What a write came to.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct WriteDone {
    /// Sealed token.
    pub token: String,
    /// Whether all of it had been logged before.
    pub replayed: bool,
    /// Whether it was logged conditionally.
    pub conditional: bool,
    /// The stamp of each op that fixed one, in order.
    pub stamps: Vec<Option<Stamp>>,
}

/// A value as read.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum ReadValue {
    /// No visible cell.
    Absent,
    /// A counter; may lie outside i64 after merges.
    Counter(i128),
    /// A register.
    Register {
        /// The value.
        value: Vec<u8>,
        /// Its stamp.
        stamp: Stamp,
    },
}

/// Why a region does not hold what a barrier waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Archive, Serialize, Deserialize)]
pub enum LaggardReason {
    /// It is in reach and has not applied it yet.
    Behind,
    /// There is no connection to it.
    Unreachable,
    /// It is no member any more, or what it lacks is not kept as batches: it comes back by another way.
    Evicted,
    /// It speaks another version of the protocol between regions.
    Version,
    /// It halted a log that is waited for, and says why.
    ApplyError,
}

impl LaggardReason {
    /// Every reason there is.
    pub const ALL: &'static [Self] =
        &[Self::Behind, Self::Unreachable, Self::Evicted, Self::Version, Self::ApplyError];

    /// The word doors print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Unreachable => "unreachable",
            Self::Evicted => "evicted",
            Self::Version => "version",
            Self::ApplyError => "apply_error",
        }
    }
}

impl std::fmt::Display for LaggardReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A region a barrier was not reached in.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Laggard {
    /// Its name.
    pub region: String,
    /// Why.
    pub reason: LaggardReason,
    /// What is known beyond the reason, in words; may be empty.
    pub detail: String,
    /// How many ops it lacks.
    pub behind_ops: u64,
    /// Since when it has been out of reach, as milliseconds since the Unix epoch.
    pub since_unix_ms: Option<u64>,
}

/// What a region answers.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum ClientAnswer {
    /// To [`ClientRequest::Authenticate`].
    Welcome {
        /// The region's id.
        region: RegionId,
        /// Its name.
        name: String,
        /// Its incarnation.
        epoch: Epoch,
        /// How many shards there are, for the router.
        shards_count: u16,
        /// The tenant the credential belongs to.
        tenant: u32,
        /// The region's wall reading.
        clock: Time,
    },
    /// To [`ClientRequest::OpenSession`].
    Session {
        /// Sealed id.
        id: String,
        /// How many numbers it may hold above its settled mark.
        numbers_max: u32,
        /// For how long a retry is recognised.
        window_seconds: u64,
    },
    /// To [`ClientRequest::Write`].
    Written(WriteDone),
    /// To [`ClientRequest::Read`].
    Values(Vec<ReadValue>),
    /// To [`ClientRequest::Await`].
    Awaited {
        /// Whether the scope was reached in time.
        reached: bool,
        /// How long it took.
        waited_us: u64,
        /// Who is missing.
        laggards: Vec<Laggard>,
    },
    /// Not done.
    Rejected(Reject),
}

#[derive(Archive, Serialize, Deserialize)]
struct Numbered<T> {
    id: u64,
    body: T,
}

fn malformed(error: impl std::fmt::Display) -> Reject {
    Reject::new(RejectCode::Malformed, format!("the frame does not decode: {error}"))
}

impl ClientRequest {
    /// As the body of a frame; the answer carries the same `id`.
    #[must_use]
    pub fn encode(self, id: u64) -> Vec<u8> {
        rkyv::to_bytes::<rkyv::rancor::Error>(&Numbered { id, body: self })
            .expect("encoding into memory cannot fail")
            .into_vec()
    }
}

impl ClientAnswer {
    /// As the body of a frame.
    #[must_use]
    pub fn encode(self, id: u64) -> Vec<u8> {
        rkyv::to_bytes::<rkyv::rancor::Error>(&Numbered { id, body: self })
            .expect("encoding into memory cannot fail")
            .into_vec()
    }
}

/// Reads a request's frame.
///
/// Errors: `malformed`; limits of keys, values and counts are checked by the admission path.
pub fn decode_request(body: &[u8]) -> Result<(u64, ClientRequest), Reject> {
    if body.len() > limits::REQUEST_BYTES_MAX {
        return Err(Reject::new(
            RejectCode::TooLarge,
            format!("a request of {} bytes; the limit is {}", body.len(), limits::REQUEST_BYTES_MAX),
        ));
    }
    let numbered =
        rkyv::from_bytes::<Numbered<ClientRequest>, rkyv::rancor::Error>(body).map_err(malformed)?;
    // A stamp of no region, once logged, would make a batch that every region refuses.
    if let ClientRequest::Write { ops, .. } = &numbered.body
        && !ops.iter().filter_map(WireOp::stamp).all(|stamp| is_region(stamp.region))
    {
        return Err(malformed("a region id outside 1..=1023"));
    }
    Ok((numbered.id, numbered.body))
}

/// Reads an answer's frame.
///
/// Errors: `malformed`.
pub fn decode_answer(body: &[u8]) -> Result<(u64, ClientAnswer), Reject> {
    let numbered =
        rkyv::from_bytes::<Numbered<ClientAnswer>, rkyv::rancor::Error>(body).map_err(malformed)?;
    let are_regions = match &numbered.body {
        ClientAnswer::Welcome { region, .. } => is_region(*region),
        ClientAnswer::Written(done) => done.stamps.iter().flatten().all(|stamp| is_region(stamp.region)),
        ClientAnswer::Values(values) => values.iter().all(|value| match value {
            ReadValue::Register { stamp, .. } => is_region(stamp.region),
            ReadValue::Absent | ReadValue::Counter(_) => true,
        }),
        ClientAnswer::Rejected(reject) => reject.stamp_needed.is_none_or(|stamp| is_region(stamp.region)),
        ClientAnswer::Session { .. } | ClientAnswer::Awaited { .. } => true,
    };
    if are_regions {
        Ok((numbered.id, numbered.body))
    } else {
        Err(malformed("a region id outside 1..=1023"))
    }
}

/// Archived ids are integers of any value.
fn is_region(id: RegionId) -> bool {
    RegionId::new(id.get()).is_ok()
}

impl WireOp {
    fn stamp(&self) -> Option<Stamp> {
        match self.verb {
            WireVerb::Set { stamp, .. } | WireVerb::Delete { stamp, .. } => stamp,
            WireVerb::Add(_) => None,
        }
    }

    /// As the op that admission takes; `draw` gives 128 random bits for a stamp that is fixed here.
    #[must_use]
    pub fn into_op(self, draw: &mut impl FnMut() -> u128) -> Op {
        let mut source = |stamp: Option<Stamp>| match stamp {
            Some(stamp) => StampSource::Fixed(stamp),
            None => StampSource::Here(draw()),
        };
        let verb = match self.verb {
            WireVerb::Add(delta) => Verb::Add { delta },
            WireVerb::Set { value, expires_at, stamp } => {
                Verb::Set { value: Bytes::from(value), expires_at, stamp: source(stamp) }
            }
            WireVerb::Delete { kind, stamp } => Verb::Delete { kind, stamp: source(stamp) },
        };
        Op { key: Bytes::from(self.key), verb }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_decode_to_what_they_were() {
        let request = ClientRequest::Write {
            session: Some(("s".into(), 7, 5)),
            retry: true,
            after: Time(3),
            ops: vec![
                WireOp { key: b"views:1".to_vec(), verb: WireVerb::Add(-5) },
                WireOp {
                    key: b"p".to_vec(),
                    verb: WireVerb::Set { value: b"v".to_vec(), expires_at: None, stamp: None },
                },
            ],
        };
        assert_eq!(decode_request(&request.clone().encode(42)), Ok((42, request)));
        let answer = ClientAnswer::Rejected(Reject::new(RejectCode::Busy, "later").retry_after_ms(5));
        assert_eq!(decode_answer(&answer.clone().encode(1)), Ok((1, answer)));
        assert_eq!(decode_request(&[1, 2, 3]).unwrap_err().code, RejectCode::Malformed);
    }
}
