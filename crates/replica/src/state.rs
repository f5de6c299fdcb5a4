//! The state of a shard: what its logs' prefixes say, nothing else.
//!
//! No clock, no arrival order and no local timer enters: equal vectors mean equal digests (C2). What changes it:
//! [`State::apply`], a join where histories are gone (`heal/merge.rs`), and mending (`verify/mend.rs`).

pub(crate) mod cells;
pub(crate) mod conditionals;
pub(crate) mod garbage;
pub(crate) mod logs;
pub(crate) mod sessions;
pub(crate) mod table;

use tombolo_causality::Time;
use tombolo_codec::checkpoint::Checkpoint;
use tombolo_codec::records::{Conditional, SessionOp};
use tombolo_codec::{Batch, Digest};
use tombolo_crdt::Dot;
use tombolo_mutants::{Mutant, is_planted};

use crate::life::members::MARKER;
use crate::state::cells::Cells;
use crate::state::conditionals::Conditionals;
use crate::state::garbage::{Garbage, Reached};
use crate::state::logs::{LogName, Logs};
use crate::state::sessions::Sessions;

/// Why a verified batch cannot be applied now, or at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApplyError {
    /// It takes over a log that is not here to its end yet.
    #[error("waits for log {log:?} through {end}")]
    WaitsFor {
        /// The log.
        log: LogName,
        /// Its end.
        end: tombolo_causality::Seq,
    },
    /// It takes over a log that another one has taken over.
    #[error("seals log {log:?}, which log {by:?} has sealed")]
    SealedTwice {
        /// The log.
        log: LogName,
        /// What sealed it.
        by: LogName,
    },
    /// It takes over a log that goes on here beyond the end it names.
    #[error("seals log {log:?} at {end}, but {held} is applied here")]
    BeyondEnd {
        /// The log.
        log: LogName,
        /// The end that the seal names.
        end: tombolo_causality::Seq,
        /// What is applied.
        held: tombolo_causality::Seq,
    },
}

/// Cells, sessions, floors and the vector they stand for.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) logs: Logs,
    pub(crate) cells: Cells,
    pub(crate) sessions: Sessions,
    pub(crate) garbage: Garbage,
}

impl State {
    /// Whether the next batch of its log can be applied.
    fn check(&self, batch: &Batch) -> Result<(), ApplyError> {
        for seal in batch.seals() {
            let log = (seal.region, seal.epoch);
            if let Some(sealed) = self.logs.sealed(log) {
                return Err(ApplyError::SealedTwice { log, by: sealed.by });
            }
            let held = self.logs.held(log);
            if held < seal.end && !is_planted(Mutant::SealAppliedEarly) {
                return Err(ApplyError::WaitsFor { log, end: seal.end });
            }
            if held > seal.end {
                return Err(ApplyError::BeyondEnd { log, end: seal.end, held });
            }
            if let Some((log, end)) = self.garbage.waits_for(log, &self.logs) {
                return Err(ApplyError::WaitsFor { log, end });
            }
        }
        Ok(())
    }

    /// Applies the next batch of its log, all or nothing.
    ///
    /// Panics if it is not the next one: the caller keeps the order (R1).
    pub(crate) fn apply(&mut self, batch: &Batch) -> Result<(), ApplyError> {
        self.check(batch)?;
        let header = batch.header();
        let name = (header.log.region, header.log.epoch);
        assert!(
            header.previous == self.logs.tail(name).digest,
            "the chain of {name:?} is whole: {:?} follows what was applied before",
            header.seq
        );
        self.logs.advance(header);
        let records = batch.records();
        let log = self.logs.index(name);
        let dot = Dot { log: name, seq: header.seq };
        for add in records.adds() {
            self.cells.add(&add, log, &self.logs);
        }
        for write in records.writes() {
            self.cells.write(&write, dot, &self.logs);
        }
        // Before the numbers: what a mark settles makes room for them.
        for (session, mark) in records.marks().filter(|(session, _)| !self.garbage.is_forgotten(session)) {
            self.cells.conditionals.cover_below(&session, mark);
            self.sessions.mark(session, mark);
        }
        for op in records.ops().filter(|op| !self.garbage.is_forgotten(&op.session)) {
            self.cells.conditionals.cover(&op.session, op.number);
            self.sessions.log(&op);
        }
        for conditional in records.conditionals() {
            self.condition(&conditional, dot);
        }
        for seal in records.seals() {
            let sealed = (seal.region, seal.epoch);
            let sealed_index = self.logs.index(sealed);
            // Nobody wrote the log that stands for a removed region: nothing to look for in every cell.
            if sealed.1 != MARKER {
                self.cells.fold((sealed_index, sealed), (log, dot), &self.logs);
            }
            self.garbage.fold(sealed, dot);
            self.logs.seal(seal, name, header.seq);
        }
        for expire in records.expires() {
            self.garbage.expire(expire, dot);
            if is_planted(Mutant::TablesGoAtOnce) {
                self.sessions.forget(expire.home, expire.before);
            }
        }
        for stable in records.stables() {
            self.garbage.stable(stable, dot);
        }
        self.act_on_stables();
        Ok(())
    }

    /// Lets go of what the stability records name that this state has reached.
    pub(crate) fn act_on_stables(&mut self) {
        while let Some(reached) = self.garbage.take_reached(&self.logs) {
            self.let_go(&reached);
        }
    }

    fn condition(&mut self, conditional: &Conditional<'_>, dot: Dot<LogName>) {
        for &(cell, generation, _) in &conditional.adds {
            if !is_planted(Mutant::ConditionalDoesNotRaise) {
                self.cells.enter(cell, generation, &self.logs);
            }
        }
        let SessionOp { session, number, .. } = conditional.op;
        let is_covered =
            self.sessions.is_covered(&session, number) && !is_planted(Mutant::CoveredConditionalCounts);
        if !self.garbage.is_forgotten(&session) && !is_covered {
            self.cells.conditionals.insert(conditional, dot);
        }
    }

    fn let_go(&mut self, reached: &Reached) {
        self.cells.drop_tombstones(reached.log, reached.through, &self.logs);
        for &(home, before) in &reached.forgotten {
            self.sessions.forget(home, before);
            self.cells.conditionals.forget(home, before);
        }
    }

    /// The canonical digest of the cells and sessions.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&[
            &self.cells.digest().to_le_bytes(),
            &self.sessions.digest().to_le_bytes(),
            &self.garbage.digest().to_le_bytes(),
        ])
    }

    /// All but the entries.
    pub(crate) fn head(&self, clock: Time) -> Checkpoint {
        let (floors, forgotten, stables) = self.garbage.dump();
        let (logs, sealed) = (self.logs.ends(), self.logs.sealed_logs());
        Checkpoint { clock, logs, sealed, floors, forgotten, stables, ..Checkpoint::default() }
    }

    /// All of it, as a checkpoint holds it.
    pub(crate) fn dump(&self, clock: Time) -> Checkpoint {
        Checkpoint {
            cells: self.cells.dump(&self.logs),
            sessions: if is_planted(Mutant::CheckpointWithoutSessions) {
                Vec::new()
            } else {
                self.sessions.dump()
            },
            conditionals: self.cells.conditionals.dump(),
            ..self.head(clock)
        }
    }

    /// From a checkpoint.
    pub(crate) fn restore(checkpoint: &Checkpoint) -> Self {
        let mut logs = Logs::restore(&checkpoint.logs, &checkpoint.sealed);
        let conditionals = Conditionals::restore(&checkpoint.conditionals);
        Self {
            cells: Cells::restore(&checkpoint.cells, conditionals, &mut logs),
            sessions: Sessions::restore(&checkpoint.sessions),
            garbage: Garbage::restore(&checkpoint.floors, &checkpoint.forgotten, &checkpoint.stables),
            logs,
        }
    }
}
