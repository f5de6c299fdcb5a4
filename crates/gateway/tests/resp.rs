//! The RESP door over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use bytes::BytesMut;
use support::table::{TOKEN, Table};
use support::{Door, PATIENCE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tombolo_codec::{AwaitScope, Reject, RejectCode, Verb};
use tombolo_gateway::resp::encode_request;
use tombolo_gateway::service::Goal;

struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Peer {
    async fn connect(door: &Door) -> Self {
        let stream = TcpStream::connect(door.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    async fn send(&mut self, lines: &[&str]) {
        self.stream.write_all(&encoded(lines)).await.unwrap();
    }

    /// Reads exactly what is expected, so that a missing reply fails and does not hang.
    async fn expect(&mut self, expected: &str) {
        while self.buffer.len() < expected.len() {
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            let read = read.unwrap_or_else(|_| panic!("no more than {:?}", self.seen())).unwrap();
            assert!(read > 0, "closed after {:?}, expected {expected:?}", self.seen());
        }
        let rest = self.buffer.split_off(expected.len());
        assert_eq!(self.seen(), expected);
        self.buffer = rest;
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Sends requests in one write and expects their replies.
    async fn chat(&mut self, lines: &[&str], expected: &str) {
        self.send(lines).await;
        self.expect(expected).await;
    }

    /// All that comes until the door closes the connection.
    async fn rest(mut self) -> String {
        timeout(PATIENCE, self.stream.read_to_end(&mut self.buffer)).await.unwrap().unwrap();
        self.seen()
    }
}

fn encoded(lines: &[&str]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for line in lines {
        encode_request(&line.split(' ').collect::<Vec<_>>(), &mut bytes);
    }
    bytes
}

#[tokio::test]
async fn counters_and_registers_are_written_and_read() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    let lines = [
        "PING",
        "INCR c",
        "INCRBY c 41",
        "DECR c",
        "DECRBY c 2",
        "GET c",
        "SET r hello",
        "GET r",
        "GET none",
        "MGET c r none",
        "EXISTS c r none c",
        "TYPE c",
        "TYPE r",
        "TYPE none",
        "STRLEN c",
        "STRLEN r",
        "DEL c none",
        "UNLINK r",
        "EXISTS c r",
    ];
    let expected = "+PONG\r\n:1\r\n:42\r\n:41\r\n:39\r\n$2\r\n39\r\n+OK\r\n$5\r\nhello\r\n$-1\r\n\
                    *3\r\n$2\r\n39\r\n$5\r\nhello\r\n$-1\r\n:3\r\n+string\r\n+string\r\n+none\r\n:2\r\n:5\r\n\
                    :1\r\n:1\r\n:0\r\n";
    peer.chat(&lines, expected).await;
    assert_eq!(door.stats.requests(), lines.len() as u64);
}

#[tokio::test]
async fn a_pipeline_cut_at_any_byte_gives_the_same_replies() {
    let lines = ["INCR c", "SET r 1", "GET c", "NOPE", "MULTI", "INCR c", "GET c", "EXEC", "DEL c r"];
    let bytes = encoded(&lines);
    let expected = ":1\r\n+OK\r\n$1\r\n1\r\n-ERR unknown command 'NOPE', with args beginning with: \r\n+OK\r\n\
                    +QUEUED\r\n+QUEUED\r\n*2\r\n:2\r\n$1\r\n2\r\n:2\r\n";
    let door = support::resp(&Table::open()).await;
    let mut peer = Peer::connect(&door).await;
    for at in 0..=bytes.len() {
        peer.stream.write_all(&bytes[..at]).await.unwrap();
        // Gives the first part a chance to arrive on its own.
        tokio::time::sleep(Duration::from_micros(300)).await;
        peer.stream.write_all(&bytes[at..]).await.unwrap();
        peer.expect(expected).await;
    }
}

#[tokio::test]
async fn an_add_with_a_producer_and_an_id_counts_once_and_says_so() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    peer.chat(&["INCRBY k 5 IDMP shop 1", "INCRBY k 5 IDMP shop 1"], ":5\r\n+DUPLICATE\r\n").await;
    peer.chat(&["DECR k IDMP shop 2", "INCR k IDMP till 2", "GET k"], ":4\r\n:5\r\n$1\r\n5\r\n").await;
    let places: Vec<_> = table.writes().iter().map(|write| write.session.unwrap()).collect();
    assert!(places.iter().all(|place| place.id.is_named()));
    assert!(places[0].id == places[2].id && places[2].id != places[3].id);

    // The id of a session that a region opened is that session, in every region.
    peer.send(&["SESSION OPEN"]).await;
    let key = tombolo_codec::SealKey::new([5; 32]);
    let opened = tombolo_gateway::Service::open_session(
        &table,
        tombolo_gateway::service::Caller { tenant: tombolo_causality::TenantId::DEFAULT, is_admin: false },
    );
    let id = tombolo_codec::SessionToken(opened.unwrap()).encode(&key);
    peer.expect(&format!("${}\r\n{id}\r\n", id.len())).await;
    peer.chat(&[&format!("INCR k IDMP {id} 7 SETTLED 6"), &format!("SESSION CLOSE {id}")], ":6\r\n+OK\r\n")
        .await;
    let place = table.writes().last().unwrap().session.unwrap();
    assert!(!place.id.is_named() && (place.number, place.settled) == (7, 6));

    // An altered id is no name.
    let altered = format!("{}{}", &id[..id.len() - 1], if id.ends_with('A') { 'B' } else { 'A' });
    for wrong in [
        format!("INCR k IDMP {altered} 8"),
        "INCR k IDMP shop 0".into(),
        "INCR k IDMP shop x".into(),
        "INCR k IDMP shop".into(),
        "INCR k IDMP shop 1 SETTLED".into(),
        "SESSION CLOSE shop".into(),
        "SESSION".into(),
    ] {
        peer.chat(&[&wrong], "-ERR ").await;
        while !peer.seen().ends_with('\n') {
            peer.stream.read_buf(&mut peer.buffer).await.unwrap();
        }
        peer.buffer.clear();
    }
    assert_eq!(table.writes().len(), 5);
}

#[tokio::test]
async fn consecutive_writes_are_one_request_and_so_are_consecutive_reads() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    let lines = ["INCR a", "INCR b", "SET c x", "DEL d e", "GET a", "MGET b c", "EXISTS a", "INCR a"];
    peer.chat(&lines, ":1\r\n:1\r\n+OK\r\n:0\r\n$1\r\n1\r\n*2\r\n$1\r\n1\r\n$1\r\nx\r\n:1\r\n:2\r\n").await;
    let sizes: Vec<_> = table.writes().iter().map(|write| write.ops.len()).collect();
    assert_eq!(sizes, [5, 1]);
    let sizes: Vec<_> = table.reads().iter().map(|read| read.keys.len()).collect();
    assert_eq!(sizes, [4]);
}

#[tokio::test]
async fn a_run_is_cut_at_its_limit() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    let lines = vec!["INCR a"; 1_500];
    let expected: String = (1..=1_500).map(|n| format!(":{n}\r\n")).collect();
    peer.chat(&lines, &expected).await;
    assert!(table.writes().iter().all(|write| write.ops.len() <= 1_024));
    assert!(table.writes().len() < 200, "{} requests for 1,500 writes", table.writes().len());
}

#[tokio::test]
async fn in_a_run_that_is_refused_each_request_gets_its_own_outcome() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    peer.chat(&["SET r x", "INCR c"], "+OK\r\n:1\r\n").await;
    let wrong = |key| format!("-WRONGTYPE `{key}` holds a value of another kind\r\n");
    let expected = [":2\r\n", &wrong("r"), ":3\r\n", &wrong("c"), "+OK\r\n"].concat();
    peer.chat(&["INCR c", "INCR r", "INCR c", "SET c y", "SET r z"], &expected).await;
}

#[tokio::test]
async fn an_unknown_outcome_is_told_to_every_request_of_the_run_and_nothing_is_sent_twice() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    table.refuse_writes(Some(Reject::new(RejectCode::DataLoss, "late").unknown()));
    let late = "-READONLY late (applied: unknown)\r\n";
    peer.chat(&["INCR a", "INCR b", "SET c x"], &late.repeat(3)).await;
    peer.chat(&["MULTI", "INCR a", "EXEC"], &["+OK\r\n+QUEUED\r\n", late].concat()).await;
    assert_eq!(table.writes().len(), 2);
    assert_eq!(door.stats.rejects().find(|(code, _)| *code == RejectCode::DataLoss).unwrap().1, 4);
}

#[tokio::test]
async fn reads_wait_once_for_the_connections_own_writes() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    peer.chat(&["GET a", "INCR a", "GET a", "INCR a", "GET a"], "$-1\r\n:1\r\n$1\r\n1\r\n:2\r\n$1\r\n2\r\n")
        .await;
    peer.chat(&["GET a"], "$1\r\n2\r\n").await;
    let afters: Vec<_> = table.reads().into_iter().map(|read| read.after).collect();
    assert_eq!(afters, [None, Some(table.token_at(1)), Some(table.token_at(2)), None]);
}

#[tokio::test]
async fn wait_counts_the_other_regions_that_hold_the_last_write() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    peer.chat(
        &["INCR a", "WAIT 1 100", "WAITAOF 1 2 100", "WAIT 99 0"],
        ":1\r\n:1\r\n*2\r\n:1\r\n:1\r\n:1\r\n",
    )
    .await;
    let scopes: Vec<_> = table.waits().into_iter().map(|(_, scope, _)| scope).collect();
    assert_eq!(scopes, [AwaitScope::AtLeast(2), AwaitScope::AtLeast(3), AwaitScope::AtLeast(3)]);
    assert_eq!(table.waits()[0].0, Goal::Token(table.token_at(1)));
    assert_eq!(table.waits()[0].2, Duration::from_millis(100));
    assert!(table.waits()[2].2 > Duration::from_secs(60), "0 waits long, but not for ever");
    peer.chat(&["WAIT 1 -1"], "-ERR timeout is negative\r\n").await;
}

#[tokio::test]
async fn a_transaction_writes_in_one_request_and_reads_what_it_wrote() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    let lines = ["MULTI", "GET c", "INCRBY c 5", "PING", "SET r x", "MGET c r", "DEL none", "EXEC"];
    let queued = "+QUEUED\r\n".repeat(6);
    let results = "*6\r\n$1\r\n5\r\n:5\r\n+PONG\r\n+OK\r\n*2\r\n$1\r\n5\r\n$1\r\nx\r\n:0\r\n";
    peer.chat(&lines, &["+OK\r\n", &queued, results].concat()).await;
    assert_eq!(table.writes().len(), 1);
    assert_eq!(table.reads().len(), 1);
    peer.chat(&["MULTI", "EXEC"], "+OK\r\n*0\r\n").await;
}

#[tokio::test]
async fn a_transaction_with_a_bad_request_or_a_refused_write_applies_nothing() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    let bad = "+OK\r\n+QUEUED\r\n-ERR wrong number of arguments for 'get' command\r\n\
               -EXECABORT Transaction discarded because of previous errors.\r\n";
    peer.chat(&["MULTI", "INCR c", "GET", "EXEC"], bad).await;
    assert_eq!(table.writes().len(), 0);
    peer.chat(&["SET r x"], "+OK\r\n").await;
    let refused = "+OK\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT Transaction discarded, nothing was applied: WRONGTYPE `r` \
                   holds a value of another kind\r\n$-1\r\n";
    peer.chat(&["MULTI", "INCR c", "INCR r", "EXEC", "GET c"], refused).await;
    let wrong_places = "-ERR EXEC without MULTI\r\n-ERR DISCARD without MULTI\r\n+OK\r\n-ERR MULTI calls can not be \
                        nested\r\n+OK\r\n+OK\r\n-ERR Command not allowed inside a transaction\r\n+OK\r\n";
    let lines = ["EXEC", "DISCARD", "MULTI", "MULTI", "DISCARD", "MULTI", "WAIT 1 1", "DISCARD"];
    peer.chat(&lines, wrong_places).await;
}

#[tokio::test]
async fn without_a_credential_nothing_but_a_greeting_is_taken() {
    let table = Table::guarded();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    let refused = "-NOAUTH Authentication required.\r\n";
    peer.chat(&["INCR a", "PING", "FLUSHALL", "MULTI"], &refused.repeat(4)).await;
    peer.chat(&["AUTH default wrong"], "-NOAUTH no or a wrong token\r\n").await;
    peer.chat(&["INCR a"], refused).await;
    assert!(table.writes().is_empty());
    peer.chat(&[&format!("AUTH default {TOKEN}"), "INCR a"], "+OK\r\n:1\r\n").await;
    peer.chat(&["RESET", "INCR a"], &["+RESET\r\n", refused].concat()).await;
    peer.chat(&[&format!("AUTH {TOKEN}"), "INCR a"], "+OK\r\n:2\r\n").await;
    let mut other = Peer::connect(&door).await;
    other
        .send(&["HELLO 3", &format!("HELLO 3 AUTH default {TOKEN} SETNAME me"), "CLIENT GETNAME", "QUIT"])
        .await;
    let text = other.rest().await;
    assert!(text.starts_with("-NOAUTH HELLO must be called"), "{text}");
    assert!(text.contains("%7\r\n$6\r\nserver\r\n$7\r\ntombolo\r\n"), "{text}");
    assert!(text.ends_with("$2\r\nme\r\n+OK\r\n"), "{text}");
}

#[tokio::test]
async fn resp3_changes_nulls_and_maps_from_the_greeting_on() {
    let door = support::resp(&Table::open()).await;
    let mut peer = Peer::connect(&door).await;
    peer.chat(&["GET none", "CONFIG GET save"], "$-1\r\n*2\r\n$4\r\nsave\r\n$0\r\n\r\n").await;
    let hello = "%7\r\n$6\r\nserver\r\n$7\r\ntombolo\r\n$7\r\nversion\r\n$5\r\n7.2.0\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n\
                 :1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n";
    peer.chat(&["HELLO 3"], hello).await;
    peer.chat(&["GET none", "CONFIG GET save"], "_\r\n%1\r\n$4\r\nsave\r\n$0\r\n\r\n").await;
    peer.chat(
        &["HELLO 4", "HELLO x"],
        "-NOPROTO unsupported protocol version\r\n-ERR Protocol version is not an \
                                        integer or out of range\r\n",
    )
    .await;
}

#[tokio::test]
async fn what_stock_clients_send_first_is_answered() {
    let door = support::resp(&Table::open()).await;
    let mut peer = Peer::connect(&door).await;
    let lines = [
        "CLIENT SETINFO LIB-NAME redis-py",
        "CLIENT SETNAME app",
        "CLIENT GETNAME",
        "CLIENT ID",
        "SELECT 0",
        "SELECT 1",
        "ECHO hi",
        "PING hi",
        "COMMAND COUNT",
        "COMMAND INFO get nope",
        "COMMAND DOCS get",
        "UNWATCH",
        "CONFIG GET append*",
    ];
    let expected = "+OK\r\n+OK\r\n$3\r\napp\r\n:1\r\n+OK\r\n-ERR DB index is out of range\r\n$2\r\nhi\r\n$2\r\nhi\r\n\
                    :31\r\n*2\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n$-1\r\n*0\r\n+OK\r\n\
                    *4\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n";
    peer.chat(&lines, expected).await;
    peer.send(&["TIME", "INFO server", "QUIT"]).await;
    let text = peer.rest().await;
    assert!(text.contains("redis_version:") && text.contains("tombolo_region:eu-west"), "{text}");
    assert!(text.ends_with("+OK\r\n"), "{text}");
}

#[tokio::test]
async fn bytes_that_are_not_resp_are_answered_and_the_connection_is_closed() {
    let door = support::resp(&Table::open()).await;
    let mut huge = encoded(&["INCR a"]).to_vec();
    huge.extend_from_slice(b"*1\r\n$999999999\r\n");
    // More than the sockets hold: a door that closed at once would break the connection before the reply is read.
    huge.resize(huge.len() + 12 * 1024 * 1024, b'x');
    let cases: [(&[u8], &str); 4] = [
        (&huge, ":1\r\n-ERR Protocol error: invalid bulk length\r\n"),
        (b"*99999999\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\nGET\r\n", "-ERR Protocol error: expected '$', got 'G'\r\n"),
        (b"*1\r\n\xff\r\n", "-ERR Protocol error: expected '$', got '\\xff'\r\n"),
    ];
    for (bytes, expected) in cases {
        let mut peer = Peer::connect(&door).await;
        peer.stream.write_all(bytes).await.unwrap();
        peer.stream.shutdown().await.unwrap();
        assert_eq!(peer.rest().await, expected);
    }
}

#[tokio::test]
async fn a_value_above_its_limit_is_refused_and_the_connection_goes_on() {
    let door = support::resp(&Table::open()).await;
    let mut peer = Peer::connect(&door).await;
    let value = "v".repeat(256 * 1024);
    peer.chat(&[&format!("SET k {value}")], "+OK\r\n").await;
    peer.chat(
        &[&format!("SET k {value}v"), "STRLEN k"],
        "-ERR a value of 262145 bytes; the limit is 262144\r\n:262144\r\n",
    )
    .await;
}

#[tokio::test]
async fn more_output_than_is_buffered_arrives_whole() {
    let door = support::resp(&Table::open()).await;
    let mut peer = Peer::connect(&door).await;
    let value = "v".repeat(200_000);
    peer.chat(&[&format!("SET k {value}")], "+OK\r\n").await;
    let lines = vec!["GET k"; 300];
    peer.send(&lines).await;
    // The door has to stop at its bound meanwhile, and go on after.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let reply = format!("$200000\r\n{value}\r\n");
    for _ in 0..lines.len() {
        peer.expect(&reply).await;
    }
    peer.chat(&["PING"], "+PONG\r\n").await;
}

#[tokio::test]
async fn a_client_that_takes_no_replies_is_not_read_from_without_end() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    peer.chat(&[&format!("SET k {}", "v".repeat(200_000))], "+OK\r\n").await;
    peer.send(&vec!["GET k"; 4_000]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let values_read: usize = table.reads().iter().map(|read| read.keys.len()).sum();
    // What the sockets hold, a megabyte, and a run: 800 MB were asked for.
    assert!((1..1_000).contains(&values_read), "{values_read} values were read");
}

#[tokio::test]
async fn a_counter_outside_of_64_bits_reads_as_its_digits() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    table.put_counter("c", i128::from(i64::MAX) + 1);
    peer.chat(&["GET c", "STRLEN c"], "$19\r\n9223372036854775808\r\n:19\r\n").await;
    peer.chat(&["INCR c"], "-OVERFLOW the counter would leave i64\r\n").await;
}

#[tokio::test]
async fn a_region_that_recovers_says_loading() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    table.set_ready(false);
    let loading = "-LOADING the region still reads its logs after a start; ask again\r\n";
    peer.chat(&["INCR a", "GET a", "PING"], &[loading, loading, "+PONG\r\n"].concat()).await;
    table.set_ready(true);
    peer.chat(&["INCR a"], ":1\r\n").await;
}

#[tokio::test]
async fn a_door_that_shuts_answers_what_is_under_way_and_closes() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut idle = Peer::connect(&door).await;
    idle.chat(&["PING"], "+PONG\r\n").await;
    let mut busy = Peer::connect(&door).await;
    table.delay_writes(Duration::from_millis(300));
    busy.send(&["INCR a"]).await;
    while table.writes().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(door.stats.connections(), 2);
    let stats = door.stats.clone();
    door.shut().await;
    assert_eq!(busy.rest().await, ":1\r\n");
    assert_eq!(idle.rest().await, "");
    assert_eq!(stats.connections(), 0);
}

#[tokio::test]
async fn every_op_without_a_stamp_gets_bits_of_its_own() {
    let table = Table::open();
    let door = support::resp(&table).await;
    let mut peer = Peer::connect(&door).await;
    peer.chat(&["SET a 1", "SET a 2", "DEL a b"], "+OK\r\n+OK\r\n:1\r\n").await;
    let ops = table.writes().remove(0).ops;
    let drawn: std::collections::BTreeSet<String> = ops
        .iter()
        .map(|op| match &op.verb {
            Verb::Set { stamp, .. } | Verb::Delete { stamp, .. } => format!("{stamp:?}"),
            Verb::Add { .. } => unreachable!(),
        })
        .collect();
    assert_eq!(drawn.len(), 4);
}
