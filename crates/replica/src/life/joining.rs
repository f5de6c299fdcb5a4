//! Joining: a region that began without data holds less than it says until it is past its join mark: all that the
//! members it met had applied when they first answered it.
//!
//! Whole is more: it waits for every member (see `whole.rs`), while a mark is passed also when one of them is away.
//! Whether reads are refused meanwhile is for the shell to decide. Start with [`Replica::begin_joining`].

use std::collections::BTreeSet;

use tombolo_causality::{RegionId, VersionVector};

use crate::replica::Replica;

/// What those it met first said they had applied.
#[derive(Debug, Default)]
pub(crate) struct JoinMark {
    mark: VersionVector,
    met: BTreeSet<RegionId>,
}

/// How far a shard is with joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinReport {
    /// Members that have answered.
    pub met_count: usize,
    /// Members there are, beside this region.
    pub others_count: usize,
    /// Whether one of those it met has anything.
    pub has_mark: bool,
    /// Whether something of the mark is still to come.
    pub is_behind: bool,
}

impl Replica {
    /// Says that this shard began without data. Once, before anything is connected.
    pub fn begin_joining(&mut self) {
        self.join_mark = Some(JoinMark::default());
    }

    /// How far it is; none if it did not begin without data, or is whole.
    #[must_use]
    pub fn joining(&self) -> Option<JoinReport> {
        let JoinMark { mark, met } = self.join_mark.as_ref().filter(|_| !self.is_whole)?;
        Some(JoinReport {
            met_count: met.len(),
            others_count: self.peers.peers.len(),
            has_mark: !mark.is_empty(),
            is_behind: mark.iter().any(|(name, seq)| !self.state.logs.holds(name, seq)),
        })
    }

    /// A member has answered: only its first answer counts, or the mark would move on for as long as others write.
    pub(crate) fn note_join_mark(&mut self, region: RegionId, applied: &VersionVector) {
        if let Some(join) = &mut self.join_mark
            && join.met.insert(region)
        {
            join.mark.join(applied);
        }
    }
}
