//! Acked ⇒ there, whenever the power goes: groups over many logs, cut after any step of the disk, also while redoing.
//! Each sabotage must be noticed by the same check.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;
use tombolo_causality::{LogId, Seq, ShardId};
use tombolo_codec::Batch;

use super::*;
use crate::group::{CommitEvent, GroupCommit};
use crate::log::KnownEnd;
use crate::memory_disk::{MemoryDisk, MemoryFile};
use crate::recovery::DamageKind;
use crate::store::Store;
use crate::testing::{Pen, log_of};

type Commit = GroupCommit<Rc<Fused>>;
const SHARDS: u16 = 3;
const JOURNAL_BYTES: u64 = 12 * 1_024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sabotage {
    None,
    NoRedo,
    StampNotSynced,
    RecycledBeforeSegmentsAreSynced,
    AckedBeforeTheJournalIsSynced,
}

/// A disk that stops after so many steps, and leaves out the syncs of a sabotage.
#[derive(Debug)]
struct Fused {
    inner: MemoryDisk,
    steps_left: Cell<Option<u64>>,
    sabotage: Sabotage,
    /// Where files were written last.
    written_at: RefCell<BTreeMap<String, u64>>,
}

#[derive(Debug, Clone)]
struct FusedFile {
    file: MemoryFile,
    path: String,
}

impl Fused {
    fn step(&self) -> Result<(), DiskError> {
        match self.steps_left.get() {
            Some(0) => {
                let cause = "the power is gone".to_owned();
                Err(DiskError::Io { path: String::new(), operation: "any", cause })
            }
            left => {
                self.steps_left.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }

    fn is_left_out(&self, path: &str) -> bool {
        let is_stamp = self.written_at.borrow().get(path).is_some_and(|at| *at < GROUPS_AT);
        let is_journal = path.starts_with(JOURNAL_DIR) && !path.ends_with(".new");
        match self.sabotage {
            Sabotage::None | Sabotage::NoRedo => false,
            Sabotage::StampNotSynced => is_journal && is_stamp,
            Sabotage::AckedBeforeTheJournalIsSynced => is_journal && !is_stamp,
            Sabotage::RecycledBeforeSegmentsAreSynced => path.ends_with(".seg"),
        }
    }
}

impl Disk for Fused {
    type File = FusedFile;

    fn create(&self, path: &str) -> Result<FusedFile, DiskError> {
        self.step()?;
        Ok(FusedFile { file: self.inner.create(path)?, path: path.to_owned() })
    }
    fn open(&self, path: &str) -> Result<FusedFile, DiskError> {
        Ok(FusedFile { file: self.inner.open(path)?, path: path.to_owned() })
    }
    fn write_at(&self, file: &FusedFile, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.step()?;
        self.written_at.borrow_mut().insert(file.path.clone(), offset);
        self.inner.write_at(&file.file, offset, bytes)
    }
    fn read_at(&self, file: &FusedFile, offset: u64, bytes_max: usize) -> Result<Vec<u8>, DiskError> {
        self.inner.read_at(&file.file, offset, bytes_max)
    }
    fn len(&self, file: &FusedFile) -> Result<u64, DiskError> {
        self.inner.len(&file.file)
    }
    fn sync_data(&self, file: &FusedFile) -> Result<(), DiskError> {
        self.step()?;
        if self.is_left_out(&file.path) { Ok(()) } else { self.inner.sync_data(&file.file) }
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.step()?;
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.step()?;
        self.inner.remove(path)
    }
    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.step()?;
        self.inner.create_dir(dir)
    }
    fn remove_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.step()?;
        self.inner.remove_dir(dir)
    }
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.step()?;
        self.inner.sync_dir(dir)
    }
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.inner.list(dir)
    }
}

fn settings() -> WalSettings {
    WalSettings { journal_bytes: JOURNAL_BYTES, ..crate::testing::settings(6_000) }
}

/// Logs of three shards and two regions.
fn logs() -> Vec<LogId> {
    let logs = (0..SHARDS).flat_map(|shard| [1, 2].map(|id| LogId { shard: ShardId(shard), ..log_of(id) }));
    logs.collect()
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize, usize),
    Sync,
    /// The disk stops after so many more steps.
    Fuse(u64),
    FailSync,
    Full(u64),
    PowerLoss(u64),
    Kill,
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => (0usize..6, 0usize..900).prop_map(|(log, bytes)| Step::Append(log, bytes)),
        // Longer than a journal takes.
        1 => (0usize..6, 5_000usize..7_000).prop_map(|(log, bytes)| Step::Append(log, bytes)),
        10 => Just(Step::Sync),
        1 => (0u64..30).prop_map(Step::Fuse),
        1 => Just(Step::FailSync),
        1 => (0u64..3_000).prop_map(Step::Full),
        1 => any::<u64>().prop_map(Step::PowerLoss),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ];
    proptest::collection::vec(step, 1..160)
}

/// A node over a disk, and what it promised.
struct Life {
    disk: Rc<Fused>,
    group: Commit,
    /// By log: every batch handed over since the last start, behind those that start found; and through which one acked.
    written: BTreeMap<LogId, (Vec<Batch>, u64)>,
    pens: BTreeMap<LogId, Pen>,
    seen: Seen,
}

/// How often what was meant to be tested came about.
#[derive(Debug, Default)]
struct Seen {
    redone: u64,
    interrupted: u64,
}

impl Life {
    fn start(seed: u64, sabotage: Sabotage) -> Self {
        let inner = MemoryDisk::new(seed);
        let (steps_left, written_at) = (Cell::new(None), RefCell::default());
        let disk = Rc::new(Fused { inner, steps_left, sabotage, written_at });
        let pens = logs().into_iter().map(|log| (log, Pen::new(log))).collect();
        let group = GroupCommit::new([]);
        let mut life = Self { disk, group, written: BTreeMap::new(), pens, seen: Seen::default() };
        life.open(None).unwrap();
        life
    }

    /// Starts on what is on disk; `fuse` interrupts the first attempt, the power goes, and the second has peace.
    fn open(&mut self, fuse: Option<(u64, u64)>) -> Result<(), String> {
        if let Some((steps, seed)) = fuse {
            self.disk.steps_left.set(Some(steps));
            let is_interrupted = self.try_open().is_err();
            self.disk.steps_left.set(None);
            self.seen.interrupted += u64::from(is_interrupted);
            self.disk.inner.power_loss(seed);
        }
        let (group, recovered) = self.try_open().map_err(|error| error.to_string())?;
        self.group = group;
        for (log, batches) in recovered {
            let (written, acked) = self.written.entry(log).or_default();
            if (batches.len() as u64) < *acked {
                return Err(format!("{log:?}: {acked} acked, {} recovered", batches.len()));
            }
            for (at, batch) in batches.iter().enumerate() {
                if written.get(at).map(Batch::bytes) != Some(batch.bytes()) {
                    return Err(format!("{log:?}: batch {} is not what was written", at + 1));
                }
            }
            *acked = batches.len() as u64;
            let pen = self.pens.get_mut(&log).unwrap();
            pen.end = batches.last().map_or(KnownEnd::START, KnownEnd::after);
            pen.durable = pen.end.seq;
            *written = batches;
        }
        Ok(())
    }

    fn try_open(&mut self) -> Result<(Commit, BTreeMap<LogId, Vec<Batch>>), WalError> {
        if self.disk.sabotage != Sabotage::NoRedo {
            let redone = redo(&self.disk, settings())?;
            if let Some(damage) = redone.damage.first() {
                let path = damage.path.clone();
                return Err(WalError::Manifest { path, what: "a power cut was taken for rot" });
            }
            self.seen.redone += redone.batches_count;
        }
        let mut found: BTreeMap<LogId, Vec<Batch>> =
            logs().into_iter().map(|log| (log, Vec::new())).collect();
        let mut stores = Vec::new();
        for shard in 0..SHARDS {
            let known = BTreeMap::new();
            let mut each = |batch: Batch| found.get_mut(&batch.header().log).unwrap().push(batch);
            let (store, logs) =
                Store::open(Rc::clone(&self.disk), settings(), ShardId(shard), &known, &mut each)?;
            let rot = logs.iter().flat_map(|log| &log.damage).find(|one| one.kind == DamageKind::Rot);
            if let Some(rot) = rot {
                let what = format!("taken for rot: {rot:?}");
                return Err(WalError::Rot { log: rot.log, seq: Seq(1), path: rot.path.clone(), what });
            }
            stores.push(store);
        }
        Ok((GroupCommit::open(&self.disk, settings(), 0, stores)?, found))
    }

    fn append(&mut self, log: LogId, bytes: usize) {
        let batch = self.pens[&log].clone().next(bytes);
        let mut is_refused = false;
        self.group.append(batch.clone(), &mut |event| {
            is_refused |= matches!(event, CommitEvent::Failed { .. });
        });
        if !is_refused {
            self.pens.get_mut(&log).unwrap().end = KnownEnd::after(&batch);
            self.written.get_mut(&log).unwrap().0.push(batch);
        } else if self.written[&log].0.len() < batch.header().seq.0 as usize {
            // It may be on the disk all the same.
            self.written.get_mut(&log).unwrap().0.push(batch);
        }
    }

    fn sync(&mut self) {
        let (written, pens) = (&mut self.written, &mut self.pens);
        self.group.sync(&mut |event| {
            if let CommitEvent::Durable { log, through } = event {
                written.get_mut(&log).unwrap().1 = through.0;
                pens.get_mut(&log).unwrap().durable = through;
            }
        });
        self.group.settle();
    }

    fn stop(&mut self) {
        let group = std::mem::replace(&mut self.group, GroupCommit::new([]));
        // A failure leaves it to the next start.
        let _ = group.close();
    }
}

/// Runs a life; the violation it ends with, if any.
fn live(steps: &[Step], seed: u64, sabotage: Sabotage) -> Result<Seen, String> {
    let mut life = Life::start(seed, sabotage);
    let logs = logs();
    let last = [Step::PowerLoss(seed)];
    for step in steps.iter().chain(&last) {
        match step {
            Step::Append(log, bytes) => life.append(logs[*log], *bytes),
            Step::Sync => life.sync(),
            Step::Fuse(steps) => life.disk.steps_left.set(Some(*steps)),
            Step::FailSync => life.disk.inner.fail_syncs(1),
            Step::Full(space) => {
                life.disk.inner.limit_space(Some(*space));
                life.append(logs[0], 600);
                life.sync();
                life.disk.inner.limit_space(None);
                life.group.retry(&mut |_| {});
            }
            Step::PowerLoss(_) | Step::Kill | Step::Stop => {
                if matches!(step, Step::Stop) {
                    life.sync();
                    life.stop();
                }
                life.disk.steps_left.set(None);
                life.disk.inner.fail_syncs(0);
                let mut fuse = None;
                if let Step::PowerLoss(seed) = step {
                    life.disk.inner.power_loss(*seed);
                    fuse = (seed % 2 == 0).then_some((seed % 61, seed ^ 0x55));
                }
                life.open(fuse)?;
            }
        }
    }
    Ok(life.seen)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acked_is_there_whenever_the_power_goes(steps in steps(), seed in any::<u64>()) {
        let lived = live(&steps, seed, Sabotage::None).map(drop);
        prop_assert_eq!(lived, Ok(()));
    }
}

/// A life of many small groups over all logs, so that the files take turns.
fn busy(seed: u64, groups_count: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    for group in 0..groups_count {
        for at in 0..3 {
            steps.push(Step::Append(
                ((seed + group * 5 + at) % 6) as usize,
                (seed ^ (group * 37)) as usize % 300,
            ));
        }
        steps.push(Step::Sync);
    }
    steps
}

#[test]
fn the_power_may_go_at_every_single_step_of_the_disk() {
    let mut seen = Seen::default();
    for fuse in 0..400 {
        let mut steps = busy(fuse, 6);
        steps.push(Step::Fuse(fuse));
        steps.extend(busy(fuse + 1, 60));
        let lived = live(&steps, fuse * 2, Sabotage::None).unwrap_or_else(|why| panic!("fuse {fuse}: {why}"));
        seen.redone += lived.redone;
        seen.interrupted += lived.interrupted;
    }
    assert!(seen.redone > 2_000 && seen.interrupted > 100, "{seen:?}");
}

#[test]
fn every_sabotage_is_noticed() {
    let all = [
        Sabotage::NoRedo,
        Sabotage::RecycledBeforeSegmentsAreSynced,
        Sabotage::AckedBeforeTheJournalIsSynced,
    ];
    let caught = all.map(|sabotage| {
        let caught = (0..100).filter(|seed| live(&busy(*seed, 20 + seed), *seed, sabotage).is_err());
        (caught.count(), sabotage)
    });
    assert!(caught.iter().all(|(count, _)| *count >= 30), "{caught:?}");
    assert!((0..100).all(|seed| live(&busy(seed, 20 + seed), seed, Sabotage::None).is_ok()));
}

/// How many lives end wrong in which the power goes while a file is stamped and gets its first group.
fn wrong_at_first_groups(sabotage: Sabotage) -> usize {
    let lives = (0..200).flat_map(|seed| (0..5).map(move |fuse| (seed, fuse)));
    let wrong = lives.filter(|&(seed, fuse)| {
        let steps = [Step::Append(0, 0), Step::Fuse(fuse), Step::Sync];
        live(&steps, seed, sabotage).is_err()
    });
    wrong.count()
}

#[test]
fn a_stamp_that_is_not_durable_before_its_first_group_is_noticed() {
    assert_eq!(wrong_at_first_groups(Sabotage::None), 0);
    let wrong = wrong_at_first_groups(Sabotage::StampNotSynced);
    assert!(wrong > 10, "{wrong}");
}

fn syncs_of(life: &mut Life, run: impl FnOnce(&mut Life)) -> u64 {
    let before = life.disk.inner.syncs_count();
    run(life);
    life.disk.inner.syncs_count() - before
}

#[test]
fn one_sync_covers_a_group_of_all_logs_and_the_segments_follow_a_few_at_a_time() {
    let mut life = Life::start(1, Sabotage::None);
    let mut turn = 0;
    let mut group = |life: &mut Life| {
        turn += 1;
        life.append(logs()[turn % 6], 20);
        life.sync();
    };
    // The first stamps a file.
    assert_eq!(syncs_of(&mut life, &mut group), 2);
    let syncs: Vec<u64> = (0..40).map(|_| syncs_of(&mut life, &mut group)).collect();
    // Eight groups to a file, six segments to sync within the first four of the next.
    assert!(syncs.iter().all(|count| (1..=4).contains(count)), "{syncs:?}");
    assert!(syncs.iter().filter(|count| **count == 1).count() >= 15, "{syncs:?}");
    assert!(life.written.values().all(|(written, acked)| written.len() as u64 == *acked));
    let all = syncs_of(&mut life, |life| {
        for log in logs() {
            life.append(log, 20);
        }
        life.group.sync(&mut |_| {});
    });
    assert!(all <= 2, "{all} for a group of six logs");
}

#[test]
fn a_group_too_long_for_the_journal_syncs_its_segments() {
    let mut life = Life::start(1, Sabotage::None);
    let long = syncs_of(&mut life, |life| {
        for log in logs() {
            life.append(log, 2_000);
        }
        life.sync();
    });
    assert_eq!(long, 6);
    life.disk.inner.power_loss(3);
    life.open(None).unwrap();
    assert_eq!(life.seen.redone, 0);
}

#[test]
fn a_clean_stop_leaves_nothing_to_redo() {
    let mut life = Life::start(1, Sabotage::None);
    for step in busy(1, 30) {
        if let Step::Append(log, bytes) = step {
            life.append(logs()[log], bytes);
        } else {
            life.sync();
        }
    }
    life.stop();
    life.disk.inner.power_loss(9);
    assert_eq!(redo(&life.disk, settings()).unwrap(), Redone::default());
    life.open(None).unwrap();
}

#[test]
fn a_failed_sync_of_the_journal_closes_all_logs_for_writing() {
    let mut life = Life::start(1, Sabotage::None);
    for log in logs() {
        life.append(log, 20);
    }
    life.sync();
    life.append(logs()[0], 20);
    life.disk.inner.fail_syncs(1);
    life.sync();
    life.append(logs()[5], 20);
    life.sync();
    assert!(life.written.values().all(|(_, acked)| *acked == 1));
    let mut events = Vec::new();
    life.group.append(life.pens[&logs()[3]].clone().next(1), &mut |event| events.push(event));
    let [CommitEvent::Failed { error: WalError::Poisoned { reason, .. }, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(reason.contains("the commit journal failed"), "{reason}");
    life.disk.inner.power_loss(4);
    life.open(None).unwrap();
}

#[test]
fn a_segment_that_does_not_sync_keeps_the_journal_that_holds_its_batches() {
    for seed in 0..20 {
        let mut life = Life::start(seed, Sabotage::None);
        let append_all = |life: &mut Life| {
            for log in logs() {
                life.append(log, 20);
            }
        };
        // Until segments are owed.
        while life.group.settle() == 0 {
            append_all(&mut life);
            life.group.sync(&mut |event| {
                if let CommitEvent::Durable { log, through } = event {
                    life.written.get_mut(&log).unwrap().1 = through.0;
                }
            });
        }
        life.disk.inner.fail_syncs(0);
        append_all(&mut life);
        life.sync();
        life.disk.inner.fail_syncs(100);
        life.group.settle();
        append_all(&mut life);
        life.sync();
        life.stop();
        life.disk.inner.fail_syncs(0);
        life.disk.inner.power_loss(seed);
        life.open(None).unwrap();
    }
}

#[test]
fn a_disk_too_full_for_a_journal_still_starts_and_syncs_segments() {
    let mut life = Life::start(1, Sabotage::None);
    life.stop();
    for name in life.disk.list(JOURNAL_DIR).unwrap() {
        life.disk.remove(&format!("{JOURNAL_DIR}/{name}")).unwrap();
    }
    life.disk.inner.limit_space(Some(9_000));
    life.open(None).unwrap();
    assert!(life.disk.list(JOURNAL_DIR).unwrap().is_empty());
    let direct = syncs_of(&mut life, |life| {
        life.append(logs()[0], 20);
        life.append(logs()[1], 20);
        life.sync();
    });
    assert_eq!(direct, 2);
    life.disk.inner.power_loss(4);
    life.open(None).unwrap();
}

/// A journal with some groups, after the power went.
fn cut_off(groups_count: usize) -> Life {
    let mut life = Life::start(1, Sabotage::None);
    for _ in 0..groups_count {
        life.append(logs()[1], 20);
        life.sync();
    }
    life
}

#[test]
fn a_rotten_group_with_others_behind_it_is_set_aside_and_those_are_redone() {
    let life = cut_off(4);
    life.disk.inner.rot("journal/00-a", GROUPS_AT + 1_024 + 100).unwrap();
    let redone = redo(&life.disk, settings()).unwrap();
    assert_eq!((redone.groups_count, redone.batches_count, redone.segments_count), (3, 3, 1));
    let [damage] = &redone.damage[..] else { panic!("{redone:?}") };
    assert_eq!((damage.path.as_str(), damage.offset), ("journal/00-a", GROUPS_AT + 1_024));
    assert_eq!(damage.quarantined, "quarantine/journal-00-a");
    assert_eq!(redo(&life.disk, settings()).unwrap(), Redone::default());
}

#[test]
fn a_torn_last_group_is_the_normal_end() {
    let life = cut_off(4);
    life.disk.inner.rot("journal/00-a", GROUPS_AT + 3 * 1_024 + 100).unwrap();
    let redone = redo(&life.disk, settings()).unwrap();
    assert_eq!((redone.groups_count, redone.damage), (3, vec![]));
}

#[test]
fn a_rotten_stamp_costs_no_group_and_is_reported() {
    let life = cut_off(4);
    // The first group stamped the place that was free.
    life.disk.inner.rot("journal/00-a", STAMPS_AT[1] + 20).unwrap();
    let redone = redo(&life.disk, settings()).unwrap();
    assert_eq!((redone.groups_count, redone.damage.len()), (4, 1));
}

#[test]
fn a_journal_of_another_cluster_is_refused_and_nothing_changes() {
    let life = cut_off(2);
    let stranger = WalSettings { cluster: tombolo_causality::ClusterId(9), ..settings() };
    assert!(matches!(redo(&life.disk, stranger), Err(WalError::WrongCluster { .. })));
    assert_eq!(redo(&life.disk, settings()).unwrap().groups_count, 2);
}

#[test]
fn a_pruned_segment_is_not_brought_back() {
    let mut life = cut_off(3);
    let log = logs()[1];
    life.group.store_mut(log.shard).unwrap().prune_log(log).unwrap();
    let redone = redo(&life.disk, settings()).unwrap();
    assert_eq!((redone.groups_count, redone.batches_count), (3, 0));
}
