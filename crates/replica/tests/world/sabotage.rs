//! Lies the world can be told to tell, so that each checker is shown to see one.

use tombolo_codec::batch::Place;
use tombolo_codec::{Batch, RecordsBuilder};

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

/// The same batch under the same name, but for its first add; its own digest is right.
pub(crate) fn without_one_add(batch: &Batch) -> Batch {
    let (header, records) = (batch.header(), batch.records());
    let mut builder = RecordsBuilder::new();
    for add in records.adds().skip(1) {
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
        previous: header.previous,
    };
    Batch::close(place, &builder)
}
