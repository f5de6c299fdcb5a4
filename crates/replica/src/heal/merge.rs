//! Joining another region's state where histories are gone: per log the contribution of the longer prefix
//! (design.md §3.4, "State merge").
//!
//! What is joined is a whole state or the entries in which two states differ, always with the exact vector they stand
//! for; it is never installed in pieces (F7). Both sides are first brought to the union of their seals. The outcome is
//! the state that replaying the logs would give (C7). Start with [`State::join`].

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashSet;
use tombolo_causality::{Seq, TenantId};
use tombolo_codec::checkpoint::{
    CellContent, CellState, ConditionalState, FloorState, LogEnd, SealedLog, StableState,
};
use tombolo_codec::records::Seal;
use tombolo_codec::{Checkpoint, Kind};
use tombolo_crdt::{Counter, Dot, Register};
use tombolo_mutants::{Mutant, is_planted};

use crate::state::State;
use crate::state::cells::{CellKey, counter_of, register_of};
use crate::state::garbage::Garbage;
use crate::state::logs::{LogIndex, LogName, Logs, SealedBy};

/// Why two states cannot be joined: one of them breaks a promise, and an operator has to look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The same position of a log, and two different batches.
    #[error("log {0:?} is not the same there: two batches have the same place")]
    Fork(LogName),
    /// One side took a log over at an end beyond which the other one holds it.
    #[error("log {log:?} was taken over at {end}, and is held through {held}")]
    BeyondEnd {
        /// The log.
        log: LogName,
        /// Its end, by the seal.
        end: Seq,
        /// What is held.
        held: Seq,
    },
}

/// Entries of a state, with the vector they stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Vector, seals, floors and stability records in full, and those entries that were sent.
    pub state: Checkpoint,
    /// What the other region does not have of the registers here.
    pub absent: Absent,
    /// Through which batch every log was held here when the two states were compared. What came since is in no digest
    /// that the other region was told, so it says nothing about that either.
    pub compared: BTreeMap<LogName, Seq>,
}

/// Registers that the other region does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// All that were not sent.
    Unsent,
    /// These: tenant and key.
    These(BTreeSet<(TenantId, Box<[u8]>)>),
}

impl Difference {
    /// Whether the other region does not have a register that is here; `dot` is where it was written.
    fn is_absent(&self, name: &CellKey, dot: Dot<LogName>) -> bool {
        match &self.absent {
            Absent::Unsent => true,
            Absent::These(names) => {
                // It was not here when the two were compared, and of what the other region had then, all was sent.
                let is_newer = self.compared.get(&dot.log).is_none_or(|held| dot.seq > *held);
                is_newer || names.contains(&(name.tenant, name.key.clone()))
            }
        }
    }
}

impl Default for Absent {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

/// How far the other region's state goes, and what it has taken over.
pub(crate) struct Theirs<'a> {
    ends: BTreeMap<LogName, &'a LogEnd>,
    sealed: BTreeMap<LogName, SealedBy>,
}

impl<'a> Theirs<'a> {
    pub(crate) fn of(state: &'a Checkpoint) -> Self {
        let by = |sealed: &SealedLog| {
            let name = (sealed.seal.region, sealed.seal.epoch);
            let by = (sealed.by_region, sealed.by_epoch);
            (name, SealedBy { end: sealed.seal.end, by, at: sealed.by_seq })
        };
        Self {
            ends: state.logs.iter().map(|end| ((end.region, end.epoch), end)).collect(),
            sealed: state.sealed.iter().map(by).collect(),
        }
    }

    fn held(&self, name: LogName) -> Seq {
        let end = || self.ends.get(&name).map_or(Seq::ZERO, |end| end.seq);
        self.sealed.get(&name).map_or_else(end, |sealed| sealed.end)
    }

    fn holds(&self, dot: Dot<LogName>) -> bool {
        self.held(dot.log) >= dot.seq
    }
}

/// Logs as they were before the join, with all seals that either side knows.
pub(crate) struct Both<'a> {
    pub(crate) mine: &'a Logs,
    pub(crate) theirs: &'a Theirs<'a>,
}

impl Both<'_> {
    fn seal(&self, name: LogName) -> Option<SealedBy> {
        self.mine.sealed(name).or_else(|| self.theirs.sealed.get(&name).copied())
    }

    /// Where a position stands once all seals are applied.
    pub(crate) fn place(&self, mut dot: Dot<LogName>) -> Dot<LogName> {
        // Each step leads to a log that ended later, so the walk ends.
        while let Some(sealed) = self.seal(dot.log) {
            dot = Dot { log: sealed.by, seq: sealed.at };
        }
        dot
    }

    /// Logs that only the other side has taken over.
    pub(crate) fn sealed_there(&self) -> Vec<LogName> {
        let theirs = self.theirs.sealed.keys().copied();
        theirs.filter(|name| self.mine.sealed(*name).is_none()).collect()
    }

    fn place_state(&self, dot: &Seal) -> Seal {
        let dot = self.place(dot_of(dot));
        Seal { region: dot.log.0, epoch: dot.log.1, end: dot.seq }
    }

    fn is_longer_there(&self, name: LogName) -> bool {
        self.theirs.held(name) > self.mine.held(name)
    }

    /// Whether batches were applied here, after the comparison, that the other side already had.
    fn has_caught_up_since(&self, compared: &BTreeMap<LogName, Seq>) -> bool {
        let held = self.mine.all_held();
        held.into_iter().any(|(name, held)| {
            let before = compared.get(&name).copied().unwrap_or(Seq::ZERO);
            held.min(self.theirs.held(name)) > before
        })
    }
}

const fn dot_of(seal: &Seal) -> Dot<LogName> {
    Dot { log: (seal.region, seal.epoch), seq: seal.end }
}

impl State {
    /// Joins another region's state, or that part of it in which the two differ.
    ///
    /// Gives the logs whose end here has moved, and those that were taken over.
    ///
    /// Errors: [`JoinError`]; nothing has changed then.
    pub(crate) fn join(&mut self, other: &Difference) -> Result<Moved, JoinError> {
        let theirs = Theirs::of(&other.state);
        self.check_join(&theirs)?;
        let before = self.logs.clone();
        let both = Both { mine: &before, theirs: &theirs };
        let sealed = self.fold_theirs(&both);
        self.join_floors(&other.state, &both);
        self.join_sessions(&other.state, &both);
        self.join_cells(other, &both);
        let moved = self.join_logs(&both, sealed);
        self.act_on_stables();
        Ok(moved)
    }

    fn check_join(&self, theirs: &Theirs<'_>) -> Result<(), JoinError> {
        for (&log, end) in &theirs.ends {
            if let Some(sealed) = self.logs.sealed(log) {
                if end.seq > sealed.end {
                    return Err(JoinError::BeyondEnd { log, end: sealed.end, held: end.seq });
                }
            } else if self.logs.end(log) == end.seq && self.logs.tail(log).digest != end.digest {
                return Err(JoinError::Fork(log));
            }
        }
        for (&log, sealed) in &theirs.sealed {
            let held = self.logs.held(log);
            if held > sealed.end {
                return Err(JoinError::BeyondEnd { log, end: sealed.end, held });
            }
        }
        Ok(())
    }

    /// Applies the seals that only the other side has. What a sealed log wrote goes to where its seal leads: in entries
    /// that are sent, the longer prefix of that log replaces the sum; in all others the sum is what both sides have.
    fn fold_theirs(&mut self, both: &Both<'_>) -> Vec<LogName> {
        let new = both.sealed_there();
        let is_due = |name: LogName| both.mine.end(name) > Seq::ZERO && !is_planted(Mutant::UnsentNotFolded);
        for &name in new.iter().filter(|name| is_due(**name)) {
            let into = both.place(Dot { log: name, seq: Seq::ZERO });
            let indexes = (self.logs.index(name), self.logs.index(into.log));
            self.cells.fold((indexes.0, name), (indexes.1, into), &self.logs);
            self.garbage.fold(name, into);
        }
        new
    }

    fn join_floors(&mut self, other: &Checkpoint, both: &Both<'_>) {
        let placed = |dot: &Seal| both.place_state(dot);
        let floors = other.floors.iter().map(|it| FloorState { dot: placed(&it.dot), ..*it });
        let stables = other.stables.iter();
        let stables = stables.map(|it| StableState { dot: placed(&it.dot), ..it.clone() });
        let forgotten = if is_planted(Mutant::ForgottenFloorsLost) { &[] } else { &other.forgotten[..] };
        let theirs = Garbage::restore(&floors.collect::<Vec<_>>(), forgotten, &stables.collect::<Vec<_>>());
        let they_hold = |dot: &Dot<LogName>| both.theirs.holds(*dot);
        self.garbage.join(theirs, they_hold, |dot| both.mine.holds(dot.log, dot.seq));
        for floor in forgotten {
            self.sessions.forget(floor.home, floor.before);
            self.cells.conditionals.forget(floor.home, floor.before);
        }
    }

    fn join_sessions(&mut self, other: &Checkpoint, both: &Both<'_>) {
        for session in other.sessions.iter().filter(|session| !self.garbage.is_forgotten(&session.id)) {
            self.sessions.join(session);
            self.cells.conditionals.cover_below(&session.id, session.mark);
            for number in &session.numbers {
                self.cells.conditionals.cover(&session.id, number.number);
            }
        }
        for copy in &other.conditionals {
            let is_covered = self.sessions.is_covered(&copy.session, copy.number)
                && !is_planted(Mutant::CoveredConditionalJoined);
            if !is_covered && !self.garbage.is_forgotten(&copy.session) {
                let dot = both.place_state(&copy.dot);
                self.cells.conditionals.join(&ConditionalState { dot, ..copy.clone() });
            }
        }
    }

    fn join_cells(&mut self, other: &Difference, both: &Both<'_>) {
        let mut sent = HashSet::with_hasher(foldhash::fast::FixedState::default());
        let mut cells = &other.state.cells[..];
        if is_planted(Mutant::JoinedPiecewise) {
            cells = &cells[..cells.len().div_ceil(2)];
        }
        for cell in cells {
            match &cell.content {
                CellContent::Counter { .. } => self.join_counter(cell, both),
                CellContent::Register { .. } => {
                    sent.insert((TenantId(cell.tenant), cell.key.as_slice()));
                    self.join_register(cell, both);
                }
            }
        }
        if is_planted(Mutant::DroppedRegisterStays) {
            return;
        }
        // A cell absent on one side was let go there iff that side has seen what wrote it (F11).
        let is_gone = |name: &CellKey, dot: Dot<LogName>| {
            let is_seen = both.theirs.holds(dot) || is_planted(Mutant::UnseenRegisterGoes);
            is_seen && !sent.contains(&(name.tenant, &*name.key)) && other.is_absent(name, dot)
        };
        let gone: Vec<CellKey> = match &other.absent {
            Absent::These(names) if !both.has_caught_up_since(&other.compared) => {
                let names = names.iter().map(|(tenant, key)| CellKey::new(*tenant, key));
                let here = |name: &CellKey| self.cells.register(name.tenant, &name.key).map(Register::dot);
                names.filter(|name| here(name).is_some_and(|dot| is_gone(name, dot))).collect()
            }
            _ => {
                let registers = self.cells.registers.iter();
                let gone = registers.filter(|(name, register)| is_gone(name, register.dot()));
                gone.map(|(name, _)| name.clone()).collect()
            }
        };
        gone.iter().for_each(|name| self.cells.drop_register(name));
    }

    fn join_counter(&mut self, cell: &CellState, both: &Both<'_>) {
        let CellContent::Counter { generation, slots } = &cell.content else { return };
        let tenant = TenantId(cell.tenant);
        let theirs = counter_of(*generation, slots, &mut self.logs);
        let name = CellKey::new(tenant, &cell.key);
        let empty = Counter::new();
        let mine = self.cells.counter_state(&name).unwrap_or(&empty);
        let greatest = mine.generation().max(theirs.generation());
        let mut joined: BTreeMap<LogIndex, (u128, u128)> = BTreeMap::new();
        if mine.generation() == greatest {
            joined.extend(mine.logs().into_iter().map(|(log, up, down)| (log, (up, down))));
        }
        if theirs.generation() == greatest {
            for (log, up, down) in theirs.logs() {
                let name = self.logs.name(log);
                // What was taken over here stands in the log that took it over, to its end.
                if both.mine.sealed(name).is_some() {
                    continue;
                }
                let is_longer = both.is_longer_there(name) || is_planted(Mutant::ShorterPrefixWins);
                if is_longer || mine.generation() < greatest {
                    joined.insert(log, (up, down));
                }
            }
        }
        let slots = joined.into_iter().map(|(log, (up, down))| (log, up, down));
        let counter = Counter::restored(greatest, slots);
        self.cells.replace_counter(tenant, &cell.key, counter, &self.logs);
    }

    fn join_register(&mut self, cell: &CellState, both: &Both<'_>) {
        let Some(theirs) = register_of(&cell.content) else { return };
        let tenant = TenantId(cell.tenant);
        let is_here = self.cells.register(tenant, &cell.key).is_some();
        // Seen here before, and let go.
        let is_seen = both.mine.holds(theirs.dot().log, theirs.dot().seq);
        if !is_here && is_seen && !is_planted(Mutant::DroppedRegisterReturns) {
            return;
        }
        self.cells.join_register(tenant, &cell.key, theirs);
    }

    fn join_logs(&mut self, both: &Both<'_>, sealed: Vec<LogName>) -> Moved {
        let mut ends = Vec::new();
        for (&name, &end) in &both.theirs.ends {
            if both.mine.sealed(name).is_none() && end.seq > both.mine.end(name) {
                self.logs.jump(end);
                ends.push(*end);
            }
        }
        for &name in &sealed {
            let by = both.theirs.sealed[&name];
            self.logs.seal(Seal { region: name.0, epoch: name.1, end: by.end }, by.by, by.at);
        }
        Moved { ends, sealed }
    }
}

/// What a join did to the logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// Logs that go on from here.
    pub ends: Vec<LogEnd>,
    /// Logs that another one took over.
    pub sealed: Vec<LogName>,
}

/// The state of `own` joined with a difference: what a checkpoint must hold before the difference is installed.
///
/// Cells that the difference leaves as they are pass through as they came: its cost is that of what changes, but where
/// a seal or a stability record may reach any cell.
///
/// Errors: [`JoinError`].
pub fn joined(mut own: Checkpoint, difference: &Difference) -> Result<(Checkpoint, Moved), JoinError> {
    let untouched = match touched(&own, difference) {
        Some(touched) => {
            let is_untouched = |cell: &mut CellState| !touched.contains(&name_of(cell));
            own.cells.extract_if(.., is_untouched).collect()
        }
        None => Vec::new(),
    };
    let mut state = State::restore(&own);
    let moved = state.join(difference)?;
    let mut checkpoint = state.dump(own.clock);
    checkpoint.cells.extend(untouched);
    Ok((checkpoint, moved))
}

type CellName<'a> = (TenantId, Kind, &'a [u8]);

fn name_of(cell: &CellState) -> CellName<'_> {
    (TenantId(cell.tenant), cell.kind, &cell.key)
}

/// The cells that a difference may change; none: any.
fn touched<'a>(
    own: &Checkpoint,
    difference: &'a Difference,
) -> Option<HashSet<CellName<'a>, foldhash::fast::FixedState>> {
    let Absent::These(absent) = &difference.absent else { return None };
    let (mine, theirs) = (Logs::restore(&own.logs, &own.sealed), Theirs::of(&difference.state));
    let both = Both { mine: &mine, theirs: &theirs };
    let may_let_go = !own.stables.is_empty() || !difference.state.stables.is_empty();
    if may_let_go || !both.sealed_there().is_empty() || both.has_caught_up_since(&difference.compared) {
        return None;
    }
    let absent = absent.iter().map(|(tenant, key)| (*tenant, Kind::Register, &**key));
    Some(difference.state.cells.iter().map(name_of).chain(absent).collect())
}

#[cfg(test)]
mod tests;
