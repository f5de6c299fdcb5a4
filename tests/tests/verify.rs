//! `tombolo verify` on real daemons: green while clients write, one damaged cell named and mended, green again.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tombolo_causality::{ClusterId, ShardId};
use tombolo_codec::Checkpoint;
use tombolo_codec::checkpoint::CellContent;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::bulk::Bulk;
use tombolo_tests::process::{Ended, run};
use tombolo_tests::tell;

/// Counters that are written once.
const CELLS_COUNT: usize = 6_000;
const CELL: &str = "quiet:4321";

fn tombolo(bed: &Bed, arguments: &[&str]) -> Ended {
    let dir = bed.dir().to_str().unwrap();
    run(arguments.iter().copied().chain(["--cluster", dir, "-o", "json"]), 120)
}

fn verify(bed: &Bed, options: &[&str]) -> (Ended, Value) {
    let arguments: Vec<&str> = ["verify"].into_iter().chain(options.iter().copied()).collect();
    let ended = tombolo(bed, &arguments);
    let report = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended, report)
}

fn fill(bed: &Bed) {
    for first in (0..CELLS_COUNT).step_by(500) {
        let op = |at: usize| json!({"op": "add", "key": format!("quiet:{at}"), "delta": "1"});
        let ops: Vec<Value> = (first..first + 500).map(op).collect();
        let region = REGIONS[first / 500 % REGIONS.len()];
        let (status, answer) = bed.post(region, "/v1/ops", &json!({ "ops": ops }));
        assert_eq!(status, 200, "{answer}");
    }
}

/// Where a region keeps the checkpoint with the cell, what is in it, and of which cluster and shard it is.
fn checkpoint(bed: &Bed, region: &str) -> (PathBuf, Checkpoint, ClusterId, ShardId) {
    let shards = bed.dir().join("data").join(region).join("shards");
    for entry in std::fs::read_dir(&shards).unwrap() {
        let path = entry.unwrap().path().join("checkpoint");
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let cluster = ClusterId(u128::from_le_bytes(bytes[8..24].try_into().unwrap()));
        let shard = ShardId(u16::from_le_bytes([bytes[24], bytes[25]]));
        let checkpoint = Checkpoint::decode(&bytes, cluster, shard).unwrap();
        if checkpoint.cells.iter().any(|cell| cell.key == CELL.as_bytes()) {
            return (path, checkpoint, cluster, shard);
        }
    }
    panic!("no checkpoint of {region} below {} has {CELL}", shards.display());
}

/// Flips one bit of the cell in the region's checkpoint, and signs the file anew.
fn damage(bed: &Bed, region: &str) {
    let (path, mut content, cluster, shard) = checkpoint(bed, region);
    let cell = content.cells.iter_mut().find(|cell| cell.key == CELL.as_bytes()).unwrap();
    let CellContent::Counter { slots, .. } = &mut cell.content else { panic!("{cell:?}") };
    slots[0].positive ^= 1 << 10;
    std::fs::write(&path, content.encode(cluster, shard).unwrap()).unwrap();
}

/// Clients of every region that write until told to stop.
async fn load(bed: &Bed) -> (watch::Sender<bool>, Vec<tokio::task::JoinHandle<()>>) {
    let (stop, stopped) = watch::channel(false);
    let mut drives = Vec::new();
    for client in bed.clients().await {
        let session = client.session().await.unwrap();
        let stopped = stopped.clone();
        drives.push(tokio::spawn(async move {
            let _client = client;
            drop(Bulk { per_second: 500 }.drive(session, stopped).await);
        }));
    }
    (stop, drives)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_cell_is_named_and_mended_while_clients_write() {
    let mut bed = Bed::start();
    fill(&bed);
    bed.await_equal_digests();
    let (stop, drives) = load(&bed).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (ended, report) = verify(&bed, &[]);
    assert_eq!((ended.code, &report["equal"]), (Some(0), &json!(true)), "{ended:?}");
    let entries = report["entries"].as_u64().unwrap();
    assert!(entries >= 3 * CELLS_COUNT as u64, "each region compared all: {report}");
    tell(&format!(
        "verify under load: {entries} entries in {} ms, {} rounds, {} in motion",
        report["waited_ms"], report["rounds"], report["in_motion"]
    ));
    let plan = tombolo(&bed, &["reconcile", "--plan"]);
    let plans: Value = serde_json::from_str(&plan.stdout).unwrap_or_else(|_| panic!("{plan:?}"));
    assert_eq!((plan.code, &plans["schema"]), (Some(0), &json!("tombolo.reconcile/v1")));
    assert_eq!(plans["regions"].as_array().map(Vec::len), Some(REGIONS.len()), "{plans}");
    stop.send(true).unwrap();
    for drive in drives {
        drive.await.unwrap();
    }

    let (status, answer) = bed.post("us", "/v1/admin/checkpoint", &json!({}));
    assert_eq!(status, 200, "{answer}");
    bed.cluster.terminate("us", Duration::from_secs(10)).unwrap();
    damage(&bed, "us");
    bed.spawn_all();
    bed.until("every region is whole", 20, Bed::not_whole);

    let (stop, drives) = load(&bed).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (ended, report) = verify(&bed, &[]);
    assert_eq!((ended.code, &report["equal"]), (Some(8), &json!(false)), "{ended:?}");
    let damaged = report["damaged"].as_array().unwrap();
    assert_eq!(damaged.len(), 1, "{report}");
    assert_eq!(
        (&damaged[0]["key"], &damaged[0]["kind"], &damaged[0]["regions"]),
        (&json!(CELL), &json!("counter"), &json!(["us"])),
        "{report}"
    );
    let status = bed.cluster.status("us").unwrap();
    let findings = status["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["code"] == "damaged_cells"), "{status}");

    let (ended, report) = verify(&bed, &["--repair"]);
    assert_eq!(
        (ended.code, &report["equal"], &report["mended"]),
        (Some(0), &json!(true), &json!(1)),
        "{ended:?}"
    );
    let status = bed.cluster.status("us").unwrap();
    let findings = status["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["code"] != "damaged_cells"), "{status}");
    stop.send(true).unwrap();
    for drive in drives {
        drive.await.unwrap();
    }
    bed.await_equal_digests();

    // What was mended is durable.
    bed.cluster.kill9("us").unwrap();
    bed.spawn_all();
    bed.until("every region is whole", 20, Bed::not_whole);
    bed.await_equal_digests();
    let (ended, report) = verify(&bed, &[]);
    assert_eq!((ended.code, &report["equal"]), (Some(0), &json!(true)), "{ended:?}");
}
