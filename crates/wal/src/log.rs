//! [`LogWriter`]: appends the batches of one log, and says through which seq they are durable.
//!
//! It takes the next batch only (W4), never acks on the strength of a later sync after a failed one (W5), and heals
//! from a full disk (W6). Start at [`LogWriter::append`] and [`LogWriter::sync`]; [`crate::recovery`] makes a writer of
//! what is on disk.

use std::collections::BTreeMap;

use tombolo_causality::{ClusterId, LogId, RegionId, Seq, ShardId, Time};
use tombolo_codec::checkpoint::LogEnd;
use tombolo_codec::{Batch, Checkpoint, Digest};
use tombolo_mutants::{Mutant, is_planted};

use crate::disk::{Disk, DiskError, parent, remove_if_there};
use crate::error::WalError;
use crate::index::{LogIndex, SegmentIndex};
use crate::segment::{SegmentHeader, log_dir, segment_path};

static ZEROS: [u8; 64 * 1_024] = [0; 64 * 1_024];

/// Whose logs these are, and how they are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalSettings {
    /// Whose data.
    pub cluster: ClusterId,
    /// The region of this data directory: durable marks in its own logs were made here.
    pub region: RegionId,
    /// A segment that would grow beyond this is followed by a new one.
    pub segment_bytes: u64,
    /// Length of each of the two journal files of a commit thread, at most 64 MiB. Groups longer than half of it sync
    /// their segments instead.
    pub journal_bytes: u64,
}

impl WalSettings {
    /// With segments of 16 MiB and journal files of 8 MiB.
    #[must_use]
    pub const fn new(cluster: ClusterId, region: RegionId) -> Self {
        Self { cluster, region, segment_bytes: 16 * 1_024 * 1_024, journal_bytes: 8 * 1_024 * 1_024 }
    }
}

/// A log's end, as known from a checkpoint, a state merge, or its last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownEnd {
    /// Its last batch; zero before the first.
    pub seq: Seq,
    /// That batch's digest; none where only the seq is known (a seal), then the next batch's link is not checked.
    pub digest: Option<Digest>,
    /// Ops of the log through that batch.
    pub ops_total: u64,
    /// That batch's clock reading.
    pub clock: Time,
}

impl KnownEnd {
    /// Before the first batch.
    pub const START: Self =
        Self { seq: Seq::ZERO, digest: Some(Digest::ZERO), ops_total: 0, clock: Time::ZERO };

    /// After `batch`.
    #[must_use]
    pub fn after(batch: &Batch) -> Self {
        let header = batch.header();
        Self {
            seq: header.seq,
            digest: Some(header.digest),
            ops_total: header.ops_total,
            clock: header.clock,
        }
    }
}

impl From<&LogEnd> for KnownEnd {
    fn from(end: &LogEnd) -> Self {
        Self { seq: end.seq, digest: Some(end.digest), ops_total: end.ops_total, clock: end.clock }
    }
}

/// What a shard's checkpoint says of the logs it stands for, those that were taken over included.
#[must_use]
pub fn known_ends(shard: ShardId, checkpoint: &Checkpoint) -> BTreeMap<LogId, KnownEnd> {
    let standing = checkpoint
        .logs
        .iter()
        .map(|end| (LogId { shard, region: end.region, epoch: end.epoch }, KnownEnd::from(end)));
    let sealed = checkpoint.sealed.iter().map(|sealed| {
        let log = LogId { shard, region: sealed.seal.region, epoch: sealed.seal.epoch };
        (log, KnownEnd { seq: sealed.seal.end, digest: None, ops_total: 0, clock: checkpoint.clock })
    });
    sealed.chain(standing).collect()
}

/// The writer of one log.
#[derive(Debug)]
pub struct LogWriter<D: Disk> {
    disk: D,
    settings: WalSettings,
    log: LogId,
    index: LogIndex,
    tail: Option<Tail<D::File>>,
    end: KnownEnd,
    durable: Seq,
    poison: Option<String>,
}

/// The open segment.
#[derive(Debug)]
struct Tail<F> {
    file: F,
    /// Whether the file was written to since its last sync, also where a journal holds that already.
    is_dirty: bool,
}

impl<D: Disk> LogWriter<D> {
    /// A writer that goes on after `end`, all of which is durable (or covered by a durable checkpoint).
    pub(crate) fn new(disk: D, settings: WalSettings, log: LogId, index: LogIndex, end: KnownEnd) -> Self {
        Self { disk, settings, log, index, tail: None, end, durable: end.seq, poison: None }
    }

    /// The log.
    #[must_use]
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// What the next batch follows.
    #[must_use]
    pub const fn end(&self) -> KnownEnd {
        self.end
    }

    /// Everything through this seq survives a power cut.
    #[must_use]
    pub const fn durable_through(&self) -> Seq {
        self.durable
    }

    /// What of it is on disk.
    #[must_use]
    pub const fn index(&self) -> &LogIndex {
        &self.index
    }

    /// Whether something was appended that is not durable yet.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.durable < self.end.seq
    }

    /// Whether the open file was written to since its last sync.
    pub(crate) fn is_file_dirty(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.is_dirty)
    }

    /// Whether a file is held open.
    pub(crate) const fn is_open(&self) -> bool {
        self.tail.is_some()
    }

    /// Lets go of the open file; nothing may be unsynced.
    pub(crate) fn close(&mut self) {
        debug_assert!(!self.is_file_dirty(), "a file closed before its sync takes the sync's error with it");
        self.tail = None;
    }

    /// Stages the next batch: it is in the file, but counts only after [`LogWriter::sync`].
    ///
    /// Errors: a full disk ([`WalError::is_full`]) leaves the log as it was, try the same batch again. A batch out of
    /// place is refused and nothing changes. Any other error, and every call after it, means that the log takes no
    /// more batches from this process ([`WalError::Poisoned`]).
    pub fn append(&mut self, batch: &Batch) -> Result<(), WalError> {
        self.check_place(batch)?;
        let written = self.roll_for(batch.bytes().len()).and_then(|()| self.write(batch));
        written.map_err(|error| self.note(error))?;
        self.end = KnownEnd::after(batch);
        Ok(())
    }

    fn check_place(&self, batch: &Batch) -> Result<(), WalError> {
        let (log, header) = (self.log, batch.header());
        if let Some(reason) = &self.poison {
            return Err(WalError::Poisoned { log, reason: reason.clone() });
        }
        if header.log != log {
            return Err(WalError::WrongLog { expected: format!("{log:?}"), found: header.log });
        }
        if header.cluster != self.settings.cluster {
            let path = log_dir(log);
            return Err(WalError::WrongCluster {
                path,
                expected: self.settings.cluster,
                found: header.cluster,
            });
        }
        if header.seq != self.end.seq.next() {
            return Err(WalError::OutOfOrder { log, expected: self.end.seq.next(), found: header.seq });
        }
        if self.end.digest.is_some_and(|digest| digest != header.previous) {
            return Err(WalError::BrokenChain { log, seq: header.seq });
        }
        Ok(())
    }

    /// Makes the tail a segment that the next batch belongs in.
    fn roll_for(&mut self, batch_bytes: usize) -> Result<(), DiskError> {
        let fits = self.index.tail().is_some_and(|tail| {
            // A segment holds at least one batch, and no hole.
            tail.last == self.end.seq
                && (tail.is_empty() || tail.end + batch_bytes as u64 <= self.settings.segment_bytes)
        });
        if !fits {
            // The next segment's existence says that all before it is durable; recovery relies on that.
            self.sync_tail()?;
            self.tail = None;
            return self.begin_segment(self.end.seq.next());
        }
        if self.tail.is_none() {
            let first = self.index.tail().expect("it fits into a tail").first;
            let file = self.disk.open(&segment_path(self.log, first))?;
            self.tail = Some(Tail { file, is_dirty: false });
        }
        Ok(())
    }

    fn begin_segment(&mut self, first: Seq) -> Result<(), DiskError> {
        let dir = log_dir(self.log);
        if self.index.segments().is_empty() {
            self.disk.create_dir(&dir)?;
            self.disk.sync_dir(parent(&dir))?;
        }
        let path = segment_path(self.log, first);
        let header = SegmentHeader { cluster: self.settings.cluster, log: self.log, first };
        let file = self.disk.create(&path)?;
        if let Err(error) = self.disk.write_at(&file, 0, &header.encode()) {
            // Nothing of the log is in it: the next attempt creates it anew.
            remove_if_there(&self.disk, &path)?;
            return Err(error);
        }
        self.disk.sync_dir(&dir)?;
        self.index.push_segment(SegmentIndex::new(first));
        self.tail = Some(Tail { file, is_dirty: true });
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), DiskError> {
        let (Some(tail), Some(index)) = (&mut self.tail, self.index.tail_mut()) else {
            unreachable!("a batch is written after its segment was opened");
        };
        let at = index.end;
        tail.is_dirty = true;
        if let Err(error) = self.disk.write_at(&tail.file, at, batch.bytes()) {
            if error.is_full() {
                // What was written of it must not stand behind the end, should the next batch go elsewhere.
                let written_until = self.disk.len(&tail.file)?;
                write_zeros(&self.disk, &tail.file, (at, written_until))?;
                index.file_bytes = index.file_bytes.max(written_until);
            }
            return Err(error);
        }
        index.push(batch.header().seq, batch.bytes().len());
        Ok(())
    }

    /// Makes everything appended durable, and says through which seq.
    ///
    /// Errors: one that is final for this log in this process; what was appended since the last success is in doubt.
    pub fn sync(&mut self) -> Result<Seq, WalError> {
        if let Some(reason) = &self.poison {
            return Err(WalError::Poisoned { log: self.log, reason: reason.clone() });
        }
        self.sync_tail().map_err(|error| self.note(error))?;
        Ok(self.durable)
    }

    /// Notes that a journal holds everything appended, durably. Its segment still has to be synced.
    ///
    /// Errors: [`WalError::Poisoned`].
    pub(crate) fn note_durable(&mut self) -> Result<Seq, WalError> {
        if let Some(reason) = &self.poison {
            return Err(WalError::Poisoned { log: self.log, reason: reason.clone() });
        }
        self.durable = self.end.seq;
        Ok(self.durable)
    }

    /// Closes the log for writing (W5).
    pub(crate) fn poison(&mut self, reason: &str) {
        if !is_planted(Mutant::RetryFailedSync) {
            self.poison.get_or_insert_with(|| reason.to_owned());
        }
    }

    fn sync_tail(&mut self) -> Result<(), DiskError> {
        if let Some(tail) = &mut self.tail
            && tail.is_dirty
        {
            self.disk.sync_data(&tail.file)?;
            tail.is_dirty = false;
        }
        self.durable = self.end.seq;
        Ok(())
    }

    /// Any failure but a full disk closes the log for writing: what the file holds is not known any more (W5).
    fn note(&mut self, error: DiskError) -> WalError {
        if !error.is_full() {
            self.poison(&error.to_string());
        }
        WalError::Disk(error)
    }

    /// Goes on after `end`, to which a state merge brought this region, leaving a hole in what it holds.
    ///
    /// The checkpoint that covers `end` must be durable before: recovery takes a hole that none covers for rot.
    /// Does nothing if the log has reached `end` already.
    ///
    /// Errors: as [`LogWriter::sync`].
    pub fn advance(&mut self, end: KnownEnd) -> Result<(), WalError> {
        if end.seq > self.end.seq {
            self.sync()?;
            self.tail = None;
            self.end = end;
            self.durable = end.seq;
        }
        Ok(())
    }

    /// Reads durable batches from `from` on; see [`LogIndex::read`].
    ///
    /// Errors: those of [`LogIndex::read`].
    pub fn read(&self, from: Seq, bytes_max: usize) -> Result<Vec<Batch>, WalError> {
        self.index.read(&self.disk, (self.settings.cluster, self.log), (from, self.durable), bytes_max)
    }

    /// Removes the segments whose last batch is at or before `through`, but the newest. Says how many.
    ///
    /// The caller names what a durable checkpoint covers: also the one kept as the previous, so that falling back to
    /// it leaves no hole.
    ///
    /// Errors: the disk's.
    pub fn prune(&mut self, through: Seq) -> Result<usize, WalError> {
        let pruned = self.index.split_pruned(through.min(self.durable));
        for first in &pruned {
            remove_if_there(&self.disk, &segment_path(self.log, *first))?;
        }
        if !pruned.is_empty() {
            self.disk.sync_dir(&log_dir(self.log))?;
        }
        Ok(pruned.len())
    }
}

fn write_zeros<D: Disk>(disk: &D, file: &D::File, (mut from, until): (u64, u64)) -> Result<(), DiskError> {
    while from < until {
        let count = (until - from).min(ZEROS.len() as u64);
        disk.write_at(file, from, &ZEROS[..usize::try_from(count).expect("bounded by a buffer")])?;
        from += count;
    }
    Ok(())
}

/// Writes zeros over a torn tail and makes them durable, so that no later recovery sees it.
pub(crate) fn cut<D: Disk>(disk: &D, file: &D::File, range: (u64, u64)) -> Result<(), DiskError> {
    write_zeros(disk, file, range)?;
    disk.sync_data(file)
}

#[cfg(test)]
mod tests;
