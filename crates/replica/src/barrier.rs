//! Waiters: callers who want to know which regions hold a position, and readers who wait for this one to.
//!
//! Answered by events only: an ack, an apply, a peer's new epoch. Nothing is said that a crash right after could make
//! untrue (R3): only what is durable and applied counts, and a restarted region's earlier acks are void (F22). Waiters
//! are found by the positions they wait for (`barrier/places.rs`): an ack costs what it completes, however many wait.

mod places;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tombolo_causality::{RegionId, Seq, TenantId};
use tombolo_codec::Position;
use tombolo_mutants::{Mutant, is_planted};

use self::places::Places;
use crate::effect::{Answer, Effect};
use crate::input::{Now, Ticket};
use crate::replica::Replica;
use crate::state::logs::LogName;

/// A barrier's part in this shard.
#[derive(Debug)]
struct Waiter {
    positions: Vec<Position>,
    reached: BTreeSet<RegionId>,
}

/// A read that waits until this region covers a token.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) tenant: TenantId,
    pub(crate) keys: Vec<Bytes>,
    pub(crate) after: Vec<Position>,
}

/// All who wait.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    barriers: BTreeMap<Ticket, Waiter>,
    readers: BTreeMap<Ticket, Reader>,
    /// Which barrier waits for what.
    barrier_places: Places,
    /// Which reader waits for what.
    reader_places: Places,
}

impl Waiters {
    pub(crate) fn cancel(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.barriers.remove(&ticket) {
            self.barrier_places.remove(ticket, &waiter.positions);
        }
        if let Some(reader) = self.readers.remove(&ticket) {
            self.reader_places.remove(ticket, &reader.after);
        }
    }
}

impl Replica {
    /// Answers a read, once this region covers what it is to come after.
    pub(crate) fn read(&mut self, ticket: Ticket, reader: Reader, now: Now) {
        if reader.after.iter().all(|position| self.covers(position)) {
            self.answer_read(ticket, &reader, now);
        } else {
            self.waiters.reader_places.insert(ticket, &reader.after);
            self.waiters.readers.insert(ticket, reader);
        }
    }

    fn answer_read(&mut self, ticket: Ticket, reader: &Reader, now: Now) {
        let read = |key: &Bytes| self.state.cells.read(reader.tenant, key, now.wall);
        let values = reader.keys.iter().map(read).collect();
        self.answer(ticket, Answer::Read(values));
    }

    /// A log grew here from after `from` through `end`.
    pub(crate) fn wake_readers(&mut self, name: LogName, from: Seq, end: Seq, now: Now) {
        for ticket in self.waiters.reader_places.through(name, from, end) {
            let Some(reader) = self.waiters.readers.get(&ticket) else { continue };
            if reader.after.iter().all(|position| self.covers(position))
                && let Some(reader) = self.waiters.readers.remove(&ticket)
            {
                self.waiters.reader_places.remove(ticket, &reader.after);
                self.answer_read(ticket, &reader, now);
            }
        }
    }

    /// Whether this region holds a position, durable and applied.
    #[must_use]
    pub fn covers(&self, position: &Position) -> bool {
        self.state.logs.holds((position.log.region, position.log.epoch), position.seq)
    }

    /// Whether a region holds a position, by what it acknowledged in its present epoch.
    #[must_use]
    pub fn is_reached(&self, region: RegionId, position: &Position) -> bool {
        if region == self.options.region {
            let is_received = |it: &Position| self.received().get(it.log.region, it.log.epoch) >= it.seq;
            return self.covers(position) || (is_planted(Mutant::BarrierOnReceive) && is_received(position));
        }
        let name = (position.log.region, position.log.epoch);
        let holds = |name: LogName, seq| {
            self.peers.peers.get(&region).is_some_and(|peer| peer.applied.get(name.0, name.1) >= seq)
        };
        // A token may name a log that was taken over: it is reached where its seal is.
        let resolved = self.state.logs.resolve(name, position.seq);
        holds(name, position.seq) || resolved.is_some_and(|(by, at)| holds(by, at))
    }

    /// Tells of each region that holds all of these positions, now and later.
    pub(crate) fn wait(&mut self, ticket: Ticket, positions: Vec<Position>) {
        self.waiters.barrier_places.insert(ticket, &positions);
        self.waiters.barriers.insert(ticket, Waiter { positions, reached: BTreeSet::new() });
        self.follow_seals(ticket);
        for region in self.options.roster.present.clone() {
            self.check_barrier(ticket, region);
        }
    }

    /// Has the barrier found also by where the logs it names were taken over.
    fn follow_seals(&mut self, ticket: Ticket) {
        let Some(waiter) = self.waiters.barriers.get(&ticket) else { return };
        for position in &waiter.positions {
            let name = (position.log.region, position.log.epoch);
            if self.state.logs.sealed(name).is_some()
                && let Some((by, at)) = self.state.logs.resolve(name, position.seq)
            {
                self.waiters.barrier_places.add(ticket, by, at);
            }
        }
    }

    /// A region came to hold a log from after `from` through `end`.
    pub(crate) fn wake_barriers(&mut self, region: RegionId, name: LogName, from: Seq, end: Seq) {
        for ticket in self.waiters.barrier_places.through(name, from, end) {
            self.check_barrier(ticket, region);
        }
    }

    /// Much has changed at once: a region said all it holds, or a log was taken over.
    pub(crate) fn wake_all_barriers(&mut self, region: RegionId) {
        for ticket in self.waiters.tickets() {
            self.check_barrier(ticket, region);
        }
    }

    /// A log was taken over here: a peer that holds the seal holds what it sealed, and from here on this region can tell.
    pub(crate) fn wake_sealed(&mut self) {
        for ticket in self.waiters.tickets() {
            self.follow_seals(ticket);
            for region in self.options.roster.present.clone() {
                self.check_barrier(ticket, region);
            }
        }
    }

    fn check_barrier(&mut self, ticket: Ticket, region: RegionId) {
        let is_new = self.waiters.barriers.get(&ticket).is_some_and(|waiter| {
            !waiter.reached.contains(&region)
                && waiter.positions.iter().all(|position| self.is_reached(region, position))
        });
        if is_new && let Some(waiter) = self.waiters.barriers.get_mut(&ticket) {
            waiter.reached.insert(region);
            self.effects.push_back(Effect::Reached { ticket, region });
        }
    }

    /// A region restarted: what it acknowledged before does not count.
    pub(crate) fn void(&mut self, region: RegionId) {
        for (&ticket, waiter) in &mut self.waiters.barriers {
            if waiter.reached.remove(&region) {
                self.effects.push_back(Effect::Voided { ticket, region });
            }
        }
    }
}

impl Waiters {
    fn tickets(&self) -> Vec<Ticket> {
        self.barriers.keys().copied().collect()
    }
}
