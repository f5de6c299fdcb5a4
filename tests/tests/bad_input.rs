//! What is wrong from the start is refused with its own exit code; what comes in wrong over a socket is refused with a
//! typed error, and the daemon goes on.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tombolo_testbed::cluster::{ClusterOptions, TestCluster};
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::process::{Ended, run};
use tombolo_tests::resp::{Reply, Resp};

/// Long enough for any daemon that is refused to say so.
const REFUSED_WITHIN: u64 = 15;

fn serve(dir: &Path, region: &str, more: &[&str]) -> Ended {
    let mut arguments: Vec<OsString> = vec!["serve".into(), "--cluster".into(), dir.into()];
    arguments.extend(["--region", region].iter().chain(more).map(OsString::from));
    run(arguments, REFUSED_WITHIN)
}

#[track_caller]
fn assert_refused(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is not in: {}", ended.stderr);
    }
}

#[test]
fn an_address_that_is_taken_is_named_and_the_exit_code_is_1() {
    let bed = Bed::init();
    let (http, peer) = (bed.cluster.ports().http(0), bed.cluster.ports().peer(0));
    let taken = TcpListener::bind(http).unwrap();
    assert_refused(&serve(bed.dir(), "eu", &[]), 1, &[&http.to_string()]);
    drop(taken);
    let _taken = UdpSocket::bind(peer).unwrap();
    assert_refused(&serve(bed.dir(), "eu", &[]), 1, &[&peer.to_string()]);
}

#[test]
fn a_data_directory_of_others_is_refused_with_11_or_12_and_left_alone() {
    let mut bed = Bed::init();
    bed.cluster.spawn("eu").unwrap();
    bed.cluster.await_ready("eu").unwrap();
    let data = bed.dir().join("data/eu");
    let data = data.to_str().unwrap();
    // In use comes first: what belongs to whom is not looked at while another process writes there.
    assert_refused(&serve(bed.dir(), "eu", &[]), 11, &[data]);
    assert_refused(&serve(bed.dir(), "us", &["--data", data]), 11, &[data]);
    let (status, answer) =
        bed.post("eu", "/v1/ops", &json!({"ops": [{"op": "add", "key": "k", "delta": "5"}]}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(bed.cluster.terminate("eu", Duration::from_secs(10)).unwrap().code(), Some(0));

    assert_refused(&serve(bed.dir(), "us", &["--data", data]), 12, &[data, "region"]);
    let other = tempfile::tempdir().unwrap();
    let mut options = ClusterOptions::new(other.path(), REGIONS);
    options.base_port = None;
    let other_cluster = TestCluster::init(options).unwrap();
    assert_refused(&serve(other_cluster.dir(), "eu", &["--data", data]), 12, &[data, "cluster"]);

    bed.cluster.spawn("eu").unwrap();
    bed.cluster.await_ready("eu").unwrap();
    let read: Value = bed.cluster.get("eu", "/v1/keys/k").unwrap();
    assert_eq!(read["value"], "5", "those who were refused changed nothing");
}

#[test]
fn files_that_are_wrong_are_refused_with_10_and_their_place() {
    let bed = Bed::init();
    let path = bed.dir().join("regions/eu.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let wrong = format!("{}\n  flush_intervall_ms = 5\n", text.trim_end());
    let line = wrong.lines().position(|line| line.contains("flush_intervall_ms")).unwrap() + 1;
    std::fs::write(&path, &wrong).unwrap();
    let place = format!("regions/eu.toml:{line}:3:");
    assert_refused(&serve(bed.dir(), "eu", &[]), 10, &[&place, "flush_interval_ms"]);
    let checked = run([OsString::from("check"), "--cluster".into(), bed.dir().into()], REFUSED_WITHIN);
    assert_refused(&checked, 10, &[&place, "flush_interval_ms"]);
    std::fs::write(&path, &text).unwrap();

    std::fs::write(&path, text.replace("id = 1 ", "id = 1024 ")).unwrap();
    assert_refused(&serve(bed.dir(), "eu", &[]), 10, &["regions/eu.toml:", "1023"]);
    std::fs::write(&path, &text).unwrap();

    let key = bed.dir().join("pki/eu.key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    assert_refused(&serve(bed.dir(), "eu", &[]), 10, &["eu.key"]);
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();

    assert_refused(&serve(bed.dir(), "nowhere", &[]), 10, &["nowhere", "eu"]);
    assert_refused(&serve(&bed.dir().join("none"), "eu", &[]), 10, &["cluster.toml"]);
}

/// The same cluster and regions under another CA.
fn foreign_copy(bed: &Bed, dir: &Path) {
    std::fs::create_dir_all(dir.join("regions")).unwrap();
    std::fs::copy(bed.dir().join("cluster.toml"), dir.join("cluster.toml")).unwrap();
    for region in REGIONS {
        let file = format!("regions/{region}.toml");
        std::fs::copy(bed.dir().join(&file), dir.join(&file)).unwrap();
    }
    let base = bed.cluster.ports().base().to_string();
    let mut arguments: Vec<OsString> = vec!["init".into(), "--dir".into(), dir.into(), "--regions".into()];
    arguments.extend([REGIONS.join(",").into(), "--base-port".into(), base.into(), "--dev".into()]);
    let ended = run(arguments, REFUSED_WITHIN);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn a_region_with_a_certificate_of_another_authority_is_never_linked_to() {
    let mut bed = Bed::init();
    for region in ["eu", "us"] {
        bed.cluster.spawn(region).unwrap();
    }
    let foreign = tempfile::tempdir().unwrap();
    foreign_copy(&bed, foreign.path());
    let mut options = ClusterOptions::new(foreign.path(), REGIONS);
    options.base_port = None;
    let log = std::fs::File::create(foreign.path().join("ap.log")).unwrap();
    let binary = tombolo_testbed::cluster::binary().unwrap();
    let mut stranger = std::process::Command::new(binary)
        .args(["serve", "--region", "ap", "--log", "json", "--cluster"])
        .arg(foreign.path())
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for region in ["eu", "us"] {
            bed.cluster.await_ready(region).unwrap();
        }
        bed.until("the stranger is ready", 15, |bed| {
            (bed.get_status("ap", "/readyz") != Some(200)).then(|| "not ready".to_owned())
        });
        let add = |key: &str| json!({"ops": [{"op": "add", "key": key, "delta": "1"}]});
        assert_eq!(bed.post("eu", "/v1/ops", &add("ours")).0, 200);
        assert_eq!(bed.post("ap", "/v1/ops", &add("theirs")).0, 200);
        let watched = Instant::now();
        while watched.elapsed() < Duration::from_secs(3) {
            for region in ["eu", "us"] {
                assert_eq!(bed.peer(region, "ap")["state"], "unreachable");
                assert_eq!(bed.peer("ap", region)["state"], "unreachable");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(bed.peer("eu", "us")["state"], "ok");
        for (region, key) in [("ap", "ours"), ("eu", "theirs"), ("us", "theirs")] {
            assert_ne!(bed.get_status(region, &format!("/v1/keys/{key}")), Some(200), "{region} holds {key}");
        }
        let said = |text: String| text.to_lowercase().contains("certificate");
        let logs = ["eu", "us"].map(|region| std::fs::read_to_string(bed.cluster.log(region)).unwrap());
        let findings = bed.cluster.status("eu").unwrap()["findings"].to_string();
        let own = std::fs::read_to_string(foreign.path().join("ap.log")).unwrap();
        assert!(
            logs.into_iter().any(said) || said(findings) || said(own),
            "neither a log nor a finding says that a certificate was refused"
        );
    }));
    // The only process this test started by itself.
    let _ = stranger.kill();
    let _ = stranger.wait();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn garbage_and_oversize_on_every_door_gets_a_typed_error_and_the_daemon_goes_on() {
    let mut bed = Bed::start();
    let pid = bed.cluster.pid("eu").unwrap();
    resp_refuses(&bed);
    http_refuses(&bed);
    udp_garbage(&bed);
    assert_eq!(bed.cluster.pid("eu").unwrap(), pid);
    let mut client = Resp::connect(bed.cluster.resp("eu").unwrap());
    assert_eq!(client.call(&["INCRBY", "after", "7"]), Reply::Integer(7));
    assert_eq!(client.call(&["WAIT", "2", "5000"]), Reply::Integer(2), "replication goes on too");
    for region in REGIONS {
        let ended = bed.cluster.terminate(region, Duration::from_secs(10)).unwrap();
        assert_eq!(ended.code(), Some(0), "{region} ends well on SIGTERM");
    }
}

fn resp_refuses(bed: &Bed) {
    let connect = || Resp::connect(bed.cluster.resp("eu").unwrap());
    // What breaks the protocol is answered, if it is, with an error and the end of the connection.
    for garbage in
        [&b"*2\r\n$-5\r\nGET\r\n"[..], b"*99999999999\r\n", b"*1\r\n$999999999999\r\n", b"*1\r\n:5\r\n"]
    {
        let mut client = connect();
        client.send_raw(garbage);
        if let Some(reply) = client.read() {
            assert!(reply.error().starts_with("ERR "), "{reply:?}");
            assert_eq!(client.read(), None, "{garbage:?}");
        }
    }
    let mut client = connect();
    client.send_raw(&[0xff, 0x00, 0xfe, b'\r', b'\n']);
    assert!(client.read().unwrap().error().starts_with("ERR "));

    let mut client = connect();
    assert_eq!(client.call(&["SET", "name", "Ada"]), Reply::Simple("OK".into()));
    assert!(client.call(&["INCR", "name"]).error().starts_with("WRONGTYPE "));
    assert_eq!(client.call(&["INCRBY", "big", &i64::MAX.to_string()]), Reply::Integer(i64::MAX));
    assert!(client.call(&["INCR", "big"]).error().starts_with("OVERFLOW "));
    assert!(client.call(&["INCRBY", "big", "9223372036854775808"]).error().starts_with("ERR "));
    assert_eq!(client.call(&["GET", "big"]), Reply::Bulk(Some(i64::MAX.to_string())));
    assert!(client.call(&["SET", &"k".repeat(1_025), "v"]).error().starts_with("ERR "));
    assert!(client.call(&["SET", "large", &"v".repeat(256 * 1_024 + 1)]).error().starts_with("ERR "));
    assert_eq!(client.call(&["GET", "large"]), Reply::Bulk(None), "nothing of it was applied");
    assert_eq!(client.call(&["SET", &"k".repeat(1_024), "v"]), Reply::Simple("OK".into()));
    assert_eq!(client.call(&["PING"]), Reply::Simple("PONG".into()), "the connection goes on");
}

fn http_refuses(bed: &Bed) {
    let ops = |ops: Value| bed.post("eu", "/v1/ops", &json!({ "ops": ops }));
    let refused = |(status, answer): (u16, Value), expected: u16, code: &str| {
        assert_eq!(
            (status, &answer["code"], &answer["applied"]),
            (expected, &json!(code), &json!("no")),
            "{answer}"
        );
    };
    refused(ops(json!([{"op": "add", "key": "name", "delta": "1"}])), 409, "wrong_type");
    refused(ops(json!([{"op": "add", "key": "big", "delta": "1"}])), 409, "overflow");
    refused(ops(json!([{"op": "add", "key": "k".repeat(1_025), "delta": "1"}])), 413, "too_large");
    refused(ops(json!([{"op": "set", "key": "k", "value": "v".repeat(256 * 1_024 + 1)}])), 413, "too_large");
    refused(ops(json!([{"op": "add", "key": "k", "delta": "1.5"}])), 400, "malformed");
    refused(ops(json!([{"op": "launch", "key": "k"}])), 400, "malformed");
    refused(bed.post("eu", "/v1/ops", &json!("garbage")), 400, "malformed");
    // One op that is refused takes the others of its request with it.
    let both =
        json!([{"op": "add", "key": "beside", "delta": "1"}, {"op": "add", "key": "big", "delta": "1"}]);
    refused(ops(both), 409, "overflow");
    assert_eq!(bed.get_status("eu", "/v1/keys/beside"), bed.get_status("eu", "/v1/keys/never-written"));

    let address = bed.cluster.ports().http(0);
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"GET\r\n\r\n", b"BREW /pot HTCPCP/1.0\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // A reset is an answer too.
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(bed.get_status("eu", "/livez"), Some(200));
    let (status, _) =
        bed.post("eu", "/v1/await", &json!({"token": "garbage", "regions": "all", "timeout_ms": 100}));
    assert_eq!(status, 400);
}

fn udp_garbage(bed: &Bed) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for address in [bed.cluster.ports().peer(0), bed.cluster.ports().quic(0)] {
        for length in [0, 1, 20, 1_200] {
            let bytes: Vec<u8> = (0..length).map(|at: u32| (at * 193 + length) as u8).collect();
            socket.send_to(&bytes, address).unwrap();
        }
    }
}
