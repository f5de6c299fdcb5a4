//! Group commit on real files: append a group of batches to one log, one sync.
//!
//! Bound: the disk's flush. On the machine this was written on, a sync of written-ahead space took 0.12 ms, of
//! appended space 0.18 ms.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tombolo_benches::{CLUSTER, SHARD, adds, close, keys, log, region};
use tombolo_codec::Batch;
use tombolo_wal::{FileDisk, Store, WalSettings};

fn wal(criterion: &mut Criterion) {
    let keys = keys(625);
    let mut group = criterion.benchmark_group("wal");
    group.sample_size(30);
    for (batches_count, adds_count) in [(1usize, 16usize), (1, 1_024), (16, 1_024)] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let disk = FileDisk::open(directory.path()).expect("an empty directory");
        let settings = WalSettings::new(CLUSTER, region(1));
        let (mut store, _) =
            Store::open(disk, settings, SHARD, &Default::default(), &mut |_| {}).expect("an empty store");
        let records = adds(&keys, adds_count, 1);
        let mut last: Option<Batch> = None;
        group.throughput(Throughput::Elements((batches_count * adds_count) as u64));
        let id = BenchmarkId::new("group_commit", format!("{batches_count}x{adds_count}_adds"));
        group.bench_function(id, |bench| {
            bench.iter_batched(
                || {
                    let next = || {
                        let batch = close(log(1), last.as_ref(), &records);
                        last = Some(batch.clone());
                        batch
                    };
                    std::iter::repeat_with(next).take(batches_count).collect::<Vec<_>>()
                },
                |batches| {
                    for batch in &batches {
                        store.append(batch).expect("the next batch of its log");
                    }
                    for (_, synced) in store.sync_dirty() {
                        synced.expect("the disk syncs");
                    }
                },
                // One group at a time: a batch belongs behind the one before it.
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, wal);
criterion_main!(benches);
