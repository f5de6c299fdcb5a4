//! Runs the effects of a step, checks every region it touched, and at the end that all of them came together.

use tombolo_causality::{Epoch, LogId, RegionId, Seq, TenantId, VersionVector};
use tombolo_codec::{Position, ReadValue};
use tombolo_replica::{Answer, Durability, Effect, Input, Link, Now, Replica};

use crate::checks::check_digits;
use crate::clients::{DIGITS, Fate, key_of};
use crate::disk::{LogName, name_of};
use crate::net::{LANES, Message};
use crate::sabotage::Twin;
use crate::world::{CHECK_TICKET, Checked, Load, Region, SHARD, Waiter, World, options};

impl World {
    pub(crate) fn run_effects(&mut self, at: usize) -> Checked {
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
            Effect::Disconnect { link, .. } => {
                if self.net.connections.get(&link.0).is_some_and(|connection| !connection.is_dead) {
                    self.net.cut(link.0, &mut self.rng);
                }
            }
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

    pub(crate) fn check_seen(&self, at: usize, add: usize) -> Checked {
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
