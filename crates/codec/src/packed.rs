//! Parts of a state as they travel between regions: short, where the archive of a file is quick to read.
//!
//! Numbers are LEB128, a log is named once per message and by its place after that, digests take as many bytes as the
//! greatest of them needs. Every length is checked against what is left before anything is allocated. Start with
//! [`Packed`].

use rkyv::Place;
use rkyv::rancor::{Fallible, Source};
use rkyv::ser::{Allocator, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use tombolo_causality::{Epoch, RegionId, Seq, SessionId, Stamp, Time};

use crate::checkpoint::{
    CellContent, CellState, ConditionalAdd, ConditionalState, NumberState, SessionState, SlotState,
};
use crate::digest::PayloadDigest;
use crate::entries::{Entries, LEAVES_COUNT, LeafAsk, LeafSums, Section};
use crate::limits::ENTRIES_CELLS_MAX;
use crate::op::Kind;
use crate::records::Seal;

/// A field that stands in the archive as bytes of its own making.
pub(crate) struct Packed;

/// Bytes that are not what was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packed part of a state does not read: {0}")]
pub(crate) struct PackedError(&'static str);

type Read<T> = Result<T, PackedError>;

/// What can be packed.
pub(crate) trait Pack: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(from: &mut Reader<'_>) -> Read<Self>;

    fn packed(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    fn unpacked(bytes: &[u8]) -> Read<Self> {
        let mut from = Reader { left: bytes, spoken_for: 0, logs: Vec::new(), time: 0 };
        let out = Self::take(&mut from)?;
        if from.left.is_empty() { Ok(out) } else { Err(PackedError("bytes behind its end")) }
    }
}

/// Where the packed bytes stand, and how many there are.
pub(crate) struct PackedResolver(usize, VecResolver);

impl<F: Pack> ArchiveWith<F> for Packed {
    type Archived = ArchivedVec<u8>;
    type Resolver = PackedResolver;

    fn resolve_with(_: &F, resolver: PackedResolver, out: Place<ArchivedVec<u8>>) {
        ArchivedVec::resolve_from_len(resolver.0, resolver.1, out);
    }
}

impl<F: Pack, S: Fallible + Allocator + Writer + ?Sized> SerializeWith<F, S> for Packed {
    fn serialize_with(field: &F, serializer: &mut S) -> Result<PackedResolver, S::Error> {
        let bytes = field.packed();
        Ok(PackedResolver(bytes.len(), ArchivedVec::<u8>::serialize_from_slice(&bytes, serializer)?))
    }
}

impl<F: Pack, D: Fallible<Error: Source> + ?Sized> DeserializeWith<ArchivedVec<u8>, F, D> for Packed {
    fn deserialize_with(field: &ArchivedVec<u8>, _: &mut D) -> Result<F, D::Error> {
        F::unpacked(field.as_slice()).map_err(D::Error::new)
    }
}

type Log = (RegionId, Epoch);

/// What is left to read, and what the rest refers to.
pub(crate) struct Reader<'a> {
    left: &'a [u8],
    /// How many of the bytes left others need that were counted already: a count within is not of these.
    spoken_for: usize,
    logs: Vec<Log>,
    time: u64,
}

impl Reader<'_> {
    fn bytes(&mut self, count: usize) -> Read<&[u8]> {
        let (bytes, left) = self.left.split_at_checked(count).ok_or(PackedError("it ends early"))?;
        self.left = left;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        Ok(self.bytes(N)?.try_into().expect("as many bytes as were asked for"))
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.bytes(1)?[0])
    }

    fn number(&mut self) -> Read<u128> {
        let mut out = 0u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                break;
            }
            out |= bits << shift;
            if byte < 0x80 {
                return Ok(out);
            }
        }
        Err(PackedError("a number above 128 bits"))
    }

    fn as_of<T: TryFrom<u128>>(&mut self) -> Read<T> {
        T::try_from(self.number()?).map_err(|_| PackedError("a number out of range"))
    }

    /// How many of something follow, each of `bytes_min` bytes at least.
    fn count(&mut self, bytes_min: usize) -> Read<usize> {
        let count: usize = self.as_of()?;
        let free = self.left.len().saturating_sub(self.spoken_for);
        let is_there = count.checked_mul(bytes_min).is_some_and(|bytes| bytes <= free);
        if is_there { Ok(count) } else { Err(PackedError("it ends early")) }
    }

    /// Of these there may be as many as there are bytes for.
    fn many<T>(&mut self, bytes_min: usize, each: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        self.at_most(usize::MAX, bytes_min, each)
    }

    fn at_most<T>(
        &mut self,
        count_max: usize,
        bytes_min: usize,
        mut each: impl FnMut(&mut Self) -> Read<T>,
    ) -> Read<Vec<T>> {
        let count = self.count(bytes_min)?;
        if count > count_max {
            return Err(PackedError("more than one message holds"));
        }
        self.spoken_for += count * bytes_min;
        let mut out = Vec::with_capacity(count);
        for _ in 0..count {
            self.spoken_for -= bytes_min;
            out.push(each(self)?);
        }
        Ok(out)
    }

    fn region(&mut self) -> Read<RegionId> {
        RegionId::new(self.as_of()?).map_err(|_| PackedError("a region id outside 1..=1023"))
    }

    fn log(&mut self) -> Read<Log> {
        let at: usize = self.as_of()?;
        self.logs.get(at).copied().ok_or(PackedError("a log that it does not name"))
    }

    fn blob(&mut self) -> Read<Vec<u8>> {
        let count = self.count(1)?;
        Ok(self.bytes(count)?.to_vec())
    }

    fn time(&mut self) -> Read<Time> {
        let zigzag: u64 = self.as_of()?;
        let difference = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        self.time = self.time.wrapping_add(difference);
        Ok(Time(self.time))
    }

    fn stamp(&mut self) -> Read<Stamp> {
        let (time, region) = (self.time()?, self.region()?);
        Ok(Stamp { time, region, op: u128::from_le_bytes(self.array()?) })
    }

    fn dot(&mut self) -> Read<Seal> {
        let (region, epoch) = self.log()?;
        Ok(Seal { region, epoch, end: Seq(self.as_of()?) })
    }

    fn session(&mut self) -> Read<SessionId> {
        let (home, epoch) = self.log()?;
        let opened = self.time()?;
        Ok(SessionId { home, epoch, opened, random: u64::from_le_bytes(self.array()?) })
    }

    /// Digests of `digest_bytes` bytes.
    fn print(&mut self, digest_bytes: usize) -> Read<u64> {
        let mut out = [0; 8];
        out[..digest_bytes].copy_from_slice(self.bytes(digest_bytes)?);
        Ok(u64::from_le_bytes(out))
    }

    /// The next of numbers that ascend.
    fn next(&mut self, last: Option<u64>, bound: u64) -> Read<u64> {
        let step: u64 = self.as_of()?;
        let next = last.map_or(Some(step), |last| last.checked_add(step)?.checked_add(1));
        next.filter(|next| *next < bound).ok_or(PackedError("a number out of range"))
    }
}

fn digest_bytes(count: u8) -> Read<usize> {
    if (1..=8).contains(&count) {
        Ok(usize::from(count))
    } else {
        Err(PackedError("digests of no bytes, or of more than eight"))
    }
}

fn put_number(out: &mut Vec<u8>, number: impl Into<u128>) {
    let mut number = number.into();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    put_number(out, count as u64);
}

fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_next(out: &mut Vec<u8>, last: &mut Option<u64>, next: u64) {
    put_number(out, last.map_or(next, |last| next.wrapping_sub(last).wrapping_sub(1)));
    *last = Some(next);
}

fn digest_bytes_of(prints: impl Iterator<Item = u64>) -> usize {
    let bits = 64 - prints.fold(0, |all, print| all | print).leading_zeros() as usize;
    bits.div_ceil(8).max(1)
}

fn put_print(out: &mut Vec<u8>, print: u64, digest_bytes: usize) {
    out.extend_from_slice(&print.to_le_bytes()[..digest_bytes]);
}

/// Logs and times that come again.
#[derive(Default)]
struct Writing {
    logs: Vec<Log>,
    time: u64,
    body: Vec<u8>,
}

impl Writing {
    fn log(&mut self, log: Log) {
        // Few logs are named in one message.
        let found = self.logs.iter().position(|known| *known == log);
        let at = found.unwrap_or_else(|| {
            self.logs.push(log);
            self.logs.len() - 1
        });
        put_count(&mut self.body, at);
    }

    fn time(&mut self, time: Time) {
        let difference = time.0.wrapping_sub(self.time) as i64;
        put_number(&mut self.body, ((difference << 1) ^ (difference >> 63)) as u64);
        self.time = time.0;
    }

    fn stamp(&mut self, stamp: &Stamp) {
        self.time(stamp.time);
        put_number(&mut self.body, stamp.region.get());
        self.body.extend_from_slice(&stamp.op.to_le_bytes());
    }

    fn dot(&mut self, dot: &Seal) {
        self.log((dot.region, dot.epoch));
        put_number(&mut self.body, dot.end.0);
    }

    fn session(&mut self, id: &SessionId) {
        self.log((id.home, id.epoch));
        self.time(id.opened);
        self.body.extend_from_slice(&id.random.to_le_bytes());
    }

    fn cell(&mut self, cell: &CellState) {
        let (is_there, expires_at) = match &cell.content {
            CellContent::Counter { generation, .. } => (generation.is_some(), None),
            CellContent::Register { value, expires_at, .. } => (value.is_some(), *expires_at),
        };
        let flags = [cell.kind == Kind::Register, is_there, expires_at.is_some()];
        self.body.push(flags.iter().rev().fold(0, |all, flag| all << 1 | u8::from(*flag)));
        put_number(&mut self.body, cell.tenant);
        put_blob(&mut self.body, &cell.key);
        match &cell.content {
            CellContent::Counter { generation, slots } => {
                generation.iter().for_each(|generation| self.stamp(generation));
                put_count(&mut self.body, slots.len());
                for slot in slots {
                    self.log((slot.region, slot.epoch));
                    put_number(&mut self.body, slot.positive);
                    put_number(&mut self.body, slot.negative);
                }
            }
            CellContent::Register { stamp, value, dot, .. } => {
                self.stamp(stamp);
                value.iter().for_each(|value| put_blob(&mut self.body, value));
                expires_at.iter().for_each(|at| self.time(*at));
                self.dot(dot);
            }
        }
    }

    fn numbers(&mut self, session: &SessionState) {
        self.session(&session.id);
        put_number(&mut self.body, session.mark);
        put_count(&mut self.body, session.numbers.len());
        for number in &session.numbers {
            put_number(&mut self.body, number.number);
            self.body.extend_from_slice(&number.digest.0);
        }
    }

    fn conditional(&mut self, it: &ConditionalState) {
        self.session(&it.session);
        put_number(&mut self.body, it.number);
        self.body.extend_from_slice(&it.digest.0);
        self.dot(&it.dot);
        put_count(&mut self.body, it.adds.len());
        for add in &it.adds {
            self.body.push(u8::from(add.generation.is_some()));
            put_number(&mut self.body, add.tenant);
            put_blob(&mut self.body, &add.key);
            add.generation.iter().for_each(|generation| self.stamp(generation));
            self.body.extend_from_slice(&add.delta.to_le_bytes());
        }
    }
}

fn cell(from: &mut Reader<'_>) -> Read<CellState> {
    let flags = from.byte()?;
    let [is_register, is_there, expires] = [1, 2, 4].map(|bit| flags & bit != 0);
    let (tenant, key) = (from.as_of()?, from.blob()?);
    if is_register {
        let stamp = from.stamp()?;
        let value = is_there.then(|| from.blob()).transpose()?;
        let expires_at = expires.then(|| from.time()).transpose()?;
        let content = CellContent::Register { stamp, value, expires_at, dot: from.dot()? };
        return Ok(CellState { tenant, kind: Kind::Register, key, content });
    }
    let generation = is_there.then(|| from.stamp()).transpose()?;
    let slots = from.many(3, |from| {
        let (region, epoch) = from.log()?;
        Ok(SlotState { region, epoch, positive: from.number()?, negative: from.number()? })
    })?;
    let content = CellContent::Counter { generation, slots };
    Ok(CellState { tenant, kind: Kind::Counter, key, content })
}

fn session(from: &mut Reader<'_>) -> Read<SessionState> {
    let (id, mark) = (from.session()?, from.as_of()?);
    let numbers = from
        .many(17, |from| Ok(NumberState { number: from.as_of()?, digest: PayloadDigest(from.array()?) }))?;
    Ok(SessionState { id, mark, numbers })
}

fn conditional(from: &mut Reader<'_>) -> Read<ConditionalState> {
    let (session, number) = (from.session()?, from.as_of()?);
    let (digest, dot) = (PayloadDigest(from.array()?), from.dot()?);
    let adds = from.many(11, |from| {
        let has_generation = from.byte()? != 0;
        let (tenant, key) = (from.as_of()?, from.blob()?);
        let generation = has_generation.then(|| from.stamp()).transpose()?;
        Ok(ConditionalAdd { tenant, key, generation, delta: i64::from_le_bytes(from.array()?) })
    })?;
    Ok(ConditionalState { session, number, digest, dot, adds })
}

/// Logs, then cells, sessions and conditionals, each with how many there are.
impl Pack for Entries {
    fn put(&self, out: &mut Vec<u8>) {
        let mut writing = Writing::default();
        put_count(&mut writing.body, self.cells.len());
        self.cells.iter().for_each(|it| writing.cell(it));
        put_count(&mut writing.body, self.sessions.len());
        self.sessions.iter().for_each(|it| writing.numbers(it));
        put_count(&mut writing.body, self.conditionals.len());
        self.conditionals.iter().for_each(|it| writing.conditional(it));
        put_count(out, writing.logs.len());
        for (region, epoch) in writing.logs {
            put_number(out, region.get());
            out.extend_from_slice(&epoch.0.to_le_bytes());
        }
        out.extend_from_slice(&writing.body);
    }

    fn take(from: &mut Reader<'_>) -> Read<Self> {
        let log = |from: &mut Reader<'_>| Ok((from.region()?, Epoch(u128::from_le_bytes(from.array()?))));
        from.logs = from.many(17, log)?;
        let cells = from.at_most(ENTRIES_CELLS_MAX, 4, cell)?;
        Ok(Self { cells, sessions: from.many(12, session)?, conditionals: from.many(30, conditional)? })
    }
}

/// Leaves by their distance from the one before, so that they ascend.
impl Pack for Vec<LeafAsk> {
    fn put(&self, out: &mut Vec<u8>) {
        let digest_bytes = digest_bytes_of(self.iter().flat_map(|ask| ask.known.iter().copied()));
        out.push(digest_bytes as u8);
        put_count(out, self.len());
        let mut last = None;
        for ask in self {
            put_next(out, &mut last, u64::from(ask.leaf));
            put_count(out, ask.known.len());
            ask.known.iter().for_each(|&print| put_print(out, print, digest_bytes));
        }
    }

    fn take(from: &mut Reader<'_>) -> Read<Self> {
        let digest_bytes = digest_bytes(from.byte()?)?;
        let mut last = None;
        from.at_most(LEAVES_COUNT, 2, |from| {
            let leaf = from.next(last, LEAVES_COUNT as u64)?;
            last = Some(leaf);
            let known = from.many(digest_bytes, |from| from.print(digest_bytes))?;
            Ok(LeafAsk { leaf: leaf as u16, known })
        })
    }
}

/// All sections in their order; of each its sums in a row, or with their leaves if that is shorter: most sections of a
/// small shard are nearly empty.
impl Pack for Option<Vec<LeafSums>> {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        let Some(all) = self else { return };
        assert!(all.iter().map(|of| of.section).eq(Section::ALL), "a cut has every section, in their order");
        for of in all {
            put_number(out, of.entries_count);
            out.extend_from_slice(&of.total.to_le_bytes());
            let digest_bytes = digest_bytes_of(of.sums.iter().copied());
            let some = || of.sums.iter().enumerate().filter(|(_, sum)| **sum != 0);
            let is_sparse = some().count() * (digest_bytes + 1) < LEAVES_COUNT * digest_bytes;
            out.push(digest_bytes as u8 | u8::from(is_sparse) << 7);
            if is_sparse {
                put_count(out, some().count());
                let mut last = None;
                for (leaf, &sum) in some() {
                    put_next(out, &mut last, leaf as u64);
                    put_print(out, sum, digest_bytes);
                }
            } else {
                (0..LEAVES_COUNT).for_each(|leaf| put_print(out, of.at(leaf), digest_bytes));
            }
        }
    }

    fn take(from: &mut Reader<'_>) -> Read<Self> {
        if from.byte()? == 0 {
            return Ok(None);
        }
        let mut all = Vec::with_capacity(Section::ALL.len());
        for section in Section::ALL {
            let entries_count = from.as_of()?;
            let total = u128::from_le_bytes(from.array()?);
            let flags = from.byte()?;
            let (is_sparse, digest_bytes) = (flags & 0x80 != 0, digest_bytes(flags & 0x7f)?);
            let count = if is_sparse { from.count(1 + digest_bytes)? } else { LEAVES_COUNT };
            let mut sums = vec![0; if count == 0 { 0 } else { LEAVES_COUNT }];
            let mut last = None;
            for at in 0..count {
                let leaf = if is_sparse { from.next(last, LEAVES_COUNT as u64)? } else { at as u64 };
                sums[leaf as usize] = from.print(digest_bytes)?;
                last = Some(leaf);
            }
            all.push(LeafSums { section, entries_count, total, sums });
        }
        Ok(Some(all))
    }
}

/// Numbers that ascend.
impl Pack for Vec<u32> {
    fn put(&self, out: &mut Vec<u8>) {
        put_count(out, self.len());
        let mut last = None;
        self.iter().for_each(|&next| put_next(out, &mut last, u64::from(next)));
    }

    fn take(from: &mut Reader<'_>) -> Read<Self> {
        let mut last = None;
        from.many(1, |from| {
            let next = from.next(last, 1 << 32)?;
            last = Some(next);
            Ok(next as u32)
        })
    }
}

#[cfg(test)]
mod tests;
