//! Batch format v2: the unit that is appended, hashed, shipped, kept by every region, and applied all or nothing.
//!
//! A header of [`HEADER_BYTES`] bytes, all integers little endian, then the payload ([`crate::records`]):
//!
//! | at | bytes | field |
//! |---:|---:|---|
//! | 0 | 4 | magic `TMBL` |
//! | 4 | 2 | format version, 2 |
//! | 6 | 2 | flags; 0 (reserved for compression) |
//! | 8 | 16 | cluster id |
//! | 24 | 2 | shard |
//! | 26 | 2 | region |
//! | 28 | 4 | header bytes, 176 |
//! | 32 | 16 | epoch |
//! | 48 | 8 | seq |
//! | 56 | 4 | op count |
//! | 60 | 4 | payload bytes |
//! | 64 | 8 | cumulative op count of the log, this batch included |
//! | 72 | 8 | lowest stamp's time; 0 if the batch fixed none |
//! | 80 | 8 | highest stamp's time; 0 if the batch fixed none |
//! | 88 | 8 | the writer's clock reading when the batch was closed |
//! | 96 | 8 | durable-through: highest seq of this log known durable when the batch was written |
//! | 104 | 4 | payload bytes before compression |
//! | 108 | 4 | 0 |
//! | 112 | 32 | digest of the previous batch; zeros for the first |
//! | 144 | 32 | own digest: blake3 over bytes 0..144 and the payload |
//!
//! The chain of digests makes a fork, a misplaced file or a flipped bit visible (W2, W4).

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, Seq, ShardId, Time};
use yoke::Yoke;

use crate::digest::Digest;
use crate::limits;
use crate::records::{ArchivedColumns, Records, RecordsBuilder, Seal};

/// Length of the header.
pub const HEADER_BYTES: usize = 176;
/// The first bytes of every batch.
pub const MAGIC: [u8; 4] = *b"TMBL";
/// The format described above.
pub const VERSION: u16 = 2;
const DIGESTED_BYTES: usize = 144;

/// Why bytes are not a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than a header has.
    #[error("{0} bytes where a batch header has {HEADER_BYTES}")]
    Short(usize),
    /// Not the first bytes of a batch.
    #[error("no batch starts here")]
    Magic,
    /// A format this build does not read.
    #[error("batch format version {0}; this build reads {VERSION}")]
    Version(u16),
    /// A field outside its bounds.
    #[error("{field} is {value}")]
    Field {
        /// Which.
        field: &'static str,
        /// What stands there.
        value: u64,
    },
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The header does not parse.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Fewer or more bytes than the header says.
    #[error("{found} bytes where the header says {expected}")]
    Length {
        /// Header and payload.
        expected: usize,
        /// What was there.
        found: usize,
    },
    /// Another cluster's batch.
    #[error("a batch of cluster {found}, expected {expected}")]
    Cluster {
        /// Ours.
        expected: ClusterId,
        /// Its.
        found: ClusterId,
    },
    /// The bytes are not those that were written.
    #[error("digest mismatch in {log:?} {seq:?}")]
    Digest {
        /// The log the header names.
        log: LogId,
        /// The seq the header names.
        seq: Seq,
    },
    /// The digest is right but the payload does not read; written by a broken or newer writer.
    #[error("the payload does not read: {0}")]
    Records(String),
}

/// The header's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Whose data.
    pub cluster: ClusterId,
    /// Which log.
    pub log: LogId,
    /// Its place in the log.
    pub seq: Seq,
    /// How many ops it holds.
    pub ops_count: u32,
    /// How many ops the log holds through this batch.
    pub ops_total: u64,
    /// Lowest and highest time among its stamps; zero if it fixed none.
    pub stamps: (Time, Time),
    /// The writer's clock when it closed the batch.
    pub clock: Time,
    /// What the writer knew durable of this log when it wrote the batch.
    pub durable_through: Seq,
    /// Digest of the previous batch.
    pub previous: Digest,
    /// Length of what follows.
    pub payload_bytes: u32,
    /// Digest of this batch.
    pub digest: Digest,
}

impl Header {
    /// Reads a header; its digest is not verified yet.
    ///
    /// Errors: [`HeaderError`]; lengths are within limits when this succeeds.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Short(bytes.len()));
        };
        if head[..4] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = u16_at(head, 4);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let field = |field, value: u64| HeaderError::Field { field, value };
        for (name, value, expected) in [
            ("flags", u64::from(u16_at(head, 6)), 0),
            ("header bytes", u64::from(u32_at(head, 28)), HEADER_BYTES as u64),
            ("reserved", u64::from(u32_at(head, 108)), 0),
        ] {
            if value != expected {
                return Err(field(name, value));
            }
        }
        let payload_bytes = u32_at(head, 60);
        if payload_bytes as usize > limits::BATCH_PAYLOAD_BYTES_MAX || u32_at(head, 104) != payload_bytes {
            return Err(field("payload bytes", u64::from(payload_bytes)));
        }
        let region =
            RegionId::new(u16_at(head, 26)).map_err(|_| field("region", u64::from(u16_at(head, 26))))?;
        let seq = Seq(u64_at(head, 48));
        if seq == Seq::ZERO {
            return Err(field("seq", 0));
        }
        let durable_through = Seq(u64_at(head, 96));
        if durable_through >= seq {
            return Err(field("durable-through", durable_through.0));
        }
        Ok(Self {
            cluster: ClusterId(u128_at(head, 8)),
            log: LogId { shard: ShardId(u16_at(head, 24)), region, epoch: Epoch(u128_at(head, 32)) },
            seq,
            ops_count: u32_at(head, 56),
            ops_total: u64_at(head, 64),
            stamps: (Time(u64_at(head, 72)), Time(u64_at(head, 80))),
            clock: Time(u64_at(head, 88)),
            durable_through,
            previous: Digest(array_at(head, 112)),
            payload_bytes,
            digest: Digest(array_at(head, DIGESTED_BYTES)),
        })
    }

    /// Header and payload together.
    #[must_use]
    pub const fn batch_bytes(&self) -> usize {
        HEADER_BYTES + self.payload_bytes as usize
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_slice(&MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u128_le(self.cluster.0);
        out.put_u16_le(self.log.shard.0);
        out.put_u16_le(self.log.region.get());
        out.put_u32_le(HEADER_BYTES as u32);
        out.put_u128_le(self.log.epoch.0);
        out.put_u64_le(self.seq.0);
        out.put_u32_le(self.ops_count);
        out.put_u32_le(self.payload_bytes);
        out.put_u64_le(self.ops_total);
        out.put_u64_le(self.stamps.0.0);
        out.put_u64_le(self.stamps.1.0);
        out.put_u64_le(self.clock.0);
        out.put_u64_le(self.durable_through.0);
        out.put_u32_le(self.payload_bytes);
        out.put_u32_le(0);
        out.put_slice(&self.previous.0);
    }
}

/// A batch whose digest and payload were verified; cheap to clone.
#[derive(Clone)]
pub struct Batch {
    // Shared: batches go through many hands, and a header is long. The columns are kept beside the bytes they lie in,
    // as checking them costs more than what is mostly asked of them.
    columns: Columns,
    has_seals: bool,
}

type Columns = Yoke<&'static ArchivedColumns, Arc<Body>>;

struct Body {
    header: Header,
    bytes: Bytes,
}

impl Body {
    fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }
}

/// Where a new batch goes and what it follows.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Whose data.
    pub cluster: ClusterId,
    /// Which log.
    pub log: LogId,
    /// Its seq.
    pub seq: Seq,
    /// How many ops the log held before.
    pub ops_before: u64,
    /// The writer's clock.
    pub clock: Time,
    /// What is known durable of the log.
    pub durable_through: Seq,
    /// Digest of the batch before.
    pub previous: Digest,
}

impl Place {
    /// Where a batch stands that was closed before.
    #[must_use]
    pub fn of(header: &Header) -> Self {
        Self {
            cluster: header.cluster,
            log: header.log,
            seq: header.seq,
            ops_before: header.ops_total.saturating_sub(header.ops_count.into()),
            clock: header.clock,
            durable_through: header.durable_through,
            previous: header.previous,
        }
    }
}

impl Batch {
    /// Closes a batch.
    #[must_use]
    pub fn close(place: Place, records: &RecordsBuilder) -> Self {
        let payload = records.encode();
        assert!(
            payload.len() <= limits::BATCH_PAYLOAD_BYTES_MAX,
            "a batch is closed before its payload reaches {} bytes",
            limits::BATCH_PAYLOAD_BYTES_MAX
        );
        let mut header = Header {
            cluster: place.cluster,
            log: place.log,
            seq: place.seq,
            ops_count: records.ops_count(),
            ops_total: place.ops_before + u64::from(records.ops_count()),
            stamps: records.stamps().unwrap_or_default(),
            clock: place.clock,
            durable_through: place.durable_through,
            previous: place.previous,
            payload_bytes: u32::try_from(payload.len()).expect("the length was checked"),
            digest: Digest::ZERO,
        };
        let mut bytes = BytesMut::with_capacity(header.batch_bytes());
        header.put(&mut bytes);
        header.digest = Digest::of(&[&bytes[..DIGESTED_BYTES], &payload]);
        bytes.put_slice(&header.digest.0);
        bytes.put_slice(&payload);
        let body = Arc::new(Body { header, bytes: bytes.freeze() });
        let columns = Columns::attach_to_cart(body, |body| Records::open_own(body.payload()).columns());
        Self { columns, has_seals: records.has_seals() }
    }

    /// Verifies bytes from a file or a peer: length, cluster, digest, then the payload's structure.
    ///
    /// Errors: [`BatchError`]. Whether it is in the right place (W4) is the reader's to check: log, seq and previous
    /// digest.
    pub fn verify(bytes: Bytes, cluster: ClusterId) -> Result<Self, BatchError> {
        let header = Header::parse(&bytes)?;
        if bytes.len() != header.batch_bytes() {
            return Err(BatchError::Length { expected: header.batch_bytes(), found: bytes.len() });
        }
        let (head, payload) = bytes.split_at(HEADER_BYTES);
        if Digest::of(&[&head[..DIGESTED_BYTES], payload]) != header.digest {
            return Err(BatchError::Digest { log: header.log, seq: header.seq });
        }
        // After the digest: a wrong cluster id in damaged bytes is damage, not another cluster.
        if header.cluster != cluster {
            return Err(BatchError::Cluster { expected: cluster, found: header.cluster });
        }
        let body = Arc::new(Body { header, bytes });
        let columns =
            Columns::try_attach_to_cart(body, |body| Records::open(body.payload()).map(Records::columns))?;
        let has_seals = Records::of(columns.get()).seals().next().is_some();
        Ok(Self { columns, has_seals })
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.columns.backing_cart().header
    }

    /// Header and payload as they stand on disk and on the wire.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.columns.backing_cart().bytes
    }

    /// Its records.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records::of(self.columns.get())
    }

    /// The logs it takes over: mostly none, which is known without looking into the payload.
    pub fn seals(&self) -> impl Iterator<Item = Seal> + '_ {
        self.has_seals.then(|| self.records().seals()).into_iter().flatten()
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("header", self.header()).finish_non_exhaustive()
    }
}

fn array_at<const N: usize>(head: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *head[at..].first_chunk().expect("the field lies inside the header")
}

fn u16_at(head: &[u8; HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes(array_at(head, at))
}

fn u32_at(head: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(array_at(head, at))
}

fn u64_at(head: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(array_at(head, at))
}

fn u128_at(head: &[u8; HEADER_BYTES], at: usize) -> u128 {
    u128::from_le_bytes(array_at(head, at))
}
