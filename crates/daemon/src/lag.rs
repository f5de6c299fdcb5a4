//! How far each peer is behind, over all shards: what the shards report and the mesh knows, put together.
//!
//! The rule itself is the replica's; it reads no clock of its own. Start at [`peers`].

use std::collections::BTreeMap;

use tombolo_causality::{RegionId, ShardId};
use tombolo_gateway::status::{PeerStatus, ShardLag};
use tombolo_replica::{LinkState, Report, Verdict};

use crate::mesh::PeerLink;
use crate::service::Region;

/// What one peer lacks, over all shards.
#[derive(Debug, Default)]
pub(crate) struct PeerLag {
    pub(crate) ops: u64,
    pub(crate) oldest_ms: u64,
    pub(crate) state: LinkState,
    /// Who limits the worst shard, and what shows that.
    limit: Option<(&'static str, String)>,
    is_paused_here: bool,
    is_paused_there: bool,
    /// Those that lack something.
    pub(crate) shards: Vec<ShardLag>,
}

impl PeerLag {
    fn add(&mut self, shard: ShardId, report: &tombolo_replica::PeerReport, is_up: bool) {
        let mut facts = report.facts.clone();
        facts.is_up &= is_up;
        let Verdict { state, limit } = facts.verdict();
        let is_worse = state > self.state || (state == self.state && facts.behind.oldest_ms > self.oldest_ms);
        if is_worse && let Some((limit, evidence)) = limit {
            self.limit = Some((limit.name(), format!("shard {shard}: {evidence}")));
        }
        self.state = self.state.max(state);
        self.ops += facts.behind.ops;
        self.oldest_ms = self.oldest_ms.max(facts.behind.oldest_ms);
        self.is_paused_here |= report.is_paused;
        self.is_paused_there |= facts.is_paused_there;
        if facts.behind.ops > 0 {
            self.shards.push(ShardLag {
                shard: shard.0,
                state: state.name().to_owned(),
                lag_seconds: seconds(facts.behind.oldest_ms),
                behind_ops: facts.behind.ops,
            });
        }
    }

    fn status(self, region: String, link: &PeerLink) -> PeerStatus {
        let (limit, evidence) = match self.limit {
            _ if !link.is_up => (Some("network"), "there is no connection".to_owned()),
            Some((limit, evidence)) => (Some(limit), evidence),
            None => (None, String::new()),
        };
        PeerStatus {
            region,
            state: self.state.name().to_owned(),
            rtt_ms: link.rtt.as_secs_f64() * 1_000.0,
            lag_seconds: seconds(self.oldest_ms),
            behind_ops: self.ops,
            oldest_unacked_seconds: seconds(self.oldest_ms),
            reconnects: link.connects.saturating_sub(1),
            paused: self.is_paused_here,
            paused_there: self.is_paused_there,
            limit: limit.map(str::to_owned),
            evidence,
            shards: self.shards,
            revision: link.revision,
        }
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// What each peer lacks.
pub(crate) fn lags(region: &Region, reports: &[(ShardId, Report)]) -> BTreeMap<RegionId, PeerLag> {
    let links = region.shared().mesh.links();
    let mut lags: BTreeMap<RegionId, PeerLag> = BTreeMap::new();
    for (id, link) in links {
        let is_up = link.is_up;
        let state = if is_up { LinkState::Ok } else { LinkState::Unreachable };
        let lag = lags.entry(id).or_insert(PeerLag { state, ..PeerLag::default() });
        for (shard, report) in reports {
            if let Some(peer) = report.peers.iter().find(|peer| peer.region == id) {
                lag.add(*shard, peer, is_up);
            }
        }
    }
    lags
}

/// For `/v1/status`.
pub(crate) fn peers(region: &Region, reports: &[(ShardId, Report)]) -> Vec<PeerStatus> {
    let status = |(id, lag): (RegionId, PeerLag)| {
        let link = region.shared().mesh.link(id).unwrap_or_default();
        lag.status(region.name(id), &link)
    };
    lags(region, reports).into_iter().map(status).collect()
}
