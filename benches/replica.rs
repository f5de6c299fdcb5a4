//! One region's state machine: admitting and staging runs of ops, and applying batches of another region.
//!
//! Bound: two key lookups an op (kind, row), and for each row of a batch one merge and two digests of a cell.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tombolo_benches::{Regions, Sequence, keys, region};

const RUN: usize = 1_024;

fn runs(keys: &[Bytes], seed: u64) -> Vec<Bytes> {
    let mut sequence = Sequence::new(seed);
    (0..RUN).map(|_| keys[sequence.below(keys.len())].clone()).collect()
}

fn replica(criterion: &mut Criterion) {
    let keys = keys(625);
    let mut group = criterion.benchmark_group("replica");
    group.throughput(Throughput::Elements(RUN as u64));
    for (name, regions_count) in [("ingest", 1), ("ingest_and_apply_in_one_other", 2)] {
        group.bench_function(format!("{name}/run_of_{RUN}"), |bench| {
            let mut regions = Regions::connected(regions_count);
            let (mut seed, mut ticket) = (0, 0);
            bench.iter_batched(
                || {
                    seed += 1;
                    runs(&keys, seed)
                },
                |run| {
                    ticket += 1;
                    regions.add(region(1), ticket, black_box(run));
                    regions.settle();
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, replica);
criterion_main!(benches);
