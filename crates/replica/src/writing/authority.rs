//! Who logs a session's request, and as what: the authority for good, any other region conditionally, nobody twice
//! (design.md §3.3). What the authority sees of conditionals it absorbs.

use tombolo_causality::{Seq, SessionId, TenantId};
use tombolo_codec::records::SessionOp;
use tombolo_codec::{CellName, Kind, PayloadDigest, Reject, RejectCode, SessionPart};
use tombolo_mutants::{Mutant, is_planted};

use crate::input::{Now, WritePart};
use crate::replica::{Replica, Storage};
use crate::state::conditionals::conditional_bytes;
use crate::state::logs::LogName;
use crate::state::sessions::Known;
use crate::writing::admission::is_large;

/// What is to be done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Log it: as the session's authority, or without a session.
    Log,
    /// Log its adds as conditional.
    Condition,
    /// Log what another region logged conditionally, then answer as to a retry.
    Absorb,
    /// Answer that it was logged before.
    Replay {
        /// By which log; none: by one of the session's home.
        log: Option<LogName>,
        /// Whether its authority has not logged it yet.
        is_conditional: bool,
    },
}

/// How many numbers a session that its client named keeps: what is below the greatest of them is settled.
const NAMED_NUMBERS_KEPT: usize = 512;
/// Most conditionals of a shard: beyond, a home that is away for long would cost memory without end.
const CONDITIONALS_MAX: usize = 65_536;
/// Most bytes of a session's conditionals in a shard: to peers they go as one entry, and several regions may log copies
/// while apart, which one frame must hold together ([`FRAME_BYTES_MAX`](tombolo_codec::limits::FRAME_BYTES_MAX)).
const CONDITIONAL_BYTES_MAX: usize = 2 * 1_024 * 1_024;

impl Replica {
    /// Whether this region is the session's authority: of those it opened in this epoch at once, of earlier ones and of
    /// those it inherited once it is whole. For a session that its client named it also suffices to be up for longer than the window: what an
    /// earlier epoch logged of it cannot be sent again.
    pub(crate) fn is_authority(&self, session: &SessionId, now: Now) -> bool {
        if session.home != self.options.region {
            return self.is_heir_of(session);
        }
        self.is_whole
            || is_planted(Mutant::AuthorityBeforeWhole)
            || session.epoch == self.options.epoch
            || (session.is_named() && self.is_window_over(now))
    }

    /// Whether this region may log for good what is conditional: an earlier epoch's record of the same number, which it
    /// has not taken back yet, would count a second time.
    fn may_absorb(&self, session: &SessionId) -> bool {
        let is_own = session.home == self.options.region;
        is_own && (self.is_whole || session.epoch == self.options.epoch) || self.is_heir_of(session)
    }

    /// Whether the session's home was removed, and this region has taken over what it logged.
    fn is_heir_of(&self, session: &SessionId) -> bool {
        let own = self.options.region;
        session.home != own && self.is_whole && self.authority_of(session.home) == own
    }

    fn is_window_over(&self, now: Now) -> bool {
        let up_ms = now.monotonic_ms.saturating_sub(self.started_ms);
        up_ms > self.options.window_ms.saturating_add(self.options.drift_ms_max.saturating_mul(2))
    }

    /// The place in a session that a request has: of a session that its client named, the window in which the number
    /// was first seen.
    pub(crate) fn place(&self, part: &WritePart) -> Option<SessionPart> {
        let place = part.session?;
        let is_known = |id: &SessionId| {
            self.state.sessions.known(id, place.number) != Known::New
                || self.writer.staged_number(*id, place.number).is_some()
                || self.state.cells.conditionals.get(id, place.number).is_some()
        };
        if !place.id.is_named() || is_known(&place.id) {
            return Some(place);
        }
        let neighbours = place.id.neighbours(self.options.window_ms);
        let id = neighbours.into_iter().find(is_known).unwrap_or(place.id);
        Some(SessionPart { id, ..place })
    }

    /// What this region does with a request at this place.
    ///
    /// Errors: a refusal.
    pub(crate) fn duty(&self, place: Option<&SessionPart>, now: Now) -> Result<Duty, Reject> {
        let Some(session) = place else { return Ok(Duty::Log) };
        let id = &session.id;
        self.check_expired(id, now)?;
        // Known by this number, if the ops are the same.
        let replay = |digest: PayloadDigest, duty: Duty| {
            if digest == session.digest || is_planted(Mutant::OtherPayloadReplayed) {
                return Ok(duty);
            }
            let text = format!("number {} was used before, with other ops", session.number);
            Err(Reject::new(RejectCode::Conflict, text))
        };
        match self.state.sessions.known(id, session.number) {
            Known::Settled => {
                let text = format!(
                    "number {} lies below the session's settled mark; it may have counted",
                    session.number
                );
                return Err(Reject::new(RejectCode::Stale, text).unknown());
            }
            Known::Logged(digest) => {
                return replay(digest, Duty::Replay { log: None, is_conditional: false });
            }
            Known::New => {}
        }
        if let Some(staged) = self.writer.staged_number(*id, session.number) {
            let log = Some(self.writer.name());
            return replay(staged.digest, Duty::Replay { log, is_conditional: staged.is_conditional });
        }
        let is_authority = self.is_authority(id, now);
        if let Some((digest, dot)) = self.state.cells.conditionals.get(id, session.number) {
            let known = Duty::Replay { log: Some(dot.log), is_conditional: true };
            return replay(digest, if self.may_absorb(id) { Duty::Absorb } else { known });
        }
        self.check_room(session, is_authority)?;
        Ok(if is_authority { Duty::Log } else { Duty::Condition })
    }

    fn check_expired(&self, id: &SessionId, now: Now) -> Result<(), Reject> {
        let floor = self.state.garbage.floor(id.home).max(self.options.window_start(now.wall));
        if id.opened >= floor || is_planted(Mutant::ExpiredSessionGoesOn) {
            return Ok(());
        }
        let hours = self.options.window_ms as f64 / 3_600_000.0;
        let text = format!(
            "this session was opened longer ago than the window of {hours} h; open a new one for new ops, and read before \
             sending an op again whose outcome is unknown"
        );
        Err(Reject::new(RejectCode::SessionExpired, text))
    }

    /// A session holds a bounded set of numbers above its mark.
    fn check_room(&self, session: &SessionPart, is_authority: bool) -> Result<(), Reject> {
        let (id, numbers_max) = (&session.id, self.options.session_numbers_max);
        // The mark that the request itself records counts: it is what makes room.
        let settled = if is_authority { self.mark_of(session) } else { 0 };
        let conditionals = &self.state.cells.conditionals;
        let waits = !is_authority
            && (conditionals.numbers_count(id) >= numbers_max || conditionals.len() >= CONDITIONALS_MAX);
        if !waits && !self.state.sessions.is_full(id, session.number, settled, numbers_max) {
            return Ok(());
        }
        let is_of_earlier_epoch =
            (id.home == self.options.region || is_authority) && id.epoch != self.options.epoch;
        Err(match (is_of_earlier_epoch, is_authority) {
            (true, false) => Reject::new(
                RejectCode::NotWhole,
                "this region restarted and has not yet heard from every other how far this session is settled; \
                 send the op again under the same number",
            )
            .retry_after_ms(100),
            (true, true) if !id.is_named() => Reject::new(
                RejectCode::SessionFull,
                "this session was opened before its home restarted, or was removed, and takes no more numbers; open a new \
                 one",
            ),
            (_, false) => Reject::new(
                RejectCode::SessionFull,
                "too many numbers of this session wait for its home; open a session here, or wait",
            )
            .retry_after_ms(100),
            _ => Reject::new(
                RejectCode::SessionFull,
                "too many numbers above the settled mark; raise `settled` first",
            )
            .retry_after_ms(10),
        })
    }

    /// What waits for a session's home stays small enough to be sent.
    pub(crate) fn check_conditional_bytes(&self, part: &WritePart) -> Result<(), Reject> {
        let Some(session) = part.session else { return Ok(()) };
        let asked: usize = part.ops.iter().map(|op| conditional_bytes(&op.key)).sum();
        let held = self.state.cells.conditionals.bytes_of(&session.id);
        // Not only of this session: an upper bound that is gone with the next sync.
        let staged = if self.writer.has_staged_conditionals() { self.writer.staged_bytes() } else { 0 };
        if asked + held + staged <= CONDITIONAL_BYTES_MAX {
            return Ok(());
        }
        let mb = CONDITIONAL_BYTES_MAX >> 20;
        let text = format!(
            "this session's home has not seen what was logged of it here, and no more than {mb} MiB of that may wait in a \
             shard; open a session here, send smaller requests, or wait"
        );
        Err(Reject::new(RejectCode::SessionFull, text).retry_after_ms(100))
    }

    /// The settled mark that a request records: of a session opened in this epoch the caller's, of a named one what
    /// lies far enough below.
    ///
    /// A later epoch must not move marks: it may not know what its predecessor answered (F9c).
    fn mark_of(&self, session: &SessionPart) -> u64 {
        // What is conditional would be lost below the mark; what is staged is not looked into.
        if self.writer.has_staged_conditionals() {
            return 0;
        }
        let is_own = session.id.home == self.options.region;
        let mark = if session.id.is_named() && is_own {
            self.state.sessions.lowest_of_last(&session.id, NAMED_NUMBERS_KEPT)
        } else if session.id.epoch == self.options.epoch {
            session.settled.min(session.number)
        } else {
            0
        };
        let lowest = self.state.cells.conditionals.lowest(&session.id);
        lowest.map_or(mark, |lowest| mark.min(lowest))
    }

    pub(crate) fn record_mark(&mut self, session: &SessionPart) {
        let mark = self.mark_of(session);
        if mark > 0 {
            self.writer.open().mark(session.id, mark);
        }
    }

    /// Logs a conditional number as its authority: the same payload under the conditional's own generation (F27).
    ///
    /// Gives the batch that holds it.
    pub(crate) fn absorb(&mut self, session: SessionId, number: u64) -> Seq {
        let seq = self.writer.next();
        let conditionals = &self.state.cells.conditionals;
        let Some((digest, _)) = conditionals.get(&session, number) else { return seq };
        // Of a name, a retry in another window may have been logged before the first attempt came back.
        let is_again = session.is_named()
            && session
                .neighbours(self.options.window_ms)
                .iter()
                .any(|id| self.state.sessions.known(id, number) != Known::New);
        let adds = if is_again { Vec::new() } else { conditionals.absorbed(&session, number) };
        for add in adds {
            let cell = CellName { tenant: TenantId(add.tenant), kind: Kind::Counter, key: &add.key };
            let generation = if is_planted(Mutant::AbsorbUnderOwnGeneration) {
                self.state.cells.counter(cell.tenant, cell.key).and_then(|counter| counter.generation)
            } else {
                add.generation
            };
            self.writer.open().add(cell, generation, add.delta);
            if is_large(add.delta) {
                self.writer.note_large_add();
            }
        }
        let op = SessionOp { session, number, digest };
        self.writer.open().op(op);
        self.writer.note_number(&op, false);
        seq
    }

    /// Absorbs a number that just became conditional here, if this region is its authority.
    pub(crate) fn absorb_if_due(&mut self, session: SessionId, number: u64) {
        let is_conditional = self.state.cells.conditionals.get(&session, number).is_some();
        let staged = self.writer.staged_number(session, number);
        let is_staged = staged.is_some_and(|staged| !staged.is_conditional);
        if !self.is_started || !is_conditional || is_staged || !self.may_absorb(&session) {
            return;
        }
        if self.storage == Storage::Good && self.writer.has_room() {
            self.absorb(session, number);
        } else {
            self.is_absorbing = true;
        }
    }

    /// Absorbs all that this region is the authority of, as far as the open batch has room.
    pub(crate) fn absorb_all(&mut self) {
        self.is_absorbing = false;
        if self.state.cells.conditionals.is_empty() || !self.is_started {
            return;
        }
        for home in self.homes() {
            for (session, number) in self.state.cells.conditionals.of_home(home) {
                self.absorb_if_due(session, number);
            }
        }
    }
}
