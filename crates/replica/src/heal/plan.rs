//! How this shard comes to hold what a peer holds, as a value: printed, tested, explained (design.md §3.6).
//!
//! It decides nothing by itself: `exchange/peers.rs` says who is asked for which log, `fetch.rs` when a difference is taken; this
//! says what follows from what they know. Start with [`plan`].

use tombolo_causality::{RegionId, Seq, VersionVector};

use crate::heal::fetch::FetchReport;
use crate::replica::Replica;
use crate::state::logs::LogName;

/// A part of a log that is there and not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Which log.
    pub log: LogName,
    /// The first batch that is lacking here.
    pub from: Seq,
    /// The last one that is there.
    pub through: Seq,
}

/// What brings this shard to what a peer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing is lacking.
    InSync,
    /// Batches that the peer keeps.
    Resume(Vec<Gap>),
    /// Nobody connected keeps these: the entries in which the two states differ.
    Difference {
        /// What is not kept as batches.
        why: Vec<Gap>,
        /// How far it is, if it is under way.
        progress: Option<FetchReport>,
    },
    /// The same, and nothing is here yet: all entries.
    Snapshot {
        /// What is not kept as batches.
        why: Vec<Gap>,
        /// How far it is, if it is under way.
        progress: Option<FetchReport>,
    },
}

impl Plan {
    /// The word for it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::InSync => "in_sync",
            Self::Resume(_) => "resume",
            Self::Difference { .. } => "difference",
            Self::Snapshot { .. } => "snapshot",
        }
    }
}

/// What is done about one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPlan {
    /// The peer.
    pub region: RegionId,
    /// Whether it is connected; if not, this is what its last words lead to.
    pub is_connected: bool,
    /// The plan.
    pub plan: Plan,
}

/// How a batch that is lacking here may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From the peer that the plan is about.
    Peer,
    /// From another peer, or never: its log ended, and was taken over here.
    Elsewhere,
    /// From nobody: it is not kept as a batch any more.
    Gone,
}

/// The plan for one peer: from what came in here, what the peer holds, how the log of each gap comes, and what is
/// fetched of it.
#[must_use]
pub fn plan(
    received: &VersionVector,
    own: LogName,
    holds: &VersionVector,
    source: impl Fn(LogName) -> Source,
    progress: Option<FetchReport>,
) -> Plan {
    let is_lacking = |&(log, end): &(LogName, Seq)| log != own && end > received.get(log.0, log.1);
    let gap = |(log, through): (LogName, Seq)| Gap { log, from: received.get(log.0, log.1).next(), through };
    let gaps = || holds.iter().filter(is_lacking).map(gap);
    let why: Vec<Gap> = gaps().filter(|gap| source(gap.log) == Source::Gone).collect();
    if progress.is_some() || !why.is_empty() {
        let is_empty = received.iter().all(|(log, _)| log == own);
        return if is_empty { Plan::Snapshot { why, progress } } else { Plan::Difference { why, progress } };
    }
    let gaps: Vec<Gap> = gaps().filter(|gap| source(gap.log) == Source::Peer).collect();
    if gaps.is_empty() { Plan::InSync } else { Plan::Resume(gaps) }
}

impl Replica {
    /// What is done about each peer.
    #[must_use]
    pub fn reconciliation(&self) -> Vec<PeerPlan> {
        let (received, stuck) = (self.received(), self.stuck());
        let of_peer = |(&region, peer): (&RegionId, &crate::exchange::peers::Peer)| {
            let source = |log: LogName| {
                if self.state.logs.sealed(log).is_some() {
                    Source::Elsewhere
                } else if stuck.contains(&(log, region)) {
                    Source::Gone
                } else if self.peers.gone.contains_key(&(region, log)) {
                    Source::Elsewhere
                } else {
                    Source::Peer
                }
            };
            let progress = self.fetching().filter(|fetch| fetch.from == region);
            let plan = plan(&received, self.writer.name(), &peer.applied, source, progress);
            PeerPlan { region, is_connected: peer.is_answered, plan }
        };
        self.peers.peers.iter().map(of_peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use tombolo_causality::Epoch;

    use super::*;

    fn log(region: u16) -> LogName {
        (RegionId::new(region).unwrap(), Epoch(1))
    }

    fn vector(ends: &[(u16, u64)]) -> VersionVector {
        let mut vector = VersionVector::new();
        ends.iter().for_each(|&(region, seq)| vector.raise(log(region).0, log(region).1, Seq(seq)));
        vector
    }

    fn gap(region: u16, from: u64, through: u64) -> Gap {
        Gap { log: log(region), from: Seq(from), through: Seq(through) }
    }

    fn planned(received: &[(u16, u64)], holds: &[(u16, u64)], source: impl Fn(LogName) -> Source) -> Plan {
        plan(&vector(received), log(1), &vector(holds), source, None)
    }

    #[test]
    fn nothing_is_lacking_of_a_peer_that_holds_no_more_than_this_region() {
        let all = |_| Source::Peer;
        assert_eq!(
            planned(&[(1, 5), (2, 7)], &[(1, 9), (2, 7)], all),
            Plan::InSync,
            "its own log is its own"
        );
        assert_eq!(planned(&[], &[], all), Plan::InSync);
        assert_eq!(planned(&[(2, 8)], &[(2, 7)], all), Plan::InSync);
    }

    #[test]
    fn batches_that_the_peer_keeps_are_resumed_from_the_first_that_is_lacking() {
        let all = |_| Source::Peer;
        let plan = planned(&[(1, 5), (2, 7)], &[(2, 9), (3, 4)], all);
        assert_eq!(plan, Plan::Resume(vec![gap(2, 8, 9), gap(3, 1, 4)]));
        let plan = planned(&[(2, 7)], &[(2, 9)], |_| Source::Elsewhere);
        assert_eq!(plan, Plan::InSync, "what comes from elsewhere is not this peer's");
    }

    #[test]
    fn what_nobody_keeps_comes_as_a_difference_and_all_of_it_as_a_snapshot() {
        let gone = |name| if name == log(3) { Source::Gone } else { Source::Peer };
        let plan = planned(&[(1, 5), (2, 7)], &[(2, 9), (3, 4)], gone);
        assert_eq!(plan, Plan::Difference { why: vec![gap(3, 1, 4)], progress: None });
        let plan = planned(&[(1, 5)], &[(2, 9), (3, 4)], gone);
        assert_eq!(plan, Plan::Snapshot { why: vec![gap(3, 1, 4)], progress: None });
    }

    #[test]
    fn a_difference_that_is_under_way_says_how_far_it_is() {
        let fetch = FetchReport { from: log(2).0, entries_count: 10, leaves_count: 3, is_installing: false };
        let (received, holds) = (vector(&[(2, 7)]), vector(&[(2, 7)]));
        let plan = plan(&received, log(1), &holds, |_| Source::Peer, Some(fetch));
        assert_eq!(plan, Plan::Difference { why: vec![], progress: Some(fetch) });
        assert_eq!(plan.name(), "difference");
    }
}
