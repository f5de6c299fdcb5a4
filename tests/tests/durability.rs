//! Two promises and their sabotage, in process: an acked op survives a power cut, unless the disk only pretends to
//! sync; equal vectors show equal digests, unless an apply drops an op.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, ShardId, TenantId, Time};
use tombolo_codec::batch::Place;
use tombolo_codec::{Batch, Op, ReadValue, RecordsBuilder, Schema, Verb};
use tombolo_replica::{
    Answer, Durability, Effect, Input, Link, Now, Options, Replica, Report, Ticket, WritePart,
};
use tombolo_wal::{MemoryDisk, Store, WalSettings};

const CLUSTER: ClusterId = ClusterId(0xc1);
const SHARD: ShardId = ShardId(0);
const OPS: u64 = 120;

fn region(id: u16) -> RegionId {
    RegionId::new(id).unwrap()
}

type Disk = Rc<MemoryDisk>;

/// One shard of one region over a disk of its own.
struct Region {
    replica: Replica,
    store: Store<Disk>,
    now: Now,
    tickets: u64,
    appended: Vec<Batch>,
}

impl Region {
    /// Starts from what the disk holds.
    fn start(id: u16, epoch: u128, members: &[u16], disk: &Disk) -> Self {
        let options = Options {
            cluster: CLUSTER,
            shard: SHARD,
            region: region(id),
            epoch: Epoch(epoch),
            roster: tombolo_codec::Roster::of(members.iter().map(|id| region(*id))),
            durability: Durability::Sync,
            schema: Arc::new(Schema::default()),
            drift_ms_max: 500,
            session_numbers_max: 1_024,
            window_ms: 86_400_000,
            peer_limits: tombolo_replica::PeerLimits::default(),
        };
        let mut replica = Replica::open(options, None);
        let settings = WalSettings::new(CLUSTER, region(id));
        let mut replay = |batch: Batch| replica.replay(&batch).unwrap();
        let (store, _) = Store::open(disk.clone(), settings, SHARD, &BTreeMap::new(), &mut replay).unwrap();
        let now = Now { wall: Time((1_000_000 + epoch as u64 * 1_000) << 32), monotonic_ms: 1 };
        let mut region = Self { replica, store, now, tickets: 0, appended: Vec::new() };
        region.replica.start(now);
        region.settle();
        region
    }

    /// Does what the shard wants done until it wants nothing more; gives the answers.
    fn settle(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        loop {
            self.replica.flush(self.now);
            while let Some(effect) = self.replica.poll_effect() {
                match effect {
                    Effect::Append(batch) => {
                        self.store.append(&batch).unwrap();
                        self.appended.push(batch);
                    }
                    Effect::Answer { answer, .. } => answers.push(answer),
                    Effect::Notice(notice) => panic!("{}: {}", notice.code, notice.text),
                    _ => {}
                }
            }
            if !self.store.is_dirty() {
                return answers;
            }
            for (log, through) in self.store.sync_dirty() {
                let through = through.unwrap();
                self.replica.handle(Input::Staged { log, through }, self.now);
                self.replica.handle(Input::Durable { log, through }, self.now);
            }
        }
    }

    /// Adds 1 to each of some keys, in one batch; whether it was acked.
    fn add(&mut self, keys: &[String]) -> bool {
        let add =
            |key: &String| Op { key: Bytes::copy_from_slice(key.as_bytes()), verb: Verb::Add { delta: 1 } };
        let part = WritePart {
            tenant: TenantId::DEFAULT,
            session: None,
            retry: false,
            after: Time::ZERO,
            ops: keys.iter().map(add).collect(),
            wants_values: false,
        };
        self.tickets += 1;
        self.replica.handle(Input::Write { ticket: Ticket(self.tickets), part: Box::new(part) }, self.now);
        let answers = self.settle();
        matches!(answers[..], [Answer::Written(Ok(_))])
    }

    fn value(&mut self, key: &str) -> i128 {
        self.tickets += 1;
        let keys = vec![Bytes::copy_from_slice(key.as_bytes())];
        let ticket = Ticket(self.tickets);
        let read = Input::Read { ticket, tenant: TenantId::DEFAULT, keys, after: Vec::new() };
        self.replica.handle(read, self.now);
        let Some(Answer::Read(values)) = self.settle().pop() else { panic!("a read is answered") };
        match values[..] {
            [ReadValue::Counter(value)] => value,
            _ => 0,
        }
    }

    fn report(&self) -> Report {
        self.replica.report(self.now)
    }
}

fn key(op: u64) -> String {
    format!("op:{op}")
}

/// Writes ops one by one, cuts the power after the last ack, recovers, and gives the acked ops that are not there.
fn acked_ops_lost(disk: &Disk, seed: u64) -> Vec<u64> {
    let mut writer = Region::start(1, 1, &[1], disk);
    let acked: Vec<u64> = (0..OPS).filter(|op| writer.add(&[key(*op)])).collect();
    assert_eq!(acked.len() as u64, OPS, "every op is acked");
    disk.power_loss(seed);
    drop(writer);
    let mut recovered = Region::start(1, 2, &[1], disk);
    acked.into_iter().filter(|op| recovered.value(&key(*op)) != 1).collect()
}

#[test]
fn an_op_that_was_acked_is_there_after_a_power_cut() {
    for seed in 0..20 {
        assert_eq!(acked_ops_lost(&Rc::new(MemoryDisk::new(seed)), seed), Vec::<u64>::new(), "seed {seed}");
    }
}

#[test]
fn sabotage_an_ack_before_the_sync_turns_the_check_red() {
    for seed in 0..20 {
        let disk = Rc::new(MemoryDisk::new(seed));
        disk.ignore_syncs(true);
        assert!(!acked_ops_lost(&disk, seed).is_empty(), "seed {seed}");
    }
}

/// What is wrong between two regions: unequal vectors, or unequal digests at equal ones.
fn check(a: &Report, b: &Report) -> Result<(), &'static str> {
    match (a.vector == b.vector, a.digest == b.digest) {
        (false, _) => Err("the vectors differ"),
        (true, false) => Err("equal vectors, unequal digests"),
        (true, true) => Ok(()),
    }
}

/// A batch as its writer closed it, without one of its adds; its digest is right.
fn without_one_op(batch: &Batch) -> Batch {
    let (header, records) = (batch.header(), batch.records());
    let mut kept = RecordsBuilder::new();
    for add in records.adds().skip(1) {
        kept.add(add.cell, add.generation, add.positive as i64 - add.negative as i64);
    }
    assert_eq!(kept.ops_count() + 1, header.ops_count);
    Batch::close(Place::of(header), &kept)
}

/// A follower of region 1 that was sent these batches.
fn follower(id: u16, log: LogId, batches: &[Batch]) -> Region {
    let mut follower =
        Region::start(id, 10 + u128::from(id), &[1, 2, 3], &Rc::new(MemoryDisk::new(id.into())));
    let (peer, link) = (region(1), Link(1));
    follower.replica.handle(Input::PeerUp { peer, epoch: log.epoch, link }, follower.now);
    for batch in batches {
        follower.replica.handle(Input::Remote { from: peer, link, batch: batch.clone() }, follower.now);
    }
    follower.settle();
    follower
}

#[test]
fn regions_that_applied_the_same_batches_agree_and_sabotage_one_that_drops_an_op_turns_the_check_red() {
    let mut writer = Region::start(1, 1, &[1, 2, 3], &Rc::new(MemoryDisk::new(1)));
    let keys: Vec<String> = (0..5).map(key).collect();
    assert!(writer.add(&keys));
    let batches = std::mem::take(&mut writer.appended);
    let log = batches[0].header().log;
    let (second, third) = (follower(2, log, &batches), follower(3, log, &batches));
    let reports = [writer.report(), second.report(), third.report()];
    assert_eq!(reports[0].vector.get(region(1), log.epoch), batches.last().unwrap().header().seq);
    assert_eq!((check(&reports[0], &reports[1]), check(&reports[1], &reports[2])), (Ok(()), Ok(())));

    let mut cut: Vec<Batch> = batches.clone();
    assert_eq!(cut.len(), 1, "one request is one batch");
    cut[0] = without_one_op(&cut[0]);
    let mut careless = follower(3, log, &cut);
    assert_eq!((careless.value(&key(0)), careless.value(&key(1))), (0, 1));
    assert_eq!(check(&reports[1], &careless.report()), Err("equal vectors, unequal digests"));
}
