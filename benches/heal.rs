//! 20,000 divergent ops among a million cells, the same keys on both sides: engine time from connected to equal digests.
//!
//! Two state machines in one process, without disk and network; what the shell does besides (a durable checkpoint
//! before a difference is installed) is not in it. Bound by batches: 20 ms in the median of five. Prints a line for each way
//! of coming together, and fails if batches take more than `HEAL_ASSERT_MS` names.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use tombolo_benches::{Regions, region};

const CELLS: usize = 1_000_000;
/// Ops on each side; as many different keys.
const OPS_PER_SIDE: usize = 10_000;
const ROUNDS: usize = 5;
/// Ops of one request.
const RUN: usize = 500;
const VALUE_BYTES: usize = 24;
/// What pushes the ops out of the newest batches, of which a region keeps 1 MiB in memory: else they are sent as batches.
const FILLERS_COUNT: usize = 8;
const FILLER_BYTES: usize = 240 << 10;

fn main() {
    // `cargo test --benches` runs this too: it measures only when asked to.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let counters: Vec<Bytes> = (0..CELLS / 2).map(|at| Bytes::from(format!("bench:c:{at}"))).collect();
    let registers: Vec<Bytes> = (0..CELLS / 2).map(|at| Bytes::from(format!("bench:r:{at}"))).collect();
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    let mut regions = Regions::connected(2);
    let (mut ticket, mut fillers_ticket) = (0, 1 << 40);
    let mut write = |regions: &mut Regions, at: u16, keys: [&[Bytes]; 2]| {
        for (is_register, keys) in [(false, keys[0]), (true, keys[1])] {
            for keys in keys.chunks(RUN) {
                ticket += 1;
                match is_register {
                    false => regions.add(region(at), ticket, keys.iter().cloned()),
                    true => regions.set(region(at), ticket, keys.iter().cloned(), &value),
                }
                regions.settle();
            }
        }
    };
    write(&mut regions, 1, [&counters, &registers]);
    assert!(regions.are_equal(), "both hold all cells");
    let bound = std::env::var("HEAL_ASSERT_MS").ok().map(|text| text.parse::<f64>().expect("a number of ms"));
    let mut is_above = false;
    for (name, is_pruned) in [("resume", false), ("difference", true)] {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for round in 0..ROUNDS {
            regions.cut();
            // A stretch of its own in each round, spread over all cells.
            let stride = CELLS / OPS_PER_SIDE;
            let changed =
                |keys: &[Bytes]| -> Vec<Bytes> { keys.iter().skip(round).step_by(stride).cloned().collect() };
            let changed = [changed(&counters), changed(&registers)];
            for at in [1, 2] {
                write(&mut regions, at, [&changed[0], &changed[1]]);
            }
            assert!(!regions.are_equal(), "the cut holds");
            if is_pruned {
                let key = [Bytes::from_static(b"bench:filler")];
                for at in [1, 2] {
                    for bytes in [FILLER_BYTES; FILLERS_COUNT].into_iter().chain([1]) {
                        fillers_ticket += 1;
                        let value = Bytes::from(vec![b'f'; bytes]);
                        regions.set(region(at), fillers_ticket, key.iter().cloned(), &value);
                        regions.settle();
                    }
                }
                regions.prune();
            }
            // Bytes are counted in a round that is not timed: encoding what passes would be.
            let is_counted = round == 0;
            if is_counted {
                regions.count_bytes();
            }
            let start = Instant::now();
            regions.connect();
            regions.settle();
            assert!(regions.are_equal(), "they came together");
            let differences = regions.take_differences();
            assert_eq!(differences > 0, is_pruned, "{name}: {differences} differences were installed");
            if is_counted {
                bytes = regions.stop_counting();
            } else {
                times.push(start.elapsed());
            }
        }
        times.sort_unstable();
        let median: Duration = times[times.len() / 2];
        let ms = median.as_secs_f64() * 1_000.0;
        println!("heal/{name}/{}_of_{CELLS}: {ms:.2} ms, {bytes} bytes", 2 * OPS_PER_SIDE);
        is_above |= !is_pruned && bound.is_some_and(|bound| ms > bound);
    }
    assert!(!is_above, "above {} ms", bound.unwrap_or_default());
}
