//! Compares this region's shards with those of its peers, a few at a time, and has mended what an operator names.
//!
//! What is equal, damaged or in motion is the replica's to find. Start with [`verify`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tombolo_causality::{RegionId, ShardId};
use tombolo_codec::{Reject, RejectCode};
use tombolo_gateway::reconciliation::{
    DamagedEntry, FetchProgress, LogGap, Reconciliation, ShardPlan, Unfinished, Verification, VerifyRequest,
};
use tombolo_replica::{Damaged, EntryName, FetchReport, Gap, Notice, PeerPlan, Plan, VerifyReport};

use crate::service::Region;
use crate::shard::Command;

/// Shards compared at once: each holds the copies of what changes meanwhile, here and at the peer.
const SHARDS_AT_ONCE: usize = 4;
/// How often a shard that cannot be compared just now is tried.
const ATTEMPTS_MAX: u32 = 5;
/// Damaged entries named in one answer.
const NAMED_MAX: usize = 10_000;

type Mend = BTreeMap<ShardId, BTreeSet<EntryName>>;

/// Compares all shards with those of the peers asked for.
///
/// Errors: `unknown_region`; `malformed` if an entry is named that cannot be one.
pub(crate) async fn verify(region: &Region, request: VerifyRequest) -> Result<Verification, Reject> {
    let peers = peers(region, &request.peers)?;
    let mend = request.mend.as_deref().map(entries).transpose()?;
    let shared = region.shared();
    let mut out = Verification {
        schema: "tombolo.verification/v1".to_owned(),
        region: shared.identity.name.clone(),
        peers: peers.iter().map(|&peer| region.name(peer)).collect(),
        shards: usize::from(shared.shards.len()),
        entries: 0,
        rounds: 0,
        in_motion: 0,
        mended: 0,
        damaged_count: 0,
        damaged: Vec::new(),
        wrong_digests: Vec::new(),
        unfinished: Vec::new(),
    };
    for peer in peers {
        let (room, mut tasks) =
            (std::sync::Arc::new(Semaphore::new(SHARDS_AT_ONCE)), tokio::task::JoinSet::new());
        for shard in shared.shards.ids() {
            let (region, room) = (region.clone(), room.clone());
            let mend = mend.as_ref().map(|mend| mend.get(&shard).cloned().unwrap_or_default());
            tasks.spawn(async move {
                let _room = room.acquire().await;
                (shard, one(&region, shard, peer, mend).await)
            });
        }
        let mut results = Vec::new();
        while let Some(done) = tasks.join_next().await {
            results.extend(done.ok());
        }
        results.sort_unstable_by_key(|(shard, _)| *shard);
        for (shard, result) in results {
            take(region, &mut out, (shard, peer), result);
        }
    }
    out.wrong_digests.dedup();
    Ok(out)
}

fn peers(region: &Region, names: &[String]) -> Result<Vec<RegionId>, Reject> {
    let own = region.shared().identity.region;
    if names.is_empty() {
        let present = region.shared().mesh.members.present();
        return Ok(present.into_iter().filter(|&peer| peer != own).collect());
    }
    let peers = names.iter().map(|name| region.region(name)).collect::<Result<Vec<_>, _>>()?;
    if peers.contains(&own) {
        let text = "a region is compared with others; name another region";
        return Err(Reject::new(RejectCode::UnknownRegion, text));
    }
    Ok(peers)
}

fn entries(names: &[String]) -> Result<Mend, Reject> {
    let mut mend = Mend::new();
    for name in names {
        let parsed =
            name.split_once('/').and_then(|(shard, entry)| Some((shard.parse().ok()?, entry.parse().ok()?)));
        let Some((shard, entry)) = parsed else {
            let text = format!("`{name}` names no entry; use what a verification answers as `entry`");
            return Err(Reject::new(RejectCode::Malformed, text));
        };
        mend.entry(ShardId(shard)).or_default().insert(entry);
    }
    Ok(mend)
}

async fn one(
    region: &Region,
    shard: ShardId,
    peer: RegionId,
    mend: Option<BTreeSet<EntryName>>,
) -> Result<Box<VerifyReport>, Reject> {
    let mut attempt = 1;
    loop {
        let (reply, answer) = oneshot::channel();
        let stopping = |_| Reject::new(RejectCode::ShuttingDown, "the daemon is stopping");
        let command = Command::Verify { peer, mend: mend.clone(), reply };
        region.shared().shards.ask(shard, command).await.map_err(|_| stopping(()))?;
        match answer.await.map_err(|_| stopping(()))? {
            Err(reject)
                if matches!(reject.code, RejectCode::Busy | RejectCode::NotYet) && attempt < ATTEMPTS_MAX =>
            {
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(u64::from(reject.retry_after_ms.unwrap_or(500))))
                    .await;
            }
            result => return result,
        }
    }
}

fn take(
    region: &Region,
    out: &mut Verification,
    (shard, peer): (ShardId, RegionId),
    result: Result<Box<VerifyReport>, Reject>,
) {
    let name = region.name(peer);
    let report = match result {
        Ok(report) => report,
        Err(reject) => {
            return out.unfinished.push(Unfinished { shard: shard.0, peer: name, text: reject.text });
        }
    };
    let place = format!("shard {shard} with {name}");
    let findings = &region.shared().outlets.findings;
    if report.damaged_count > 0 || report.are_digests_wrong {
        let first = report.damaged.first().map_or_else(
            || "the digests kept of it are wrong".to_owned(),
            |damaged| {
                format!(
                    "{} entries are not the same there, {} first",
                    report.damaged_count,
                    text(&damaged.name)
                )
            },
        );
        findings.raise(&place, &Notice { code: "damaged_cells", text: first });
    } else {
        findings.clear("damaged_cells", &place);
    }
    out.entries += report.entries_count;
    out.rounds = out.rounds.max(report.rounds_count);
    out.in_motion += report.in_motion_count;
    out.mended += report.mended_count;
    out.damaged_count += report.damaged_count;
    if report.are_digests_wrong {
        out.wrong_digests.push(shard.0);
    }
    let room = NAMED_MAX.saturating_sub(out.damaged.len());
    out.damaged.extend(report.damaged.into_iter().take(room).map(|it| damaged(shard, &name, it)));
}

fn kind(name: &EntryName) -> &'static str {
    match name {
        EntryName::Cell { is_counter: true, .. } => "counter",
        EntryName::Cell { .. } => "register",
        EntryName::Session(_) => "session",
        EntryName::Conditionals(_) => "conditionals",
    }
}

fn text(name: &EntryName) -> String {
    match name {
        EntryName::Cell { key, .. } => format!("{} `{}`", kind(name), key.escape_ascii()),
        _ => name.to_string(),
    }
}

fn damaged(shard: ShardId, peer: &str, damaged: Damaged) -> DamagedEntry {
    let Damaged { name, here, there, is_here } = damaged;
    let (tenant, key) = match &name {
        EntryName::Cell { tenant, key, .. } => {
            (Some(tenant.0), Some(String::from_utf8_lossy(key).into_owned()))
        }
        EntryName::Session(_) | EntryName::Conditionals(_) => (None, None),
    };
    DamagedEntry {
        entry: format!("{}/{name}", shard.0),
        shard: shard.0,
        kind: kind(&name).to_owned(),
        tenant,
        key,
        peer: peer.to_owned(),
        here,
        there,
        contradicts_digest: is_here,
    }
}

/// What brings each shard to what each peer holds.
pub(crate) async fn reconciliation(region: &Region) -> Reconciliation {
    let shared = region.shared();
    let mut plans = Vec::new();
    for shard in shared.shards.ids() {
        let looked = shared.shards.inspect(shard, |replica, _| replica.reconciliation()).await;
        plans.extend(looked.into_iter().flatten().map(|plan| shard_plan(region, shard, plan)));
    }
    let (schema, name) = ("tombolo.reconcile/v1".to_owned(), shared.identity.name.clone());
    Reconciliation { schema, region: name, plans }
}

fn shard_plan(region: &Region, shard: ShardId, plan: PeerPlan) -> ShardPlan {
    let PeerPlan { region: peer, is_connected, plan } = plan;
    let name = plan.name().to_owned();
    let (gaps, progress) = match plan {
        Plan::InSync => (Vec::new(), None),
        Plan::Resume(gaps) => (gaps, None),
        Plan::Difference { why, progress } | Plan::Snapshot { why, progress } => (why, progress),
    };
    let gap = |Gap { log, from, through }: Gap| LogGap {
        log: format!("{}/{}", region.name(log.0), log.1),
        from: from.0,
        through: through.0,
    };
    let fetched = |FetchReport { entries_count, leaves_count, is_installing, .. }: FetchReport| {
        FetchProgress { entries: entries_count, leaves_left: leaves_count, installing: is_installing }
    };
    ShardPlan {
        shard: shard.0,
        peer: region.name(peer),
        connected: is_connected,
        plan: name,
        logs: gaps.into_iter().map(gap).collect(),
        progress: progress.map(fetched),
    }
}
