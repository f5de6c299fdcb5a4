//! One region's daemon: wires the state machines to disk, network, clock and doors, and decides nothing itself.
//!
//! Start with [`run`] in `serve.rs`: it shows every part in the order it comes up. `shard.rs` is the loop in which a
//! shard lives, `mesh.rs` the links to other regions, `storage.rs` the disk, `service.rs` what the doors call.

pub mod config;

mod acks;
mod barrier;
mod checkpoints;
mod clock;
mod findings;
mod joining;
mod lag;
mod losses;
mod members;
mod mesh;
mod metrics;
mod node;
mod recovery;
mod regions;
mod serve;
mod service;
mod shard;
mod skew;
mod status;
mod storage;
mod verify;

pub use findings::FINDING_CODES;
pub use serve::{LogFormat, ServeError, ServeOptions, run};
