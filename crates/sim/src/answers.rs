//! What regions do with requests: portions are admitted and logged, and the shards' answers go back, checked on their
//! way. What clients make of them is in `traffic.rs`. Start at `World::arrive`.

use bytes::Bytes;
use tombolo_causality::{Stamp, TenantId};
use tombolo_codec::{Op, PayloadDigest, ReadValue, Reject, RejectCode, SessionPart, Verb};
use tombolo_replica::{Input, Outcome, Ticket, WritePart};

use crate::checks::Checked;
use crate::clients::{Fate, Portion, Purpose, Stage};
use crate::process::DRIFT_MS_MAX;
use crate::rare::Rare;
use crate::world::{Event, World};

/// Positions kept for barriers.
const POSITIONS_MAX: usize = 64;

impl World {
    /// A request reaches a region: all portions are admitted before any is logged.
    pub(crate) fn arrive(&mut self, attempt: u64) -> Checked {
        let Some(sent) = self.clients.attempts.get(&attempt) else { return Ok(()) };
        let (node, request, purpose) = (sent.node, sent.request, sent.purpose);
        let (settled, is_retry, after) = (sent.settled, sent.is_retry, sent.after);
        let portions = self.clients.requests[request].portions.clone();
        let is_open = self.nodes[node].process.as_ref().is_some_and(|process| {
            portions.iter().all(|portion| process.shards[portion.shard].replica.has_room())
        });
        // A home that does not know its own past yet may take other ops conditionally: its caller's error, not its own.
        let is_unfair = purpose == Purpose::Forged && !self.nodes[node].is_whole();
        if !is_open || is_unfair {
            let busy = Reject::new(RejectCode::Busy, "nobody is there, or there is no room");
            self.refuse_all(attempt, &busy);
            return Ok(());
        }
        let place = (node, self.nodes[node].life);
        let arrived_at = &mut self.clients.requests[request].arrived_at;
        if !arrived_at.contains(&place) {
            arrived_at.push(place);
        }
        let part = |world: &Self, portion: &Portion| {
            let digest = if purpose == Purpose::Forged {
                PayloadDigest([9; 16])
            } else {
                world.clients.requests[request].digest
            };
            let session = world.clients.requests[request].session.map(|(session, number)| SessionPart {
                id: world.clients.sessions[session].id,
                number,
                settled,
                digest,
            });
            let ops = if purpose == Purpose::Forged {
                vec![Op { key: Bytes::from_static(b"forged"), verb: Verb::Add { delta: 1 } }]
            } else {
                portion.ops.clone()
            };
            let tenant = TenantId::DEFAULT;
            Box::new(WritePart { tenant, session, retry: is_retry, after, ops, wants_values: false })
        };
        if portions.len() > 1 {
            for portion in &portions {
                let ticket = self.ticket();
                let part = part(self, portion);
                self.input(node, portion.shard, Input::Check { ticket, part })?;
                match self.checked.remove(&ticket) {
                    Some(Ok(())) => {}
                    Some(Err(reject)) => {
                        self.refused(attempt, &reject)?;
                        self.refuse_all(attempt, &reject);
                        return Ok(());
                    }
                    None => return Err("a check is answered at once".to_owned()),
                }
            }
        }
        let wall = self.nodes[node].clock.read(self.queue.now());
        if let Some(sent) = self.clients.attempts.get_mut(&attempt) {
            sent.is_after_near = after < wall.plus_ms(DRIFT_MS_MAX);
        }
        let life = self.nodes[node].life;
        for (at, portion) in portions.iter().enumerate() {
            let seen = self.stamps_before(node, portion);
            if let Some(sent) = self.clients.attempts.get_mut(&attempt) {
                sent.seen[at] = seen;
            }
            let ticket = self.ticket();
            self.clients.calls.insert(ticket, (attempt, at));
            let part = part(self, portion);
            let is_whole = self.nodes[node]
                .process
                .as_ref()
                .is_some_and(|process| process.shards[portion.shard].is_whole);
            if !is_whole {
                self.rare.count(Rare::WroteNotWhole);
            }
            self.input(node, portion.shard, Input::Write { ticket, part })?;
            if self.nodes[node].life != life {
                break;
            }
        }
        Ok(())
    }

    /// The stamps of the registers that a portion sets, as they stand now.
    fn stamps_before(&mut self, node: usize, portion: &Portion) -> Vec<Option<Stamp>> {
        let is_set = |op: &Op| matches!(op.verb, Verb::Set { .. });
        if !portion.ops.iter().any(is_set) {
            return Vec::new();
        }
        let keys = portion.ops.iter().map(|op| op.key.clone()).collect();
        let values = self.read(node, portion.shard, keys);
        let stamp = |(op, value): (&Op, ReadValue)| match value {
            ReadValue::Register { stamp, .. } if is_set(op) => Some(stamp),
            _ => None,
        };
        portion.ops.iter().zip(values).map(stamp).collect()
    }

    fn refuse_all(&mut self, attempt: u64, reject: &Reject) {
        let Some(sent) = self.clients.attempts.get_mut(&attempt) else { return };
        sent.results.iter_mut().for_each(|result| *result = Some(Err(reject.clone())));
        self.answer_soon(attempt);
    }

    fn answer_soon(&mut self, attempt: u64) {
        let Some(sent) = self.clients.attempts.get(&attempt) else { return };
        if sent.results.iter().any(Option::is_none) {
            return;
        }
        let loss = if self.is_healing { 0 } else { self.plan.request_loss_percent };
        if !self.chance.percent(loss) {
            let delay = self.client_delay(true);
            self.queue.after(delay, Event::Answer { attempt });
        }
    }

    /// A shard answered a portion.
    pub(crate) fn written(
        &mut self,
        node: usize,
        shard: usize,
        ticket: Ticket,
        result: Result<Outcome, Reject>,
    ) -> Checked {
        let Some((attempt, at)) = self.clients.calls.remove(&ticket) else { return Ok(()) };
        self.trace_answer((node, shard), (attempt, at), &result);
        match &result {
            Ok(outcome) => self.answered_yes(node, shard, (attempt, at), outcome)?,
            Err(reject) => self.refused(attempt, reject)?,
        }
        if let Some(sent) = self.clients.attempts.get_mut(&attempt) {
            sent.results[at] = Some(result);
            self.answer_soon(attempt);
        }
        Ok(())
    }

    fn trace_answer(
        &self,
        (node, shard): (usize, usize),
        (attempt, at): (u64, usize),
        result: &Result<Outcome, Reject>,
    ) {
        let Some(sent) = self.clients.attempts.get(&attempt) else { return };
        let request = &self.clients.requests[sent.request];
        self.trace(|| {
            let what = match result {
                Ok(outcome) => {
                    format!("yes, {:?}, conditional: {}", outcome.positions, outcome.conditional)
                }
                Err(reject) => reject.to_string(),
            };
            let (session, add) = (request.session, request.portions[at].add);
            format!(
                "region {} answers {:?} {session:?}, settled {}, add {add} of shard {shard}: {what}",
                node + 1,
                sent.purpose,
                sent.settled
            )
        });
    }

    fn answered_yes(
        &mut self,
        node: usize,
        shard: usize,
        (attempt, at): (u64, usize),
        outcome: &Outcome,
    ) -> Checked {
        for &position in &outcome.positions {
            self.clients.positions.push(position);
            if self.clients.positions.len() > POSITIONS_MAX {
                self.clients.positions.remove(0);
            }
        }
        if outcome.replayed {
            self.rare.count(Rare::RetryRecognised);
        }
        let Some(sent) = self.clients.attempts.get(&attempt) else { return Ok(()) };
        let request = sent.request;
        if outcome.conditional {
            self.rare.count(Rare::Conditional);
        }
        let is_forged = sent.purpose == Purpose::Forged;
        self.check_yes(node, shard, (attempt, at), outcome)?;
        if is_forged || self.is_gone(node) {
            return Ok(());
        }
        let add = self.clients.requests[request].portions[at].add;
        let is_relaxed = self.nodes[node].is_relaxed;
        let is_given_up = self.clients.requests[request].stage == Stage::Settled;
        let add = &mut self.clients.adds[shard][add];
        add.is_conditional &= outcome.conditional;
        if add.fate != Fate::Kept && !(outcome.conditional && is_given_up) {
            add.fate = if is_relaxed { Fate::Promised } else { Fate::Kept };
        }
        Ok(())
    }

    /// Which refusals may come at all.
    fn refused(&mut self, attempt: u64, reject: &Reject) -> Checked {
        let Some(sent) = self.clients.attempts.get(&attempt) else { return Ok(()) };
        let session = self.clients.requests[sent.request].session;
        let is_below =
            session.is_some_and(|(session, number)| number < self.clients.sessions[session].settled);
        let rare = match reject.code {
            RejectCode::Stale if is_below => Some(Rare::StaleRefused),
            RejectCode::Stale => return Err(format!("S3: {session:?} lies at or above its mark: {reject}")),
            RejectCode::Conflict if sent.purpose == Purpose::Forged => Some(Rare::ConflictRefused),
            RejectCode::Conflict if self.checks.s2.is_forged(sent.request) => None,
            RejectCode::Conflict => return Err(format!("S2: the same ops under {session:?}: {reject}")),
            RejectCode::SessionFull => Some(Rare::SessionFull),
            RejectCode::StampBehind => Some(Rare::StampBehind),
            RejectCode::ClockSkew => Some(Rare::ClockSkew),
            RejectCode::StorageFull => Some(Rare::RefusedWhenFull),
            RejectCode::SessionExpired => Some(Rare::ExpiredRefused),
            RejectCode::NotWhole
            | RejectCode::NotAuthority
            | RejectCode::StorageFailed
            | RejectCode::WrongType
            | RejectCode::Overflow
            | RejectCode::Malformed
            | RejectCode::Busy => None,
            RejectCode::Removed if !self.truth.gone.is_empty() => None,
            _ => return Err(format!("a write was refused: {reject}")),
        };
        if reject.code == RejectCode::StorageFull {
            crate::checks::w6::refused(reject)?;
        }
        rare.into_iter().for_each(|rare| self.rare.count(rare));
        Ok(())
    }
}
