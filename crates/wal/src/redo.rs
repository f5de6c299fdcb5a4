//! [`redo()`]: writes what the commit journals hold to the segments again, before anything else looks at these.
//!
//! A batch that a journal made durable may be missing or torn in its segment after a power cut. Redoing writes it where
//! it stood, syncs, and only then voids the journals: a crash anywhere in between is made good by the next start. Never
//! judges segments; that is [`crate::recovery`], which then finds them whole. Start at [`redo()`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;

use tombolo_codec::{Digest, Header};
use tombolo_mutants::{Mutant, is_planted};

use crate::disk::{Disk, DiskError, list_if_there, remove_if_there};
use crate::error::WalError;
use crate::journal::format::{FoundStamp, GROUP_ALIGN, GROUPS_AT, Group, STAMPS_AT, Stamp, align};
use crate::journal::{JOURNAL_BYTES_MAX, JOURNAL_DIR, is_journal_name, newest};
use crate::log::WalSettings;
use crate::quarantine::quarantine;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};

/// What is read at a time; what cannot be read is given up in pieces of this length.
const READ_BYTES: usize = 64 * 1_024;

/// What redoing did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redone {
    /// Groups found in the journals.
    pub groups_count: u64,
    /// Batches in them whose segment is still there: written again.
    pub batches_count: u64,
    /// How many files were written and synced.
    pub segments_count: usize,
    /// Journal files that rotted.
    pub damage: Vec<JournalDamage>,
}

/// Damage in a journal that no power cut leaves. What its groups covered may be missing in the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalDamage {
    /// In which file.
    pub path: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What was found.
    pub reason: &'static str,
    /// Where the file went.
    pub quarantined: String,
}

/// Redoes every journal in the directory, whatever the count of commit threads was, and leaves them void.
///
/// To be called once by a process that has the directory for itself, before any [`crate::Store::open`].
///
/// Errors: [`WalError::WrongCluster`] and [`WalError::Format`], before anything is changed; the disk's, after which
/// the next call starts over. Rot is not an error: [`Redone::damage`].
pub fn redo<D: Disk>(disk: &D, settings: WalSettings) -> Result<Redone, WalError> {
    if is_planted(Mutant::RedoSkipped) {
        return Ok(Redone::default());
    }
    let mut images = Vec::new();
    for name in list_if_there(disk, JOURNAL_DIR)? {
        let path = format!("{JOURNAL_DIR}/{name}");
        if is_journal_name(&name) {
            images.push(Image::read(disk, settings, path)?);
        } else if name.ends_with(".new") {
            remove_if_there(disk, &path)?;
        }
    }
    let mut redone = Redone::default();
    let mut segments = Segments { disk, settings, files: BTreeMap::new() };
    let mut walks = Vec::new();
    for image in &images {
        walks.push(image.walk(&mut |group| {
            redone.groups_count += 1;
            for (entry, batch) in group.entries() {
                let header = Header::parse(batch).ok().filter(|header| {
                    header.batch_bytes() == batch.len()
                        && header.cluster == settings.cluster
                        && entry.offset >= SEGMENT_HEADER_BYTES as u64
                        && entry.first <= header.seq
                });
                // What verifies but is no such batch was written by another build; recovery says what is missing.
                let Some(header) = header else { continue };
                redone.batches_count += u64::from(segments.write(&header, &entry, batch)?);
            }
            Ok(())
        })?);
    }
    redone.segments_count = segments.sync()?;
    for (image, walk) in images.into_iter().zip(walks) {
        redone.damage.extend(image.put_away(disk, &walk)?);
    }
    Ok(redone)
}

/// The segments that were written to.
struct Segments<'a, D: Disk> {
    disk: &'a D,
    settings: WalSettings,
    /// None where a segment is gone: pruned since.
    files: BTreeMap<String, Option<D::File>>,
}

impl<D: Disk> Segments<'_, D> {
    /// Writes a batch in its place, whatever stands there: after a failed sync pages may look right and not be on the
    /// disk. Says whether its segment is there.
    fn write(
        &mut self,
        header: &Header,
        entry: &crate::journal::format::Entry,
        batch: &[u8],
    ) -> Result<bool, DiskError> {
        let path = segment_path(header.log, entry.first);
        let file = match self.files.entry(path) {
            MapEntry::Occupied(found) => found.into_mut(),
            MapEntry::Vacant(missing) => {
                let opened = match self.disk.open(missing.key()) {
                    Err(error) if error.is_not_found() => None,
                    opened => Some(opened?),
                };
                if let Some(file) = &opened {
                    // The name of a segment is durable before its first batch, its header need not be.
                    let (cluster, log, first) = (self.settings.cluster, header.log, entry.first);
                    self.disk.write_at(file, 0, &SegmentHeader { cluster, log, first }.encode())?;
                }
                missing.insert(opened)
            }
        };
        if let Some(file) = file {
            self.disk.write_at(file, entry.offset, batch)?;
        }
        Ok(file.is_some())
    }

    fn sync(self) -> Result<usize, DiskError> {
        let mut count = 0;
        for file in self.files.values().flatten() {
            self.disk.sync_data(file)?;
            count += 1;
        }
        Ok(count)
    }
}

/// A journal file in memory.
struct Image {
    path: String,
    bytes: Vec<u8>,
    /// The stamp that counts, and in which place it is.
    stamp: Option<(usize, Stamp)>,
    /// Where the disk gave nothing.
    unreadable_at: Option<u64>,
}

/// How far the groups of an image go.
struct Walk {
    /// That of the groups; also where the file's own is damaged.
    stamp: Option<Stamp>,
    last_digest: Digest,
    damage: Option<(u64, &'static str)>,
}

impl Image {
    fn read<D: Disk>(disk: &D, settings: WalSettings, path: String) -> Result<Self, WalError> {
        let file = disk.open(&path)?;
        let len = disk.len(&file)?.min(JOURNAL_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(len).expect("bounded")];
        let mut unreadable_at = None;
        for (number, piece) in bytes.chunks_mut(READ_BYTES).enumerate() {
            let at = (number * READ_BYTES) as u64;
            match disk.read_at(&file, at, piece.len()) {
                Ok(read) => piece[..read.len()].copy_from_slice(&read),
                Err(_) => unreadable_at = unreadable_at.or(Some(at)),
            }
        }
        let stamps = STAMPS_AT.map(|at| {
            let at = usize::try_from(at).expect("small");
            bytes.get(at..).map_or(FoundStamp::Nothing, Stamp::parse)
        });
        for stamp in stamps {
            match stamp {
                FoundStamp::Stamp(Stamp { cluster: found, .. }) if found != settings.cluster => {
                    return Err(WalError::WrongCluster { path, expected: settings.cluster, found });
                }
                FoundStamp::Version(found) => {
                    return Err(WalError::Format { path, expected: 1, found: found.into() });
                }
                _ => {}
            }
        }
        Ok(Self { path, bytes, stamp: newest(&stamps), unreadable_at })
    }

    fn group_at(&self, at: u64) -> Option<Group<'_>> {
        Group::parse(self.bytes.get(usize::try_from(at).ok()?..)?)
    }

    /// Hands over the groups of the last use of the file in order, also those behind damage.
    fn walk(&self, each: &mut dyn FnMut(&Group<'_>) -> Result<(), DiskError>) -> Result<Walk, DiskError> {
        let mut damage = self.unreadable_at.map(|at| (at, "the disk does not give these bytes"));
        let mut stamp = self.stamp.map(|(_, stamp)| stamp);
        let first = self.group_at(GROUPS_AT).map(|group| (group.generation, group.salt));
        if let Some((generation, salt)) = first
            && stamp.is_none_or(|stamp| stamp.generation < generation)
        {
            // A stamp is durable before its first group: here it was, and the group still says what it was.
            damage = damage.or(Some((0, "the file's stamp is damaged")));
            let cluster = stamp.map_or(tombolo_causality::ClusterId(0), |stamp| stamp.cluster);
            stamp = Some(Stamp { cluster, generation, salt });
        }
        let Some(current) = stamp else {
            // One of two stamps survives every power cut.
            let damage = damage.or(Some((0, "the file has no stamp")));
            return Ok(Walk { stamp, last_digest: Digest::ZERO, damage });
        };
        let mut walk = Walk { stamp, last_digest: Digest::ZERO, damage };
        let (mut at, mut number, mut torn_at) = (GROUPS_AT, 1, None);
        while at < self.bytes.len() as u64 {
            let group = self.group_at(at).filter(|group| group.is_of(&current) && group.number >= number);
            let Some(group) = group else {
                // Groups are synced one by one: only the last may be torn. So look whether it is.
                torn_at = torn_at.or(Some(at));
                at += GROUP_ALIGN;
                continue;
            };
            if let Some(torn_at) = torn_at.take() {
                walk.damage =
                    walk.damage.or(Some((torn_at, "a group does not verify, and others follow it")));
            }
            each(&group)?;
            walk.last_digest = group.digest;
            number = group.number + 1;
            at = align(at + group.bytes);
        }
        Ok(walk)
    }

    /// Voids the file, or moves it to quarantine if it is damaged. Everything in it was redone and synced.
    fn put_away<D: Disk>(self, disk: &D, walk: &Walk) -> Result<Option<JournalDamage>, DiskError> {
        let path = self.path;
        if let Some((offset, reason)) = walk.damage {
            let name = path.replace('/', "-");
            let quarantined = quarantine(disk, &path, &name)?;
            return Ok(Some(JournalDamage { path, offset, reason, quarantined }));
        }
        if walk.last_digest != Digest::ZERO
            && let (Some(stamp), Some((slot, _))) = (walk.stamp, self.stamp)
        {
            let file = disk.open(&path)?;
            disk.write_at(&file, STAMPS_AT[1 - slot], &stamp.next(&walk.last_digest).encode())?;
            disk.sync_data(&file)?;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
