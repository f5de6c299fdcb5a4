//! The rules of sessions, totals and registers, small enough to be searched (design.md §3.2–3.4).
//!
//! One shard of three regions with one counter, one register and one session; every op adds a power of four, so that
//! its fate is a digit. Whatever clients and faults may do is an action; the search meets every order of them that a
//! scenario leaves room for, and random walks go deeper. Nothing of the product is used here and nothing builds on
//! this: the rules are written down a second time, to be read and to be broken.
//!
//! Read [`rules`] first: `log.rs` and `shard.rs` are the state as a function of the vector, `admit.rs` sessions,
//! `whole.rs` restarts and removal, `garbage.rs` expiry and stability. Then [`checks`], [`explore`], [`walks`]. Each
//! rule that was found wrong is a [`variant::Variant`] which a test must catch, in a scenario that the good rules pass
//! within the same bound.
//!
//! The tests print what they searched (`--nocapture`). They take some seconds; `TOMBOLO_MODEL_SECONDS=600` gives the
//! large mixes that many seconds each, half of it for walks of new seeds.
//!
//! A run that fails prints its actions as sentences, the search the fewest that lead there.
//!
//! The window is a flag: once it has passed, nothing that could be sent again is admitted anywhere, and only acks taken
//! after that count. Absorbing is an action of its own that may happen whenever it is allowed, so eager and lazy
//! authorities are both among the runs. An op whose copies were admitted under several generations may count or not.
//!
//! Findings that have no variant here:
//!
//! | finding | why not |
//! |---|---|
//! | F6 digests over visible values | digests are the product's; the model compares states whole |
//! | F9, F9b, F10, F23 observed reset | the kind was taken out; its baselines with it |
//! | F13 stamps that poison clocks, F15 expiry by a clock, F16 clocks of two regions | no clock drives the state here |
//! | F18 tables that never go | a question of bytes; that they may go is `Stable`, which is here |
//! | F19 keys that name no home, F20 several portions of a request | one shard and one session |
//! | F21 what a replay answers | answers carry no value here |
//! | F22 acks of earlier epochs in barriers | there are no barriers; `Stable` alone does not need the rule |
//! | F24 sums that overflow | digits only |
//! | F25 forged relays | members trust each other |
//! | F26 slots of deleted counters | the same as F29, which is here |
//!
//! Not in the model: batches of several records, more than one frame on its way, two processes of one region, a second removal,
//! several cells, negative amounts, another payload under the same number, the merge of single cells.

pub mod checks;
pub mod explore;
pub mod quiet;
pub mod rules;
pub mod scenario;
pub mod scenarios;
pub mod variant;
pub mod walks;
