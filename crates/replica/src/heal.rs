//! Healing where histories are gone (design.md §3.6): `cut.rs` reads a state while it goes on, `prints.rs` finds where two
//! differ, `fetch.rs` asks for that by `questions.rs`, `merge.rs` joins it; `plan.rs` says what will be done.

pub(crate) mod cut;
pub(crate) mod fetch;
pub(crate) mod merge;
pub(crate) mod plan;
pub(crate) mod prints;
pub(crate) mod questions;
