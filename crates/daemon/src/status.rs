//! `/v1/status`, `/v1/digest` and the gauges: what the shards and links report, put together.

use std::collections::BTreeSet;

use tombolo_causality::{RegionId, ShardId};
use tombolo_gateway::status::{ClockStatus, Finding, ShardDigest, ShardStatus, Status};
use tombolo_replica::Report;

use crate::lag;
use crate::metrics::PeerLabel;
use crate::service::Region;

pub(crate) fn digest(region: &Region, shard: ShardId, report: &Report) -> ShardDigest {
    let names = region.shared().mesh.members.names();
    let entry = |((id, epoch), seq): ((RegionId, tombolo_causality::Epoch), tombolo_causality::Seq)| {
        let name = names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        (format!("{name}/{epoch}"), seq.0)
    };
    ShardDigest {
        shard: shard.0,
        version_vector: report.vector.iter().map(entry).collect(),
        digest: report.digest.to_string(),
    }
}

pub(crate) async fn status(region: &Region) -> Status {
    let shared = region.shared();
    let reports = region.reports().await;
    let waiting: BTreeSet<RegionId> =
        reports.iter().flat_map(|(_, report)| report.waiting_for.iter().copied()).collect();
    let mut findings = shared.outlets.findings.list();
    if shared.mesh.skew.is_ahead() {
        findings.push(clock_skew(shared.mesh.skew.offset_ms()));
    }
    Status {
        schema: "tombolo.status/v1".to_owned(),
        cluster: shared.identity.cluster.to_string(),
        region: shared.identity.name.clone(),
        node: format!("{}/{}", shared.identity.name, shared.identity.epoch),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        durability: shared.identity.durability.to_owned(),
        epoch: shared.identity.epoch.to_string(),
        revision: shared.mesh.members.applied(),
        standing: shared.mesh.members.standing().name().to_owned(),
        shards: reports
            .iter()
            .map(|(shard, report)| ShardStatus {
                state: digest(region, *shard, report),
                durable: report.durable.0,
                keys: report.cells_count as u64,
            })
            .collect(),
        peers: lag::peers(region, &reports),
        quarantine: shared.storage.quarantined().to_vec(),
        clock: ClockStatus { offset_ms: shared.mesh.skew.offset_ms(), max_drift_ms: shared.max_drift_ms },
        whole: reports.iter().all(|(_, report)| report.is_whole),
        waiting_for: waiting.iter().map(|&id| shared.mesh.members.name(id)).collect(),
        sessions: reports.iter().map(|(_, report)| report.sessions_count as u64).sum(),
        waiters: shared.waiters_count.load(std::sync::atomic::Ordering::Relaxed) as u64,
        findings,
    }
}

fn clock_skew(offset_ms: f64) -> Finding {
    Finding {
        code: "clock_skew".to_owned(),
        severity: "error".to_owned(),
        text: format!(
            "this region's clock is {offset_ms:.0} ms ahead of its peers; register writes are refused"
        ),
        next: "chronyc makestep".to_owned(),
    }
}

/// Brings the gauges up to date.
pub(crate) async fn set_gauges(region: &Region) {
    let shared = region.shared();
    let metrics = &shared.outlets.metrics;
    let reports = region.reports().await;
    let sum = |count: fn(&Report) -> usize| reports.iter().map(|(_, report)| count(report) as i64).sum();
    metrics.sessions.set(sum(|report| report.sessions_count));
    metrics.conditionals.set(sum(|report| report.conditionals_count));
    metrics.tombstones.set(sum(|report| report.tombstones_count));
    metrics.clear_shard_lags();
    for (id, lag) in lag::lags(region, &reports) {
        let label = PeerLabel { region: region.name(id) };
        metrics.lag_seconds.get_or_create(&label).set(lag.oldest_ms as f64 / 1_000.0);
        metrics.behind_ops.get_or_create(&label).set(lag.ops as f64);
        metrics.set_link_state(&label.region, lag.state);
        metrics.set_shard_lags(&label.region, &lag.shards);
    }
    metrics.waiters.set(shared.waiters_count.load(std::sync::atomic::Ordering::Relaxed) as i64);
}
