//! What clients do: new requests, retries, the same request in several regions at once, probes that must be refused,
//! barriers; and how they take the answers. What regions do with them is in `answers.rs`. Start at `World::wake`.

use bytes::Bytes;
use tombolo_causality::{SessionId, Stamp, TenantId, Time};
use tombolo_codec::{Applied, Kind, Op, Reject, RejectCode, StampSource, Verb, request_digest};
use tombolo_mutants::{Mutant, is_planted};
use tombolo_replica::{Input, Outcome};

use crate::checks::Checked;
use crate::clients::{Attempt, Fate, Portion, Purpose, Request, Session, Stage, add_op};
use crate::queue::{MS, Micros, SECOND};
use crate::rare::Rare;
use crate::world::{Event, World};

impl World {
    /// A client does something, and again after a while.
    pub(crate) fn wake(&mut self, client: usize) -> Checked {
        if self.is_healing {
            return Ok(());
        }
        let pause = self.chance.around(self.plan.think);
        self.queue.after(pause, Event::Wake { client });
        let waiting: Vec<usize> = self.clients.clients[client]
            .open
            .iter()
            .copied()
            .filter(|&request| self.clients.requests[request].outstanding == 0)
            .collect();
        match self.chance.below(100) {
            0..5 => self.probe(client),
            5..9 => self.wait_at_barrier(),
            9..50 if !waiting.is_empty() => {
                let request = waiting[self.chance.index(waiting.len())];
                self.again(request);
                Ok(())
            }
            _ if self.clients.clients[client].open.len() > 12 => {
                if let Some(request) = self.chance.pick(&waiting) {
                    self.again(request);
                }
                Ok(())
            }
            draw => {
                self.send_new(client, draw.is_multiple_of(5));
                Ok(())
            }
        }
    }

    // ---- sending ------------------------------------------------------------------------------------------------

    fn send_new(&mut self, client: usize, is_plain: bool) {
        let session = if is_plain { None } else { self.session_of(client) };
        if session.is_none() && !is_plain {
            return;
        }
        let home = session.map_or(self.clients.clients[client].home, |at| self.clients.sessions[at].home);
        let request = self.clients.requests.len();
        let shards = usize::from(self.plan.shards);
        let count = if self.chance.percent(75) { 1 } else { 1 + self.chance.index(shards.min(3)) };
        let first = self.chance.index(shards);
        let mut portions = Vec::new();
        for shard in (0..count.min(shards)).map(|next| (first + next) % shards) {
            let add = self.clients.account(shard, request);
            let mut ops = vec![add_op(add)];
            let shared = if self.chance.percent(55) { 0 } else { 1 + self.chance.index(4) };
            ops.extend((0..shared).map(|_| self.shared_op(home)));
            portions.push(Portion { shard, add, ops });
        }
        let all: Vec<Op> = portions.iter().flat_map(|portion| portion.ops.iter().cloned()).collect();
        let number = session.map(|at| {
            self.clients.sessions[at].requests.push(request);
            (at, self.clients.sessions[at].requests.len() as u64)
        });
        self.clients.requests.push(Request {
            client,
            session: number,
            portions,
            digest: request_digest(TenantId::DEFAULT, &all),
            stage: Stage::Open,
            attempts: 0,
            outstanding: 0,
            is_maybe: false,
            is_answered: false,
            arrived_at: Vec::new(),
            sent: self.queue.now(),
        });
        self.clients.clients[client].open.push(request);
        self.send_attempt(request, home, Purpose::Honest);
        if number.is_some() && self.chance.percent(6) {
            // Twice at once: to the home again, or to another region.
            let node = if self.chance.percent(50) { home } else { self.chance.index(self.nodes.len()) };
            self.send_attempt(request, node, Purpose::Honest);
        }
    }

    /// The client's session; a new one where there is none, or its home started anew or is away.
    fn session_of(&mut self, client: usize) -> Option<usize> {
        let present = self.clients.clients[client].session;
        if let Some(at) = present {
            let session = &self.clients.sessions[at];
            let process = self.nodes[session.home].process.as_ref();
            let is_same = process.is_none_or(|process| process.epoch == session.id.epoch);
            let age = self.nodes[session.home].clock.read(self.queue.now()).seconds_since(session.id.opened);
            let is_young = age * 2.0 < self.plan.window as f64 / SECOND as f64 || self.chance.percent(30);
            let is_kept = is_young && if is_same { !self.chance.percent(1) } else { self.chance.percent(30) };
            if is_kept && (process.is_some() || !self.chance.percent(20)) {
                return present;
            }
        }
        let mut home = self.clients.clients[client].home;
        if (self.is_gone(home) || !self.nodes[home].is_up()) && self.chance.percent(60) {
            home = self.chance.index(self.nodes.len());
            self.clients.clients[client].home = home;
        }
        let epoch = self.nodes[home].process.as_ref()?.epoch;
        let opened = self.nodes[home].clock.read(self.queue.now());
        let id = SessionId { home: self.nodes[home].id, epoch, opened, random: self.chance.next() };
        self.clients.sessions.push(Session { id, home, requests: Vec::new(), settled: 1 });
        self.clients.clients[client].session = Some(self.clients.sessions.len() - 1);
        self.clients.clients[client].session
    }

    /// An op on cells that all clients share: nothing is known of their values but the rules.
    fn shared_op(&mut self, home: usize) -> Op {
        let wall = self.nodes[home].clock.read(self.queue.now());
        let region = self.nodes[home].id;
        let chance = &mut self.chance;
        let stamp = |chance: &mut crate::chance::Chance| match chance.below(3) {
            0 => StampSource::Fixed(Stamp {
                time: Time(wall.0 - chance.below(1 << 29)),
                region,
                op: chance.wide(),
            }),
            _ => StampSource::Here(chance.wide()),
        };
        let (prefix, verb) = match chance.below(20) {
            0..=8 => ("c", Verb::Add { delta: i64::try_from(chance.below(9)).expect("small") - 4 }),
            9 => ("c", Verb::Delete { kind: Some(Kind::Counter), stamp: stamp(chance) }),
            10..=12 => ("r", Verb::Delete { kind: None, stamp: stamp(chance) }),
            _ => {
                let value = Bytes::from(vec![b'a' + chance.below(26) as u8; chance.index(40)]);
                let expires_at = chance.percent(15).then(|| Time(wall.0 + chance.below(1 << 35)));
                ("r", Verb::Set { value, expires_at, stamp: stamp(chance) })
            }
        };
        // Some keys are of both kinds.
        let prefix = if chance.percent(5) { "x" } else { prefix };
        Op { key: Bytes::from(format!("{prefix}{}", chance.below(self.plan.keys))), verb }
    }

    /// Sends an open request again: home, or wherever; or gives it up.
    fn again(&mut self, request: usize) {
        let Some((session, _)) = self.clients.requests[request].session else {
            // Without a number a second attempt would be another write.
            self.settle(request);
            return;
        };
        let age = self.queue.now() - self.clients.requests[request].sent;
        if age > 15 * SECOND && self.chance.percent(10) {
            self.settle(request);
            return;
        }
        let home = self.clients.sessions[session].home;
        let home = self.answers_for(home);
        let node = if self.chance.percent(75) { home } else { self.chance.index(self.nodes.len()) };
        self.send_attempt(request, node, Purpose::Honest);
        if self.chance.percent(8) {
            let other = self.chance.index(self.nodes.len());
            self.send_attempt(request, other, Purpose::Honest);
        }
    }

    pub(crate) fn send_attempt(&mut self, request: usize, node: usize, purpose: Purpose) {
        let home =
            self.clients.requests[request].session.map(|(session, _)| self.clients.sessions[session].home);
        let settled = self.settled_mark(request);
        let after = self.clients.clients[self.clients.requests[request].client].seen;
        let target = &mut self.clients.requests[request];
        let is_retry = target.attempts > 0 || purpose != Purpose::Honest;
        target.attempts += 1;
        target.outstanding += 1;
        if home.is_some_and(|home| home != node) {
            self.rare.count(Rare::Roamed);
        }
        self.clients.attempts_count += 1;
        let attempt = self.clients.attempts_count;
        let portions = self.clients.requests[request].portions.len();
        self.clients.attempts.insert(
            attempt,
            Attempt {
                request,
                node,
                purpose,
                is_retry,
                settled,
                after,
                is_after_near: false,
                results: vec![None; portions],
                seen: vec![Vec::new(); portions],
                is_timed_out: false,
            },
        );
        let loss = if self.is_healing { 0 } else { self.plan.request_loss_percent };
        let delay = self.client_delay(home == Some(node) || home.is_none());
        if !self.chance.percent(loss) {
            self.queue.after(delay, Event::Arrive { attempt });
        } else if self.chance.percent(30) {
            // Not lost: held up somewhere, for longer than anybody waits.
            let later = self.chance.below(6 * SECOND);
            self.queue.after(delay + later, Event::Arrive { attempt });
        }
        self.queue.after(self.plan.timeout, Event::TimedOut { attempt });
    }

    pub(crate) fn client_delay(&mut self, is_near: bool) -> Micros {
        self.chance.range(100, if is_near { 2 * MS } else { 80 * MS })
    }

    /// The settled mark that a request may carry: no open number lies below it.
    fn settled_mark(&mut self, request: usize) -> u64 {
        let Some((session, _)) = self.clients.requests[request].session else { return 0 };
        let requests = &self.clients.requests;
        let target = &mut self.clients.sessions[session];
        let is_settled = |number: u64| {
            let at = usize::try_from(number - 1).expect("few numbers");
            target.requests.get(at).is_some_and(|&request| requests[request].stage == Stage::Settled)
        };
        let mut settled = target.settled;
        while is_settled(settled) {
            settled += 1;
        }
        target.settled = settled;
        if self.chance.percent(60) { settled } else { 0 }
    }

    /// Asks for what must not be done: other ops under a used number, or a number below the mark.
    fn probe(&mut self, client: usize) -> Checked {
        let Some(session) = self.clients.clients[client].session else { return Ok(()) };
        let requests = self.clients.sessions[session].requests.clone();
        let answered: Vec<usize> = requests
            .iter()
            .copied()
            .filter(|&at| self.clients.requests[at].is_answered && self.is_kept(at))
            .collect();
        let Some(request) = self.chance.pick(&answered) else { return Ok(()) };
        let number = self.clients.requests[request].session.map_or(0, |(_, number)| number);
        let home = self.clients.sessions[session].home;
        if self.is_gone(home) {
            return Ok(());
        }
        let is_stale = number < self.clients.sessions[session].settled;
        let purpose = if is_stale && self.chance.percent(60) { Purpose::Stale } else { Purpose::Forged };
        self.send_attempt(request, home, purpose);
        Ok(())
    }

    fn wait_at_barrier(&mut self) -> Checked {
        let Some(position) = self.chance.pick(&self.clients.positions) else { return Ok(()) };
        let node = self.chance.index(self.nodes.len());
        let shard = usize::from(position.log.shard.0);
        let ticket = self.ticket();
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        process.shards[shard].barriers.insert(ticket, position);
        let delay = self.chance.range(200, 6_000) * MS;
        self.queue.after(delay, Event::Cancel { node, life, shard, ticket });
        self.input(node, shard, Input::Await { ticket, positions: vec![position] })
    }

    // ---- back at the client -------------------------------------------------------------------------------------

    /// The whole answer reaches the client.
    pub(crate) fn answer(&mut self, attempt: u64) {
        let Some(sent) = self.clients.attempts.get(&attempt) else { return };
        let (request, purpose, was_late) = (sent.request, sent.purpose, sent.is_timed_out);
        let results: Vec<Result<Outcome, Reject>> = sent.results.iter().flatten().cloned().collect();
        self.clients.attempts.remove(&attempt);
        let client = self.clients.requests[request].client;
        for outcome in results.iter().flatten() {
            for stamp in outcome.stamps.iter().flatten() {
                let seen = &mut self.clients.clients[client].seen;
                *seen = stamp.time.max(*seen);
            }
        }
        if !was_late {
            self.clients.requests[request].outstanding -= 1;
        }
        if purpose != Purpose::Honest || was_late {
            return;
        }
        let may_settle = |outcome: &Outcome| !outcome.conditional || is_planted(Mutant::MarkMovesOnAnyAnswer);
        let is_yes = results.iter().all(|result| result.as_ref().is_ok_and(may_settle));
        let is_no =
            results.iter().all(|result| matches!(result, Err(reject) if reject.applied == Applied::No));
        let target = &mut self.clients.requests[request];
        target.is_maybe |= !is_no;
        let home = target.session.map(|(session, _)| self.clients.sessions[session].home);
        if is_yes {
            self.clients.requests[request].is_answered = true;
            self.settle(request);
            return;
        }
        let is_final = results.iter().flat_map(|result| result.as_ref().err()).any(|reject| {
            matches!(
                reject.code,
                RejectCode::WrongType
                    | RejectCode::Overflow
                    | RejectCode::StampBehind
                    | RejectCode::ClockSkew
                    | RejectCode::Malformed
                    | RejectCode::Stale
                    | RejectCode::SessionExpired
            )
        });
        // A session of an earlier epoch cannot raise its mark any more.
        let is_full = results
            .iter()
            .flat_map(|result| result.as_ref().err())
            .any(|reject| reject.code == RejectCode::SessionFull && reject.retry_after_ms.is_none());
        if is_full {
            self.clients.clients[client].session = None;
        }
        // Another copy may have been taken elsewhere: then the authority is asked until it knows.
        let is_alone =
            !self.clients.requests[request].is_maybe && self.clients.requests[request].outstanding == 0;
        let is_over = self.is_healing && self.queue.now() > self.healing_since + 5 * SECOND;
        if (is_final && (is_alone || is_over)) || is_full || home.is_none() {
            self.settle(request);
        }
    }

    pub(crate) fn timed_out(&mut self, attempt: u64) {
        let Some(sent) = self.clients.attempts.get_mut(&attempt) else { return };
        sent.is_timed_out = true;
        let request = sent.request;
        let target = &mut self.clients.requests[request];
        target.is_maybe = true;
        target.outstanding -= 1;
    }

    /// The client is done with a request: answered, refused for good, or told that its fate is unknown.
    pub(crate) fn settle(&mut self, request: usize) {
        let target = &mut self.clients.requests[request];
        if target.stage == Stage::Settled {
            return;
        }
        target.stage = Stage::Settled;
        let is_refused = !target.is_maybe && target.outstanding == 0;
        target.is_maybe = true;
        let client = target.client;
        self.clients.clients[client].open.retain(|&open| open != request);
        let is_answered = self.clients.requests[request].is_answered;
        for portion in self.clients.requests[request].portions.clone() {
            let add = &mut self.clients.adds[portion.shard][portion.add];
            if add.fate == Fate::Unknown && is_refused {
                add.fate = Fate::Refused;
            } else if add.fate == Fate::Kept && add.is_conditional && !is_answered {
                // Its caller was told that the outcome is unknown: what is conditional goes when the mark passes it.
                add.fate = Fate::Unknown;
            }
        }
    }

    /// Sends again, home, what has no final answer; whether there was anything.
    pub(crate) fn settle_rest(&mut self) -> bool {
        let mut is_any = false;
        for request in 0..self.clients.requests.len() {
            let target = &self.clients.requests[request];
            if target.stage == Stage::Settled || target.outstanding > 0 {
                is_any |= target.stage == Stage::Open;
                continue;
            }
            is_any = true;
            match target.session {
                Some((session, _)) => {
                    let home = self.answers_for(self.clients.sessions[session].home);
                    self.send_attempt(request, home, Purpose::Honest);
                }
                None => self.settle(request),
            }
        }
        is_any
    }

    /// Whether every add of a request counts for ever.
    fn is_kept(&self, request: usize) -> bool {
        let portions = &self.clients.requests[request].portions;
        portions.iter().all(|portion| self.clients.adds[portion.shard][portion.add].fate == Fate::Kept)
    }
}
