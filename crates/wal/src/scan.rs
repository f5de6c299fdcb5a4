//! [`SegmentScan`]: reads a segment batch by batch in bounded pieces, and looks for batches behind damage.
//!
//! Knows bytes, not logs: whether a verified batch stands in its place is the caller's to check. Never writes.

use bytes::Bytes;
use tombolo_causality::{ClusterId, LogId, Seq};
use tombolo_codec::batch::{HEADER_BYTES, MAGIC, VERSION};
use tombolo_codec::{Batch, BatchError, Header, HeaderError};

use crate::disk::{Disk, DiskError};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};

/// What stands at an offset.
pub(crate) enum Found {
    Batch(Batch),
    /// Zeros to the end of the file, or the end.
    End,
    Damage(String),
    /// The bytes are whole but no batch this build reads: never the work of a power cut.
    Foreign(String),
}

/// A window over one segment.
pub(crate) struct SegmentScan<'a, D: Disk> {
    disk: &'a D,
    file: D::File,
    len: u64,
    window_bytes: usize,
    window_at: u64,
    window: Vec<u8>,
}

impl<'a, D: Disk> SegmentScan<'a, D> {
    /// Opens a segment; `window_bytes` is read at a time, more where one batch is longer.
    pub(crate) fn open(disk: &'a D, path: &str, window_bytes: usize) -> Result<Self, DiskError> {
        let file = disk.open(path)?;
        let len = disk.len(&file)?;
        Ok(Self { disk, file, len, window_bytes, window_at: 0, window: Vec::new() })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// `bytes_max` bytes at an offset, fewer only at the end of the file.
    fn view(&mut self, at: u64, bytes_max: usize) -> Result<&[u8], DiskError> {
        let wanted =
            usize::try_from(self.len.saturating_sub(at)).map_or(bytes_max, |left| left.min(bytes_max));
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + wanted as u64 > window_end {
            self.window = self.disk.read_at(&self.file, at, self.window_bytes.max(wanted))?;
            self.window_at = at;
        }
        let from = usize::try_from(at - self.window_at).expect("the offset lies in the window");
        let to = (from + wanted).min(self.window.len());
        Ok(&self.window[from.min(to)..to])
    }

    /// The segment's own header, if it verifies.
    pub(crate) fn header(&mut self) -> Option<SegmentHeader> {
        SegmentHeader::parse(self.view(0, SEGMENT_HEADER_BYTES).ok()?)
    }

    /// What stands at `at`. A read that fails is damage: the disk has lost these bytes.
    pub(crate) fn at(&mut self, at: u64, cluster: ClusterId) -> Found {
        match self.try_at(at, cluster) {
            Ok(found) => found,
            Err(error) => Found::Damage(error.to_string()),
        }
    }

    fn try_at(&mut self, at: u64, cluster: ClusterId) -> Result<Found, DiskError> {
        let header = match Header::parse(self.view(at, HEADER_BYTES)?) {
            Ok(header) => header,
            Err(error) => {
                return Ok(match error {
                    HeaderError::Short(_) | HeaderError::Magic if self.is_zero_from(at)? => Found::End,
                    // A tear may leave zeros here, never a greater number.
                    HeaderError::Version(version) if version > VERSION => Found::Foreign(error.to_string()),
                    _ => Found::Damage(error.to_string()),
                });
            }
        };
        let bytes = self.view(at, header.batch_bytes())?;
        // A copy: a batch that lives on must not keep a whole window alive.
        Ok(match Batch::verify(Bytes::copy_from_slice(bytes), cluster) {
            Ok(batch) => Found::Batch(batch),
            Err(error @ (BatchError::Cluster { .. } | BatchError::Records(_))) => {
                Found::Foreign(error.to_string())
            }
            Err(error) => Found::Damage(error.to_string()),
        })
    }

    /// Whether nothing but zeros stands from `at` to the end.
    fn is_zero_from(&mut self, mut at: u64) -> Result<bool, DiskError> {
        while at < self.len {
            let bytes = self.view(at, self.window_bytes)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            if bytes.is_empty() {
                break;
            }
            at += bytes.len() as u64;
        }
        Ok(true)
    }

    /// The next verified batch of `log` at or after `at` whose seq is at least `seq_min`.
    pub(crate) fn search(
        &mut self,
        mut at: u64,
        cluster: ClusterId,
        log: LogId,
        seq_min: Seq,
    ) -> Option<(u64, Batch)> {
        while at < self.len {
            let window_bytes = self.window_bytes;
            let Ok(bytes) = self.view(at, window_bytes) else {
                // Unreadable: go on behind it.
                at += window_bytes as u64;
                continue;
            };
            let Some(hit) = memchr::memmem::find(bytes, &MAGIC) else {
                // The magic may straddle the end of the window.
                let step = bytes.len().saturating_sub(MAGIC.len() - 1).max(1);
                at += step as u64;
                continue;
            };
            at += hit as u64;
            match self.at(at, cluster) {
                Found::Batch(batch) if batch.header().log == log && batch.header().seq >= seq_min => {
                    return Some((at, batch));
                }
                Found::Batch(batch) => at += batch.bytes().len() as u64,
                _ => at += 1,
            }
        }
        None
    }
}
