//! The bytes of a commit journal: stamps and groups. Pure; never touches a disk.
//!
//! A file of a fixed length, all integers little endian. Two places for a stamp, at 0 and at 2,048, the one that holds
//! the older stamp is written next, so that a power cut never takes both; then, from 4,096 on, groups, each at the next
//! multiple of 512 behind the one before it. A file is used again and again: only groups that name the greatest stamp
//! count, the bytes of earlier uses behind them mean nothing.
//!
//! A stamp:
//!
//! | at | bytes | field |
//! |---:|---:|---|
//! | 0 | 4 | magic `TMJF` |
//! | 4 | 2 | format version, 1 |
//! | 6 | 2 | 0 |
//! | 8 | 16 | cluster id |
//! | 24 | 8 | generation: grows with each use of the file |
//! | 32 | 16 | salt: follows from all groups before, so that no written value can pose as a group |
//! | 48 | 16 | first 16 bytes of blake3 over bytes 0..48 |
//!
//! A group:
//!
//! | at | bytes | field |
//! |---:|---:|---|
//! | 0 | 4 | magic `TMJG` |
//! | 4 | 2 | format version, 1 |
//! | 6 | 2 | 0 |
//! | 8 | 8 | generation |
//! | 16 | 16 | salt |
//! | 32 | 8 | number within the generation, from 1 |
//! | 40 | 4 | count of entries, n |
//! | 44 | 4 | length of all batches, m |
//! | 48 | 32 | blake3 over bytes 0..48 and 80..80 + 24 n + m |
//! | 80 | 24 n | entries |
//! | 80 + 24 n | m | the batches, back to back; each names its log itself |
//!
//! An entry:
//!
//! | at | bytes | field |
//! |---:|---:|---|
//! | 0 | 8 | seq of the first batch of the segment: its name |
//! | 8 | 8 | where in the segment the batch stands |
//! | 16 | 4 | its length |
//! | 20 | 4 | 0 |

use bytes::Bytes;
use tombolo_causality::{ClusterId, Seq};
use tombolo_codec::Digest;

/// Where the two stamps are.
pub(crate) const STAMPS_AT: [u64; 2] = [0, 2_048];
/// Where the first group starts.
pub(crate) const GROUPS_AT: u64 = 4_096;
/// Groups start at multiples of this, so that writing one never touches a sector of another.
pub(crate) const GROUP_ALIGN: u64 = 512;
/// Length of a group without entries.
pub(crate) const GROUP_HEADER_BYTES: usize = 80;
/// Length of an entry.
pub(crate) const ENTRY_BYTES: usize = 24;
/// Length of a stamp.
pub(crate) const STAMP_BYTES: usize = 64;

const STAMP_MAGIC: [u8; 4] = *b"TMJF";
const GROUP_MAGIC: [u8; 4] = *b"TMJG";
const VERSION: u16 = 1;
const STAMP_DIGESTED_BYTES: usize = 48;
const GROUP_DIGESTED_BYTES: usize = 48;

/// One use of a journal file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Whose data.
    pub(crate) cluster: ClusterId,
    /// Greater than that of every earlier use.
    pub(crate) generation: u64,
    /// Not to be guessed by who writes values.
    pub(crate) salt: [u8; 16],
}

/// What stands where a stamp may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FoundStamp {
    Stamp(Stamp),
    /// Whole, of a version this build does not read.
    Version(u16),
    Nothing,
}

impl Stamp {
    /// Before the first use.
    pub(crate) fn start(cluster: ClusterId, name: &str) -> Self {
        Self { cluster, generation: 0, salt: salt(&[&cluster.0.to_le_bytes(), name.as_bytes()]) }
    }

    /// The next use, after a group with this digest.
    pub(crate) fn next(&self, last: &Digest) -> Self {
        let salt = salt(&[&self.salt, &last.0]);
        Self { cluster: self.cluster, generation: self.generation + 1, salt }
    }

    pub(crate) fn encode(&self) -> [u8; STAMP_BYTES] {
        let mut out = [0; STAMP_BYTES];
        out[0..4].copy_from_slice(&STAMP_MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[8..24].copy_from_slice(&self.cluster.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.generation.to_le_bytes());
        out[32..48].copy_from_slice(&self.salt);
        let digest = Digest::of(&[&out[..STAMP_DIGESTED_BYTES]]);
        out[STAMP_DIGESTED_BYTES..].copy_from_slice(&digest.0[..16]);
        out
    }

    pub(crate) fn parse(bytes: &[u8]) -> FoundStamp {
        let Some(head) = bytes.first_chunk::<STAMP_BYTES>() else { return FoundStamp::Nothing };
        let digest = Digest::of(&[&head[..STAMP_DIGESTED_BYTES]]);
        if head[..4] != STAMP_MAGIC || digest.0[..16] != head[STAMP_DIGESTED_BYTES..] {
            return FoundStamp::Nothing;
        }
        match u16::from_le_bytes([head[4], head[5]]) {
            VERSION => FoundStamp::Stamp(Self {
                cluster: ClusterId(u128::from_le_bytes(array(&head[8..]))),
                generation: u64::from_le_bytes(array(&head[24..])),
                salt: array(&head[32..]),
            }),
            version => FoundStamp::Version(version),
        }
    }
}

fn salt(parts: &[&[u8]]) -> [u8; 16] {
    array(&Digest::of(parts).0)
}

/// The first bytes of a slice that is long enough.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("the caller checked the length")
}

/// Where one batch of a group belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The segment's name.
    pub(crate) first: Seq,
    /// Where in the segment.
    pub(crate) offset: u64,
    /// How long the batch is.
    pub(crate) bytes: u32,
}

/// Length of a group.
pub(crate) const fn group_bytes(entries_count: usize, batches_bytes: u64) -> u64 {
    (GROUP_HEADER_BYTES + ENTRY_BYTES * entries_count) as u64 + batches_bytes
}

/// Where the group behind one that ends at `end` starts.
pub(crate) const fn align(end: u64) -> u64 {
    end.next_multiple_of(GROUP_ALIGN)
}

/// Writes a group into `out`, in the place of what it holds; its digest.
pub(crate) fn encode_group(
    out: &mut Vec<u8>,
    stamp: &Stamp,
    number: u64,
    entries: &[Entry],
    batches: &[Bytes],
) -> Digest {
    let batches_bytes: usize = batches.iter().map(Bytes::len).sum();
    let count = |value: usize| u32::try_from(value).expect("a group is shorter than a journal file");
    out.clear();
    out.extend_from_slice(&GROUP_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&stamp.generation.to_le_bytes());
    out.extend_from_slice(&stamp.salt);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&count(entries.len()).to_le_bytes());
    out.extend_from_slice(&count(batches_bytes).to_le_bytes());
    out.extend_from_slice(&[0; 32]);
    for entry in entries {
        out.extend_from_slice(&entry.first.0.to_le_bytes());
        out.extend_from_slice(&entry.offset.to_le_bytes());
        out.extend_from_slice(&entry.bytes.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
    batches.iter().for_each(|batch| out.extend_from_slice(batch));
    let digest = Digest::of(&[&out[..GROUP_DIGESTED_BYTES], &out[GROUP_HEADER_BYTES..]]);
    out[GROUP_DIGESTED_BYTES..GROUP_HEADER_BYTES].copy_from_slice(&digest.0);
    digest
}

/// A group that verifies.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) generation: u64,
    pub(crate) salt: [u8; 16],
    pub(crate) number: u64,
    pub(crate) digest: Digest,
    /// Length of the whole group.
    pub(crate) bytes: u64,
    entries: &'a [u8],
    batches: &'a [u8],
}

impl<'a> Group<'a> {
    /// The group that starts with `bytes`, which may go on behind it; none if there is none, or not as it was written.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let head = bytes.first_chunk::<GROUP_HEADER_BYTES>()?;
        if head[..4] != GROUP_MAGIC || u16::from_le_bytes([head[4], head[5]]) != VERSION {
            return None;
        }
        let entries_count = u32::from_le_bytes(array(&head[40..]));
        let batches_bytes = u32::from_le_bytes(array(&head[44..]));
        let length = u64::from(entries_count) * ENTRY_BYTES as u64 + u64::from(batches_bytes);
        let body = bytes[GROUP_HEADER_BYTES..].get(..usize::try_from(length).ok()?)?;
        let digest = Digest::of(&[&head[..GROUP_DIGESTED_BYTES], body]);
        if digest.0 != head[GROUP_DIGESTED_BYTES..] {
            return None;
        }
        let (entries, batches) = body.split_at(body.len() - usize::try_from(batches_bytes).ok()?);
        Some(Self {
            generation: u64::from_le_bytes(array(&head[8..])),
            salt: array(&head[16..]),
            number: u64::from_le_bytes(array(&head[32..])),
            digest,
            bytes: GROUP_HEADER_BYTES as u64 + length,
            entries,
            batches,
        })
    }

    /// Whether it was written in this use of the file.
    pub(crate) fn is_of(&self, stamp: &Stamp) -> bool {
        self.generation == stamp.generation && self.salt == stamp.salt
    }

    /// The batches and where they belong, as far as the lengths agree.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Entry, &'a [u8])> {
        let mut left = self.batches;
        self.entries.chunks_exact(ENTRY_BYTES).map_while(move |entry| {
            let entry = Entry {
                first: Seq(u64::from_le_bytes(array(entry))),
                offset: u64::from_le_bytes(array(&entry[8..])),
                bytes: u32::from_le_bytes(array(&entry[16..])),
            };
            let batch;
            (batch, left) = left.split_at_checked(usize::try_from(entry.bytes).ok()?)?;
            Some((entry, batch))
        })
    }
}

#[cfg(test)]
mod tests;
