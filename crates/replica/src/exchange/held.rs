//! What a region does not apply for now, and that it says so: a peer that waits for it can then tell why.
//!
//! It changes nothing of what is applied. Start at [`Held`].

use std::collections::{BTreeMap, BTreeSet};

use tombolo_causality::{RegionId, Seq};
use tombolo_codec::{PeerMessage, Position};

use crate::exchange::intake::Intake;
use crate::input::Link;
use crate::replica::Replica;
use crate::state::logs::{LogName, log_id};

/// A queue this long is not what a sync in good time leaves behind.
const QUEUE_BYTES_MANY: usize = 256 * 1_024;
/// Reasons are told in so many characters.
const WHY_CHARS_MAX: usize = 200;
/// Logs that are told of.
const LOGS_MAX: usize = 64;

/// What a region does not apply of one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Regions whose writes are not applied for now, because somebody asked for that.
    pub paused: BTreeSet<RegionId>,
    /// Logs that are not taken in any more, and why.
    pub halted: BTreeMap<LogName, String>,
    /// Logs of which more was received than is applied in good time, and through where.
    pub received: BTreeMap<LogName, Seq>,
}

impl Held {
    /// Whether a log is halted, and why.
    #[must_use]
    pub fn halted(&self, name: LogName) -> Option<&str> {
        self.halted.get(&name).map(String::as_str)
    }
}

/// What was told, and what it takes to see that a queue stands still.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    told: Held,
    /// The batch at the front of each queue, at the last tick.
    fronts: BTreeMap<LogName, Seq>,
}

impl Holding {
    /// The logs whose queue is long, or has not moved since the last look.
    fn look(&mut self, intake: &Intake) -> BTreeMap<LogName, Seq> {
        let mut held = BTreeMap::new();
        let mut fronts = BTreeMap::new();
        for (name, front, received, bytes) in intake.queues().take(LOGS_MAX) {
            if bytes >= QUEUE_BYTES_MANY || self.fronts.get(&name) == Some(&front) {
                held.insert(name, received);
            }
            fronts.insert(name, front);
        }
        self.fronts = fronts;
        held
    }
}

impl Replica {
    /// Looks whether queues stand still, and tells the peers what is held back if that has changed.
    pub(crate) fn look_at_queues(&mut self) {
        let received = self.holding.look(&self.intake);
        self.tell(received);
    }

    /// A log was halted, or a pause began or ended.
    pub(crate) fn tell_held(&mut self) {
        let received = self.holding.told.received.clone();
        self.tell(received);
    }

    fn tell(&mut self, received: BTreeMap<LogName, Seq>) {
        let peers = &self.peers.peers;
        let paused = peers.iter().filter(|(_, peer)| peer.is_paused).map(|(&region, _)| region).collect();
        let cut = |why: &str| why.chars().take(WHY_CHARS_MAX).collect();
        let halted = self.intake.halted().take(LOGS_MAX).map(|(name, why)| (name, cut(why))).collect();
        let held = Held { paused, halted, received };
        if held == self.holding.told {
            return;
        }
        self.holding.told = held;
        for region in self.peers.peers.keys().copied().collect::<Vec<_>>() {
            self.tell_held_to(region);
        }
    }

    /// A new connection begins with nothing held back.
    pub(crate) fn tell_held_anew(&mut self, region: RegionId) {
        if self.holding.told != Held::default() {
            self.tell_held_to(region);
        }
    }

    fn tell_held_to(&mut self, region: RegionId) {
        let shard = self.options.shard;
        let Held { paused, halted, received } = self.holding.told.clone();
        let message = PeerMessage::Held {
            shard,
            paused: paused.into_iter().collect(),
            halted: halted.into_iter().map(|(name, why)| (log_id(shard, name), why)).collect(),
            received: received
                .into_iter()
                .map(|(name, seq)| Position { log: log_id(shard, name), seq })
                .collect(),
        };
        self.send(region, message);
    }

    pub(crate) fn held_there(&mut self, from: RegionId, link: Link, held: Held) {
        if let Some(peer) = self.peers.on(from, link) {
            peer.held = held;
        }
    }
}
