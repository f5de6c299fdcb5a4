//! The rules of one shard in one region: admission, staging, applying, shipping, barriers, becoming whole.
//!
//! [`Replica`] is a state machine: [`Input`]s go in, [`Effect`]s come out. It reads no clock, draws no chance, touches
//! no file, socket or thread, so that one seed replays a whole cluster. Start with [`Replica`] in `replica.rs`, then
//! `state.rs` (what the vector stands for) and `admission.rs` (what may enter the log).

mod admission;
mod barrier;
mod cells;
mod effect;
mod input;
mod intake;
mod logs;
mod peers;
mod progress;
mod replica;
mod report;
mod sessions;
mod state;
mod writer;

pub use effect::{Answer, Effect, Notice, Outcome};
pub use input::{Durability, Input, Link, Now, Options, Ticket, WritePart};
pub use logs::LogName;
pub use progress::Behind;
pub use replica::Replica;
pub use report::{PeerReport, Report};
