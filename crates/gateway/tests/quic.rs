//! The QUIC door over real sockets, with the client's side of the transport.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::PATIENCE;
use support::table::{TOKEN, Table};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tombolo_causality::{ClusterId, RegionId, Stamp, Time};
use tombolo_codec::{
    AwaitScope, ClientAnswer, ClientRequest, ReadValue, RejectCode, WireOp, WireVerb, decode_answer,
};
use tombolo_gateway::{DoorStats, serve_quic};
use tombolo_transport::{
    ClientEndpoint, ClientListener, DoorSettings, Expected, Frame, FrameReader, FrameWriter, Identity,
    RegionConnection, create_authority,
};

struct QuicDoor {
    stats: Arc<DoorStats>,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    client: ClientEndpoint,
    connection: RegionConnection,
}

async fn serve(table: &Table) -> QuicDoor {
    let cluster = ClusterId(7);
    let authority = create_authority(cluster).unwrap();
    let issued = authority.issue_region(cluster, "eu-west").unwrap();
    let identity = Identity::from_pem(&authority.cert_pem, &issued.cert_pem, &issued.key_pem).unwrap();
    let listener =
        ClientListener::bind("127.0.0.1:0".parse().unwrap(), &identity, DoorSettings::default()).unwrap();
    let address = listener.local_address();
    let stats = Arc::new(DoorStats::new());
    let (shutdown, receiver) = oneshot::channel::<()>();
    let task = tokio::spawn(serve_quic(Arc::new(listener), table.clone(), stats.clone(), async {
        let _ = receiver.await;
    }));
    let client = ClientEndpoint::new(&authority.cert_pem, tombolo_transport::FRAME_BYTES_MAX).unwrap();
    let connection = client.connect(address, Expected::default()).await.unwrap();
    QuicDoor { stats, shutdown: Some(shutdown), task, client, connection }
}

struct Stream {
    writer: FrameWriter,
    reader: FrameReader,
}

impl Stream {
    async fn open(door: &QuicDoor) -> Self {
        let (writer, reader) = door.connection.open_stream().await.unwrap();
        Self { writer, reader }
    }

    async fn authenticated(door: &QuicDoor) -> Self {
        let mut stream = Self::open(door).await;
        let welcome = stream.ask(1, ClientRequest::Authenticate { token: TOKEN.into() }).await;
        assert!(matches!(welcome, ClientAnswer::Welcome { shards_count: 16, tenant: 1, .. }), "{welcome:?}");
        stream
    }

    async fn send(&mut self, requests: impl IntoIterator<Item = (u64, ClientRequest)>) {
        let frames: Vec<_> =
            requests.into_iter().map(|(id, request)| Frame::new(3, request.encode(id))).collect();
        self.writer.send(&frames).await.unwrap();
    }

    async fn answer(&mut self) -> (u64, ClientAnswer) {
        let frame = timeout(PATIENCE, self.reader.next()).await.unwrap().unwrap().expect("an answer");
        assert_eq!(frame.kind, 3);
        decode_answer(&frame.body).unwrap()
    }

    async fn ask(&mut self, id: u64, request: ClientRequest) -> ClientAnswer {
        self.send([(id, request)]).await;
        let (answered, answer) = self.answer().await;
        assert_eq!(answered, id);
        answer
    }
}

fn write(ops: Vec<WireOp>) -> ClientRequest {
    ClientRequest::Write { session: None, retry: false, after: Time(4), ops }
}

fn add(key: &str, delta: i64) -> WireOp {
    WireOp { key: key.into(), verb: WireVerb::Add(delta) }
}

fn code(answer: &ClientAnswer) -> RejectCode {
    match answer {
        ClientAnswer::Rejected(reject) => reject.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_done_for_who_has_not_said_who_it_is() {
    let table = Table::guarded();
    let door = serve(&table).await;
    let mut stream = Stream::open(&door).await;
    let requests = [
        write(vec![add("a", 1)]),
        ClientRequest::OpenSession,
        ClientRequest::Read { keys: vec![], after: None, timeout_ms: 1 },
        ClientRequest::Await { token: String::new(), scope: AwaitScope::All, timeout_ms: 1 },
        ClientRequest::Authenticate { token: "wrong".into() },
        ClientRequest::Authenticate { token: String::new() },
    ];
    for (id, request) in (10..).zip(requests) {
        assert_eq!(code(&stream.ask(id, request).await), RejectCode::Unauthenticated);
    }
    assert!(table.writes().is_empty());
    let mut stream = Stream::authenticated(&door).await;
    assert!(matches!(stream.ask(2, write(vec![add("a", 1)])).await, ClientAnswer::Written(_)));
    // Another stream of the same connection is known already.
    let mut other = Stream::open(&door).await;
    assert!(matches!(other.ask(3, write(vec![add("a", 1)])).await, ClientAnswer::Written(_)));
}

#[tokio::test]
async fn values_sessions_and_barriers_pass_through() {
    let table = Table::guarded();
    let door = serve(&table).await;
    let mut stream = Stream::authenticated(&door).await;
    let ClientAnswer::Session { id, numbers_max: 64, window_seconds: 86_400 } =
        stream.ask(2, ClientRequest::OpenSession).await
    else {
        panic!("no session");
    };
    let stamp = Stamp { time: Time(8), region: RegionId::new(3).unwrap(), op: 5 };
    let set = WireOp {
        key: b"r".to_vec(),
        verb: WireVerb::Set { value: vec![1], expires_at: None, stamp: Some(stamp) },
    };
    let request = ClientRequest::Write {
        session: Some((id, 2, 1)),
        retry: true,
        after: Time(4),
        ops: vec![add("c", -3), set],
    };
    let ClientAnswer::Written(done) = stream.ask(3, request).await else { panic!("not written") };
    assert_eq!(done.stamps, [None, Some(stamp)]);
    let handed_over = table.writes().remove(0);
    assert_eq!(
        (handed_over.session.unwrap().number, handed_over.retry, handed_over.after),
        (2, true, Time(4))
    );

    let keys = vec![b"c".to_vec(), b"r".to_vec(), b"none".to_vec()];
    let read = ClientRequest::Read { keys, after: Some(done.token.clone()), timeout_ms: 50 };
    let register = ReadValue::Register { value: vec![1], stamp };
    let expected = ClientAnswer::Values(vec![ReadValue::Counter(-3), register, ReadValue::Absent]);
    assert_eq!(stream.ask(4, read).await, expected);
    assert_eq!(table.reads()[0].after, Some(table.token_at(1)));

    let scope = AwaitScope::AtLeast(2);
    let barrier = ClientRequest::Await { token: done.token, scope, timeout_ms: 50 };
    let awaited = stream.ask(5, barrier).await;
    assert!(matches!(awaited, ClientAnswer::Awaited { reached: true, waited_us: 12_300, .. }), "{awaited:?}");
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_code() {
    let table = Table::guarded();
    let door = serve(&table).await;
    let mut stream = Stream::authenticated(&door).await;
    let key = vec![b'k'; 1_025];
    let session = ClientRequest::Write {
        session: Some(("x".into(), 1, 0)),
        retry: false,
        after: Time::ZERO,
        ops: vec![add("a", 1)],
    };
    let cases = [
        (write(vec![]), RejectCode::Malformed),
        (session, RejectCode::BadToken),
        (ClientRequest::Read { keys: vec![key], after: None, timeout_ms: 1 }, RejectCode::TooLarge),
        (ClientRequest::Read { keys: vec![], after: Some("x".into()), timeout_ms: 1 }, RejectCode::BadToken),
        (ClientRequest::Read { keys: vec![], after: None, timeout_ms: u64::MAX }, RejectCode::Malformed),
    ];
    for (id, (request, expected)) in (2..).zip(cases) {
        assert_eq!(code(&stream.ask(id, request).await), expected, "request {id}");
    }
    assert!(table.writes().is_empty());
    assert_eq!(door.stats.rejects().map(|(_, count)| count).sum::<u64>(), 5);
}

#[tokio::test]
async fn writes_are_handed_over_in_the_order_of_their_stream_while_answers_are_pending() {
    let table = Table::guarded();
    let door = serve(&table).await;
    let mut stream = Stream::authenticated(&door).await;
    table.delay_writes(Duration::from_millis(20));
    let count = 1_000;
    let started = std::time::Instant::now();
    let requests = (0..count).map(|n| (100 + n, write(vec![add("a", i64::try_from(n).unwrap())])));
    stream.send(requests).await;
    let mut answered = std::collections::BTreeSet::new();
    for _ in 0..count {
        let (id, answer) = stream.answer().await;
        assert!(matches!(answer, ClientAnswer::Written(_)));
        answered.insert(id);
    }
    assert_eq!(answered.len() as u64, count);
    // One after the other they would take 20 s.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let handed_over: Vec<_> = table.writes().into_iter().map(|write| write.ops[0].verb.clone()).collect();
    let expected: Vec<_> =
        (0..count).map(|n| tombolo_codec::Verb::Add { delta: i64::try_from(n).unwrap() }).collect();
    assert_eq!(handed_over, expected);
}

#[tokio::test]
async fn of_many_pipelined_sets_of_one_key_the_last_wins() {
    let table = Table::guarded();
    let door = serve(&table).await;
    let mut stream = Stream::authenticated(&door).await;
    // More than tokio lets a task do in one go.
    let count = 300_u16;
    let set = |n: u16| {
        let verb = WireVerb::Set { value: n.to_be_bytes().to_vec(), expires_at: None, stamp: None };
        write(vec![WireOp { key: b"r".to_vec(), verb }])
    };
    stream.send((0..count).map(|n| (100 + u64::from(n), set(n)))).await;
    for _ in 0..count {
        assert!(matches!(stream.answer().await.1, ClientAnswer::Written(_)));
    }
    let handed_over: Vec<_> = table.writes().into_iter().map(|write| write.ops[0].verb.clone()).collect();
    let is_in_order = handed_over.iter().zip(0..count).all(
        |(verb, n)| matches!(verb, tombolo_codec::Verb::Set { value, .. } if value[..] == n.to_be_bytes()),
    );
    assert!(is_in_order, "{handed_over:?}");
    let read = ClientRequest::Read { keys: vec![b"r".to_vec()], after: None, timeout_ms: 1 };
    let ClientAnswer::Values(values) = stream.ask(2, read).await else { panic!("no values") };
    assert!(
        matches!(&values[0], ReadValue::Register { value, .. } if value[..] == (count - 1).to_be_bytes()),
        "{values:?}"
    );
}

#[tokio::test]
async fn a_quick_answer_overtakes_a_slow_one() {
    let table = Table::guarded();
    let door = serve(&table).await;
    let mut stream = Stream::authenticated(&door).await;
    table.delay_writes(Duration::from_millis(200));
    let read = ClientRequest::Read { keys: vec![b"a".to_vec()], after: None, timeout_ms: 1 };
    stream.send([(7, write(vec![add("a", 1)])), (8, read)]).await;
    assert_eq!(stream.answer().await.0, 8);
    assert_eq!(stream.answer().await.0, 7);
}

#[tokio::test]
async fn an_answer_above_its_limit_is_refused_and_the_stream_goes_on() {
    let table = Table::guarded();
    let door = serve(&table).await;
    let mut stream = Stream::authenticated(&door).await;
    let set = WireVerb::Set { value: vec![1; 256 * 1024], expires_at: None, stamp: None };
    let set = write(vec![WireOp { key: b"r".to_vec(), verb: set }]);
    assert!(matches!(stream.ask(2, set).await, ClientAnswer::Written(_)));
    let read = |count| ClientRequest::Read { keys: vec![b"r".to_vec(); count], after: None, timeout_ms: 1 };
    assert_eq!(code(&stream.ask(3, read(20)).await), RejectCode::TooLarge);
    assert!(matches!(stream.ask(4, read(10)).await, ClientAnswer::Values(values) if values.len() == 10));
}

#[tokio::test]
async fn a_frame_that_does_not_decode_ends_the_connection_with_the_reason() {
    let table = Table::guarded();
    let door = serve(&table).await;
    let mut stream = Stream::authenticated(&door).await;
    stream.writer.send(&[Frame::new(3, vec![0xff; 40])]).await.unwrap();
    let reason = timeout(PATIENCE, door.connection.closed()).await.unwrap().to_string();
    assert!(reason.contains("does not decode"), "{reason}");
}

#[tokio::test]
async fn a_door_that_shuts_answers_what_is_under_way() {
    let table = Table::guarded();
    let mut door = serve(&table).await;
    let mut stream = Stream::authenticated(&door).await;
    table.delay_writes(Duration::from_millis(200));
    stream.send([(2, write(vec![add("a", 1)]))]).await;
    while table.writes().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    door.shutdown.take().unwrap().send(()).unwrap();
    assert!(matches!(stream.answer().await, (2, ClientAnswer::Written(_))));
    timeout(PATIENCE, &mut door.task).await.unwrap().unwrap();
    timeout(PATIENCE, door.connection.closed()).await.unwrap();
    assert_eq!(door.stats.connections(), 0);
    door.client.close().await;
}
