//! Batches that damage took out of a log: whether others have given them back, or nobody holds them any more.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tombolo_causality::{LogId, Seq};
use tombolo_replica::{Notice, Replica};

use crate::service::Region;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A shard that may never be whole again, because of the very range, has had time enough to fetch it after so many.
const LOOKS_MIN: u32 = 6;

/// A range of a log that its files hold no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) log: LogId,
    pub(crate) first: Seq,
    pub(crate) last: Seq,
}

/// Looks until every range is held again or `stop`.
///
/// A range that is not held once its shard is whole, or some time after every member has answered without naming it, is
/// raised as `data_loss`. It is taken back if the range comes after all.
pub(crate) async fn watch(region: Region, losses: Vec<Loss>, mut stop: watch::Receiver<bool>) {
    let mut open: BTreeMap<LogId, Vec<Loss>> = BTreeMap::new();
    for loss in losses {
        open.entry(loss.log).or_default().push(loss);
    }
    for looks in 1u32.. {
        if open.is_empty() {
            return;
        }
        let mut still_open = BTreeMap::new();
        for (log, losses) in open {
            let Some(losses) = look(&region, log, losses, looks).await else { return };
            if !losses.is_empty() {
                still_open.insert(log, losses);
            }
        }
        open = still_open;
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Raises or clears the finding of one log; gives the ranges that are not held, or none if the daemon is stopping.
async fn look(region: &Region, log: LogId, losses: Vec<Loss>, looks: u32) -> Option<Vec<Loss>> {
    let shared = region.shared();
    let see = move |replica: &Replica, _| {
        let missing = losses.into_iter().filter(|loss| !replica.holds(log, loss.last)).collect::<Vec<_>>();
        let is_named = missing.iter().any(|loss| replica.is_held_elsewhere(log, loss.last));
        let is_given_up = looks >= LOOKS_MIN && replica.has_heard_all() && !is_named;
        (replica.is_whole() || is_given_up, missing)
    };
    let (is_lost, missing) = shared.shards.inspect(log.shard, see).await.ok()?;
    let name = shared.mesh.members.name(log.region);
    let place = format!("shard {}, log {name}/{}", log.shard, log.epoch);
    if missing.is_empty() {
        shared.outlets.findings.clear("data_loss", &place);
    } else if is_lost {
        let ranges: Vec<_> = missing.iter().map(|loss| format!("{} to {}", loss.first, loss.last)).collect();
        let text = format!("no region holds batches {}; what they wrote is lost", ranges.join(", "));
        shared.outlets.findings.raise(&place, &Notice { code: "data_loss", text });
    }
    Some(missing)
}
