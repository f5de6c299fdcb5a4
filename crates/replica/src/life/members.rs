//! Who belongs to the cluster, as this shard goes by it; and what becomes of a removed region's logs: an heir takes
//! them over (design.md §3.7).
//!
//! The heir is the remaining member with the smallest id. It asks all remaining members what they hold, under the roster
//! without the removed region: whoever answers takes nothing more from that region. Once the heir holds all of it, it
//! logs a seal of every log of the removed region that stands, and the *marker*: a seal of the log of epoch zero, which
//! nobody ever wrote, so that a shard in which the region wrote nothing has a logged heir as well. Two heirs cannot
//! both seal: the later one needs the answer of the earlier one, and that holds what the earlier one staged.

use tombolo_causality::{Epoch, RegionId, Seq};
use tombolo_codec::records::Seal;
use tombolo_codec::{Reject, RejectCode, Roster, Standing};
use tombolo_mutants::{Mutant, is_planted};

use crate::effect::Effect;
use crate::exchange::peers::Peer;
use crate::input::Now;
use crate::replica::{Replica, Storage};
use crate::state::logs::LogName;

/// The epoch of the log that stands for a removed region as a whole; no process draws it.
pub const MARKER: Epoch = Epoch(0);

/// What a removed region's logs are known to lack somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lack {
    /// Who lacks it.
    pub by: RegionId,
    /// Which log.
    pub log: LogName,
    /// Through which batch it is there.
    pub held: Seq,
    /// Through which batch it is held somewhere.
    pub end: Seq,
}

impl Replica {
    /// Goes by another roster: new regions become peers, removed ones are none any more.
    pub(crate) fn set_roster(&mut self, roster: Roster, now: Now) {
        if roster == self.options.roster {
            return;
        }
        let is_same = roster.digest() == self.options.roster.digest();
        self.options.roster = roster;
        if is_same {
            return;
        }
        let roster = &self.options.roster;
        let is_out =
            |region: &RegionId| !roster.present.contains(region) || roster.standing == Standing::Removed;
        let gone: Vec<RegionId> = self.peers.peers.keys().copied().filter(is_out).collect();
        for region in gone {
            self.void(region);
            if let Some(link) = self.peers.peers.get(&region).and_then(|peer| peer.link) {
                self.effects.push_back(Effect::Disconnect { peer: region, link });
                self.peer_down(region, link);
            }
            self.peers.peers.remove(&region);
        }
        if self.options.roster.standing != Standing::Removed {
            let own = self.options.region;
            for &region in self.options.roster.present.iter().filter(|&&region| region != own) {
                self.peers.peers.entry(region).or_default();
            }
        }
        // What members held before they knew may have grown by what the removed region sent them since (F9d, F31).
        if !is_planted(Mutant::AnswersOutliveMembership) {
            self.peers.void_answers();
        }
        self.stability.void_round();
        self.note_slowest_ack();
        self.replan();
        self.ask_whole();
        self.check_whole(now);
    }

    /// A region that is leaving, or has left, takes no new writes.
    pub(crate) fn check_standing(&self) -> Result<(), Reject> {
        match self.options.roster.standing {
            Standing::Member => Ok(()),
            Standing::Draining => Err(Reject::new(
                RejectCode::Draining,
                "this region is about to be removed and takes no new writes; reads go on. Write to another region",
            )),
            Standing::Removed => Err(Reject::new(
                RejectCode::Removed,
                "this region was removed from its cluster and takes no writes; what it holds grows old. \
                 Write to another region",
            )),
        }
    }

    /// Who logs for good what sessions of a home ask: the home, or after its removal whoever took its logs over.
    pub(crate) fn authority_of(&self, home: RegionId) -> RegionId {
        self.state.logs.resolve((home, MARKER), Seq::ZERO).map_or(home, |((region, _), _)| region)
    }

    /// This region, and the removed ones whose heir it is.
    pub(crate) fn homes(&self) -> Vec<RegionId> {
        let own = self.options.region;
        let inherited = self.options.roster.removed.iter().copied();
        std::iter::once(own)
            .chain(inherited.filter(|&home| home != own && self.authority_of(home) == own))
            .collect()
    }

    /// Removed regions whose logs nobody has taken over here yet.
    #[must_use]
    pub fn without_heir(&self) -> Vec<RegionId> {
        let removed = self.options.roster.removed.iter().copied();
        removed.filter(|&region| self.state.logs.sealed((region, MARKER)).is_none()).collect()
    }

    /// Whether a log is of a removed region and was not taken over with the others: nobody had it when they were, so
    /// nobody may come to have it.
    pub(crate) fn is_late(&self, name: LogName) -> bool {
        let logs = &self.state.logs;
        let is_closed = logs.sealed((name.0, MARKER)).is_some() || self.inheriting.contains(&name.0);
        is_closed && logs.sealed(name).is_none() && !is_planted(Mutant::RemovedBatchTaken)
    }

    /// Whether all that removed regions wrote was taken over here: before that, nothing is stable, because nobody waits
    /// for their acks (F32).
    pub(crate) fn are_removed_sealed(&self) -> bool {
        let stands = |name: LogName| self.options.roster.removed.contains(&name.0);
        self.without_heir().is_empty() && !self.state.logs.vector().iter().any(|(name, _)| stands(name))
    }

    /// Whether this region is to take over logs of removed ones.
    pub(crate) fn is_heir(&self) -> bool {
        self.options.roster.present.first() == Some(&self.options.region)
            && self.without_heir().iter().any(|region| !self.inheriting.contains(region))
    }

    /// Takes over the logs of removed regions once it holds all that any remaining member holds of them.
    pub(crate) fn inherit(&mut self, now: Now) {
        if !self.is_whole
            || !self.is_heir()
            || self.storage != Storage::Good
            || !self.waiting_for().is_empty()
        {
            return;
        }
        for removed in self.without_heir() {
            let is_theirs = |&(name, _): &(LogName, Seq)| name.0 == removed;
            let is_behind = |(name, received)| !self.state.logs.holds(name, received);
            let is_pending = self.intake.ends().filter(is_theirs).any(is_behind);
            let standing: Vec<(LogName, Seq)> = self.state.logs.vector().iter().filter(is_theirs).collect();
            let waits =
                |&(name, _): &(LogName, Seq)| self.state.garbage.waits_for(name, &self.state.logs).is_some();
            if self.inheriting.contains(&removed) || is_pending || standing.iter().any(waits) {
                continue;
            }
            self.inheriting.insert(removed);
            for ((region, epoch), end) in standing {
                self.writer.open().seal(Seal { region, epoch, end });
            }
            self.writer.open().seal(Seal { region: removed, epoch: MARKER, end: Seq::ZERO });
            let text = format!("this region takes over what removed region {removed} wrote");
            self.notice("inherited", text);
        }
        self.flush(now);
    }

    /// Who of the others lacks what of a region's logs, as far as it is known here: nobody, if it may go without loss.
    /// `heard` is what the region says of the log it writes.
    #[must_use]
    pub fn lacking(&self, region: RegionId, heard: Option<(Epoch, Seq)>) -> Vec<Lack> {
        let logs = &self.state.logs;
        let mut ends: std::collections::BTreeMap<LogName, Seq> = Default::default();
        ends.extend(heard.map(|(epoch, end)| ((region, epoch), end)));
        let peers = self.peers.peers.values().flat_map(|peer| peer.applied.iter());
        for (name, end) in logs.vector().iter().chain(peers).filter(|(name, _)| name.0 == region) {
            let known = ends.entry(name).or_insert(end);
            *known = end.max(*known);
        }
        let mut lacking = Vec::new();
        for (log, end) in ends {
            let here = (self.options.region, logs.held(log));
            let sealed = logs.sealed(log).is_some();
            let holds = |(&by, peer): (&RegionId, &Peer)| (by, peer.applied.get(log.0, log.1));
            let everyone = std::iter::once(here).chain(self.peers.peers.iter().map(holds));
            let lacks = everyone.filter(|&(by, held)| by != region && held < end && !sealed);
            lacking.extend(lacks.map(|(by, held)| Lack { by, log, held, end }));
        }
        lacking
    }

    /// Through which batch anyone but its writer is known to hold a log.
    #[must_use]
    pub fn held_by_others(&self, log: LogName) -> Seq {
        let others = self.peers.peers.iter().filter(|&(&region, _)| region != log.0);
        let heard = |peer: &Peer| {
            let answered = peer.answered.as_ref().map_or(Seq::ZERO, |answer| answer.get(log.0, log.1));
            answered.max(peer.applied.get(log.0, log.1))
        };
        let here = self.state.logs.held(log);
        others.map(|(_, peer)| heard(peer)).max().map_or(here, |most| most.max(here))
    }

    /// The roster that this shard goes by.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.options.roster
    }

    /// Whether nothing is staged or waits for its sync: all that was answered is durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.writer.is_idle()
    }
}
