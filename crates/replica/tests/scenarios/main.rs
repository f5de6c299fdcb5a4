//! Scenarios on the state machine of one shard: inputs in, the effects as text out.

mod admission;
mod conditional;
mod difference;
mod kit;
mod members;
mod net;
mod order;
mod peers;
mod restarts;
mod sessions;
mod storage;
mod verify;
