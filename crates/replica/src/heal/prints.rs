//! The digests of this state as they are under the seals that another region knows: only then do they compare.
//!
//! Mostly both know the same seals, and the digests kept at every write are what is asked for. Else what the unknown
//! seals fold is hashed anew: one pass over the counters, once a difference, and nothing is changed.

use tombolo_causality::SessionId;
use tombolo_codec::{Checkpoint, Entries, LEAVES_COUNT, LeafSums, Section};
use tombolo_crdt::{Counter, Dot};

use crate::heal::merge::{Both, Theirs};
use crate::state::State;
use crate::state::cells::{CellKey, hash_cell, hash_counter, hash_register};
use crate::state::conditionals::{Numbers, folded, hash_conditional, hash_numbers};
use crate::state::logs::{LogIndex, LogName};
use crate::state::sessions::{hash_session, hash_session_state};
use crate::state::table::{CutId, Named, Table, leaf_of, narrowed, print_of};

/// The name of an entry, where it stands in its table.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NameRef<'a> {
    Counter(&'a CellKey),
    Register(&'a CellKey),
    Session(&'a SessionId),
    Conditionals(&'a SessionId),
}

/// Logs that only the other side has taken over, and where they stand there.
#[derive(Debug, Default)]
pub(crate) struct View {
    folds: Vec<(LogIndex, LogIndex, LogName, Dot<LogName>)>,
}

impl View {
    fn counter(&self, counter: &Counter<LogIndex>) -> Option<Counter<LogIndex>> {
        let is_due = |log: LogIndex| self.folds.iter().any(|fold| fold.0 == log);
        if self.folds.is_empty() || !counter.slots().iter().any(|slot| is_due(slot.log)) {
            return None;
        }
        let mut counter = counter.clone();
        self.folds.iter().for_each(|fold| counter.fold(fold.0, fold.1));
        Some(counter)
    }

    fn numbers(&self, numbers: &Numbers) -> Option<Numbers> {
        let mut out = None;
        for (_, _, sealed, into) in &self.folds {
            let numbers = out.as_ref().unwrap_or(numbers);
            if numbers.values().flatten().any(|copy| copy.dot.log == *sealed) {
                out = Some(folded(numbers, *sealed, *into));
            }
        }
        out
    }
}

impl State {
    /// This state under the seals of another one's head.
    pub(crate) fn view_under(&mut self, head: &Checkpoint) -> View {
        let theirs = Theirs::of(head);
        let before = self.logs.clone();
        let both = Both { mine: &before, theirs: &theirs };
        let mut view = View::default();
        for name in both.sealed_there() {
            let into = both.place(Dot { log: name, seq: tombolo_causality::Seq::ZERO });
            view.folds.push((self.logs.index(name), self.logs.index(into.log), name, into));
        }
        view
    }

    /// The digests of every section in a view, in full.
    pub(crate) fn sums_in(&self, view: &View) -> Vec<LeafSums> {
        let mut all = self.sums();
        if view.folds.is_empty() {
            return all;
        }
        for of in &mut all {
            let (sums, total) = (&mut of.sums, &mut of.total);
            let mut change = |place: u64, before: u128, after: u128| {
                *total = total.wrapping_sub(before).wrapping_add(after);
                let leaf = &mut sums[usize::from(leaf_of(place))];
                *leaf = leaf.wrapping_sub(print_of(before)).wrapping_add(print_of(after));
            };
            match of.section {
                Section::Counters => {
                    for (name, counter) in self.cells.counters.iter() {
                        if let Some(folded) = view.counter(counter) {
                            let hash = |it| hash_counter(name.tenant, &name.key, it, &self.logs);
                            change(name.place(), hash(counter), hash(&folded));
                        }
                    }
                }
                Section::Conditionals => {
                    for (session, numbers) in self.cells.conditionals.table.iter() {
                        if let Some(folded) = view.numbers(numbers) {
                            let hash = |it| hash_numbers(session, it);
                            change(session.place(), hash(numbers), hash(&folded));
                        }
                    }
                }
                // Registers keep the position that wrote them, sessions name no log.
                Section::Registers | Section::Sessions => {}
            }
        }
        all
    }

    /// The digest of every entry of some leaves in a view, as it is now or as it was when a cut was opened.
    pub(crate) fn each_digest(
        &self,
        (view, cut): (&View, Option<CutId>),
        section: Section,
        leaves: &[u16],
        mut each: impl FnMut(u16, u128, NameRef<'_>),
    ) {
        match section {
            Section::Counters => read(&self.cells.counters, cut, leaves, |leaf, name, counter| {
                let folded = view.counter(counter);
                let counter = folded.as_ref().unwrap_or(counter);
                let digest = hash_counter(name.tenant, &name.key, counter, &self.logs);
                each(leaf, digest, NameRef::Counter(name));
            }),
            Section::Registers => read(&self.cells.registers, cut, leaves, |leaf, name, register| {
                let digest = hash_register(name.tenant, &name.key, register);
                each(leaf, digest, NameRef::Register(name));
            }),
            Section::Sessions => read(&self.sessions.table, cut, leaves, |leaf, name, session| {
                each(leaf, hash_session(name, session), NameRef::Session(name));
            }),
            Section::Conditionals => {
                read(&self.cells.conditionals.table, cut, leaves, |leaf, session, numbers| {
                    let folded = view.numbers(numbers);
                    let digest = hash_numbers(session, folded.as_ref().unwrap_or(numbers));
                    each(leaf, digest, NameRef::Conditionals(session));
                });
            }
        }
    }
}

/// What entries add to the digests of their sections, together.
pub(crate) fn hash_entries(entries: &Entries) -> u128 {
    let cells = entries.cells.iter().map(hash_cell);
    let sessions = entries.sessions.iter().map(hash_session_state);
    let conditionals = entries.conditionals.iter().map(hash_conditional);
    cells.chain(sessions).chain(conditionals).fold(0, u128::wrapping_add)
}

fn read<K: Named, V: Clone>(
    table: &Table<K, V>,
    cut: Option<CutId>,
    leaves: &[u16],
    each: impl FnMut(u16, &K, &V),
) {
    match cut {
        Some(cut) => table.read_cut(cut, leaves, each),
        None => table.read(leaves, each),
    }
}

/// Leaves of a section where the lowest `digest_bytes` bytes of two sums differ.
pub(crate) fn differing(mine: &LeafSums, theirs: &LeafSums, digest_bytes: u8) -> impl Iterator<Item = u16> {
    let differ = move |leaf: &usize| {
        narrowed(mine.at(*leaf), digest_bytes) != narrowed(theirs.at(*leaf), digest_bytes)
    };
    (0..LEAVES_COUNT).filter(differ).map(|leaf| leaf as u16)
}
