//! What regions send each other of a shard's state where histories are gone: digests of leaves, then entries.
//!
//! It never says what is done with them; see `heal/fetch.rs` in the replica crate.
#![allow(missing_docs, reason = "what rkyv derives for an enum's variants comes without docs")]

use rkyv::{Archive, Deserialize, Serialize};

use crate::checkpoint::{CellState, ConditionalState, SessionState};

/// Leaves of a section's digest tree.
pub const LEAVES_COUNT: usize = 4_096;

/// The tables of a shard's state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Serialize, Deserialize)]
#[rkyv(attr(allow(missing_docs)))]
pub enum Section {
    /// Counters.
    Counters,
    /// Registers.
    Registers,
    /// Sessions.
    Sessions,
    /// Conditional requests, by session.
    Conditionals,
}

impl Section {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Counters, Self::Registers, Self::Sessions, Self::Conditionals];
}

/// The digests of a section. A cut has one of each, in the order of [`Section::ALL`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct LeafSums {
    /// Which.
    pub section: Section,
    /// How many entries it has.
    pub entries_count: u64,
    /// The sum of the digests of all entries, in full: what was found by parts of digests is checked against it.
    pub total: u128,
    /// The sum of the digests of each leaf's entries, its lowest bytes as wide as was asked for; empty: all are zero.
    pub sums: Vec<u64>,
}

impl LeafSums {
    /// The sum of one leaf.
    #[must_use]
    pub fn at(&self, leaf: usize) -> u64 {
        self.sums.get(leaf).copied().unwrap_or(0)
    }
}

/// Which entries of a leaf are wanted.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct LeafAsk {
    /// Which leaf.
    pub leaf: u16,
    /// The digests of the entries that the asker has of it, as wide as it asked for: those are not sent.
    pub known: Vec<u64>,
}

/// Entries of a shard's state.
#[derive(Clone, PartialEq, Eq, Debug, Default, Archive, Serialize, Deserialize)]
pub struct Entries {
    /// Counters and registers.
    pub cells: Vec<CellState>,
    /// Sessions.
    pub sessions: Vec<SessionState>,
    /// Conditional requests.
    pub conditionals: Vec<ConditionalState>,
}
