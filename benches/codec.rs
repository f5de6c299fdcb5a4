//! Batches: collecting, closing, verifying, reading. Bound: blake3 at about 10 GB/s, rkyv's check at about 1 ns a row.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tombolo_benches::{CLUSTER, adds, close, keys, log};
use tombolo_codec::Batch;

fn codec(criterion: &mut Criterion) {
    let keys = keys(625);
    let mut group = criterion.benchmark_group("codec");
    for adds_count in [64usize, 1_024, 16_384] {
        group.throughput(Throughput::Elements(adds_count as u64));
        let records = adds(&keys, adds_count, 1);
        let batch = close(log(1), None, &records);
        let id = |name| BenchmarkId::new(name, format!("{adds_count}_adds"));
        group.bench_function(id("collect"), |bench| bench.iter(|| adds(black_box(&keys), adds_count, 1)));
        group.bench_function(id("close"), |bench| bench.iter(|| close(log(1), None, black_box(&records))));
        group.bench_function(id("verify"), |bench| {
            bench.iter(|| Batch::verify(black_box(batch.bytes().clone()), CLUSTER));
        });
        group.bench_function(id("read"), |bench| {
            bench.iter(|| batch.records().adds().map(|add| add.positive + add.negative).sum::<u64>());
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
