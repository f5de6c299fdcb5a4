//! Lies that the world can be told to tell, so that each checker is shown to see one.

use std::collections::BTreeMap;

use tombolo_causality::{LogId, Seq, VersionVector};
use tombolo_codec::batch::Place;
use tombolo_codec::{Batch, Digest, RecordsBuilder};

use crate::plan::Fault;

/// What the world lies about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sabotage {
    /// Nothing.
    #[default]
    None,
    /// Disks say that they synced and did not.
    IgnoredSyncs,
    /// A follower is handed batches of another content under the same names.
    AlteredBatches,
    /// A follower acks what it has not synced.
    EarlyAcks,
    /// A region answers hellos with less than it holds.
    LowAnswers,
    /// A sync that failed is said to have worked.
    FailedSyncsHidden,
    /// Bits rot in a log that nobody else holds.
    RotOfTheOnlyCopy,
}

impl Sabotage {
    /// Makes sure that what is to show the lie is among the faults of a seed.
    pub(crate) fn adjust(self, faults: &mut Vec<Fault>) {
        let needed = match self {
            Self::None | Self::AlteredBatches => return,
            Self::IgnoredSyncs | Self::EarlyAcks => Fault::PowerCut,
            Self::LowAnswers => Fault::Restore,
            Self::FailedSyncsHidden => Fault::SyncFailure,
            Self::RotOfTheOnlyCopy => Fault::Rot,
        };
        faults.retain(|fault| *fault != needed);
        faults.insert(0, needed);
        if self == Self::FailedSyncsHidden && !faults.contains(&Fault::PowerCut) {
            faults.push(Fault::PowerCut);
        }
        if self == Self::RotOfTheOnlyCopy {
            faults.retain(|fault| *fault != Fault::Restore);
        }
    }
}

/// An answer that claims half of what is held of every log.
pub(crate) fn lowered(received: &VersionVector) -> VersionVector {
    let mut out = VersionVector::new();
    for ((writer, epoch), seq) in received {
        out.raise(writer, epoch, Seq(seq.0 / 2));
    }
    out
}

/// Hands followers altered logs whose own chain of digests is right: only the digest of the state can show it.
#[derive(Debug, Default)]
pub(crate) struct Forger {
    /// The last batch of a log that a node was handed, once one of them was altered.
    altered: BTreeMap<(usize, LogId), (Seq, Digest)>,
}

impl Forger {
    /// What a node gets instead of a batch; `is_due`: lie about this one, if it holds an add.
    pub(crate) fn pass(&mut self, to: usize, batch: Batch, is_due: bool) -> Option<Batch> {
        let place = (to, batch.header().log);
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
    records.conditionals().for_each(|conditional| builder.conditional(&conditional));
    records.seals().for_each(|seal| builder.seal(seal));
    Batch::close(Place { previous, ..Place::of(header) }, &builder)
}
