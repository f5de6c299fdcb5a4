//! What is said to peers and heard from them: hellos, subscriptions, batches, acks. Which log comes from whom is
//! decided in `exchange/peers.rs`.

pub(crate) mod applying;
pub(crate) mod held;
pub(crate) mod intake;
pub(crate) mod links;
pub(crate) mod peers;
pub(crate) mod progress;

use tombolo_causality::{Epoch, RegionId, Seq, VersionVector};
use tombolo_codec::{Batch, PeerMessage, Position};
use tombolo_mutants::{Mutant, is_planted};

use crate::effect::Effect;
use crate::exchange::held::Held;
use crate::exchange::intake::{Blocked, Receipt};
use crate::exchange::peers::{Cursor, LOAD_BYTES};
use crate::heal::questions::Came;
use crate::input::{Link, Now};
use crate::replica::Replica;
use crate::state::logs::{LogName, log_id};

impl Replica {
    pub(crate) fn peer_up(&mut self, region: RegionId, epoch: Epoch, link: Link) {
        let Some(peer) = self.peers.peers.get_mut(&region) else { return };
        if peer.is_over(epoch) {
            self.effects.push_back(Effect::Disconnect { peer: region, link });
            let text = format!(
                "region {region} speaks as an incarnation that another has followed: two processes of it run"
            );
            self.notice("superseded", text);
            return;
        }
        peer.link = Some(link);
        peer.is_answered = false;
        peer.held = Held::default();
        peer.evicted.clear();
        peer.sending.clear();
        if peer.epoch != Some(epoch) {
            if let Some(earlier) = peer.epoch {
                peer.over.insert(earlier);
            }
            // Its earlier epoch's acks are void: it may have lost what it acknowledged.
            peer.epoch = Some(epoch);
            if !is_planted(Mutant::AckOfOldEpochCounts) {
                peer.applied = VersionVector::new();
            }
            self.void(region);
            self.stability.void(region);
            self.peers.void_answers();
        }
        self.peers.forget_source(region);
        self.end_fetch_from(region);
        self.end_verifying_with(region);
        self.end_cuts_of(region);
        self.replan();
        self.tell_held_anew(region);
        let effect = Effect::Describe {
            peer: region,
            link,
            received: self.received(),
            applied: self.state.logs.vector().clone(),
        };
        self.effects.push_back(effect);
    }

    /// All this shard holds or may come to hold: what a restarted region must take back before it is whole.
    pub(crate) fn received(&self) -> VersionVector {
        let mut received = self.state.logs.vector().clone();
        for ((region, epoch), seq) in self.intake.ends() {
            received.raise(region, epoch, seq);
        }
        for ((region, epoch), seq) in self.installing() {
            received.raise(region, epoch, seq);
        }
        let (region, epoch) = self.writer.name();
        received.raise(region, epoch, self.writer.staged());
        received
    }

    pub(crate) fn peer_answer(
        &mut self,
        region: RegionId,
        link: Link,
        received: VersionVector,
        applied: VersionVector,
        now: Now,
    ) {
        let Some(peer) = self.peers.on(region, link) else { return };
        peer.answered = Some(received);
        peer.is_answered = true;
        // Acks of this epoch may have come before: they hold as well.
        peer.applied.join(&applied);
        self.note_join_mark(region, &applied);
        self.replan();
        self.wake_all_barriers(region);
        self.ask_whole();
        self.check_whole(now);
    }

    pub(crate) fn peer_down(&mut self, region: RegionId, link: Link) {
        let Some(peer) = self.peers.on(region, link) else { return };
        peer.link = None;
        peer.is_answered = false;
        peer.sending.clear();
        self.peers.forget_source(region);
        self.end_fetch_from(region);
        self.end_verifying_with(region);
        if !is_planted(Mutant::CutOutlivesLink) {
            self.end_cuts_of(region);
        }
        self.replan();
    }

    /// What a peer says about cuts: its own, that it reads here, or one of its, that is read from here.
    pub(crate) fn cut_said(&mut self, peer: (RegionId, Link), message: PeerMessage, now: Now) {
        let (from, link) = peer;
        let is_to_verify = self.is_verifying_with(from, link);
        match message {
            PeerMessage::CutAsk { sealed, digest_bytes, .. } => {
                self.cut_asked(peer, &sealed, digest_bytes, now)
            }
            PeerMessage::EntriesAsk { cut, section, leaves, .. } => {
                self.entries_asked(peer, cut, section, &leaves, now);
            }
            PeerMessage::CutDone { cut, .. } => self.cut_done(from, link, cut),
            PeerMessage::Cut { cut, head, sums, .. } if is_to_verify => self.cut_to_verify(cut, head, sums),
            PeerMessage::CutRefused { .. } if is_to_verify => self.cut_to_verify_refused(),
            PeerMessage::Entries { cut, section, entries, unknown, rest, sent, .. } if is_to_verify => {
                self.entries_to_verify(Came { cut, section, entries, unknown, rest, sent });
            }
            PeerMessage::Cut { cut, head, sums, .. } => self.cut_opened(peer, cut, head, sums, now),
            PeerMessage::CutRefused { .. } => self.cut_refused(from, link, now),
            PeerMessage::Entries { cut, section, entries, unknown, rest, sent, .. } => {
                self.entries_came(peer, Came { cut, section, entries, unknown, rest, sent }, now);
            }
            other => unreachable!("not about cuts: {other:?}"),
        }
    }

    /// Asks for each log where it should come from, and stops asking elsewhere.
    pub(crate) fn replan(&mut self) {
        let own = self.writer.name();
        let blocked: Vec<(LogName, Blocked)> =
            self.intake.blocked().map(|(name, blocked)| (name, blocked.clone())).collect();
        let halted: Vec<LogName> = self.intake.halted().map(|(name, _)| name).collect();
        let plan = self.peers.plan(own, &blocked, |name| {
            let is_wanted = self.state.logs.sealed(name).is_none()
                && !halted.contains(&name)
                && !self.is_jumping(name)
                && !self.is_late(name);
            is_wanted.then(|| self.intake.received(name, &self.state.logs))
        });
        for (&name, &region) in &plan {
            let present = self.peers.sources.get(&name).copied();
            if present == Some(region) {
                continue;
            }
            if let Some(present) = present {
                self.send(present, PeerMessage::Unsubscribe { log: log_id(self.options.shard, name) });
            }
            let from = self.intake.received(name, &self.state.logs).next();
            self.ask(region, name, from);
        }
        self.peers.sources = plan;
    }

    /// Asks for what was dropped for want of room, once there is room; a source that comes later is asked by the plan.
    pub(crate) fn ask_again(&mut self, name: LogName) {
        if self.intake.take_drained(name) {
            self.ask_source(name);
        }
    }

    /// Asks a log's present source for what comes next here.
    pub(crate) fn ask_source(&mut self, name: LogName) {
        if let Some(&source) = self.peers.sources.get(&name) {
            self.ask(source, name, self.intake.received(name, &self.state.logs).next());
        }
    }

    pub(crate) fn ask(&mut self, region: RegionId, name: LogName, from: Seq) {
        self.peers.asked.insert(name, (region, from));
        self.send(region, PeerMessage::Subscribe { log: log_id(self.options.shard, name), from });
    }

    pub(crate) fn send(&mut self, peer: RegionId, message: PeerMessage) {
        if let Some(link) = self.peers.peers.get(&peer).and_then(|peer| peer.link) {
            self.effects.push_back(Effect::Send { peer, link, message });
        }
    }

    pub(crate) fn remote(&mut self, from: RegionId, link: Link, batch: Batch) {
        if self.peers.on(from, link).is_none() {
            return;
        }
        let header = batch.header();
        let name = (header.log.region, header.log.epoch);
        if header.log.shard != self.options.shard || name == self.writer.name() {
            self.notice("misplaced", format!("region {from} sent batch {} of {:?}", header.seq, header.log));
            return;
        }
        let roster = &self.options.roster;
        if !roster.present.contains(&name.0) && !roster.removed.contains(&name.0) {
            self.notice(
                "foreign_log",
                format!("region {from} sent a log of region {}, not a member", name.0),
            );
            return;
        }
        // A removed region's log comes from members that had it before, and only until it was taken over (R10).
        let is_unwanted = self.is_jumping(name) || self.is_late(name);
        if is_unwanted || self.intake.is_dropped(name, header.seq) {
            return;
        }
        let unheld = batch.seals().find(|seal| {
            let sealed = (seal.region, seal.epoch);
            !self.state.logs.holds(sealed, seal.end)
        });
        if let Some(seal) = unheld.filter(|_| !is_planted(Mutant::SealAppliedEarly)) {
            let blocked = Blocked { on: (seal.region, seal.epoch), end: seal.end, at: header.seq };
            if self.intake.hold_back(name, blocked, &self.state.logs) {
                self.replan();
                return;
            }
        }
        match self.intake.receive(&batch, &self.state.logs) {
            Receipt::Next => self.effects.push_back(Effect::Append(batch)),
            Receipt::Duplicate | Receipt::Refused => {}
            // A source that skips is asked again from the first that is missing, once: what is still on its way skips too.
            Receipt::Gap { expected } => {
                let is_source = self.peers.sources.get(&name) == Some(&from);
                if is_source && self.peers.asked.get(&name) != Some(&(from, expected)) {
                    self.ask(from, name, expected);
                }
            }
            Receipt::Fork(why) => {
                self.notice(
                    "fork",
                    format!("{why}; the log is halted, its writer's disk was copied or altered"),
                );
                self.tell_held();
                self.replan();
            }
        }
    }

    pub(crate) fn subscribe(&mut self, from: RegionId, link: Link, name: LogName, seq: Seq) {
        if let Some(peer) = self.peers.on(from, link) {
            // An ack may overtake the question: another source went on delivering meanwhile.
            let applied = peer.applied.get(name.0, name.1);
            peer.sending.insert(name, Cursor::at(seq.max(applied.next())));
            self.serve(from, name);
        }
    }

    /// Sends a peer what it wants of a log, as far as its window goes.
    pub(crate) fn serve(&mut self, region: RegionId, name: LogName) {
        let end = self.state.logs.held(name);
        let own = self.writer.name();
        let (shard, window_bytes) = (self.options.shard, self.options.peer_limits.window_bytes);
        let Some(peer) = self.peers.peers.get_mut(&region) else { return };
        let (Some(link), Some(cursor)) = (peer.link, peer.sending.get_mut(&name)) else { return };
        while cursor.next <= end && cursor.has_room(window_bytes) && cursor.loading.is_none() {
            let recent = if name == own { self.writer.recent(cursor.next) } else { None };
            match recent {
                Some(batch) => {
                    cursor.sent(cursor.next, batch.bytes().len());
                    self.effects.push_back(Effect::Ship { peer: region, link, batch: batch.clone() });
                }
                None => {
                    let log = log_id(shard, name);
                    let from = cursor.next;
                    cursor.loading = Some(from);
                    let bytes_max = LOAD_BYTES.min(window_bytes);
                    self.effects.push_back(Effect::Load { peer: region, link, log, from, bytes_max });
                }
            }
        }
    }

    pub(crate) fn loaded(&mut self, region: RegionId, link: Link, name: LogName, batches: &[Batch]) {
        let end = self.state.logs.held(name);
        let Some(peer) = self.peers.on(region, link) else { return };
        let Some(cursor) = peer.sending.get_mut(&name) else { return };
        let Some(from) = cursor.loading else { return };
        if !batches.is_empty() && !batches.iter().any(|batch| batch.header().seq == from) {
            // Read for an earlier subscription of the same peer; what was asked for this one is still to come.
            return;
        }
        cursor.loading = None;
        for batch in batches {
            let seq = batch.header().seq;
            // The files may hold more than was applied here; that is not offered yet.
            if seq == cursor.next && seq <= end {
                cursor.sent(seq, batch.bytes().len());
                self.effects.push_back(Effect::Ship { peer: region, link, batch: batch.clone() });
            }
        }
        // An ack may have moved the cursor on while the files were read: then it asks for what it stands at.
        if cursor.next == from {
            peer.sending.remove(&name);
            peer.evicted.insert(name);
            let log = log_id(self.options.shard, name);
            self.send(region, PeerMessage::NotRetained { log, from });
            return;
        }
        self.serve(region, name);
    }

    pub(crate) fn acked(&mut self, from: RegionId, link: Link, positions: &[Position], now: Now) {
        let own = self.writer.name();
        let mut is_ahead = false;
        let mut to_serve = Vec::new();
        let mut grown = Vec::with_capacity(positions.len());
        {
            let Some(peer) = self.peers.on(from, link) else { return };
            for position in positions {
                let name = (position.log.region, position.log.epoch);
                grown.push((name, peer.applied.get(name.0, name.1), position.seq));
                peer.applied.raise(name.0, name.1, position.seq);
                peer.evicted.remove(&name);
                if name == own {
                    peer.grown_ms = now.monotonic_ms;
                }
                if let Some(cursor) = peer.sending.get_mut(&name) {
                    cursor.acked(position.seq);
                    to_serve.push(name);
                }
            }
        }
        for name in to_serve {
            self.serve(from, name);
        }
        for position in positions {
            let name = (position.log.region, position.log.epoch);
            let received = self.intake.received(name, &self.state.logs);
            is_ahead |= name != own
                && position.seq > received
                && self.state.logs.sealed(name).is_none()
                && !self.peers.is_coming(name, received);
        }
        // What a log waits for is held by whoever applied its seal: this ack may be the one that tells.
        if is_ahead || self.intake.blocked().next().is_some() {
            self.replan();
        }
        self.note_slowest_ack();
        for (name, before, through) in grown {
            self.wake_barriers(from, name, before, through);
        }
        self.go_on_verifying();
    }

    /// What every peer has applied of this region's log need not be kept at hand, nor its age known.
    pub(crate) fn note_slowest_ack(&mut self) {
        let (region, epoch) = self.writer.name();
        let slowest = self.peers.peers.values().map(|peer| peer.applied.get(region, epoch)).min();
        if let Some(slowest) = slowest {
            self.progress.acked(slowest);
            self.writer.acked(slowest);
        }
    }

    pub(crate) fn pause(&mut self, region: RegionId, is_paused: bool, now: Now) {
        let Some(peer) = self.peers.peers.get_mut(&region) else { return };
        peer.is_paused = is_paused;
        self.tell_held();
        if !is_paused {
            for name in self.intake.of_region(region) {
                self.apply_ready(name, now);
            }
        }
    }
}
