//! Batches for tests.

use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, Seq, ShardId, TenantId, Time};
use tombolo_codec::batch::Place;
use tombolo_codec::records::Seal;
use tombolo_codec::{Batch, CellName, Kind, RecordsBuilder};

use crate::log::{KnownEnd, WalSettings};

pub(crate) const CLUSTER: ClusterId = ClusterId(0x0dd);

pub(crate) fn region(id: u16) -> RegionId {
    RegionId::new(id).unwrap()
}

/// A log of region 1 in shard 7, or of another region.
pub(crate) fn log_of(id: u16) -> LogId {
    LogId { shard: ShardId(7), region: region(id), epoch: Epoch(0xe0) }
}

/// Small segments, so that logs roll.
pub(crate) fn settings(segment_bytes: u64) -> WalSettings {
    WalSettings { segment_bytes, journal_bytes: 64 * 1_024, ..WalSettings::new(CLUSTER, region(1)) }
}

/// Makes the batches of one log.
#[derive(Clone)]
pub(crate) struct Pen {
    pub(crate) log: LogId,
    pub(crate) cluster: ClusterId,
    pub(crate) end: KnownEnd,
    pub(crate) durable: Seq,
}

impl Pen {
    pub(crate) fn new(log: LogId) -> Self {
        Self { log, cluster: CLUSTER, end: KnownEnd::START, durable: Seq::ZERO }
    }

    /// A batch of about `bytes` more than the least.
    pub(crate) fn next(&mut self, bytes: usize) -> Batch {
        let mut records = RecordsBuilder::new();
        // Chance enough that no stretch of the payload looks like zeros.
        let mut key = Vec::with_capacity(bytes + 8);
        let mut z = self.end.seq.0 ^ self.log.epoch.0 as u64;
        while key.len() < bytes + 8 {
            z = z.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5677) | 1;
            key.extend_from_slice(&(z | 0x0101_0101_0101_0101).to_le_bytes());
        }
        for key in key.chunks(512) {
            records.add(CellName { tenant: TenantId::DEFAULT, kind: Kind::Counter, key }, None, 1);
        }
        self.close(&records)
    }

    /// A batch by which this log takes over another one that ended at `end`.
    pub(crate) fn seal(&mut self, log: LogId, end: Seq) -> Batch {
        let mut records = RecordsBuilder::new();
        records.seal(Seal { region: log.region, epoch: log.epoch, end });
        self.close(&records)
    }

    fn close(&mut self, records: &RecordsBuilder) -> Batch {
        let place = Place {
            cluster: self.cluster,
            log: self.log,
            seq: self.end.seq.next(),
            ops_before: self.end.ops_total,
            clock: Time(self.end.seq.0 + 1),
            durable_through: self.durable,
            previous: self.end.digest.unwrap(),
        };
        let batch = Batch::close(place, records);
        self.end = KnownEnd::after(&batch);
        batch
    }
}
