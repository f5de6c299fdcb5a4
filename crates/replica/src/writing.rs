//! Writes: is it known already, may this region log it, then staged into the open batch or answered at once.

use tombolo_causality::Seq;
use tombolo_codec::records::{SessionOp, Write as WriteRecord};
use tombolo_codec::{CellName, Kind, Position, Reject, RejectCode, SessionPart};

use crate::admission::{Admission, Admitted, Step, is_large};
use crate::effect::{Answer, Outcome};
use crate::input::{Now, Ticket, WritePart};
use crate::logs::log_id;
use crate::replica::{Replica, Storage};
use crate::sessions::Known;
use crate::writer::Pending;

impl Replica {
    pub(crate) fn check_failed(&self) -> Result<(), Reject> {
        match &self.storage {
            Storage::Failed(_) => self.check_storage(),
            Storage::Good | Storage::Full => Ok(()),
        }
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

    /// Whether this region may log ops of a session now, and what is known of the number.
    ///
    /// What was sent before may have been logged at home, and answered before its number was settled: of a retry it is
    /// not known that nothing was applied.
    pub(crate) fn check_session(&self, session: &SessionPart, is_retry: bool) -> Result<Known, Reject> {
        let refuse = |reject: Reject| Err(if is_retry { reject.unknown() } else { reject });
        let id = &session.id;
        if id.home != self.options.region {
            return refuse(Reject::new(
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
                format!(
                    "number {} lies below the session's settled mark; it may have counted",
                    session.number
                ),
            )
            .unknown()),
            Known::Logged(digest) if digest != session.digest => Err(Reject::new(
                RejectCode::Conflict,
                format!("number {} was used before, with other ops", session.number),
            )),
            Known::Logged(_) => Ok(known),
            Known::New if id.epoch != self.options.epoch && !self.is_whole => Err(Self::not_whole()),
            // Only the epoch that opened a session moves its mark.
            Known::New if self.is_session_full(session) && id.epoch != self.options.epoch => {
                let text = "this session was opened before the region restarted and takes no more numbers; open a new one";
                Err(Reject::new(RejectCode::SessionFull, text))
            }
            Known::New if self.is_session_full(session) => Err(Reject::new(
                RejectCode::SessionFull,
                "too many numbers above the settled mark; raise `settled` first",
            )
            .retry_after_ms(10)),
            Known::New => Ok(known),
        }
    }

    pub(crate) fn is_session_full(&self, session: &SessionPart) -> bool {
        // The mark that the request itself records counts: it is what makes room.
        let settled =
            if session.id.epoch == self.options.epoch { session.settled.min(session.number) } else { 0 };
        let numbers_max = self.options.session_numbers_max;
        self.state.sessions.is_full(&session.id, session.number, settled, numbers_max)
    }

    /// An earlier attempt may have been logged by an earlier incarnation: it is not known that nothing was applied.
    pub(crate) fn not_whole() -> Reject {
        let text = "this region restarted and has not yet heard from every other whether it knows this op; \
                    send it again under the same number";
        Reject::new(RejectCode::NotWhole, text).unknown().retry_after_ms(100)
    }

    pub(crate) fn admit(&mut self, part: &WritePart, now: Now) -> Result<Vec<Admitted>, Reject> {
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
        };
        admission.admit(part)
    }

    pub(crate) fn check_only(&mut self, part: &WritePart, now: Now) -> Result<(), Reject> {
        if let Some(session) = &part.session
            && let Known::Logged(_) = self.check_session(session, part.retry)?
        {
            return self.replay_answer(part, session).map(|_| ());
        }
        self.check_storage()?;
        self.admit(part, now).map(|_| ())
    }

    pub(crate) fn write(&mut self, ticket: Ticket, part: &WritePart, now: Now) {
        match self.try_write(part, now) {
            Ok((seq, outcome)) => self.answer_at(seq, ticket, outcome),
            Err(reject) => self.answer(ticket, Answer::Written(Err(reject))),
        }
    }

    /// Answers with the batch that holds the ops, or at once if that is applied already.
    pub(crate) fn answer_at(&mut self, seq: Seq, ticket: Ticket, outcome: Outcome) {
        if seq <= self.writer.durable() {
            self.answer(ticket, Answer::Written(Ok(outcome)));
        } else {
            self.writer.answer_with(seq, Pending { ticket, outcome });
        }
    }

    pub(crate) fn try_write(&mut self, part: &WritePart, now: Now) -> Result<(Seq, Outcome), Reject> {
        let own = self.writer.log();
        if let Some(session) = &part.session
            && let Known::Logged(_) = self.check_session(session, part.retry)?
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
    pub(crate) fn replay_answer(
        &self,
        part: &WritePart,
        session: &SessionPart,
    ) -> Result<(Seq, Outcome), Reject> {
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
