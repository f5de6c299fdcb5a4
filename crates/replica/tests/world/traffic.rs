//! What clients send and how they take the answers: new numbers, numbers again, other ops under a used number.

use tombolo_causality::SessionId;
use tombolo_codec::{Applied, Op, Reject, RejectCode, StampSource, Verb};
use tombolo_replica::{Durability, Input, Outcome, Ticket};

use crate::clients::{Call, Fate, part, shared_op};
use crate::sabotage::Twin;
use crate::world::{Checked, World};

/// Whether a session's requests are sent to any region. Its sets would have to carry stamps, so it has only adds.
fn roams(session: usize) -> bool {
    !session.is_multiple_of(3)
}

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

    /// Now and then a session of any region, of those that roam.
    fn roaming(&mut self, homed: &[usize]) -> Option<usize> {
        let all: Vec<usize> = (0..self.clients.sessions.len()).filter(|&session| roams(session)).collect();
        let is_due = homed.is_empty() || self.rng.percent(30);
        if is_due { self.rng.pick(&all) } else { None }
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
                let session = self.roaming(&homed).unwrap_or(homed[self.rng.below(homed.len())]);
                let mut shared = self.pipeline(at);
                if roams(session) {
                    shared.retain(|op| matches!(op.verb, Verb::Add { .. }));
                }
                self.clients.send_new(session, at, shared, raises_mark)
            }
            60..80 => {
                let Some(session) = self.roaming(&homed).or_else(|| self.rng.pick(&homed)) else {
                    return Ok(());
                };
                let count = self.clients.sessions[session].requests.len();
                if count == 0 {
                    return Ok(());
                }
                // Mostly a recent one.
                let back_max = if self.rng.percent(70) { 5 } else { 1_000 };
                let number = count - self.rng.below(count.min(back_max));
                let add = self.clients.sessions[session].requests[number - 1].0;
                let asked = &self.clients.sessions[session];
                // Elsewhere, and before the home has logged it, nobody can know that the number is used.
                let is_known =
                    asked.home == at && asked.is_settled[number - 1] && self.twin != Twin::RollsBack;
                if self.rng.percent(10) && is_known && self.clients.adds[add] == Fate::Kept {
                    self.clients.forge(session, number as u64)
                } else {
                    self.clients.send(session, at, number as u64, raises_mark, true)
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
                let is_settled = self.clients.sessions[session].is_settled[number as usize - 1];
                if !is_settled && !self.clients.is_under_way(session, number) {
                    is_any = true;
                    let (ticket, part) = self.clients.send(session, home, number, true, true);
                    self.handle(home, Input::Write { ticket, part })?;
                }
            }
        }
        Ok(is_any)
    }

    pub(crate) fn answered(&mut self, at: usize, ticket: Ticket, result: Result<Outcome, Reject>) -> Checked {
        let Some(call) = self.clients.calls.remove(&ticket) else {
            if let Ok(Outcome { positions, .. }) = result {
                self.positions.extend(positions);
            }
            return Ok(());
        };
        let Call { add, session, is_forged, .. } = call;
        let named = session.map(|(session, number)| (&self.clients.sessions[session], number));
        match result {
            // A region that does not know yet that the number is used cannot refuse it.
            Ok(outcome) if is_forged && outcome.conditional => {}
            Ok(_) if is_forged => return Err(format!("S2: other ops under {session:?} were answered yes")),
            Ok(outcome) => {
                self.positions.extend(outcome.positions.iter().copied());
                let is_sync = self.regions[at].durability == Durability::Sync;
                let is_told = is_sync && self.twin != Twin::LosesDurable;
                if let (Some((session, number)), true) = (named, is_told) {
                    let disk = &self.regions[at].disk;
                    let held = |name, seq| disk.durable(name) >= seq;
                    self.ledger.covers_number(&outcome.positions, &session.id, number, held)?;
                }
                // A mark may pass what the authority has on disk alone.
                if let (Some((session, number)), false) = (session, outcome.conditional) {
                    self.clients.sessions[session].is_settled[number as usize - 1] = true;
                }
                let Some(add) = add else { return Ok(()) };
                if self.clients.adds[add] == Fate::Refused {
                    return Err(format!("S1: add {add} was refused for good, then answered yes"));
                }
                if is_sync || self.clients.adds[add] != Fate::Kept {
                    self.clients.adds[add] = if is_sync { Fate::Kept } else { Fate::Promised };
                }
                if is_sync {
                    self.check_seen(at, add)?;
                }
            }
            Err(reject) => match reject.code {
                RejectCode::NotWhole => {}
                // Its sets carry no stamp, and this region is not whole.
                RejectCode::Malformed if session.is_some() => {}
                RejectCode::Stale if named.is_some_and(|(session, number)| number < session.settled) => {}
                RejectCode::Conflict if is_forged => {}
                RejectCode::SessionFull => {
                    // A session of an earlier epoch cannot raise its mark any more.
                    let is_old = named.is_some_and(|(session, _)| session.id.epoch != self.regions[at].epoch);
                    // Where it was not logged before, that is final: of a first attempt it is known.
                    let is_final = reject.applied == Applied::No
                        && is_old
                        && !is_forged
                        // A region whose disk came back older may have forgotten how full the session was.
                        && self.twin != Twin::RollsBack;
                    let roams = session.is_some_and(|(session, _)| roams(session));
                    if let (Some(add), true) = (add, is_final && !roams) {
                        self.clients.adds[add] = Fate::Refused;
                    }
                    if let (Some((session, number)), true) = (session, is_old && !is_forged) {
                        self.clients.sessions[session].is_settled[number as usize - 1] = true;
                    }
                }
                _ => return Err(format!("a write to {call_at:?} was refused: {reject}", call_at = session)),
            },
        }
        Ok(())
    }
}
