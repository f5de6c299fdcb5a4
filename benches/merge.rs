//! Merging values. Bound: three inline slots are compared and written in place; no allocation up to three regions.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tombolo_benches::{WALL, region};
use tombolo_causality::{Seq, Stamp};
use tombolo_crdt::{Counter, Dot, Register};

fn counter(regions_count: u32) -> Counter<u32> {
    let mut counter = Counter::new();
    for log in 0..regions_count {
        counter.add(log, None, 7, 3);
    }
    counter
}

fn merge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements(1));
    group.bench_function("counter/add/3_regions", |bench| {
        let mut counter = counter(3);
        bench.iter(|| counter.add(black_box(1), None, 1, 0));
    });
    for regions_count in [3, 8] {
        group.bench_function(format!("counter/join/{regions_count}_regions"), |bench| {
            let (mut mine, mut theirs) = (counter(regions_count), counter(regions_count));
            bench.iter(|| {
                theirs.add(0, None, 1, 0);
                mine.merge(black_box(&theirs));
            });
        });
    }
    group.bench_function("register/write/32_bytes", |bench| {
        let value = [7u8; 32];
        let stamp = |op| Stamp { time: WALL, region: region(1), op };
        let dot = Dot { log: 1u32, seq: Seq(1) };
        let mut register = Register::new(stamp(0), Some(&value), None, dot);
        let mut op = 0;
        bench.iter(|| {
            op += 1;
            register.write(stamp(op), black_box(Some(&value[..])), None, dot);
        });
    });
    group.finish();
}

criterion_group!(benches, merge);
criterion_main!(benches);
