//! Writes: is it known already, may this region log it, then staged into the open batch or answered at once.

pub(crate) mod admission;
pub(crate) mod authority;
pub(crate) mod writer;

use smallvec::SmallVec;
use tombolo_causality::Seq;
use tombolo_codec::records::{Conditional, SessionOp, Write as WriteRecord};
use tombolo_codec::{CellName, Kind, Position, Reject, RejectCode, SessionPart};
use tombolo_mutants::{Mutant, is_planted};

use crate::effect::{Answer, Outcome};
use crate::input::{Now, Ticket, WritePart};
use crate::replica::{Replica, Storage};
use crate::state::logs::{LogName, log_id};
use crate::writing::admission::{Admission, Admitted, Step, is_large};
use crate::writing::authority::Duty;
use crate::writing::writer::Pending;

impl Replica {
    /// A refusal as its caller may take it: an earlier attempt may have been logged elsewhere, so of a retry it is not
    /// known that nothing was applied. Only that other ops hold its number is certain. Doors that take a client's own
    /// name for a request do not say which is a retry.
    pub(crate) fn as_known(&self, part: &WritePart, reject: Reject) -> Reject {
        let Some(session) = &part.session else { return reject };
        let is_retry = part.retry || (session.id.is_named() && !self.is_whole);
        if is_retry && reject.code != RejectCode::Conflict { reject.unknown() } else { reject }
    }

    pub(crate) fn check_storage(&self) -> Result<(), Reject> {
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

    pub(crate) fn admit(
        &mut self,
        part: &WritePart,
        is_authority: bool,
        now: Now,
    ) -> Result<Vec<Admitted>, Reject> {
        let far_future_after = self.clock.check(part.after, now.wall).is_err();
        if far_future_after {
            let text = "a token's stamp lies beyond the drift bound and was ignored".to_owned();
            self.notice("token_ahead", text);
        }
        let mut admission = Admission {
            options: &self.options,
            state: &self.state,
            writer: &self.writer,
            clock: &mut self.clock,
            wall: now.wall,
            is_clock_ahead: self.is_clock_ahead,
            far_future_after,
            window_start: self.options.window_start(now.wall),
            is_authority,
        };
        admission.admit(part)
    }

    pub(crate) fn check_only(&mut self, part: &WritePart, now: Now) -> Result<(), Reject> {
        let place = self.place(part);
        let duty = self.duty(place.as_ref(), now)?;
        if let (Some(session), Duty::Replay { log, is_conditional }) = (&place, duty) {
            return self.replay_answer(part, session, log, is_conditional).map(|_| ());
        }
        self.check_storage()?;
        self.check_standing()?;
        if matches!(duty, Duty::Absorb) {
            return Ok(());
        }
        if matches!(duty, Duty::Condition) {
            self.check_conditional_bytes(part)?;
        }
        self.admit(part, matches!(duty, Duty::Log), now).map(|_| ())
    }

    pub(crate) fn write(&mut self, ticket: Ticket, part: &WritePart, now: Now) {
        match self.try_write(part, now) {
            Ok((seq, outcome)) => self.answer_at(seq, ticket, outcome),
            Err(reject) => self.answer(ticket, {
                let known = self.as_known(part, reject);
                Answer::Written(Err(known))
            }),
        }
    }

    /// Answers with the batch that holds the ops, or at once if that is applied already.
    pub(crate) fn answer_at(&mut self, seq: Seq, ticket: Ticket, outcome: Outcome) {
        if seq <= self.writer.durable() || is_planted(Mutant::AckBeforeSync) {
            self.answer(ticket, Answer::Written(Ok(outcome)));
        } else {
            self.writer.answer_with(seq, Pending { ticket, outcome });
        }
    }

    pub(crate) fn try_write(&mut self, part: &WritePart, now: Now) -> Result<(Seq, Outcome), Reject> {
        let own = self.writer.log();
        let place = self.place(part);
        let duty = self.duty(place.as_ref(), now)?;
        if let (Some(session), Duty::Replay { log, is_conditional }) = (&place, duty) {
            return self.replay_answer(part, session, log, is_conditional);
        }
        self.check_storage()?;
        self.check_standing()?;
        let count = part.ops.len();
        if let (Some(session), Duty::Absorb) = (&place, duty) {
            let seq = self.absorb(session.id, session.number);
            return Ok((seq, Outcome::replayed([Position { log: own, seq }], false, count)));
        }
        let is_authority = matches!(duty, Duty::Log);
        if !is_authority {
            self.check_conditional_bytes(part)?;
        }
        let admitted = self.admit(part, is_authority, now)?;
        let seq = self.writer.next();
        let mut outcome = Outcome {
            positions: SmallVec::new(),
            replayed: false,
            conditional: !is_authority,
            stamps: Vec::with_capacity(count),
            values: Vec::with_capacity(count),
        };
        let mut conditional_adds = Vec::new();
        for (op, admitted) in part.ops.iter().zip(&admitted) {
            for step in &admitted.steps {
                match *step {
                    Step::Add { generation, delta } if !is_authority => {
                        let cell = CellName { tenant: part.tenant, kind: Kind::Counter, key: &op.key };
                        conditional_adds.push((cell, generation, delta));
                    }
                    _ => self.stage(part, &op.key, step),
                }
            }
            outcome.stamps.push(admitted.stamp);
            outcome.values.push(admitted.value);
        }
        if let Some(session) = &place {
            let op = SessionOp { session: session.id, number: session.number, digest: session.digest };
            if is_authority {
                if is_planted(Mutant::DedupEntryApart) {
                    self.flush(now);
                }
                self.writer.open().op(op);
                self.writer.note_number(&op, false);
                self.record_mark(session);
            } else if !conditional_adds.is_empty() {
                // Sets and deletes carry their stamp: a copy more of them changes nothing and needs no record.
                if conditional_adds.iter().any(|&(_, _, delta)| is_large(delta)) {
                    self.writer.note_large_add();
                }
                self.writer.open().conditional(&Conditional { op, adds: conditional_adds });
                self.writer.note_number(&op, true);
            }
        }
        if self.writer.open().is_empty() {
            // Nothing to log: a delete of what is not there.
            let end = self.state.logs.end(self.writer.name());
            outcome.positions.extend((end > Seq::ZERO).then_some(Position { log: own, seq: end }));
            return Ok((end.min(self.writer.durable()), outcome));
        }
        outcome.positions.push(Position { log: own, seq });
        Ok((seq, outcome))
    }

    /// The answer to a number that was logged before: the end of the log that holds it is at or after the op, so a
    /// barrier on it stays sound (F21).
    pub(crate) fn replay_answer(
        &self,
        part: &WritePart,
        session: &SessionPart,
        log: Option<LogName>,
        is_conditional: bool,
    ) -> Result<(Seq, Outcome), Reject> {
        let count = part.ops.len();
        let at = |name, seq| Position { log: log_id(self.options.shard, name), seq };
        if let Some(staged) = self.writer.staged_number(session.id, session.number) {
            // What was handed to a disk that then failed, or is full, is not answered by it now.
            self.check_storage().map_err(Reject::unknown)?;
            let position = at(self.writer.name(), staged.seq);
            return Ok((staged.seq, Outcome::replayed([position], is_conditional, count)));
        }
        let logs = log.map_or_else(|| self.logs_of(session), |name| vec![name]);
        let ends = logs.into_iter().map(|name| at(name, self.state.logs.end(name)));
        Ok((Seq::ZERO, Outcome::replayed(ends, is_conditional, count)))
    }

    /// The logs of which one holds a session's numbers.
    fn logs_of(&self, session: &SessionPart) -> Vec<LogName> {
        // That of its epoch, or one that took that over before it logged more.
        let opened = (session.id.home, session.id.epoch);
        let (name, _) = self.state.logs.resolve(opened, Seq::ZERO).expect("no log ends before its start");
        if self.state.logs.end(name) > Seq::ZERO {
            return vec![name];
        }
        // Its epoch left no log here: a later one of its home, or of whoever took that over, holds the number.
        let standing = self.state.logs.vector().iter().map(|(name, _)| name);
        let authority = self.authority_of(session.id.home);
        standing.filter(|name| name.0 == session.id.home || name.0 == authority).collect()
    }

    pub(crate) fn stage(&mut self, part: &WritePart, key: &[u8], step: &Step) {
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
}
