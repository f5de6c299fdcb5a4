//! The last-writer-wins register: the greatest stamp wins, then the greatest value.

use tombolo_causality::{Seq, Stamp, Time};
use tombolo_mutants::{Mutant, is_planted};

/// The log position that wrote a value: what "absent" is compared with when histories are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dot<L> {
    /// The log.
    pub log: L,
    /// The batch.
    pub seq: Seq,
}

/// A value or a tombstone, with the stamp that put it there.
///
/// The sender fixes the stamp once and every copy carries it, so copies of one write merge to themselves (C4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register<L> {
    stamp: Stamp,
    value: Option<Box<[u8]>>,
    expires_at: Option<Time>,
    dot: Dot<L>,
}

impl<L: Copy + Ord> Register<L> {
    /// As one write left it; no value is a tombstone.
    #[must_use]
    pub fn new(stamp: Stamp, value: Option<&[u8]>, expires_at: Option<Time>, dot: Dot<L>) -> Self {
        Self { stamp, value: value.map(Box::from), expires_at, dot }
    }

    /// The winner's stamp.
    #[must_use]
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The value; none: a tombstone. Whether it has expired is the reader's to judge: no state reads a clock.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// When the value stops being visible.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Time> {
        self.expires_at
    }

    /// The log position that wrote it.
    #[must_use]
    pub const fn dot(&self) -> Dot<L> {
        self.dot
    }

    /// Whether a reader at `now` sees a value.
    #[must_use]
    pub fn is_visible(&self, now: Time) -> bool {
        self.value.is_some() && self.expires_at.is_none_or(|at| at > now)
    }

    /// Applies a write; the greatest (stamp, value) wins. Copies of the same write keep the smallest dot, so that the
    /// state does not depend on which copy came first.
    pub fn write(&mut self, stamp: Stamp, value: Option<&[u8]>, expires_at: Option<Time>, dot: Dot<L>) {
        let mine = (self.stamp, self.value.as_deref(), self.expires_at);
        let theirs = (stamp, value, expires_at);
        if theirs > mine || is_planted(Mutant::LastArrivalWins) {
            *self = Self::new(stamp, value, expires_at, dot);
        } else if theirs == mine {
            self.dot = self.dot.min(dot);
        }
    }

    /// Joins another state.
    pub fn merge(&mut self, other: &Self) {
        self.write(other.stamp, other.value.as_deref(), other.expires_at, other.dot);
    }
}
