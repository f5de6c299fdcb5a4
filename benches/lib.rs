//! What the benches share: names, batches and a few regions in one process, all from fixed seeds.
//!
//! Nothing here measures. `regions.rs` wires state machines to one another without disk or network.

mod regions;

use bytes::Bytes;
use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, Seq, ShardId, TenantId, Time};
use tombolo_codec::batch::Place;
use tombolo_codec::{Batch, CellName, Digest, Kind, RecordsBuilder};

pub use regions::{Regions, options};

/// The cluster of every bench.
pub const CLUSTER: ClusterId = ClusterId(0x746f_6d62_6f6c_6f00);
/// The shard of every bench.
pub const SHARD: ShardId = ShardId(0);
/// A wall reading.
pub const WALL: Time = Time(1_700_000_000 << 32);

/// A region by its number.
#[must_use]
pub fn region(id: u16) -> RegionId {
    RegionId::new(id).expect("bench regions are within bounds")
}

/// A region's log.
#[must_use]
pub fn log(id: u16) -> LogId {
    LogId { shard: SHARD, region: region(id), epoch: Epoch(u128::from(id)) }
}

/// Key names, made once: making them is not what is measured.
#[must_use]
pub fn keys(count: usize) -> Vec<Bytes> {
    (0..count).map(|number| Bytes::from(format!("bench:{number}"))).collect()
}

/// A cheap seeded sequence; the same numbers in every run.
#[derive(Debug, Clone, Copy)]
pub struct Sequence(u64);

impl Sequence {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, by splitmix64.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut out = self.0;
        out = (out ^ (out >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        out = (out ^ (out >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out ^ (out >> 31)
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).expect("a length fits in 64 bits");
        usize::try_from(self.draw() % bound).expect("below a length")
    }
}

/// Records of `adds_count` adds over `keys`, drawn uniformly.
#[must_use]
pub fn adds(keys: &[Bytes], adds_count: usize, seed: u64) -> RecordsBuilder {
    let mut sequence = Sequence::new(seed);
    let mut records = RecordsBuilder::new();
    for _ in 0..adds_count {
        let key = &keys[sequence.below(keys.len())];
        let delta = if sequence.draw().is_multiple_of(4) { -1 } else { 1 };
        records.add(CellName { tenant: TenantId::DEFAULT, kind: Kind::Counter, key }, None, delta);
    }
    records
}

/// Closes records into the batch after `previous`.
#[must_use]
pub fn close(log: LogId, previous: Option<&Batch>, records: &RecordsBuilder) -> Batch {
    let header = previous.map(Batch::header);
    let place = Place {
        cluster: CLUSTER,
        log,
        seq: header.map_or(Seq(1), |header| header.seq.next()),
        ops_before: header.map_or(0, |header| header.ops_total),
        clock: WALL,
        durable_through: Seq(header.map_or(0, |header| header.seq.0)),
        previous: header.map_or(Digest::ZERO, |header| header.digest),
    };
    Batch::close(place, records)
}
