//! [`Setter`]: a client that writes registers with stamps of its own through any storm; every copy of a set carries the
//! stamp of the first. Now and then an answer is lost on its way, whatever it was.
//!
//! Uses no session: the fixed stamp alone makes a set that is sent again the same record. The greatest stamp must win.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tombolo_causality::{RegionId, Stamp, Time};
use tombolo_testbed::oracle::Oracle;

use crate::bed::REGIONS;
use crate::caller::{Caller, Said};
use crate::chance::Chance;

/// Registers that all setters share.
const KEYS: usize = 7;
/// Between two attempts.
const PACE: Duration = Duration::from_millis(10);
/// Sets without an answer, above which only these are sent.
const OPEN_MAX: usize = 40;
/// Answers lost on their way.
const LOST_PERCENT: usize = 4;
/// Refusals that pass by themselves.
const PASSING: [&str; 3] = ["busy", "shutting_down", "timed_out"];

#[derive(Debug)]
struct Set {
    key: String,
    value: String,
    stamp: Stamp,
    history: Vec<String>,
}

impl Set {
    fn body(&self, is_retry: bool) -> Value {
        let stamp = self.stamp.to_string();
        let op = json!({"op": "set", "key": self.key, "value": self.value, "stamp": stamp});
        json!({"retry": is_retry, "ops": [op]})
    }
}

/// A client and what its sets must leave.
#[derive(Debug)]
pub struct Setter {
    /// What the acked sets must leave.
    pub oracle: Oracle,
    /// How many sets were acked.
    pub acked_count: usize,
    /// How many attempts ended without an answer.
    pub lost_count: usize,
    /// Answers that no region may give.
    pub wrong: Vec<String>,
    name: String,
    caller: Caller,
    chance: Chance,
    open: Vec<Set>,
    sets_count: usize,
}

impl Setter {
    /// One that has not begun.
    #[must_use]
    pub fn new(name: &str, caller: Caller, seed: u64) -> Self {
        Self {
            oracle: Oracle::new(),
            acked_count: 0,
            lost_count: 0,
            wrong: Vec::new(),
            name: name.to_owned(),
            caller,
            chance: Chance::new(seed),
            open: Vec::new(),
            sets_count: 0,
        }
    }

    /// Writes until told to stop, and then until all is answered or the time is up.
    pub fn run(&mut self, stop: &AtomicBool, finish_max: Duration) {
        while !stop.load(Ordering::Acquire) {
            if self.open.len() < OPEN_MAX {
                let set = self.next();
                self.attempt(set, false);
            }
            self.retry();
        }
        let end = Instant::now() + finish_max;
        while !self.open.is_empty() && Instant::now() < end {
            self.retry();
        }
    }

    /// The histories of sets that have neither yes nor no.
    #[must_use]
    pub fn unanswered(&self) -> Vec<String> {
        self.open.iter().map(|set| format!("{}: {:?}", set.value, set.history)).collect()
    }

    fn next(&mut self) -> Set {
        self.sets_count += 1;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        let op = u128::from(self.chance.draw()) << 64 | u128::from(self.chance.draw());
        let region = RegionId::new(1).expect("1 is a region");
        Set {
            key: format!("set:{}", self.chance.below(KEYS)),
            value: format!("{} {}", self.name, self.sets_count),
            stamp: Stamp { time: Time::from_unix_ns(since.as_nanos()), region, op },
            history: Vec::new(),
        }
    }

    fn retry(&mut self) {
        if !self.open.is_empty() {
            let set = self.open.swap_remove(self.chance.below(self.open.len()));
            self.attempt(set, true);
        }
        std::thread::sleep(PACE);
    }

    /// Sends a set, every tenth to two regions at once.
    fn attempt(&mut self, mut set: Set, is_retry: bool) {
        let at = self.chance.below(REGIONS.len());
        let mut calls = vec![(at, is_retry)];
        if self.sets_count.is_multiple_of(10) {
            calls.push(((at + 1) % REGIONS.len(), true));
        }
        let (caller, sent) = (&self.caller, &set);
        let mut said: Vec<Said> = std::thread::scope(|scope| {
            let call = |&(at, is_retry)| scope.spawn(move || caller.write(at, &sent.body(is_retry), None));
            let calls: Vec<_> = calls.iter().map(call).collect();
            calls.into_iter().map(|call| call.join().expect("a call ends in a value")).collect()
        });
        for said in said.iter_mut().filter(|said| **said != Said::Unsent) {
            if self.chance.percent(LOST_PERCENT) {
                *said = Said::Nothing(format!("lost: {said}"));
            }
        }
        let (mut is_acked, mut is_refused) = (false, !is_retry);
        for ((at, is_retry), said) in calls.iter().zip(&said) {
            let again = if *is_retry { ", again" } else { "" };
            set.history.push(format!("{}{again}: {said}", REGIONS[*at]));
            is_acked |= matches!(said, Said::Yes { .. });
            self.lost_count += usize::from(matches!(said, Said::Nothing(_)));
            if let Said::No { code, .. } = said {
                let is_behind = code == "stamp_behind" && !is_retry;
                is_refused &= is_behind;
                if !is_behind && !PASSING.contains(&code.as_str()) {
                    self.wrong.push(format!("may not be answered {code}: {set:?}"));
                }
            } else {
                is_refused = false;
            }
        }
        if is_acked {
            self.acked_count += 1;
            self.oracle.record_set(set.key, set.stamp, set.value);
        } else if !is_refused {
            self.open.push(set);
        }
    }
}
