//! Many logs of one shard over real files.

use super::*;
use crate::file_disk::FileDisk;
use crate::testing::{Pen, log_of, settings};

fn open(
    disk: &FileDisk,
    known: &BTreeMap<LogId, KnownEnd>,
) -> (Store<FileDisk>, Vec<Batch>, Vec<RecoveredLog>) {
    let mut batches = Vec::new();
    let mut each = |batch| batches.push(batch);
    let (store, recovered) =
        Store::open(disk.clone(), settings(4_096), ShardId(7), known, &mut each).unwrap();
    (store, batches, recovered)
}

#[test]
fn more_logs_than_files_may_stay_open_are_written_reopened_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(dir.path()).unwrap();
    let mut pens: Vec<Pen> = (1..=50).map(|id| Pen::new(log_of(id))).collect();
    let (mut store, ..) = open(&disk, &BTreeMap::new());
    for _ in 0..10 {
        for pen in &mut pens {
            store.append(&pen.next(300)).unwrap();
            assert!(store.sync_dirty().iter().all(|(_, synced)| synced.is_ok()));
        }
    }
    assert!(store.logs().filter(|writer| writer.is_open()).count() <= OPEN_TAILS_MAX + 1);
    let bytes_on_disk = store.bytes_on_disk();
    drop(store);
    let (store, batches, recovered) = open(&disk, &BTreeMap::new());
    assert_eq!((batches.len(), recovered.len()), (500, 50));
    assert!(recovered.iter().all(|log| log.damage.is_empty() && log.end.seq == Seq(10)));
    assert_eq!(store.bytes_on_disk(), bytes_on_disk);
    for pen in &pens {
        assert_eq!(store.log(pen.log).unwrap().end(), pen.end);
        assert_eq!(store.read(pen.log, Seq(4), usize::MAX).unwrap().len(), 7);
    }
}

#[test]
fn only_batches_behind_the_checkpoint_are_handed_over_and_pruned_logs_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(dir.path()).unwrap();
    let mut pen = Pen::new(log_of(1));
    let (mut store, ..) = open(&disk, &BTreeMap::new());
    let batches: Vec<Batch> = (0..30).map(|_| pen.next(300)).collect();
    for batch in &batches {
        store.append(batch).unwrap();
    }
    store.sync_dirty();
    store.prune(log_of(1), Seq(20)).unwrap();
    drop(store);
    let sealed = KnownEnd { seq: Seq(9), digest: None, ..KnownEnd::START };
    let known = BTreeMap::from([(log_of(1), KnownEnd::after(&batches[24])), (log_of(2), sealed)]);
    let (mut store, read, recovered) = open(&disk, &known);
    assert_eq!(read.iter().map(|batch| batch.header().seq.0).collect::<Vec<_>>(), [26, 27, 28, 29, 30]);
    assert!(recovered.iter().all(|log| log.damage.is_empty()));
    assert!(recovered[0].first > Some(Seq(1)));
    // Known from a seal alone: nothing on disk, nothing to link to.
    assert_eq!(recovered[1].end, sealed);
    store.append(&pen.next(10)).unwrap();
    assert_eq!(store.sync_dirty(), [(log_of(1), Ok(Seq(31)))]);
    store.prune_log(log_of(1)).unwrap();
    drop(store);
    assert_eq!(open(&disk, &BTreeMap::new()).2.len(), 0);
}

#[test]
fn a_shard_that_is_too_long_lets_go_of_the_oldest_as_far_as_needed_and_keeps_what_may_not_go() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(dir.path()).unwrap();
    let (mut store, ..) = open(&disk, &BTreeMap::new());
    let mut pens: Vec<Pen> = (1..=3).map(|id| Pen::new(log_of(id))).collect();
    for (pen, count) in pens.iter_mut().zip([60, 30, 10]) {
        (0..count).for_each(|_| store.append(&pen.next(1_000)).unwrap());
    }
    store.sync_dirty();
    let may_go = |id, through, has_ended| MayGo { log: log_of(id), through: Seq(through), has_ended };
    let all = [may_go(1, 60, false), may_go(2, 30, false), may_go(3, 10, true)];
    let (full, ended) = (store.bytes_on_disk(), store.log(log_of(3)).unwrap().index().bytes_on_disk());
    assert_eq!(store.shrink(&all, full).unwrap(), []);
    // What has ended goes first, as a whole.
    assert_eq!(store.shrink(&all, full - 1).unwrap(), [(log_of(3), Seq(10))]);
    assert!(store.log(log_of(3)).is_none());
    assert_eq!(store.shrink(&all, full - ended).unwrap(), []);
    // Then the longest log gives, and no more than one segment beyond what is asked.
    let gone = store.shrink(&all, full - ended - 10_000).unwrap();
    let [(log, through)] = gone[..] else { panic!("{gone:?}") };
    assert_eq!(log, log_of(1));
    let left = store.bytes_on_disk();
    assert!((full - ended - 15_000..=full - ended - 10_000).contains(&left), "{left} of {full}");
    assert_eq!(store.log(log_of(1)).unwrap().index().first(), Some(through.next()));
    assert_eq!(store.read(log_of(2), Seq(1), usize::MAX).unwrap().len(), 30);
    // What a checkpoint does not cover stays, and each log's newest segment.
    let some = [may_go(1, 60, false), may_go(2, 5, false)];
    store.shrink(&some, 0).unwrap();
    assert_eq!(store.log(log_of(1)).unwrap().index().segments().len(), 1);
    let first = store.log(log_of(2)).unwrap().index().first();
    assert!(first > Some(Seq(1)) && first <= Some(Seq(6)), "{first:?}");
    drop(store);
    let known = BTreeMap::from([(log_of(1), pens[0].end), (log_of(2), pens[1].end)]);
    assert!(open(&disk, &known).2.iter().all(|log| log.damage.is_empty()));
}

#[test]
fn inspecting_reads_what_is_there_without_the_lock_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(dir.path()).unwrap();
    let mut pen = Pen::new(log_of(1));
    let (mut store, ..) = open(&disk, &BTreeMap::new());
    for _ in 0..30 {
        store.append(&pen.next(300)).unwrap();
    }
    store.sync_dirty();
    store.prune(log_of(1), Seq(10)).unwrap();
    let looking = FileDisk::open_unlocked(dir.path()).unwrap();
    assert_eq!(crate::inspect::logs(&looking).unwrap(), [log_of(1)]);
    let mut seqs = Vec::new();
    let mut each = |batch: Batch| seqs.push(batch.header().seq);
    let found = crate::inspect::log(&looking, settings(4_096), log_of(1), &mut each).unwrap();
    assert_eq!((found.end, found.damage), (pen.end, vec![]));
    assert!(found.segments.iter().all(|segment| segment.has_header && segment.runs.len() == 1));
    assert_eq!(seqs.last(), Some(&Seq(30)));
    assert_eq!(crate::inspect::quarantined(&looking).unwrap(), Vec::<String>::new());
}
