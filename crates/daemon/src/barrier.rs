//! Barriers at the door's side: which regions hold a token or a revision, and why the others do not.
//!
//! What a shard knows comes as events; nothing here asks again and again, except for the reasons, once, when the time is
//! up. Whoever waits counts, and is let go with its future: a caller that has gone costs nothing. Start at
//! [`await_token`] and [`await_revision`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tombolo_causality::{RegionId, ShardId};
use tombolo_codec::{AwaitScope, Laggard, LaggardReason, PEER_VERSION, Position, Reject, RejectCode, Token};
use tombolo_gateway::service::Awaited;
use tombolo_replica::{Shortfall, Ticket};

use crate::mesh::PeerLink;
use crate::service::{Region, stopping};
use crate::shard::{BarrierEvent, Command};

/// When whoever waits beyond the limit may come again.
const FULL_RETRY_MS: u32 = 100;

/// Counts a waiter as long as it lives, and takes its tickets back when it goes.
pub(crate) struct Waiter<'a> {
    region: &'a Region,
    tickets: Vec<(ShardId, Ticket)>,
}

impl<'a> Waiter<'a> {
    /// Errors: `busy` beyond the limit.
    pub(crate) fn new(region: &'a Region) -> Result<Self, Reject> {
        let count = region.shared().waiters_count.fetch_add(1, Ordering::Relaxed);
        let waiter = Self { region, tickets: Vec::new() };
        if count >= region.shared().limits.waiters_max {
            let text = format!("{count} callers wait already, the most there may be");
            return Err(Reject::new(RejectCode::Busy, text).retry_after_ms(FULL_RETRY_MS));
        }
        Ok(waiter)
    }

    /// It waits in a shard, under this ticket.
    pub(crate) fn add(&mut self, shard: ShardId, ticket: Ticket) {
        self.tickets.push((shard, ticket));
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let shared = self.region.shared();
        shared.waiters_count.fetch_sub(1, Ordering::Relaxed);
        for (shard, ticket) in self.tickets.drain(..) {
            if let Some(handle) = shared.shards.get(shard) {
                handle.cancel(ticket);
            }
        }
    }
}

/// Which regions are waited for.
enum Scope {
    These(BTreeSet<RegionId>),
    AtLeast(usize),
}

impl Scope {
    /// Errors: `unknown_region` for a name that is not declared and a number that can never be reached: a barrier never
    /// leaves out whom it cannot wait for.
    fn of(region: &Region, scope: &AwaitScope) -> Result<Self, Reject> {
        let present = region.shared().mesh.members.present();
        Ok(match scope {
            AwaitScope::All => Self::These(present.into_iter().collect()),
            AwaitScope::Named(wanted) => {
                Self::These(wanted.iter().map(|name| region.region(name)).collect::<Result<_, _>>()?)
            }
            AwaitScope::AtLeast(count) if usize::from(*count) > present.len() => {
                let text = format!("{count} regions were asked for, {} are declared", present.len());
                return Err(Reject::new(RejectCode::UnknownRegion, text));
            }
            AwaitScope::AtLeast(count) => Self::AtLeast(usize::from(*count)),
        })
    }

    /// Whose answer counts: all members, and whoever was named.
    fn regions(&self, region: &Region) -> BTreeSet<RegionId> {
        let mut regions: BTreeSet<RegionId> = region.shared().mesh.members.present().into_iter().collect();
        if let Self::These(wanted) = self {
            regions.extend(wanted);
        }
        regions
    }

    fn is_reached(&self, reached: &BTreeSet<RegionId>) -> bool {
        match self {
            Self::These(wanted) => wanted.is_subset(reached),
            Self::AtLeast(count) => reached.len() >= *count,
        }
    }
}

/// Which regions hold all positions, as the shards tell.
struct Holders {
    shards_count: usize,
    shards: BTreeMap<RegionId, BTreeSet<ShardId>>,
    reached: BTreeSet<RegionId>,
}

impl Holders {
    /// A token of no positions is held everywhere.
    fn new(regions: &BTreeSet<RegionId>, shards_count: usize) -> Self {
        let reached = if shards_count == 0 { regions.clone() } else { BTreeSet::new() };
        Self { shards_count, shards: BTreeMap::new(), reached }
    }

    fn take(&mut self, BarrierEvent { shard, region, is_reached }: BarrierEvent) {
        let shards = self.shards.entry(region).or_default();
        if is_reached {
            shards.insert(shard);
        } else {
            shards.remove(&shard);
        }
        if shards.len() == self.shards_count {
            self.reached.insert(region);
        } else {
            self.reached.remove(&region);
        }
    }
}

/// Waits until a token's effects are durable and visible in the scope's regions.
pub(crate) async fn await_token(
    region: &Region,
    token: &Token,
    scope: &AwaitScope,
    timeout: Duration,
) -> Result<Awaited, Reject> {
    let started = Instant::now();
    let scope = Scope::of(region, scope)?;
    let positions = region.positions(token)?;
    let mut waiter = Waiter::new(region)?;
    let shared = region.shared();
    // As many events as regions and shards, and more only when a region restarts.
    let (reply, mut events) = mpsc::unbounded_channel::<BarrierEvent>();
    for (&shard, positions) in &positions {
        let ticket = shared.outlets.ticket();
        let command = Command::Await { ticket, positions: positions.clone(), reply: reply.clone() };
        shared.shards.ask(shard, command).await.map_err(|_| stopping())?;
        waiter.add(shard, ticket);
    }
    drop(reply);
    let regions = scope.regions(region);
    let mut holders = Holders::new(&regions, positions.len());
    let deadline = tokio::time::Instant::now() + timeout;
    while !scope.is_reached(&holders.reached) {
        let Ok(event) = timeout_at(deadline, events.recv()).await else { break };
        let event = event.ok_or_else(stopping)?;
        // A region that joined since is not waited for.
        if regions.contains(&event.region) {
            holders.take(event);
        }
    }
    let mut laggards = Vec::new();
    for &lacking in regions.difference(&holders.reached) {
        laggards.push(lags_behind_token(region, lacking, &positions).await);
    }
    let waited = started.elapsed();
    let reached = scope.is_reached(&holders.reached);
    Ok(Awaited { reached, waited, laggards, regions_reached: holders.reached.len() })
}

/// Waits until the scope's regions have applied a membership revision, or a later one.
pub(crate) async fn await_revision(
    region: &Region,
    revision: u64,
    scope: &AwaitScope,
    timeout: Duration,
) -> Result<Awaited, Reject> {
    let started = Instant::now();
    let scope = Scope::of(region, scope)?;
    let _waiter = Waiter::new(region)?;
    let regions = scope.regions(region);
    let mut revisions = region.shared().mesh.revisions.subscribe();
    let reached_in = |revisions: &BTreeMap<RegionId, u64>| -> BTreeSet<RegionId> {
        let is_there = |id: &&RegionId| revisions.get(id).is_some_and(|&at| at >= revision);
        regions.iter().filter(is_there).copied().collect()
    };
    let all_there = revisions.wait_for(|revisions| scope.is_reached(&reached_in(revisions)));
    // Out of time, or stopping: either way the answer is what is known.
    drop(tokio::time::timeout(timeout, all_there).await);
    let known = revisions.borrow().clone();
    let reached = reached_in(&known);
    let laggard = |id: RegionId| {
        let detail = known.get(&id).map(|at| format!("it has applied revision {at}"));
        lags(region, id, Shortfall::default(), detail.unwrap_or_default())
    };
    Ok(Awaited {
        reached: scope.is_reached(&reached),
        waited: started.elapsed(),
        laggards: regions.difference(&reached).copied().map(laggard).collect(),
        regions_reached: reached.len(),
    })
}

async fn lags_behind_token(
    region: &Region,
    id: RegionId,
    positions: &BTreeMap<ShardId, Vec<Position>>,
) -> Laggard {
    let mut all = Shortfall::default();
    for (&shard, positions) in positions {
        let positions = positions.clone();
        let look = move |replica: &tombolo_replica::Replica, now| replica.shortfall(id, &positions, now);
        let part = region.shared().shards.inspect(shard, look).await.unwrap_or_default();
        all.ops += part.ops;
        all.halted = all.halted.or(part.halted);
        all.is_paused |= part.is_paused;
        all.is_evicted |= part.is_evicted;
    }
    lags(region, id, all, String::new())
}

fn lags(region: &Region, id: RegionId, short: Shortfall, detail: String) -> Laggard {
    let link = region.shared().mesh.link(id);
    let is_member = region.shared().mesh.members.document().is_present(id);
    let (reason, why) = if is_member {
        reason(link.as_ref(), &short)
    } else {
        (LaggardReason::Evicted, "it was removed from the cluster".to_owned())
    };
    Laggard {
        region: region.name(id),
        reason,
        detail: if why.is_empty() { detail } else { why },
        behind_ops: short.ops,
        since_unix_ms: link.and_then(|link| link.lost_unix_ms),
    }
}

/// The reason that an operator has to mend first; no link: this region itself.
fn reason(link: Option<&PeerLink>, short: &Shortfall) -> (LaggardReason, String) {
    if let Some(version) = link.and_then(|link| link.refused_version) {
        let text = format!(
            "it speaks version {version} of the protocol between regions, this region {PEER_VERSION}"
        );
        return (LaggardReason::Version, text);
    }
    if link.is_some_and(|link| !link.is_up) {
        return (LaggardReason::Unreachable, String::new());
    }
    match &short.halted {
        Some(why) => (LaggardReason::ApplyError, format!("it halted a log that is waited for: {why}")),
        None if short.is_evicted => {
            let text =
                "batches it lacks are not kept here any more: it comes back by a difference of the states";
            (LaggardReason::Evicted, text.to_owned())
        }
        None if short.is_paused => (LaggardReason::Behind, "applying is paused there".to_owned()),
        None => (LaggardReason::Behind, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_has_to_be_mended_first() {
        let up = PeerLink { is_up: true, ..PeerLink::default() };
        let paused = Shortfall { is_paused: true, ..Shortfall::default() };
        let halted = Shortfall { halted: Some("two batches 4".to_owned()), ..paused.clone() };
        let found = |link: Option<&PeerLink>, short: &Shortfall| reason(link, short).0;
        assert_eq!(found(Some(&up), &Shortfall::default()), LaggardReason::Behind);
        assert_eq!(found(Some(&up), &paused), LaggardReason::Behind);
        assert!(reason(Some(&up), &paused).1.contains("paused"));
        assert_eq!(found(Some(&up), &halted), LaggardReason::ApplyError);
        assert_eq!(found(None, &halted), LaggardReason::ApplyError);
        let evicted = Shortfall { is_evicted: true, ..paused.clone() };
        assert_eq!(found(Some(&up), &evicted), LaggardReason::Evicted);
        let down = PeerLink::default();
        assert_eq!(found(Some(&down), &halted), LaggardReason::Unreachable);
        let other = PeerLink { refused_version: Some(2), ..PeerLink::default() };
        assert_eq!(found(Some(&other), &halted), LaggardReason::Version);
    }
}
