//! 25,000 signals written in three in-process regions until all three show the same state.
//!
//! Bound: the rules alone, without disk, network and doors: what one core spends on a signal in all regions together.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tombolo_benches::{Regions, Sequence, keys, region};

const SIGNALS: usize = 25_000;
const RUN: usize = 250;

fn replication(criterion: &mut Criterion) {
    let keys = keys(10_000);
    let mut group = criterion.benchmark_group("replication");
    group.throughput(Throughput::Elements(SIGNALS as u64)).sample_size(20);
    group.bench_function("25k_signals", |bench| {
        bench.iter_batched(
            || {
                let mut sequence = Sequence::new(7);
                let mut run =
                    || (0..RUN).map(|_| keys[sequence.below(keys.len())].clone()).collect::<Vec<_>>();
                let runs: Vec<_> = (0..SIGNALS / RUN).map(|_| run()).collect();
                (Regions::connected(3), runs)
            },
            |(mut regions, runs)| {
                for (number, run) in (0u64..).zip(runs) {
                    regions.add(region(u16::try_from(number % 3 + 1).expect("1 to 3")), number, run);
                    if number % 3 == 2 {
                        regions.settle();
                    }
                }
                regions.settle();
                assert!(regions.are_equal(), "all regions show the same state");
                regions
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, replication);
criterion_main!(benches);
