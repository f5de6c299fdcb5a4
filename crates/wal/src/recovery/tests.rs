//! Recovery: acked ⇒ recovered over random lives, torn against rotten, quarantine, holes.

use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;
use tombolo_causality::ShardId;

use super::*;
use crate::memory_disk::MemoryDisk;
use crate::store::Store;
use crate::testing::{Pen, log_of, settings};

type Disk = Rc<MemoryDisk>;
const SEGMENT_BYTES: u64 = 2_500;

fn known(log: LogId, end: Option<KnownEnd>) -> BTreeMap<LogId, KnownEnd> {
    end.map(|end| (log, end)).into_iter().collect()
}

fn open_known(
    disk: &Disk,
    log: LogId,
    end: Option<KnownEnd>,
) -> (Store<Disk>, Vec<Batch>, Vec<RecoveredLog>) {
    let mut batches = Vec::new();
    let mut each = |batch| batches.push(batch);
    let (store, recovered) =
        Store::open(Rc::clone(disk), settings(SEGMENT_BYTES), ShardId(7), &known(log, end), &mut each)
            .unwrap();
    (store, batches, recovered)
}

fn open(disk: &Disk) -> (Store<Disk>, Vec<Batch>, Vec<RecoveredLog>) {
    open_known(disk, log_of(1), None)
}

/// Kind, lost range, whether the checkpoint covers it.
type Found = (DamageKind, Option<(u64, u64)>, bool);

fn damage(recovered: &[RecoveredLog]) -> Vec<Found> {
    let damage = recovered.iter().flat_map(|log| &log.damage);
    damage.map(|one| (one.kind, one.lost.map(|(first, last)| (first.0, last.0)), one.is_covered)).collect()
}

/// A log of `count` synced batches of 300-odd bytes, a few per segment.
fn written(log: LogId, count: usize) -> (Disk, Pen, Vec<Batch>) {
    let disk = Rc::new(MemoryDisk::new(1));
    let mut pen = Pen::new(log);
    let (mut store, ..) = open(&disk);
    let mut batches = Vec::new();
    for _ in 0..count {
        let batch = pen.next(100);
        store.append(&batch).unwrap();
        store.sync_dirty();
        pen.durable = batch.header().seq;
        batches.push(batch);
    }
    (disk, pen, batches)
}

/// Which file holds a batch, and where.
fn place(disk: &Disk, batch: &Batch) -> (String, u64) {
    for (path, length) in disk.files() {
        let bytes =
            crate::Disk::read_at(&**disk, &crate::Disk::open(&**disk, &path).unwrap(), 0, length as usize)
                .unwrap();
        if let Some(at) = memchr::memmem::find(&bytes, batch.bytes()) {
            return (path, at as u64);
        }
    }
    panic!("{:?} is in no file", batch.header().seq);
}

fn rot(disk: &Disk, batch: &Batch) {
    let (path, at) = place(disk, batch);
    disk.rot(&path, at + 200).unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Sync,
    FailedSync,
    Full(u64),
    PowerLoss(u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0usize..1_500).prop_map(Step::Append),
        4 => Just(Step::Sync),
        1 => Just(Step::FailedSync),
        1 => (0u64..2_000).prop_map(Step::Full),
        2 => any::<u64>().prop_map(Step::PowerLoss),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..80)
}

/// Runs a life of a log over a disk. The violation it ends with, if any: an acked batch lost or changed, a gap,
/// something handed over that was never written, rot reported where only power was cut.
fn live(steps: &[Step], log: LogId, seed: u64, ignores_syncs: bool) -> Result<(), String> {
    let disk = Rc::new(MemoryDisk::new(seed));
    disk.ignore_syncs(ignores_syncs);
    let mut store = open(&disk).0;
    let mut pen = Pen::new(log);
    let mut written: Vec<Batch> = Vec::new();
    let mut acked = 0;
    for step in steps {
        match step {
            Step::Append(bytes) => {
                let batch = pen.clone().next(*bytes);
                match store.append(&batch) {
                    Ok(()) => {
                        pen.end = KnownEnd::after(&batch);
                        written.push(batch);
                    }
                    Err(WalError::Poisoned { .. }) => {}
                    Err(error) => return Err(format!("append: {error}")),
                }
            }
            Step::Full(space) => {
                disk.limit_space(Some(*space));
                let batch = pen.clone().next(800);
                match store.append(&batch) {
                    Ok(()) => {
                        pen.end = KnownEnd::after(&batch);
                        written.push(batch);
                    }
                    Err(error) if error.is_full() || matches!(error, WalError::Poisoned { .. }) => {}
                    Err(error) => return Err(format!("full: {error}")),
                }
                disk.limit_space(None);
            }
            Step::Sync | Step::FailedSync => {
                disk.fail_syncs(u32::from(matches!(step, Step::FailedSync)));
                for (_, synced) in store.sync_dirty() {
                    if let Ok(through) = synced {
                        acked = through.0;
                        pen.durable = through;
                    }
                }
                disk.fail_syncs(0);
            }
            Step::PowerLoss(_) | Step::Restart => {
                drop(store);
                if let Step::PowerLoss(seed) = step {
                    disk.power_loss(*seed);
                }
                let (opened, batches, recovered) = open(&disk);
                store = opened;
                if let Some(rotten) =
                    recovered.iter().flat_map(|log| &log.damage).find(|d| d.kind == DamageKind::Rot)
                {
                    return Err(format!("taken for rot: {rotten:?}"));
                }
                if (batches.len() as u64) < acked {
                    return Err(format!("{acked} acked, {} recovered", batches.len()));
                }
                for (at, batch) in batches.iter().enumerate() {
                    if written.get(at).map(Batch::bytes) != Some(batch.bytes()) {
                        return Err(format!("batch {} is not what was written", at + 1));
                    }
                }
                // What was recovered counts as durable from here on; what was not, may be written otherwise.
                acked = batches.len() as u64;
                written = batches;
                pen.end = written.last().map_or(KnownEnd::START, KnownEnd::after);
                pen.durable = pen.end.seq;
                // Different bytes under the seqs that were never acked.
                pen.end.clock = Time(pen.end.clock.0 + seed % 7);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200_000, cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acked_is_recovered_whatever_the_disk_does(
        steps in steps(), seed in any::<u64>(), region in 1u16..3
    ) {
        let mut steps = steps;
        steps.push(Step::PowerLoss(seed));
        prop_assert_eq!(live(&steps, log_of(region), seed, false), Ok(()));
    }

    #[test]
    fn any_rotten_byte_is_noticed_and_named_and_what_is_before_it_stays(
        at in 0usize..12, offset in 0u64..276, seed in any::<u64>()
    ) {
        let (disk, _, batches) = written(log_of(1), 12);
        let (path, start) = place(&disk, &batches[at]);
        disk.rot(&path, start + offset).unwrap();
        disk.power_loss(seed);
        let (_, read, recovered) = open(&disk);
        prop_assert_eq!(read.len(), at);
        for (read, written) in read.iter().zip(&batches) {
            prop_assert_eq!(read.bytes(), written.bytes());
        }
        prop_assert_eq!(recovered[0].damage.len(), 1);
        let found = &recovered[0].damage[0];
        if found.kind == DamageKind::Torn {
            prop_assert_eq!(at, 11, "only the last batch may be taken for torn");
        } else {
            prop_assert_eq!(found.lost, Some((Seq(at as u64 + 1), Seq(12))));
            prop_assert!(found.quarantined.is_some());
        }
        // Once is enough: the second recovery finds a clean log.
        prop_assert_eq!(damage(&open(&disk).2), []);
    }
}

#[test]
fn sabotage_a_disk_that_acks_before_it_syncs_is_caught() {
    let steps = [Step::Append(300), Step::Sync, Step::Append(300), Step::Sync, Step::PowerLoss(3)];
    let caught = (0..100).filter(|seed| live(&steps, log_of(1), *seed, true).is_err()).count();
    assert!(caught > 50, "{caught} of 100");
    assert!((0..100).all(|seed| live(&steps, log_of(1), seed, false).is_ok()));
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on_where_it_was() {
    let mut seen_torn = false;
    for seed in 0..60 {
        let (disk, mut pen, mut batches) = written(log_of(1), 2);
        let (mut store, ..) = open(&disk);
        let lost = pen.clone().next(1_000);
        store.append(&lost).unwrap();
        disk.power_loss(seed);
        let (mut store, read, recovered) = open(&disk);
        seen_torn |= damage(&recovered) == [(DamageKind::Torn, None, true)];
        assert!(
            recovered[0].damage.iter().all(|one| one.kind == DamageKind::Torn),
            "seed {seed}: {recovered:?}"
        );
        if read.len() == 3 {
            continue;
        }
        for _ in 0..10 {
            let batch = pen.next(90);
            store.append(&batch).unwrap();
            batches.push(batch);
        }
        store.sync_dirty();
        disk.power_loss(seed);
        let (_, read, recovered) = open(&disk);
        assert_eq!(read.len(), 12);
        assert_eq!(damage(&recovered), []);
    }
    assert!(seen_torn);
}

#[test]
fn damage_before_a_durable_mark_is_never_cut() {
    let (disk, _, batches) = written(log_of(1), 2);
    rot(&disk, &batches[0]);
    let (_, read, recovered) = open(&disk);
    assert!(read.is_empty());
    // Batch 2 says that 1 was durable.
    assert_eq!(damage(&recovered), [(DamageKind::Rot, Some((1, 2)), false)]);
    let kept = recovered[0].damage[0].quarantined.clone().unwrap();
    assert!(disk.files().iter().any(|(path, _)| *path == kept));
}

#[test]
fn the_last_batch_is_suspect_when_only_the_checkpoint_says_that_it_was_durable() {
    let (disk, pen, batches) = written(log_of(1), 2);
    rot(&disk, &batches[1]);
    let (store, read, recovered) = open_known(&disk, log_of(1), Some(pen.end));
    assert!(read.is_empty());
    assert_eq!(damage(&recovered), [(DamageKind::Suspect, Some((2, 2)), true)]);
    assert!(recovered[0].damage[0].quarantined.is_some());
    assert_eq!(recovered[0].end, pen.end);
    assert!(matches!(store.read(log_of(1), Seq(2), 1), Err(WalError::NotRetained { .. })));
    assert_eq!(store.read(log_of(1), Seq(1), 1).unwrap().len(), 1);
}

#[test]
fn a_followers_unsynced_group_is_suspect_not_rot() {
    // The marks of another region's log speak of that region's disk.
    let (disk, mut pen, _) = written(log_of(2), 1);
    let (mut store, ..) = open(&disk);
    let (second, third) = (pen.next(100), pen.next(100));
    pen.durable = Seq(3);
    let fourth = pen.next(100);
    for batch in [&second, &third, &fourth] {
        store.append(batch).unwrap();
    }
    rot(&disk, &second);
    let (_, read, recovered) = open(&disk);
    assert_eq!(read.len(), 1);
    assert_eq!(damage(&recovered), [(DamageKind::Suspect, Some((2, 4)), false)]);
}

/// Two batches of a log of region 2, and one of region 3 that takes that over at its second.
fn sealed() -> (Disk, Vec<Batch>, Batch) {
    let (disk, _, batches) = written(log_of(2), 2);
    let seal = Pen::new(log_of(3)).seal(log_of(2), Seq(2));
    let (mut store, ..) = open(&disk);
    store.append(&seal).unwrap();
    store.sync_dirty();
    (disk, batches, seal)
}

#[test]
fn the_last_batch_of_a_followed_log_is_rot_too_when_another_log_seals_it() {
    let (disk, batches, seal) = sealed();
    rot(&disk, &batches[1]);
    let (_, read, recovered) = open(&disk);
    assert_eq!(read.len(), 2);
    assert_eq!(damage(&recovered), [(DamageKind::Rot, Some((2, 2)), false)]);
    let kept = recovered[0].damage[0].quarantined.clone().unwrap();
    assert!(disk.files().iter().any(|(path, _)| *path == kept));

    // Sabotage: the same rot where the seal is unreadable too.
    let (disk, batches, _) = sealed();
    rot(&disk, &batches[1]);
    disk.rot(&place(&disk, &seal).0, SEGMENT_HEADER_BYTES as u64 + 200).unwrap();
    assert_eq!(damage(&open(&disk).2), [(DamageKind::Torn, None, true); 2]);
}

#[test]
fn a_sealed_log_misses_its_end_until_a_peer_gives_it_back() {
    let (disk, batches, _) = sealed();
    rot(&disk, &batches[1]);
    open(&disk);
    for _ in 0..2 {
        let (_, _, recovered) = open(&disk);
        assert_eq!(damage(&recovered), [(DamageKind::Rot, Some((2, 2)), false)]);
        let found = &recovered[0].damage[0];
        assert_eq!(
            (&found.reason, &found.quarantined, &found.path),
            (&DamageReason::EndsBeforeSeal(Seq(2)), &None, &log_dir(log_of(2)))
        );
    }
    let (mut store, ..) = open(&disk);
    store.append(&batches[1]).unwrap();
    store.sync_dirty();
    let (_, read, recovered) = open(&disk);
    assert_eq!((read.len(), damage(&recovered)), (3, vec![]));
}

#[test]
fn a_sealed_log_that_is_gone_altogether_is_named_and_can_be_fetched() {
    let (disk, batches, _) = sealed();
    crate::Disk::remove(&*disk, &place(&disk, &batches[0]).0).unwrap();
    crate::Disk::remove_dir(&*disk, &log_dir(log_of(2))).unwrap();
    let (mut store, read, recovered) = open(&disk);
    assert_eq!(read.len(), 1);
    assert_eq!(recovered.iter().map(|found| found.log).collect::<Vec<_>>(), [log_of(2), log_of(3)]);
    assert_eq!(damage(&recovered), [(DamageKind::Rot, Some((1, 2)), false)]);
    for batch in &batches {
        store.append(batch).unwrap();
    }
    store.sync_dirty();
    assert_eq!(damage(&open(&disk).2), []);
}

#[test]
fn a_checkpoint_behind_the_seal_knows_better() {
    let (disk, batches, seal) = sealed();
    crate::Disk::remove(&*disk, &place(&disk, &batches[0]).0).unwrap();
    let known = KnownEnd::after(&seal);
    let (_, read, recovered) = open_known(&disk, log_of(3), Some(known));
    assert_eq!((read.len(), damage(&recovered)), (0, vec![]));
}

#[test]
fn a_hole_that_the_checkpoint_covers_costs_only_the_hole() {
    let (disk, mut pen, batches) = written(log_of(1), 20);
    rot(&disk, &batches[7]);
    let known = KnownEnd::after(&batches[14]);
    let (mut store, read, recovered) = open_known(&disk, log_of(1), Some(known));
    assert_eq!(read.len(), 5);
    assert_eq!(read[0].header().seq, Seq(16));
    assert_eq!(damage(&recovered), [(DamageKind::Rot, Some((8, 8)), true)]);
    assert!(matches!(
        store.read(log_of(1), Seq(8), 1),
        Err(WalError::NotRetained { first: Some(Seq(9)), .. })
    ));
    assert_eq!(store.read(log_of(1), Seq(9), usize::MAX).unwrap().len(), 12);
    assert_eq!(store.read(log_of(1), Seq(1), usize::MAX).unwrap().len(), 7);
    store.append(&pen.next(10)).unwrap();
    store.sync_dirty();
    let (_, read, recovered) = open_known(&disk, log_of(1), Some(known));
    assert_eq!((read.len(), damage(&recovered)), (6, vec![]));
}

#[test]
fn what_lies_behind_a_gap_is_salvaged_once_the_gap_is_filled() {
    let (disk, pen, batches) = written(log_of(1), 20);
    rot(&disk, &batches[7]);
    let (mut store, read, _) = open(&disk);
    assert_eq!(read.len(), 7);
    assert!(store.salvage(log_of(1), usize::MAX).unwrap().is_empty());
    store.append(&batches[7]).unwrap();
    let salvaged = store.salvage(log_of(1), usize::MAX).unwrap();
    assert_eq!(salvaged.len(), 12);
    for batch in &salvaged {
        store.append(batch).unwrap();
    }
    store.sync_dirty();
    let (_, read, recovered) = open(&disk);
    assert_eq!((read.len(), recovered[0].end), (20, pen.end));
}

#[test]
fn a_missing_segment_is_named() {
    let (disk, _, batches) = written(log_of(1), 20);
    let (path, _) = place(&disk, &batches[9]);
    crate::Disk::remove(&*disk, &path).unwrap();
    let (_, read, recovered) = open(&disk);
    let found = &recovered[0].damage[0];
    assert_eq!((found.kind, &found.reason), (DamageKind::Rot, &DamageReason::Missing));
    assert_eq!(found.lost, Some((Seq(read.len() as u64 + 1), Seq(20))));
    assert_eq!(damage(&open(&disk).2), []);
}

#[test]
fn a_batch_in_the_wrong_place_is_found_though_its_own_digest_is_right() {
    // Another log's batch of the same length, in the place of the second.
    let (disk, _, batches) = written(log_of(1), 3);
    let mut stranger = Pen::new(log_of(2));
    let strange = [stranger.next(100), stranger.next(100)];
    assert_eq!(strange[1].bytes().len(), batches[1].bytes().len());
    let (path, at) = place(&disk, &batches[1]);
    let file = crate::Disk::open(&*disk, &path).unwrap();
    crate::Disk::write_at(&*disk, &file, at, strange[1].bytes()).unwrap();
    let (_, read, recovered) = open(&disk);
    assert_eq!(read.len(), 1);
    let found = &recovered[0].damage[0];
    assert_eq!(found.kind, DamageKind::Rot);
    assert_eq!(found.reason, DamageReason::Misplaced { log: log_of(2), seq: Seq(2) });
}

#[test]
fn a_fork_is_found_where_it_parts_even_at_the_very_end() {
    let (disk, _, batches) = written(log_of(1), 2);
    let mut fork = Pen::new(log_of(1));
    fork.next(60);
    let other = fork.next(100);
    let (path, at) = place(&disk, &batches[1]);
    let file = crate::Disk::open(&*disk, &path).unwrap();
    crate::Disk::write_at(&*disk, &file, at, other.bytes()).unwrap();
    let (_, read, recovered) = open(&disk);
    assert_eq!(read.len(), 1);
    let found = &recovered[0].damage[0];
    assert_eq!((found.kind, &found.reason), (DamageKind::Rot, &DamageReason::BrokenChain));
    assert_eq!(found.lost, Some((Seq(2), Seq(2))));
}

#[test]
fn a_rotten_segment_header_costs_no_batch() {
    let (disk, _, batches) = written(log_of(1), 20);
    let (path, _) = place(&disk, &batches[9]);
    disk.rot(&path, 10).unwrap();
    let (_, read, recovered) = open(&disk);
    assert_eq!(read.len(), 20);
    assert_eq!(damage(&recovered), [(DamageKind::Rot, None, true)]);
    assert_eq!(damage(&open(&disk).2), []);
}

#[test]
fn another_clusters_segment_is_refused_and_left_alone() {
    let (disk, _, _) = written(log_of(1), 2);
    let files = disk.files();
    let other = WalSettings { cluster: ClusterId(1), ..settings(SEGMENT_BYTES) };
    let refused =
        Store::open(Rc::clone(&disk), other, ShardId(7), &BTreeMap::new(), &mut |_| {}).unwrap_err();
    assert!(matches!(refused, WalError::WrongCluster { .. }));
    assert_eq!(disk.files(), files);
}

#[test]
fn a_log_goes_on_behind_a_hole_that_a_state_merge_made() {
    let (disk, mut pen, _) = written(log_of(1), 3);
    for _ in 0..10 {
        pen.next(10);
    }
    let merged = pen.end;
    let (mut store, ..) = open(&disk);
    store.advance(log_of(1), merged).unwrap();
    store.advance(log_of(1), KnownEnd::START).unwrap();
    let next = pen.next(10);
    assert_eq!(next.header().seq, Seq(14));
    store.append(&next).unwrap();
    store.sync_dirty();
    disk.power_loss(5);
    let (_, read, recovered) = open_known(&disk, log_of(1), Some(merged));
    assert_eq!((read.len(), damage(&recovered)), (1, vec![]));
    // Without the checkpoint that covers it, the hole is loss.
    let (_, read, recovered) = open(&disk);
    assert_eq!((read.len(), damage(&recovered)), (3, vec![(DamageKind::Rot, Some((4, 14)), false)]));
}

#[test]
fn a_repair_may_be_interrupted_by_a_power_cut_at_any_moment() {
    // Every prefix of its steps is tried, each with many ways for the cut to choose what survives.
    for seed in 0..4_000u64 {
        let (disk, _, batches) = written(log_of(1), 20);
        // One with whole batches before and behind it in its segment: it is replaced by two.
        let path = |at: usize| place(&disk, &batches[at]).0;
        let damaged = (1..14).find(|at| path(at - 1) == path(*at) && path(at + 1) == path(*at)).unwrap();
        rot(&disk, &batches[damaged]);
        let known = KnownEnd::after(&batches[14]);
        let failing =
            Failing { disk: Rc::clone(&disk), steps_left: Rc::new(std::cell::Cell::new(seed % 40)) };
        let known_ends = BTreeMap::from([(log_of(1), known)]);
        let opened = Store::open(failing, settings(SEGMENT_BYTES), ShardId(7), &known_ends, &mut |_| {});
        drop(opened);
        disk.power_loss(seed);
        let (store, read, _) = open_known(&disk, log_of(1), Some(known));
        assert_eq!(read.len(), 5, "seed {seed}");
        assert_eq!(
            store.read(log_of(1), Seq(damaged as u64 + 2), usize::MAX).unwrap().len(),
            19 - damaged,
            "seed {seed}"
        );
        assert_eq!(store.read(log_of(1), Seq(1), usize::MAX).unwrap().len(), damaged, "seed {seed}");
        assert!(disk.files().iter().any(|(path, _)| path.starts_with("quarantine/")), "seed {seed}");
        assert!(disk.files().iter().all(|(path, _)| !path.ends_with(".new")), "seed {seed}");
    }
}

/// A disk that stops answering changes after some steps, as one does whose process is killed.
#[derive(Clone, Debug)]
struct Failing {
    disk: Disk,
    steps_left: Rc<std::cell::Cell<u64>>,
}

impl Failing {
    fn step(&self) -> Result<(), crate::DiskError> {
        let left = self.steps_left.get();
        self.steps_left.set(left.saturating_sub(1));
        let killed =
            || crate::DiskError::Io { path: String::new(), operation: "any", cause: "killed".to_owned() };
        (left > 0).then_some(()).ok_or_else(killed)
    }
}

impl crate::Disk for Failing {
    type File = <MemoryDisk as crate::Disk>::File;

    fn create(&self, path: &str) -> Result<Self::File, crate::DiskError> {
        self.step().and_then(|()| self.disk.create(path))
    }
    fn open(&self, path: &str) -> Result<Self::File, crate::DiskError> {
        self.disk.open(path)
    }
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> Result<(), crate::DiskError> {
        self.step().and_then(|()| self.disk.write_at(file, offset, bytes))
    }
    fn read_at(&self, file: &Self::File, offset: u64, bytes_max: usize) -> Result<Vec<u8>, crate::DiskError> {
        self.disk.read_at(file, offset, bytes_max)
    }
    fn len(&self, file: &Self::File) -> Result<u64, crate::DiskError> {
        crate::Disk::len(&self.disk, file)
    }
    fn sync_data(&self, file: &Self::File) -> Result<(), crate::DiskError> {
        self.step().and_then(|()| self.disk.sync_data(file))
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), crate::DiskError> {
        self.step().and_then(|()| self.disk.rename(from, to))
    }
    fn remove(&self, path: &str) -> Result<(), crate::DiskError> {
        self.step().and_then(|()| self.disk.remove(path))
    }
    fn create_dir(&self, dir: &str) -> Result<(), crate::DiskError> {
        self.step().and_then(|()| self.disk.create_dir(dir))
    }
    fn remove_dir(&self, dir: &str) -> Result<(), crate::DiskError> {
        self.step().and_then(|()| self.disk.remove_dir(dir))
    }
    fn sync_dir(&self, dir: &str) -> Result<(), crate::DiskError> {
        self.step().and_then(|()| self.disk.sync_dir(dir))
    }
    fn list(&self, dir: &str) -> Result<Vec<String>, crate::DiskError> {
        self.disk.list(dir)
    }
}
