//! The threads: everything handed over is answered, syncs are put off only as long as asked, shutdown leaves nothing.

use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::file_disk::FileDisk;
use crate::memory_disk::MemoryDisk;
use crate::testing::{Pen, log_of, settings};

const LONG: Duration = Duration::from_secs(20);

fn start<D>(
    disk: &D,
    durability: Durability,
    change: impl FnOnce(&mut CommitterSettings),
) -> (Committer, Receiver<CommitEvent>)
where
    D: Disk + Clone + Send + 'static,
    D::File: Send,
{
    let wal = settings(1 << 20);
    let stores =
        (0..8).map(|shard| Store::open(disk.clone(), wal, ShardId(shard), &BTreeMap::new(), &mut |_| {}));
    let stores = stores.map(|opened| opened.unwrap().0).collect();
    let mut settings = CommitterSettings::new(wal, durability);
    change(&mut settings);
    let (sender, events) = channel();
    let committer =
        Committer::start(disk.clone(), stores, settings, move |event| drop(sender.send(event))).unwrap();
    (committer, events)
}

fn shared() -> Arc<Mutex<MemoryDisk>> {
    Arc::new(Mutex::new(MemoryDisk::new(1)))
}

fn pen(shard: u16) -> Pen {
    Pen::new(LogId { shard: ShardId(shard), ..log_of(1) })
}

fn wait_for(events: &Receiver<CommitEvent>, wanted: impl Fn(&CommitEvent) -> bool) -> Vec<CommitEvent> {
    let mut seen = Vec::new();
    while !seen.last().is_some_and(&wanted) {
        seen.push(events.recv_timeout(LONG).unwrap());
    }
    seen
}

fn is_durable(log: LogId, seq: u64) -> impl Fn(&CommitEvent) -> bool {
    move |event| *event == CommitEvent::Durable { log, through: Seq(seq) }
}

fn ask<T: Send + 'static>(
    committer: &Committer,
    errand: impl FnOnce(Reply<T>) -> Errand,
) -> Result<T, WalError> {
    let (sender, answer) = channel();
    let sent = committer.try_errand(errand(Box::new(move |reply| drop(sender.send(reply)))));
    assert!(sent.is_ok());
    answer.recv_timeout(LONG).unwrap()
}

#[test]
fn batches_of_all_shards_become_durable_are_read_pruned_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(dir.path()).unwrap();
    let (committer, events) = start(&disk, Durability::Sync, |_| {});
    let mut pens: Vec<Pen> = (0..8).map(pen).collect();
    for _ in 0..50 {
        for pen in &mut pens {
            committer.try_append(pen.next(200)).unwrap();
        }
    }
    let mut durable = BTreeMap::new();
    while durable.values().filter(|through| **through == Seq(50)).count() < 8 {
        if let CommitEvent::Durable { log, through } = events.recv_timeout(LONG).unwrap() {
            assert!(durable.insert(log, through) < Some(through), "positions grow");
        }
    }
    for pen in &pens {
        let log = pen.log;
        let read = ask(&committer, |reply| Errand::Read { log, from: Seq(11), bytes_max: usize::MAX, reply });
        assert_eq!(read.unwrap().len(), 40);
    }
    let log = pens[3].log;
    assert_eq!(ask(&committer, |reply| Errand::Prune { log, through: Seq(50), reply }), Ok(0));
    assert_eq!(ask(&committer, |reply| Errand::PruneLog { log, reply }), Ok(()));
    let gone = ask(&committer, |reply| Errand::Read { log, from: Seq(1), bytes_max: 1, reply });
    assert!(matches!(gone, Err(WalError::NotRetained { .. })));
    let bytes = vec![7; 100_000];
    assert_eq!(ask(&committer, |reply| Errand::Checkpoint { shard: ShardId(1), bytes, reply }), Ok(()));
    committer.shutdown(LONG).unwrap();
    let refused = committer.try_append(pens[0].next(1));
    assert!(matches!(refused, Err(Refused::Stopped(_))));
    drop((committer, disk));
    // The threads have let go of the directory.
    let disk = FileDisk::open(dir.path()).unwrap();
    let mut count = 0;
    let found =
        Store::open(disk, settings(1 << 20), ShardId(0), &BTreeMap::new(), &mut |_| count += 1).unwrap();
    assert_eq!((count, found.0.log(pens[0].log).unwrap().end().seq), (50, Seq(50)));
}

fn synced_logs(events: &[CommitEvent]) -> Vec<usize> {
    let count = |event: &CommitEvent| match event {
        CommitEvent::Synced { logs_count, .. } => Some(*logs_count),
        _ => None,
    };
    events.iter().filter_map(count).filter(|count| *count > 0).collect()
}

#[test]
fn what_another_region_wrote_gathers_for_a_moment_and_goes_with_what_is_written_here() {
    let (committer, events) = start(&shared(), Durability::Sync, |_| {});
    let (mut own, mut others) = (pen(0), Pen::new(LogId { shard: ShardId(1), ..log_of(2) }));
    // The least of some: a machine that stands still makes any one late.
    let alone = (1..=5).map(|seq| {
        let started = Instant::now();
        committer.try_append(others.next(10)).unwrap();
        wait_for(&events, is_durable(others.log, seq));
        started.elapsed()
    });
    let took = alone.min().unwrap();
    assert!(took >= OTHERS_GATHER && took < IDLE_WAIT, "it took {took:?}");
    // The thread may be slow to begin, so one of many is enough: both in one sync, before the moment is over.
    let together = (6..200).any(|seq| {
        while events.recv_timeout(Duration::from_millis(5)).is_ok() {}
        committer.try_append(others.next(10)).unwrap();
        committer.try_append(own.next(10)).unwrap();
        let mut seen = wait_for(&events, is_durable(others.log, seq));
        seen.extend(wait_for(&events, |event| matches!(event, CommitEvent::Synced { .. })));
        synced_logs(&seen) == [2]
    });
    assert!(together, "a write of this region never took along what gathered");
    committer.shutdown(LONG).unwrap();
}

#[test]
fn shutdown_and_a_jump_ahead_sync_what_gathers() {
    let disk = shared();
    let (committer, events) = start(&disk, Durability::Sync, |_| {});
    let mut others = Pen::new(log_of(2));
    committer.try_append(others.next(10)).unwrap();
    let end = KnownEnd { seq: Seq(9), ..others.end };
    let log = others.log;
    assert_eq!(ask(&committer, |reply| Errand::Advance { log, end, reply }), Ok(()));
    let mut last = Pen::new(LogId { shard: ShardId(3), ..log_of(2) });
    committer.try_append(last.next(10)).unwrap();
    committer.shutdown(LONG).unwrap();
    wait_for(&events, is_durable(last.log, 1));
    disk.lock().unwrap().power_loss(1);
    for found in [log, last.log] {
        let mut seqs = Vec::new();
        Store::open(disk.clone(), settings(1 << 20), found.shard, &BTreeMap::new(), &mut |batch| {
            seqs.push(batch.header().seq);
        })
        .unwrap();
        assert_eq!(seqs, [Seq(1)], "{found:?}");
    }
}

#[test]
fn interval_reports_staged_first_and_durable_only_after_its_time() {
    let (committer, events) = start(&shared(), Durability::Interval(Duration::from_millis(150)), |_| {});
    let mut pen = pen(0);
    let started = Instant::now();
    committer.try_append(pen.next(10)).unwrap();
    let seen = wait_for(&events, is_durable(pen.log, 1));
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert_eq!(seen[0], CommitEvent::Staged { log: pen.log, through: Seq(1) });
    committer.shutdown(LONG).unwrap();
}

#[test]
fn shutdown_syncs_what_async_put_off() {
    let disk = shared();
    let (committer, events) = start(&disk, Durability::Async, |_| {});
    let mut pen = pen(0);
    for _ in 0..10 {
        committer.try_append(pen.next(10)).unwrap();
    }
    committer.shutdown(LONG).unwrap();
    wait_for(&events, is_durable(pen.log, 10));
    disk.lock().unwrap().power_loss(1);
    let mut count = 0;
    Store::open(disk, settings(1 << 20), ShardId(0), &BTreeMap::new(), &mut |_| count += 1).unwrap();
    assert_eq!(count, 10);
}

#[test]
fn a_full_disk_stalls_fills_the_inbox_and_heals_without_losing_or_reordering() {
    let disk = shared();
    let (committer, events) = start(&disk, Durability::Sync, |settings| settings.inbox_count_max = 20);
    let mut pen = pen(0);
    disk.lock().unwrap().limit_space(Some(0));
    let mut handed_over = 0;
    let refused = loop {
        let batch = pen.next(100);
        match committer.try_append(batch) {
            Ok(()) => handed_over += 1,
            Err(Refused::Full(batch)) => break batch,
            Err(Refused::Stopped(_)) => panic!("it runs"),
        }
    };
    assert!(handed_over >= 20);
    let seen = wait_for(&events, |event| matches!(event, CommitEvent::Stalled { .. }));
    assert_eq!(seen.len(), 1);
    // Errands get through all the while.
    let log = pen.log;
    assert_eq!(ask(&committer, |reply| Errand::Prune { log, through: Seq(1), reply }), Ok(0));
    disk.lock().unwrap().limit_space(None);
    let seen = wait_for(&events, is_durable(log, handed_over));
    assert!(seen.contains(&CommitEvent::Resumed { log }));
    let mut refused = Some(refused);
    let deadline = Instant::now() + LONG;
    while let Some(batch) = refused.take() {
        assert!(Instant::now() < deadline);
        if let Err(Refused::Full(batch)) = committer.try_append(batch) {
            refused = Some(batch);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    wait_for(&events, is_durable(log, handed_over + 1));
    committer.shutdown(LONG).unwrap();
}

#[test]
fn a_failed_sync_is_answered_with_failed_for_everything_after_it() {
    let disk = shared();
    let (committer, events) = start(&disk, Durability::Sync, |_| {});
    let mut pen = pen(0);
    committer.try_append(pen.next(10)).unwrap();
    wait_for(&events, is_durable(pen.log, 1));
    disk.lock().unwrap().fail_syncs(1);
    committer.try_append(pen.next(10)).unwrap();
    let failed = |seq| move |event: &CommitEvent| matches!(event, CommitEvent::Failed { last: Seq(last), .. } if *last == seq);
    wait_for(&events, failed(2));
    committer.try_append(pen.next(10)).unwrap();
    let seen = wait_for(&events, failed(3));
    assert!(!seen.iter().any(|event| matches!(event, CommitEvent::Durable { .. })));
    committer.shutdown(LONG).unwrap();
}
