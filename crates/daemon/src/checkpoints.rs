//! Checkpoints: each shard's state written at an exact vector, then the logs pruned that the one before it and every
//! member cover; beyond the retention bound, what the one before it covers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dashmap::{DashMap, DashSet};
use tokio::sync::{mpsc, watch};
use tombolo_causality::{LogId, RegionId, Seq, ShardId};
use tombolo_codec::{Checkpoint, Position, Reject, RejectCode};
use tombolo_replica::{Difference, Input, Mending, Notice, Replica, joined};
use tombolo_wal::{Errand, MayGo};

use crate::service::Region;

/// Parts of a cut that are read before what waits is handled.
const PARTS_AT_ONCE: usize = 8;
/// Pause before an errand is offered again to a committer that took none.
const ERRAND_AGAIN: Duration = Duration::from_millis(5);

/// What of a shard went beyond what all members hold.
#[derive(Debug, Clone, Default)]
struct Passed {
    through: BTreeMap<LogId, Seq>,
    lacking: BTreeSet<RegionId>,
}

/// What of the logs went in this process.
#[derive(Debug, Default)]
pub(crate) struct Pruned {
    /// Logs that ended and went as a whole.
    ///
    /// A sealed log stays in every later checkpoint, so it is offered each time; pruning it again would list and sync
    /// directories in the thread that commits, for each log that ever ended.
    whole: DashSet<LogId, foldhash::fast::FixedState>,
    /// Of each shard, through where logs went though a member lacks that, and which members do.
    passed: DashMap<ShardId, Passed, foldhash::fast::FixedState>,
}

impl Pruned {
    fn passed(&self, shard: ShardId) -> Passed {
        self.passed.get(&shard).map(|passed| passed.clone()).unwrap_or_default()
    }

    /// Who lacks something that went, of any shard.
    fn lacking(&self) -> BTreeSet<RegionId> {
        self.passed.iter().flat_map(|passed| passed.lacking.clone()).collect()
    }

    /// What is left to prune.
    fn rest(&self, prunable: Vec<(Position, bool)>) -> impl Iterator<Item = (Position, bool)> + '_ {
        prunable.into_iter().filter(|(position, has_ended)| !has_ended || !self.whole.contains(&position.log))
    }
}

/// Writes one every `every`, spread over the shards, until `stop`.
pub(crate) async fn keep(region: Region, every: Duration, mut stop: watch::Receiver<bool>) {
    let shards_count = u32::from(region.shared().shards.len());
    let pause = every / shards_count.max(1);
    loop {
        for shard in region.shared().shards.ids() {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(pause) => {}
            }
            if let Err(reject) = write(&region, shard).await {
                let notice = Notice { code: "checkpoint_failed", text: reject.text };
                region.shared().outlets.findings.raise(&format!("shard {shard}"), &notice);
            }
        }
    }
}

/// Writes one of every shard now; says how many.
pub(crate) async fn write_all(region: &Region) -> Result<usize, Reject> {
    let mut count = 0;
    for shard in region.shared().shards.ids() {
        write(region, shard).await?;
        count += 1;
    }
    Ok(count)
}

fn refused(text: impl std::fmt::Display) -> Reject {
    Reject::new(RejectCode::StorageFailed, format!("no checkpoint was written: {text}"))
}

fn stopping() -> Reject {
    Reject::new(RejectCode::ShuttingDown, "the daemon is stopping")
}

/// A shard's state at one vector. It is read part by part, so that what waits in between is not held up.
async fn read(region: &Region, shard: ShardId) -> Result<Checkpoint, Reject> {
    let shards = &region.shared().shards;
    let (cut, mut checkpoint) =
        shards.alter(shard, |replica| replica.begin_cut()).await.map_err(|_| stopping())?;
    let mut part = 0;
    loop {
        let parts = move |replica: &mut Replica| {
            (part..part + PARTS_AT_ONCE).map_while(|part| replica.read_cut(cut, part)).collect::<Vec<_>>()
        };
        let read = shards.alter(shard, parts).await.map_err(|_| stopping())?;
        let is_last = read.len() < PARTS_AT_ONCE;
        for entries in read {
            checkpoint.cells.extend(entries.cells);
            checkpoint.sessions.extend(entries.sessions);
            checkpoint.conditionals.extend(entries.conditionals);
        }
        if is_last {
            return Ok(checkpoint);
        }
        part += PARTS_AT_ONCE;
    }
}

/// Makes a checkpoint durable.
async fn keep_one(region: &Region, shard: ShardId, checkpoint: &Arc<Checkpoint>) -> Result<(), Reject> {
    let (content, cluster) = (checkpoint.clone(), region.shared().identity.cluster);
    let encoded = tokio::task::spawn_blocking(move || content.encode(cluster, shard)).await;
    let bytes = encoded.map_err(refused)?.map_err(refused)?;
    match region.shared().storage.run(|reply| Errand::Checkpoint { shard, bytes, reply }).await {
        Some(written) => written.map_err(refused),
        None => Err(Reject::new(RejectCode::Busy, "too many checkpoints wait already").retry_after_ms(1_000)),
    }
}

/// What has to be durable before it stands in a shard.
#[derive(Debug)]
pub(crate) enum Keeping {
    /// What it has fetched of a peer.
    Difference(Box<Difference>),
    /// Entries that were damaged.
    Mending(Box<Mending>),
}

/// Makes durable, and installs, what shards have fetched, until `stop`.
pub(crate) async fn install_all(
    region: Region,
    mut installs: mpsc::UnboundedReceiver<(ShardId, Keeping)>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let next = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            next = installs.recv() => next,
        };
        let Some((shard, keeping)) = next else { return };
        let metrics = &region.shared().outlets.metrics;
        let input = match keeping {
            Keeping::Difference(difference) => {
                metrics.differences_fetched.inc();
                match install(&region, shard, difference).await {
                    Ok(difference) => {
                        metrics.differences_installed.inc();
                        Input::Installed { difference }
                    }
                    Err(reject) => Input::InstallFailed { text: reject.text },
                }
            }
            Keeping::Mending(mending) => match mend(&region, shard, &mending).await {
                Ok(()) => Input::Mended { mending },
                Err(reject) => Input::MendFailed { text: reject.text },
            },
        };
        region.shared().shards.tell(shard, input).await;
    }
}

/// Makes a checkpoint with the difference durable, then lets the files of the logs that it brings further go on behind
/// it: recovery takes a hole that no checkpoint covers for rot.
async fn install(
    region: &Region,
    shard: ShardId,
    difference: Box<Difference>,
) -> Result<Box<Difference>, Reject> {
    let shared = region.shared();
    let _alone = shared.checkpointing.lock().await;
    let own = read(region, shard).await?;
    let join = move || joined(own, &difference).map(|(checkpoint, moved)| (checkpoint, moved, difference));
    let (checkpoint, moved, difference) =
        tokio::task::spawn_blocking(join).await.map_err(refused)?.map_err(refused)?;
    let checkpoint = Arc::new(checkpoint);
    keep_one(region, shard, &checkpoint).await?;
    shared.checkpoints.insert(shard, without_entries(&checkpoint));
    for end in &moved.ends {
        let log = LogId { shard, region: end.region, epoch: end.epoch };
        loop {
            match shared.storage.run(|reply| Errand::Advance { log, end: end.into(), reply }).await {
                Some(Ok(())) => break,
                // The log takes no more batches; its shard is told of that by the next one.
                Some(Err(error)) => {
                    tracing::error!("log {log:?} does not go on behind a difference: {error}");
                    break;
                }
                None => tokio::time::sleep(ERRAND_AGAIN).await,
            }
        }
    }
    tracing::info!(%shard, logs_count = moved.ends.len(), "installed a difference");
    Ok(difference)
}

/// Makes a checkpoint with the right entries durable: a restart must not bring the damage back.
async fn mend(region: &Region, shard: ShardId, mending: &Mending) -> Result<(), Reject> {
    let shared = region.shared();
    let _alone = shared.checkpointing.lock().await;
    let mut own = read(region, shard).await?;
    let count = mending.mend(&mut own);
    let checkpoint = Arc::new(own);
    keep_one(region, shard, &checkpoint).await?;
    shared.checkpoints.insert(shard, without_entries(&checkpoint));
    tracing::warn!(%shard, count, "entries were replaced by what another region holds");
    Ok(())
}

fn without_entries(checkpoint: &Checkpoint) -> Checkpoint {
    Checkpoint {
        clock: checkpoint.clock,
        logs: checkpoint.logs.clone(),
        sealed: checkpoint.sealed.clone(),
        ..Checkpoint::default()
    }
}

async fn write(region: &Region, shard: ShardId) -> Result<(), Reject> {
    let shared = region.shared();
    let _alone = shared.checkpointing.lock().await;
    let checkpoint = Arc::new(read(region, shard).await?);
    keep_one(region, shard, &checkpoint).await?;
    // If this checkpoint should rot, the one before must still find the logs behind it: prune only what that covers.
    let standing = shared.checkpoints.insert(shard, without_entries(&checkpoint));
    let Some(before) = standing else { return Ok(()) };
    let look = move |replica: &Replica, _| [false, true].map(|is_over| replica.prunable(&before, is_over));
    let [prunable, at_most] = shared.shards.inspect(shard, look).await.map_err(|_| stopping())?;
    for (position, has_ended) in shared.pruned.rest(prunable) {
        let (log, through) = (position.log, position.seq);
        let pruned = if has_ended {
            shared.storage.run(|reply| Errand::PruneLog { log, reply }).await
        } else {
            let pruned = shared.storage.run(|reply| Errand::Prune { log, through, reply }).await;
            pruned.map(|outcome| outcome.map(drop))
        };
        // What is not pruned now is pruned with the next checkpoint.
        match pruned {
            Some(Ok(())) if has_ended => drop(shared.pruned.whole.insert(log)),
            Some(Err(error)) => tracing::warn!("log {log:?} was not pruned: {error}"),
            Some(Ok(())) | None => {}
        }
    }
    hold_share(region, shard, at_most).await
}

/// Keeps a shard's files within its share of what is retained: what a member lacks of them goes too, and that member
/// takes the difference.
async fn hold_share(region: &Region, shard: ShardId, at_most: Vec<(Position, bool)>) -> Result<(), Reject> {
    let shared = region.shared();
    let bytes_max = shared.wal_retention_bytes / u64::from(shared.shards.len().max(1));
    let may_go = |(at, has_ended): (Position, bool)| MayGo { log: at.log, through: at.seq, has_ended };
    let ends = at_most.into_iter().map(may_go).collect();
    let shrunk = shared.storage.run(|reply| Errand::Shrink { shard, ends, bytes_max, reply }).await;
    let mut passed = shared.pruned.passed(shard);
    match shrunk {
        Some(Ok(gone)) => passed.through.extend(gone),
        Some(Err(error)) => tracing::warn!("shard {shard} was not held to its share: {error}"),
        None => {}
    }
    let look = move |replica: &Replica, _| {
        passed.through.retain(|&log, &mut seq| !replica.members_lacking(log, seq).is_empty());
        let through = passed.through.iter();
        passed.lacking = through.flat_map(|(&log, &seq)| replica.members_lacking(log, seq)).collect();
        passed
    };
    let passed = shared.shards.inspect(shard, look).await.map_err(|_| stopping())?;
    shared.pruned.passed.insert(shard, passed);
    let names: Vec<_> = shared.pruned.lacking().into_iter().map(|member| region.name(member)).collect();
    let (code, place) = ("retention_passed", "region");
    if names.is_empty() {
        shared.outlets.findings.clear(code, place);
    } else {
        let text = format!(
            "the log is longer than wal_retention_bytes allows, so parts went that {} lacks: it takes the difference \
             when it is back",
            names.join(", ")
        );
        shared.outlets.findings.raise(place, &Notice { code, text });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tombolo_causality::{Epoch, RegionId};

    use super::*;

    #[test]
    fn a_log_that_went_as_a_whole_is_not_pruned_again_and_one_that_stands_is() {
        let region = RegionId::new(1).expect("it is in range");
        let at = |epoch, has_ended| {
            let log = LogId { shard: ShardId(0), region, epoch: Epoch(epoch) };
            (Position { log, seq: Seq(5) }, has_ended)
        };
        let pruned = Pruned::default();
        let prunable = vec![at(1, true), at(2, true), at(3, false)];
        assert_eq!(pruned.rest(prunable.clone()).collect::<Vec<_>>(), prunable);
        pruned.whole.insert(at(1, true).0.log);
        pruned.whole.insert(at(3, true).0.log);
        assert_eq!(pruned.rest(prunable).collect::<Vec<_>>(), [at(2, true), at(3, false)]);
    }
}
