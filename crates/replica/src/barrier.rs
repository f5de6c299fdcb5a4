//! Waiters: callers who want to know which regions hold a position, and readers who wait for this one to.
//!
//! Answered by events only: an ack, an apply, a peer's new epoch. Nothing is said that a crash right after could make
//! untrue (R3): only what is durable and applied counts, and a restarted region's earlier acks are void (F22).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tombolo_causality::{RegionId, TenantId};
use tombolo_codec::Position;

use crate::input::Ticket;

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
