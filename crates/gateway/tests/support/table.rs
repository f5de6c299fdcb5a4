//! A region in memory, for tests of the doors: one map, one log, no replication.
//!
//! It admits a request whole or not at all, as the real one does, and notes every request it was handed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, Seq, SessionId, ShardId, Stamp, TenantId, Time};
use tombolo_codec::{
    AwaitScope, Kind, Laggard, LaggardReason, Op, Position, ReadValue, Reject, RejectCode, SealKey,
    StampSource, Token, Verb,
};
use tombolo_gateway::Service;
use tombolo_gateway::reconciliation::{Reconciliation, Verification, VerifyRequest};
use tombolo_gateway::regions::{Regions, RegionsRequest};
use tombolo_gateway::service::{Awaited, Caller, Goal, Identity, ReadRequest, WriteRequest, Written};
use tombolo_gateway::status::{ClockStatus, ShardDigest, Status};

pub(crate) const TOKEN: &str = "tenant-token";
pub(crate) const ADMIN: &str = "admin-token";

#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Counter(i128),
    Register(Bytes, Stamp),
}

#[derive(Debug, Default)]
struct State {
    cells: BTreeMap<Bytes, Cell>,
    seq: u64,
    writes: Vec<WriteRequest>,
    reads: Vec<ReadRequest>,
    waits: Vec<(Goal, AwaitScope, Duration)>,
    paused: Vec<(String, bool)>,
    refuse_writes: Option<Reject>,
}

#[derive(Debug)]
struct Inner {
    identity: Identity,
    key: SealKey,
    needs_credential: bool,
    is_ready: AtomicBool,
    drawn: AtomicU64,
    write_takes: Mutex<Duration>,
    state: Mutex<State>,
}

/// The region. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Table(Arc<Inner>);

impl Table {
    /// Open to all, as with `auth = "none"`.
    pub(crate) fn open() -> Self {
        Self::new(false)
    }

    /// Asks for a credential.
    pub(crate) fn guarded() -> Self {
        Self::new(true)
    }

    fn new(needs_credential: bool) -> Self {
        let identity = Identity {
            cluster: ClusterId(7),
            region: RegionId::new(1).unwrap(),
            name: "eu-west".into(),
            epoch: Epoch(9),
            shards_count: 16,
            durability: "sync",
            regions: vec!["eu-west".into(), "us-east".into(), "ap-south".into()],
            window_seconds: 86_400,
            session_numbers_max: 64,
            connections_max: 1_000,
        };
        Self(Arc::new(Inner {
            identity,
            key: SealKey::new([5; 32]),
            needs_credential,
            is_ready: AtomicBool::new(true),
            drawn: AtomicU64::new(0),
            write_takes: Mutex::default(),
            state: Mutex::default(),
        }))
    }

    pub(crate) fn set_ready(&self, is_ready: bool) {
        self.0.is_ready.store(is_ready, Ordering::SeqCst);
    }

    /// Refuses every write from here on.
    pub(crate) fn refuse_writes(&self, reject: Option<Reject>) {
        self.0.state.lock().unwrap().refuse_writes = reject;
    }

    /// Each write is answered so much later.
    pub(crate) fn delay_writes(&self, by: Duration) {
        *self.0.write_takes.lock().unwrap() = by;
    }

    /// Puts a counter where no admission would let it come.
    pub(crate) fn put_counter(&self, key: &str, value: i128) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.0.state.lock().unwrap().cells.insert(key, Cell::Counter(value));
    }

    /// Every write that was handed over, in order.
    pub(crate) fn writes(&self) -> Vec<WriteRequest> {
        self.0.state.lock().unwrap().writes.clone()
    }

    pub(crate) fn reads(&self) -> Vec<ReadRequest> {
        self.0.state.lock().unwrap().reads.clone()
    }

    pub(crate) fn waits(&self) -> Vec<(Goal, AwaitScope, Duration)> {
        self.0.state.lock().unwrap().waits.clone()
    }

    pub(crate) fn paused(&self) -> Vec<(String, bool)> {
        self.0.state.lock().unwrap().paused.clone()
    }

    pub(crate) fn token_at(&self, seq: u64) -> Token {
        let Identity { region, epoch, .. } = self.0.identity;
        let log = LogId { shard: ShardId(0), region, epoch };
        Token { positions: vec![Position { log, seq: Seq(seq) }], time: Time(seq) }
    }
}

fn wrong_type(key: &[u8]) -> Reject {
    let text = format!("`{}` holds a value of another kind", String::from_utf8_lossy(key));
    Reject::new(RejectCode::WrongType, text)
}

fn apply(
    cells: &mut BTreeMap<Bytes, Cell>,
    op: &Op,
    fixed: impl Fn(StampSource) -> Stamp,
) -> Result<(Option<Stamp>, Option<i128>), Reject> {
    match &op.verb {
        Verb::Add { delta } => match cells.entry(op.key.clone()).or_insert(Cell::Counter(0)) {
            Cell::Register(..) => Err(wrong_type(&op.key)),
            Cell::Counter(value) => {
                let next = *value + i128::from(*delta);
                if i64::try_from(next).is_err() {
                    return Err(Reject::new(RejectCode::Overflow, "the counter would leave i64"));
                }
                *value = next;
                Ok((None, Some(next)))
            }
        },
        Verb::Set { value, stamp, .. } => {
            if let Some(Cell::Counter(_)) = cells.get(&op.key) {
                return Err(wrong_type(&op.key));
            }
            let stamp = fixed(*stamp);
            cells.insert(op.key.clone(), Cell::Register(value.clone(), stamp));
            Ok((Some(stamp), None))
        }
        Verb::Delete { kind, stamp } => {
            let held = cells.get(&op.key).map(|cell| match cell {
                Cell::Counter(_) => Kind::Counter,
                Cell::Register(..) => Kind::Register,
            });
            if held.is_some() && kind.is_some() && held != *kind {
                return Err(wrong_type(&op.key));
            }
            let gone = cells.remove(&op.key).is_some();
            Ok((Some(fixed(*stamp)), Some(i128::from(gone))))
        }
    }
}

impl Service for Table {
    fn identity(&self) -> &Identity {
        &self.0.identity
    }

    fn seal_key(&self) -> &SealKey {
        &self.0.key
    }

    fn authenticate(&self, credential: Option<&str>) -> Result<Caller, Reject> {
        match credential {
            Some(TOKEN) => Ok(Caller { tenant: TenantId::DEFAULT, is_admin: false }),
            Some(ADMIN) => Ok(Caller { tenant: TenantId::DEFAULT, is_admin: true }),
            None if !self.0.needs_credential => Ok(Caller { tenant: TenantId::DEFAULT, is_admin: false }),
            _ => Err(Reject::new(RejectCode::Unauthenticated, "no or a wrong token")),
        }
    }

    fn draw(&self) -> u128 {
        u128::from(self.0.drawn.fetch_add(1, Ordering::SeqCst))
    }

    async fn write(&self, _: Caller, request: WriteRequest) -> Result<Written, Reject> {
        // As a channel to a shard's task would.
        tokio::task::consume_budget().await;
        let written = {
            let mut state = self.0.state.lock().unwrap();
            state.writes.push(request.clone());
            if let Some(reject) = &state.refuse_writes {
                return Err(reject.clone());
            }
            // A number that was seen before is answered, not applied.
            let place = request.session.map(|session| (session.id, session.number));
            let is_again = |earlier: &&WriteRequest| {
                place.is_some() && earlier.session.map(|session| (session.id, session.number)) == place
            };
            if state.writes.iter().filter(is_again).count() > 1 {
                let (stamps, values) = (vec![None; request.ops.len()], vec![None; request.ops.len()]);
                let token = self.token_at(state.seq);
                return Ok(Written { token, replayed: true, conditional: false, stamps, values });
            }
            let seq = state.seq + 1;
            let region = self.0.identity.region;
            let fixed = |source| match source {
                StampSource::Fixed(stamp) => stamp,
                StampSource::Here(op) => Stamp { time: Time(seq), region, op },
            };
            let mut cells = state.cells.clone();
            let (mut stamps, mut values) = (Vec::new(), Vec::new());
            for op in &request.ops {
                let (stamp, value) = apply(&mut cells, op, fixed)?;
                stamps.push(stamp);
                values.push(value);
            }
            state.cells = cells;
            state.seq = seq;
            if !request.wants_values {
                values.clear();
            }
            Written { token: self.token_at(seq), replayed: false, conditional: false, stamps, values }
        };
        let takes = *self.0.write_takes.lock().unwrap();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        Ok(written)
    }

    async fn read(&self, _: Caller, request: ReadRequest) -> Result<Vec<ReadValue>, Reject> {
        let mut state = self.0.state.lock().unwrap();
        state.reads.push(request.clone());
        let seq = state.seq;
        if request.after.is_some_and(|token| token.positions.iter().any(|p| p.seq.0 > seq)) {
            return Err(Reject::new(RejectCode::NotYet, "this region does not yet cover the token"));
        }
        let value = |key| match state.cells.get(key) {
            None => ReadValue::Absent,
            Some(Cell::Counter(value)) => ReadValue::Counter(*value),
            Some(Cell::Register(value, stamp)) => {
                ReadValue::Register { value: value.to_vec(), stamp: *stamp }
            }
        };
        Ok(request.keys.iter().map(value).collect())
    }

    fn open_session(&self, _: Caller) -> Result<SessionId, Reject> {
        let Identity { region, epoch, .. } = self.0.identity;
        Ok(SessionId { home: region, epoch, opened: Time(1), random: 2 })
    }

    fn named_session(&self, caller: Caller, name: &[u8]) -> SessionId {
        let digest = name.iter().fold(u128::from(caller.tenant.0), |sum, byte| sum * 31 + u128::from(*byte));
        SessionId::named(self.0.identity.region, digest, Time(1), 1_000)
    }

    /// As if `ap-south` were out of reach.
    async fn wait(&self, goal: Goal, scope: AwaitScope, timeout: Duration) -> Result<Awaited, Reject> {
        let reached = match &scope {
            AwaitScope::All => false,
            AwaitScope::Named(names) => !names.contains(&"ap-south".to_owned()),
            AwaitScope::AtLeast(count) => *count <= 2,
        };
        self.0.state.lock().unwrap().waits.push((goal, scope, timeout));
        let laggard = Laggard {
            region: "ap-south".into(),
            reason: LaggardReason::Unreachable,
            detail: String::new(),
            behind_ops: 120,
            since_unix_ms: Some(1_700_000_000_123),
        };
        let waited = Duration::from_micros(12_300);
        Ok(Awaited { reached, waited, laggards: vec![laggard], regions_reached: 2 })
    }

    async fn status(&self) -> Status {
        Status {
            schema: "tombolo.status/v1".into(),
            cluster: self.0.identity.cluster.to_string(),
            region: self.0.identity.name.clone(),
            node: "eu-west/9".into(),
            version: "0".into(),
            durability: "sync".into(),
            epoch: self.0.identity.epoch.to_string(),
            shards: Vec::new(),
            peers: Vec::new(),
            quarantine: Vec::new(),
            clock: ClockStatus { offset_ms: 0.0, max_drift_ms: 500 },
            whole: true,
            waiting_for: Vec::new(),
            sessions: 0,
            waiters: 0,
            findings: Vec::new(),
            revision: 3,
            standing: "member".into(),
        }
    }

    async fn verify(&self, _: VerifyRequest) -> Result<Verification, Reject> {
        Err(Reject::new(RejectCode::UnknownRegion, "there is no other region"))
    }

    async fn reconciliation(&self) -> Reconciliation {
        let (schema, region) = ("tombolo.reconcile/v1".to_owned(), self.identity().name.clone());
        Reconciliation { schema, region, plans: Vec::new() }
    }

    async fn regions(&self) -> Regions {
        let (schema, regions) = ("tombolo.regions/v1".to_owned(), Vec::new());
        Regions { schema, revision: 3, changed: false, regions, unacknowledged: Vec::new() }
    }

    async fn change_regions(&self, request: RegionsRequest) -> Result<Regions, Reject> {
        match request {
            RegionsRequest::Drain { .. } => Ok(Regions { changed: true, ..self.regions().await }),
            _ => Err(Reject::new(RejectCode::Precondition, "not now")),
        }
    }

    async fn digest(&self) -> Vec<ShardDigest> {
        vec![ShardDigest { shard: 0, version_vector: BTreeMap::new(), digest: "00".into() }]
    }

    async fn metrics(&self) -> String {
        "# EOF\n".into()
    }

    fn is_ready(&self) -> bool {
        self.0.is_ready.load(Ordering::SeqCst)
    }

    async fn pause_apply(&self, peer: &str, is_paused: bool) -> Result<(), Reject> {
        if !self.0.identity.regions.iter().any(|name| name == peer) {
            return Err(Reject::new(RejectCode::UnknownRegion, format!("no region is called `{peer}`")));
        }
        self.0.state.lock().unwrap().paused.push((peer.to_owned(), is_paused));
        Ok(())
    }

    async fn checkpoint(&self) -> Result<usize, Reject> {
        Ok(16)
    }
}
