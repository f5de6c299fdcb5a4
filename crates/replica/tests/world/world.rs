//! Regions, their disks and the network between them on one seed: draws what happens next, runs the effects, checks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tombolo_causality::{
    ClusterId, Epoch, LogId, RegionId, Seq, SessionId, ShardId, TenantId, Time, VersionVector,
};
use tombolo_codec::{Position, ReadValue, Reject, RejectCode, Schema};
use tombolo_replica::{Answer, Durability, Effect, Input, Link, Now, Options, Outcome, Replica, Ticket};

use crate::checks::{Ledger, check_digits};
use crate::clients::{Call, Clients, DIGITS, Fate, key_of, shared_op};
use crate::disk::{Disk, LogName, name_of};
use crate::net::{LANES, Message, Net};
use crate::rng::{EventHash, Rng};
use crate::sabotage::{Forger, Twin};

pub(crate) const SHARD: ShardId = ShardId(0);
pub(crate) const CLUSTER: ClusterId = ClusterId(7);
const SESSION_NUMBERS_MAX: usize = 12;
const CHECK_TICKET: Ticket = Ticket(u64::MAX);

struct Load {
    peer: RegionId,
    link: Link,
    log: LogId,
    from: Seq,
}

pub(crate) struct Region {
    pub(crate) id: RegionId,
    pub(crate) epoch: Epoch,
    pub(crate) replica: Option<Replica>,
    pub(crate) disk: Disk,
    pub(crate) durability: Durability,
    loads: VecDeque<Load>,
    paused: BTreeSet<RegionId>,
    /// The digits seen per counter, also by earlier incarnations.
    seen: Vec<u64>,
    was_rolled_back: bool,
    is_changed: bool,
    wall_offset: u64,
}

/// A barrier somebody waits at.
struct Waiter {
    at: usize,
    position: Position,
    reached: BTreeSet<RegionId>,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) hash: EventHash,
    pub(crate) regions: Vec<Region>,
    pub(crate) net: Net,
    pub(crate) clients: Clients,
    pub(crate) twin: Twin,
    ledger: Ledger,
    forger: Forger,
    positions: Vec<Position>,
    waiters: BTreeMap<Ticket, Waiter>,
    readers: BTreeMap<Ticket, (usize, Position)>,
    steps: u64,
    pub(crate) restarts: u64,
}

pub(crate) type Checked = Result<(), String>;

impl World {
    pub(crate) fn new(seed: u64, count: usize, relaxed_percent: u64, twin: Twin) -> Self {
        let mut rng = Rng::new(seed);
        let regions = (0..count)
            .map(|at| Region {
                id: RegionId::new(at as u16 + 1).expect("a world has few regions"),
                epoch: Epoch(0),
                replica: None,
                disk: Disk::default(),
                durability: if rng.percent(relaxed_percent) { Durability::Relaxed } else { Durability::Sync },
                loads: VecDeque::new(),
                paused: BTreeSet::new(),
                seen: Vec::new(),
                was_rolled_back: false,
                is_changed: false,
                wall_offset: rng.below(1 << 29) as u64,
            })
            .collect();
        Self {
            rng,
            hash: EventHash::default(),
            regions,
            net: Net::default(),
            clients: Clients::default(),
            twin,
            ledger: Ledger::default(),
            forger: Forger::default(),
            positions: Vec::new(),
            waiters: BTreeMap::new(),
            readers: BTreeMap::new(),
            steps: 0,
            restarts: 0,
        }
    }

    pub(crate) fn now(&self, at: usize) -> Now {
        let wall = Time((1_700_000_000 << 32) + self.steps * 800_000 + self.regions[at].wall_offset);
        Now { wall, monotonic_ms: self.steps / 5 }
    }

    // ---- inputs -------------------------------------------------------------------------------------------------

    pub(crate) fn handle(&mut self, at: usize, input: Input) -> Checked {
        let now = self.now(at);
        if let Some(replica) = &mut self.regions[at].replica {
            replica.handle(input, now);
        }
        self.run_effects(at)
    }

    pub(crate) fn flush(&mut self, at: usize) -> Checked {
        let now = self.now(at);
        if let Some(replica) = &mut self.regions[at].replica {
            replica.flush(now);
        }
        self.run_effects(at)
    }

    pub(crate) fn start(&mut self, at: usize, from_checkpoint: bool) -> Checked {
        let epoch = Epoch(self.rng.wide());
        self.restarts += 1;
        let now = self.now(at);
        let members = self.regions.iter().map(|region| region.id).collect();
        let region = &mut self.regions[at];
        let options = options(region.id, epoch, members, region.durability);
        let checkpoint = region.disk.checkpoint.as_ref().filter(|_| from_checkpoint);
        let mut replica = Replica::open(options, checkpoint);
        let mut names: Vec<LogName> = region.disk.logs.keys().copied().collect();
        // Logs come back in any order.
        for at in (1..names.len()).rev() {
            names.swap(at, self.rng.below(at + 1));
        }
        for name in names {
            for batch in &region.disk.logs[&name] {
                replica.replay(batch).map_err(|why| format!("replay: {why}"))?;
            }
        }
        replica.start(now);
        region.epoch = epoch;
        region.replica = Some(replica);
        region.is_changed = true;
        self.run_effects(at)
    }

    pub(crate) fn crash(&mut self, at: usize) {
        self.net.crash(at, &mut self.rng);
        self.clients.crash(at);
        let region = &mut self.regions[at];
        region.replica = None;
        region.loads.clear();
        region.paused.clear();
        region.disk.crash(&mut self.rng);
        self.waiters.retain(|_, waiter| waiter.at != at);
        self.readers.retain(|_, (reader, _)| *reader != at);
    }

    /// The disk of a crashed region comes back older, but only by what somebody else holds durable.
    pub(crate) fn roll_back(&mut self, at: usize) {
        let mut others: BTreeMap<LogName, usize> = BTreeMap::new();
        for (_, other) in self.regions.iter().enumerate().filter(|&(other, _)| other != at) {
            for (&name, batches) in &other.disk.logs {
                let known = others.entry(name).or_default();
                *known = batches.len().max(*known);
            }
        }
        let rng = &mut self.rng;
        self.regions[at].disk.roll_back(|name, len| {
            let safe = others.get(&name).copied().unwrap_or(0).min(len);
            // All that is beyond `safe` exists here alone.
            if safe < len { len } else { rng.below(len + 1) }
        });
        self.regions[at].was_rolled_back = true;
    }

    pub(crate) fn deliver(&mut self, id: u64, to: usize, lane: usize) -> Checked {
        let Some(connection) = self.net.connections.get_mut(&id) else { return Ok(()) };
        let from_at = connection.other(to);
        let direction = connection.towards(to);
        let Some(message) = direction.lanes[lane].pop_front() else { return Ok(()) };
        let (from, link) = (self.regions[from_at].id, Link(id));
        let input = match message {
            Message::Hello { epoch } => {
                direction.is_up = true;
                Input::PeerUp { peer: from, epoch, link }
            }
            Message::Answer { mut received, applied } => {
                if self.twin == Twin::AnswersLow {
                    received = lowered(&received, self.regions[to].id);
                }
                Input::PeerAnswer { peer: from, link, received, applied }
            }
            Message::Control(tombolo_codec::PeerMessage::Subscribe { log, from: seq }) => {
                Input::Subscribe { from, link, log, seq }
            }
            Message::Control(tombolo_codec::PeerMessage::Unsubscribe { log }) => {
                Input::Unsubscribe { from, link, log }
            }
            Message::Control(other) => return Err(format!("a replica sent {other:?}")),
            Message::Batch(batch) => {
                let is_dropped = self.twin == Twin::AltersBatch && self.rng.percent(5);
                let Some(batch) = self.forger.pass(to, batch, is_dropped) else { return Ok(()) };
                Input::Remote { from, link, batch }
            }
        };
        self.handle(to, input)
    }

    pub(crate) fn deliver_acks(&mut self, id: u64, to: usize) -> Checked {
        let Some(connection) = self.net.connections.get_mut(&id) else { return Ok(()) };
        let from_at = connection.other(to);
        let acks = std::mem::take(&mut connection.towards(to).acks);
        let positions = acks.into_iter().map(|(log, seq)| Position { log, seq }).collect();
        self.handle(to, Input::Acked { from: self.regions[from_at].id, link: Link(id), positions })
    }

    pub(crate) fn tell_down(&mut self, id: u64, to: usize) -> Checked {
        let Some(connection) = self.net.connections.get_mut(&id) else { return Ok(()) };
        let peer = self.regions[connection.other(to)].id;
        let direction = connection.towards(to);
        let was_up = direction.is_up;
        direction.is_closed = true;
        direction.clear();
        self.net.sweep();
        if was_up { self.handle(to, Input::PeerDown { peer, link: Link(id) }) } else { Ok(()) }
    }

    pub(crate) fn sync(&mut self, at: usize, name: LogName, count: usize) -> Checked {
        let region = &mut self.regions[at];
        let is_kept = self.twin != Twin::LosesDurable || name.0 != region.id;
        let through = region.disk.sync(name, count, is_kept);
        self.handle(
            at,
            Input::Durable { log: LogId { shard: SHARD, region: name.0, epoch: name.1 }, through },
        )
    }

    pub(crate) fn stage(&mut self, at: usize) -> Checked {
        let region = &self.regions[at];
        let name = (region.id, region.epoch);
        let through = region.disk.appended(name);
        self.handle(at, Input::Staged { log: LogId { shard: SHARD, region: name.0, epoch: name.1 }, through })
    }

    pub(crate) fn load(&mut self, at: usize, count_max: usize) -> Checked {
        let Some(load) = self.regions[at].loads.pop_front() else { return Ok(()) };
        let Load { peer, link, log, from } = load;
        let all = self.regions[at].disk.logs.get(&(log.region, log.epoch));
        let first = from.0 as usize - 1;
        let batches =
            all.map_or_else(Vec::new, |all| all.iter().skip(first).take(count_max).cloned().collect());
        self.handle(at, Input::Loaded { peer, link, log, batches })
    }

    pub(crate) fn has_loads(&self, at: usize) -> bool {
        !self.regions[at].loads.is_empty()
    }

    pub(crate) fn pause(&mut self, at: usize, peer: RegionId, is_paused: bool) -> Checked {
        let paused = &mut self.regions[at].paused;
        if is_paused {
            paused.insert(peer)
        } else {
            paused.remove(&peer)
        };
        self.handle(at, Input::PauseApply { peer, is_paused })
    }

    pub(crate) fn is_paused(&self, at: usize, peer: RegionId) -> bool {
        self.regions[at].paused.contains(&peer)
    }

    pub(crate) fn unpause_all(&mut self) -> Checked {
        for at in 0..self.regions.len() {
            for peer in self.regions[at].paused.clone() {
                self.pause(at, peer, false)?;
            }
        }
        Ok(())
    }

    pub(crate) fn checkpoint(&mut self, at: usize) -> Checked {
        let Some(checkpoint) = self.regions[at].replica.as_ref().map(Replica::checkpoint) else {
            return Ok(());
        };
        let bytes = checkpoint.encode(CLUSTER, SHARD).map_err(|why| why.to_string())?;
        let read =
            tombolo_codec::Checkpoint::decode(&bytes, CLUSTER, SHARD).map_err(|why| why.to_string())?;
        self.regions[at].disk.checkpoint = Some(read);
        Ok(())
    }

    pub(crate) fn wait(&mut self, at: usize) -> Checked {
        let Some(position) = self.rng.pick(&self.positions) else { return Ok(()) };
        let ticket = self.clients.ticket();
        if self.rng.percent(50) {
            self.waiters.insert(ticket, Waiter { at, position, reached: BTreeSet::new() });
            self.handle(at, Input::Await { ticket, positions: vec![position] })
        } else {
            self.readers.insert(ticket, (at, position));
            let (tenant, keys) = (TenantId::DEFAULT, vec![key_of(0)]);
            self.handle(at, Input::Read { ticket, tenant, keys, after: vec![position] })
        }
    }

    // ---- clients ------------------------------------------------------------------------------------------------

    fn shared(&mut self, at: usize) -> tombolo_codec::Op {
        let (now, id) = (self.now(at).wall, self.regions[at].id);
        shared_op(&mut self.rng, now, id)
    }

    /// A few ops for a pipeline after an accounted add; of one kind a key, so that they are never refused.
    fn pipeline(&mut self, at: usize) -> Vec<tombolo_codec::Op> {
        let count = if self.rng.percent(70) { 0 } else { self.rng.below(4) };
        let is_safe = |op: &tombolo_codec::Op| {
            use tombolo_codec::{StampSource, Verb};
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
                (ticket, crate::clients::part(ops, None, false))
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

    fn answered(&mut self, at: usize, ticket: Ticket, result: Result<Outcome, Reject>) -> Checked {
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

    // ---- effects ------------------------------------------------------------------------------------------------

    fn run_effects(&mut self, at: usize) -> Checked {
        self.steps += 1;
        let mut answers = Vec::new();
        while let Some(effect) = self.regions[at].replica.as_mut().and_then(Replica::poll_effect) {
            match effect {
                Effect::Answer { ticket, answer: Answer::Written(result) } => answers.push((ticket, result)),
                Effect::Answer { ticket, answer: Answer::Read(_) } => {
                    if let Some((reader, position)) = self.readers.remove(&ticket) {
                        self.check_held(reader, &position, "R3: a read with a token")?;
                    }
                }
                effect => self.run_effect(at, effect)?,
            }
        }
        if std::mem::take(&mut self.regions[at].is_changed) {
            self.check_region(at)?;
        }
        for (ticket, result) in answers {
            self.hash.mix(ticket.0 << 1 | u64::from(result.is_ok()));
            self.answered(at, ticket, result)?;
        }
        Ok(())
    }

    fn run_effect(&mut self, at: usize, effect: Effect) -> Checked {
        let (id, epoch) = (self.regions[at].id, self.regions[at].epoch);
        match effect {
            Effect::Append(batch) => {
                self.hash.mix(batch.header().seq.0 << 8 | at as u64);
                self.ledger.appended(&batch, (id, epoch), self.twin != Twin::AltersBatch)?;
                if self.twin == Twin::AcksEarly && name_of(&batch).0 != id {
                    let (log, seq) = (batch.header().log, batch.header().seq);
                    self.ack(at, Position { log, seq });
                }
                self.regions[at].disk.append(batch, self.twin != Twin::LosesDurable)?;
            }
            Effect::Ship { peer, link, batch } => {
                let (name, seq) = (name_of(&batch), batch.header().seq);
                if self.twin != Twin::LosesDurable && self.regions[at].disk.durable(name) < seq {
                    return Err(format!("R2: {id:?} ships batch {seq} of {name:?} before it is durable"));
                }
                let lane = 1 + (name.1.0 as usize) % (LANES - 1);
                self.send(at, peer, link, lane, Message::Batch(batch));
            }
            Effect::Send { peer, link, message } => self.send(at, peer, link, 0, Message::Control(message)),
            Effect::Describe { peer, link, received, applied } => {
                self.send(at, peer, link, 0, Message::Answer { received, applied });
                if let Some(connection) = self.net.connections.get_mut(&link.0) {
                    let to = connection.other(at);
                    connection.towards(to).is_answered = true;
                }
            }
            Effect::Load { peer, link, log, from, .. } => {
                self.regions[at].loads.push_back(Load { peer, link, log, from });
            }
            Effect::Ack(position) => {
                self.regions[at].is_changed = true;
                self.check_held(at, &position, "R2: an ack")?;
                self.ack(at, position);
            }
            Effect::Reached { ticket, region } => {
                let Some(waiter) = self.waiters.get_mut(&ticket) else { return Ok(()) };
                waiter.reached.insert(region);
                let (position, target) = (waiter.position, usize::from(region.get()) - 1);
                self.hash.mix(u64::from(region.get()));
                self.check_held(target, &position, "R3: reached")?;
            }
            Effect::Voided { ticket, region } => {
                if let Some(waiter) = self.waiters.get_mut(&ticket) {
                    waiter.reached.remove(&region);
                }
            }
            Effect::BecameWhole => self.hash.mix(0x77),
            Effect::Notice(notice) => {
                // The chain of digests shows altered bytes too; there the digest of the state is to show them alone.
                let is_expected = matches!(notice.code, "clock_ahead" | "token_ahead")
                    || (self.twin == Twin::AltersBatch && notice.code == "fork");
                if !is_expected {
                    return Err(format!("{id:?} raised {}: {}", notice.code, notice.text));
                }
            }
            Effect::Applied { .. } | Effect::Answer { .. } => {}
        }
        Ok(())
    }

    fn send(&mut self, at: usize, peer: RegionId, link: Link, lane: usize, message: Message) {
        let Some(connection) = self.net.connections.get_mut(&link.0).filter(|c| !c.is_dead) else { return };
        let to = usize::from(peer.get()) - 1;
        assert!(connection.other(at) == to, "a link leads to the peer it was given for");
        connection.towards(to).lanes[lane].push_back(message);
    }

    fn ack(&mut self, at: usize, position: Position) {
        for connection in self.net.connections.values_mut().filter(|c| !c.is_dead) {
            if connection.ends.0 != at && connection.ends.1 != at {
                continue;
            }
            let to = connection.other(at);
            let direction = connection.towards(to);
            if direction.is_answered {
                direction.acks.insert(position.log, position.seq);
            }
        }
    }

    // ---- checks -------------------------------------------------------------------------------------------------

    /// Whether a region holds a position, durable, whatever it says itself.
    fn check_held(&self, at: usize, position: &Position, what: &str) -> Checked {
        let region = &self.regions[at];
        let durable = region.disk.durable((position.log.region, position.log.epoch));
        let is_exempt = region.was_rolled_back || self.twin == Twin::LosesDurable;
        if durable >= position.seq || is_exempt {
            return Ok(());
        }
        Err(format!("{what} names {position:?}, but region {} has {durable} durable", region.id))
    }

    fn read_digits(&mut self, at: usize) -> Vec<i128> {
        let now = self.now(at);
        let keys = (0..self.clients.adds.len().div_ceil(DIGITS)).map(|key| key_of(key * DIGITS)).collect();
        let replica = self.regions[at].replica.as_mut().expect("only a living region is read");
        let (tenant, after) = (TenantId::DEFAULT, Vec::new());
        replica.handle(Input::Read { ticket: CHECK_TICKET, tenant, keys, after }, now);
        let Some(Effect::Answer { answer: Answer::Read(values), .. }) = replica.poll_effect() else {
            panic!("a read without a token is answered at once");
        };
        let number = |value| match value {
            ReadValue::Counter(value) => value,
            ReadValue::Absent => 0,
            ReadValue::Register { .. } => panic!("accounted keys are counters"),
        };
        values.into_iter().map(number).collect()
    }

    fn check_region(&mut self, at: usize) -> Checked {
        let values = self.read_digits(at);
        // A rolled-back region may show less until it is whole again.
        let may_shrink = self.regions[at].was_rolled_back;
        let region = &mut self.regions[at];
        region.seen.resize(values.len(), 0);
        for (key, (seen, value)) in region.seen.iter_mut().zip(values).enumerate() {
            *seen = check_digits(key, *seen, value, may_shrink)
                .map_err(|why| format!("{why} (region {})", region.id))?;
        }
        let (vector, digest) = self.state(at);
        self.hash.mix(u64::from_le_bytes(*digest.0.first_chunk().expect("a digest is longer")));
        for ((writer, epoch), seq) in &vector {
            let log = LogId { shard: SHARD, region: writer, epoch };
            self.check_held(at, &Position { log, seq }, "R2: the vector")?;
        }
        self.ledger.state(&vector, digest, at)?;
        if self.rng.percent(3) { self.check_replay(at) } else { Ok(()) }
    }

    pub(crate) fn state(&self, at: usize) -> (VersionVector, tombolo_codec::Digest) {
        let report = self.regions[at].replica.as_ref().expect("the region lives").report(self.now(at));
        (report.vector, report.digest)
    }

    /// C2: replaying the prefixes that a vector names, from nothing, gives the state that grew in place.
    pub(crate) fn check_replay(&self, at: usize) -> Checked {
        if self.twin == Twin::LosesDurable {
            return Ok(());
        }
        let region = &self.regions[at];
        let live = region.replica.as_ref().expect("the region lives");
        let (vector, digest) = self.state(at);
        let members = self.regions.iter().map(|region| region.id).collect();
        let mut fresh = Replica::open(options(region.id, Epoch(1), members, Durability::Sync), None);
        for (&name, batches) in region.disk.logs.iter().rev() {
            let log = LogId { shard: SHARD, region: name.0, epoch: name.1 };
            for batch in
                batches.iter().filter(|batch| live.covers(&Position { log, seq: batch.header().seq }))
            {
                fresh.replay(batch).map_err(|why| format!("replay: {why}"))?;
            }
        }
        let again = fresh.report(Now::default());
        if (again.vector, again.digest) == (vector, digest) {
            return Ok(());
        }
        Err(format!("C2: region {} is not what its logs say", region.id))
    }

    fn digit(&self, at: usize, add: usize) -> u64 {
        self.regions[at].seen.get(add / DIGITS).map_or(0, |seen| seen >> (2 * (add % DIGITS)) & 3)
    }

    fn check_seen(&self, at: usize, add: usize) -> Checked {
        if self.digit(at, add) == 1 {
            return Ok(());
        }
        Err(format!(
            "W1: add {add} was answered yes in region {}, where it does not show",
            self.regions[at].id
        ))
    }

    /// What still goes on, for a message.
    pub(crate) fn unrest(&self) -> String {
        let unknown = self.clients.adds.iter().filter(|&&fate| fate == Fate::Unknown).count();
        let of = |region: &Region| {
            let report = region.replica.as_ref().map(|replica| replica.report(Now::default()));
            report.map(|report| (report.is_whole, report.waiting_for, report.vector))
        };
        format!("{unknown} adds unsettled, {:?}", self.regions.iter().map(of).collect::<Vec<_>>())
    }

    /// C1 and what else must hold once faults have ended and everybody was heard.
    pub(crate) fn check_healed(&mut self) -> Checked {
        let first = self.state(0);
        for at in 0..self.regions.len() {
            let region = &self.regions[at];
            let report = region.replica.as_ref().ok_or("a region is down")?.report(self.now(at));
            if !report.is_whole {
                return Err(format!(
                    "R8: region {} is not whole, waits for {:?}",
                    region.id, report.waiting_for
                ));
            }
            if !report.halted.is_empty() {
                return Err(format!("region {} halted {:?}", region.id, report.halted));
            }
            if (&report.vector, report.digest) != (&first.0, first.1) {
                return Err(format!(
                    "C1: regions {} and 1 differ: {:?}, {:?}",
                    region.id, report.vector, first.0
                ));
            }
            let is_ended =
                |(log, _): (LogName, Seq)| self.regions[usize::from(log.0.get()) - 1].epoch != log.1;
            if report.vector.iter().any(is_ended) {
                return Err(format!("a log of an earlier epoch still stands: {:?}", report.vector));
            }
            self.check_replay(at)?;
            for (add, fate) in self.clients.adds.iter().enumerate() {
                let digit = self.digit(at, add);
                let is_right = match fate {
                    Fate::Kept => digit == 1,
                    Fate::Refused => digit == 0,
                    Fate::Unknown | Fate::Promised => digit <= 1,
                };
                if !is_right {
                    return Err(format!("C1: add {add}, {fate:?}, counts {digit} in region {}", region.id));
                }
            }
        }
        self.check_waiters()
    }

    fn check_waiters(&self) -> Checked {
        // A position that was promised before it was durable may have gone with a crash: nobody ever reaches that.
        let exists = |position: &Position| {
            let name = (position.log.region, position.log.epoch);
            self.regions.iter().any(|region| region.disk.durable(name) >= position.seq)
        };
        for Waiter { at, position, reached } in
            self.waiters.values().filter(|waiter| exists(&waiter.position))
        {
            if reached.len() != self.regions.len() {
                let sealed = self.ledger.is_sealed(position.log);
                return Err(format!(
                    "R3: a barrier at region {} on {position:?} (sealed: {sealed}) was told of {reached:?} only",
                    at + 1
                ));
            }
        }
        match self.readers.values().find(|(_, position)| exists(position)) {
            Some((at, position)) => {
                Err(format!("a read at region {} after {position:?} still waits", at + 1))
            }
            None => Ok(()),
        }
    }
}

fn lowered(received: &VersionVector, region: RegionId) -> VersionVector {
    let mut out = VersionVector::new();
    for ((writer, epoch), seq) in received {
        let cut = if writer == region { Seq(seq.0 / 2) } else { seq };
        out.raise(writer, epoch, cut);
    }
    out
}

pub(crate) fn options(
    region: RegionId,
    epoch: Epoch,
    members: Vec<RegionId>,
    durability: Durability,
) -> Options {
    Options {
        cluster: CLUSTER,
        shard: SHARD,
        region,
        epoch,
        members,
        durability,
        schema: Arc::new(Schema::default()),
        drift_ms_max: 500,
        session_numbers_max: SESSION_NUMBERS_MAX,
    }
}
