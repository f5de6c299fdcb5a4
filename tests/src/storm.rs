//! [`Storm`]: how long and how wild, from the environment; clients run through it and are judged after it.
//!
//! Kills nothing by itself: the scenario does.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bed::{Bed, REGIONS};
use crate::caller::{Caller, Said};
use crate::chance::Chance;
use crate::ledger::{Ledger, Values};
use crate::setter::Setter;
use crate::writer::Writer;

/// From one stroke to the next.
const EVERY: Duration = Duration::from_secs(1);
/// How long clients may take to get their last answers once all is well.
const FINISH_MAX: Duration = Duration::from_secs(40);

/// A storm of one stroke a second.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// Of everything that is left to chance; `TOMBOLO_UAT_SEED`, else 1.
    pub seed: u64,
    /// How long it lasts: six times longer with `TOMBOLO_UAT_LONG`.
    pub lasts: Duration,
}

impl Storm {
    /// One of so many seconds, if the environment asks for nothing else.
    ///
    /// Panics: if the seed is no number.
    #[must_use]
    pub fn of_seconds(seconds: u64) -> Self {
        let named = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let seed = named("TOMBOLO_UAT_SEED");
        let seed = seed.map_or(1, |seed| seed.parse().expect("TOMBOLO_UAT_SEED is a number"));
        let times = if named("TOMBOLO_UAT_LONG").is_some() { 6 } else { 1 };
        Self { seed, lasts: Duration::from_secs(seconds * times) }
    }

    /// Strikes once a second until the time is up; the rounds count from 1.
    pub fn rage(&self, mut strike: impl FnMut(u32, &mut Chance)) {
        let (start, mut chance) = (Instant::now(), Chance::new(self.seed));
        for round in (1..).take_while(|round| EVERY * *round <= self.lasts) {
            std::thread::sleep((start + EVERY * round).saturating_duration_since(Instant::now()));
            strike(round, &mut chance);
        }
    }
}

/// Lets clients run while `rage` goes on, and until all they sent is answered.
pub fn run<T>(writers: &mut [Writer], setters: &mut [Setter], rage: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        for writer in writers {
            scope.spawn(|| writer.run(stop, FINISH_MAX));
        }
        for setter in setters {
            scope.spawn(|| setter.run(stop, FINISH_MAX));
        }
        // Should the storm panic, the clients must end all the same.
        let raged = catch_unwind(AssertUnwindSafe(rage));
        stop.store(true, Ordering::Release);
        raged.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Kills a region that must be running still.
///
/// Panics: if it ended by itself.
pub fn kill(bed: &mut Bed, region: &str) {
    let ended = bed.cluster.ended(region).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ended, None, "{region} ended by itself; its log: {}", bed.log_tail(region));
    bed.cluster.kill9(region).unwrap_or_else(|error| panic!("{error}"));
}

/// Waits until every region is whole and all hold the same; how long that took.
///
/// Panics: if it takes too long.
pub fn await_calm(bed: &Bed) -> Duration {
    bed.until("every region is whole", 40, Bed::not_whole) + bed.await_equal_digests()
}

/// What every region holds under keys.
///
/// Panics: if one cannot be read.
#[must_use]
pub fn held(caller: &Caller, keys: &[String]) -> Values {
    let read = |(at, region): (usize, &&str)| {
        let held = caller.read(at, keys).unwrap_or_else(|error| panic!("{region}: {error}"));
        (String::from(*region), held)
    };
    REGIONS.iter().enumerate().map(read).collect()
}

/// What is wrong with a client's ops, in any region.
#[must_use]
pub fn verdict(caller: &Caller, ledger: &Ledger) -> Vec<String> {
    ledger.verdict(&held(caller, &ledger.keys()))
}

/// Insists that writers got answers that may be given, to all they sent, and that each op counts as it must.
///
/// Panics: with what is wrong.
pub fn check(caller: &Caller, writers: &[Writer], storm: Storm) {
    for writer in writers {
        let wrong = [writer.wrong.clone(), writer.unanswered(), verdict(caller, &writer.ledger)].concat();
        assert!(wrong.is_empty(), "TOMBOLO_UAT_SEED={}:\n{}", storm.seed, wrong.join("\n"));
    }
}

/// Says what writers went through, and insists that it was a storm.
///
/// Panics: if it was none.
#[must_use]
pub fn tale(writers: &[Writer], acked_min: usize) -> String {
    let sum = |count: &dyn Fn(&Ledger) -> usize| -> usize {
        writers.iter().map(|writer| count(&writer.ledger)).sum()
    };
    let attempts = |what: &dyn Fn(&Said) -> bool| sum(&|ledger: &Ledger| ledger.attempts_count(what));
    let lost = attempts(&|said| matches!(said, Said::Nothing(_)));
    let unsent = attempts(&|said| *said == Said::Unsent);
    let replayed = attempts(&|said| matches!(said, Said::Yes { is_replayed: true, .. }));
    let conditional = attempts(&|said| matches!(said, Said::Yes { is_conditional: Some(true), .. }));
    let full = attempts(&|said| said.is_code("session_full"));
    let (ops, acked) = (sum(&Ledger::len), sum(&Ledger::acked_count));
    let (sessions, unknown) = (sum(&Ledger::sessions_count), sum(&Ledger::unknown_count));
    assert!(acked >= acked_min, "only {acked} ops were acked");
    assert!(unknown * 20 < acked, "{unknown} ops were given up as unknown, beside {acked} that were acked");
    for (what, count) in [("no answer", lost), ("a replay", replayed), ("a conditional yes", conditional)] {
        assert!(count > 10, "only {count} attempts ended in {what}: that was no storm");
    }
    format!(
        "{acked} of {ops} ops acked in {sessions} sessions, {unknown} given up as unknown; attempts: {lost} without an answer, \
         {unsent} to a door that was closed, {replayed} replays, {conditional} conditional, {full} refused as full"
    )
}
