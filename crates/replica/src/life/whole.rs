//! Becoming whole: a restarted region takes back all that any member may hold of its history, then takes its earlier
//! logs over (design.md §3.4, R8).
//!
//! The answers must be one consistent cut: each names the incarnations of all members, and whoever gives it takes no more
//! frames of others. Without that, two regions whose disks came back older at the same time may both believe that
//! nobody holds what a third has just received from one of them (F33, F34).

use tombolo_causality::{Epoch, LogId, RegionId, Seq, VersionVector};
use tombolo_codec::records::Seal;
use tombolo_codec::{PeerMessage, Position, Standing};
use tombolo_mutants::{Mutant, is_planted};

use crate::effect::Effect;
use crate::exchange::peers::Peer;
use crate::input::{Link, Now};
use crate::replica::{Replica, Storage};
use crate::state::logs::{LogName, log_id};

impl Replica {
    /// Members that have not answered, or that hold what is not applied here yet.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<RegionId> {
        let is_behind = |answer: &VersionVector| {
            let mut logs = answer.iter();
            logs.any(|(name, seq)| name != self.writer.name() && !self.state.logs.holds(name, seq))
        };
        let are_all_met = self.peers.epochs().is_some();
        let waits = |peer: &Peer| {
            peer.answered.as_ref().is_none_or(is_behind)
                || (are_all_met && !peer.counts)
                || peer.epoch.is_none()
        };
        let asked = if is_planted(Mutant::WholeAsksSome) { 1 } else { self.peers.peers.len() };
        let peers = self.peers.peers.iter().take(asked);
        peers.filter(|(_, peer)| waits(peer)).map(|(&region, _)| region).collect()
    }

    /// What members say they hold and is not applied here: who, which log, through where there, through where here.
    #[must_use]
    pub fn missing(&self) -> Vec<(RegionId, LogName, Seq, Seq)> {
        let mut missing = Vec::new();
        for (&region, peer) in &self.peers.peers {
            let answered = peer.answered.iter().flat_map(VersionVector::iter);
            let answered = answered.filter(|(name, _)| *name != self.writer.name());
            let lacking = answered.filter(|&(name, seq)| !self.state.logs.holds(name, seq));
            missing.extend(lacking.map(|(name, seq)| (region, name, seq, self.state.logs.held(name))));
        }
        missing
    }

    /// Whether it has caught up with all that any member held when the process started.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether every member has said what it holds, as of the incarnations in which all are now.
    #[must_use]
    pub fn has_heard_all(&self) -> bool {
        self.peers.peers.values().all(|peer| peer.counts)
    }

    /// Whether a member said that it holds a log through `seq`.
    #[must_use]
    pub fn is_held_elsewhere(&self, log: LogId, seq: Seq) -> bool {
        let says = |answer: &VersionVector| answer.get(log.region, log.epoch) >= seq;
        self.peers.peers.values().any(|peer| peer.answered.as_ref().is_some_and(says))
    }

    /// Whether a log's batches through `seq` are in this state, whether the log still stands or was taken over.
    #[must_use]
    pub fn holds(&self, log: LogId, seq: Seq) -> bool {
        self.state.logs.holds((log.region, log.epoch), seq)
    }

    /// Asks every connected peer what it holds, once all have been met; again when one is met in another incarnation,
    /// and while those that were asked do not go by the same roster yet.
    pub(crate) fn ask_whole(&mut self) {
        let is_asking = !self.is_whole || self.is_heir();
        let Some(epochs) = self.peers.epochs().filter(|_| is_asking) else { return };
        let is_due = |(_, peer): &(&RegionId, &Peer)| peer.is_answered && !peer.counts;
        let due: Vec<RegionId> = self.peers.peers.iter().filter(is_due).map(|(&region, _)| region).collect();
        for region in due {
            let (shard, roster, epochs) = (self.options.shard, self.options.roster.digest(), epochs.clone());
            self.send(region, PeerMessage::WholeAsk { shard, roster, epochs });
        }
    }

    /// Answers a peer that is not whole, and from then on takes nothing from incarnations that it knows to be over.
    pub(crate) fn whole_asked(
        &mut self,
        from: RegionId,
        link: Link,
        roster: u64,
        epochs: Vec<(RegionId, Epoch)>,
    ) {
        if self.peers.on(from, link).is_none() || roster != self.options.roster.digest() {
            return;
        }
        for &(region, epoch) in &epochs {
            let is_over =
                |peer: &Peer| peer.link.is_some() && peer.epoch != Some(epoch) && !peer.is_over(epoch);
            if let Some(over) =
                self.peers.peers.get(&region).filter(|peer| is_over(peer)).and_then(|peer| peer.link)
            {
                self.peer_down(region, over);
                self.effects.push_back(Effect::Disconnect { peer: region, link: over });
            }
        }
        let shard = self.options.shard;
        let at = |(name, seq)| Position { log: log_id(shard, name), seq };
        let mut received = self.received();
        // Seals that this region staged as the heir must not be missed by the next one.
        let (region, epoch) = self.writer.name();
        received.raise(region, epoch, self.writer.admitted());
        let received = received.iter().map(at).collect();
        self.send(from, PeerMessage::WholeAnswer { shard, roster, epochs, received });
    }

    pub(crate) fn whole_answered(
        &mut self,
        from: RegionId,
        link: Link,
        epochs: &[(RegionId, Epoch)],
        received: VersionVector,
        now: Now,
    ) {
        let is_present = self.peers.epochs().as_deref() == Some(epochs);
        let Some(peer) = self.peers.on(from, link).filter(|_| is_present) else { return };
        peer.answered = Some(received);
        peer.counts = true;
        self.check_whole(now);
    }

    /// Takes over its own earlier logs once it holds all that anyone may hold of them (design.md §3.4).
    pub(crate) fn check_whole(&mut self, now: Now) {
        if !self.is_started || self.options.roster.standing == Standing::Removed {
            return;
        }
        if self.is_whole {
            self.inherit(now);
            return;
        }
        if !self.waiting_for().is_empty() {
            return;
        }
        let own = self.writer.name();
        let is_earlier = |&(name, _): &(LogName, Seq)| name.0 == own.0 && name != own;
        // What is here but waits to be applied must not be cut off by a seal.
        let is_behind = |(name, received)| !self.state.logs.holds(name, received);
        if self.intake.ends().filter(is_earlier).any(is_behind) {
            return;
        }
        let earlier: Vec<(LogName, Seq)> = self.state.logs.vector().iter().filter(is_earlier).collect();
        // A seal waits for what the stability records of the sealed log wait for: it would be refused as soon as logged.
        if earlier.iter().any(|&(name, _)| self.state.garbage.waits_for(name, &self.state.logs).is_some()) {
            return;
        }
        if earlier.is_empty() {
            self.is_whole = true;
            self.effects.push_back(Effect::BecameWhole);
            self.absorb_all();
            self.inherit(now);
        } else if !self.is_sealing && self.storage == Storage::Good {
            self.is_sealing = true;
            for ((region, epoch), end) in earlier {
                self.writer.open().seal(Seal { region, epoch, end });
            }
            self.flush(now);
        }
    }
}
