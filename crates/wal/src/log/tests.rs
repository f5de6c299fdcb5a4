//! The writer: order, rolling, reading back, failed syncs, a full disk.

use std::rc::Rc;

use super::*;
use crate::memory_disk::MemoryDisk;
use crate::store::Store;
use crate::testing::{Pen, log_of, settings};
use std::collections::BTreeMap;
use tombolo_causality::ShardId;

fn open(disk: &Rc<MemoryDisk>, segment_bytes: u64) -> Store<Rc<MemoryDisk>> {
    let known = BTreeMap::new();
    Store::open(Rc::clone(disk), settings(segment_bytes), ShardId(7), &known, &mut |_| {}).unwrap().0
}

fn sync(store: &mut Store<Rc<MemoryDisk>>) -> Result<Seq, WalError> {
    store.sync_dirty().pop().unwrap().1
}

#[test]
fn batches_are_read_back_across_segments_from_any_seq() {
    let disk = Rc::new(MemoryDisk::new(1));
    let mut store = open(&disk, 4_096);
    let mut pen = Pen::new(log_of(1));
    let batches: Vec<Batch> = (0..100).map(|at| pen.next(at * 7 % 900)).collect();
    for batch in &batches {
        store.append(batch).unwrap();
    }
    // What no sync has covered stays here: a batch is shipped only after its own sync. (Rolling syncs the rest.)
    let durable = store.log(log_of(1)).unwrap().durable_through();
    assert!(durable < Seq(100) && store.read(log_of(1), durable.next(), 1).unwrap().is_empty());
    assert_eq!(sync(&mut store), Ok(Seq(100)));
    assert!(disk.files().iter().filter(|(path, _)| path.ends_with(".seg")).count() > 10);
    for from in [1, 2, 37, 99, 100] {
        let read = store.read(log_of(1), Seq(from), usize::MAX).unwrap();
        assert_eq!(read.len() as u64, 101 - from);
        for (read, written) in read.iter().zip(&batches[from as usize - 1..]) {
            assert_eq!(read.bytes(), written.bytes());
        }
    }
    assert_eq!(store.read(log_of(1), Seq(5), 1).unwrap().len(), 1);
    assert!(store.read(log_of(1), Seq(101), 1).unwrap().is_empty());
}

#[test]
fn a_batch_out_of_place_is_refused_and_changes_nothing() {
    let disk = Rc::new(MemoryDisk::new(1));
    let mut store = open(&disk, 1 << 20);
    let mut pen = Pen::new(log_of(1));
    let first = pen.next(10);
    let second = pen.next(10);
    let third = pen.next(10);
    let refused = |found, expected| Err(WalError::OutOfOrder { log: log_of(1), expected, found });
    assert_eq!(store.append(&second), refused(Seq(2), Seq(1)));
    store.append(&first).unwrap();
    assert_eq!(store.append(&first), refused(Seq(1), Seq(2)));
    assert_eq!(store.append(&third), refused(Seq(3), Seq(2)));
    let mut fork =
        Pen { end: KnownEnd { digest: Some(Digest([9; 32])), ..KnownEnd::after(&first) }, ..pen.clone() };
    assert_eq!(store.append(&fork.next(10)), Err(WalError::BrokenChain { log: log_of(1), seq: Seq(2) }));
    let mut foreign = Pen { cluster: tombolo_causality::ClusterId(1), end: KnownEnd::after(&first), ..pen };
    assert!(matches!(store.append(&foreign.next(10)), Err(WalError::WrongCluster { .. })));
    let mut stray = Pen::new(LogId { shard: ShardId(8), ..log_of(1) });
    assert!(matches!(store.append(&stray.next(10)), Err(WalError::WrongLog { .. })));
    store.append(&second).unwrap();
    store.append(&third).unwrap();
    assert_eq!(sync(&mut store), Ok(Seq(3)));
}

#[test]
fn after_a_failed_sync_nothing_is_acked_on_the_strength_of_a_later_one() {
    let disk = Rc::new(MemoryDisk::new(1));
    let mut store = open(&disk, 1 << 20);
    let mut pen = Pen::new(log_of(1));
    store.append(&pen.next(10)).unwrap();
    assert_eq!(sync(&mut store), Ok(Seq(1)));
    store.append(&pen.next(10)).unwrap();
    disk.fail_syncs(1);
    assert!(matches!(sync(&mut store), Err(WalError::Disk(_))));
    // The disk works again; this log does not, in this process.
    assert!(matches!(store.append(&pen.next(10)), Err(WalError::Poisoned { .. })));
    assert_eq!(store.log(log_of(1)).unwrap().durable_through(), Seq(1));
    assert_eq!(store.read(log_of(1), Seq(1), usize::MAX).unwrap().len(), 1);
}

#[test]
fn a_sync_that_fails_while_rolling_poisons_the_log_too() {
    let disk = Rc::new(MemoryDisk::new(1));
    let mut store = open(&disk, 600);
    let mut pen = Pen::new(log_of(1));
    store.append(&pen.next(10)).unwrap();
    disk.fail_syncs(1);
    let second = pen.next(400);
    assert!(matches!(store.append(&second), Err(WalError::Disk(_))));
    assert!(matches!(store.append(&second), Err(WalError::Poisoned { .. })));
    assert_eq!(store.log(log_of(1)).unwrap().durable_through(), Seq::ZERO);
}

#[test]
fn a_full_disk_refuses_a_batch_that_fits_once_space_returns() {
    // At every amount of space left: within the header, a batch, the space ahead, at a roll.
    for space in 0..3_000 {
        let disk = Rc::new(MemoryDisk::new(space));
        let mut store = open(&disk, 1_500);
        let mut pen = Pen::new(log_of(1));
        disk.limit_space(Some(space));
        let batches: Vec<Batch> = (0..5).map(|_| pen.next(300)).collect();
        let mut refused_count = 0;
        for batch in &batches {
            if let Err(error) = store.append(batch) {
                assert!(error.is_full(), "{error}");
                refused_count += 1;
                disk.limit_space(None);
                store.append(batch).unwrap();
            }
        }
        assert!(refused_count <= 1 && (space > 1_000 || refused_count == 1), "{space}");
        assert_eq!(sync(&mut store), Ok(Seq(5)));
        disk.power_loss(space);
        let mut read = Vec::new();
        let known = BTreeMap::new();
        let opened =
            Store::open(Rc::clone(&disk), settings(1_500), ShardId(7), &known, &mut |batch| read.push(batch));
        assert!(opened.unwrap().1[0].damage.is_empty());
        assert_eq!(read.len(), 5);
    }
}

#[test]
fn pruning_removes_whole_segments_and_never_the_end() {
    let disk = Rc::new(MemoryDisk::new(1));
    let mut store = open(&disk, 2_000);
    let mut pen = Pen::new(log_of(1));
    for _ in 0..20 {
        store.append(&pen.next(300)).unwrap();
    }
    sync(&mut store).unwrap();
    let bytes_before = store.bytes_on_disk();
    assert!(store.prune(log_of(1), Seq(9)).unwrap() > 0);
    assert!(store.bytes_on_disk() < bytes_before);
    let first = store.log(log_of(1)).unwrap().index().first().unwrap();
    assert!(first > Seq(1) && first <= Seq(10));
    let refused = store.read(log_of(1), Seq(1), 1).unwrap_err();
    assert_eq!(refused, WalError::NotRetained { log: log_of(1), from: Seq(1), first: Some(first) });
    assert_eq!(store.read(log_of(1), Seq(10), usize::MAX).unwrap().len(), 11);
    store.prune(log_of(1), Seq(20)).unwrap();
    assert_eq!(store.log(log_of(1)).unwrap().index().segments().len(), 1);
    store.append(&pen.next(300)).unwrap();
    assert_eq!(sync(&mut store), Ok(Seq(21)));
    store.prune_log(log_of(1)).unwrap();
    assert!(disk.files().is_empty());
    assert!(store.read(log_of(1), Seq(1), 1).is_err());
}
