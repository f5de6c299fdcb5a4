//! [`Records`]: the records of a batch, read in place.
//!
//! Believes nothing that it has not checked: the archive's structure, and that its columns fit together. Start at
//! `Records::open`.

use rkyv::rancor::Error as RkyvError;
use tombolo_causality::{Epoch, RegionId, Seq, SessionId, Stamp, TenantId, Time};

use super::{
    Add, ArchivedColumns, ArchivedSeal, CellName, Conditional, Expire, NEVER, Seal, SessionOp, Stable, Write,
};
use crate::batch::BatchError;
use crate::digest::PayloadDigest;
use crate::limits;
use crate::op::Kind;

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

    /// Opens a payload that a [`super::RecordsBuilder`] has just written, whose columns fit together.
    pub(crate) fn open_own(payload: &'a [u8]) -> Self {
        let columns =
            rkyv::access::<ArchivedColumns, RkyvError>(payload).expect("the builder writes archives");
        Self { columns }
    }

    /// The columns, to be kept beside their bytes.
    pub(crate) const fn columns(self) -> &'a ArchivedColumns {
        self.columns
    }

    /// The records of columns that were opened before.
    pub(crate) const fn of(columns: &'a ArchivedColumns) -> Self {
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
