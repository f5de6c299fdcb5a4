//! [`LogIndex`]: which segment holds which batches of a log, with a sparse map from seq to offset.
//!
//! A clone is cheap and stays as it was, so that a reader on another thread needs no lock of the writer. Start at
//! [`LogIndex::read`].

use std::sync::Arc;

use tombolo_causality::{ClusterId, LogId, Seq};
use tombolo_codec::Batch;

use crate::disk::Disk;
use crate::error::WalError;
use crate::scan::{Found, SegmentScan};
use crate::segment::{SEGMENT_HEADER_BYTES, segment_path};

/// One offset is remembered for about this many bytes of a segment.
const MARK_EVERY_BYTES: u64 = 64 * 1_024;
/// What one read asks of the disk at a time.
const READ_WINDOW_BYTES: usize = 512 * 1_024;

/// One segment's place in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    /// Also its name.
    pub(crate) first: Seq,
    /// Below `first` while it holds nothing.
    pub(crate) last: Seq,
    /// Where the next batch goes.
    pub(crate) end: u64,
    /// How long the file is: with zeros that a cut or a full disk left behind the end.
    pub(crate) file_bytes: u64,
    /// Offsets of some batches, both ascending.
    marks: Vec<(Seq, u64)>,
}

impl SegmentIndex {
    pub(crate) fn new(first: Seq) -> Self {
        let end = SEGMENT_HEADER_BYTES as u64;
        Self { first, last: Seq(first.0 - 1), end, file_bytes: end, marks: Vec::new() }
    }

    /// Notes that the next batch stands at the end.
    pub(crate) fn push(&mut self, seq: Seq, batch_bytes: usize) {
        debug_assert!(seq == self.last.next(), "batches follow one another");
        let is_due = self.marks.last().is_none_or(|&(_, at)| self.end - at >= MARK_EVERY_BYTES);
        if is_due {
            self.marks.push((seq, self.end));
        }
        self.last = seq;
        self.end += batch_bytes as u64;
        self.file_bytes = self.file_bytes.max(self.end);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// A batch at or before `seq`, and where it stands.
    pub(crate) fn mark_before(&self, seq: Seq) -> (Seq, u64) {
        let at = self.marks.partition_point(|&(marked, _)| marked <= seq);
        at.checked_sub(1).map_or((self.first, SEGMENT_HEADER_BYTES as u64), |at| self.marks[at])
    }
}

/// What of a log is on disk.
#[derive(Debug, Clone, Default)]
pub struct LogIndex {
    segments: Vec<Arc<SegmentIndex>>,
}

impl LogIndex {
    pub(crate) fn segments(&self) -> &[Arc<SegmentIndex>] {
        &self.segments
    }

    pub(crate) fn push_segment(&mut self, segment: SegmentIndex) {
        debug_assert!(self.segments.last().is_none_or(|last| last.last < segment.first), "segments ascend");
        self.segments.push(Arc::new(segment));
    }

    pub(crate) fn tail(&self) -> Option<&SegmentIndex> {
        self.segments.last().map(Arc::as_ref)
    }

    pub(crate) fn tail_mut(&mut self) -> Option<&mut SegmentIndex> {
        self.segments.last_mut().map(Arc::make_mut)
    }

    /// The lowest seq on disk.
    #[must_use]
    pub fn first(&self) -> Option<Seq> {
        self.segments.iter().find(|segment| !segment.is_empty()).map(|segment| segment.first)
    }

    /// Length of all segment files.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        self.segments.iter().map(|segment| segment.file_bytes).sum()
    }

    /// Takes out the segments that hold nothing above `through`, but never the last one that holds a batch: its end
    /// is what the log goes on from.
    pub(crate) fn split_pruned(&mut self, through: Seq) -> Vec<Seq> {
        let count = self.prunable(through).count();
        self.segments.drain(..count).map(|segment| segment.first).collect()
    }

    /// The segments that [`LogIndex::split_pruned`] would take out, oldest first: the last seq and the length of each.
    pub(crate) fn prunable(&self, through: Seq) -> impl Iterator<Item = (Seq, u64)> + '_ {
        let keep_from = self.segments.iter().rposition(|segment| !segment.is_empty()).unwrap_or(0);
        let gone = self.segments[..keep_from].iter().take_while(move |segment| segment.last <= through);
        gone.map(|segment| (segment.last, segment.file_bytes))
    }

    /// Reads consecutive batches from `from` on, none above `through`, until `bytes_max` is reached; at least one if
    /// there is one. Every batch is verified again.
    ///
    /// Errors: [`WalError::NotRetained`] if `from` is not above `through` and not on disk; [`WalError::Rot`] if the
    /// first batch does not verify (behind a batch that does, the answer ends there).
    pub fn read<D: Disk>(
        &self,
        disk: &D,
        (cluster, log): (ClusterId, LogId),
        (from, through): (Seq, Seq),
        bytes_max: usize,
    ) -> Result<Vec<Batch>, WalError> {
        let mut batches = Vec::new();
        let mut next = from.max(Seq(1));
        let mut left = bytes_max;
        while next <= through {
            let at = self.segments.partition_point(|segment| segment.last < next);
            let segment =
                self.segments.get(at).filter(|segment| segment.first <= next && !segment.is_empty());
            let Some(segment) = segment else {
                if batches.is_empty() {
                    let first = self.segments[at..].iter().find(|s| !s.is_empty()).map(|s| s.first);
                    return Err(WalError::NotRetained { log, from: next, first });
                }
                break;
            };
            let until = segment.last.min(through);
            let read = read_segment(disk, (cluster, log), segment, (next, until), &mut left, &mut batches);
            match read {
                Ok(last) if last == until && left > 0 => next = last.next(),
                Err(error) if batches.is_empty() => return Err(error),
                _ => break,
            }
        }
        Ok(batches)
    }
}

/// Reads from one segment; the last seq read.
fn read_segment<D: Disk>(
    disk: &D,
    (cluster, log): (ClusterId, LogId),
    segment: &SegmentIndex,
    (from, until): (Seq, Seq),
    left: &mut usize,
    batches: &mut Vec<Batch>,
) -> Result<Seq, WalError> {
    let path = segment_path(log, segment.first);
    let mut scan = match SegmentScan::open(disk, &path, READ_WINDOW_BYTES) {
        // Pruned since the index was taken.
        Err(error) if error.is_not_found() => {
            return Err(WalError::NotRetained { log, from, first: Some(segment.last.next()) });
        }
        opened => opened?,
    };
    let (mut seq, mut at) = segment.mark_before(from);
    loop {
        let batch = match scan.at(at, cluster) {
            Found::Batch(batch) if batch.header().log == log && batch.header().seq == seq => batch,
            Found::Batch(batch) => {
                return Err(rot(log, seq, path, format!("a batch of {:?}", batch.header().log)));
            }
            Found::End => return Err(rot(log, seq, path, "zeros".to_owned())),
            Found::Damage(what) | Found::Foreign(what) => return Err(rot(log, seq, path, what)),
        };
        at += batch.bytes().len() as u64;
        if seq >= from {
            *left = left.saturating_sub(batch.bytes().len());
            batches.push(batch);
            if *left == 0 || seq == until {
                return Ok(seq);
            }
        }
        seq = seq.next();
    }
}

fn rot(log: LogId, seq: Seq, path: String, what: String) -> WalError {
    WalError::Rot { log, seq, path, what }
}
