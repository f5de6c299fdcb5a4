//! The region as its doors see it: requests are split by shard, answers put together again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tokio::sync::oneshot;
use tombolo_causality::{RegionId, Router, SessionId, ShardId, TenantId, Time};
use tombolo_codec::{
    AwaitScope, Checkpoint, Digest, Op, Position, ReadValue, Reject, RejectCode, SealKey, SessionPart, Token,
    Verb, request_digest,
};
use tombolo_gateway::reconciliation::{Reconciliation, Verification, VerifyRequest};
use tombolo_gateway::regions::{Regions, RegionsRequest};
use tombolo_gateway::service::{Awaited, Caller, Goal, Identity, ReadRequest, WriteRequest, Written};
use tombolo_gateway::status::{ShardDigest, Status};
use tombolo_gateway::{DoorStats, Service};
use tombolo_replica::{Input, Outcome, Report, WritePart};

use crate::barrier::{self, Waiter};
use crate::checkpoints::Pruned;
use crate::clock::{draw, wall};
use crate::config::{Auth, LimitsConfig, Secret};
use crate::joining::Joining;
use crate::mesh::Mesh;
use crate::node::{Outlets, Shards};
use crate::shard::Command;
use crate::status;
use crate::storage::Storage;

/// What the doors of one daemon share.
#[derive(Clone)]
pub(crate) struct Region(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) seal_key: SealKey,
    pub(crate) auth: Auth,
    pub(crate) tenants: Vec<(TenantId, Secret)>,
    pub(crate) admin_token: Secret,
    pub(crate) router: Router,
    pub(crate) shards: Shards,
    pub(crate) outlets: Arc<Outlets>,
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) max_drift_ms: u64,
    pub(crate) limits: LimitsConfig,
    /// The ends and seals of each shard's latest checkpoint of this process, without its cells.
    pub(crate) checkpoints: DashMap<ShardId, Checkpoint, foldhash::fast::FixedState>,
    /// Logs whose files went as a whole.
    pub(crate) pruned: Pruned,
    /// How much of the logs is kept for members that lack it, over all shards.
    pub(crate) wal_retention_bytes: u64,
    /// Held while a checkpoint is written: two of one shard would prune by each other's ends.
    pub(crate) checkpointing: tokio::sync::Mutex<()>,
    /// Whether reads are served.
    pub(crate) joining: Joining,
    pub(crate) is_ready: AtomicBool,
    pub(crate) waiters_count: AtomicUsize,
    pub(crate) doors: std::sync::OnceLock<Vec<(&'static str, Arc<DoorStats>)>>,
}

pub(crate) fn stopping() -> Reject {
    Reject::new(RejectCode::ShuttingDown, "the daemon is stopping").retry_after_ms(500)
}

/// Ops of a request that live in one shard, and where they stood in the request.
struct Part {
    shard: ShardId,
    places: Vec<usize>,
    ops: Vec<Op>,
}

impl Region {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }

    fn split(&self, tenant: TenantId, ops: Vec<Op>) -> Vec<Part> {
        let router = self.0.router;
        if let [op] = ops.as_slice() {
            return vec![Part { shard: router.shard(tenant, &op.key), places: vec![0], ops }];
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut part_of = vec![usize::MAX; usize::from(router.shards_count())];
        for (place, op) in ops.into_iter().enumerate() {
            let shard = router.shard(tenant, &op.key);
            let part_of = &mut part_of[usize::from(shard.0)];
            if *part_of == usize::MAX {
                *part_of = parts.len();
                parts.push(Part { shard, places: Vec::new(), ops: Vec::new() });
            }
            parts[*part_of].places.push(place);
            parts[*part_of].ops.push(op);
        }
        parts
    }

    async fn write_part(&self, shard: ShardId, part: Box<WritePart>) -> Result<Outcome, Reject> {
        let (reply, answer) = oneshot::channel();
        self.0.shards.ask(shard, Command::Write { part, reply }).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping().unknown()))
    }

    /// Admits every part before any is logged (design.md §3.3).
    async fn check_parts(
        &self,
        parts: Vec<(ShardId, Box<WritePart>)>,
    ) -> Result<Vec<(ShardId, Box<WritePart>)>, Reject> {
        let mut waiting = Vec::with_capacity(parts.len());
        for (shard, part) in parts {
            let (reply, answer) = oneshot::channel();
            self.0.shards.ask(shard, Command::Check { part, reply }).await.map_err(|_| stopping())?;
            waiting.push((shard, answer));
        }
        let mut admitted = Vec::with_capacity(waiting.len());
        for (shard, answer) in waiting {
            admitted.push((shard, answer.await.map_err(|_| stopping())??));
        }
        Ok(admitted)
    }

    async fn write_parts(&self, parts: Vec<(ShardId, Box<WritePart>)>) -> Result<Vec<Outcome>, Reject> {
        let parts = self.check_parts(parts).await?;
        let mut waiting = Vec::with_capacity(parts.len());
        for (shard, part) in parts {
            let (reply, answer) = oneshot::channel();
            let asked = self.0.shards.ask(shard, Command::Write { part, reply }).await;
            asked.map_err(|_| stopping().unknown())?;
            waiting.push(answer);
        }
        let mut outcomes = Vec::with_capacity(waiting.len());
        let mut refused = None;
        for answer in waiting {
            match answer.await {
                Ok(Ok(outcome)) => outcomes.push(outcome),
                Ok(Err(reject)) => refused = refused.or(Some(reject)),
                Err(_) => refused = refused.or(Some(stopping())),
            }
        }
        match refused {
            None => Ok(outcomes),
            // Other shards may have logged their part; under the same number it is recognised there.
            Some(reject) => Err(reject.unknown()),
        }
    }

    async fn report(&self, shard: ShardId) -> Option<Report> {
        self.0.shards.inspect(shard, |replica, now| replica.report(now)).await.ok()
    }

    /// Every shard's report, in order.
    pub(crate) async fn reports(&self) -> Vec<(ShardId, Report)> {
        let mut reports = Vec::with_capacity(usize::from(self.0.shards.len()));
        for shard in self.0.shards.ids() {
            if let Some(report) = self.report(shard).await {
                reports.push((shard, report));
            }
        }
        reports
    }

    pub(crate) fn name(&self, region: RegionId) -> String {
        self.0.mesh.members.name(region)
    }

    pub(crate) fn region(&self, name: &str) -> Result<RegionId, Reject> {
        let document = self.0.mesh.members.document();
        document.named(name).map(|entry| entry.region).ok_or_else(|| {
            let known: Vec<&str> = document.entries().iter().map(|entry| entry.name.as_str()).collect();
            let text = format!("no region is called `{name}`; there are {}", known.join(", "));
            Reject::new(RejectCode::UnknownRegion, text)
        })
    }

    pub(crate) fn positions(&self, token: &Token) -> Result<BTreeMap<ShardId, Vec<Position>>, Reject> {
        let mut positions: BTreeMap<ShardId, Vec<Position>> = BTreeMap::new();
        for &position in &token.positions {
            if self.0.shards.get(position.log.shard).is_none() {
                return Err(Reject::new(RejectCode::BadToken, "the token names a shard that does not exist"));
            }
            positions.entry(position.log.shard).or_default().push(position);
        }
        Ok(positions)
    }
}

impl Service for Region {
    fn identity(&self) -> &Identity {
        &self.0.identity
    }

    fn seal_key(&self) -> &SealKey {
        &self.0.seal_key
    }

    fn authenticate(&self, credential: Option<&str>) -> Result<Caller, Reject> {
        let Some(credential) = credential else {
            return match self.0.auth {
                Auth::None => Ok(Caller { tenant: TenantId::DEFAULT, is_admin: false }),
                Auth::Token => Err(Reject::new(
                    RejectCode::Unauthenticated,
                    "this region wants a token with every request",
                )),
            };
        };
        if self.0.admin_token.matches(credential) {
            return Ok(Caller { tenant: TenantId::DEFAULT, is_admin: true });
        }
        let found = self.0.tenants.iter().find(|(_, secret)| secret.matches(credential));
        match found {
            Some(&(tenant, _)) => Ok(Caller { tenant, is_admin: false }),
            None => Err(Reject::new(RejectCode::Unauthenticated, "the token is not one of this cluster's")),
        }
    }

    fn draw(&self) -> u128 {
        draw()
    }

    async fn write(&self, caller: Caller, request: WriteRequest) -> Result<Written, Reject> {
        let started = Instant::now();
        check_limits(&self.0.limits, &request.ops)?;
        let tenant = caller.tenant;
        let ops_count = request.ops.len();
        let session = request.session.map(|session| SessionPart {
            id: session.id,
            number: session.number,
            settled: session.settled,
            digest: request_digest(tenant, &request.ops),
        });
        let make = |ops| {
            let (retry, after, wants_values) = (request.retry, request.after, request.wants_values);
            Box::new(WritePart { tenant, session, retry, after, ops, wants_values })
        };
        let mut parts = self.split(tenant, request.ops);
        let (places, outcomes) = if parts.len() == 1 {
            let part = parts.remove(0);
            (vec![part.places], vec![self.write_part(part.shard, make(part.ops)).await?])
        } else {
            let places: Vec<Vec<usize>> =
                parts.iter_mut().map(|part| std::mem::take(&mut part.places)).collect();
            let parts = parts.into_iter().map(|part| (part.shard, make(part.ops))).collect();
            (places, self.write_parts(parts).await?)
        };
        let mut written = Written {
            token: Token::default(),
            replayed: outcomes.iter().all(|outcome| outcome.replayed),
            conditional: outcomes.iter().any(|outcome| outcome.conditional),
            stamps: vec![None; ops_count],
            values: vec![None; ops_count],
        };
        for (places, outcome) in places.into_iter().zip(outcomes) {
            written.token.positions.extend(outcome.positions);
            for (index, place) in places.into_iter().enumerate() {
                written.stamps[place] = outcome.stamps[index];
                written.values[place] = outcome.values[index];
            }
        }
        let times = written.stamps.iter().flatten().map(|stamp| stamp.time);
        written.token.time = times.max().unwrap_or(Time::ZERO);
        self.0.outlets.metrics.signals.inc_by(ops_count as u64);
        self.0.outlets.metrics.ack_seconds.observe(started.elapsed().as_secs_f64());
        Ok(written)
    }

    async fn read(&self, caller: Caller, request: ReadRequest) -> Result<Vec<ReadValue>, Reject> {
        self.0.joining.check().await?;
        let tenant = caller.tenant;
        let mut after = match &request.after {
            Some(token) => self.positions(token)?,
            None => BTreeMap::new(),
        };
        let mut parts: BTreeMap<ShardId, (Vec<usize>, Vec<bytes::Bytes>)> = BTreeMap::new();
        let keys_count = request.keys.len();
        for (place, key) in request.keys.into_iter().enumerate() {
            let part = parts.entry(self.0.router.shard(tenant, &key)).or_default();
            part.0.push(place);
            part.1.push(key);
        }
        let mut waiter = Waiter::new(self)?;
        let mut waiting = Vec::with_capacity(parts.len());
        for (shard, (places, keys)) in parts {
            let ticket = self.0.outlets.ticket();
            let after = after.remove(&shard).unwrap_or_default();
            let gap = after.clone();
            let (reply, answer) = oneshot::channel();
            let input = Input::Read { ticket, tenant, keys, after };
            self.0.shards.ask(shard, Command::Read { ticket, input, reply }).await.map_err(|_| stopping())?;
            if !gap.is_empty() {
                waiter.add(shard, ticket);
            }
            waiting.push((places, gap, answer));
        }
        let deadline = tokio::time::Instant::now() + request.timeout;
        let mut values = vec![ReadValue::Absent; keys_count];
        for (places, gap, answer) in waiting {
            let found = if gap.is_empty() {
                answer.await.map_err(|_| stopping())?
            } else {
                match tokio::time::timeout_at(deadline, answer).await {
                    Ok(found) => found.map_err(|_| stopping())?,
                    Err(_) => return Err(not_yet(&gap)),
                }
            };
            for (place, value) in places.into_iter().zip(found) {
                values[place] = value;
            }
        }
        Ok(values)
    }

    fn open_session(&self, _caller: Caller) -> Result<SessionId, Reject> {
        let identity = &self.0.identity;
        let random = u64::try_from(draw() >> 64).expect("the upper half of 128 bits");
        Ok(SessionId { home: identity.region, epoch: identity.epoch, opened: wall(), random })
    }

    fn named_session(&self, caller: Caller, name: &[u8]) -> SessionId {
        let identity = &self.0.identity;
        let digest = Digest::of(&[b"named session", &caller.tenant.0.to_le_bytes(), name]);
        let half = digest.0.first_chunk().expect("a digest is longer than half of it");
        let window_ms = identity.window_seconds.saturating_mul(1_000);
        SessionId::named(identity.region, u128::from_le_bytes(*half), wall(), window_ms)
    }

    async fn wait(&self, goal: Goal, scope: AwaitScope, timeout: Duration) -> Result<Awaited, Reject> {
        let timeout = timeout.min(Duration::from_millis(self.0.limits.await_ms_max));
        match goal {
            Goal::Token(token) => barrier::await_token(self, &token, &scope, timeout).await,
            Goal::Revision(revision) => barrier::await_revision(self, revision, &scope, timeout).await,
        }
    }

    async fn status(&self) -> Status {
        status::status(self).await
    }

    async fn digest(&self) -> Vec<ShardDigest> {
        let reports = self.reports().await;
        reports.iter().map(|(shard, report)| status::digest(self, *shard, report)).collect()
    }

    async fn metrics(&self) -> String {
        status::set_gauges(self).await;
        let doors = self.0.doors.get().map_or(&[][..], Vec::as_slice);
        self.0.outlets.metrics.render(doors)
    }

    fn is_ready(&self) -> bool {
        self.0.is_ready.load(Ordering::Acquire)
    }

    async fn pause_apply(&self, peer: &str, is_paused: bool) -> Result<(), Reject> {
        let peer = self.region(peer)?;
        if peer == self.0.identity.region {
            let text = "a region does not pause its own writes; name another region";
            return Err(Reject::new(RejectCode::UnknownRegion, text));
        }
        self.0.shards.tell_all(|| Input::PauseApply { peer, is_paused }).await;
        Ok(())
    }

    fn region_names(&self) -> Vec<String> {
        self.0.mesh.members.names().into_values().collect()
    }

    fn members_count(&self) -> usize {
        self.0.mesh.members.present().len()
    }

    async fn regions(&self) -> Regions {
        self.list_regions(false, Vec::new()).await
    }

    async fn change_regions(&self, request: RegionsRequest) -> Result<Regions, Reject> {
        self.change_members(request).await
    }

    async fn verify(&self, request: VerifyRequest) -> Result<Verification, Reject> {
        crate::verify::verify(self, request).await
    }

    async fn reconciliation(&self) -> Reconciliation {
        crate::verify::reconciliation(self).await
    }

    async fn checkpoint(&self) -> Result<usize, Reject> {
        crate::checkpoints::write_all(self).await
    }
}

/// Refuses what this region's file does not allow; the formats' own limits were checked at the door.
fn check_limits(limits: &LimitsConfig, ops: &[Op]) -> Result<(), Reject> {
    let refuse = |what: &str, found: usize, limit: usize| {
        Err(Reject::new(RejectCode::TooLarge, format!("{what} of {found}; this region's limit is {limit}")))
    };
    if ops.len() > limits.request_ops_max {
        return refuse("a request with a number of ops", ops.len(), limits.request_ops_max);
    }
    let mut bytes = 0;
    for op in ops {
        bytes += op.key.len();
        if let Verb::Set { value, .. } = &op.verb {
            bytes += value.len();
            if value.len() > limits.value_bytes_max {
                return refuse("a value with a number of bytes", value.len(), limits.value_bytes_max);
            }
        }
    }
    if bytes > limits.request_bytes_max {
        return refuse("a request with a number of bytes", bytes, limits.request_bytes_max);
    }
    Ok(())
}

fn not_yet(gap: &[Position]) -> Reject {
    let ends: Vec<String> =
        gap.iter().map(|position| format!("{:?} {}", position.log, position.seq)).collect();
    let text = format!("this region does not yet hold {}; ask again, or in another region", ends.join(", "));
    Reject::new(RejectCode::NotYet, text).retry_after_ms(50)
}
