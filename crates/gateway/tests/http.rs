//! The HTTP door over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::table::{ADMIN, TOKEN, Table};
use support::{Door, PATIENCE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tombolo_causality::{RegionId, Stamp, Time};
use tombolo_codec::{AwaitScope, Reject, RejectCode, StampSource, Verb};
use tombolo_gateway::service::Goal;

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&self.body)))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Checks the shape that every refusal has.
    fn problem(&self, status: u16, code: &str) -> String {
        let json = self.json();
        assert_eq!((self.status, json["code"].as_str()), (status, Some(code)), "{json}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.header("tombolo-region"), Some("eu-west"));
        assert_eq!(json["status"], status);
        assert!(
            json["type"].is_string() && json["title"].is_string() && json["applied"].is_string(),
            "{json}"
        );
        json["detail"].as_str().unwrap().to_owned()
    }
}

async fn raw(door: &Door, head: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    let head = format!("{head}Host: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head") + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes.split_off(end) }
}

async fn get(door: &Door, path: &str, headers: &str) -> Answer {
    raw(door, &format!("GET {path} HTTP/1.1\r\n{headers}"), b"").await
}

async fn post_text(door: &Door, path: &str, headers: &str, body: &str) -> Answer {
    let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\n{headers}", body.len());
    raw(door, &head, body.as_bytes()).await
}

async fn post(door: &Door, path: &str, body: Value) -> Answer {
    post_text(door, path, "Content-Type: application/json; charset=utf-8\r\n", &body.to_string()).await
}

#[tokio::test]
async fn ops_are_written_and_read_back_as_the_contract_shows() {
    let table = Table::open();
    let door = support::http(&table).await;
    let ops = json!({"ops": [
        {"op": "add", "key": "views:1", "delta": "5"},
        {"op": "set", "key": "profile/1", "value": "Zoë"},
        {"op": "set", "key": "blob", "value_base64": "/wA="},
        {"op": "delete", "key": "gone", "kind": "counter"},
    ]});
    let answer = post(&door, "/v1/ops", ops).await;
    let written = answer.json();
    assert_eq!(answer.status, 200, "{written}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("tombolo-region"), Some("eu-west"));
    assert_eq!(written["region"], "eu-west");
    assert_eq!(written["durability"], "sync");
    assert_eq!((&written["replayed"], &written["conditional"]), (&json!(false), &json!(false)));
    let stamps = written["stamps"].as_array().unwrap();
    assert!(stamps[0].is_null() && stamps[1..].iter().all(Value::is_string), "{written}");

    let after = format!("Tombolo-After: {}\r\n", written["token"].as_str().unwrap());
    let counter = get(&door, "/v1/keys/views%3A1", &after).await.json();
    assert_eq!(counter, json!({"key": "views:1", "kind": "counter", "value": "5", "stamp": null}));
    let register = get(&door, "/v1/keys/profile%2F1", "").await.json();
    assert_eq!(register, json!({"key": "profile/1", "kind": "register", "value": "Zoë", "stamp": stamps[1]}));
    let blob = get(&door, "/v1/keys/blob", "").await.json();
    assert_eq!((&blob["value"], &blob["value_base64"]), (&Value::Null, &json!("/wA=")));
    get(&door, "/v1/keys/none", "").await.problem(404, "not_found");

    let read = post(&door, "/v1/read", json!({"keys": ["views:1", "none"]})).await.json();
    let absent = json!({"key": "none", "kind": null, "value": null, "stamp": null});
    assert_eq!(read, json!({"values": [counter, absent]}));
    assert_eq!(table.reads()[0].after, Some(table.token_at(1)));
    assert_eq!(table.reads()[0].timeout, Duration::from_secs(5));
}

#[tokio::test]
async fn keys_of_any_bytes_are_reached_by_percent_encoding() {
    let table = Table::open();
    let door = support::http(&table).await;
    table.put_counter("a b/c?%", i128::from(i64::MAX) + 1);
    let answer = get(&door, "/v1/keys/a%20b%2Fc%3F%25", "").await.json();
    assert_eq!((&answer["key"], &answer["value"]), (&json!("a b/c?%"), &json!("9223372036854775808")));
    get(&door, "/v1/keys/%ff%00", "").await.problem(404, "not_found");
    assert_eq!(table.reads()[1].keys[0], [0xff, 0][..]);
    get(&door, "/v1/keys/%zz", "").await.problem(400, "malformed");
    get(&door, "/v1/keys/a/b", "").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_read_after_a_token_that_is_not_covered_says_not_yet() {
    let table = Table::open();
    let door = support::http(&table).await;
    let token = table.token_at(9).encode(&tombolo_codec::SealKey::new([5; 32]));
    let headers = format!("Tombolo-After: {token}\r\nTombolo-Timeout-Ms: 70\r\n");
    get(&door, "/v1/keys/a", &headers).await.problem(412, "not_yet");
    assert_eq!(table.reads()[0].timeout, Duration::from_millis(70));
    let foreign = table.token_at(9).encode(&tombolo_codec::SealKey::new([6; 32]));
    get(&door, "/v1/keys/a", &format!("Tombolo-After: {foreign}\r\n")).await.problem(400, "bad_token");
    get(&door, "/v1/keys/a", "Tombolo-After: x\r\n").await.problem(400, "bad_token");
    get(&door, "/v1/keys/a", "Tombolo-Timeout-Ms: soon\r\n").await.problem(400, "malformed");
    get(&door, "/v1/keys/a", "Tombolo-Timeout-Ms: 600001\r\n").await.problem(400, "malformed");
}

#[tokio::test]
async fn a_session_is_opened_and_its_numbers_reach_the_region() {
    let table = Table::open();
    let door = support::http(&table).await;
    let opened = post_text(&door, "/v1/sessions", "", "").await.json();
    assert_eq!(opened["home"], "eu-west");
    assert_eq!((&opened["numbers_max"], &opened["window_seconds"]), (&json!(64), &json!(86_400)));
    let id = opened["session"].as_str().unwrap();
    let stamp = Stamp { time: Time(5), region: RegionId::new(2).unwrap(), op: 3 };
    let body = json!({
        "session": {"id": id, "number": 7, "settled": 5},
        "retry": true,
        "ops": [{"op": "add", "key": "c", "delta": "-5"}, {"op": "set", "key": "r", "value": "", "stamp": stamp.to_string()}],
    });
    assert_eq!(post(&door, "/v1/ops", body).await.status, 200);
    let write = table.writes().remove(0);
    let place = write.session.unwrap();
    assert_eq!((place.number, place.settled, write.retry), (7, 5, true));
    assert_eq!(write.ops[0].verb, Verb::Add { delta: -5 });
    assert!(
        matches!(write.ops[1].verb, Verb::Set { stamp: StampSource::Fixed(fixed), .. } if fixed == stamp)
    );

    let ops = json!([{"op": "add", "key": "c", "delta": "1"}]);
    let with = |session: Value| json!({"session": session, "ops": ops});
    post(&door, "/v1/ops", with(json!({"id": "x", "number": 1}))).await.problem(400, "bad_token");
    post(&door, "/v1/ops", with(json!({"id": id, "number": 0}))).await.problem(400, "malformed");
    assert_eq!(table.writes().len(), 1);
}

#[tokio::test]
async fn bodies_that_are_wrong_are_refused_with_what_and_where() {
    let table = Table::open();
    let door = support::http(&table).await;
    let cases = [
        ("{\n \"ops\": [}", "line 2 column 10"),
        ("{\"ops\": [], \"oops\": 1}", "unknown field `oops`"),
        ("{\"ops\": [{\"op\": \"add\", \"key\": \"a\",\n\"delta\": 5}]}", "line 2"),
        ("{\"ops\": [{\"op\": \"mul\", \"key\": \"a\"}]}", "unknown variant `mul`"),
        ("{\"ops\": [{\"op\": \"add\", \"key\": \"a\", \"delta\": \"x\"}]}", "ops[0]: `delta`"),
        (
            "{\"ops\": [{\"op\": \"add\", \"key\": \"a\", \"delta\": \"9223372036854775808\"}]}",
            "ops[0]: `delta`",
        ),
        ("{\"ops\": [{\"op\": \"add\", \"key\": \"a\"}]}", "needs `delta`"),
        (
            "{\"ops\": [{\"op\": \"add\", \"key\": \"a\", \"delta\": \"1\", \"value\": \"x\"}]}",
            "an add takes no `value`",
        ),
        ("{\"ops\": [{\"op\": \"set\", \"key\": \"a\"}]}", "either `value` or `value_base64`"),
        (
            "{\"ops\": [{\"op\": \"set\", \"key\": \"a\", \"value\": \"\", \"value_base64\": \"\"}]}",
            "either `value`",
        ),
        ("{\"ops\": [{\"op\": \"set\", \"key\": \"a\", \"value_base64\": \"!\"}]}", "not base64"),
        (
            "{\"ops\": [{\"op\": \"set\", \"key\": \"a\", \"value\": \"\", \"stamp\": \"1\"}]}",
            "`stamp` is not a stamp",
        ),
        ("{\"ops\": []}", "no ops"),
        ("{}", "missing field `ops`"),
        ("", "EOF"),
        ("[1", "line 1"),
    ];
    for (body, expected) in cases {
        let text = post_text(&door, "/v1/ops", "", body).await.problem(400, "malformed");
        assert!(text.contains(expected), "{body}: {text}");
    }
    let expiring = json!({"ops": [{"op": "set", "key": "a", "value": "", "expires_in_ms": 5}]});
    post(&door, "/v1/ops", expiring).await.problem(501, "not_supported");
    let form = "Content-Type: text/plain\r\n";
    post_text(&door, "/v1/ops", form, "{\"ops\":[]}").await.problem(415, "malformed");
    assert!(table.writes().is_empty());
}

#[tokio::test]
async fn limits_hold_before_anything_is_kept() {
    let table = Table::open();
    let door = support::http(&table).await;
    let long = "k".repeat(1_025);
    post(&door, "/v1/ops", json!({"ops": [{"op": "add", "key": long, "delta": "1"}]}))
        .await
        .problem(413, "too_large");
    let value = "v".repeat(256 * 1024 + 1);
    post(&door, "/v1/ops", json!({"ops": [{"op": "set", "key": "a", "value": value}]}))
        .await
        .problem(413, "too_large");
    let many = vec![json!({"op": "add", "key": "a", "delta": "1"}); 8_193];
    post(&door, "/v1/ops", json!({"ops": many})).await.problem(413, "too_large");
    post(&door, "/v1/read", json!({"keys": vec!["a"; 8_193]})).await.problem(413, "too_large");
    get(&door, &format!("/v1/keys/{long}"), "").await.problem(413, "too_large");

    let huge = "x".repeat(6 * 1024 * 1024);
    let text = post_text(&door, "/v1/ops", "", &huge).await.problem(413, "too_large");
    assert!(text.contains("4194304"), "{text}");
    // Without an announced length.
    let chunked = format!("{:x}\r\n{huge}\r\n0\r\n\r\n", huge.len());
    let head = "POST /v1/ops HTTP/1.1\r\nTransfer-Encoding: chunked\r\n";
    raw(&door, head, chunked.as_bytes()).await.problem(413, "too_large");
    assert!(table.writes().is_empty() && table.reads().is_empty());
}

#[tokio::test]
async fn an_idempotency_key_names_a_session_of_one_request() {
    let table = Table::open();
    let door = support::http(&table).await;
    let body = json!({"ops": [{"op": "add", "key": "a", "delta": "1"}]}).to_string();
    let first = post_text(&door, "/v1/ops", "Idempotency-Key: one\r\n", &body).await;
    assert_eq!((first.status, &first.json()["replayed"]), (200, &json!(false)));
    let again = post_text(&door, "/v1/ops", "Idempotency-Key: one\r\n", &body).await;
    assert_eq!((again.status, &again.json()["replayed"]), (200, &json!(true)));
    let other = post_text(&door, "/v1/ops", "Idempotency-Key: two\r\n", &body).await;
    assert_eq!((other.status, &other.json()["replayed"]), (200, &json!(false)));
    let places: Vec<_> = table.writes().iter().map(|write| write.session.unwrap()).collect();
    assert!(places.iter().all(|place| place.id.is_named() && (place.number, place.settled) == (1, 0)));
    assert!(places[0].id == places[1].id && places[0].id != places[2].id);

    let long = format!("Idempotency-Key: {}\r\n", "k".repeat(257));
    for head in ["Idempotency-Key: \r\n", "Idempotency-Key: a\r\nIdempotency-Key: b\r\n", &long] {
        post_text(&door, "/v1/ops", head, &body).await.problem(400, "malformed");
    }
    let id = post(&door, "/v1/sessions", json!({})).await.json()["session"].as_str().unwrap().to_owned();
    let both = json!({"session": {"id": id, "number": 1}, "ops": [{"op": "add", "key": "a", "delta": "1"}]});
    let answer = post_text(&door, "/v1/ops", "Idempotency-Key: one\r\n", &both.to_string()).await;
    answer.problem(400, "malformed");
    assert_eq!(table.writes().len(), 3);
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_problems_too() {
    let door = support::http(&Table::open()).await;
    get(&door, "/v1/nothing", "").await.problem(404, "not_found");
    let nowhere = get(&door, "/", "").await;
    nowhere.problem(404, "not_found");
    assert!(nowhere.json()["detail"].as_str().unwrap().contains("GET /v1/keys/{key}, /v1/status"));
    let answer = get(&door, "/v1/ops", "").await;
    answer.problem(405, "not_supported");
    assert_eq!(answer.header("allow"), Some("POST"));
    raw(&door, "DELETE /v1/keys/a HTTP/1.1\r\n", b"").await.problem(405, "not_supported");
}

#[tokio::test]
async fn a_refusal_of_the_region_keeps_its_code_and_what_was_applied() {
    let table = Table::open();
    let door = support::http(&table).await;
    let ops = json!({"ops": [{"op": "add", "key": "a", "delta": "1"}]});
    let needed = Stamp { time: Time(9), region: RegionId::new(1).unwrap(), op: 1 };
    let mut reject = Reject::new(RejectCode::StampBehind, "behind").retry_after_ms(1_500);
    reject.stamp_needed = Some(needed);
    table.refuse_writes(Some(reject));
    let answer = post(&door, "/v1/ops", ops.clone()).await;
    answer.problem(409, "stamp_behind");
    assert_eq!(answer.json()["stamp_needed"], needed.to_string());
    assert_eq!(answer.json()["retry_after_ms"], 1_500);
    assert_eq!(answer.header("retry-after"), Some("2"));
    table.refuse_writes(Some(Reject::new(RejectCode::StorageFailed, "broken").unknown()));
    let answer = post(&door, "/v1/ops", ops).await;
    answer.problem(503, "storage_failed");
    assert_eq!(answer.json()["applied"], "unknown");
    let counted = door.stats.rejects().filter(|(_, count)| *count > 0).map(|(code, _)| code.name());
    assert_eq!(counted.collect::<Vec<_>>(), ["stamp_behind", "storage_failed"]);
}

#[tokio::test]
async fn a_barrier_takes_each_scope_and_names_the_laggards() {
    let table = Table::open();
    let door = support::http(&table).await;
    let token = table.token_at(3).encode(&tombolo_codec::SealKey::new([5; 32]));
    let answer = post(&door, "/v1/await", json!({"token": token, "regions": "all", "timeout_ms": 50})).await;
    let laggard = json!({"region": "ap-south", "reason": "unreachable", "detail": "", "behind_ops": 120, "since": "2023-11-14T22:13:20.123Z"});
    assert_eq!(answer.json(), json!({"reached": false, "waited_ms": 12.3, "laggards": [laggard]}));
    assert_eq!(answer.status, 200);
    for regions in [json!(["us-east"]), json!({"at_least": 2})] {
        let answer = post(&door, "/v1/await", json!({"token": token, "regions": regions})).await;
        assert_eq!(answer.json()["reached"], true);
    }
    let scopes: Vec<_> = table.waits().into_iter().map(|(_, scope, _)| scope).collect();
    assert_eq!(scopes, [AwaitScope::All, AwaitScope::Named(vec!["us-east".into()]), AwaitScope::AtLeast(2)]);

    let with = |regions: Value| json!({"token": token, "regions": regions});
    post(&door, "/v1/await", with(json!(["mars"]))).await.problem(400, "unknown_region");
    for wrong in [
        json!("some"),
        json!([]),
        json!({"at_least": 0}),
        json!({"at_least": 4}),
        json!({"most": 1}),
        json!(3),
    ] {
        post(&door, "/v1/await", with(wrong)).await.problem(400, "malformed");
    }
    post(&door, "/v1/await", json!({"token": token, "timeout_ms": 600_001})).await.problem(400, "malformed");
    post(&door, "/v1/await", json!({"token": "x"})).await.problem(400, "bad_token");
    let revision = json!({"revision": 3, "regions": ["eu-west"]});
    assert_eq!(post(&door, "/v1/await", revision).await.json()["reached"], true);
    assert_eq!(table.waits().last().unwrap().0, Goal::Revision(3));
    for body in [json!({}), json!({"token": token, "revision": 3}), json!({"revision": "3"})] {
        post(&door, "/v1/await", body).await.problem(400, "malformed");
    }
}

#[tokio::test]
async fn a_credential_is_asked_for_where_the_region_does() {
    let table = Table::guarded();
    let door = support::http(&table).await;
    for path in ["/v1/keys/a", "/v1/status", "/v1/digest"] {
        let answer = get(&door, path, "").await;
        answer.problem(401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        get(&door, path, "Authorization: Bearer wrong\r\n").await.problem(401, "unauthenticated");
        get(&door, path, "Authorization: Basic eDp5\r\n").await.problem(401, "unauthenticated");
    }
    for path in ["/v1/ops", "/v1/sessions", "/v1/read", "/v1/await"] {
        post(&door, path, json!({})).await.problem(401, "unauthenticated");
    }
    assert_eq!(get(&door, "/v1/status", &format!("Authorization: Bearer {TOKEN}\r\n")).await.status, 200);
    for path in ["/livez", "/readyz", "/startupz", "/version", "/metrics"] {
        assert_eq!(get(&door, path, "").await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn administration_needs_the_admin_token() {
    let table = Table::guarded();
    let door = support::http(&table).await;
    let (tenant, admin) =
        (format!("Authorization: Bearer {TOKEN}\r\n"), format!("Authorization: bearer {ADMIN}\r\n"));
    let body = "{\"peer\": \"us-east\"}";
    for path in ["/v1/admin/pause-apply", "/v1/admin/resume-apply", "/v1/admin/checkpoint"] {
        post_text(&door, path, "", body).await.problem(401, "unauthenticated");
        post_text(&door, path, &tenant, body).await.problem(403, "forbidden");
    }
    let paused = post_text(&door, "/v1/admin/pause-apply", &admin, body).await.json();
    assert_eq!(paused, json!({"peer": "us-east", "paused": true}));
    let resumed = post_text(&door, "/v1/admin/resume-apply", &admin, body).await.json();
    assert_eq!(resumed, json!({"peer": "us-east", "paused": false}));
    assert_eq!(table.paused(), [("us-east".to_owned(), true), ("us-east".to_owned(), false)]);
    let mars = "{\"peer\": \"mars\"}";
    post_text(&door, "/v1/admin/pause-apply", &admin, mars).await.problem(400, "unknown_region");
    assert_eq!(post_text(&door, "/v1/admin/checkpoint", &admin, "").await.json(), json!({"shards": 16}));
}

#[tokio::test]
async fn a_region_that_recovers_is_live_but_not_ready() {
    let table = Table::open();
    let door = support::http(&table).await;
    table.set_ready(false);
    assert_eq!(get(&door, "/livez", "").await.status, 200);
    get(&door, "/readyz", "").await.problem(503, "busy");
    get(&door, "/startupz", "").await.problem(503, "busy");
    let ops = json!({"ops": [{"op": "add", "key": "a", "delta": "1"}]});
    post(&door, "/v1/ops", ops).await.problem(503, "busy");
    get(&door, "/v1/keys/a", "").await.problem(503, "busy");
    assert!(table.writes().is_empty() && table.reads().is_empty());
    assert_eq!(get(&door, "/v1/status", "").await.json()["schema"], "tombolo.status/v1");
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request_and_closed_when_the_door_shuts() {
    let table = Table::open();
    let door = support::http(&table).await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    let mut seen = Vec::new();
    for count in 1..=2 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        while seen.windows(15).filter(|window| *window == b"{\"status\":\"ok\"}").count() < count {
            assert!(timeout(PATIENCE, stream.read_buf(&mut seen)).await.unwrap().unwrap() > 0);
        }
    }
    assert_eq!(door.stats.connections(), 1);
    door.shut().await;
    assert_eq!(timeout(PATIENCE, stream.read_buf(&mut seen)).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_write_under_way_is_answered_while_the_door_shuts() {
    let table = Table::open();
    let door = support::http(&table).await;
    table.delay_writes(Duration::from_millis(300));
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    let body = "{\"ops\":[{\"op\":\"add\",\"key\":\"a\",\"delta\":\"1\"}]}";
    let request = format!("POST /v1/ops HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    while table.writes().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    door.shut().await;
    let mut seen = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut seen)).await.unwrap().unwrap();
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
}
