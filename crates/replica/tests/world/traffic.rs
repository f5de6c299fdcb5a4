//! What clients send and how they take the answers: new numbers, numbers again, other ops under a used number.

use tombolo_causality::SessionId;
use tombolo_codec::{Op, Reject, RejectCode, StampSource, Verb};
use tombolo_replica::{Durability, Input, Outcome, Ticket};

use crate::clients::{Call, Fate, part, shared_op};
use crate::sabotage::Twin;
use crate::world::{Checked, World};

impl World {
    fn shared(&mut self, at: usize) -> Op {
        let (now, id) = (self.now(at).wall, self.regions[at].id);
        shared_op(&mut self.rng, now, id)
    }

    /// A few ops for a pipeline after an accounted add; of one kind a key, so that they are never refused.
    fn pipeline(&mut self, at: usize) -> Vec<Op> {
        let count = if self.rng.percent(70) { 0 } else { self.rng.below(4) };
        let is_safe = |op: &Op| {
            let stamp = match &op.verb {
                Verb::Add { .. } => None,
                Verb::Set { stamp, .. } | Verb::Delete { stamp, .. } => Some(*stamp),
            };
            op.key[0] != b'x' && !matches!(stamp, Some(StampSource::Fixed(_)))
        };
        (0..count).map(|_| self.shared(at)).filter(is_safe).collect()
    }

    pub(crate) fn write(&mut self, at: usize) -> Checked {
        if self.regions[at].replica.as_ref().is_none_or(|replica| !replica.has_room()) {
            return Ok(());
        }
        let raises_mark = self.rng.percent(30);
        let homed: Vec<usize> = (0..self.clients.sessions.len())
            .filter(|&session| self.clients.sessions[session].home == at)
            .collect();
        let (ticket, part) = match self.rng.below(100) {
            0..30 => {
                let shared = self.pipeline(at);
                self.clients.add(at, shared)
            }
            30..60 => {
                if homed.is_empty() || self.rng.percent(10) {
                    let (home, epoch, random) =
                        (self.regions[at].id, self.regions[at].epoch, self.rng.next());
                    let opened = self.now(at).wall;
                    self.clients.open_session(at, SessionId { home, epoch, opened, random });
                    return Ok(());
                }
                let session = homed[self.rng.below(homed.len())];
                let shared = self.pipeline(at);
                self.clients.send_new(session, shared, raises_mark)
            }
            60..80 => {
                let Some(session) = self.rng.pick(&homed) else { return Ok(()) };
                let count = self.clients.sessions[session].requests.len();
                if count == 0 {
                    return Ok(());
                }
                // Mostly a recent one.
                let back_max = if self.rng.percent(70) { 5 } else { 1_000 };
                let number = count - self.rng.below(count.min(back_max));
                let add = self.clients.sessions[session].requests[number - 1].0;
                if self.rng.percent(10) && self.clients.adds[add] == Fate::Kept {
                    self.clients.forge(session, number as u64)
                } else {
                    self.clients.send(session, number as u64, raises_mark, true)
                }
            }
            _ => {
                let ops = (0..=self.rng.below(3)).map(|_| self.shared(at)).collect();
                let ticket = self.clients.ticket();
                (ticket, part(ops, None, false))
            }
        };
        self.handle(at, Input::Write { ticket, part })
    }

    /// Sends again whatever has no final answer; tells whether there was anything.
    pub(crate) fn retry_unsettled(&mut self) -> Result<bool, String> {
        let mut is_any = false;
        for session in 0..self.clients.sessions.len() {
            let home = self.clients.sessions[session].home;
            for number in 1..=self.clients.sessions[session].requests.len() as u64 {
                let add = self.clients.sessions[session].requests[number as usize - 1].0;
                if self.clients.adds[add] == Fate::Unknown && !self.clients.is_under_way(session, number) {
                    is_any = true;
                    let (ticket, part) = self.clients.send(session, number, true, true);
                    self.handle(home, Input::Write { ticket, part })?;
                }
            }
        }
        Ok(is_any)
    }

    pub(crate) fn answered(&mut self, at: usize, ticket: Ticket, result: Result<Outcome, Reject>) -> Checked {
        let Some(call) = self.clients.calls.remove(&ticket) else {
            if let Ok(Outcome { position: Some(position), .. }) = result {
                self.positions.push(position);
            }
            return Ok(());
        };
        let Call { add, session, is_forged, .. } = call;
        let named = session.map(|(session, number)| (&self.clients.sessions[session], number));
        match result {
            Ok(_) if is_forged => return Err(format!("S2: other ops under {session:?} were answered yes")),
            Ok(outcome) => {
                if let Some(position) = outcome.position {
                    self.positions.push(position);
                }
                let is_sync = self.regions[at].durability == Durability::Sync;
                let is_told = is_sync && self.twin != Twin::LosesDurable;
                if let (Some((session, number)), true) = (named, is_told) {
                    let position =
                        outcome.position.ok_or("F21: a session's op was answered without a position")?;
                    let disk = &self.regions[at].disk;
                    let held = |name, seq| disk.durable(name) >= seq;
                    self.ledger.covers_number(&position, &session.id, number, held)?;
                }
                let Some(add) = add else { return Ok(()) };
                if self.clients.adds[add] == Fate::Refused {
                    return Err(format!("S1: add {add} was refused for good, then answered yes"));
                }
                self.clients.adds[add] = if is_sync { Fate::Kept } else { Fate::Promised };
                if is_sync {
                    self.check_seen(at, add)?;
                }
            }
            Err(reject) => match reject.code {
                RejectCode::NotWhole => {}
                RejectCode::Stale if named.is_some_and(|(session, number)| number < session.settled) => {}
                RejectCode::Conflict if is_forged => {}
                RejectCode::SessionFull => {
                    // A session of an earlier epoch cannot raise its mark any more.
                    let is_old = named.is_some_and(|(session, _)| session.id.epoch != self.regions[at].epoch);
                    if let (Some(add), true, false) = (add, is_old, is_forged) {
                        self.clients.adds[add] = Fate::Refused;
                    }
                }
                _ => return Err(format!("a write to {call_at:?} was refused: {reject}", call_at = session)),
            },
        }
        Ok(())
    }
}
