//! One shard in one region: a state machine. Inputs go in, effects come out; it waits for nothing and touches nothing.
//!
//! Order of steps, never another: staged → durable → applied → offered → woken (design.md §3.1).

use std::collections::VecDeque;

use tombolo_causality::{HybridClock, RegionId, Seq, Time, VersionVector};
use tombolo_codec::records::{Seal, SessionOp, Write as WriteRecord};
use tombolo_codec::{
    Batch, CellName, Checkpoint, Kind, PeerMessage, Position, Reject, RejectCode, SessionPart,
};

use crate::admission::{Admission, Step, is_large};
use crate::barrier::{Reader, Waiter, Waiters};
use crate::effect::{Answer, Effect, Notice, Outcome};
use crate::input::{Durability, Input, Link, Now, Options, Ticket, WritePart};
use crate::intake::{Blocked, Intake, Receipt};
use crate::logs::{LogName, log_id};
use crate::peers::{Cursor, LOAD_BYTES, Peers};
use crate::progress::Progress;
use crate::sessions::Known;
use crate::state::{ApplyError, State};
use crate::writer::{Pending, Writer};

/// What keeps this region's own log from being written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Storage {
    Good,
    Full,
    Failed(String),
}

/// The state machine of one shard.
///
/// Feed it with [`Replica::handle`], let it close a batch with [`Replica::flush`] when no more inputs wait, and run
/// what [`Replica::poll_effect`] gives, in order, after each.
pub struct Replica {
    pub(crate) options: Options,
    pub(crate) state: State,
    pub(crate) writer: Writer,
    pub(crate) intake: Intake,
    pub(crate) peers: Peers,
    waiters: Waiters,
    clock: HybridClock,
    pub(crate) progress: Progress,
    storage: Storage,
    is_clock_ahead: bool,
    pub(crate) is_whole: bool,
    is_started: bool,
    is_sealing: bool,
    effects: VecDeque<Effect>,
}

impl Replica {
    /// A shard that starts from a checkpoint, or from nothing. Give it what its logs hold with [`Replica::replay`].
    #[must_use]
    pub fn open(options: Options, checkpoint: Option<&Checkpoint>) -> Self {
        let state = checkpoint.map(State::restore).unwrap_or_default();
        let own = (options.region, options.epoch);
        let clock_floor = checkpoint.map_or(Time::ZERO, |checkpoint| checkpoint.clock);
        let clock_floor = clock_floor.max(state.logs.clock_of(options.region));
        Self {
            writer: Writer::new(options.cluster, options.shard, own),
            intake: Intake::default(),
            peers: Peers::new(&options.members, options.region),
            waiters: Waiters::default(),
            clock: HybridClock::restored(options.drift_ms_max, clock_floor),
            progress: Progress::default(),
            storage: Storage::Good,
            is_clock_ahead: false,
            is_whole: false,
            is_started: false,
            is_sealing: false,
            effects: VecDeque::new(),
            state,
            options,
        }
    }

    /// Takes a batch found durable in a log on disk. Logs in any order, each log in its own.
    ///
    /// Errors: a text if the batch contradicts the state (a log that forks, or has a gap); the log is halted.
    pub fn replay(&mut self, batch: &Batch) -> Result<(), String> {
        let header = batch.header();
        let name = (header.log.region, header.log.epoch);
        if header.seq <= self.state.logs.held(name) {
            return Ok(());
        }
        match self.intake.receive(batch, &self.state.logs) {
            Receipt::Next => {}
            Receipt::Duplicate => return Ok(()),
            Receipt::Gap { expected } => {
                return Err(format!("{name:?}: batch {} found where {expected} is missing", header.seq));
            }
            Receipt::Fork(why) => return Err(why),
            Receipt::Refused => return Err(format!("{name:?} was taken over or is halted")),
        }
        if name.0 == self.options.region {
            let last = self.clock.last().max(header.clock);
            self.clock = HybridClock::restored(self.options.drift_ms_max, last);
        }
        self.intake.set_durable(name, header.seq);
        self.apply_ready(name, Now::default());
        // Nobody is connected yet: what replaying would tell peers or callers, hellos and reads will.
        self.effects.retain(|effect| matches!(effect, Effect::Notice(_)));
        Ok(())
    }

    /// Begins the life of this epoch, after replay. A region without peers is whole at once.
    pub fn start(&mut self, now: Now) {
        self.is_started = true;
        self.check_whole(now);
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether more writes may be handed over; if not, hold them back until batches are durable.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.writer.has_room()
    }

    /// Closes the open batch, if nothing is being synced or enough has gathered.
    pub fn flush(&mut self, now: Now) {
        if self.storage != Storage::Good {
            return;
        }
        let clock = if self.writer.is_idle() { self.clock.last() } else { self.clock.tick(now.wall) };
        if let Some(batch) = self.writer.close(clock, false) {
            self.effects.push_back(Effect::Append(batch));
        }
    }

    /// Handles one input; effects are added to those that wait.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Check { ticket, part } => {
                let result = self.check_only(&part, now);
                self.answer(ticket, Answer::Checked(result.map(|()| part)));
            }
            Input::Write { ticket, part } => self.write(ticket, &part, now),
            Input::Read { ticket, tenant, keys, after } => {
                let reader = Reader { tenant, keys, after };
                self.waiters.readers.insert(ticket, reader);
                self.wake_readers(now);
            }
            Input::Await { ticket, positions } => self.wait(ticket, positions),
            Input::Cancel { ticket } => self.waiters.cancel(ticket),
            Input::Staged { log, through } => self.staged(log, through),
            Input::Durable { log, through } => self.durable((log.region, log.epoch), through, now),
            Input::StorageFailed { log, text } => self.storage_failed((log.region, log.epoch), &text),
            Input::StorageFull { is_full } => self.storage_full(is_full, now),
            Input::PeerUp { peer, epoch, link } => self.peer_up(peer, epoch, link),
            Input::PeerAnswer { peer, link, received, applied } => {
                self.peer_answer(peer, link, received, applied, now);
            }
            Input::PeerDown { peer, link } => self.peer_down(peer, link),
            Input::Remote { from, link, batch } => self.remote(from, link, batch),
            Input::Subscribe { from, link, log, seq } => {
                self.subscribe(from, link, (log.region, log.epoch), seq)
            }
            Input::Unsubscribe { from, link, log } => {
                if let Some(peer) = self.peers.on(from, link) {
                    peer.sending.remove(&(log.region, log.epoch));
                }
            }
            Input::Acked { from, link, positions } => self.acked(from, link, &positions),
            Input::Loaded { peer, link, log, batches } => {
                self.loaded(peer, link, (log.region, log.epoch), &batches);
            }
            Input::PauseApply { peer, is_paused } => self.pause(peer, is_paused, now),
            Input::ClockAhead { is_ahead } => self.is_clock_ahead = is_ahead,
        }
    }

    /// State, vector, sessions and clock in one piece, at exactly the applied vector (W9).
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.state.dump(self.clock.last())
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.effects.push_back(Effect::Answer { ticket, answer });
    }

    fn notice(&mut self, code: &'static str, text: String) {
        self.effects.push_back(Effect::Notice(Notice { code, text }));
    }

    // ---- writes -------------------------------------------------------------------------------------------------

    fn check_failed(&self) -> Result<(), Reject> {
        match &self.storage {
            Storage::Failed(_) => self.check_storage(),
            Storage::Good | Storage::Full => Ok(()),
        }
    }

    fn check_storage(&self) -> Result<(), Reject> {
        match &self.storage {
            Storage::Good => Ok(()),
            Storage::Full => Err(Reject::new(
                RejectCode::StorageFull,
                "the disk of this region is full; reads go on, and writes resume by themselves once there is room",
            )
            .retry_after_ms(1_000)),
            Storage::Failed(text) => Err(Reject::new(
                RejectCode::StorageFailed,
                format!("this region's log cannot be written any more: {text}; restart the daemon once it is mended"),
            )),
        }
    }

    /// Whether this region may log ops of a session now, and what is known of the number.
    fn check_session(&self, session: &SessionPart) -> Result<Known, Reject> {
        let id = &session.id;
        if id.home != self.options.region {
            return Err(Reject::new(
                RejectCode::NotAuthority,
                format!("region {} is the home of this session; send it there", id.home),
            ));
        }
        let known = match self.state.sessions.known(id, session.number) {
            Known::New => match self.writer.staged_number(*id, session.number) {
                Some((digest, _)) => Known::Logged(digest),
                None => Known::New,
            },
            known => known,
        };
        match known {
            Known::Settled => Err(Reject::new(
                RejectCode::Stale,
                format!("number {} lies below the session's settled mark", session.number),
            )),
            Known::Logged(digest) if digest != session.digest => Err(Reject::new(
                RejectCode::Conflict,
                format!("number {} was used before, with other ops", session.number),
            )),
            Known::Logged(_) => Ok(known),
            Known::New if id.epoch != self.options.epoch && !self.is_whole => Err(Self::not_whole()),
            Known::New if self.is_session_full(session) => Err(Reject::new(
                RejectCode::SessionFull,
                "too many numbers above the settled mark; raise `settled` first",
            )
            .retry_after_ms(10)),
            Known::New => Ok(known),
        }
    }

    fn is_session_full(&self, session: &SessionPart) -> bool {
        // The mark that the request itself records counts: it is what makes room.
        let settled =
            if session.id.epoch == self.options.epoch { session.settled.min(session.number) } else { 0 };
        let numbers_max = self.options.session_numbers_max;
        self.state.sessions.is_full(&session.id, session.number, settled, numbers_max)
    }

    /// An earlier attempt may have been logged by an earlier incarnation: it is not known that nothing was applied.
    fn not_whole() -> Reject {
        let text = "this region restarted and has not yet heard from every other whether it knows this op; \
                    send it again under the same number";
        Reject::new(RejectCode::NotWhole, text).unknown().retry_after_ms(100)
    }

    fn admission<'a>(
        state: &'a State,
        writer: &'a Writer,
        options: &'a Options,
        clock: &'a mut HybridClock,
        flags: (bool, bool),
        now: Now,
    ) -> Admission<'a> {
        let (is_clock_ahead, far_future_after) = flags;
        Admission { options, state, writer, clock, wall: now.wall, is_clock_ahead, far_future_after }
    }

    fn admit(&mut self, part: &WritePart, now: Now) -> Result<Vec<crate::admission::Admitted>, Reject> {
        let far_future_after = self.clock.check(part.after, now.wall).is_err();
        if far_future_after {
            let text = "a token's stamp lies beyond the drift bound and was ignored".to_owned();
            self.notice("token_ahead", text);
        }
        let flags = (self.is_clock_ahead, far_future_after);
        Self::admission(&self.state, &self.writer, &self.options, &mut self.clock, flags, now).admit(part)
    }

    fn check_only(&mut self, part: &WritePart, now: Now) -> Result<(), Reject> {
        if let Some(session) = &part.session
            && let Known::Logged(_) = self.check_session(session)?
        {
            return self.replay_answer(part, session).map(|_| ());
        }
        self.check_storage()?;
        self.admit(part, now).map(|_| ())
    }

    fn write(&mut self, ticket: Ticket, part: &WritePart, now: Now) {
        match self.try_write(part, now) {
            Ok((seq, outcome)) => self.answer_at(seq, ticket, outcome),
            Err(reject) => self.answer(ticket, Answer::Written(Err(reject))),
        }
    }

    /// Answers with the batch that holds the ops, or at once if that is applied already.
    fn answer_at(&mut self, seq: Seq, ticket: Ticket, outcome: Outcome) {
        if seq <= self.writer.durable() {
            self.answer(ticket, Answer::Written(Ok(outcome)));
        } else {
            self.writer.answer_with(seq, Pending { ticket, outcome });
        }
    }

    fn try_write(&mut self, part: &WritePart, now: Now) -> Result<(Seq, Outcome), Reject> {
        let own = self.writer.log();
        if let Some(session) = &part.session
            && let Known::Logged(_) = self.check_session(session)?
        {
            return self.replay_answer(part, session);
        }
        self.check_storage()?;
        let admitted = self.admit(part, now)?;
        let seq = self.writer.next();
        let mut outcome = Outcome {
            position: None,
            replayed: false,
            stamps: Vec::with_capacity(admitted.len()),
            values: Vec::with_capacity(admitted.len()),
        };
        for (op, admitted) in part.ops.iter().zip(&admitted) {
            for step in &admitted.steps {
                self.stage(part, &op.key, step);
            }
            outcome.stamps.push(admitted.stamp);
            outcome.values.push(admitted.value);
        }
        if let Some(session) = &part.session {
            let op = SessionOp { session: session.id, number: session.number, digest: session.digest };
            self.writer.open().op(op);
            self.writer.note_number(session.id, session.number, session.digest);
            // A later epoch must not move marks: it may not know what its predecessor answered (F9c).
            if session.id.epoch == self.options.epoch && session.settled > 0 {
                let settled = session.settled.min(session.number);
                self.writer.open().mark(session.id, settled);
            }
        }
        if self.writer.open().is_empty() {
            // Nothing to log: a delete of what is not there.
            let end = self.state.logs.end(self.writer.name());
            outcome.position = (end > Seq::ZERO).then_some(Position { log: own, seq: end });
            return Ok((end.min(self.writer.durable()), outcome));
        }
        outcome.position = Some(Position { log: own, seq });
        Ok((seq, outcome))
    }

    /// The answer to a number that was logged before: the end of the log that holds it is at or after the op, so a
    /// barrier on it stays sound (F21).
    fn replay_answer(&self, part: &WritePart, session: &SessionPart) -> Result<(Seq, Outcome), Reject> {
        let count = part.ops.len();
        let answer = |name, seq| {
            let position = Some(Position { log: log_id(self.options.shard, name), seq });
            Outcome { position, replayed: true, stamps: vec![None; count], values: vec![None; count] }
        };
        if let Some((_, seq)) = self.writer.staged_number(session.id, session.number) {
            // What was handed to a disk that then failed is never answered by it.
            self.check_failed().map_err(Reject::unknown)?;
            return Ok((seq, answer(self.writer.name(), seq)));
        }
        // A session's ops lie in the log of its epoch, or in one that took that over before it logged more of them.
        let opened = (session.id.home, session.id.epoch);
        let (name, _) = self.state.logs.resolve(opened, Seq::ZERO).expect("no log ends before its start");
        let end = self.state.logs.end(name);
        match end {
            // Its epoch left no log, so nothing tells which later one holds the op until this one has sealed them all.
            Seq::ZERO if self.is_whole => {
                let own = self.writer.name();
                Ok((Seq::ZERO, answer(own, self.state.logs.end(own))))
            }
            Seq::ZERO => Err(Self::not_whole()),
            end => Ok((Seq::ZERO, answer(name, end))),
        }
    }

    fn stage(&mut self, part: &WritePart, key: &[u8], step: &Step) {
        let tenant = part.tenant;
        match step {
            Step::Add { generation, delta } => {
                let cell = CellName { tenant, kind: Kind::Counter, key };
                self.writer.open().add(cell, *generation, *delta);
                if is_large(*delta) {
                    self.writer.note_large_add();
                }
            }
            Step::Set { stamp, value, expires_at } => {
                let cell = CellName { tenant, kind: Kind::Register, key };
                let write = WriteRecord { cell, stamp: *stamp, value: Some(value), expires_at: *expires_at };
                self.writer.open().write(write);
            }
            Step::Delete { kind, stamp } => {
                let cell = CellName { tenant, kind: *kind, key };
                self.writer.open().write(WriteRecord { cell, stamp: *stamp, value: None, expires_at: None });
                if *kind == Kind::Counter {
                    self.writer.note_counter_delete();
                }
            }
        }
    }

    // ---- the disk -----------------------------------------------------------------------------------------------

    fn staged(&mut self, log: tombolo_causality::LogId, through: Seq) {
        if self.options.durability == Durability::Relaxed && log == self.writer.log() {
            for pending in self.writer.take_staged(through) {
                self.answer(pending.ticket, Answer::Written(Ok(pending.outcome)));
            }
        }
    }

    fn durable(&mut self, name: LogName, through: Seq, now: Now) {
        if name != self.writer.name() {
            self.intake.set_durable(name, through);
            self.apply_ready(name, now);
            return;
        }
        let mut is_any = false;
        while let Some((batch, pending)) = self.writer.take_durable(through) {
            is_any = true;
            self.state
                .apply(&batch)
                .expect("admission lets nothing into this region's log that cannot be applied here");
            let header = batch.header();
            self.progress.closed(header.seq, header.ops_total, now.monotonic_ms);
            self.forget_sealed(&batch);
            for pending in pending {
                self.answer(pending.ticket, Answer::Written(Ok(pending.outcome)));
            }
        }
        if is_any {
            self.applied(name, now);
            self.check_whole(now);
        }
    }

    fn storage_failed(&mut self, name: LogName, text: &str) {
        if name != self.writer.name() {
            self.intake.halt(name, format!("storage failed: {text}"), &self.state.logs);
            self.notice("storage_failed", format!("log {name:?} is not taken in any more: {text}"));
            return;
        }
        self.storage = Storage::Failed(text.to_owned());
        self.notice("storage_failed", format!("this region's own log cannot be written any more: {text}"));
        for pending in self.writer.take_all_pending() {
            let reject = Reject::new(
                RejectCode::StorageFailed,
                format!(
                    "the write was handed to the disk, which then failed: {text}; whether it is kept is unknown"
                ),
            );
            self.answer(pending.ticket, Answer::Written(Err(reject.unknown())));
        }
    }

    fn storage_full(&mut self, is_full: bool, now: Now) {
        match (&self.storage, is_full) {
            (Storage::Good, true) => {
                self.storage = Storage::Full;
                self.notice(
                    "storage_full",
                    "the disk is full; writes are refused until there is room".to_owned(),
                );
            }
            (Storage::Full, false) => {
                self.storage = Storage::Good;
                // The seals may have waited for room.
                self.check_whole(now);
            }
            _ => {}
        }
    }

    // ---- applying -----------------------------------------------------------------------------------------------

    /// Applies all that can be of a log, then whatever waited for it.
    fn apply_ready(&mut self, name: LogName, now: Now) {
        if self.apply_log(name, now) {
            loop {
                let ready: Vec<LogName> = self
                    .intake
                    .blocked()
                    .filter(|(_, blocked)| self.state.logs.holds(blocked.on, blocked.end))
                    .map(|(name, _)| name)
                    .collect();
                let mut is_any = false;
                for name in ready {
                    is_any |= self.apply_log(name, now);
                }
                if !is_any {
                    break;
                }
            }
            self.check_whole(now);
        }
    }

    fn apply_log(&mut self, name: LogName, now: Now) -> bool {
        let mut is_any = false;
        while !self.peers.is_paused(name.0) {
            let Some(batch) = self.intake.next(name).cloned() else { break };
            match self.state.apply(&batch) {
                Ok(()) => {
                    is_any = true;
                    self.intake.pop(name);
                    self.note_remote(&batch, now);
                    self.forget_sealed(&batch);
                }
                Err(ApplyError::WaitsFor { log, end }) => {
                    self.intake.block(name, Blocked { on: log, end, at: batch.header().seq });
                    self.replan();
                    break;
                }
                Err(error) => {
                    self.intake.halt(name, error.to_string(), &self.state.logs);
                    self.notice("apply_error", format!("log {name:?} is halted: it {error}"));
                    break;
                }
            }
        }
        if is_any {
            self.applied(name, now);
        }
        is_any
    }

    fn note_remote(&mut self, batch: &Batch, now: Now) {
        let header = batch.header();
        if header.log.region == self.options.region || now == Now::default() {
            return;
        }
        if let Err(refusal) = self.clock.observe(header.clock, now.wall) {
            self.notice(
                "clock_ahead",
                format!("region {}: {refusal}; its writes are applied", header.log.region),
            );
        }
        let age_ms = now.wall.seconds_since(header.clock) * 1_000.0;
        let effect = Effect::Applied { region: header.log.region, ops_count: header.ops_count, age_ms };
        self.effects.push_back(effect);
    }

    /// Logs that a batch took over need no queue here any more.
    fn forget_sealed(&mut self, batch: &Batch) {
        let mut is_any = false;
        for seal in batch.records().seals() {
            is_any = true;
            self.intake.forget((seal.region, seal.epoch));
            self.peers.sources.remove(&(seal.region, seal.epoch));
        }
        if is_any {
            // A peer that holds the seal holds what it sealed: from here on this region can tell.
            for region in self.options.members.clone() {
                self.wake_barriers(region);
            }
        }
    }

    /// A log grew here: ack it, offer it, wake whoever waits for it.
    fn applied(&mut self, name: LogName, now: Now) {
        let seq = self.state.logs.end(name);
        let log = log_id(self.options.shard, name);
        self.effects.push_back(Effect::Ack(Position { log, seq }));
        let peers: Vec<RegionId> = self.peers.peers.keys().copied().collect();
        for peer in peers {
            self.serve(peer, name);
        }
        self.wake_readers(now);
        self.wake_barriers(self.options.region);
    }

    // ---- peers --------------------------------------------------------------------------------------------------

    fn peer_up(&mut self, region: RegionId, epoch: tombolo_causality::Epoch, link: Link) {
        let Some(peer) = self.peers.peers.get_mut(&region) else { return };
        peer.link = Some(link);
        peer.is_answered = false;
        peer.sending.clear();
        if peer.epoch != Some(epoch) {
            // Its earlier epoch's acks are void: it may have lost what it acknowledged.
            peer.epoch = Some(epoch);
            peer.applied = VersionVector::new();
            self.void(region);
        }
        self.peers.forget_source(region);
        self.replan();
        let effect = Effect::Describe {
            peer: region,
            link,
            received: self.received(),
            applied: self.state.logs.vector().clone(),
        };
        self.effects.push_back(effect);
    }

    /// All this shard holds or may come to hold: what a restarted region must take back before it is whole.
    fn received(&self) -> VersionVector {
        let mut received = self.state.logs.vector().clone();
        for ((region, epoch), seq) in self.intake.ends() {
            received.raise(region, epoch, seq);
        }
        let (region, epoch) = self.writer.name();
        received.raise(region, epoch, self.writer.staged());
        received
    }

    fn peer_answer(
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
        self.replan();
        self.wake_barriers(region);
        self.check_whole(now);
    }

    fn peer_down(&mut self, region: RegionId, link: Link) {
        let Some(peer) = self.peers.on(region, link) else { return };
        peer.link = None;
        peer.is_answered = false;
        peer.sending.clear();
        self.peers.forget_source(region);
        self.replan();
    }

    /// Asks for each log where it should come from, and stops asking elsewhere.
    fn replan(&mut self) {
        let own = self.writer.name();
        let blocked: Vec<(LogName, Blocked)> =
            self.intake.blocked().map(|(name, blocked)| (name, blocked.clone())).collect();
        let halted: Vec<LogName> = self.intake.halted().map(|(name, _)| name).collect();
        let plan = self.peers.plan(own, &blocked, |name| {
            let is_wanted = self.state.logs.sealed(name).is_none() && !halted.contains(&name);
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

    fn ask(&mut self, region: RegionId, name: LogName, from: Seq) {
        self.peers.asked.insert(name, (region, from));
        self.send(region, PeerMessage::Subscribe { log: log_id(self.options.shard, name), from });
    }

    fn send(&mut self, peer: RegionId, message: PeerMessage) {
        if let Some(link) = self.peers.peers.get(&peer).and_then(|peer| peer.link) {
            self.effects.push_back(Effect::Send { peer, link, message });
        }
    }

    fn remote(&mut self, from: RegionId, link: Link, batch: Batch) {
        if self.peers.on(from, link).is_none() {
            return;
        }
        let header = batch.header();
        let name = (header.log.region, header.log.epoch);
        if header.log.shard != self.options.shard || name == self.writer.name() {
            self.notice("misplaced", format!("region {from} sent batch {} of {:?}", header.seq, header.log));
            return;
        }
        if !self.options.members.contains(&name.0) {
            self.notice(
                "foreign_log",
                format!("region {from} sent a log of region {}, not a member", name.0),
            );
            return;
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
                self.replan();
            }
        }
    }

    fn subscribe(&mut self, from: RegionId, link: Link, name: LogName, seq: Seq) {
        if let Some(peer) = self.peers.on(from, link) {
            peer.sending.insert(name, Cursor::at(seq.max(Seq(1))));
            self.serve(from, name);
        }
    }

    /// Sends a peer what it wants of a log, as far as its window goes.
    fn serve(&mut self, region: RegionId, name: LogName) {
        let end = self.state.logs.held(name);
        let own = self.writer.name();
        let shard = self.options.shard;
        let Some(peer) = self.peers.peers.get_mut(&region) else { return };
        let (Some(link), Some(cursor)) = (peer.link, peer.sending.get_mut(&name)) else { return };
        while cursor.next <= end && cursor.has_room() && !cursor.is_loading {
            let recent = if name == own { self.writer.recent(cursor.next) } else { None };
            match recent {
                Some(batch) => {
                    cursor.sent(cursor.next, batch.bytes().len());
                    self.effects.push_back(Effect::Ship { peer: region, link, batch: batch.clone() });
                }
                None => {
                    cursor.is_loading = true;
                    let log = log_id(shard, name);
                    let from = cursor.next;
                    let bytes_max = LOAD_BYTES;
                    self.effects.push_back(Effect::Load { peer: region, link, log, from, bytes_max });
                }
            }
        }
    }

    fn loaded(&mut self, region: RegionId, link: Link, name: LogName, batches: &[Batch]) {
        let end = self.state.logs.held(name);
        let Some(peer) = self.peers.on(region, link) else { return };
        let Some(cursor) = peer.sending.get_mut(&name).filter(|cursor| cursor.is_loading) else { return };
        let before = cursor.next;
        if !batches.is_empty() && !batches.iter().any(|batch| batch.header().seq == before) {
            // Read for an earlier subscription of the same peer; what was asked for this one is still to come.
            return;
        }
        cursor.is_loading = false;
        for batch in batches {
            let seq = batch.header().seq;
            // The files may hold more than was applied here; that is not offered yet.
            if seq == cursor.next && seq <= end {
                cursor.sent(seq, batch.bytes().len());
                self.effects.push_back(Effect::Ship { peer: region, link, batch: batch.clone() });
            }
        }
        if cursor.next == before {
            peer.sending.remove(&name);
            let text = format!(
                "region {region} wants log {name:?} from {before} on, which is not in the files here"
            );
            self.notice("log_missing", text);
            return;
        }
        self.serve(region, name);
    }

    fn acked(&mut self, from: RegionId, link: Link, positions: &[Position]) {
        let own = self.writer.name();
        let mut is_ahead = false;
        let mut to_serve = Vec::new();
        {
            let Some(peer) = self.peers.on(from, link) else { return };
            for position in positions {
                let name = (position.log.region, position.log.epoch);
                peer.applied.raise(name.0, name.1, position.seq);
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
        if let Some(slowest) = self.slowest_ack() {
            self.progress.acked(slowest);
        }
        self.wake_barriers(from);
    }

    /// How far every peer has applied this region's log.
    fn slowest_ack(&self) -> Option<Seq> {
        let (region, epoch) = self.writer.name();
        self.peers.peers.values().map(|peer| peer.applied.get(region, epoch)).min()
    }

    fn pause(&mut self, region: RegionId, is_paused: bool, now: Now) {
        let Some(peer) = self.peers.peers.get_mut(&region) else { return };
        peer.is_paused = is_paused;
        if !is_paused {
            for name in self.intake.of_region(region) {
                self.apply_ready(name, now);
            }
        }
    }

    // ---- whole --------------------------------------------------------------------------------------------------

    /// Members that have not answered, or that hold what is not applied here yet.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<RegionId> {
        let is_behind = |answer: &VersionVector| {
            let mut logs = answer.iter();
            logs.any(|(name, seq)| name != self.writer.name() && !self.state.logs.holds(name, seq))
        };
        let waits = |peer: &crate::peers::Peer| peer.answered.as_ref().is_none_or(is_behind);
        self.peers.peers.iter().filter(|(_, peer)| waits(peer)).map(|(&region, _)| region).collect()
    }

    /// Takes over its own earlier logs once it holds all that anyone may hold of them (design.md §3.4).
    fn check_whole(&mut self, now: Now) {
        if !self.is_started || self.is_whole || !self.waiting_for().is_empty() {
            return;
        }
        let own = self.writer.name();
        let earlier: Vec<(LogName, Seq)> =
            self.state.logs.vector().iter().filter(|&(name, _)| name.0 == own.0 && name != own).collect();
        if earlier.is_empty() {
            self.is_whole = true;
            self.effects.push_back(Effect::BecameWhole);
        } else if !self.is_sealing && self.storage == Storage::Good {
            self.is_sealing = true;
            for ((region, epoch), end) in earlier {
                self.writer.open().seal(Seal { region, epoch, end });
            }
            self.flush(now);
        }
    }

    // ---- waiters ------------------------------------------------------------------------------------------------

    fn wake_readers(&mut self, now: Now) {
        if self.waiters.readers.is_empty() {
            return;
        }
        let covers = |after: &[Position]| after.iter().all(|position| self.covers(position));
        let ready: Vec<Ticket> = self
            .waiters
            .readers
            .iter()
            .filter(|(_, reader)| covers(&reader.after))
            .map(|(&t, _)| t)
            .collect();
        for ticket in ready {
            let Some(reader) = self.waiters.readers.remove(&ticket) else { continue };
            let read = |key: &bytes::Bytes| self.state.cells.read(reader.tenant, key, now.wall);
            let values = reader.keys.iter().map(read).collect();
            self.answer(ticket, Answer::Read(values));
        }
    }

    /// Whether this region holds a position, durable and applied.
    #[must_use]
    pub fn covers(&self, position: &Position) -> bool {
        self.state.logs.holds((position.log.region, position.log.epoch), position.seq)
    }

    /// Whether a region holds a position, by what it acknowledged in its present epoch.
    #[must_use]
    pub fn is_reached(&self, region: RegionId, position: &Position) -> bool {
        if region == self.options.region {
            return self.covers(position);
        }
        let name = (position.log.region, position.log.epoch);
        let holds = |name: LogName, seq| {
            self.peers.peers.get(&region).is_some_and(|peer| peer.applied.get(name.0, name.1) >= seq)
        };
        // A token may name a log that was taken over: it is reached where its seal is.
        let resolved = self.state.logs.resolve(name, position.seq);
        holds(name, position.seq) || resolved.is_some_and(|(by, at)| holds(by, at))
    }

    fn wait(&mut self, ticket: Ticket, positions: Vec<Position>) {
        let waiter = Waiter { positions, reached: std::collections::BTreeSet::new() };
        self.waiters.barriers.insert(ticket, waiter);
        for region in self.options.members.clone() {
            self.wake_barriers(region);
        }
    }

    fn wake_barriers(&mut self, region: RegionId) {
        if self.waiters.barriers.is_empty() {
            return;
        }
        let is_new = |waiter: &Waiter| {
            !waiter.reached.contains(&region)
                && waiter.positions.iter().all(|position| self.is_reached(region, position))
        };
        let woken: Vec<Ticket> =
            self.waiters.barriers.iter().filter(|(_, waiter)| is_new(waiter)).map(|(&t, _)| t).collect();
        for ticket in woken {
            if let Some(waiter) = self.waiters.barriers.get_mut(&ticket) {
                waiter.reached.insert(region);
                self.effects.push_back(Effect::Reached { ticket, region });
            }
        }
    }

    /// A region restarted: what it acknowledged before does not count.
    fn void(&mut self, region: RegionId) {
        for (&ticket, waiter) in &mut self.waiters.barriers {
            if waiter.reached.remove(&region) {
                self.effects.push_back(Effect::Voided { ticket, region });
            }
        }
    }
}
