//! [`Writer`]: a client that gets every op answered through any storm: by HTTP and by RESP, at its session's home and
//! elsewhere, again and again, now and then twice at once.
//!
//! Now and then an answer is lost on its way, whatever it was. It keeps the rules of clients: an op of unknown fate
//! keeps its number, and the mark passes only what the authority answered. What regions may not say to such a client it
//! lists in [`Writer::wrong`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bed::REGIONS;
use crate::caller::{Caller, Said};
use crate::chance::Chance;
use crate::digits::{self, OPS_PER_KEY};
use crate::ledger::Ledger;

/// Between two rounds of a writer.
const PACE: Duration = Duration::from_millis(4);
/// Ops without an answer, above which only these are sent.
const OPEN_MAX: usize = 40;
/// Answers lost on their way.
const LOST_PERCENT: usize = 4;
/// Refusals that pass by themselves, by HTTP's codes and by RESP's words.
const PASSING: [&str; 10] = [
    "busy",
    "shutting_down",
    "not_whole",
    "not_authority",
    "session_full",
    "session_expired",
    "timed_out",
    "tryagain",
    "loading",
    "stale",
];

/// Which door an attempt takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Http,
    Resp,
}

/// A client and all it did.
#[derive(Debug)]
pub struct Writer {
    /// What was sent and said.
    pub ledger: Ledger,
    /// Answers that no region may give.
    pub wrong: Vec<String>,
    caller: Caller,
    chance: Chance,
    regions: Vec<usize>,
    /// Opens a session for each key; else one serves until it is refused.
    is_rotating: bool,
    needs_session: bool,
    open: Vec<usize>,
    rounds_count: usize,
}

impl Writer {
    /// One that has not begun.
    #[must_use]
    pub fn new(name: &str, caller: Caller, seed: u64, is_rotating: bool) -> Self {
        Self {
            ledger: Ledger::new(name),
            wrong: Vec::new(),
            caller,
            chance: Chance::new(seed),
            regions: (0..REGIONS.len()).collect(),
            is_rotating,
            needs_session: true,
            open: Vec::new(),
            rounds_count: 0,
        }
    }

    /// The same that speaks to some regions only.
    #[must_use]
    pub fn among(mut self, regions: &[usize]) -> Self {
        self.regions = regions.to_vec();
        self
    }

    /// Writes until told to stop, and then until all is answered or the time is up.
    pub fn run(&mut self, stop: &AtomicBool, finish_max: Duration) {
        while !stop.load(Ordering::Acquire) {
            self.round(true);
        }
        let end = Instant::now() + finish_max;
        while !self.open.is_empty() && Instant::now() < end {
            self.round(false);
        }
    }

    /// The histories of ops that have neither yes nor no.
    #[must_use]
    pub fn unanswered(&self) -> Vec<String> {
        self.open.iter().map(|op| self.ledger.history(*op)).collect()
    }

    fn round(&mut self, has_new: bool) {
        self.rounds_count += 1;
        if has_new && self.open.len() < OPEN_MAX && self.has_session() {
            let is_paired = self.chance.percent(33);
            let op = self.ledger.next(is_paired);
            self.open.push(op);
            self.attempt(op, true);
        }
        if !self.open.is_empty() {
            let op = self.open[self.chance.below(self.open.len())];
            self.attempt(op, false);
        }
        // What another region vouched for holds the mark back until the home has answered too.
        if let Some(op) = self.ledger.lowest_unsettled().filter(|_| self.rounds_count.is_multiple_of(2)) {
            let home = self.ledger.session_of(op).home;
            self.send(op, &[(Door::Http, home)]);
        }
        std::thread::sleep(PACE);
    }

    fn has_session(&mut self) -> bool {
        let is_new_key = self.ledger.len().is_multiple_of(OPS_PER_KEY);
        if self.needs_session || (self.is_rotating && is_new_key) {
            let home = self.regions[self.chance.below(self.regions.len())];
            let Ok(id) = self.caller.open_session(home) else { return false };
            self.ledger.open(id, home);
            self.needs_session = false;
        }
        true
    }

    fn attempt(&mut self, op: usize, is_first: bool) {
        let home = self.ledger.session_of(op).home;
        let mut ways = vec![self.way(op, home, if is_first { 80 } else { 60 })];
        // Every tenth op goes out twice at once, half of them to two regions.
        if is_first && op.is_multiple_of(10) {
            let second = if op.is_multiple_of(20) { home } else { self.other(home) };
            ways[0].1 = home;
            ways.push(self.way(op, second, 100));
        }
        let is_full = self.send(op, &ways);
        if self.ledger.is_acked(op) {
            self.open.retain(|open| *open != op);
        } else if is_full {
            // Where an earlier attempt may have taken effect nobody will ever say; else what it was to do gets another
            // number, in another session.
            self.ledger.give_up(op);
            self.open.retain(|open| *open != op);
        }
    }

    fn other(&mut self, than: usize) -> usize {
        let others: Vec<usize> = self.regions.iter().copied().filter(|at| *at != than).collect();
        others[self.chance.below(others.len())]
    }

    fn way(&mut self, op: usize, at: usize, stays_percent: usize) -> (Door, usize) {
        let at = if self.chance.percent(stays_percent) { at } else { self.other(at) };
        // One command of RESP adds to one key.
        let is_resp = !self.ledger.is_paired(op) && self.chance.percent(33);
        (if is_resp { Door::Resp } else { Door::Http }, at)
    }

    /// Whether the session's home says that the session takes no more.
    fn send(&mut self, op: usize, ways: &[(Door, usize)]) -> bool {
        let (ledger, caller, is_retry) = (&self.ledger, &self.caller, self.ledger.is_begun(op));
        let call = |at: usize| {
            let (door, region) = ways[at];
            match door {
                Door::Http => caller.write(region, &ledger.body(op, is_retry), None),
                Door::Resp => {
                    let session = &ledger.session_of(op).id;
                    let (key, number) = (ledger.key(op), ledger.number(op));
                    caller.incrby_once(region, &key, digits::delta(op), session, number)
                }
            }
        };
        let mut said: Vec<Said> = std::thread::scope(|scope| {
            let call = &call;
            let calls: Vec<_> = (1..ways.len()).map(|at| scope.spawn(move || call(at))).collect();
            let first = call(0);
            let others = calls.into_iter().map(|call| call.join().expect("a call ends in a value"));
            [first].into_iter().chain(others).collect()
        });
        for said in said.iter_mut().filter(|said| **said != Said::Unsent) {
            if self.chance.percent(LOST_PERCENT) {
                *said = Said::Nothing(format!("lost: {said}"));
            }
        }
        // Of two at once, one may find the other below the mark; both are judged by what is known after.
        let at_once = if ways.len() > 1 { ", with another at once" } else { "" };
        let retry = if is_retry { ", again" } else { "" };
        for (&(door, region), said) in ways.iter().zip(&said) {
            let how = format!("{door:?} {}{retry}{at_once}", REGIONS[region]);
            self.ledger.note(op, how, said.clone());
        }
        let home = self.ledger.session_of(op).home;
        let mut is_full = false;
        for (&(_, region), said) in ways.iter().zip(&said) {
            is_full |= region == home && said.is_code("session_full");
            self.judge(op, said);
        }
        is_full
    }

    fn judge(&mut self, op: usize, said: &Said) {
        let Said::No { code, .. } = said else { return };
        let is_spent = said.is_code("session_full") || said.is_code("session_expired");
        self.needs_session |= is_spent && self.ledger.is_of_last_session(op);
        let is_stale = code == "stale" && !self.ledger.is_acked(op);
        if is_stale || !PASSING.contains(&code.as_str()) {
            self.wrong.push(format!("may not be answered {code}: {}", self.ledger.history(op)));
        }
    }
}
