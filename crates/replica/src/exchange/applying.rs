//! What happens when the disk has done its part: batches are applied, acked, offered, and whoever waits is woken.

use tombolo_causality::{HybridClock, LogId, RegionId, Seq};
use tombolo_codec::records::SessionOp;
use tombolo_codec::{Batch, Position, Reject, RejectCode};

use crate::effect::{Answer, Effect};
use crate::exchange::intake::Blocked;
use crate::input::{Durability, Now};
use crate::replica::{Replica, Storage};
use crate::state::ApplyError;
use crate::state::logs::{LogName, log_id};

impl Replica {
    pub(crate) fn staged(&mut self, log: LogId, through: Seq) {
        if self.options.durability == Durability::Relaxed && log == self.writer.log() {
            for pending in self.writer.take_staged(through) {
                self.answer(pending.ticket, Answer::Written(Ok(pending.outcome)));
            }
        }
    }

    pub(crate) fn durable(&mut self, name: LogName, through: Seq, now: Now) {
        if name != self.writer.name() {
            self.intake.set_durable(name, through);
            self.apply_ready(name, now);
            return;
        }
        let before = self.state.logs.end(name);
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
            // Logged before this region was whole, or the heir of their home, and it may be by now.
            self.absorb_applied(&batch);
            self.is_absorbing |= batch.seals().next().is_some();
        }
        if is_any {
            self.applied(name, before, now);
            // A seal of its own may be what others waited for.
            self.release_blocked(now);
            self.check_whole(now);
            if self.is_absorbing {
                self.absorb_all();
            }
        }
    }

    pub(crate) fn storage_failed(&mut self, name: LogName, text: &str) {
        if name != self.writer.name() {
            self.intake.halt(name, format!("storage failed: {text}"), &self.state.logs);
            self.notice("storage_failed", format!("log {name:?} is not taken in any more: {text}"));
            self.tell_held();
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

    pub(crate) fn storage_full(&mut self, is_full: bool, now: Now) {
        match (&self.storage, is_full) {
            (Storage::Good, true) => {
                self.storage = Storage::Full;
                self.notice(
                    "storage_full",
                    "the disk is full; writes are refused until there is room".to_owned(),
                );
                // What was handed to the disk stays there and counts once there is room; its callers need not wait.
                for pending in self.writer.take_all_pending() {
                    let reject = Reject::new(
                        RejectCode::StorageFull,
                        "the disk of this region filled up under this write; it counts once there is room, unless the \
                         daemon stops before: send it again under the same number",
                    );
                    let reject = reject.unknown().retry_after_ms(1_000);
                    self.answer(pending.ticket, Answer::Written(Err(reject)));
                }
            }
            (Storage::Full, false) => {
                self.storage = Storage::Good;
                // Seals and conditionals may have waited for room.
                self.check_whole(now);
                self.absorb_all();
            }
            _ => {}
        }
    }

    /// Applies all that can be of a log, then whatever waited for it.
    pub(crate) fn apply_ready(&mut self, name: LogName, now: Now) {
        if self.apply_log(name, now) {
            self.release_blocked(now);
            self.check_whole(now);
        }
    }

    /// Goes on with logs that waited for what is here by now, and with those that waited for them.
    pub(crate) fn release_blocked(&mut self, now: Now) {
        loop {
            let ready: Vec<LogName> = self
                .intake
                .blocked()
                .filter(|(_, blocked)| {
                    let logs = &self.state.logs;
                    logs.holds(blocked.on, blocked.end) || logs.sealed(blocked.on).is_some()
                })
                .map(|(name, _)| name)
                .collect();
            let mut is_any = false;
            for name in ready {
                if self.intake.take_released(name) {
                    self.ask_source(name);
                } else {
                    is_any |= self.apply_log(name, now);
                }
            }
            if !is_any {
                return;
            }
        }
    }

    pub(crate) fn apply_log(&mut self, name: LogName, now: Now) -> bool {
        let before = self.state.logs.end(name);
        let mut is_any = false;
        while !self.peers.is_paused(name.0) {
            let Some(batch) = self.intake.next(name).cloned() else { break };
            match self.state.apply(&batch) {
                Ok(()) => {
                    is_any = true;
                    self.intake.pop(name);
                    self.note_remote(&batch, now);
                    self.forget_sealed(&batch);
                    self.absorb_applied(&batch);
                }
                Err(ApplyError::WaitsFor { log, end }) => {
                    self.intake.block(name, Blocked { on: log, end, at: batch.header().seq });
                    self.replan();
                    break;
                }
                Err(error) => {
                    self.intake.halt(name, error.to_string(), &self.state.logs);
                    self.notice("apply_error", format!("log {name:?} is halted: it {error}"));
                    self.tell_held();
                    break;
                }
            }
        }
        if is_any {
            self.applied(name, before, now);
            self.ask_again(name);
        }
        is_any
    }

    pub(crate) fn note_remote(&mut self, batch: &Batch, now: Now) {
        let header = batch.header();
        if now == Now::default() {
            return;
        }
        if header.log.region == self.options.region {
            // A tail that this region had lost: its clock issued these readings (H1).
            let last = self.clock.last().max(header.clock);
            self.clock = HybridClock::restored(self.options.drift_ms_max, last);
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

    fn absorb_applied(&mut self, batch: &Batch) {
        if self.state.cells.conditionals.is_empty() {
            return;
        }
        let homes = self.homes();
        let is_own = |op: &SessionOp| homes.contains(&op.session.home);
        let ops: Vec<SessionOp> = batch.records().conditionals().map(|it| it.op).filter(is_own).collect();
        for op in ops {
            self.absorb_if_due(op.session, op.number);
        }
    }

    /// Logs that a batch took over need no queue here any more.
    pub(crate) fn forget_sealed(&mut self, batch: &Batch) {
        let mut is_any = false;
        for seal in batch.seals() {
            is_any = true;
            self.intake.forget((seal.region, seal.epoch));
            self.peers.sources.remove(&(seal.region, seal.epoch));
        }
        if is_any {
            self.wake_sealed();
        }
    }

    /// A log grew here from after `before` on: ack it, offer it, wake whoever waits for it.
    pub(crate) fn applied(&mut self, name: LogName, before: Seq, now: Now) {
        let seq = self.state.logs.end(name);
        let log = log_id(self.options.shard, name);
        self.effects.push_back(Effect::Ack(Position { log, seq }));
        let peers: Vec<RegionId> = self.peers.peers.keys().copied().collect();
        for peer in peers {
            self.serve(peer, name);
        }
        self.wake_readers(name, before, seq, now);
        self.wake_barriers(self.options.region, name, before, seq);
        self.go_on_verifying();
    }
}
