//! A region that is away for longer than the others keep their logs for it: it comes back by the difference of the states,
//! with exact totals, no deleted key alive again, and nothing lost of what it wrote before it went.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::path::Path;
use std::time::Duration;

use tombolo_sdk::{Client, Writer};
use tombolo_testbed::cluster::ClusterOptions;
use tombolo_testbed::oracle::Oracle;
use tombolo_testbed::relay::LinkConditions;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::{tell, values, within};

const AWAY: &str = "ap";
const SHARDS: u16 = 4;
/// Far less than is written meanwhile.
const RETENTION_BYTES: u64 = 1 << 20;
const SEGMENT_BYTES: u64 = 64 << 10;
/// What stays whatever the bound, of each of three logs in each shard: the newest segment, and one that the checkpoint
/// before the last does not cover.
const KEPT_BYTES_MAX: u64 = RETENTION_BYTES + 6 * SHARDS as u64 * SEGMENT_BYTES;
/// Keys of each kind.
const KEYS: usize = 400;
/// Of these, every fourth is deleted while the region is away.
const DELETED_EVERY: usize = 4;

fn bed(retention_bytes: u64) -> Bed {
    let storage = vec![
        format!("wal_retention_bytes = {retention_bytes}"),
        format!("segment_bytes = {SEGMENT_BYTES}"),
        "checkpoint_interval_seconds = 0".to_owned(),
    ];
    let options = |options: ClusterOptions| ClusterOptions {
        shards: Some(SHARDS),
        storage,
        ..options.with_links(LinkConditions::default())
    };
    Bed::start_edited_with(options, |text| format!("window_seconds = 10\n{text}"))
}

fn counter(at: usize) -> String {
    format!("count:{at}")
}

fn register(at: usize) -> String {
    format!("name:{at}")
}

/// Adds to every counter and sets every register, `rounds` times.
async fn write(client: &Client, oracle: &mut Oracle, who: &str, rounds: usize) {
    let session = client.session().await.unwrap();
    let mut writer: Writer = session.writer();
    for round in 0..rounds {
        for at in 0..KEYS {
            let delta = (at + round + 1) as i64;
            writer.add(counter(at), delta).await.unwrap();
            oracle.record_add(counter(at), delta);
        }
    }
    let report = within("a flush", 60, writer.flush()).await.unwrap();
    assert_eq!((report.rejected_count, report.unknown), (0, 0), "{report:?}");
    for round in 0..rounds {
        for at in 0..KEYS {
            let value = format!("{who} {round} {at} {}", "x".repeat(300));
            let written = session.register(register(at)).set(value.as_str()).await.unwrap();
            oracle.record_set(register(at), written.stamp.unwrap(), value);
        }
    }
}

fn log_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| {
        let kind = entry.file_type().unwrap();
        let is_segment = entry.path().extension().is_some_and(|end| end == "seg");
        match kind.is_dir() {
            true => log_bytes(&entry.path()),
            false => {
                if is_segment {
                    entry.metadata().map_or(0, |it| it.len())
                } else {
                    0
                }
            }
        }
    };
    entries.map(|entry| bytes(entry.unwrap())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_away_past_the_retention_bound_comes_back_by_difference_with_exact_totals() {
    let mut bed = bed(RETENTION_BYTES);
    let clients = bed.clients().await;
    bed.until("every region is whole", 20, Bed::not_whole);
    let mut oracle = Oracle::new();
    for (client, region) in clients.iter().zip(REGIONS) {
        write(client, &mut oracle, region, 1).await;
    }
    bed.await_equal_digests();

    // What it writes last reaches nobody before it goes.
    bed.cluster.relay().unwrap().isolate(AWAY).unwrap();
    write(&clients[2], &mut oracle, "last", 1).await;
    assert!(bed.cluster.terminate(AWAY, Duration::from_secs(20)).unwrap().success());
    bed.cluster.relay().unwrap().heal_all();

    // The others write, delete and prune.
    let (mut before, mut after) = (0, 0);
    let dir = bed.dir().join("data/eu");
    for round in 0..4 {
        for client in &clients[..2] {
            write(client, &mut oracle, "meanwhile", 3).await;
        }
        before = before.max(log_bytes(&dir));
        ["eu", "us"].iter().for_each(|region| bed.checkpoint(region));
        after = log_bytes(&dir);
        tell(&format!("away, round {round}: the logs of eu take {after} bytes"));
    }
    let session = clients[0].session().await.unwrap();
    let gone: Vec<String> =
        (0..KEYS).step_by(DELETED_EVERY).flat_map(|at| [counter(at), register(at)]).collect();
    for key in gone.iter().filter(|key| key.starts_with("name")) {
        oracle.record_delete(key, session.register(key.as_str()).delete().await.unwrap().stamp.unwrap());
    }
    ["eu", "us"].iter().for_each(|region| bed.checkpoint(region));
    ["eu", "us"].iter().for_each(|region| bed.checkpoint(region));
    assert!(before > KEPT_BYTES_MAX, "{before} bytes were written: that takes no pruning");
    assert!(after <= KEPT_BYTES_MAX, "{after} bytes are kept, of at most {KEPT_BYTES_MAX}");
    let finding = bed.finding("eu", "retention_passed").unwrap();
    assert!(finding.contains(AWAY) && !finding.contains("us"), "{finding}");

    // The others start anew as well: what they wrote last is in no memory any more.
    for region in ["eu", "us"] {
        assert!(bed.cluster.terminate(region, Duration::from_secs(20)).unwrap().success());
    }
    bed.spawn_all();
    let back = bed.cluster.await_equal_digests(Duration::from_secs(60)).unwrap();
    assert!(
        bed.has_logged(AWAY, "installed a difference"),
        "its history was pruned: batches cannot have served"
    );
    bed.until("every region is whole", 20, Bed::not_whole);
    bed.await_equal_digests();
    assert_eq!(values::differences(&clients, &oracle).await, Vec::<String>::new());
    tell(&format!(
        "away: level {} ms after its start, {before} bytes of log before pruning",
        back.as_millis()
    ));
    for region in ["eu", "us"] {
        bed.checkpoint(region);
        assert_eq!(bed.finding(region, "retention_passed"), None, "{region}: nobody lacks anything any more");
    }

    // What was deleted is collected everywhere, stays away across a restart, and the region goes on as before.
    bed.until("tombstones are collected", 60, |bed| {
        REGIONS.iter().find_map(|region| {
            let text = bed.get_text(region, "/metrics");
            let held = text.lines().find_map(|line| line.strip_prefix("tombolo_tombstones "));
            (held != Some("0")).then(|| format!("{region} holds {held:?}"))
        })
    });
    bed.cluster.kill9(AWAY).unwrap();
    bed.spawn_all();
    for (client, region) in clients.iter().zip(REGIONS) {
        write(client, &mut oracle, region, 1).await;
    }
    bed.await_equal_digests();
    assert_eq!(values::differences(&clients, &oracle).await, Vec::<String>::new());

    // The same check goes red for one add too many.
    clients[1].session().await.unwrap().counter(counter(1)).incr(1).await.unwrap();
    bed.await_equal_digests();
    assert_eq!(values::differences(&clients, &oracle).await.len(), REGIONS.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_logs_are_kept_long_enough_the_same_region_comes_back_by_its_batches() {
    let mut bed = bed(1 << 32);
    let clients = bed.clients().await;
    let mut oracle = Oracle::new();
    write(&clients[0], &mut oracle, "eu", 1).await;
    bed.await_equal_digests();
    bed.cluster.kill9(AWAY).unwrap();
    for client in &clients[..2] {
        write(client, &mut oracle, "meanwhile", 6).await;
    }
    for _ in 0..3 {
        ["eu", "us"].iter().for_each(|region| bed.checkpoint(region));
    }
    assert!(log_bytes(&bed.dir().join("data/eu")) > KEPT_BYTES_MAX);
    assert_eq!(bed.finding("eu", "retention_passed"), None);
    bed.spawn_all();
    bed.cluster.await_equal_digests(Duration::from_secs(60)).unwrap();
    assert!(!bed.has_logged(AWAY, "installed a difference"));
    assert_eq!(values::differences(&clients, &oracle).await, Vec::<String>::new());
}
