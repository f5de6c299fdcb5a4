//! Regions made for tests: the real client door on loopback, behind it a table of counters, one of registers, one of
//! sessions, and a script of faults. Each checks what every request must keep to and notes each breach.
//!
//! Several of them share a CA and nothing else: what one logs the others never learn, so what a client does wrong is not
//! mended by replication. [`total`] says what they would come to together.

// Each test file uses its part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tombolo_causality::{
    ClusterId, Epoch, LogId, RegionId, Router, Seq, SessionId, ShardId, Stamp, TenantId, Time,
};
use tombolo_codec::{
    ClientAnswer, ClientRequest, Kind, PayloadDigest, Position, ReadValue, Reject, RejectCode, SealKey,
    SessionToken, Token, WireOp, WireVerb, WriteDone, decode_request, limits, request_digest,
};
use tombolo_sdk::{Client, Options};
use tombolo_transport::{
    Authority, ClientConnection, ClientListener, DoorSettings, Frame, FrameReader, FrameWriter, Identity,
    create_authority,
};

pub(crate) const SHARDS_COUNT: u16 = 4;
pub(crate) const BEARER: &str = "let me in";
const CLUSTER: ClusterId = ClusterId(42);
const SEAL: [u8; 32] = [7; 32];

/// What happens to a write.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection breaks before it is applied.
    BreakBefore,
    /// The connection breaks after it is applied.
    BreakAfter,
    /// It is applied and never answered.
    Swallow,
    /// It is applied, and answered so much later.
    Late(Duration),
    /// It is refused.
    Refuse(Reject),
}

/// A write as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) session: String,
    pub(crate) number: u64,
    pub(crate) settled: u64,
    /// Whether its session was opened here.
    pub(crate) is_home: bool,
    pub(crate) is_retry: bool,
    pub(crate) ops: Vec<WireOp>,
}

type Script = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;

#[derive(Default)]
struct SessionTable {
    epoch: u128,
    mark: u64,
    logged: BTreeMap<u64, PayloadDigest>,
    /// Logged with a condition: by a region that is not the authority.
    conditional: BTreeMap<u64, (PayloadDigest, Vec<WireOp>)>,
    answered: BTreeSet<u64>,
    stamps: HashMap<u64, Vec<Option<Stamp>>>,
}

pub(crate) struct World {
    region: RegionId,
    epoch: u128,
    /// Whether it may log what its earlier incarnations opened.
    pub(crate) is_whole: bool,
    /// Whether it says goodbye to whoever connects.
    is_shut: bool,
    pub(crate) window_seconds: u64,
    pub(crate) counters: HashMap<Vec<u8>, i128>,
    pub(crate) registers: HashMap<Vec<u8>, (Stamp, Option<Vec<u8>>)>,
    sessions: HashMap<String, SessionTable>,
    seqs: HashMap<ShardId, u64>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) replays: u64,
    /// Ops in the order in which they were applied.
    pub(crate) applied: Vec<WireOp>,
    /// What a well-behaved client never does.
    pub(crate) breaches: Vec<String>,
    /// Whether callers were told `unknown`, so that marks may pass numbers without an answer.
    pub(crate) may_give_up: bool,
    script: Option<Script>,
}

pub(crate) struct Region {
    pub(crate) authority: Arc<Authority>,
    pub(crate) address: SocketAddr,
    world: Arc<Mutex<World>>,
    /// Counts up to break all connections.
    kicks: watch::Sender<u64>,
    /// While true, writes wait before they are applied.
    gate: watch::Sender<bool>,
    /// While true, barriers wait, each in the way of what follows on its stream.
    barrier_gate: watch::Sender<bool>,
    door: tokio::task::JoinHandle<()>,
}

/// What the regions would come to together once each had the logs of the others.
pub(crate) fn total(regions: &[Region], key: &str) -> i128 {
    let mut sum = regions.iter().map(|region| region.counter(key)).sum();
    let mut conditional = BTreeMap::new();
    for world in regions.iter().map(Region::world) {
        for (session, table) in &world.sessions {
            let of_table = table.conditional.iter();
            conditional.extend(of_table.map(|(number, (_, ops))| ((session.clone(), *number), ops.clone())));
        }
    }
    for ((session, number), ops) in conditional {
        let is_covered = regions.iter().any(|region| {
            let world = region.world();
            let table = world.sessions.get(&session).filter(|_| home_of(&session).home == world.region);
            table.is_some_and(|table| number < table.mark || table.logged.contains_key(&number))
        });
        for op in ops.iter().filter(|op| !is_covered && op.key == key.as_bytes()) {
            if let WireVerb::Add(delta) = op.verb {
                sum += i128::from(delta);
            }
        }
    }
    sum
}

fn home_of(session: &str) -> SessionId {
    let token = SessionToken::decode(session, &SealKey::new(SEAL)).expect("session ids come back unchanged");
    token.0
}

pub(crate) fn wall() -> Time {
    Time::from_unix_ns(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos())
}

impl Region {
    pub(crate) fn start() -> Self {
        Self::start_many(1).remove(0)
    }

    /// Regions of one cluster, with ids from 1 on.
    pub(crate) fn start_many(count: u16) -> Vec<Self> {
        let authority = Arc::new(create_authority(CLUSTER).expect("a CA can be made"));
        (1..=count).map(|id| Self::start_one(authority.clone(), id)).collect()
    }

    fn start_one(authority: Arc<Authority>, id: u16) -> Self {
        let issued = authority.issue_region(CLUSTER, &format!("region-{id}")).expect("it issues");
        let identity = Identity::from_pem(&authority.cert_pem, &issued.cert_pem, &issued.key_pem)
            .expect("its certificate holds");
        let settings = DoorSettings {
            frame_bytes_max: limits::REQUEST_BYTES_MAX + 64 * 1_024,
            ..DoorSettings::default()
        };
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let door = ClientListener::bind(anywhere, &identity, settings).expect("loopback has a free port");
        let address = door.local_address();
        let world = Arc::new(Mutex::new(World::new(RegionId::new(id).expect("a small number is a region"))));
        let (kicks, kicked) = watch::channel(0);
        let (gate, gated) = watch::channel(false);
        let (barrier_gate, barrier_gated) = watch::channel(false);
        let served = world.clone();
        let door = tokio::spawn(async move {
            while let Ok(connection) = door.accept().await {
                let gates = (gated.clone(), barrier_gated.clone());
                tokio::spawn(serve(connection, served.clone(), kicked.clone(), gates));
            }
        });
        Self { authority, address, world, kicks, gate, barrier_gate, door }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panics while it holds the world")
    }

    pub(crate) fn id(&self) -> RegionId {
        self.world().region
    }

    pub(crate) fn name(&self) -> String {
        name(self.id())
    }

    pub(crate) fn options(&self) -> Options {
        Options::new(self.authority.cert_pem.clone(), self.address.to_string()).token(BEARER)
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.options()).await.expect("the region listens")
    }

    /// Asked once for every write that arrives.
    pub(crate) fn script(&self, script: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        self.world().script = Some(Box::new(script));
    }

    pub(crate) fn break_connections(&self) {
        self.kicks.send_modify(|kicks| *kicks += 1);
    }

    /// What the region holds stays; its incarnation is a new one.
    pub(crate) fn restart(&self) {
        self.world().epoch += 1;
        self.break_connections();
    }

    pub(crate) fn stop(&self) {
        self.door.abort();
        self.break_connections();
    }

    /// While shut, whoever connects is sent away at once.
    pub(crate) fn shut(&self, is_shut: bool) {
        self.world().is_shut = is_shut;
        if is_shut {
            self.break_connections();
        }
    }

    pub(crate) fn hold(&self, is_held: bool) {
        self.gate.send_replace(is_held);
    }

    pub(crate) fn hold_barriers(&self, is_held: bool) {
        self.barrier_gate.send_replace(is_held);
    }

    pub(crate) fn counter(&self, key: &str) -> i128 {
        self.world().counters.get(key.as_bytes()).copied().unwrap_or_default()
    }

    pub(crate) fn assert_no_breach(&self) {
        assert_eq!(self.world().breaches, Vec::<String>::new());
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.stop();
    }
}

type Gates = (watch::Receiver<bool>, watch::Receiver<bool>);

async fn serve(
    connection: ClientConnection,
    world: Arc<Mutex<World>>,
    mut kicked: watch::Receiver<u64>,
    gates: Gates,
) {
    kicked.mark_unchanged();
    let is_known = Arc::new(AtomicBool::new(false));
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_stream() => {
                let Ok(stream) = stream else { return };
                streams.spawn(serve_stream(stream, world.clone(), gates.clone(), is_known.clone()));
            }
            // A stream that ends takes the connection with it.
            Some(_) = streams.join_next() => return,
            _ = kicked.changed() => return,
        }
    }
}

async fn serve_stream(
    (mut writer, mut reader): (FrameWriter, FrameReader),
    world: Arc<Mutex<World>>,
    (mut gated, mut barrier_gated): Gates,
    is_known: Arc<AtomicBool>,
) {
    loop {
        let Ok(Some(frame)) = reader.next().await else { return };
        let (id, request) = decode_request(&frame.body).expect("the client's frames decode");
        let gate = match request {
            ClientRequest::Write { .. } => Some(&mut gated),
            ClientRequest::Await { .. } => Some(&mut barrier_gated),
            _ => None,
        };
        if let Some(gate) = gate {
            // An error means that the region is gone.
            let _ = gate.wait_for(|is_held| !is_held).await;
        }
        let is_greeting = matches!(request, ClientRequest::Authenticate { .. });
        assert!(is_known.load(Ordering::SeqCst) || is_greeting, "the first request says who asks");
        let (answer, number) = match handle(&world, request) {
            Handled::Answer(answer, number) => (answer, number),
            Handled::Late(pause, answer, number) => {
                tokio::time::sleep(pause).await;
                (answer, number)
            }
            Handled::Nothing => continue,
            Handled::Break => return,
        };
        if matches!(answer, ClientAnswer::Welcome { .. }) {
            is_known.store(true, Ordering::SeqCst);
        }
        let is_sent = writer.send(&[Frame::new(2, answer.encode(id))]).await.is_ok();
        if let (true, Some((session, number))) = (is_sent, number) {
            let mut world = world.lock().expect("no test panics while it holds the world");
            world.sessions.entry(session).or_default().answered.insert(number);
        }
    }
}

enum Handled {
    /// With the session and number that are settled by it.
    Answer(ClientAnswer, Option<(String, u64)>),
    Late(Duration, ClientAnswer, Option<(String, u64)>),
    Nothing,
    Break,
}

fn handle(world: &Mutex<World>, request: ClientRequest) -> Handled {
    let mut world = world.lock().expect("no test panics while it holds the world");
    if world.is_shut {
        return Handled::Break;
    }
    let answer = match request {
        ClientRequest::Authenticate { token } if token == BEARER => ClientAnswer::Welcome {
            region: world.region,
            name: name(world.region),
            epoch: Epoch(world.epoch),
            shards_count: SHARDS_COUNT,
            tenant: TenantId::DEFAULT.0,
            clock: wall(),
        },
        ClientRequest::Authenticate { .. } => {
            ClientAnswer::Rejected(Reject::new(RejectCode::Unauthenticated, "who are you?"))
        }
        ClientRequest::OpenSession => world.open_session(),
        ClientRequest::Read { keys, after, .. } => {
            if let Some(after) = &after {
                Token::decode(after, &SealKey::new(SEAL)).expect("tokens come back as they were given");
            }
            ClientAnswer::Values(keys.iter().map(|key| world.value(key)).collect())
        }
        ClientRequest::Await { token, .. } => {
            let token = Token::decode(&token, &SealKey::new(SEAL)).expect("tokens come back unchanged");
            let is_held = |p: &Position| {
                let is_own = p.log.region == world.region;
                !is_own || world.seqs.get(&p.log.shard).is_some_and(|&seq| seq >= p.seq.0)
            };
            let reached = token.positions.iter().all(is_held);
            ClientAnswer::Awaited { reached, waited_us: 1_500, laggards: Vec::new() }
        }
        ClientRequest::Write { session: None, .. } => {
            world.breaches.push("a write without a session".into());
            ClientAnswer::Rejected(Reject::new(RejectCode::Malformed, "no session"))
        }
        ClientRequest::Write { session: Some((session, number, settled)), retry, ops, .. } => {
            let is_home = home_of(&session).home == world.region;
            let seen = Seen { session, number, settled, is_home, is_retry: retry, ops };
            return world.write(seen);
        }
    };
    Handled::Answer(answer, None)
}

fn name(region: RegionId) -> String {
    format!("region-{}", region.get())
}

impl World {
    fn new(region: RegionId) -> Self {
        Self {
            region,
            epoch: 1,
            is_whole: true,
            is_shut: false,
            window_seconds: 86_400,
            counters: HashMap::new(),
            registers: HashMap::new(),
            sessions: HashMap::new(),
            seqs: HashMap::new(),
            seen: Vec::new(),
            replays: 0,
            applied: Vec::new(),
            breaches: Vec::new(),
            may_give_up: false,
            script: None,
        }
    }

    /// Sessions of which a number was logged with a condition.
    pub(crate) fn conditional_count(&self) -> usize {
        self.sessions.values().map(|table| table.conditional.len()).sum()
    }

    fn open_session(&mut self) -> ClientAnswer {
        let random = self.sessions.len() as u64;
        let id = SessionId { home: self.region, epoch: Epoch(self.epoch), opened: wall(), random };
        let id = SessionToken(id).encode(&SealKey::new(SEAL));
        self.sessions.insert(id.clone(), SessionTable { epoch: self.epoch, ..SessionTable::default() });
        ClientAnswer::Session { id, numbers_max: 64, window_seconds: self.window_seconds }
    }

    fn value(&self, key: &[u8]) -> ReadValue {
        if let Some((stamp, Some(value))) = self.registers.get(key) {
            return ReadValue::Register { value: value.clone(), stamp: *stamp };
        }
        self.counters.get(key).map_or(ReadValue::Absent, |&value| ReadValue::Counter(value))
    }

    fn breach(&mut self, text: String) {
        self.breaches.push(text);
    }

    fn write(&mut self, seen: Seen) -> Handled {
        self.check(&seen);
        let mut script = self.script.take();
        let fault = script.as_mut().and_then(|script| script(&seen));
        self.script = script;
        self.seen.push(seen.clone());
        let place = Some((seen.session.clone(), seen.number));
        let answer = match &fault {
            Some(Fault::BreakBefore) => return Handled::Break,
            Some(Fault::Refuse(reject)) => ClientAnswer::Rejected(reject.clone()),
            _ => self.admit(&seen),
        };
        let (answer, is_settled) = match answer {
            ClientAnswer::Rejected(reject) => {
                // A refusal that may pass with time leaves its number open.
                let is_settled = reject.retry_after_ms.is_none();
                // What others have logged of a retry, a region does not know.
                let is_open = seen.is_retry && reject.code != RejectCode::Conflict;
                (ClientAnswer::Rejected(if is_open { reject.unknown() } else { reject }), is_settled)
            }
            ClientAnswer::Written(done) => {
                let is_settled = !done.conditional;
                (ClientAnswer::Written(done), is_settled)
            }
            answer => (answer, false),
        };
        let place = place.filter(|_| is_settled);
        match fault {
            Some(Fault::BreakAfter) => Handled::Break,
            Some(Fault::Swallow) => Handled::Nothing,
            Some(Fault::Late(pause)) => Handled::Late(pause, answer, place),
            _ => Handled::Answer(answer, place),
        }
    }

    /// What every request of a well-behaved client keeps to.
    fn check(&mut self, seen: &Seen) {
        let router = Router::new(SHARDS_COUNT).expect("a possible count");
        let shard = |op: &WireOp| router.shard(TenantId::DEFAULT, &op.key);
        if seen.ops.iter().any(|op| shard(op) != shard(&seen.ops[0])) {
            self.breach(format!("request {} touches several shards", seen.number));
        }
        if seen.settled > seen.number {
            self.breach(format!("request {} lies below its own mark {}", seen.number, seen.settled));
        }
        let stamps: Vec<Option<Stamp>> = seen.ops.iter().map(stamp_of).collect();
        let is_write = |op: &WireOp| !matches!(op.verb, WireVerb::Add(_));
        if seen.ops.iter().zip(&stamps).any(|(op, stamp)| is_write(op) && stamp.is_none()) {
            self.breach(format!("request {} leaves a stamp to the region", seen.number));
        }
        let (epoch, may_give_up) = (self.epoch, self.may_give_up);
        let table = self.sessions.entry(seen.session.clone()).or_default();
        let mut found = Vec::new();
        let open = (table.mark.max(1)..seen.settled).find(|number| !table.answered.contains(number));
        if let (Some(number), true) = (open, seen.is_home && !may_give_up) {
            found.push(format!("the mark {} has passed {number}, which was not answered", seen.settled));
        }
        match table.stamps.get(&seen.number) {
            Some(before) if *before != stamps => {
                found.push(format!("request {} came back with other stamps", seen.number));
            }
            Some(_) if !seen.is_retry => {
                found.push(format!("request {} came twice and does not say so", seen.number));
            }
            None if table.epoch != epoch && !seen.is_retry => {
                found.push(format!("a new request {} in a session of an earlier incarnation", seen.number));
            }
            _ => {}
        }
        table.stamps.insert(seen.number, stamps);
        table.mark = table.mark.max(seen.settled);
        self.breaches.extend(found);
    }

    fn admit(&mut self, seen: &Seen) -> ClientAnswer {
        let reject = |code, text: &str| ClientAnswer::Rejected(Reject::new(code, text));
        let mut draw = || 0;
        let ops: Vec<_> = seen.ops.iter().map(|op| op.clone().into_op(&mut draw)).collect();
        let digest = request_digest(TenantId::DEFAULT, &ops);
        let is_authority = seen.is_home && (self.is_whole || home_of(&seen.session).epoch.0 == self.epoch);
        let table = self.sessions.entry(seen.session.clone()).or_default();
        let conditional = table.conditional.get(&seen.number).map(|(digest, _)| digest);
        let known = table.logged.get(&seen.number).or(conditional.filter(|_| !is_authority));
        if let Some(&known) = known {
            if known != digest {
                self.breach(format!("request {} came back with another payload", seen.number));
                return reject(RejectCode::Conflict, "another payload");
            }
            self.replays += 1;
            return self.done(seen, true, is_authority);
        }
        if is_authority && seen.number < table.mark {
            return reject(RejectCode::Stale, "below the mark");
        }
        if let Some(refusal) = seen.ops.iter().find_map(|op| self.refusal(op, seen.is_retry)) {
            return ClientAnswer::Rejected(refusal);
        }
        let table = self.sessions.entry(seen.session.clone()).or_default();
        if is_authority {
            table.logged.insert(seen.number, digest);
        } else {
            table.conditional.insert(seen.number, (digest, seen.ops.clone()));
        }
        let is_here = |op: &&WireOp| is_authority || !matches!(op.verb, WireVerb::Add(_));
        for op in seen.ops.iter().filter(is_here) {
            self.apply(op);
        }
        self.done(seen, false, is_authority)
    }

    fn refusal(&self, op: &WireOp, is_retry: bool) -> Option<Reject> {
        let holds_register = matches!(self.registers.get(&op.key), Some((_, Some(_))));
        match &op.verb {
            WireVerb::Add(_) if holds_register => Some(Reject::new(RejectCode::WrongType, "a register")),
            WireVerb::Set { .. } if self.counters.contains_key(&op.key) => {
                Some(Reject::new(RejectCode::WrongType, "a counter"))
            }
            WireVerb::Set { stamp: Some(stamp), .. } => {
                let (held, _) = self.registers.get(&op.key)?;
                (held >= stamp && !is_retry).then(|| {
                    let mut reject = Reject::new(RejectCode::StampBehind, "a later write stands here");
                    reject.stamp_needed = Some(*held);
                    reject
                })
            }
            _ => None,
        }
    }

    fn apply(&mut self, op: &WireOp) {
        self.applied.push(op.clone());
        match &op.verb {
            WireVerb::Add(delta) => *self.counters.entry(op.key.clone()).or_default() += i128::from(*delta),
            WireVerb::Set { value, stamp: Some(stamp), .. } => {
                self.merge(&op.key, *stamp, Some(value.clone()))
            }
            WireVerb::Delete { kind: Some(Kind::Counter), .. } => drop(self.counters.remove(&op.key)),
            WireVerb::Delete { stamp: Some(stamp), .. } => self.merge(&op.key, *stamp, None),
            WireVerb::Set { .. } | WireVerb::Delete { .. } => {}
        }
    }

    pub(crate) fn merge(&mut self, key: &[u8], stamp: Stamp, value: Option<Vec<u8>>) {
        let held = self.registers.entry(key.to_vec()).or_insert_with(|| (stamp, None));
        if stamp >= held.0 {
            *held = (stamp, value);
        }
    }

    fn done(&mut self, seen: &Seen, replayed: bool, is_authority: bool) -> ClientAnswer {
        let router = Router::new(SHARDS_COUNT).expect("a possible count");
        let shard = router.shard(TenantId::DEFAULT, &seen.ops[0].key);
        let seq = self.seqs.entry(shard).or_default();
        *seq += 1;
        let log = LogId { shard, region: self.region, epoch: Epoch(self.epoch) };
        let token = Token { positions: vec![Position { log, seq: Seq(*seq) }], time: Time::ZERO };
        let stamps = seen.ops.iter().map(stamp_of).collect();
        let token = token.encode(&SealKey::new(SEAL));
        ClientAnswer::Written(WriteDone { token, replayed, conditional: !is_authority, stamps })
    }
}

fn stamp_of(op: &WireOp) -> Option<Stamp> {
    match op.verb {
        WireVerb::Set { stamp, .. } | WireVerb::Delete { stamp, .. } => stamp,
        WireVerb::Add(_) => None,
    }
}

/// Breaks the connection at some writes: at one number of `every` before, at another after it is applied; at each of
/// them twice, so that in the end all pass.
pub(crate) fn breaking(every: u64) -> impl FnMut(&Seen) -> Option<Fault> {
    let mut broken: HashMap<u64, u32> = HashMap::new();
    move |seen| {
        let fault = match seen.number % every {
            2 => Fault::BreakBefore,
            5 => Fault::BreakAfter,
            _ => return None,
        };
        let times = broken.entry(seen.number).or_default();
        *times += 1;
        (*times <= 2).then_some(fault)
    }
}

/// Waits until something holds; a test that never gets there fails.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within 5 s: {what}");
}
