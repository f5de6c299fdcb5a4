//! What is known of each peer: what it holds, what it wants, from where each log is fetched.
//!
//! Every log is fetched from one peer at a time: from its writer while that is connected, else from whoever holds most
//! of it (F8: any member serves any log it holds). The receiver asks, the sender follows its own cursor: a slow peer
//! costs a cursor and a bounded window, never memory that grows with its absence (R9).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tombolo_causality::{Epoch, RegionId, Seq, VersionVector};
use tombolo_codec::{Roster, Standing};
use tombolo_mutants::{Mutant, is_planted};

use crate::exchange::held::Held;
use crate::exchange::intake::Blocked;
use crate::exchange::progress::Behind;
use crate::input::Link;
use crate::state::logs::LogName;

/// How many bytes one read of a log's files asks for.
pub(crate) const LOAD_BYTES: usize = 512 * 1_024;

/// Where a peer is in a log it wants.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// The next batch to send.
    pub(crate) next: Seq,
    /// Sent and not yet acknowledged: seq and length.
    in_flight: VecDeque<(Seq, usize)>,
    in_flight_bytes: usize,
    /// From where batches are being read from files for it.
    pub(crate) loading: Option<Seq>,
}

impl Cursor {
    pub(crate) fn at(next: Seq) -> Self {
        Self { next, in_flight: VecDeque::new(), in_flight_bytes: 0, loading: None }
    }

    /// Whether less than a window is on its way.
    pub(crate) fn has_room(&self, window_bytes: usize) -> bool {
        self.in_flight_bytes < window_bytes || is_planted(Mutant::WindowIgnored)
    }

    /// Sent and not yet acked.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    pub(crate) fn sent(&mut self, seq: Seq, bytes: usize) {
        self.next = seq.next();
        self.in_flight.push_back((seq, bytes));
        self.in_flight_bytes += bytes;
    }

    /// The peer applied all through `through`, from wherever it got it.
    ///
    /// What it holds is not sent: it would drop that as a duplicate without an ack, and the window would stay full.
    pub(crate) fn acked(&mut self, through: Seq) {
        self.next = self.next.max(through.next());
        while let Some(&(_, bytes)) = self.in_flight.front().filter(|&&(seq, _)| seq <= through) {
            self.in_flight_bytes -= bytes;
            self.in_flight.pop_front();
        }
    }
}

/// One peer.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) epoch: Option<Epoch>,
    /// Its incarnations before that, as far as they were met.
    pub(crate) over: BTreeSet<Epoch>,
    pub(crate) link: Option<Link>,
    /// All it may come to hold, as it last said in this epoch.
    pub(crate) answered: Option<VersionVector>,
    /// Whether it said so under the incarnations in which all members are now (F33).
    pub(crate) counts: bool,
    /// Whether it answered on the present connection.
    pub(crate) is_answered: bool,
    /// What it has applied and durable, in its present epoch.
    pub(crate) applied: VersionVector,
    /// The logs it wants from here.
    pub(crate) sending: BTreeMap<LogName, Cursor>,
    /// Whether what it wrote is not applied for now.
    pub(crate) is_paused: bool,
    /// Logs of which it asked for batches that are not kept here; until it acks more of them.
    pub(crate) evicted: BTreeSet<LogName>,
    /// What it does not apply, as it said on the present connection.
    pub(crate) held: Held,
    /// When it last acked more of this region's log, by the monotonic clock.
    pub(crate) grown_ms: u64,
    /// What it lacked at the last tick but one, and at the last.
    pub(crate) trend: [Behind; 2],
}

impl Peer {
    /// Whether an incarnation is known to have ended.
    pub(crate) fn is_over(&self, epoch: Epoch) -> bool {
        self.over.contains(&epoch)
    }
}

/// All peers of this region, and from whom each log is fetched.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) peers: BTreeMap<RegionId, Peer>,
    pub(crate) sources: BTreeMap<LogName, RegionId>,
    /// What was last asked of whom, per log.
    pub(crate) asked: BTreeMap<LogName, (RegionId, Seq)>,
    /// Who does not keep a log from where it was asked for, in this connection.
    pub(crate) gone: BTreeMap<(RegionId, LogName), Seq>,
}

impl Peers {
    pub(crate) fn new(roster: &Roster, own: RegionId) -> Self {
        let is_in = roster.standing != Standing::Removed;
        let others = roster.present.iter().filter(|&&member| is_in && member != own);
        let peers = others.map(|&member| (member, Peer::default())).collect();
        Self { peers, sources: BTreeMap::new(), asked: BTreeMap::new(), gone: BTreeMap::new() }
    }

    /// Every peer in the incarnation in which it was last met; none before all were.
    pub(crate) fn epochs(&self) -> Option<Vec<(RegionId, Epoch)>> {
        self.peers.iter().map(|(&region, peer)| peer.epoch.map(|epoch| (region, epoch))).collect()
    }

    /// A member is in another incarnation: what the others said before they knew may lack what it lost since (F33).
    pub(crate) fn void_answers(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.counts = false);
    }

    /// A connection ended or was replaced: nothing comes from there any more.
    pub(crate) fn forget_source(&mut self, region: RegionId) {
        self.sources.retain(|_, source| *source != region);
        self.asked.retain(|_, (source, _)| *source != region);
        self.gone.retain(|(source, _), _| *source != region);
    }

    /// The peer, if a frame on this connection is still of interest.
    pub(crate) fn on(&mut self, region: RegionId, link: Link) -> Option<&mut Peer> {
        self.peers.get_mut(&region).filter(|peer| peer.link == Some(link))
    }

    pub(crate) fn is_paused(&self, region: RegionId) -> bool {
        self.peers.get(&region).is_some_and(|peer| peer.is_paused)
    }

    /// The writer of a log, if it is connected in the very epoch of that log.
    fn live_writer(&self, name: LogName) -> Option<RegionId> {
        let peer = self.peers.get(&name.0)?;
        (peer.is_answered && peer.epoch == Some(name.1)).then_some(name.0)
    }

    /// Whether a peer said that it does not keep what comes next of a log.
    fn is_gone(&self, region: RegionId, name: LogName, received: Seq) -> bool {
        self.gone.get(&(region, name)).is_some_and(|&from| received.next() <= from)
    }

    /// Whether what comes next of a log can come from where it is asked for now.
    pub(crate) fn is_coming(&self, name: LogName, received: Seq) -> bool {
        let Some(source) = self.sources.get(&name) else { return false };
        self.live_writer(name) == Some(*source)
            || self.peers.get(source).is_some_and(|peer| peer.applied.get(name.0, name.1) > received)
    }

    /// Who has more of a log than `above`: the present source if it does, else who has most.
    fn holder(&self, name: LogName, above: Seq) -> Option<RegionId> {
        let has_more = |region: RegionId, peer: &Peer| {
            peer.is_answered && peer.applied.get(name.0, name.1) > above && !self.is_gone(region, name, above)
        };
        let present = self.sources.get(&name).copied();
        let goes_on = |region: &RegionId| self.peers.get(region).is_some_and(|peer| has_more(*region, peer));
        if let Some(region) = present.filter(goes_on) {
            return Some(region);
        }
        self.peers
            .iter()
            .filter(|(region, peer)| has_more(**region, peer))
            .max_by_key(|(_, peer)| peer.applied.get(name.0, name.1))
            .map(|(&region, _)| region)
    }

    /// Whether a peer applied a seal that waits here for `sealed`: then it holds all of that, though the log left its
    /// vector. The seal's own log may be sealed in turn, `depth` times at most.
    fn has_sealed(
        &self,
        region: RegionId,
        sealed: LogName,
        blocked: &[(LogName, Blocked)],
        depth: usize,
    ) -> bool {
        let has_it = |&(by, ref blocks): &(LogName, Blocked)| {
            blocks.on == sealed
                && (self.live_writer(by) == Some(region)
                    || self.peers.get(&region).is_some_and(|peer| peer.applied.get(by.0, by.1) >= blocks.at)
                    || self.has_sealed(region, by, blocked, depth - 1))
        };
        depth > 0 && blocked.iter().any(has_it)
    }

    /// From whom to fetch a log that a seal waits for.
    fn holder_of_sealed(
        &self,
        (sealed, have): (LogName, Seq),
        by: LogName,
        blocked: &[(LogName, Blocked)],
    ) -> Option<RegionId> {
        let is_it = |region: &RegionId| {
            self.peers.get(region).is_some_and(|peer| peer.is_answered)
                && !self.is_gone(*region, sealed, have)
                && self.has_sealed(*region, sealed, blocked, blocked.len())
        };
        let present = self.sources.get(&sealed).copied().filter(is_it);
        let any = || self.peers.keys().copied().find(is_it);
        // Whoever sent the seal had applied it.
        let sender = || self.sources.get(&by).copied().filter(|&region| !self.is_gone(region, sealed, have));
        present.or_else(any).or_else(sender)
    }

    /// From whom each log should be fetched. `received` is how far each is here, `none` where a log is not wanted.
    pub(crate) fn plan(
        &self,
        own: LogName,
        blocked: &[(LogName, Blocked)],
        received: impl Fn(LogName) -> Option<Seq>,
    ) -> BTreeMap<LogName, RegionId> {
        let mut plan = BTreeMap::new();
        for (&region, peer) in &self.peers {
            if let Some(epoch) = peer.epoch.filter(|_| peer.is_answered)
                && let Some(have) = received((region, epoch))
                && !self.is_gone(region, (region, epoch), have)
            {
                plan.insert((region, epoch), region);
            }
        }
        for peer in self.peers.values().filter(|peer| peer.is_answered) {
            for (name, end) in &peer.applied {
                let Some(have) = received(name) else { continue };
                let comes_from_writer =
                    self.live_writer(name).is_some_and(|writer| !self.is_gone(writer, name, have));
                if name == own || plan.contains_key(&name) || end <= have || comes_from_writer {
                    continue;
                }
                if let Some(holder) = self.holder(name, have) {
                    plan.insert(name, holder);
                }
            }
        }
        for (by, Blocked { on: sealed, end, .. }) in blocked {
            if let Some(have) = received(*sealed).filter(|have| have < end)
                && *sealed != own
                && !plan.contains_key(sealed)
                && let Some(region) = self.holder_of_sealed((*sealed, have), *by, blocked)
            {
                plan.insert(*sealed, region);
            }
        }
        // While its writer is away, a log goes on coming from whoever relays it.
        for (&name, &region) in &self.sources {
            let is_up = self.peers.get(&region).is_some_and(|peer| peer.is_answered);
            let have = received(name).filter(|&have| !self.is_gone(region, name, have));
            if is_up && have.is_some() && name != own {
                plan.entry(name).or_insert(region);
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests;
