//! The PN-counter: per log the growing totals of what went up and down, under a generation that deletes start anew.

use std::ops::Add;

use smallvec::SmallVec;
use tombolo_causality::Stamp;
use tombolo_mutants::{Mutant, is_planted};

/// How many logs a counter holds without allocating: one a region, for three regions.
const SLOTS_INLINE: usize = 3;

/// A part of one log's totals. Several slots of one log add up: a total beyond u64 spills into another slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot<L> {
    /// The log that wrote it.
    pub log: L,
    /// Sum of the positive deltas.
    pub positive: u64,
    /// Sum of the negative deltas, as a positive number.
    pub negative: u64,
}

/// Goes up and down; value = ΣP − ΣN over its logs.
///
/// A delete starts a new generation: the greatest one wins, adds of smaller ones count nothing. The key and the
/// generation of a deleted counter stay for ever (counterexample F29), its slots go at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter<L> {
    // Most counters are never deleted: a pointer, not 40 bytes in each.
    generation: Option<Box<Stamp>>,
    slots: SmallVec<[Slot<L>; SLOTS_INLINE]>,
}

impl<L> Default for Counter<L> {
    fn default() -> Self {
        Self { generation: None, slots: SmallVec::new() }
    }
}

impl<L: Copy + Ord> Counter<L> {
    /// Zero, in its first generation.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The stamp of its last delete.
    #[must_use]
    pub fn generation(&self) -> Option<Stamp> {
        self.generation.as_deref().copied()
    }

    /// ΣP − ΣN.
    #[must_use]
    pub fn value(&self) -> i128 {
        self.slots.iter().map(|slot| i128::from(slot.positive) - i128::from(slot.negative)).sum()
    }

    /// Whether nothing was added in its present generation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Applies the adds of one batch of `log`, admitted under `generation`.
    ///
    /// An add carries its generation to cells that have not seen the delete yet (F28).
    pub fn add(&mut self, log: L, generation: Option<Stamp>, positive: u64, negative: u64) {
        if !self.enter(generation) {
            return;
        }
        let mut rest = (positive, negative);
        for slot in self.slots.iter_mut().filter(|slot| slot.log == log) {
            rest = slot.fill(rest);
            if rest == (0, 0) {
                return;
            }
        }
        let (positive, negative) = rest;
        // A log that added zero has a slot all the same: its prefix is what this state stands for.
        self.slots.push(Slot { log, positive, negative });
    }

    /// Starts a generation; a smaller one changes nothing.
    pub fn delete(&mut self, generation: Stamp) {
        self.enter(Some(generation));
    }

    /// Raises the generation if `generation` is greater; tells whether it then is the present one.
    fn enter(&mut self, generation: Option<Stamp>) -> bool {
        let present = self.generation();
        if generation > present {
            self.generation = generation.map(Box::new);
            self.slots.clear();
        }
        generation >= present
    }

    /// Whether a log added anything in the present generation.
    #[must_use]
    pub fn has(&self, log: L) -> bool {
        self.slots.iter().any(|slot| slot.log == log)
    }

    /// A log's totals (P, N) in the present generation.
    #[must_use]
    pub fn totals(&self, log: L) -> (u128, u128) {
        self.slots.iter().filter(|slot| slot.log == log).fold((0, 0), |(positive, negative), slot| {
            (positive + u128::from(slot.positive), negative + u128::from(slot.negative))
        })
    }

    /// Every log with its totals, ordered by log.
    #[must_use]
    pub fn logs(&self) -> SmallVec<[(L, u128, u128); SLOTS_INLINE]> {
        let mut logs: SmallVec<[L; SLOTS_INLINE]> = self.slots.iter().map(|slot| slot.log).collect();
        logs.sort_unstable();
        logs.dedup();
        logs.into_iter()
            .map(|log| {
                let (positive, negative) = self.totals(log);
                (log, positive, negative)
            })
            .collect()
    }

    /// Its slots, in no particular order.
    #[must_use]
    pub fn slots(&self) -> &[Slot<L>] {
        &self.slots
    }

    fn set_totals(&mut self, log: L, mut positive: u128, mut negative: u128) {
        self.slots.retain(|slot| slot.log != log);
        loop {
            let part = |total: &mut u128| {
                let taken = u64::try_from(*total).unwrap_or(u64::MAX);
                *total -= u128::from(taken);
                taken
            };
            let slot = Slot { log, positive: part(&mut positive), negative: part(&mut negative) };
            self.slots.push(slot);
            if (positive, negative) == (0, 0) {
                return;
            }
        }
    }

    /// Restores a log's totals, as read from a checkpoint.
    #[must_use]
    pub fn restored(generation: Option<Stamp>, logs: impl IntoIterator<Item = (L, u128, u128)>) -> Self {
        let mut counter = Self { generation: generation.map(Box::new), slots: SmallVec::new() };
        for (log, positive, negative) in logs {
            counter.set_totals(log, positive, negative);
        }
        counter
    }

    /// Joins another state: the greatest generation, and within it per log the longer prefix.
    ///
    /// Totals of a log only grow, so the longer prefix is the componentwise maximum.
    pub fn merge(&mut self, other: &Self) {
        if !self.enter(other.generation()) {
            return;
        }
        for (log, positive, negative) in other.logs() {
            let mine = self.totals(log);
            if (positive, negative) != mine || !self.slots.iter().any(|slot| slot.log == log) {
                self.set_totals(log, positive.max(mine.0), negative.max(mine.1));
            }
        }
    }

    /// Moves the totals of a sealed log to the log that took it over.
    pub fn fold(&mut self, sealed: L, into: L) {
        if !self.slots.iter().any(|slot| slot.log == sealed) {
            return;
        }
        let (positive, negative) = self.totals(sealed);
        let before = self.totals(into);
        self.slots.retain(|slot| slot.log != sealed);
        let join = if is_planted(Mutant::FoldByMaximum) { u128::max } else { <u128 as Add>::add };
        self.set_totals(into, join(before.0, positive), join(before.1, negative));
    }
}

impl<L> Slot<L> {
    /// Takes in as much as fits; gives back what does not.
    fn fill(&mut self, (positive, negative): (u64, u64)) -> (u64, u64) {
        let take = |total: &mut u64, more: u64| match total.checked_add(more) {
            Some(sum) => {
                *total = sum;
                0
            }
            None => {
                let rest = more - (u64::MAX - *total);
                *total = u64::MAX;
                rest
            }
        };
        (take(&mut self.positive, positive), take(&mut self.negative, negative))
    }
}
