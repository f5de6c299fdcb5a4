//! The cluster against a stand-in for the binary: a script that does what `init` and `serve` promise, no more.

use std::io::Write;

use super::*;
use crate::relay::LinkConditions;

/// A script in place of the binary; `serve` runs `serve_body` with `$region` set.
fn stand_in(dir: &Path, serve_body: &str) -> PathBuf {
    let path = dir.join("stand-in");
    let text = format!(
        "#!/bin/sh\ncase $1 in\ninit) echo \"$@\" > \"$3/init\"; [ ! -e \"$3/refuse\" ] || {{ echo refused >&2; exit 10; }};;\n\
         serve) region=$5; echo \"$@\" > \"$3/$region.serve\"\n{serve_body}\n;;\nesac\n"
    );
    // Written by another process: while this one has a script open, a child that another test starts at that moment
    // holds it open too, and the system refuses to run it.
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
    path
}

fn options(dir: &tempfile::TempDir, serve_body: &str) -> ClusterOptions {
    let mut options = ClusterOptions::new(dir.path(), ["eu", "us"]);
    options.binary = Some(stand_in(dir.path(), serve_body));
    options.ready_timeout = Duration::from_millis(300);
    options
}

/// Answers every call on `address` with `answer(path)`: status and body.
fn http_door(address: SocketAddr, answer: impl Fn(&str) -> (u16, String) + Send + 'static) {
    use std::io::{BufRead, BufReader};
    let listener = std::net::TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let Some(first) = lines.next() else { continue };
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let (status, body) = answer(first.split(' ').nth(1).unwrap());
            let head =
                format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
}

#[test]
fn init_and_serve_are_called_as_the_contract_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&dir, "exec sleep 60").with_links(LinkConditions::default());
    options.serve_arguments = vec!["--durability".into(), "interval".into()];
    let mut cluster = TestCluster::init(options).unwrap();
    http_door(cluster.ports().http(0), |_| (200, String::new()));
    cluster.spawn("eu").unwrap();
    cluster.await_ready("eu").unwrap();
    let (place, base) = (dir.path().display(), cluster.ports().base());
    let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
    assert_eq!(read("init"), format!("init --dir {place} --regions eu,us --base-port {base} --dev\n"));
    // The script may still be about to write its line when the stand-in door says ready.
    let deadline = Instant::now() + Duration::from_secs(5);
    while !dir.path().join("eu.serve").exists() || read("eu.serve").is_empty() {
        assert!(Instant::now() < deadline);
    }
    let door = cluster.relay().unwrap().address("eu", "us").unwrap();
    let expected = format!(
        "serve --cluster {place} --region eu --log json --peer-override us={door} --durability interval\n"
    );
    assert_eq!(read("eu.serve"), expected);
    assert_eq!(cluster.http("us").unwrap(), format!("http://127.0.0.1:{}", base + 10));
    assert!(matches!(cluster.spawn("eu"), Err(ClusterError::Running(_))));
    let pid = cluster.pid("eu").unwrap();
    assert!(cluster.usage("eu").unwrap().rss_bytes > 0);
    cluster.kill9("eu").unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(matches!(cluster.pid("eu"), Err(ClusterError::NotRunning(_))));
    assert!(matches!(cluster.kill9("nowhere"), Err(ClusterError::UnknownRegion(_))));
}

#[test]
fn a_number_of_shards_is_passed_to_init() {
    let dir = tempfile::tempdir().unwrap();
    let options = ClusterOptions { shards: Some(8), ..options(&dir, "") };
    TestCluster::init(options).unwrap();
    let arguments = std::fs::read_to_string(dir.path().join("init")).unwrap();
    assert!(arguments.ends_with("--dev --shards 8\n"), "{arguments}");
}

#[test]
fn paths_are_as_long_as_asked_for_before_any_daemon_starts() {
    let dir = tempfile::tempdir().unwrap();
    let delay = Duration::from_millis(60);
    let delayed = || options(&dir, "").with_path("eu", "us", LinkConditions::delayed(delay));
    let cluster = TestCluster::init(delayed()).unwrap();
    let relay = cluster.relay().unwrap();
    for (from, to, at) in [("eu", "us", 1), ("us", "eu", 0)] {
        let target = std::net::UdpSocket::bind(cluster.ports().peer(at)).unwrap();
        target.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let sent = Instant::now();
        let source = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        source.send_to(b"x", relay.address(from, to).unwrap()).unwrap();
        target.recv(&mut [0; 8]).unwrap();
        assert!(sent.elapsed() >= delay, "{from} to {to}: {:?}", sent.elapsed());
    }
    drop(cluster);
    let nowhere = delayed().with_path("eu", "nowhere", LinkConditions::default());
    assert!(matches!(TestCluster::init(nowhere), Err(ClusterError::Relay(_))));
}

#[test]
fn a_refused_init_says_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("refuse"), "").unwrap();
    let error = TestCluster::start(options(&dir, "")).unwrap_err();
    assert!(
        matches!(&error, ClusterError::Init { status, output } if status.code() == Some(10) && output == "refused")
    );
}

#[test]
fn a_daemon_that_ends_is_reported_with_the_end_of_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let error = TestCluster::start(options(&dir, "echo no such port >&2; exit 13")).unwrap_err();
    let ClusterError::Ended { name, status, log } = &error else { panic!("{error}") };
    assert_eq!((name.as_str(), status.code(), log.as_str()), ("eu", Some(13), "no such port"));
}

#[test]
fn a_daemon_that_is_never_ready_is_reported_with_its_last_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = TestCluster::init(options(&dir, "echo still loading; exec sleep 60")).unwrap();
    http_door(cluster.ports().http(0), |_| (503, String::new()));
    cluster.spawn("eu").unwrap();
    let error = cluster.await_ready("eu").unwrap_err().to_string();
    assert!(error.contains("503") && error.contains("still loading"), "{error}");
}

#[test]
fn terminate_gives_the_exit_and_kills_what_does_not_end() {
    let dir = tempfile::tempdir().unwrap();
    let body =
        "[ $region = us ] && trap '' TERM || trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done";
    let mut cluster = TestCluster::init(options(&dir, body)).unwrap();
    for name in ["eu", "us"] {
        cluster.spawn(name).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while log_tail(&cluster.log(name)) != "up" {
            assert!(Instant::now() < deadline);
        }
    }
    let pid = cluster.pid("us").unwrap();
    assert_eq!(cluster.terminate("eu", Duration::from_secs(5)).unwrap().code(), Some(0));
    let late = cluster.terminate("us", Duration::from_millis(100)).unwrap_err();
    assert!(matches!(late, ClusterError::Late { what: "ended", .. }));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn equal_digests_are_awaited_and_broken_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = TestCluster::init(options(&dir, "")).unwrap();
    let shard = |seq: u64, digest: &str| {
        format!(r#"[{{"shard":0,"version_vector":{{"eu/00":{seq}}},"digest":"{digest}"}}]"#)
    };
    let first = shard(3, "aa");
    http_door(cluster.ports().http(0), move |_| (200, first.clone()));
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let asked_there = asked.clone();
    http_door(cluster.ports().http(1), move |_| {
        match asked_there.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => (503, "starting".into()),
            1 => (200, shard(2, "bb")),
            2 => (200, shard(3, "aa")),
            3 => (200, shard(3, "other")),
            _ => (200, shard(4, "cc")),
        }
    });
    cluster.await_equal_digests(Duration::from_secs(5)).unwrap();
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 3);
    let broken = cluster.await_equal_digests(Duration::from_secs(5)).unwrap_err();
    assert!(matches!(broken, ClusterError::Diverged(_)), "{broken}");
    let apart = cluster.await_equal_digests(Duration::from_millis(60)).unwrap_err();
    assert!(matches!(&apart, ClusterError::Apart { last, .. } if last.contains("shard 0")), "{apart}");
    cluster.await_equal_digests_among(&["eu"], Duration::ZERO).unwrap();
}

#[test]
fn an_answer_that_is_not_json_is_an_error_with_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = TestCluster::init(options(&dir, "")).unwrap();
    http_door(cluster.ports().http(0), |path| match path {
        "/v1/status" => (200, "<html>".into()),
        _ => (401, r#"{"code":"not_authorised"}"#.into()),
    });
    let error = cluster.status("eu").unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("GET http://127.0.0.1:{}/v1/status", cluster.ports().base())),
        "{error}"
    );
    assert!(cluster.digests("eu").unwrap_err().to_string().contains("not_authorised"));
}
