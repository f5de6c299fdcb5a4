//! The deterministic simulator: whole clusters on one seed, in virtual time, in one thread.
//!
//! The code under test is the product's own: `causality`, `crdt`, `codec`, `replica`, and of `wal` everything but the
//! files and threads (group commit, recovery, checkpoints, pruning, over a disk in memory). What the daemon adds (mesh,
//! commit threads, checkpoints) is wired here a second time. Never reads a clock, draws chance from anywhere but the
//! seed, or starts a thread. Start at [`run`]; then `world.rs` (what happens), `faults.rs` (what strikes), `checks.rs`
//! (what must hold).
//!
//! What it leaves out: TLS and QUIC (a connection is a stream that breaks), two live processes of one region, regions
//! that drain, and disks that come back from before a removal while the removed region lives on.

mod answers;
mod chance;
mod checks;
mod clients;
mod commit;
mod cut_disk;
mod faults;
mod installs;
mod members;
mod mesh;
mod net;
mod node;
mod plan;
mod process;
mod queue;
mod rare;
mod run;
mod sabotage;
mod suit;
mod traffic;
mod truth;
mod world;

pub use rare::{Rare, RareCounts};
pub use run::{Settings, Summary, run};
pub use sabotage::Sabotage;
