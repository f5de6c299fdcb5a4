//! Barriers on real daemons: never early, every laggard with its reason, and nothing kept for callers that went away.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tombolo_sdk::{Client, Scope, Token};
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::process::run;
use tombolo_tests::resp::{Reply, Resp};
use tombolo_tests::within;

fn add(bed: &Bed, region: &str, key: &str) -> String {
    let ops = json!({"ops": [{"op": "add", "key": key, "delta": "1"}]});
    let (status, answer) = bed.post(region, "/v1/ops", &ops);
    assert_eq!(status, 200, "{answer}");
    answer["token"].as_str().unwrap().to_owned()
}

fn pause(bed: &Bed, region: &str, peer: &str, is_paused: bool) {
    let path = if is_paused { "/v1/admin/pause-apply" } else { "/v1/admin/resume-apply" };
    let (status, answer) = bed.post(region, path, &json!({"peer": peer}));
    assert_eq!(status, 200, "{answer}");
}

fn await_at(bed: &Bed, region: &str, body: Value) -> Value {
    let (status, answer) = bed.post(region, "/v1/await", &body);
    assert_eq!(status, 200, "{answer}");
    answer
}

/// The exit code of `tombolo doctor`, and its findings.
fn doctor(bed: &Bed) -> (Option<i32>, String) {
    let dir = bed.dir().to_string_lossy().into_owned();
    let ended = run(["doctor", "-o", "json", "--cluster", &dir], 30);
    let body: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended.code, body["findings"].to_string())
}

fn waiters(bed: &Bed) -> u64 {
    bed.cluster.status("eu").unwrap()["waiters"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_reached_is_there_after_all_regions_are_killed_at_once() {
    let mut bed = Bed::start();
    for round in 0..5 {
        let client = bed.client("eu").await;
        let session = client.session().await.unwrap();
        let key = format!("reached:{round}");
        let written = session.counter(&key).incr(1).await.unwrap();
        let awaited = client.wait(&written.token, Scope::All, Duration::from_secs(10)).await.unwrap();
        assert!(awaited.reached, "{awaited:?}");
        // All of them: none can take it from another afterwards.
        REGIONS.iter().for_each(|region| bed.cluster.kill9(region).unwrap());
        for region in REGIONS {
            bed.cluster.spawn(region).unwrap();
            bed.cluster.await_ready(region).unwrap();
            let found: Value = bed.cluster.get(region, &format!("/v1/keys/{key}")).unwrap();
            assert_eq!(found["value"], "1", "{region} lost what a barrier said it has");
            bed.cluster.kill9(region).unwrap();
        }
        bed.spawn_all();
    }
}

#[test]
fn a_paused_region_is_behind_and_says_why_and_goes_on_in_order() {
    let bed = Bed::start();
    pause(&bed, "ap", "eu", true);
    for _ in 0..20 {
        add(&bed, "eu", "paused:a");
    }
    let token = add(&bed, "eu", "paused:a");
    let answer = await_at(&bed, "eu", json!({"token": token, "timeout_ms": 300}));
    assert_eq!(answer["reached"], false, "{answer}");
    let laggard = &answer["laggards"][0];
    assert_eq!((&laggard["region"], &laggard["reason"]), (&json!("ap"), &json!("behind")), "{answer}");
    assert_eq!((&laggard["behind_ops"], &laggard["since"]), (&json!(21), &Value::Null), "{answer}");
    assert!(laggard["detail"].as_str().unwrap().contains("paused"), "{answer}");
    // Told to every region, also to one that wrote nothing of it.
    let elsewhere = await_at(&bed, "us", json!({"token": token, "timeout_ms": 300}));
    assert!(elsewhere["laggards"][0]["detail"].as_str().unwrap().contains("paused"), "{elsewhere}");
    let named = json!({"token": token, "regions": ["eu", "us"], "timeout_ms": 5_000});
    assert_eq!(await_at(&bed, "eu", named)["reached"], true);
    assert_eq!(bed.peer("ap", "eu")["paused"], true);
    assert_eq!(bed.peer("eu", "ap")["paused_there"], true);
    bed.until("the pause is named as what limits", 10, |bed| {
        let peer = bed.peer("eu", "ap");
        let is_named =
            peer["limit"] == "receiver" && peer["state"] != "ok" && peer["shards"][0]["behind_ops"] == 21;
        (!is_named).then(|| peer.to_string())
    });
    let (code, found) = doctor(&bed);
    assert!(code == Some(8) && found.contains("apply_paused") && found.contains("peer_"), "{found}");
    pause(&bed, "ap", "eu", false);
    let answer = await_at(&bed, "eu", json!({"token": token, "timeout_ms": 10_000}));
    assert_eq!(answer["reached"], true, "{answer}");
    let found: Value = bed.cluster.get("ap", "/v1/keys/paused:a").unwrap();
    assert_eq!(found["value"], "21");
    bed.until("nothing lags", 10, |bed| {
        let peer = bed.peer("eu", "ap");
        let is_well = peer["state"] == "ok" && peer["limit"].is_null() && peer["lag_seconds"] == 0.0;
        (!is_well).then(|| peer.to_string())
    });
    bed.until("all are whole", 10, Bed::not_whole);
    assert_eq!(doctor(&bed), (Some(0), "[]".to_owned()));
}

#[test]
fn a_region_that_is_cut_off_is_unreachable_since_then_also_for_revisions() {
    let bed = Bed::start_with(|options| options.with_links(Default::default()));
    let revision = |revision: u64| json!({"revision": revision, "timeout_ms": 300});
    let present = bed.cluster.status("eu").unwrap()["revision"].as_u64().unwrap();
    let known = json!({"revision": present, "timeout_ms": 5_000});
    assert_eq!(await_at(&bed, "eu", known)["reached"], true);
    let answer = await_at(&bed, "eu", revision(present + 1));
    assert_eq!((&answer["reached"], answer["laggards"].as_array().unwrap().len()), (&json!(false), 3));
    assert_eq!(answer["laggards"][0]["reason"], "behind", "{answer}");
    bed.cluster.relay().unwrap().isolate("ap").unwrap();
    bed.until("the cut is noticed", 10, |bed| {
        let state = bed.peer("eu", "ap")["state"].clone();
        (state != "unreachable").then(|| state.to_string())
    });
    let token = add(&bed, "eu", "cut:a");
    for body in [json!({"token": token, "timeout_ms": 200}), revision(present + 1)] {
        let answer = await_at(&bed, "eu", body);
        let laggards = answer["laggards"].as_array().unwrap();
        let laggard = laggards.iter().find(|laggard| laggard["region"] == "ap").unwrap();
        assert_eq!(laggard["reason"], "unreachable", "{answer}");
        assert!(laggard["since"].as_str().unwrap().starts_with("20"), "{answer}");
    }
    assert_eq!(bed.peer("eu", "ap")["limit"], "network");
    for (body, code) in [
        (json!({"token": token, "regions": ["mars"]}), "unknown_region"),
        (json!({"token": token, "regions": {"at_least": 4}}), "malformed"),
        (json!({"revision": 1, "regions": ["mars"]}), "unknown_region"),
    ] {
        let (status, answer) = bed.post("eu", "/v1/await", &body);
        assert_eq!((status, &answer["code"]), (400, &json!(code)), "{answer}");
    }
}

#[test]
fn waiters_are_let_go_when_their_clients_go() {
    let bed = Bed::start();
    pause(&bed, "ap", "eu", true);
    let token = add(&bed, "eu", "gone:a");
    let body = json!({"token": token, "timeout_ms": 600_000}).to_string();
    let http = bed.cluster.http("eu").unwrap();
    let http = http.trim_start_matches("http://");
    let request = format!(
        "POST /v1/await HTTP/1.1\r\nhost: eu\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let by_http: Vec<TcpStream> = (0..350)
        .map(|_| {
            let mut stream = TcpStream::connect(http).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    let by_resp: Vec<Resp> = (0..300)
        .map(|_| {
            let mut resp = Resp::connect(bed.cluster.resp("eu").unwrap());
            resp.send(&[&["INCR", "gone:b"], &["WAIT", "2", "0"]]);
            resp
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let client: Client = bed.client("eu").await;
        let token: Token = token.parse().unwrap();
        for _ in 0..350 {
            let (client, token) = (client.clone(), token.clone());
            tokio::spawn(async move { client.wait(&token, Scope::All, Duration::from_secs(600)).await });
        }
    });
    bed.until("all of them wait", 20, |bed| {
        let count = waiters(bed);
        (count != 1_000).then(|| format!("{count} wait"))
    });
    // One more that stays: the others' going does not disturb it.
    let mut stays = Resp::connect(bed.cluster.resp("eu").unwrap());
    stays.send(&[&["INCR", "gone:c"], &["WAIT", "2", "60000"]]);
    drop(by_http);
    drop(by_resp);
    // As if the process were killed: the region finds out by silence.
    runtime.shutdown_background();
    let freed = bed.until("only the last one waits", 20, |bed| {
        let count = waiters(bed);
        (count != 1).then(|| format!("{count} wait"))
    });
    pause(&bed, "ap", "eu", false);
    assert_eq!(stays.read(), Some(Reply::Integer(1)));
    assert_eq!(stays.read(), Some(Reply::Integer(2)));
    tombolo_tests::tell(&format!("1,000 waiters let go after {} ms", freed.as_millis()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_limit_a_waiter_is_refused_and_may_come_again() {
    let bed = Bed::start_edited(|text| format!("{text}\n[limits]\nwaiters_max = 8\n"));
    pause(&bed, "ap", "eu", true);
    let token = add(&bed, "eu", "limit:a");
    let client = bed.client("eu").await;
    let parsed: Token = token.parse().unwrap();
    let wait = |client: Client, token: Token| async move {
        client.wait(&token, Scope::All, Duration::from_secs(60)).await
    };
    let waiting: Vec<_> = (0..8).map(|_| tokio::spawn(wait(client.clone(), parsed.clone()))).collect();
    bed.until("eight wait", 10, |bed| (waiters(bed) != 8).then(|| "not yet".to_owned()));
    let (status, answer) = bed.post("eu", "/v1/await", &json!({"token": token}));
    assert_eq!((status, &answer["code"]), (503, &json!("busy")), "{answer}");
    assert!(answer["retry_after_ms"].as_u64() > Some(0), "{answer}");
    pause(&bed, "ap", "eu", false);
    for waiter in waiting {
        assert!(within("a waiter", 10, waiter).await.unwrap().unwrap().reached);
    }
    assert_eq!(await_at(&bed, "eu", json!({"token": token}))["reached"], true);
}
