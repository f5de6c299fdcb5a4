//! Becoming whole: a restarted region takes back all that any member may hold of its history, then takes its earlier
//! logs over (design.md §3.4, R8).

use tombolo_causality::{LogId, RegionId, Seq, VersionVector};
use tombolo_codec::records::Seal;

use crate::effect::Effect;
use crate::input::Now;
use crate::logs::LogName;
use crate::peers::Peer;
use crate::replica::{Replica, Storage};

impl Replica {
    /// Members that have not answered, or that hold what is not applied here yet.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<RegionId> {
        let is_behind = |answer: &VersionVector| {
            let mut logs = answer.iter();
            logs.any(|(name, seq)| name != self.writer.name() && !self.state.logs.holds(name, seq))
        };
        let waits = |peer: &Peer| peer.answered.as_ref().is_none_or(is_behind);
        self.peers.peers.iter().filter(|(_, peer)| waits(peer)).map(|(&region, _)| region).collect()
    }

    /// Whether it has caught up with all that any member held when the process started.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether a log's batches through `seq` are in this state, whether the log still stands or was taken over.
    #[must_use]
    pub fn holds(&self, log: LogId, seq: Seq) -> bool {
        self.state.logs.holds((log.region, log.epoch), seq)
    }

    /// Takes over its own earlier logs once it holds all that anyone may hold of them (design.md §3.4).
    pub(crate) fn check_whole(&mut self, now: Now) {
        if !self.is_started || self.is_whole || !self.waiting_for().is_empty() {
            return;
        }
        let own = self.writer.name();
        let earlier: Vec<(LogName, Seq)> =
            self.state.logs.vector().iter().filter(|&(name, _)| name.0 == own.0 && name != own).collect();
        if earlier.is_empty() {
            self.is_whole = true;
            self.effects.push_back(Effect::BecameWhole);
            self.absorb_all(now);
        } else if !self.is_sealing && self.storage == Storage::Good {
            self.is_sealing = true;
            for ((region, epoch), end) in earlier {
                self.writer.open().seal(Seal { region, epoch, end });
            }
            self.flush(now);
        }
    }
}
