//! What a shard says of itself: for status, digests, metrics and pruning.

use tombolo_causality::{LogId, RegionId, Seq, VersionVector};
use tombolo_codec::{Digest, Position};

use crate::exchange::links::LinkFacts;
use crate::exchange::peers::{Cursor, Peer};
use crate::exchange::progress::Behind;
use crate::input::{Link, Now};
use crate::life::members::MARKER;
use crate::replica::Replica;
use crate::state::logs::{LogName, log_id};

/// What a peer lacks of this shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerReport {
    /// The peer.
    pub region: RegionId,
    /// What it lacks of this region's log, and what is known of why. Whether there is a connection is for whoever holds it
    /// to say.
    pub facts: LinkFacts,
    /// Whether what it wrote is not applied here for now.
    pub is_paused: bool,
}

/// Why a region does not hold some positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shortfall {
    /// How many ops it lacks, at least. Ops of other regions' logs are not counted here.
    pub ops: u64,
    /// Why it halted one of the logs.
    pub halted: Option<String>,
    /// Whether it does not apply the writes of one of the regions, because somebody asked for that.
    pub is_paused: bool,
    /// Whether it asked for batches of one of the logs that are not kept here any more.
    pub is_evicted: bool,
}

/// A shard at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What is applied.
    pub vector: VersionVector,
    /// Canonical digest of the state that the vector stands for.
    pub digest: Digest,
    /// Through which batch this region's own log is durable.
    pub durable: Seq,
    /// Cells held.
    pub cells_count: usize,
    /// Sessions held.
    pub sessions_count: usize,
    /// Conditional requests that their authority has not covered.
    pub conditionals_count: usize,
    /// Deleted registers that are still remembered.
    pub tombstones_count: usize,
    /// Whether it has caught up with all that any member held when the process started.
    pub is_whole: bool,
    /// Whom it waits for to be whole.
    pub waiting_for: Vec<RegionId>,
    /// Removed regions whose logs nobody has taken over here yet.
    pub without_heir: Vec<RegionId>,
    /// Logs that are not taken in any more, and why.
    pub halted: Vec<(LogName, String)>,
    /// Every peer.
    pub peers: Vec<PeerReport>,
}

/// What peers cost this shard in memory, beside the state itself (R9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Burden {
    /// Bytes of the longest queue of batches that are not applied yet.
    pub queue_bytes: usize,
    /// Most bytes of one log on their way to one peer.
    pub in_flight_bytes: usize,
    /// Cursors of peers that are not connected.
    pub stray_cursors_count: usize,
    /// Cuts that peers have open.
    pub cuts_count: usize,
    /// Cuts of its own that this shard compares with a peer's.
    pub own_cuts_count: usize,
    /// Of both, cuts whose connection is over.
    pub stray_cuts_count: usize,
    /// Entries copied for open cuts because they changed meanwhile.
    pub copied_entries_count: usize,
}

impl Replica {
    /// What peers cost in memory.
    #[must_use]
    pub fn burden(&self) -> Burden {
        let peers = || self.peers.peers.values();
        let cursors = peers().flat_map(|peer| peer.sending.values());
        let strays = peers().filter(|peer| peer.link.is_none());
        let is_stray = |&(peer, link): &(RegionId, Link)| {
            self.peers.peers.get(&peer).is_none_or(|it| it.link != Some(link))
        };
        Burden {
            queue_bytes: self.intake.queue_bytes(),
            in_flight_bytes: cursors.map(Cursor::in_flight_bytes).max().unwrap_or(0),
            stray_cursors_count: strays.map(|peer| peer.sending.len()).sum(),
            cuts_count: self.cuts.of_peers().count(),
            own_cuts_count: self.fetches.compared_with().into_iter().count(),
            stray_cuts_count: self
                .cuts
                .of_peers()
                .chain(self.fetches.compared_with())
                .filter(is_stray)
                .count(),
            copied_entries_count: self.state.copied_count(),
        }
    }

    /// What a peer lacks of this region's own log.
    #[must_use]
    pub fn behind(&self, region: RegionId, now: Now) -> Behind {
        let (own, epoch) = self.writer.name();
        let Some(peer) = self.peers.peers.get(&region) else { return Behind::default() };
        let behind = self.progress.behind(peer.applied.get(own, epoch), now.monotonic_ms);
        if peer.answered.is_some() || self.state.logs.vector().is_empty() {
            return behind;
        }
        // It has said nothing since this process started: what it lacks of earlier epochs is at least this old.
        Behind { oldest_ms: behind.oldest_ms.max(now.monotonic_ms), ..behind }
    }

    /// What is known of a link, from the side of this shard.
    fn facts(&self, region: RegionId, now: Now) -> LinkFacts {
        let (own, epoch) = self.writer.name();
        let behind = self.behind(region, now);
        let Some(peer) = self.peers.peers.get(&region) else { return LinkFacts::default() };
        let cursor = peer.sending.get(&(own, epoch));
        LinkFacts {
            is_up: peer.link.is_some(),
            behind,
            before: peer.trend[0],
            idle_ms: behind.oldest_ms.min(now.monotonic_ms.saturating_sub(peer.grown_ms)),
            is_paused_there: peer.held.paused.contains(&own),
            halted_there: peer.held.halted((own, epoch)).map(str::to_owned),
            applied: peer.applied.get(own, epoch),
            received: peer.held.received.get(&(own, epoch)).copied(),
            sent: cursor.map(|cursor| Seq(cursor.next.0.saturating_sub(1))),
            end: self.state.logs.end((own, epoch)),
            in_flight_bytes: cursor.map_or(0, Cursor::in_flight_bytes),
            is_loading: cursor.is_some_and(|cursor| cursor.loading.is_some()),
        }
    }

    /// Keeps what each peer lacks, to tell later whether it lacks less.
    pub(crate) fn note_trend(&mut self, now: Now) {
        for region in self.peers.peers.keys().copied().collect::<Vec<_>>() {
            let behind = self.behind(region, now);
            if let Some(peer) = self.peers.peers.get_mut(&region) {
                peer.trend = [peer.trend[1], behind];
            }
        }
    }

    /// Why a region, this one included, does not hold these positions.
    #[must_use]
    pub fn shortfall(&self, region: RegionId, positions: &[Position], now: Now) -> Shortfall {
        let names = || positions.iter().map(|position| (position.log.region, position.log.epoch));
        if region == self.options.region {
            let halted = self.intake.halted().find(|(name, _)| names().any(|wanted| wanted == *name));
            return Shortfall {
                ops: 0,
                halted: halted.map(|(_, why)| why.to_owned()),
                is_paused: names().any(|name| self.peers.is_paused(name.0)),
                is_evicted: false,
            };
        }
        let Some(peer) = self.peers.peers.get(&region) else { return Shortfall::default() };
        Shortfall {
            ops: self.behind(region, now).ops,
            halted: names().find_map(|name| peer.held.halted(name)).map(str::to_owned),
            is_paused: names().any(|name| peer.held.paused.contains(&name.0)),
            is_evicted: names().any(|name| peer.evicted.contains(&name)),
        }
    }

    /// Logs that wait for another one, which they take over: who, for which, through where.
    pub fn blocked(&self) -> impl Iterator<Item = (LogName, LogName, Seq)> + '_ {
        self.intake.blocked().map(|(name, blocked)| (name, blocked.on, blocked.end))
    }

    /// The shard as it is.
    #[must_use]
    pub fn report(&self, now: Now) -> Report {
        let peers = self.peers.peers.iter().map(|(&region, peer)| PeerReport {
            region,
            facts: self.facts(region, now),
            is_paused: peer.is_paused,
        });
        Report {
            vector: self.state.logs.vector().clone(),
            digest: self.state.digest(),
            durable: self.writer.durable(),
            cells_count: self.state.cells.len(),
            sessions_count: self.state.sessions.len(),
            conditionals_count: self.state.cells.conditionals.len(),
            tombstones_count: self.state.cells.tombstones_count(),
            is_whole: self.is_whole,
            waiting_for: if self.is_whole { Vec::new() } else { self.waiting_for() },
            without_heir: self.without_heir(),
            halted: self.intake.halted().map(|(name, why)| (name, why.to_owned())).collect(),
            peers: peers.collect(),
        }
    }

    /// Through where each log's files may go, given a durable checkpoint: what it covers and every member holds; where
    /// retention is over, all that it covers: whoever lacks it takes the difference.
    /// The flag says that the log has ended, so that all of it may go.
    #[must_use]
    pub fn prunable(
        &self,
        checkpoint: &tombolo_codec::Checkpoint,
        is_retention_over: bool,
    ) -> Vec<(Position, bool)> {
        let held_by_all = |name: LogName, seq: Seq| {
            if is_retention_over {
                return seq;
            }
            let applied = |region: &RegionId| {
                self.peers.peers.get(region).map_or(Seq::ZERO, |peer| peer.applied.get(name.0, name.1))
            };
            let present = &self.options.roster.present;
            let others = present.iter().filter(|&&member| member != self.options.region);
            others.map(applied).min().map_or(seq, |least| least.min(seq))
        };
        let shard = self.options.shard;
        let standing = checkpoint.logs.iter().filter_map(|end| {
            let name = (end.region, end.epoch);
            let through = held_by_all(name, end.seq);
            (through > Seq::ZERO).then_some((Position { log: log_id(shard, name), seq: through }, false))
        });
        // A marker stands for no log.
        let real = checkpoint.sealed.iter().filter(|sealed| sealed.seal.epoch != MARKER);
        let ended = real.filter_map(|sealed| {
            let by = (sealed.by_region, sealed.by_epoch);
            let (by, at) = self.state.logs.resolve(by, sealed.by_seq)?;
            let log = log_id(shard, (sealed.seal.region, sealed.seal.epoch));
            (held_by_all(by, at) >= at).then_some((Position { log, seq: sealed.seal.end }, true))
        });
        standing.chain(ended).collect()
    }

    /// Members that have not applied a log through `seq`: what is gone of it, they have to take as a difference.
    #[must_use]
    pub fn members_lacking(&self, log: LogId, seq: Seq) -> Vec<RegionId> {
        let name = (log.region, log.epoch);
        let resolved = self.state.logs.resolve(name, seq);
        let lacks = |peer: &Peer| {
            let applied = |(name, seq): (LogName, Seq)| peer.applied.get(name.0, name.1) >= seq;
            !applied((name, seq)) && !resolved.is_some_and(applied)
        };
        let peers = self.peers.peers.iter();
        peers.filter(|(_, peer)| lacks(peer)).map(|(&region, _)| region).collect()
    }
}
