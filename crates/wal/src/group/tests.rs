//! Groups over a disk that fails and fills up: which events come, in which order.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;
use crate::memory_disk::MemoryDisk;
use crate::testing::{Pen, log_of, settings};

type Group = GroupCommit<Rc<MemoryDisk>>;

fn group() -> (Rc<MemoryDisk>, Group) {
    let disk = Rc::new(MemoryDisk::new(1));
    let known = BTreeMap::new();
    let opened = Store::open(Rc::clone(&disk), settings(1 << 20), ShardId(7), &known, &mut |_| {});
    (disk, GroupCommit::new([opened.unwrap().0]))
}

fn sync(group: &mut Group, emit: &mut dyn FnMut(CommitEvent)) {
    group.sync(emit);
}

/// What `run` emits, in short.
fn events(run: impl FnOnce(&mut dyn FnMut(CommitEvent))) -> Vec<String> {
    let mut events = Vec::new();
    run(&mut |event| {
        events.push(match event {
            CommitEvent::Staged { log, through } => format!("staged {:?} {through}", log.region),
            CommitEvent::Durable { log, through } => format!("durable {:?} {through}", log.region),
            CommitEvent::Failed { log, first, last, error } => {
                let why = if error.is_full() { "full" } else { "final" };
                format!("failed {:?} {first}-{last} {why}", log.region)
            }
            CommitEvent::Stalled { log, .. } => format!("stalled {:?}", log.region),
            CommitEvent::Resumed { log } => format!("resumed {:?}", log.region),
            CommitEvent::Synced { .. } => "synced".to_owned(),
        });
    });
    events
}

#[test]
fn one_sync_per_log_covers_the_group() {
    let (disk, mut group) = group();
    let (mut one, mut two) = (Pen::new(log_of(1)), Pen::new(log_of(2)));
    let syncs_before = disk.syncs_count();
    let appended = events(|emit| {
        for _ in 0..5 {
            group.append(one.next(10), emit);
            group.append(two.next(10), emit);
        }
    });
    assert!(appended.is_empty());
    assert_eq!(events(|emit| group.report_staged(emit)), ["staged r1 5", "staged r2 5"]);
    assert_eq!(events(|emit| assert_eq!(group.sync(emit).logs_count, 2)), ["durable r1 5", "durable r2 5"]);
    assert_eq!(disk.syncs_count() - syncs_before, 2);
    assert!(!group.is_dirty());
    assert!(events(|emit| sync(&mut group, emit)).is_empty());
}

#[test]
fn a_failed_sync_fails_its_batches_and_all_later_ones_of_that_log_alone() {
    let (disk, mut group) = group();
    let (mut one, mut two) = (Pen::new(log_of(1)), Pen::new(log_of(2)));
    events(|emit| {
        group.append(one.next(10), emit);
        group.append(one.next(10), emit);
        group.append(two.next(10), emit);
    });
    disk.fail_syncs(1);
    assert_eq!(events(|emit| sync(&mut group, emit)), ["failed r1 1-2 final", "durable r2 1"]);
    let later = events(|emit| {
        group.append(one.next(10), emit);
        group.append(two.next(10), emit);
        group.sync(emit);
    });
    assert_eq!(later, ["failed r1 3-3 final", "durable r2 2"]);
}

#[test]
fn a_full_disk_stalls_a_log_in_order_and_it_resumes_without_loss() {
    let (disk, mut group) = group();
    let mut pen = Pen::new(log_of(1));
    events(|emit| group.append(pen.next(10), emit));
    disk.limit_space(Some(0));
    let stalled = events(|emit| {
        for _ in 0..300 {
            group.append(pen.next(1_000), emit);
        }
    });
    assert_eq!(stalled, ["stalled r1"]);
    let waiting = group.waiting().0;
    assert!(waiting > 100);
    assert_eq!(events(|emit| sync(&mut group, emit)), [format!("durable r1 {}", 301 - waiting)]);
    assert!(events(|emit| group.retry(emit)).is_empty());
    assert_eq!(group.waiting().0, waiting);
    disk.limit_space(Some(50_000));
    assert!(events(|emit| group.retry(emit)).is_empty());
    assert!(group.waiting().0 < waiting);
    disk.limit_space(None);
    assert_eq!(events(|emit| group.retry(emit)), ["resumed r1"]);
    assert_eq!(events(|emit| sync(&mut group, emit)), ["durable r1 301"]);
    assert_eq!(group.store(ShardId(7)).unwrap().read(log_of(1), Seq(1), usize::MAX).unwrap().len(), 301);
}

#[test]
fn what_still_waits_at_the_end_is_said_to_have_failed() {
    let (disk, mut group) = group();
    let mut pen = Pen::new(log_of(1));
    disk.limit_space(Some(0));
    events(|emit| {
        group.append(pen.next(10), emit);
        group.append(pen.next(10), emit);
    });
    assert_eq!(events(|emit| group.give_up(emit)), ["failed r1 1-2 final"]);
    assert_eq!(group.waiting(), (0, 0));
}

#[test]
fn a_batch_out_of_order_fails_alone() {
    let (_, mut group) = group();
    let mut pen = Pen::new(log_of(1));
    let (first, second) = (pen.next(10), pen.next(10));
    let failed = events(|emit| {
        group.append(second.clone(), emit);
        group.append(first, emit);
        group.append(second, emit);
        group.sync(emit);
    });
    assert_eq!(failed, ["failed r1 2-2 final", "durable r1 2"]);
    let mut stray = Pen::new(LogId { shard: ShardId(9), ..log_of(1) });
    assert_eq!(events(|emit| group.append(stray.next(10), emit)), ["failed r1 1-1 final"]);
}
