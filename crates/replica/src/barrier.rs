//! Waiters: callers who want to know which regions hold a position, and readers who wait for this one to.
//!
//! Answered by events only: an ack, an apply, a peer's new epoch. Nothing is said that a crash right after could make
//! untrue (R3): only what is durable and applied counts, and a restarted region's earlier acks are void (F22).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tombolo_causality::{RegionId, TenantId};
use tombolo_codec::Position;
use tombolo_mutants::{Mutant, is_planted};

use crate::effect::{Answer, Effect};
use crate::input::{Now, Ticket};
use crate::logs::LogName;
use crate::replica::Replica;

/// A barrier's part in this shard.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) positions: Vec<Position>,
    pub(crate) reached: BTreeSet<RegionId>,
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
    pub(crate) barriers: BTreeMap<Ticket, Waiter>,
    pub(crate) readers: BTreeMap<Ticket, Reader>,
}

impl Waiters {
    pub(crate) fn cancel(&mut self, ticket: Ticket) {
        self.barriers.remove(&ticket);
        self.readers.remove(&ticket);
    }
}

impl Replica {
    pub(crate) fn wake_readers(&mut self, now: Now) {
        if self.waiters.readers.is_empty() {
            return;
        }
        let covers = |after: &[Position]| after.iter().all(|position| self.covers(position));
        let ready: Vec<Ticket> = self
            .waiters
            .readers
            .iter()
            .filter(|(_, reader)| covers(&reader.after))
            .map(|(&t, _)| t)
            .collect();
        for ticket in ready {
            let Some(reader) = self.waiters.readers.remove(&ticket) else { continue };
            let read = |key: &bytes::Bytes| self.state.cells.read(reader.tenant, key, now.wall);
            let values = reader.keys.iter().map(read).collect();
            self.answer(ticket, Answer::Read(values));
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

    pub(crate) fn wait(&mut self, ticket: Ticket, positions: Vec<Position>) {
        let waiter = Waiter { positions, reached: std::collections::BTreeSet::new() };
        self.waiters.barriers.insert(ticket, waiter);
        for region in self.options.members.clone() {
            self.wake_barriers(region);
        }
    }

    pub(crate) fn wake_barriers(&mut self, region: RegionId) {
        if self.waiters.barriers.is_empty() {
            return;
        }
        let is_new = |waiter: &Waiter| {
            !waiter.reached.contains(&region)
                && waiter.positions.iter().all(|position| self.is_reached(region, position))
        };
        let woken: Vec<Ticket> =
            self.waiters.barriers.iter().filter(|(_, waiter)| is_new(waiter)).map(|(&t, _)| t).collect();
        for ticket in woken {
            if let Some(waiter) = self.waiters.barriers.get_mut(&ticket) {
                waiter.reached.insert(region);
                self.effects.push_back(Effect::Reached { ticket, region });
            }
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
