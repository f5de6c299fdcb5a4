//! The payload of a batch: columns archived with rkyv, read in place after the batch's digest was verified.
//!
//! Adds of one batch to one cell under one generation are one row: a batch is applied all or nothing, so only its
//! totals matter. Keys stand once, in a dictionary. [`RecordsBuilder`] writes, [`Records`] reads.

use hashbrown::{HashMap, HashTable};
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};
use std::hash::{BuildHasher, Hash};
use tombolo_causality::{Epoch, RegionId, Seq, SessionId, Stamp, TenantId, Time};

use crate::batch::BatchError;
use crate::digest::PayloadDigest;
use crate::limits;
use crate::op::Kind;

/// A write without expiry.
const NEVER: u64 = u64::MAX;

/// One log takes over another that has ended at `end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Archive, Serialize, Deserialize)]
pub struct Seal {
    /// Who wrote the sealed log.
    pub region: RegionId,
    /// In which incarnation.
    pub epoch: Epoch,
    /// Its last batch.
    pub end: Seq,
}

/// From its application on, sessions of `home` opened before `before` take nothing, anywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Expire {
    /// Whose sessions.
    pub home: RegionId,
    /// The floor.
    pub before: Time,
}

/// Every member has applied this log through `through`; `members` is how far their own logs were then.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Stable {
    /// Through which batch of the log that holds this record.
    pub through: Seq,
    /// The ends of the members' own logs.
    pub members: Vec<Seal>,
}

/// The columns. Equal-length groups are named by their prefix; `*_ends` are running ends into a blob.
#[derive(Debug, Default, Archive, Serialize)]
pub(crate) struct Columns {
    keys: Vec<u8>,
    cell_ends: Vec<u32>,
    cell_tenants: Vec<u32>,
    cell_kinds: Vec<u8>,

    generations: Vec<Stamp>,
    add_cells: Vec<u32>,
    /// Index into `generations` plus one; 0: the first generation.
    add_generations: Vec<u32>,
    add_positives: Vec<u64>,
    add_negatives: Vec<u64>,

    values: Vec<u8>,
    write_cells: Vec<u32>,
    write_stamps: Vec<Stamp>,
    write_has_value: Vec<bool>,
    write_ends: Vec<u32>,
    write_expiries: Vec<u64>,

    sessions: Vec<SessionId>,
    /// The settled mark this batch records for the session; 0: none.
    session_marks: Vec<u64>,
    op_sessions: Vec<u32>,
    op_numbers: Vec<u64>,
    op_digests: Vec<PayloadDigest>,

    cond_sessions: Vec<u32>,
    cond_numbers: Vec<u64>,
    cond_digests: Vec<PayloadDigest>,
    cond_ends: Vec<u32>,
    cond_cells: Vec<u32>,
    cond_generations: Vec<u32>,
    cond_deltas: Vec<i64>,

    seals: Vec<Seal>,
    expires: Vec<Expire>,
    stables: Vec<Stable>,
}

/// A cell's name: tenant, kind, key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CellName<'a> {
    /// Whose.
    pub tenant: TenantId,
    /// Of which kind.
    pub kind: Kind,
    /// The key.
    pub key: &'a [u8],
}

/// The sum of a batch's adds to one cell under one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Add<'a> {
    /// The counter.
    pub cell: CellName<'a>,
    /// The generation it was admitted under.
    pub generation: Option<Stamp>,
    /// Sum of the positive deltas.
    pub positive: u64,
    /// Sum of the negative deltas, as a positive number.
    pub negative: u64,
}

/// One register write, register delete, or counter delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// The cell.
    pub cell: CellName<'a>,
    /// Its stamp; of a counter: the new generation.
    pub stamp: Stamp,
    /// The value; none: a delete.
    pub value: Option<&'a [u8]>,
    /// When the value stops being visible.
    pub expires_at: Option<Time>,
}

/// A session's request that the authority logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOp {
    /// Which session.
    pub session: SessionId,
    /// Its number.
    pub number: u64,
    /// Of its payload.
    pub digest: PayloadDigest,
}

/// A session's adds logged by a region that is not its authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditional<'a> {
    /// Which session, number and payload.
    pub op: SessionOp,
    /// The adds: cell, generation, delta.
    pub adds: Vec<(CellName<'a>, Option<Stamp>, i64)>,
}

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

/// The records of a verified batch, read in place.
#[derive(Clone, Copy)]
pub struct Records<'a> {
    columns: &'a ArchivedColumns,
}

impl<'a> Records<'a> {
    /// Opens a payload whose digest was verified.
    ///
    /// Errors: [`BatchError::Records`] if it is not an archive of this version or its columns do not fit together.
    pub(crate) fn open(payload: &'a [u8]) -> Result<Self, BatchError> {
        let columns = rkyv::access::<ArchivedColumns, RkyvError>(payload)
            .map_err(|error| BatchError::Records(error.to_string()))?;
        let records = Self { columns };
        records.check().map_err(|what| BatchError::Records(what.to_owned()))?;
        Ok(records)
    }

    /// Opens a payload that [`Records::open`] has accepted before.
    pub(crate) fn reopen(payload: &'a [u8]) -> Self {
        let columns = rkyv::access::<ArchivedColumns, RkyvError>(payload)
            .expect("a batch's payload was checked when the batch was made");
        Self { columns }
    }

    fn check(&self) -> Result<(), &'static str> {
        let c = self.columns;
        let cells = c.cell_ends.len();
        let lengths = [
            (c.cell_tenants.len(), cells),
            (c.cell_kinds.len(), cells),
            (c.add_generations.len(), c.add_cells.len()),
            (c.add_positives.len(), c.add_cells.len()),
            (c.add_negatives.len(), c.add_cells.len()),
            (c.write_stamps.len(), c.write_cells.len()),
            (c.write_has_value.len(), c.write_cells.len()),
            (c.write_ends.len(), c.write_cells.len()),
            (c.write_expiries.len(), c.write_cells.len()),
            (c.session_marks.len(), c.sessions.len()),
            (c.op_sessions.len(), c.op_numbers.len()),
            (c.op_digests.len(), c.op_numbers.len()),
            (c.cond_sessions.len(), c.cond_numbers.len()),
            (c.cond_digests.len(), c.cond_numbers.len()),
            (c.cond_ends.len(), c.cond_numbers.len()),
            (c.cond_generations.len(), c.cond_cells.len()),
            (c.cond_deltas.len(), c.cond_cells.len()),
        ];
        if lengths.iter().any(|(a, b)| a != b) {
            return Err("columns of unequal length");
        }
        check_ends(&c.cell_ends, c.keys.len(), limits::KEY_BYTES_MAX)?;
        check_ends(&c.write_ends, c.values.len(), limits::VALUE_BYTES_MAX)?;
        check_ends(&c.cond_ends, c.cond_cells.len(), limits::REQUEST_OPS_MAX)?;
        if c.cell_kinds.iter().any(|&code| Kind::from_code(code).is_none()) {
            return Err("an unknown kind");
        }
        let below = |column: &rkyv::vec::ArchivedVec<rkyv::rend::unaligned::u32_ule>, len: usize| {
            column.iter().all(|at| (at.to_native() as usize) < len)
        };
        let generations = c.generations.len() + 1;
        if !(below(&c.add_cells, cells)
            && below(&c.write_cells, cells)
            && below(&c.cond_cells, cells)
            && below(&c.add_generations, generations)
            && below(&c.cond_generations, generations)
            && below(&c.op_sessions, c.sessions.len())
            && below(&c.cond_sessions, c.sessions.len()))
        {
            return Err("a row outside its table");
        }
        let is_counter = |at: &rkyv::rend::unaligned::u32_ule| {
            c.cell_kinds[at.to_native() as usize] == Kind::Counter.code()
        };
        if !c.add_cells.iter().chain(c.cond_cells.iter()).all(is_counter) {
            return Err("an add to a register");
        }
        let is_region = |id: u16| RegionId::new(id).is_ok();
        let are_regions = c.generations.iter().all(|s| is_region(s.region.get()))
            && c.write_stamps.iter().all(|s| is_region(s.region.get()))
            && c.sessions.iter().all(|s| is_region(s.home.get()))
            && c.seals.iter().all(|s| is_region(s.region.get()))
            && c.expires.iter().all(|e| is_region(e.home.get()))
            && c.stables.iter().all(|s| s.members.iter().all(|m| is_region(m.region.get())));
        if are_regions { Ok(()) } else { Err("a region id outside 1..=1023") }
    }

    fn cell(&self, at: u32) -> CellName<'a> {
        let c = self.columns;
        let at = at as usize;
        let start = if at == 0 { 0 } else { c.cell_ends[at - 1].to_native() as usize };
        let end = c.cell_ends[at].to_native() as usize;
        CellName {
            tenant: TenantId(c.cell_tenants[at].to_native()),
            kind: Kind::from_code(c.cell_kinds[at]).expect("kinds were checked"),
            key: &c.keys[start..end],
        }
    }

    fn generation(&self, at: u32) -> Option<Stamp> {
        (at > 0).then(|| self.columns.generations[at as usize - 1].native())
    }

    /// How many rows of adds there are.
    #[must_use]
    pub fn adds_len(&self) -> usize {
        self.columns.add_cells.len()
    }

    /// One row of the adds.
    #[must_use]
    pub fn add(&self, at: usize) -> Add<'a> {
        let c = self.columns;
        Add {
            cell: self.cell(c.add_cells[at].to_native()),
            generation: self.generation(c.add_generations[at].to_native()),
            positive: c.add_positives[at].to_native(),
            negative: c.add_negatives[at].to_native(),
        }
    }

    /// The adds, one row per cell and generation.
    pub fn adds(self) -> impl Iterator<Item = Add<'a>> {
        (0..self.adds_len()).map(move |at| self.add(at))
    }

    /// The register writes, register deletes and counter deletes, in order.
    pub fn writes(self) -> impl Iterator<Item = Write<'a>> {
        let c = self.columns;
        let mut start = 0;
        (0..c.write_cells.len()).map(move |at| {
            let end = c.write_ends[at].to_native() as usize;
            let value = c.write_has_value[at].then_some(&c.values[start..end]);
            start = end;
            let expiry = c.write_expiries[at].to_native();
            Write {
                cell: self.cell(c.write_cells[at].to_native()),
                stamp: c.write_stamps[at].native(),
                value,
                expires_at: (expiry != NEVER).then_some(Time(expiry)),
            }
        })
    }

    /// The sessions' requests.
    pub fn ops(self) -> impl Iterator<Item = SessionOp> + use<'a> {
        let c = self.columns;
        (0..c.op_numbers.len()).map(move |at| SessionOp {
            session: c.sessions[c.op_sessions[at].to_native() as usize].native(),
            number: c.op_numbers[at].to_native(),
            digest: PayloadDigest(c.op_digests[at].0),
        })
    }

    /// The settled marks.
    pub fn marks(self) -> impl Iterator<Item = (SessionId, u64)> + use<'a> {
        let c = self.columns;
        (0..c.sessions.len())
            .map(move |at| (c.sessions[at].native(), c.session_marks[at].to_native()))
            .filter(|&(_, mark)| mark > 0)
    }

    /// The conditional requests.
    pub fn conditionals(self) -> impl Iterator<Item = Conditional<'a>> {
        let c = self.columns;
        let mut start = 0;
        (0..c.cond_numbers.len()).map(move |at| {
            let end = c.cond_ends[at].to_native() as usize;
            let adds = (start..end)
                .map(|row| {
                    (
                        self.cell(c.cond_cells[row].to_native()),
                        self.generation(c.cond_generations[row].to_native()),
                        c.cond_deltas[row].to_native(),
                    )
                })
                .collect();
            start = end;
            let op = SessionOp {
                session: c.sessions[c.cond_sessions[at].to_native() as usize].native(),
                number: c.cond_numbers[at].to_native(),
                digest: PayloadDigest(c.cond_digests[at].0),
            };
            Conditional { op, adds }
        })
    }

    /// The logs taken over.
    pub fn seals(self) -> impl Iterator<Item = Seal> + use<'a> {
        self.columns.seals.iter().map(ArchivedSeal::native)
    }

    /// The floors raised.
    pub fn expires(self) -> impl Iterator<Item = Expire> + use<'a> {
        self.columns.expires.iter().map(|expire| Expire {
            home: region(expire.home.get()),
            before: Time(expire.before.0.to_native()),
        })
    }

    /// The stability records.
    pub fn stables(self) -> impl Iterator<Item = Stable> + use<'a> {
        self.columns.stables.iter().map(|stable| Stable {
            through: Seq(stable.through.0.to_native()),
            members: stable.members.iter().map(ArchivedSeal::native).collect(),
        })
    }
}

fn check_ends(
    ends: &rkyv::vec::ArchivedVec<rkyv::rend::unaligned::u32_ule>,
    len: usize,
    each_max: usize,
) -> Result<(), &'static str> {
    let mut start = 0usize;
    for end in ends.iter() {
        let end = end.to_native() as usize;
        if end < start || end - start > each_max {
            return Err("an item of negative or excessive length");
        }
        start = end;
    }
    if start == len { Ok(()) } else { Err("ends that do not meet their blob") }
}

fn region(id: u16) -> RegionId {
    RegionId::new(id).expect("region ids were checked")
}

trait Native<T> {
    fn native(&self) -> T;
}

impl Native<Stamp> for rkyv::Archived<Stamp> {
    fn native(&self) -> Stamp {
        Stamp {
            time: Time(self.time.0.to_native()),
            region: region(self.region.get()),
            op: self.op.to_native(),
        }
    }
}

impl Native<SessionId> for rkyv::Archived<SessionId> {
    fn native(&self) -> SessionId {
        SessionId {
            home: region(self.home.get()),
            epoch: Epoch(self.epoch.0.to_native()),
            opened: Time(self.opened.0.to_native()),
            random: self.random.to_native(),
        }
    }
}

impl Native<Seal> for ArchivedSeal {
    fn native(&self) -> Seal {
        Seal {
            region: region(self.region.get()),
            epoch: Epoch(self.epoch.0.to_native()),
            end: Seq(self.end.0.to_native()),
        }
    }
}
