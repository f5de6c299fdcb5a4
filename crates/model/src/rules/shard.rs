//! The state of a shard in one region: what its vector stands for, and nothing else (design.md §3.2).
//!
//! Changes by [`Shard::apply`] (one record of one log) and [`Shard::join`] (another region's state) alone. Knows no
//! admission, no process and no clock.

use super::log::{LOGS, Logs, NONE, OPS, Record, Stable, Vector};
use crate::variant::{Rules, Variant};

/// The register: absent while its stamp is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Register {
    /// The winner's stamp.
    pub stamp: u8,
    /// Which write won.
    pub write: u8,
    /// Whether it is a tombstone.
    pub tombstone: bool,
    /// The log and position (from 1) that wrote it; of several copies, the smallest.
    pub dot: (u8, u8),
}

impl Register {
    fn is_absent(&self) -> bool {
        self.stamp == 0
    }

    fn join(self, other: Self, rules: Rules) -> Self {
        let key = |register: &Self| {
            let tie = if rules.breaks(Variant::StampTieUnbroken) { 0 } else { register.write };
            (register.stamp, tie)
        };
        match key(&self).cmp(&key(&other)) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Equal if self.write != other.write => self,
            std::cmp::Ordering::Equal => Self { dot: self.dot.min(other.dot), ..self },
        }
    }
}

/// What is conditional of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Conditional {
    /// The logs that hold it, one bit each.
    pub logs: u8,
    /// The greatest generation it was admitted under.
    pub generation: u8,
    /// The generation of the copy in the smallest log.
    pub winner: (u8, u8),
}

/// The state of one shard: one counter, one register, one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard {
    /// How far each log is applied.
    pub vector: Vector,
    /// For each log, the log that sealed it.
    pub sealed_by: [u8; LOGS],
    /// The counter's generation.
    pub generation: u8,
    /// The counter's total of each log: base 4, one digit for each op.
    pub slots: [u16; LOGS],
    /// Numbers below are covered.
    pub mark: u8,
    /// Numbers logged by the authority, one bit each.
    pub set: u8,
    /// What is conditional and not covered.
    pub conditionals: [Conditional; OPS],
    /// Whether the session takes nothing any more.
    pub is_expired: bool,
    /// Whether the session's tables are gone.
    pub is_forgotten: bool,
    /// The register.
    pub register: Register,
    /// For the checks alone: register writes that were applied here.
    pub seen: u8,
}

/// One op, as the counter's digits show it.
#[must_use]
pub const fn digit(number: u8) -> u16 {
    1 << (2 * number)
}

impl Shard {
    /// Nothing applied.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            vector: [0; LOGS],
            sealed_by: [NONE; LOGS],
            generation: 0,
            slots: [0; LOGS],
            mark: 0,
            set: 0,
            conditionals: [Conditional { logs: 0, generation: 0, winner: (0, 0) }; OPS],
            is_expired: false,
            is_forgotten: false,
            register: Register { stamp: 0, write: 0, tombstone: false, dot: (0, 0) },
            seen: 0,
        }
    }

    /// How far a log is applied.
    #[must_use]
    pub fn held(&self, log: u8) -> u8 {
        self.vector[usize::from(log)]
    }

    /// Whether everything that `vector` names is applied.
    #[must_use]
    pub fn reaches(&self, vector: &Vector) -> bool {
        self.vector.iter().zip(vector).all(|(own, other)| own >= other)
    }

    /// Whether the session's tables cover a number.
    #[must_use]
    pub fn covers(&self, number: u8, rules: Rules) -> bool {
        let is_below = number < self.mark && !rules.breaks(Variant::CoveredIsOnlyTheSet);
        is_below || self.set >> number & 1 == 1
    }

    /// Whether a number is conditional here and not covered.
    #[must_use]
    pub fn is_conditional(&self, number: u8) -> bool {
        self.conditionals[usize::from(number)].logs != 0
    }

    /// The log whose writer has a log's sessions: the log itself, or what sealed it, and so on.
    #[must_use]
    pub fn successor(&self, log: u8) -> u8 {
        let mut log = log;
        for _ in 0..LOGS {
            match self.sealed_by[usize::from(log)] {
                NONE => break,
                by => log = by,
            }
        }
        log
    }

    /// The counter as a reader sees it.
    #[must_use]
    pub fn value(&self, rules: Rules) -> u16 {
        let logged: u16 = self.slots.iter().sum();
        let counts = |(number, conditional): (usize, &Conditional)| {
            let copies = match conditional.logs.count_ones() as u16 {
                0 => return 0,
                count if rules.breaks(Variant::ConditionalPerRegion) => count,
                _ => 1,
            };
            let generation = if rules.breaks(Variant::WinnerBeforeGeneration) {
                conditional.winner.1
            } else {
                conditional.generation
            };
            let is_current = generation == self.generation || rules.breaks(Variant::AddsIgnoreGenerations);
            u16::from(is_current) * copies * digit(number as u8)
        };
        logged + self.conditionals.iter().enumerate().map(counts).sum::<u16>()
    }

    /// Applies the next record of a log; false if it has to wait.
    pub fn apply(&mut self, log: u8, logs: &Logs, rules: Rules) -> bool {
        let at = self.held(log);
        let record = logs.get(log).records()[usize::from(at)];
        if self.has_to_wait(log, record, rules) {
            return false;
        }
        self.vector[usize::from(log)] += 1;
        match record {
            Record::Op { number, generation, mark } => {
                self.add(log, digit(number), generation, rules);
                self.set |= 1 << number;
                self.mark = self.mark.max(mark);
            }
            Record::Cond { number, generation } => self.add_conditional(log, number, generation, rules),
            Record::Add { digit: place, generation } => self.add(log, digit(place), generation, rules),
            Record::Delete { generation } => self.raise(generation),
            Record::Write { write, stamp, tombstone } => {
                self.seen |= 1 << write;
                let written = Register { stamp, write, tombstone, dot: (log, at + 1) };
                self.register = self.register.join(written, rules);
            }
            Record::Seal { log: sealed, .. } => {
                self.sealed_by[usize::from(sealed)] = log;
                self.slots[usize::from(log)] += std::mem::take(&mut self.slots[usize::from(sealed)]);
            }
            Record::Expire => {
                self.is_expired = true;
                if rules.breaks(Variant::ExpireDropsTablesAtOnce) {
                    self.forget_session();
                }
            }
            Record::Stable { .. } => {}
        }
        self.settle(logs, rules);
        true
    }

    /// A log that has been sealed takes nothing; a seal waits for the end of what it seals.
    fn has_to_wait(&self, log: u8, record: Record, rules: Rules) -> bool {
        let has_other_end =
            |sealed: u8, end: u8| self.held(sealed) != end && !rules.breaks(Variant::SealBeforeEnd);
        self.sealed_by[usize::from(log)] != NONE
            || matches!(record, Record::Seal { log, end } if has_other_end(log, end))
    }

    fn raise(&mut self, generation: u8) {
        if generation > self.generation {
            self.generation = generation;
            self.slots = [0; LOGS];
        }
    }

    fn add(&mut self, log: u8, amount: u16, generation: u8, rules: Rules) {
        if rules.breaks(Variant::AddsIgnoreGenerations) {
            self.slots[usize::from(log)] += amount;
            return;
        }
        self.raise(generation);
        if generation == self.generation {
            self.slots[usize::from(log)] += amount;
        }
    }

    fn add_conditional(&mut self, log: u8, number: u8, generation: u8, rules: Rules) {
        if self.is_expired && rules.breaks(Variant::ExpireDropsLateConditionals) {
            return;
        }
        if !rules.breaks(Variant::ConditionalDoesNotRaise) && !rules.breaks(Variant::AddsIgnoreGenerations) {
            self.raise(generation);
        }
        let copy = Conditional { logs: 1 << log, generation, winner: (log, generation) };
        self.conditionals[usize::from(number)].join(copy);
    }

    fn forget_session(&mut self) {
        self.is_forgotten = true;
        self.set = 0;
        self.mark = 0;
        self.conditionals = [Conditional::default(); OPS];
    }

    /// Drops what is covered, and what a `Stable` that is reached lets go.
    fn settle(&mut self, logs: &Logs, rules: Rules) {
        self.set &= !0 << self.mark;
        for number in 0..OPS as u8 {
            if self.covers(number, rules) {
                self.conditionals[usize::from(number)] = Conditional::default();
            }
        }
        for stable in logs.stables.iter().flatten() {
            let is_known = self.held(stable.log) >= stable.at;
            if is_known && (self.reaches(&stable.own) || rules.breaks(Variant::StableIgnoresU)) {
                self.act_on(stable, logs, rules);
            }
        }
    }

    fn act_on(&mut self, stable: &Stable, logs: &Logs, rules: Rules) {
        let (by, through) = (stable.log, stable.through);
        if self.register.tombstone && logs.is_covered(self.register.dot, by, through) {
            self.register = Register::default();
        }
        let held = self.vector;
        let stands = |wanted| logs.is_record_covered(wanted, &held, by, through);
        if !self.is_forgotten && self.is_expired && stands(Record::Expire) {
            self.forget_session();
        }
        if rules.breaks(Variant::CounterTombstoneDropped)
            && self.slots == [0; LOGS]
            && stands(Record::Delete { generation: self.generation })
        {
            self.generation = 0;
        }
    }

    /// The state of both vectors: for each log, the contribution of the longer prefix (design.md §3.4).
    #[must_use]
    pub fn join(&self, other: &Self, logs: &Logs, rules: Rules) -> Self {
        let mut joined = *self;
        joined.join_counter(other, rules);
        joined.join_sessions(other);
        joined.join_register(self, other, rules);
        for log in 0..LOGS {
            joined.vector[log] = self.vector[log].max(other.vector[log]);
            joined.sealed_by[log] = self.sealed_by[log].min(other.sealed_by[log]);
        }
        joined.settle(logs, rules);
        joined
    }

    /// What a region ends up with that does not install a joined state in one step, but leaves out a part of it.
    #[must_use]
    pub fn piecewise(mut self, before: &Self, rules: Rules) -> Self {
        if rules.breaks(Variant::InstallWithoutVector) {
            self.vector = before.vector;
        }
        if rules.breaks(Variant::InstallWithoutSessions) {
            (self.set, self.mark) = (before.set, before.mark);
        }
        self
    }

    fn join_counter(&mut self, other: &Self, rules: Rules) {
        let mut slots = other.slots;
        if !rules.breaks(Variant::AddsIgnoreGenerations) {
            self.raise(other.generation);
            if other.generation < self.generation {
                slots = [0; LOGS];
            }
        }
        for (log, theirs) in slots.into_iter().enumerate() {
            let own = &mut self.slots[log];
            if rules.breaks(Variant::PerSlotMaximum) {
                *own = theirs.max(*own);
                continue;
            }
            // The side without the seal drops the sealed log's total: it stands in the sealing log's.
            let is_sealed = |side: &Self| side.sealed_by[log] != NONE;
            let is_longer = other.vector[log] > self.vector[log];
            if is_sealed(other) || (is_longer && self.sealed_by[log] == NONE) {
                *own = theirs;
            }
        }
    }

    fn join_sessions(&mut self, other: &Self) {
        self.is_expired |= other.is_expired;
        self.is_forgotten |= other.is_forgotten;
        self.set |= other.set;
        self.mark = self.mark.max(other.mark);
        for (own, theirs) in self.conditionals.iter_mut().zip(other.conditionals) {
            if theirs.logs != 0 {
                own.join(theirs);
            }
        }
        if self.is_forgotten {
            self.forget_session();
        }
    }

    fn join_register(&mut self, own: &Self, other: &Self, rules: Rules) {
        self.seen |= other.seen;
        let is_deleted = |present: &Self, absent: &Self| {
            let (log, at) = present.register.dot;
            match () {
                () if rules.breaks(Variant::AbsentMeansDeleted) => true,
                () if rules.breaks(Variant::AbsentMeansUnknown) => false,
                () => absent.held(log) >= at,
            }
        };
        self.register = match (own.register.is_absent(), other.register.is_absent()) {
            (false, false) => own.register.join(other.register, rules),
            (false, true) if !is_deleted(own, other) => own.register,
            (true, false) if !is_deleted(other, own) => other.register,
            _ => Register::default(),
        };
    }
}

impl Conditional {
    fn join(&mut self, other: Self) {
        self.winner = if self.logs == 0 { other.winner } else { self.winner.min(other.winner) };
        self.logs |= other.logs;
        self.generation = self.generation.max(other.generation);
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::new()
    }
}
