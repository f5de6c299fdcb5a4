//! The checkers: what must hold after every step, one file an invariant, each named by its id.
//!
//! They compare what replicas claim with `truth.rs` and with what clients were told. A broken one ends the seed with a
//! text that begins with the id.

pub(crate) mod c1;
pub(crate) mod c2;
pub(crate) mod c2b;
pub(crate) mod c3;
pub(crate) mod c4;
pub(crate) mod c6;
pub(crate) mod c7;
pub(crate) mod f27;
pub(crate) mod f28;
pub(crate) mod h1;
pub(crate) mod notices;
pub(crate) mod r1;
pub(crate) mod r10;
pub(crate) mod r2;
pub(crate) mod r3;
pub(crate) mod r4;
pub(crate) mod r8;
pub(crate) mod r9;
pub(crate) mod s1;
pub(crate) mod s2;
pub(crate) mod s4;
pub(crate) mod w1;
pub(crate) mod w2;
pub(crate) mod w3;
pub(crate) mod w5;
pub(crate) mod w6;
pub(crate) mod w9;

use tombolo_causality::{LogId, Seq};
use tombolo_codec::records::SessionOp;
use tombolo_codec::{Batch, Position};

use crate::process::Recovered;
use crate::queue::MS;
use crate::rare::Rare;
use crate::truth::number_key;
use crate::world::{Event, World};

/// Errors: which invariant broke, and how.
pub(crate) type Checked = Result<(), String>;

/// What the checkers remember.
pub(crate) struct Checks {
    pub(crate) w1: w1::Promises,
    pub(crate) w5: w5::FailedLogs,
    pub(crate) c2: c2::States,
    pub(crate) c2b: c2b::Visible,
    pub(crate) c6: c6::Greatest,
    pub(crate) h1: h1::Readings,
    pub(crate) r1: r1::Order,
    pub(crate) s2: s2::Forged,
}

impl Checks {
    pub(crate) fn new(nodes: usize, shards: usize) -> Self {
        Self {
            w1: w1::Promises::new(nodes),
            w5: w5::FailedLogs::default(),
            c2: c2::States::default(),
            c2b: c2b::Visible::new(nodes, shards),
            c6: c6::Greatest::new(nodes, shards),
            h1: h1::Readings::default(),
            r1: r1::Order::new(nodes),
            s2: s2::Forged::default(),
        }
    }
}

impl World {
    /// A replica hands a batch to its disk.
    pub(crate) fn check_appended(&mut self, node: usize, batch: &Batch) -> Checked {
        self.check_r1(node, batch)?;
        self.check_r10(node, batch)?;
        let is_new = self.check_w2(node, batch)?;
        if is_new {
            self.check_h1(node, batch)?;
            self.check_seals(node, batch)?;
            self.check_absorbed(node, batch)?;
            self.count_records(batch);
            self.count_inherited(batch);
            self.truth.wrote(batch);
        }
        Ok(())
    }

    fn count_records(&mut self, batch: &Batch) {
        let records = batch.records();
        if records.seals().next().is_some() {
            self.trace(|| {
                format!(
                    "{:?} {} takes over {:?}",
                    batch.header().log,
                    batch.header().seq,
                    records.seals().collect::<Vec<_>>()
                )
            });
        }
        records.expires().for_each(|_| self.rare.count(Rare::FloorRaised));
        records.stables().for_each(|_| self.rare.count(Rare::StableStated));
        let shard = batch.header().log.shard;
        let is_absorbed =
            |op: &SessionOp| self.truth.numbers.contains_key(&number_key(shard, &op.session, op.number));
        let absorbed = records.ops().filter(is_absorbed).count();
        (0..absorbed).for_each(|_| self.rare.count(Rare::Absorbed));
    }

    /// A disk says that a log is durable through a batch.
    pub(crate) fn check_durable(&mut self, node: usize, log: LogId, through: Seq) -> Checked {
        self.checks.w5.durable((node, self.nodes[node].life, log), through)?;
        if let Some(batch) = self.truth.batches.get(&(log, through)) {
            self.checks.h1.durable(batch);
        }
        Ok(())
    }

    /// A replica says that it applied a log through a batch: its acks begin here.
    pub(crate) fn applied(&mut self, node: usize, position: Position) -> Checked {
        self.check_held(node, &position, "R2: an ack")?;
        self.checks.w1.promise(node, &position);
        self.board_acks(node, position);
        Ok(())
    }

    /// A shard applied something.
    pub(crate) fn check_applied(&mut self, node: usize, shard: usize) -> Checked {
        let vector = self.look_at(node, shard)?;
        self.check_touched(node, shard, &vector)?;
        self.check_raised(node, shard, &vector)?;
        self.check_written(node, shard, &vector)?;
        if let Some(process) = &mut self.nodes[node].process {
            process.shards[shard].seen = vector;
        }
        Ok(())
    }

    /// A process recovered a shard, and has heard nothing yet.
    pub(crate) fn check_recovered(&mut self, node: usize, shard: usize, found: &Recovered) -> Checked {
        let is_damaged = self.nodes[node].is_rolled_back || self.nodes[node].is_rotten;
        self.trace(|| {
            let ends: Vec<_> = found.logs.iter().map(|log| (log.log, log.first, log.end.seq)).collect();
            let damage: Vec<_> = found.logs.iter().flat_map(|log| &log.damage).collect();
            let report = found.replica.report(tombolo_replica::Now::default());
            format!(
                "region {} recovers shard {shard}: {ends:?}, {:?}, {damage:?}, {:?}",
                node + 1,
                report.vector,
                found.refused
            )
        });
        if !is_damaged && let Some(why) = found.refused.first() {
            return Err(format!("W3: a recovered batch was refused: {why}"));
        }
        self.check_w3(node, found, is_damaged)?;
        self.check_w9(node, found)?;
        self.check_w1(node, shard, found, is_damaged)
    }

    /// A look at everything, from time to time.
    pub(crate) fn check_all(&mut self) -> Checked {
        let delay = self.chance.range(600, 1_500) * MS;
        self.queue.after(delay, Event::CheckAll);
        for node in (0..self.nodes.len()).filter(|&node| self.nodes[node].is_up()).collect::<Vec<_>>() {
            for shard in 0..usize::from(self.plan.shards) {
                self.check_digits(node, shard)?;
                self.check_registers(node, shard)?;
                self.check_r9(node, shard)?;
            }
        }
        self.remind()?;
        if self.chance.percent(60) {
            self.relay_late()?;
        }
        let (node, shard) =
            (self.chance.index(self.nodes.len()), self.chance.index(usize::from(self.plan.shards)));
        if self.nodes[node].is_up() && self.chance.percent(10) {
            self.check_replay(node, shard)?;
        }
        Ok(())
    }
}
