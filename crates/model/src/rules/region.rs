//! A region: its disk (the shard's state) and its process, which every restart begins anew.

use super::log::{NONE, REGIONS, Vector};
use super::shard::Shard;

/// What a member said of itself when it acked: valid for that epoch of it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ack {
    /// The log of the member's epoch.
    pub epoch: u8,
    /// How far it has applied the asking region's log.
    pub through: u8,
    /// How far its own log was.
    pub own: u8,
}

/// One region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Region {
    /// Its state, durable.
    pub shard: Shard,
    /// The log of its present epoch.
    pub log: u8,
    /// Whether it has caught up with all that any member held when the process started.
    pub is_whole: bool,
    /// The members' answers to its hello: what each held then.
    pub answers: [Option<Vector>; REGIONS],
    /// The epoch in which each member was last met in this process.
    pub met: [u8; REGIONS],
    /// The members' acks of its log.
    pub acks: [Option<Ack>; REGIONS],
}

impl Region {
    /// A region that has been whole for ever.
    #[must_use]
    pub const fn new(log: u8) -> Self {
        Self {
            shard: Shard::new(),
            log,
            is_whole: true,
            answers: [None; REGIONS],
            met: [NONE; REGIONS],
            acks: [None; REGIONS],
        }
    }

    /// The same disk under a new process.
    #[must_use]
    pub const fn restarted(shard: Shard, log: u8) -> Self {
        Self { shard, is_whole: false, ..Self::new(log) }
    }

    /// Whether it has the session's authority: the session's log is its present one, or was taken over by it.
    ///
    /// A region that is whole has taken over all its earlier logs, and the heir those of the removed region, so this
    /// one question is all of "opened in this epoch, or whole, or heir".
    #[must_use]
    pub fn has_authority(&self, opened_in: u8) -> bool {
        self.shard.successor(opened_in) == self.log
    }
}
