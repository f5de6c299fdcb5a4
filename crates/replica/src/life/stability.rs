//! Garbage: this region floors its expired sessions, asks all members what they have applied, and logs what is stable
//! (design.md §3.4). What the records then do is in `state/garbage.rs`; no timer drops anything.

use std::collections::{BTreeMap, VecDeque};

use tombolo_causality::{LogId, RegionId, Seq};
use tombolo_codec::records::{Expire, Seal, Stable};
use tombolo_codec::{PeerMessage, Position};
use tombolo_mutants::{Mutant, is_planted};

use crate::input::{Link, Now};
use crate::replica::{Replica, Storage};
use crate::state::logs::log_id;

/// Floors and stability records come at most this many times a window.
const ROUNDS_PER_WINDOW: u64 = 16;

/// No floor is raised so soon after a start, in milliseconds.
const FLOORS_AFTER_MS: u64 = 60_000;

/// A question to all members.
#[derive(Debug)]
struct Round {
    through: Seq,
    answers: BTreeMap<RegionId, Seal>,
}

/// What this region knows about the age of its own log, and whom it has asked.
#[derive(Debug, Default)]
pub(crate) struct Stability {
    /// Ends of the own log, and when they stood there, in monotonic milliseconds: no step of the wall clock makes a
    /// batch older than it is.
    ends: VecDeque<(Seq, u64)>,
    /// Through which batch all of it has left the window.
    forgettable: Seq,
    round: Option<Round>,
    stated: Seq,
    floored_at_ms: u64,
}

impl Stability {
    /// Regions joined or were removed: all are asked anew.
    pub(crate) fn void_round(&mut self) {
        self.round = None;
    }

    /// A member restarted: it may have lost what it answered.
    pub(crate) fn void(&mut self, region: RegionId) {
        if let Some(round) = &mut self.round {
            round.answers.remove(&region);
        }
    }

    /// Notes the own log's end, and how much of it has left the window.
    fn note(&mut self, end: Seq, now_ms: u64, age_ms: u64, step_ms: u64) {
        let is_due = self.ends.back().is_none_or(|&(last, at)| end > last && now_ms >= at + step_ms);
        if is_due && end > Seq::ZERO {
            self.ends.push_back((end, now_ms));
        }
        while let Some(&(end, _)) = self.ends.front().filter(|&&(_, at)| at + age_ms < now_ms) {
            self.forgettable = end;
            self.ends.pop_front();
        }
    }
}

impl Replica {
    pub(crate) fn tick(&mut self, now: Now) {
        self.absorb_all();
        self.ask_whole();
        self.check_whole(now);
        let step_ms = self.options.window_ms / ROUNDS_PER_WINDOW;
        let own = self.state.logs.end(self.writer.name());
        self.stability.note(own, now.monotonic_ms, self.options.forgettable_after_ms(), step_ms);
        // A clock that runs ahead would take what others still accept for forgettable.
        if !self.is_whole || self.is_clock_ahead || self.storage != Storage::Good {
            return;
        }
        self.floor_expired(step_ms, now);
        self.begin_round();
        self.ask_members();
        self.state_stable();
    }

    /// Raises the floor under sessions of this region that every clock in the bound holds for expired.
    fn floor_expired(&mut self, step_ms: u64, now: Now) {
        // A wall clock that has stepped ahead since the start would expire what is young.
        let up_ms = now.monotonic_ms.saturating_sub(self.started_ms);
        let steady = now.wall.min(self.started_wall.plus_ms(up_ms));
        let before = steady.minus_ms(self.options.forgettable_after_ms());
        // A clock that was wrong from the start is told by peers in that time.
        let is_due = now.monotonic_ms >= self.stability.floored_at_ms + step_ms;
        if !is_due || up_ms < FLOORS_AFTER_MS.min(self.options.window_ms) {
            return;
        }
        self.stability.floored_at_ms = now.monotonic_ms;
        for home in self.homes() {
            let is_any = before > self.state.garbage.floor(home)
                && (self.state.sessions.has_any_before(home, before)
                    || self.state.cells.conditionals.of_home(home).iter().any(|(id, _)| id.opened < before));
            if is_any {
                self.writer.open().expire(Expire { home, before });
            }
        }
    }

    fn begin_round(&mut self) {
        let (own, through) = (self.writer.name(), self.stability.forgettable);
        let has_garbage = self.state.cells.tombstones_count() > 0 || self.state.garbage.has_floors_of(own);
        if self.stability.round.is_none()
            && through > self.stability.stated
            && has_garbage
            && !self.state.garbage.has_stables_of(own)
            && (self.are_removed_sealed() || is_planted(Mutant::StableBeforeInherited))
        {
            self.stability.round = Some(Round { through, answers: BTreeMap::new() });
        }
    }

    /// Asks those that have not answered; they answer once they have applied it, so they are asked again.
    fn ask_members(&mut self) {
        let Some(round) = &self.stability.round else { return };
        let roster = self.options.roster.digest();
        let message = PeerMessage::StableAsk { roster, log: self.writer.log(), through: round.through };
        let silent = self.peers.peers.keys().copied().filter(|region| !round.answers.contains_key(region));
        for region in silent.collect::<Vec<_>>() {
            self.send(region, message.clone());
        }
    }

    /// Answers a peer that asks, if this region is whole and has applied that much.
    pub(crate) fn stable_asked(
        &mut self,
        from: RegionId,
        link: Link,
        roster: u64,
        (log, through): (LogId, Seq),
    ) {
        if roster != self.options.roster.digest() {
            return;
        }
        let is_applied = self.state.logs.holds((log.region, log.epoch), through);
        if self.peers.on(from, link).is_none() || log.region != from || !self.is_whole || !is_applied {
            return;
        }
        // What is staged may hold copies that were admitted just before they left the window.
        let own = Position { log: self.writer.log(), seq: self.writer.admitted() };
        self.send(from, PeerMessage::StableAnswer { roster, log, through, own });
    }

    pub(crate) fn stable_answered(
        &mut self,
        from: RegionId,
        link: Link,
        (log, through): (LogId, Seq),
        own: Position,
    ) {
        let Some(peer) = self.peers.on(from, link) else { return };
        let is_present = own.log.region == from && peer.epoch == Some(own.log.epoch);
        let is_asked = log == log_id(self.options.shard, self.writer.name());
        if let Some(round) = &mut self.stability.round
            && is_present
            && is_asked
            && round.through == through
        {
            let seal = Seal { region: own.log.region, epoch: own.log.epoch, end: own.seq };
            round.answers.insert(from, seal);
            self.state_stable();
        }
    }

    /// Logs the round's outcome once every member has answered, all that they had is applied here, and no conditional
    /// of a session that is to be forgotten waits.
    fn state_stable(&mut self) {
        let Some(round) = &self.stability.round else { return };
        let holds = |seal: &Seal| self.state.logs.holds((seal.region, seal.epoch), seal.end);
        let is_complete = self.peers.peers.keys().all(|region| round.answers.get(region).is_some_and(holds));
        let is_complete = is_complete || is_planted(Mutant::StableBeforeAnswers);
        if !is_complete || !self.is_whole || self.storage != Storage::Good {
            return;
        }
        let floors = self.state.garbage.floors_through(self.writer.name(), round.through);
        let waits = floors.into_iter().any(|(home, before)| {
            self.state.cells.conditionals.of_home(home).iter().any(|(id, _)| id.opened < before)
        });
        if waits {
            return;
        }
        let stable = Stable { through: round.through, members: round.answers.values().copied().collect() };
        self.stability.stated = round.through;
        self.stability.round = None;
        self.writer.open().stable(stable);
    }
}
