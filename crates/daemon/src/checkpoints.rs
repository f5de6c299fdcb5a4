//! Checkpoints: each shard's state written at an exact vector, then the logs pruned that the one before it and every
//! member cover.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashSet;
use tokio::sync::watch;
use tombolo_causality::{LogId, ShardId};
use tombolo_codec::{Checkpoint, Position, Reject, RejectCode};
use tombolo_replica::{Notice, Replica};
use tombolo_wal::Errand;

use crate::service::Region;

/// Logs that ended and went as a whole in this process.
///
/// A sealed log stays in every later checkpoint, so it is offered each time; pruning it again would list and sync
/// directories in the thread that commits, for each log that ever ended.
#[derive(Debug, Default)]
pub(crate) struct Pruned(DashSet<LogId, foldhash::fast::FixedState>);

impl Pruned {
    /// What is left to prune.
    fn rest(&self, prunable: Vec<(Position, bool)>) -> impl Iterator<Item = (Position, bool)> + '_ {
        prunable.into_iter().filter(|(position, has_ended)| !has_ended || !self.0.contains(&position.log))
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

async fn write(region: &Region, shard: ShardId) -> Result<(), Reject> {
    let shared = region.shared();
    let _alone = shared.checkpointing.lock().await;
    let refused =
        |text: String| Reject::new(RejectCode::StorageFailed, format!("no checkpoint was written: {text}"));
    let stopping = || Reject::new(RejectCode::ShuttingDown, "the daemon is stopping");
    let cluster = shared.identity.cluster;
    let look = |replica: &Replica, _| Arc::new(replica.checkpoint());
    let checkpoint = shared.shards.inspect(shard, look).await.map_err(|_| stopping())?;
    let content = checkpoint.clone();
    let encoded = tokio::task::spawn_blocking(move || content.encode(cluster, shard)).await;
    let bytes = match encoded {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(refused(error.to_string())),
        Err(error) => return Err(refused(error.to_string())),
    };
    match shared.storage.run(|reply| Errand::Checkpoint { shard, bytes, reply }).await {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(refused(error.to_string())),
        None => {
            return Err(
                Reject::new(RejectCode::Busy, "too many checkpoints wait already").retry_after_ms(1_000)
            );
        }
    }
    // If this checkpoint should rot, the one before must still find the logs behind it: prune only what that covers.
    let standing = Checkpoint {
        clock: checkpoint.clock,
        logs: checkpoint.logs.clone(),
        sealed: checkpoint.sealed.clone(),
        ..Checkpoint::default()
    };
    let Some(before) = shared.checkpoints.insert(shard, standing) else { return Ok(()) };
    let look = move |replica: &Replica, _| replica.prunable(&before);
    let prunable = shared.shards.inspect(shard, look).await.map_err(|_| stopping())?;
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
            Some(Ok(())) if has_ended => drop(shared.pruned.0.insert(log)),
            Some(Err(error)) => tracing::warn!("log {log:?} was not pruned: {error}"),
            Some(Ok(())) | None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tombolo_causality::{Epoch, RegionId, Seq};

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
        pruned.0.insert(at(1, true).0.log);
        pruned.0.insert(at(3, true).0.log);
        assert_eq!(pruned.rest(prunable).collect::<Vec<_>>(), [at(2, true), at(3, false)]);
    }
}
