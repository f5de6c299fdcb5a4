//! `tombolo wal inspect` on a data directory that the wal crate wrote, whole and hurt.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, Seq, ShardId, TenantId, Time};
use tombolo_codec::batch::Place;
use tombolo_codec::{Batch, CellName, Kind, RecordsBuilder};
use tombolo_wal::segment::{SEGMENT_HEADER_BYTES, segment_path};
use tombolo_wal::{FileDisk, KnownEnd, Manifest, Store, WalSettings};

const CLUSTER: ClusterId = ClusterId(0xc1);

fn log() -> LogId {
    LogId { shard: ShardId(3), region: RegionId::new(2).unwrap(), epoch: Epoch(0xe9) }
}

fn batch(end: KnownEnd) -> Batch {
    let mut records = RecordsBuilder::new();
    records.add(CellName { tenant: TenantId::DEFAULT, kind: Kind::Counter, key: b"views:1" }, None, 1);
    let place = Place {
        cluster: CLUSTER,
        log: log(),
        seq: end.seq.next(),
        ops_before: end.ops_total,
        clock: Time(end.seq.0 + 1),
        // Each batch says that those before it are durable, so that no damage to them passes for a torn tail.
        durable_through: end.seq,
        previous: end.digest.unwrap(),
    };
    Batch::close(place, &records)
}

/// A data directory with one log of three batches; gives its segment and how long a batch is in it.
fn written(dir: &Path) -> (PathBuf, usize) {
    let disk = FileDisk::open(dir).unwrap();
    let region = log().region;
    Manifest { cluster: CLUSTER, region, shards_count: 16 }.claim(&disk).unwrap();
    let settings = WalSettings::new(CLUSTER, region);
    let (mut store, _) = Store::open(disk, settings, log().shard, &BTreeMap::new(), &mut |_| ()).unwrap();
    let mut end = KnownEnd::START;
    let mut batch_bytes = 0;
    for _ in 0..3 {
        let batch = batch(end);
        store.append(&batch).unwrap();
        end = KnownEnd::after(&batch);
        batch_bytes = batch.bytes().len();
    }
    for (_, synced) in store.sync_dirty() {
        assert_eq!(synced.unwrap(), Seq(3));
    }
    (dir.join(segment_path(log(), Seq(1))), batch_bytes)
}

fn inspect(dir: &Path, more: &[&str]) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(["wal", "inspect", dir.to_str().unwrap(), "-o", "json"])
        .args(more)
        .env_clear()
        .output()
        .unwrap();
    let view = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, view)
}

fn flip(segment: &Path, at: usize) {
    let mut bytes = std::fs::read(segment).unwrap();
    bytes[at] ^= 1;
    std::fs::write(segment, bytes).unwrap();
}

#[test]
fn a_whole_log_is_shown_with_its_end_and_exits_0() {
    let dir = tempfile::tempdir().unwrap();
    let (_, batch_bytes) = written(dir.path());
    let (output, view) = inspect(dir.path(), &["--shard", "3", "--log", "0002-"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(view["schema"], "tombolo.wal/v1");
    assert_eq!(view["region"], 2);
    let log = &view["logs"][0];
    assert_eq!((&log["shard"], &log["first_seq"], &log["end_seq"]), (&3.into(), &1.into(), &3.into()));
    assert_eq!((&log["batches"], &log["ops"]), (&3.into(), &3.into()));
    assert_eq!(log["segments"][0]["runs"][0]["to_byte"], SEGMENT_HEADER_BYTES + 3 * batch_bytes);
}

#[test]
fn a_flipped_bit_in_the_middle_exits_8_and_names_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let (segment, batch_bytes) = written(dir.path());
    let second = SEGMENT_HEADER_BYTES + batch_bytes;
    flip(&segment, second + batch_bytes - 1);
    let before = std::fs::read(&segment).unwrap();
    let (output, view) = inspect(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(8), "{}", String::from_utf8_lossy(&output.stderr));
    let log = &view["logs"][0];
    assert_eq!(log["end_seq"], 1);
    assert_eq!(log["damage"][0]["kind"], "rot");
    assert_eq!(log["damage"][0]["offset"], second);
    assert_eq!(std::fs::read(&segment).unwrap(), before, "looking changes nothing");
}

#[test]
fn a_torn_tail_is_shown_and_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (segment, batch_bytes) = written(dir.path());
    flip(&segment, SEGMENT_HEADER_BYTES + 3 * batch_bytes - 1);
    let (output, view) = inspect(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(view["logs"][0]["end_seq"], 2);
    assert_eq!(view["logs"][0]["damage"][0]["kind"], "torn");
}

#[test]
fn without_a_manifest_a_segment_says_whose_data_it_is() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    std::fs::remove_file(dir.path().join("manifest")).unwrap();
    let (output, view) = inspect(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(view["logs"][0]["end_seq"], 3);
    assert!(String::from_utf8_lossy(&output.stderr).contains("warning: "));
}

#[test]
fn a_shard_without_logs_exits_5() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let (output, _) = inspect(dir.path(), &["--shard", "4"]);
    assert_eq!(output.status.code(), Some(5));
}
