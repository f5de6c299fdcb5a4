//! The payload of a batch: columns archived with rkyv, read in place after the batch's digest was verified.
//!
//! Adds of one batch to one cell under one generation are one row: a batch is applied all or nothing, so only its
//! totals matter. Keys stand once, in a dictionary. [`RecordsBuilder`] writes, [`Records`] reads.

mod builder;
mod reader;

use rkyv::{Archive, Deserialize, Serialize};
use tombolo_causality::{Epoch, RegionId, Seq, SessionId, Stamp, TenantId, Time};

use crate::digest::PayloadDigest;
use crate::op::Kind;

pub use builder::RecordsBuilder;
pub use reader::Records;

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
