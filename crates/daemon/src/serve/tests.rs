use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::time::timeout;
use tombolo_causality::TenantId;
use tombolo_codec::{Op, PeerMessage, StampSource, Verb, decode_peer};
use tombolo_gateway::Service;
use tombolo_gateway::service::{Caller, WriteRequest};
use tombolo_transport::Channel;

use super::*;
use crate::config::{InitOptions, init};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn cluster(names: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let regions = names.iter().map(|name| (*name).to_owned()).collect();
    init(InitOptions { dir: dir.path().to_owned(), regions, base_port: 7400, shards: None, dev: true })
        .unwrap();
    dir
}

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn identity(dir: &Path, name: &str) -> transport::Identity {
    let config = ClusterConfig::load(dir).unwrap();
    let own = config.region(name).unwrap();
    transport::Identity::load(&config.authority, &own.certificate, &own.key).unwrap()
}

/// On ports of the system's choice, without checkpoints of its own.
async fn start(dir: &Path, name: &str) -> Daemon {
    let config = ClusterConfig::load(dir).unwrap();
    let mut own = config.region(name).unwrap().clone();
    let listen = &mut own.listen;
    for address in [&mut listen.http, &mut listen.resp, &mut listen.quic, &mut listen.peer] {
        *address = anywhere();
    }
    own.storage.checkpoint_interval_seconds = 0;
    Daemon::start(config, own, identity(dir, name), &[]).await.unwrap()
}

async fn stopped(daemon: Daemon) -> Result<(), ServeError> {
    daemon.stop.send_replace(true);
    timeout(PATIENCE, daemon.until_stopped()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_dies_stops_the_daemon_with_an_error() {
    let dir = cluster(&["a"]);
    let mut daemon = start(dir.path(), "a").await;
    daemon.tasks.spawn(async { panic!("an invariant is broken") });
    let died = timeout(PATIENCE, daemon.until_stopped()).await.unwrap().unwrap_err();
    assert!(died.to_string().contains("an invariant is broken"), "{died}");
    assert_eq!(died.exit_code(), 1);
    // The directory was let go.
    stopped(start(dir.path(), "a").await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_hears_the_goodbye_before_the_connection_closes() {
    let dir = cluster(&["a", "b"]);
    let daemon = start(dir.path(), "b").await;
    let (stop, address) = (daemon.stop.clone(), daemon.peers.local_address());
    let names: Vec<_> = daemon.config.regions.iter().map(|region| (region.id, region.name.clone())).collect();
    let (cluster, shards_count) = (daemon.config.cluster, daemon.config.shards);
    let members = transport::Members::new(cluster, names.clone());
    let running = tokio::spawn(daemon.until_stopped());

    // Region a, whose words the test says.
    let peer =
        QuicTransport::bind(anywhere(), identity(dir.path(), "a"), members, QuicSettings::default()).unwrap();
    let link = peer.connect(names[1].0, address).await.unwrap();
    let hello = PeerMessage::Hello(tombolo_codec::Hello {
        cluster,
        region: names[0].0,
        epoch: Epoch(draw()),
        version: tombolo_codec::PEER_VERSION,
        shards_count,
        members: Membership::default(),
        answers: None,
        received: Vec::new(),
        applied: Vec::new(),
        clock: crate::clock::wall(),
    });
    link.send(Channel::Control, vec![transport::Frame::new(1, hello.encode())]).await.unwrap();
    let next = async || {
        let frame = timeout(PATIENCE, link.recv(Channel::Control)).await.unwrap();
        frame.map(|frame| decode_peer(&frame.body).unwrap())
    };
    assert!(matches!(next().await, Ok(PeerMessage::Hello(_))));
    stop.send_replace(true);
    let mut last = None;
    while let Ok(message) = next().await {
        last = Some(message);
    }
    assert_eq!(last, Some(PeerMessage::Goodbye));
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_waits_for_the_one_that_is_being_written() {
    let dir = cluster(&["a"]);
    let daemon = start(dir.path(), "a").await;
    let region = daemon.region.clone();
    let alone = region.shared().checkpointing.lock().await;
    assert!(timeout(Duration::from_millis(300), region.checkpoint()).await.is_err());
    drop(alone);
    let both = async { tokio::join!(region.checkpoint(), region.checkpoint()) };
    let (first, second) = timeout(PATIENCE, both).await.unwrap();
    assert_eq!((first.unwrap(), second.unwrap()), (16, 16));
    stopped(daemon).await.unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn set(value: &str) -> WriteRequest {
    let verb =
        Verb::Set { value: value.to_owned().into(), expires_at: None, stamp: StampSource::Here(draw()) };
    WriteRequest { ops: vec![Op { key: "k".into(), verb }], ..WriteRequest::default() }
}

/// Damages the batch of one of five writes between two starts, with so many quiet lives after that of the writes. What
/// the findings `rot` and `data_loss` say then.
async fn rotten(write: usize, quiet_lives: usize) -> (String, String) {
    let dir = cluster(&["a"]);
    let daemon = start(dir.path(), "a").await;
    let caller = Caller { tenant: TenantId::DEFAULT, is_admin: false };
    for n in 0..5 {
        daemon.region.write(caller, set(&format!("the value of write {n}"))).await.unwrap();
    }
    stopped(daemon).await.unwrap();
    for _ in 0..quiet_lives {
        stopped(start(dir.path(), "a").await).await.unwrap();
    }

    let marker = format!("the value of write {write}");
    let (path, mut bytes, at) = files(&dir.path().join("data"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .find_map(|path| {
            let bytes = fs::read(&path).unwrap();
            let at = bytes.windows(marker.len()).position(|window| window == marker.as_bytes())?;
            Some((path, bytes, at))
        })
        .expect("the write is in a segment");
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();

    let daemon = start(dir.path(), "a").await;
    let found = async {
        loop {
            let findings = daemon.region.shared().outlets.findings.list();
            let text = |code| {
                let found = findings.iter().find(|finding| finding.code == code);
                found.map(|finding| finding.text.clone())
            };
            if let (Some(rot), Some(loss)) = (text("rot"), text("data_loss")) {
                return (rot, loss);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let texts = timeout(PATIENCE, found).await.unwrap();
    stopped(daemon).await.unwrap();
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_rotted_and_that_no_region_holds_are_called_lost() {
    let (rot, loss) = rotten(2, 0).await;
    assert!(rot.contains("there is no other region to ask"), "{rot}");
    assert!(loss.contains("log a/") && loss.contains("no region holds batches 3 to 5"), "{loss}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_batch_of_a_log_is_called_lost_where_the_next_life_sealed_it() {
    let (rot, loss) = rotten(4, 1).await;
    assert!(rot.contains("batches 5 to 5"), "{rot}");
    assert!(loss.contains("no region holds batches 5 to 5"), "{loss}");
}
