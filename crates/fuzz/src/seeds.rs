//! Real values, made by the product's own builders: small, so that an edit hits something.

use bytes::Bytes;
use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, Seq, SessionId, ShardId, Stamp, TenantId, Time};
use tombolo_codec::batch::Place;
use tombolo_codec::checkpoint::{
    CellContent, CellState, ConditionalAdd, ConditionalState, NumberState, SealedLog, SessionState, SlotState,
};
use tombolo_codec::records::{Conditional, Expire, Seal, SessionOp, Stable, Write};
use tombolo_codec::{
    Applied, AwaitScope, Batch, CellName, Checkpoint, ClientAnswer, ClientRequest, Digest, Entries, Hello,
    Kind, LEAVES_COUNT, Laggard, LeafAsk, LeafSums, Membership, PEER_VERSION, PayloadDigest, PeerMessage,
    Position, ReadValue, RecordsBuilder, Reject, RejectCode, SealKey, Section, WireOp, WireVerb, WriteDone,
};

/// The cluster of all seeds.
pub const CLUSTER: ClusterId = ClusterId(0x0dd);
/// The key of all tokens.
pub const KEY: SealKey = SealKey::new([3; 32]);

const EPOCH: Epoch = Epoch(0xe0);

fn region() -> RegionId {
    RegionId::new(2).expect("2 is a region")
}

/// The log of all batches.
#[must_use]
pub fn log() -> LogId {
    LogId { shard: ShardId(7), region: region(), epoch: EPOCH }
}

fn stamp(n: u64) -> Stamp {
    Stamp { time: Time(1_000 + n), region: region(), op: u128::from(n) << 64 | 5 }
}

/// A session's id.
#[must_use]
pub fn session(n: u64) -> SessionId {
    SessionId { home: region(), epoch: EPOCH, opened: Time(900 + n), random: n }
}

/// A position in a log of the seeds' region.
#[must_use]
pub fn position(shard: u16, seq: u64) -> Position {
    Position { log: LogId { shard: ShardId(shard), ..log() }, seq: Seq(seq) }
}

fn counter(key: &[u8]) -> CellName<'_> {
    CellName { tenant: TenantId::DEFAULT, kind: Kind::Counter, key }
}

fn register(key: &[u8]) -> CellName<'_> {
    CellName { kind: Kind::Register, ..counter(key) }
}

/// Four consecutive batches: adds alone, every kind of record, many adds, next to nothing.
#[must_use]
pub fn batches() -> Vec<Batch> {
    let mut adds = RecordsBuilder::new();
    adds.add(counter(b"views:1"), None, 5);
    adds.add(counter(b"views:1"), None, -7);
    adds.add(counter(b"views:2"), Some(stamp(1)), i64::MAX);
    let mut all = RecordsBuilder::new();
    all.add(counter(b"stock"), None, -1);
    all.write(Write { cell: register(b"name"), stamp: stamp(2), value: Some(b"a value"), expires_at: None });
    all.write(Write { cell: register(b"flag"), stamp: stamp(3), value: None, expires_at: Some(Time(99)) });
    all.write(Write { cell: counter(b"stock"), stamp: stamp(4), value: None, expires_at: None });
    let op = SessionOp { session: session(1), number: 8, digest: PayloadDigest([9; 16]) };
    all.op(op);
    all.mark(session(1), 7);
    all.conditional(&Conditional {
        op: SessionOp { number: 9, ..op },
        adds: vec![(counter(b"stock"), None, 3)],
    });
    all.seal(Seal { region: region(), epoch: Epoch(1), end: Seq(6) });
    all.expire(Expire { home: region(), before: Time(5) });
    all.stable(Stable {
        through: Seq(1),
        members: vec![Seal { region: region(), epoch: Epoch(2), end: Seq(3) }],
    });
    let mut many = RecordsBuilder::new();
    (0..40).for_each(|n: i64| many.add(counter(format!("key:{n}").as_bytes()), None, n));
    let mut least = RecordsBuilder::new();
    least.mark(session(2), 1);
    let (mut previous, mut ops_before) = (Digest::ZERO, 0);
    let close = |(at, records): (usize, &RecordsBuilder)| {
        let seq = Seq(at as u64 + 1);
        let place = Place {
            cluster: CLUSTER,
            log: log(),
            seq,
            ops_before,
            clock: Time(2_000 + seq.0),
            durable_through: Seq(seq.0 - 1),
            previous,
        };
        let batch = Batch::close(place, records);
        (previous, ops_before) = (batch.header().digest, batch.header().ops_total);
        batch
    };
    [&adds, &all, &many, &least].into_iter().enumerate().map(close).collect()
}

fn members() -> Membership {
    let regions = (1..=3).filter_map(|id| RegionId::new(id).ok());
    Membership::of(regions.map(|region| (region, format!("r{region}"), "host:7403".to_owned())))
}

/// The digests of a cut in which these leaves of every section hold something.
#[must_use]
pub fn sums(leaves: &[usize]) -> Vec<LeafSums> {
    let of = |section| {
        let mut sums = vec![0; if leaves.is_empty() { 0 } else { LEAVES_COUNT }];
        leaves.iter().for_each(|&leaf| sums[leaf] = 0xa_bcde);
        LeafSums { section, entries_count: leaves.len() as u64, total: 7, sums }
    };
    Section::ALL.map(of).to_vec()
}

/// Some of every kind of entry.
#[must_use]
pub fn entries() -> Entries {
    let dot = Seal { region: region(), epoch: Epoch(1), end: Seq(6) };
    let cell = |kind, key: &[u8], content| CellState { tenant: 1, kind, key: key.to_vec(), content };
    let slot = |epoch, positive| SlotState { region: region(), epoch, positive, negative: 1 };
    let counter = CellContent::Counter {
        generation: Some(stamp(2)),
        slots: vec![slot(EPOCH, 3), slot(Epoch(1), u128::from(u64::MAX) + 1)],
    };
    let register = |value, expires_at| CellContent::Register { stamp: stamp(3), value, expires_at, dot };
    let number = NumberState { number: 8, digest: PayloadDigest([9; 16]) };
    let add = ConditionalAdd { tenant: 1, key: b"stock".to_vec(), generation: Some(stamp(1)), delta: -1 };
    Entries {
        cells: vec![
            cell(Kind::Counter, b"views:1", counter),
            cell(Kind::Register, b"name", register(Some(b"a value".to_vec()), None)),
            cell(Kind::Register, b"flag", register(None, Some(Time(99)))),
        ],
        sessions: vec![SessionState { id: session(1), mark: 7, numbers: vec![number] }],
        conditionals: vec![ConditionalState {
            session: session(2),
            number: 9,
            digest: number.digest,
            dot,
            adds: vec![add],
        }],
    }
}

/// One of each message between regions.
#[must_use]
pub fn peer_messages() -> Vec<PeerMessage> {
    let hello = Hello {
        cluster: CLUSTER,
        region: region(),
        epoch: EPOCH,
        version: PEER_VERSION,
        shards_count: 16,
        members: members(),
        answers: Some(Epoch(4)),
        received: (0..4).map(|shard| position(shard, 8)).collect(),
        applied: (0..3).map(|shard| position(shard, 7)).collect(),
        clock: Time(5),
    };
    let seal = Seal { region: region(), epoch: Epoch(1), end: Seq(6) };
    let sealed = SealedLog { seal, by_region: region(), by_epoch: EPOCH, by_seq: Seq(1) };
    vec![
        PeerMessage::Hello(Hello { answers: None, received: Vec::new(), ..hello.clone() }),
        PeerMessage::Hello(hello),
        PeerMessage::Subscribe { log: log(), from: Seq(3) },
        PeerMessage::Unsubscribe { log: log() },
        PeerMessage::Acks { epoch: EPOCH, applied: vec![position(1, 2), position(3, 4)] },
        PeerMessage::Heartbeat {
            clock: Time(7),
            ends: vec![(ShardId(1), Seq(5)), (ShardId(2), Seq(6))],
            revision: 4,
        },
        PeerMessage::Members(members()),
        PeerMessage::Held {
            shard: ShardId(1),
            paused: vec![RegionId::new(2).expect("a region")],
            halted: vec![(log(), "a fork".to_owned())],
            received: vec![position(1, 2)],
        },
        PeerMessage::Goodbye,
        PeerMessage::NotRetained { log: log(), from: Seq(3) },
        PeerMessage::CutAsk { shard: ShardId(1), sealed: vec![sealed], digest_bytes: 3 },
        PeerMessage::Cut {
            shard: ShardId(1),
            cut: 3,
            head: Checkpoint { clock: Time(9), sealed: vec![sealed], ..Checkpoint::default() },
            sums: Some(sums(&[])),
        },
        PeerMessage::Cut {
            shard: ShardId(1),
            cut: 4,
            head: Checkpoint::default(),
            sums: Some(sums(&[9, 4_000])),
        },
        PeerMessage::CutRefused { shard: ShardId(1) },
        PeerMessage::EntriesAsk {
            shard: ShardId(1),
            cut: 3,
            section: Section::Sessions,
            leaves: vec![LeafAsk { leaf: 9, known: vec![1, 2] }],
        },
        PeerMessage::Entries {
            shard: ShardId(1),
            cut: 3,
            section: Section::Registers,
            entries: entries(),
            unknown: vec![4],
            rest: vec![9],
            sent: vec![5],
        },
        PeerMessage::CutDone { shard: ShardId(1), cut: 3 },
    ]
}

/// Ops as the SDK sends them.
#[must_use]
pub fn wire_ops() -> Vec<WireOp> {
    let op = |key: &str, verb| WireOp { key: key.into(), verb };
    let set = |expires_at, stamp| WireVerb::Set { value: b"value".to_vec(), expires_at, stamp };
    vec![
        op("views:1", WireVerb::Add(-5)),
        op("name:1", set(None, None)),
        op("name:2", set(Some(Time(9)), Some(stamp(1)))),
        op("name:1", WireVerb::Delete { kind: Some(Kind::Register), stamp: Some(stamp(2)) }),
        op("gone", WireVerb::Delete { kind: None, stamp: None }),
    ]
}

/// One of each request.
#[must_use]
pub fn requests() -> Vec<ClientRequest> {
    let write = |session, ops| ClientRequest::Write { session, retry: true, after: Time(3), ops };
    let wait = |scope| ClientRequest::Await { token: "token".into(), scope, timeout_ms: 9 };
    vec![
        ClientRequest::Authenticate { token: "a secret".into() },
        ClientRequest::OpenSession,
        write(Some(("session".into(), 7, 5)), wire_ops()),
        write(None, vec![WireOp { key: b"k".to_vec(), verb: WireVerb::Add(1) }]),
        ClientRequest::Read {
            keys: (0..6_u8).map(|n| vec![b'k', n]).collect(),
            after: Some("token".into()),
            timeout_ms: 1_000,
        },
        wait(AwaitScope::All),
        wait(AwaitScope::Named(vec!["eu-west".into(), "us-east".into()])),
        wait(AwaitScope::AtLeast(2)),
    ]
}

/// One of each answer.
#[must_use]
pub fn answers() -> Vec<ClientAnswer> {
    let mut reject = Reject::new(RejectCode::StampBehind, "behind").retry_after_ms(5);
    reject.applied = Applied::Unknown;
    reject.stamp_needed = Some(stamp(9));
    vec![
        ClientAnswer::Welcome {
            region: region(),
            name: "eu-west".into(),
            epoch: EPOCH,
            shards_count: 16,
            tenant: 1,
            clock: Time(5),
        },
        ClientAnswer::Session { id: "session".into(), numbers_max: 1_024, window_seconds: 86_400 },
        ClientAnswer::Written(WriteDone {
            token: "token".into(),
            replayed: false,
            conditional: true,
            stamps: vec![None, Some(stamp(1)), None],
        }),
        ClientAnswer::Values(vec![
            ReadValue::Absent,
            ReadValue::Counter(i128::MIN),
            ReadValue::Register { value: b"value".to_vec(), stamp: stamp(2) },
        ]),
        ClientAnswer::Awaited {
            reached: false,
            waited_us: 12,
            laggards: vec![Laggard {
                region: "us-east".into(),
                reason: tombolo_codec::LaggardReason::Unreachable,
                detail: "a word".into(),
                behind_ops: 3,
                since_unix_ms: Some(4),
            }],
        },
        ClientAnswer::Rejected(reject),
    ]
}

/// Requests of a Redis client, as words.
#[must_use]
pub fn resp_requests() -> Vec<Vec<Bytes>> {
    let words = |line: &'static str| line.split(' ').map(Bytes::from).collect();
    let mut requests: Vec<Vec<Bytes>> = [
        "PING",
        "HELLO 3 AUTH tenant secret SETNAME app",
        "INCRBY views:1 5 IDMP producer 7",
        "SET name value PX 1000",
        "MGET a b c d e f g h",
        "HSET h f v",
    ]
    .map(words)
    .into();
    requests.push(vec![Bytes::from("SET"), Bytes::from("bin"), Bytes::from(&b"\r\n$5\0*\xff"[..])]);
    requests
}
