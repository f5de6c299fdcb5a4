//! Checkpoints: each shard's state written at an exact vector, then the logs pruned that the one before it and every
//! member cover.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tombolo_causality::ShardId;
use tombolo_codec::{Checkpoint, Reject, RejectCode};
use tombolo_replica::{Notice, Replica};
use tombolo_wal::Errand;

use crate::service::Region;

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
    for (position, has_ended) in prunable {
        let (log, through) = (position.log, position.seq);
        let pruned = if has_ended {
            shared.storage.run(|reply| Errand::PruneLog { log, reply }).await
        } else {
            let pruned = shared.storage.run(|reply| Errand::Prune { log, through, reply }).await;
            pruned.map(|outcome| outcome.map(drop))
        };
        // What is not pruned now is pruned with the next checkpoint.
        if let Some(Err(error)) = pruned {
            tracing::warn!("log {log:?} was not pruned: {error}");
        }
    }
    Ok(())
}
