//! Opening a shard with a million cells in its checkpoint and 300,000 ops in the log behind it, from real files.
//!
//! Bound: 5 s. It reads and decodes the checkpoint, restores the tables, reads, verifies and applies the batches; as a
//! daemon does for one shard after the other. Prints each step.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use tombolo_benches::{CLUSTER, Regions, SHARD, Sequence, options, region};
use tombolo_codec::Checkpoint;
use tombolo_replica::Replica;
use tombolo_wal::{FileDisk, Store, WalSettings, known_ends, read_checkpoint, write_checkpoint};

const CELLS: usize = 1_000_000;
const BACKLOG: usize = 300_000;
/// Ops of one request, and so of one batch at least.
const RUN: usize = 100;
const ROUNDS: usize = 5;

fn main() {
    // `cargo test --benches` runs this too: it measures only when asked to.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = FileDisk::open(directory.path()).expect("an empty directory");
    let settings = WalSettings::new(CLUSTER, region(1));
    fill(&disk, settings);
    let mut totals = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let decode = |bytes: Vec<u8>| Checkpoint::decode(&bytes, CLUSTER, SHARD);
        let checkpoint =
            read_checkpoint(&disk, SHARD, decode).expect("it reads").checkpoint.expect("there is one");
        let read = start.elapsed();
        let known = known_ends(SHARD, &checkpoint);
        let mut replica = Replica::open(options(region(1), vec![region(1)]), Some(&checkpoint));
        drop(checkpoint);
        let restored = start.elapsed();
        let mut each = |batch| replica.replay(&batch).expect("the log is sound");
        let (_, logs) = Store::open(disk.clone(), settings, SHARD, &known, &mut each).expect("it opens");
        let total = start.elapsed();
        let batches_count: u64 = logs.iter().map(|log| log.batches_count).sum();
        let cells_count = replica.report(Default::default()).cells_count;
        assert_eq!((cells_count, batches_count), (CELLS, (BACKLOG / RUN) as u64));
        println!("checkpoint read {read:.2?}, tables at {restored:.2?}, log replayed at {total:.2?}");
        totals.push(total);
    }
    totals.sort_unstable();
    println!("reopen/{CELLS}_cells_{BACKLOG}_ops: {:.2?}", totals[ROUNDS / 2]);
    if let Ok(bound) = std::env::var("REOPEN_ASSERT_MS") {
        let bound: u128 = bound.parse().expect("a number of ms");
        assert!(totals[ROUNDS / 2].as_millis() <= bound, "above {bound} ms");
    }
}

/// Writes the checkpoint and the log.
fn fill(disk: &FileDisk, settings: WalSettings) {
    let counters: Vec<Bytes> = (0..CELLS / 2).map(|at| Bytes::from(format!("bench:c:{at}"))).collect();
    let registers: Vec<Bytes> = (0..CELLS / 2).map(|at| Bytes::from(format!("bench:r:{at}"))).collect();
    let (value, mut ticket) = (Bytes::from(vec![b'v'; 24]), 0);
    let mut regions = Regions::connected(1);
    for (counters, registers) in counters.chunks(RUN).zip(registers.chunks(RUN)) {
        ticket += 2;
        regions.add(region(1), ticket, counters.iter().cloned());
        regions.set(region(1), ticket + 1, registers.iter().cloned(), &value);
        regions.settle();
    }
    let (checkpoint, _) = regions.take_files(region(1));
    let bytes = checkpoint.encode(CLUSTER, SHARD).expect("it fits");
    write_checkpoint(disk, SHARD, &bytes).expect("the disk takes it");
    let mut sequence = Sequence::new(5);
    for run in 0..BACKLOG / RUN {
        ticket += 1;
        let keys: Vec<Bytes> = (0..RUN)
            .map(|_| sequence.below(CELLS / 2))
            .map(|at| match run % 2 {
                0 => counters[at].clone(),
                _ => registers[at].clone(),
            })
            .collect();
        match run % 2 {
            0 => regions.add(region(1), ticket, keys),
            _ => regions.set(region(1), ticket, keys, &value),
        }
        regions.settle();
    }
    let (_, files) = regions.take_files(region(1));
    let known: BTreeMap<_, _> = known_ends(SHARD, &checkpoint);
    let (mut store, _) =
        Store::open(disk.clone(), settings, SHARD, &known, &mut |_| {}).expect("an empty store opens");
    for batch in &files {
        store.append(batch).expect("the next batch of its log");
    }
    for (_, synced) in store.sync_dirty() {
        synced.expect("the disk syncs");
    }
}
