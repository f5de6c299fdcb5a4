//! [`RecordsBuilder`]: collects the records of one batch, and what admission asks of a batch that is not closed yet.
//!
//! Never reads a payload; that is [`super::Records`]. Start at [`RecordsBuilder::add`].

use std::hash::{BuildHasher, Hash};

use hashbrown::{HashMap, HashTable};
use rkyv::rancor::Error as RkyvError;
use tombolo_causality::{SessionId, Stamp, Time};

use super::{CellName, Columns, Conditional, Expire, NEVER, Seal, SessionOp, Stable, Write};
use crate::op::Kind;

/// Collects the records of one batch.
#[derive(Debug, Default)]
pub struct RecordsBuilder {
    columns: Columns,
    cells: HashTable<u32>,
    adds: HashTable<u32>,
    /// Rows of the generations plus one.
    generation_rows: HashTable<u32>,
    /// Per add row: the sum of its cell's deltas under its generation, also over rows that are full.
    sums: Vec<i128>,
    /// Per cell and generation: the sum of the conditional adds.
    conditional_sums: HashMap<(u32, u32), i128, foldhash::fast::FixedState>,
    /// Per cell: the row of its winner among the writes plus one; 0: none.
    last_writes: Vec<u32>,
    session_rows: HashTable<u32>,
    ops_count: u32,
    stamps: Option<(Time, Time)>,
}

fn hash_of(value: &impl Hash) -> u64 {
    foldhash::fast::FixedState::with_seed(0x746f_6d62_6f6c_6f32).hash_one(value)
}

fn row(len: usize) -> u32 {
    u32::try_from(len).expect("a batch is closed long before 2^32 rows")
}

fn span(ends: &[u32], at: usize) -> std::ops::Range<usize> {
    let start = if at == 0 { 0 } else { ends[at - 1] as usize };
    start..ends[at] as usize
}

impl Columns {
    fn cell(&self, at: u32) -> (u32, u8, &[u8]) {
        let at = at as usize;
        (self.cell_tenants[at], self.cell_kinds[at], &self.keys[span(&self.cell_ends, at)])
    }
}

impl RecordsBuilder {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to log.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let columns = &self.columns;
        self.ops_count == 0
            && columns.op_numbers.is_empty()
            && columns.cond_numbers.is_empty()
            && columns.seals.is_empty()
            && columns.expires.is_empty()
            && columns.stables.is_empty()
    }

    /// How many ops it holds: each add, set and delete counts one.
    #[must_use]
    pub fn ops_count(&self) -> u32 {
        self.ops_count
    }

    /// How many writes it holds: sets and deletes.
    #[must_use]
    pub fn writes_count(&self) -> usize {
        self.columns.write_cells.len()
    }

    /// How many of the writes delete a counter.
    #[must_use]
    pub fn counter_deletes_count(&self) -> usize {
        let is_counter = |&&cell: &&u32| self.columns.cell_kinds[cell as usize] == Kind::Counter.code();
        self.columns.write_cells.iter().filter(is_counter).count()
    }

    /// About how long the payload will be.
    #[must_use]
    pub fn bytes_estimate(&self) -> usize {
        let columns = &self.columns;
        columns.keys.len()
            + columns.values.len()
            + columns.cell_ends.len() * 9
            + columns.add_cells.len() * 24
            + columns.write_cells.len() * 43
            + columns.op_numbers.len() * 28
            + columns.cond_numbers.len() * 32
            + columns.cond_cells.len() * 16
            + columns.sessions.len() * 42
    }

    fn cell(&mut self, name: CellName<'_>) -> u32 {
        let wanted = (name.tenant.0, name.kind.code(), name.key);
        let columns = &mut self.columns;
        let hash = hash_of(&wanted);
        if let Some(&at) = self.cells.find(hash, |&at| columns.cell(at) == wanted) {
            return at;
        }
        let at = row(columns.cell_ends.len());
        columns.keys.extend_from_slice(name.key);
        columns.cell_ends.push(row(columns.keys.len()));
        columns.cell_tenants.push(name.tenant.0);
        columns.cell_kinds.push(name.kind.code());
        self.last_writes.push(0);
        let columns = &self.columns;
        self.cells.insert_unique(hash, at, |&at| hash_of(&columns.cell(at)));
        at
    }

    fn generation(&mut self, generation: Option<Stamp>) -> u32 {
        if let Some(known) = self.find_generation(generation) {
            return known;
        }
        let Some(stamp) = generation else { return 0 };
        let generations = &mut self.columns.generations;
        generations.push(stamp);
        let at = row(generations.len());
        self.generation_rows.insert_unique(hash_of(&stamp), at, |&at| hash_of(&generations[at as usize - 1]));
        at
    }

    /// What stands for a generation in the columns, if any row is under it.
    fn find_generation(&self, generation: Option<Stamp>) -> Option<u32> {
        let Some(stamp) = generation else { return Some(0) };
        let is_it = |&at: &u32| self.columns.generations[at as usize - 1] == stamp;
        self.generation_rows.find(hash_of(&stamp), is_it).copied()
    }

    /// Adds to a counter under the generation it was admitted under.
    pub fn add(&mut self, cell: CellName<'_>, generation: Option<Stamp>, delta: i64) {
        debug_assert!(cell.kind == Kind::Counter, "only counters go up and down");
        self.ops_count += 1;
        let cell = self.cell(cell);
        let generation = self.generation(generation);
        let (positive, negative) = (delta.max(0).unsigned_abs(), delta.min(0).unsigned_abs());
        let columns = &mut self.columns;
        let hash = hash_of(&(cell, generation));
        let same = |&at: &u32| {
            columns.add_cells[at as usize] == cell && columns.add_generations[at as usize] == generation
        };
        let fresh = row(columns.add_cells.len());
        let mut sum = i128::from(delta);
        match self.adds.find_mut(hash, same) {
            Some(slot) => {
                let at = *slot as usize;
                sum += self.sums[at];
                let sums = (
                    columns.add_positives[at].checked_add(positive),
                    columns.add_negatives[at].checked_add(negative),
                );
                if let (Some(positive), Some(negative)) = sums {
                    columns.add_positives[at] = positive;
                    columns.add_negatives[at] = negative;
                    self.sums[at] = sum;
                    return;
                }
                // The row is full: go on in another one for the same cell; rows add up.
                *slot = fresh;
            }
            None => {
                let (cells, generations) = (&columns.add_cells, &columns.add_generations);
                self.adds.insert_unique(hash, fresh, |&at| match cells.get(at as usize) {
                    Some(&cell) => hash_of(&(cell, generations[at as usize])),
                    None => hash,
                });
            }
        }
        columns.add_cells.push(cell);
        columns.add_generations.push(generation);
        columns.add_positives.push(positive);
        columns.add_negatives.push(negative);
        self.sums.push(sum);
    }

    fn find(&self, name: CellName<'_>) -> Option<u32> {
        let wanted = (name.tenant.0, name.kind.code(), name.key);
        self.cells.find(hash_of(&wanted), |&at| self.columns.cell(at) == wanted).copied()
    }

    /// Whether any record names the cell.
    #[must_use]
    pub fn names(&self, cell: CellName<'_>) -> bool {
        self.find(cell).is_some()
    }

    /// The stamp of the write to a cell that wins, and whether it leaves a value.
    #[must_use]
    pub fn last_write(&self, cell: CellName<'_>) -> Option<(Stamp, bool)> {
        let at = self.last_writes[self.find(cell)? as usize].checked_sub(1)? as usize;
        Some((self.columns.write_stamps[at], self.columns.write_has_value[at]))
    }

    /// The sum of the adds to a counter under a generation, conditional ones included; none if there are none.
    #[must_use]
    pub fn sum(&self, cell: CellName<'_>, generation: Option<Stamp>) -> Option<i128> {
        let (cell, generation) = (self.find(cell)?, self.find_generation(generation)?);
        let columns = &self.columns;
        let is_it = |&at: &u32| {
            columns.add_cells[at as usize] == cell && columns.add_generations[at as usize] == generation
        };
        let sum = self.adds.find(hash_of(&(cell, generation)), is_it).map(|&at| self.sums[at as usize]);
        sum.into_iter().chain(self.conditional_sums.get(&(cell, generation)).copied()).reduce(|a, b| a + b)
    }

    /// Writes or deletes a register, or deletes a counter.
    pub fn write(&mut self, write: Write<'_>) {
        self.ops_count += 1;
        let cell = self.cell(write.cell);
        let columns = &mut self.columns;
        // A late copy of an older write is logged, but does not win: the greatest stamp counts, as when applied.
        let last = &mut self.last_writes[cell as usize];
        let is_winner = |at: u32| write.stamp >= columns.write_stamps[at as usize - 1];
        if *last == 0 || is_winner(*last) {
            *last = row(columns.write_cells.len() + 1);
        }
        columns.write_cells.push(cell);
        columns.write_stamps.push(write.stamp);
        columns.write_has_value.push(write.value.is_some());
        columns.values.extend_from_slice(write.value.unwrap_or_default());
        columns.write_ends.push(row(columns.values.len()));
        columns.write_expiries.push(write.expires_at.map_or(NEVER, |at| at.0));
        let time = write.stamp.time;
        self.stamps = Some(self.stamps.map_or((time, time), |(low, high)| (low.min(time), high.max(time))));
    }

    fn session(&mut self, session: SessionId) -> u32 {
        let columns = &mut self.columns;
        let hash = hash_of(&session);
        if let Some(&at) = self.session_rows.find(hash, |&at| columns.sessions[at as usize] == session) {
            return at;
        }
        let at = row(columns.sessions.len());
        columns.sessions.push(session);
        columns.session_marks.push(0);
        let columns = &self.columns;
        self.session_rows.insert_unique(hash, at, |&at| hash_of(&columns.sessions[at as usize]));
        at
    }

    /// Records a request of a session, as its authority.
    pub fn op(&mut self, op: SessionOp) {
        let session = self.session(op.session);
        let columns = &mut self.columns;
        columns.op_sessions.push(session);
        columns.op_numbers.push(op.number);
        columns.op_digests.push(op.digest);
    }

    /// Records a session's settled mark; the greatest of a batch counts.
    pub fn mark(&mut self, session: SessionId, mark: u64) {
        let at = self.session(session) as usize;
        let known = &mut self.columns.session_marks[at];
        *known = mark.max(*known);
    }

    /// Records a session's adds, as a region that is not its authority.
    pub fn conditional(&mut self, conditional: &Conditional<'_>) {
        let session = self.session(conditional.op.session);
        for &(cell, generation, delta) in &conditional.adds {
            let cell = self.cell(cell);
            let generation = self.generation(generation);
            self.columns.cond_cells.push(cell);
            self.columns.cond_generations.push(generation);
            self.columns.cond_deltas.push(delta);
            *self.conditional_sums.entry((cell, generation)).or_default() += i128::from(delta);
            self.ops_count += 1;
        }
        let columns = &mut self.columns;
        columns.cond_sessions.push(session);
        columns.cond_numbers.push(conditional.op.number);
        columns.cond_digests.push(conditional.op.digest);
        columns.cond_ends.push(row(columns.cond_cells.len()));
    }

    /// Whether it takes over any log.
    #[must_use]
    pub fn has_seals(&self) -> bool {
        !self.columns.seals.is_empty()
    }

    /// Takes over another log.
    pub fn seal(&mut self, seal: Seal) {
        self.columns.seals.push(seal);
    }

    /// Raises the floor under a home's sessions.
    pub fn expire(&mut self, expire: Expire) {
        self.columns.expires.push(expire);
    }

    /// Says what every member holds.
    pub fn stable(&mut self, stable: Stable) {
        self.columns.stables.push(stable);
    }

    /// The least and greatest time of its stamps; none if it fixed no stamp.
    #[must_use]
    pub fn stamps(&self) -> Option<(Time, Time)> {
        self.stamps
    }

    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> rkyv::util::AlignedVec {
        rkyv::to_bytes::<RkyvError>(&self.columns).expect("encoding into memory cannot fail")
    }
}
