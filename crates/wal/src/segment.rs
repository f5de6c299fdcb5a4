//! Segments: files of consecutive batches of one log; their header and their names.
//!
//! A header of [`SEGMENT_HEADER_BYTES`] bytes, all integers little endian, then batches back to back. Zeros after
//! the last batch up to the end of the file, where something was cut, are a clean end too.
//!
//! | at | bytes | field |
//! |---:|---:|---|
//! | 0 | 4 | magic `TMSG` |
//! | 4 | 2 | format version, 1 |
//! | 6 | 2 | shard |
//! | 8 | 16 | cluster id |
//! | 24 | 2 | region |
//! | 26 | 6 | 0 |
//! | 32 | 16 | epoch |
//! | 48 | 8 | seq of the first batch |
//! | 56 | 8 | first 8 bytes of blake3 over bytes 0..56 |

use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, Seq, ShardId};

/// Length of the header.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// The first bytes of every segment.
pub const SEGMENT_MAGIC: [u8; 4] = *b"TMSG";
/// The format described above.
pub const SEGMENT_VERSION: u16 = 1;
const DIGESTED_BYTES: usize = 56;

/// Where all shards live.
pub(crate) const SHARDS_DIR: &str = "shards";
/// Where damaged files go; nothing is ever removed from it by the log.
pub(crate) const QUARANTINE_DIR: &str = "quarantine";
const SEGMENT_SUFFIX: &str = ".seg";

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose data.
    pub cluster: ClusterId,
    /// Which log.
    pub log: LogId,
    /// The seq of its first batch.
    pub first: Seq,
}

impl SegmentHeader {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[0..4].copy_from_slice(&SEGMENT_MAGIC);
        out[4..6].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&self.log.shard.0.to_le_bytes());
        out[8..24].copy_from_slice(&self.cluster.0.to_le_bytes());
        out[24..26].copy_from_slice(&self.log.region.get().to_le_bytes());
        out[32..48].copy_from_slice(&self.log.epoch.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.first.0.to_le_bytes());
        let digest = blake3::hash(&out[..DIGESTED_BYTES]);
        out[DIGESTED_BYTES..].copy_from_slice(&digest.as_bytes()[..8]);
        out
    }

    /// Reads and verifies a header; none if these bytes are not one, or not as they were written.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<SEGMENT_HEADER_BYTES>()?;
        let digest = blake3::hash(&head[..DIGESTED_BYTES]);
        let is_ours = head[..4] == SEGMENT_MAGIC
            && u16::from_le_bytes([head[4], head[5]]) == SEGMENT_VERSION
            && digest.as_bytes()[..8] == head[DIGESTED_BYTES..];
        if !is_ours {
            return None;
        }
        let log = LogId {
            shard: ShardId(u16::from_le_bytes([head[6], head[7]])),
            region: RegionId::new(u16::from_le_bytes([head[24], head[25]])).ok()?,
            epoch: Epoch(u128::from_le_bytes(*head[32..].first_chunk()?)),
        };
        Some(Self {
            cluster: ClusterId(u128::from_le_bytes(*head[8..].first_chunk()?)),
            log,
            first: Seq(u64::from_le_bytes(*head[48..].first_chunk()?)),
        })
    }
}

/// The directory of a shard.
#[must_use]
pub fn shard_dir(shard: ShardId) -> String {
    format!("{SHARDS_DIR}/{:04}", shard.0)
}

/// The shard a directory below `shards/` is of.
#[must_use]
pub fn parse_shard_name(name: &str) -> Option<ShardId> {
    (name.len() == 4).then(|| name.parse().ok().map(ShardId))?
}

/// The directory of a log.
#[must_use]
pub fn log_dir(log: LogId) -> String {
    format!("{}/{}", shard_dir(log.shard), log_name(log))
}

fn log_name(log: LogId) -> String {
    format!("{:04}-{}", log.region.get(), log.epoch)
}

/// The log a directory below that of `shard` is of.
#[must_use]
pub fn parse_log_name(shard: ShardId, name: &str) -> Option<LogId> {
    let (region, epoch) = name.split_once('-')?;
    let region = RegionId::new(region.parse().ok()?).ok()?;
    let log = LogId { shard, region, epoch: epoch.parse().ok()? };
    (log_name(log) == name).then_some(log)
}

/// The path of a segment.
#[must_use]
pub fn segment_path(log: LogId, first: Seq) -> String {
    format!("{}/{}", log_dir(log), segment_name(first))
}

pub(crate) fn segment_name(first: Seq) -> String {
    format!("{:020}{SEGMENT_SUFFIX}", first.0)
}

/// The seq a segment's name starts at.
#[must_use]
pub fn parse_segment_name(name: &str) -> Option<Seq> {
    let first = Seq(name.strip_suffix(SEGMENT_SUFFIX)?.parse().ok()?);
    (first != Seq::ZERO && segment_name(first) == name).then_some(first)
}

/// The name under which a file of a log goes into quarantine.
pub(crate) fn quarantine_name(log: LogId, file: &str) -> String {
    format!("{}{file}", quarantine_prefix(log))
}

/// What the names of all quarantined files of a log start with.
pub(crate) fn quarantine_prefix(log: LogId) -> String {
    format!("{:04}-{}-", log.shard.0, log_name(log))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let log = LogId { shard: ShardId(7), region: RegionId::new(2).unwrap(), epoch: Epoch(0xabc) };
        SegmentHeader { cluster: ClusterId(9), log, first: Seq(41) }
    }

    #[test]
    fn a_header_reads_back_and_any_flipped_bit_is_noticed() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::parse(&bytes), Some(header()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::parse(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn names_are_made_of_ids_sort_numerically_and_parse_back() {
        let log = header().log;
        assert_eq!(
            segment_path(log, Seq(41)),
            "shards/0007/0002-00000000000000000000000000000abc/00000000000000000041.seg"
        );
        assert_eq!(parse_segment_name("00000000000000000041.seg"), Some(Seq(41)));
        assert_eq!(parse_segment_name("41.seg"), None);
        assert_eq!(parse_segment_name("00000000000000000041.seg.new"), None);
        assert!(
            segment_name(Seq(9)) < segment_name(Seq(10))
                && segment_name(Seq(10)) < segment_name(Seq(u64::MAX))
        );
        assert_eq!(parse_log_name(ShardId(7), "0002-00000000000000000000000000000abc"), Some(log));
        assert_eq!(parse_log_name(ShardId(7), "checkpoint"), None);
        assert_eq!(parse_shard_name("0007"), Some(ShardId(7)));
    }
}
