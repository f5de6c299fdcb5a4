//! The rules themselves. Read `log.rs`, `shard.rs`, `admit.rs`, `whole.rs`, `garbage.rs`, in this order.

pub mod action;
pub mod admit;
pub mod client;
pub mod garbage;
pub mod log;
pub mod region;
pub mod shard;
pub mod step;
pub mod whole;
pub mod world;
