//! The rules of one shard in one region: admission, staging, applying, shipping, barriers, becoming whole.
//!
//! [`Replica`] is a state machine: [`Input`]s go in, [`Effect`]s come out. It reads no clock, draws no chance, touches
//! no file, socket or thread, so that one seed replays a whole cluster. Start with [`Replica`] in `replica.rs`. Where the
//! rest stands:
//!
//! - writing: `admission.rs` says what may enter the log, `authority.rs` who logs a session's request and as what,
//!   `writing.rs` and `writer.rs` make batches of it;
//! - the state, which the vector stands for: `state.rs` over `cells.rs`, `sessions.rs`, `conditionals.rs`, `garbage.rs` and
//!   `logs.rs`; `table.rs` is what their entries lie in;
//! - others' logs: `exchange.rs` and `peers.rs` say what is fetched from whom, `intake.rs` holds it, `applying.rs` applies;
//! - life: `whole.rs` after a start, `stability.rs` for garbage, `members.rs` when regions come and go;
//! - healing where histories are gone: `cut.rs` reads a state while it goes on, `prints.rs` finds where two differ,
//!   `fetch.rs` asks for that by `questions.rs`, `merge.rs` joins it; `plan.rs` says what will be done;
//! - proof: `verify.rs` and `comparing.rs` find the entry that differs, `entry.rs` and `mend.rs` put it right;
//! - asking: `barrier.rs`, `links.rs`, `progress.rs`, `report.rs`.

mod admission;
mod applying;
mod authority;
mod barrier;
mod cells;
mod comparing;
mod conditionals;
mod cut;
mod effect;
mod entry;
mod exchange;
mod fetch;
mod garbage;
mod held;
mod input;
mod intake;
mod joining;
mod links;
mod logs;
mod members;
mod mend;
mod merge;
mod peers;
mod plan;
mod prints;
mod progress;
mod questions;
mod replica;
mod report;
mod sessions;
mod stability;
mod state;
mod table;
mod verify;
mod whole;
mod writer;
mod writing;

pub use effect::{Answer, Effect, Notice, Outcome};
pub use entry::{EntryName, EntryNameError};
pub use fetch::FetchReport;
pub use held::Held;
pub use input::{Durability, Input, Link, Now, Options, PeerLimits, Ticket, WritePart};
pub use joining::JoinReport;
pub use links::{Limit, LinkFacts, LinkState, Verdict};
pub use logs::LogName;
pub use members::{Lack, MARKER};
pub use mend::Mending;
pub use merge::{Absent, Difference, JoinError, Moved, joined};
pub use plan::{Gap, PeerPlan, Plan, Source, plan};
pub use progress::Behind;
pub use replica::Replica;
pub use report::{Burden, PeerReport, Report, Shortfall};
pub use table::CutId;
pub use verify::{Damaged, VerifyReport};
