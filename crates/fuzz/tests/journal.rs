//! The commit journal: what a region redoes before it reads its segments.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tombolo_causality::Seq;
use tombolo_codec::Batch;
use tombolo_fuzz::{drive, seeds, within_allowance};
use tombolo_wal::segment::{SEGMENT_HEADER_BYTES, log_dir, segment_path, shard_dir};
use tombolo_wal::{Disk, DiskError, GroupCommit, MemoryDisk, Redone, Store, WalSettings, recovery, redo};

/// Two files of this length take turns.
const JOURNAL_BYTES: u64 = 16 * 1_024;
const JOURNALS: [&str; 2] = ["journal/00-a", "journal/00-b"];

fn settings() -> WalSettings {
    let settings = WalSettings::new(seeds::CLUSTER, seeds::log().region);
    WalSettings { segment_bytes: 64 * 1_024, journal_bytes: JOURNAL_BYTES, ..settings }
}

fn content(disk: &MemoryDisk, path: &str) -> Result<Vec<u8>, DiskError> {
    let file = disk.open(path)?;
    let bytes = usize::try_from(disk.len(&file)?).expect("files in memory are short");
    disk.read_at(&file, 0, bytes)
}

/// The two journal files and the segment, as each of these groups was synced on its own.
fn written(groups: &[Batch]) -> ([Vec<u8>; 2], Vec<u8>) {
    let disk = Rc::new(MemoryDisk::new(1));
    let opened = Store::open(Rc::clone(&disk), settings(), seeds::log().shard, &BTreeMap::new(), &mut |_| {});
    let (store, _) = opened.expect("an empty disk opens");
    let mut commit = GroupCommit::open(&disk, settings(), 0, [store]).expect("a journal is made");
    for batch in groups {
        commit.append(batch.clone(), &mut |_| {});
        assert_eq!(commit.sync(&mut |_| {}).batches_count, 1);
    }
    let read = |path: &str| content(&disk, path).expect("it was written");
    (JOURNALS.map(read), read(&segment_path(seeds::log(), Seq(1))))
}

/// A disk after a power cut that took all of the segment but its header.
fn disk(journals: [&[u8]; 2], segment: &[u8]) -> Result<Rc<MemoryDisk>, DiskError> {
    let (disk, log) = (Rc::new(MemoryDisk::new(1)), seeds::log());
    let dirs = ["journal".to_owned(), "shards".to_owned(), shard_dir(log.shard), log_dir(log)];
    dirs.iter().try_for_each(|dir| disk.create_dir(dir))?;
    let lost = segment.iter().enumerate().map(|(at, byte)| if at < SEGMENT_HEADER_BYTES { *byte } else { 0 });
    let (lost, path): (Vec<u8>, String) = (lost.collect(), segment_path(log, Seq(1)));
    for (path, bytes) in [(JOURNALS[0], journals[0]), (JOURNALS[1], journals[1]), (path.as_str(), &lost)] {
        let file = disk.create(path)?;
        disk.write_at(&file, 0, bytes)?;
        disk.sync_data(&file)?;
    }
    ["", "shards"]
        .into_iter()
        .chain(dirs.iter().map(String::as_str))
        .try_for_each(|dir| disk.sync_dir(dir))?;
    Ok(disk)
}

/// What is redone, and which batches recovery finds then.
fn redone(journals: [&[u8]; 2], segment: &[u8]) -> (Redone, Vec<Batch>) {
    let disk = disk(journals, segment).expect("a disk in memory takes what is written");
    // Redoing writes segments, which this disk holds in the same memory.
    let bytes = journals[0].len() + journals[1].len() + segment.len();
    let redone = within_allowance(bytes, || redo(&disk, settings())).expect("damage is no error");
    let mut batches = Vec::new();
    let logs = BTreeSet::from([seeds::log()]);
    recovery::recover_logs(&disk, settings(), &logs, &BTreeMap::new(), &mut |batch| batches.push(batch))
        .expect("damage is no error");
    (redone, batches)
}

#[test]
fn a_journal_gives_back_only_what_was_written_whatever_became_of_it() {
    let batches = seeds::batches();
    let (journals, segment) = written(&batches);
    let (whole, given) = redone([&journals[0], &journals[1]], &segment);
    assert_eq!(
        (whole.groups_count, whole.damage.len(), given.len()),
        (batches.len() as u64, 0, batches.len())
    );

    // Shorter than a file is, so that edits hit what is in it.
    let used = |journal: &Vec<u8>| journal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let active = usize::from(used(&journals[0]) < used(&journals[1]));
    let used_bytes = used(&journals[active]);
    let seeds = [journals[active][..used_bytes].to_vec(), journals[1 - active].clone()];
    drive(&seeds, |bytes, _| {
        let mut edited = bytes.to_vec();
        edited.resize(edited.len().max(journals[0].len()), 0);
        let mut files = [journals[0].as_slice(), journals[1].as_slice()];
        files[active] = &edited;
        let (redone, given) = redone(files, &segment);
        let expected = batches.iter().take(given.len()).map(Batch::bytes);
        assert!(given.iter().map(Batch::bytes).eq(expected), "{} batches, {redone:?}", given.len());
        !given.is_empty()
    })
    .got_inside();
}
