//! The rules of one shard in one region: admission, staging, applying, shipping, barriers, becoming whole.
//!
//! [`Replica`] is a state machine: [`Input`]s go in, [`Effect`]s come out. It reads no clock, draws no chance, touches
//! no file, socket or thread, so that one seed replays a whole cluster. Start with [`Replica`] in `replica.rs`. Where the
//! rest stands, each folder with a file of its name that opens it:
//!
//! - `writing/`: what may enter the log, who logs a session's request and as what, and the batches made of it;
//! - `state/`: what the vector stands for, and the tables it lies in;
//! - `exchange/`: which log comes from whom, what has come, applying it, and how well peers keep up;
//! - `life/`: becoming whole after a start, joining, regions that come and go, when garbage may go;
//! - `heal/`: reconciliation by the difference of two states, where histories are gone, and cuts, also for checkpoints;
//! - `verify/`: finding the entry that differs, and putting it right;
//! - `barrier.rs` and `report.rs` answer who asks.

mod barrier;
mod effect;
mod exchange;
mod heal;
mod input;
mod life;
mod replica;
mod report;
mod state;
mod verify;
mod writing;

pub use effect::{Answer, Effect, Notice, Outcome};
pub use exchange::held::Held;
pub use exchange::links::{Limit, LinkFacts, LinkState, Verdict};
pub use exchange::progress::Behind;
pub use heal::fetch::FetchReport;
pub use heal::merge::{Absent, Difference, JoinError, Moved, joined};
pub use heal::plan::{Gap, PeerPlan, Plan, Source, plan};
pub use input::{Durability, Input, Link, Now, Options, PeerLimits, Ticket, WritePart};
pub use life::joining::JoinReport;
pub use life::members::{Lack, MARKER};
pub use replica::Replica;
pub use report::{Burden, PeerReport, Report, Shortfall};
pub use state::logs::LogName;
pub use state::table::CutId;
pub use verify::entry::{EntryName, EntryNameError};
pub use verify::mend::Mending;
pub use verify::{Damaged, VerifyReport};
