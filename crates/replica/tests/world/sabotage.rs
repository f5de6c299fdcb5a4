//! Lies the world can be told to tell, so that each checker is shown to see one.

use std::collections::BTreeMap;

use tombolo_causality::Seq;
use tombolo_codec::batch::Place;
use tombolo_codec::{Batch, Digest, RecordsBuilder};

use crate::disk::{LogName, name_of};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twin {
    /// Nothing but honest faults: crashes, cuts, pauses.
    Honest,
    /// Honest, and disks that come back older.
    RollsBack,
    /// The disk says durable and keeps nothing.
    LosesDurable,
    /// A follower is handed a batch that lacks one add.
    AltersBatch,
    /// A follower acks what it has not synced.
    AcksEarly,
    /// A peer's answer to a hello claims less than it holds; disks come back older.
    AnswersLow,
}

/// Hands followers altered logs whose own chain of digests is right: only the digest of the state can show it.
#[derive(Default)]
pub(crate) struct Forger {
    /// The last batch of a log that a region was handed, once one of them was altered.
    altered: BTreeMap<(usize, LogName), (Seq, Digest)>,
}

impl Forger {
    /// What a region gets instead of a batch; `is_due`: lie about this one, if it holds an add.
    pub(crate) fn pass(&mut self, to: usize, batch: Batch, is_due: bool) -> Option<Batch> {
        let place = (to, name_of(&batch));
        let before = self.altered.get(&place).copied();
        let is_lie = before.is_none() && is_due && batch.records().adds_len() > 0;
        if before.is_none() && !is_lie {
            return Some(batch);
        }
        if before.is_some_and(|(seq, _)| batch.header().seq != seq.next()) {
            return None;
        }
        let previous = before.map_or(batch.header().previous, |(_, digest)| digest);
        let batch = rebuilt(&batch, previous, usize::from(is_lie));
        self.altered.insert(place, (batch.header().seq, batch.header().digest));
        Some(batch)
    }
}

/// A batch under the same name after another one, without its first adds; its own digest is right.
fn rebuilt(batch: &Batch, previous: Digest, adds_left_out: usize) -> Batch {
    let (header, records) = (batch.header(), batch.records());
    let mut builder = RecordsBuilder::new();
    for add in records.adds().skip(adds_left_out) {
        builder.add(add.cell, add.generation, add.positive.cast_signed());
        builder.add(add.cell, add.generation, -add.negative.cast_signed());
    }
    records.writes().for_each(|write| builder.write(write));
    records.ops().for_each(|op| builder.op(op));
    records.marks().for_each(|(session, mark)| builder.mark(session, mark));
    records.seals().for_each(|seal| builder.seal(seal));
    let place = Place {
        cluster: header.cluster,
        log: header.log,
        seq: header.seq,
        ops_before: 0,
        clock: header.clock,
        durable_through: header.durable_through,
        previous,
    };
    Batch::close(place, &builder)
}
