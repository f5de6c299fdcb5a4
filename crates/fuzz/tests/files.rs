//! What a region finds on its disk: segments and checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tombolo_causality::{Seq, ShardId, Time};
use tombolo_codec::checkpoint::{
    CellContent, CellState, FloorState, LogEnd, NumberState, SessionState, SlotState,
};
use tombolo_codec::{Batch, Checkpoint, Digest, Kind, PayloadDigest};
use tombolo_fuzz::{drive, seeds, within_allowance};
use tombolo_wal::segment::{SegmentHeader, log_dir, segment_path, shard_dir};
use tombolo_wal::{Disk, DiskError, MemoryDisk, WalSettings, inspect, recovery};

/// Where the header of a checkpoint holds the payload's length and its digest, and where the payload begins.
const LENGTH_AT: usize = 28;
const DIGEST_AT: usize = 32;
const PAYLOAD_AT: usize = 64;

fn settings() -> WalSettings {
    WalSettings { segment_bytes: 64 * 1_024, ..WalSettings::new(seeds::CLUSTER, seeds::log().region) }
}

/// A segment of consecutive batches, with space written ahead behind them.
fn segment(batches: &[Batch], ahead_bytes: usize) -> Vec<u8> {
    let header = SegmentHeader { cluster: seeds::CLUSTER, log: seeds::log(), first: Seq(1) };
    let mut bytes = header.encode().to_vec();
    batches.iter().for_each(|batch| bytes.extend_from_slice(batch.bytes()));
    bytes.resize(bytes.len() + ahead_bytes, 0);
    bytes
}

/// A disk that holds one segment of the log.
fn disk(segment: &[u8]) -> Result<Rc<MemoryDisk>, DiskError> {
    let (disk, log) = (Rc::new(MemoryDisk::new(1)), seeds::log());
    for dir in ["shards".to_owned(), shard_dir(log.shard), log_dir(log)] {
        disk.create_dir(&dir)?;
    }
    let file = disk.create(&segment_path(log, Seq(1)))?;
    disk.write_at(&file, 0, segment)?;
    disk.sync_data(&file)?;
    ["", "shards", &shard_dir(log.shard), &log_dir(log)].iter().try_for_each(|dir| disk.sync_dir(dir))?;
    Ok(disk)
}

#[test]
fn a_segment_gives_only_what_was_written_and_recovers() {
    let batches = seeds::batches();
    let seeds =
        [segment(&batches, 0), segment(&batches[..2], 300), segment(&batches[..1], 0), segment(&[], 40)];
    let log = seeds::log();
    drive(&seeds, |bytes, _| {
        let disk = disk(bytes).expect("a disk in memory takes what is written");
        let mut given = Vec::new();
        let look = || inspect::log(&disk, settings(), log, &mut |batch| given.push(batch));
        let looked = within_allowance(bytes.len(), look).expect("damage is no error");
        let expected = batches.iter().take(given.len()).map(Batch::bytes);
        assert!(given.iter().map(Batch::bytes).eq(expected), "{} batches, {looked:?}", given.len());

        let mut recovered_count = 0;
        let (logs, known) = (BTreeSet::from([log]), BTreeMap::new());
        let recovered =
            recovery::recover_logs(&disk, settings(), &logs, &known, &mut |_| recovered_count += 1)
                .expect("damage is no error");
        let recovered = recovered.into_iter().map(|(_, found)| found).find(|found| found.log == log);
        let recovered = recovered.expect("a log that was asked for is recovered");
        assert!(recovered_count >= given.len(), "{recovered:?}");
        let again = inspect::log(&disk, settings(), log, &mut |_| {}).expect("a disk in memory can be read");
        assert_eq!((again.end, again.damage), (recovered.end, Vec::new()), "{recovered:?}");
        !given.is_empty()
    })
    .got_inside();
}

fn checkpoint() -> Checkpoint {
    let log = seeds::log();
    let batch = &seeds::batches()[1];
    let cell = |kind, key: &[u8], content| CellState { tenant: 1, kind, key: key.to_vec(), content };
    let slot = SlotState { region: log.region, epoch: log.epoch, positive: 5, negative: u128::MAX };
    let dot = batch.records().seals().next().expect("the seed holds a seal");
    let stamp = batch.records().writes().next().expect("the seed holds a write").stamp;
    Checkpoint {
        clock: Time(9),
        logs: vec![LogEnd {
            region: log.region,
            epoch: log.epoch,
            seq: Seq(2),
            digest: batch.header().digest,
            ops_total: 7,
            clock: Time(8),
        }],
        cells: vec![
            cell(
                Kind::Counter,
                b"stock",
                CellContent::Counter { generation: Some(stamp), slots: vec![slot] },
            ),
            cell(
                Kind::Register,
                b"name",
                CellContent::Register { stamp, value: Some(b"v".to_vec()), expires_at: None, dot },
            ),
        ],
        sessions: vec![SessionState {
            id: seeds::session(1),
            mark: 3,
            numbers: vec![NumberState { number: 4, digest: PayloadDigest([1; 16]) }],
        }],
        floors: batch.records().expires().map(|floor| FloorState { floor, dot }).collect(),
        ..Checkpoint::default()
    }
}

fn encoded(checkpoint: &Checkpoint) -> Vec<u8> {
    checkpoint.encode(seeds::CLUSTER, ShardId(7)).expect("seeds are short")
}

fn decoded(bytes: &[u8]) -> Option<Checkpoint> {
    within_allowance(bytes.len(), || Checkpoint::decode(bytes, seeds::CLUSTER, ShardId(7)).ok())
}

/// Makes length and digest right for what stands there.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let Some(payload_bytes) = bytes.len().checked_sub(PAYLOAD_AT) else { return bytes };
    let payload_bytes = u32::try_from(payload_bytes).expect("seeds are small");
    bytes[LENGTH_AT..DIGEST_AT].copy_from_slice(&payload_bytes.to_le_bytes());
    let digest = Digest::of(&[&bytes[..DIGEST_AT], &bytes[PAYLOAD_AT..]]);
    bytes[DIGEST_AT..PAYLOAD_AT].copy_from_slice(&digest.0);
    bytes
}

#[test]
fn a_checkpoint_is_read_whole_or_refused() {
    let seeds = [encoded(&checkpoint()), encoded(&Checkpoint::default())];
    assert_eq!(decoded(&seeds[0]).as_ref().map(encoded).as_ref(), Some(&seeds[0]));
    drive(&seeds, |bytes, _| {
        assert!(
            decoded(bytes).is_none() || seeds.iter().any(|seed| seed == bytes),
            "damage passes for a checkpoint"
        );
        let Some(read) = decoded(&resealed(bytes.to_vec())) else { return false };
        assert_eq!(decoded(&encoded(&read)), Some(read));
        true
    })
    .got_inside();
}
