//! Scenarios on the state machine of one shard: inputs in, the effects as text out.

mod admission;
mod conditional;
mod kit;
mod order;
mod peers;
mod restarts;
mod sessions;
mod storage;
