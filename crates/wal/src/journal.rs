//! [`Journal`]: makes a group of batches of many logs durable with one sync.
//!
//! Each batch is written to its log's segment file, which nobody syncs at once; the group as a whole is written again
//! to a journal file, and one sync of that makes all of it durable. After a power cut [`crate::redo()`] writes what the
//! journal holds to the segments again. Two files take turns: one is overwritten only once every segment that its
//! groups touched has been synced since. Space in them is written beforehand: overwriting syncs in half the time that
//! growing a file takes, and a full disk does not matter. Never reads what it wrote; that is `redo.rs`. Start at
//! [`Journal::write`]; who syncs the segments, and when, is in `group.rs`.

pub(crate) mod format;

use std::collections::BTreeSet;

use bytes::Bytes;
use tombolo_causality::{ClusterId, LogId};
use tombolo_codec::Digest;

use crate::disk::{Disk, DiskError, parent, remove_if_there};
use crate::log::WalSettings;
use format::{Entry, FoundStamp, GROUPS_AT, STAMP_BYTES, STAMPS_AT, Stamp, align, encode_group, group_bytes};

/// Where the journals of all commit threads are.
pub(crate) const JOURNAL_DIR: &str = "journal";
/// No journal file is longer.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 64 * 1_024 * 1_024;
const PAGE_BYTES: usize = 4_096;

/// One of the two files.
#[derive(Debug)]
struct JournalFile<F> {
    file: F,
    /// Where the next stamp goes: over the older of the two.
    next_slot: usize,
}

/// The journal of one commit thread.
#[derive(Debug)]
pub(crate) struct Journal<D: Disk> {
    disk: D,
    files: [JournalFile<D::File>; 2],
    file_bytes: u64,
    active: usize,
    stamp: Stamp,
    last_digest: Digest,
    /// Groups written since the stamp.
    number: u64,
    /// Where the next group goes.
    at: u64,
    /// Logs whose segments the groups in the active file touched.
    touched: BTreeSet<LogId>,
    /// Logs whose segments must be synced before the other file may be overwritten.
    owed: BTreeSet<LogId>,
    owed_at_switch: usize,
    gathered: Gathered,
    buffer: Vec<u8>,
}

/// The group to come.
#[derive(Debug, Default)]
struct Gathered {
    entries: Vec<Entry>,
    batches: Vec<Bytes>,
    logs: BTreeSet<LogId>,
    bytes: u64,
    is_too_long: bool,
}

impl<D: Disk + Clone> Journal<D> {
    /// Opens the journal of a commit thread, and creates its files where they are missing or of another length. What
    /// they held must have been redone.
    ///
    /// Errors: [`DiskError::Full`] if a file cannot be created; nothing is left of it.
    pub(crate) fn open(disk: &D, settings: WalSettings, thread: usize) -> Result<Self, DiskError> {
        disk.create_dir(JOURNAL_DIR)?;
        disk.sync_dir(parent(JOURNAL_DIR))?;
        let file_bytes = settings.journal_bytes.clamp(GROUPS_AT, JOURNAL_BYTES_MAX);
        let (one, first) = open_file(disk, settings.cluster, &path(thread, 'a'), file_bytes)?;
        let (other, second) = open_file(disk, settings.cluster, &path(thread, 'b'), file_bytes)?;
        let stamp = if first.generation > second.generation { first } else { second };
        Ok(Self {
            disk: disk.clone(),
            files: [one, other],
            file_bytes,
            active: 1,
            stamp,
            last_digest: Digest::ZERO,
            number: 0,
            // Full: the first group stamps the other file.
            at: file_bytes,
            touched: BTreeSet::new(),
            owed: BTreeSet::new(),
            owed_at_switch: 0,
            gathered: Gathered::default(),
            buffer: Vec::new(),
        })
    }

    /// Adds a batch to the group to come.
    pub(crate) fn gather(&mut self, log: LogId, entry: Entry, batch: Bytes) {
        let limit = (self.file_bytes - GROUPS_AT) / 2;
        let group = &mut self.gathered;
        group.bytes += batch.len() as u64;
        group.is_too_long |= group_bytes(group.entries.len() + 1, group.bytes) > limit;
        if group.is_too_long {
            // Its segments are synced instead: there is no use in holding on to it.
            (group.entries, group.batches) = (Vec::new(), Vec::new());
        } else {
            group.entries.push(entry);
            group.batches.push(batch);
            group.logs.insert(log);
        }
    }

    /// Forgets the group to come, if it is too long to be written here. Says so.
    pub(crate) fn skip_long_group(&mut self) -> bool {
        let is_too_long = self.gathered.is_too_long;
        if is_too_long {
            self.gathered = Gathered::default();
        }
        is_too_long
    }

    /// Whether the group to come fits into the active file.
    pub(crate) fn has_room(&self) -> bool {
        self.at + group_bytes(self.gathered.entries.len(), self.gathered.bytes) <= self.file_bytes
    }

    /// Turns to the other file, of which no segment may be owed. The stamp is durable before any group is written
    /// behind it: a group that survives under a stamp that did not would not count.
    pub(crate) fn switch(&mut self) -> Result<(), DiskError> {
        assert!(self.owed.is_empty(), "a journal is overwritten only once its segments are synced");
        self.stamp = self.stamp.next(&self.last_digest);
        self.active = 1 - self.active;
        self.write_stamp(self.active)?;
        self.owed = std::mem::take(&mut self.touched);
        self.owed_at_switch = self.owed.len();
        (self.number, self.at) = (0, GROUPS_AT);
        Ok(())
    }

    fn write_stamp(&mut self, file: usize) -> Result<(), DiskError> {
        let file = &mut self.files[file];
        self.disk.write_at(&file.file, STAMPS_AT[file.next_slot], &self.stamp.encode())?;
        self.disk.sync_data(&file.file)?;
        file.next_slot = 1 - file.next_slot;
        Ok(())
    }

    /// Writes the gathered group into the active file, which has room for it, and syncs it: then all of it is durable.
    pub(crate) fn write(&mut self) -> Result<(), DiskError> {
        let group = std::mem::take(&mut self.gathered);
        self.number += 1;
        self.last_digest =
            encode_group(&mut self.buffer, &self.stamp, self.number, &group.entries, &group.batches);
        let file = &self.files[self.active].file;
        self.disk.write_at(file, self.at, &self.buffer)?;
        self.disk.sync_data(file)?;
        self.at = align(self.at + self.buffer.len() as u64);
        self.touched.extend(group.logs);
        Ok(())
    }

    /// The next log whose segment is to be synced, so that all are before the active file is half full; with `is_all`
    /// any that is owed.
    pub(crate) fn next_owed(&self, is_all: bool) -> Option<LogId> {
        let half = ((self.file_bytes - GROUPS_AT) / 2).max(1);
        let used = self.at.clamp(GROUPS_AT, self.file_bytes) - GROUPS_AT;
        let paid = (self.owed_at_switch - self.owed.len()) as u64;
        let due = (self.owed_at_switch as u64 * used).div_ceil(half);
        (is_all || paid < due).then(|| self.owed.first().copied())?
    }

    /// Notes that a log's segment was synced.
    pub(crate) fn note_paid(&mut self, log: LogId) {
        self.owed.remove(&log);
    }

    /// Stamps both files anew, so that what they hold means nothing. All segments must be synced.
    pub(crate) fn void(&mut self) -> Result<(), DiskError> {
        for file in 0..self.files.len() {
            self.stamp = self.stamp.next(&self.last_digest);
            self.write_stamp(file)?;
        }
        self.owed.clear();
        self.touched.clear();
        self.at = self.file_bytes;
        Ok(())
    }
}

fn open_file<D: Disk>(
    disk: &D,
    cluster: ClusterId,
    path: &str,
    file_bytes: u64,
) -> Result<(JournalFile<D::File>, Stamp), DiskError> {
    match disk.open(path) {
        Err(error) if error.is_not_found() => {}
        opened => {
            let file = opened?;
            let stamps = read_stamps(disk, &file)?;
            if disk.len(&file)? == file_bytes
                && let Some((slot, stamp)) = newest(&stamps)
            {
                return Ok((JournalFile { file, next_slot: 1 - slot }, stamp));
            }
        }
    }
    let stamp = Stamp::start(cluster, path);
    let beside = format!("{path}.new");
    remove_if_there(disk, &beside)?;
    let file = disk.create(&beside)?;
    if let Err(error) = fill(disk, &file, &stamp, file_bytes) {
        // A disk that is full is lived with, one that does not even remove is not.
        disk.remove(&beside)?;
        return Err(error);
    }
    disk.rename(&beside, path)?;
    disk.sync_dir(JOURNAL_DIR)?;
    Ok((JournalFile { file: disk.open(path)?, next_slot: 1 }, stamp))
}

/// Writes the first stamp and zeros page by page: after one long write the system may keep the file in pieces of 2 MiB
/// and take each sync for one of a whole piece, which costs a third more CPU.
fn fill<D: Disk>(disk: &D, file: &D::File, stamp: &Stamp, file_bytes: u64) -> Result<(), DiskError> {
    let mut page = [0; PAGE_BYTES];
    page[..STAMP_BYTES].copy_from_slice(&stamp.encode());
    disk.write_at(file, 0, &page)?;
    page.fill(0);
    for at in (PAGE_BYTES as u64..file_bytes).step_by(PAGE_BYTES) {
        let bytes = usize::try_from(file_bytes - at).map_or(PAGE_BYTES, |left| left.min(PAGE_BYTES));
        disk.write_at(file, at, &page[..bytes])?;
    }
    disk.sync_data(file)
}

pub(crate) fn read_stamps<D: Disk>(disk: &D, file: &D::File) -> Result<[FoundStamp; 2], DiskError> {
    let read = |at| disk.read_at(file, at, STAMP_BYTES).map(|bytes| Stamp::parse(&bytes));
    Ok([read(STAMPS_AT[0])?, read(STAMPS_AT[1])?])
}

/// The stamp that counts, and in which place it is.
pub(crate) fn newest(stamps: &[FoundStamp; 2]) -> Option<(usize, Stamp)> {
    let whole = stamps.iter().enumerate().filter_map(|(slot, found)| match found {
        FoundStamp::Stamp(stamp) => Some((slot, *stamp)),
        _ => None,
    });
    whole.max_by_key(|(_, stamp)| stamp.generation)
}

/// The path of a journal file.
fn path(thread: usize, half: char) -> String {
    format!("{JOURNAL_DIR}/{thread:02}-{half}")
}

/// Whether a name in the directory is a journal file's.
pub(crate) fn is_journal_name(name: &str) -> bool {
    name.strip_suffix("-a").or(name.strip_suffix("-b")).is_some_and(|thread| {
        (2..=4).contains(&thread.len()) && thread.bytes().all(|byte| byte.is_ascii_digit())
    })
}
