//! A small deterministic world of two to four regions with one shard each: the real state machine between disks that
//! lose what was not synced, links that end and delay, processes that die, and clients that ask again.
//!
//! A failing seed prints itself; `TOMBOLO_WORLD_SEED` is not needed: put the seed into `run`. Start with `world.rs`.

mod checks;
mod clients;
mod disk;
mod net;
mod rng;
mod sabotage;
mod schedule;
mod world;

use sabotage::Twin;
use schedule::{Plan, run};

fn sweep(first: u64, count: u64, plan: Plan) {
    for seed in first..first + count {
        if let Err(why) = run(seed, plan) {
            panic!("seed {seed}: {why}");
        }
    }
}

#[test]
fn regions_agree_and_every_acked_op_counts_once_whatever_fails() {
    sweep(1, 300, Plan { steps: 2_000, relaxed_percent: 0, twin: Twin::Honest });
}
