//! The hybrid clock. Bound: a compare and an add, well below the 12.6 ns of the uhlc crate with a thread-local clock.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tombolo_benches::WALL;
use tombolo_causality::{HybridClock, Time};

fn clock(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("clock");
    group.throughput(Throughput::Elements(1));
    group.bench_function("tick", |bench| {
        let mut clock = HybridClock::new(500);
        bench.iter(|| clock.tick(black_box(WALL)));
    });
    group.bench_function("observe", |bench| {
        let mut clock = HybridClock::new(500);
        let mut remote = WALL;
        bench.iter(|| {
            remote = Time(remote.0 + 1);
            clock.observe(black_box(remote), WALL)
        });
    });
    group.finish();
}

criterion_group!(benches, clock);
criterion_main!(benches);
