//! One batch and one checkpoint that use every column and every field at least once. Their bytes are pinned.

// Each test file uses its part of it.
#![allow(dead_code)]

use bytes::Bytes;
use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, Seq, SessionId, ShardId, Stamp, TenantId, Time};
use tombolo_codec::batch::Place;
use tombolo_codec::checkpoint::{
    CellContent, CellState, ConditionalAdd, ConditionalState, FloorState, LogEnd, NumberState, SealedLog,
    SessionState, SlotState, StableState,
};
use tombolo_codec::records::{Conditional, Expire, Seal, SessionOp, Stable, Write};
use tombolo_codec::{Batch, CellName, Checkpoint, Digest, Kind, PayloadDigest, RecordsBuilder};

pub(crate) const CLUSTER: ClusterId = ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
pub(crate) const SHARD: ShardId = ShardId(7);

pub(crate) fn region(id: u16) -> RegionId {
    RegionId::new(id).expect("the sample names possible regions")
}

pub(crate) fn stamp(time: u64) -> Stamp {
    Stamp { time: Time(time), region: region(2), op: 0xabcd << 64 | u128::from(time) }
}

pub(crate) fn session(random: u64) -> SessionId {
    SessionId { home: region(3), epoch: Epoch(0x55), opened: Time(900), random }
}

pub(crate) fn cell(kind: Kind, key: &str) -> CellName<'_> {
    CellName { tenant: TenantId::DEFAULT, kind, key: key.as_bytes() }
}

pub(crate) fn place() -> Place {
    Place {
        cluster: CLUSTER,
        log: LogId { shard: SHARD, region: region(2), epoch: Epoch(0x1234_5678_9abc) },
        seq: Seq(42),
        ops_before: 1_000,
        clock: Time(5_000),
        durable_through: Seq(41),
        previous: Digest::of(&[b"the batch before"]),
    }
}

pub(crate) fn records() -> RecordsBuilder {
    let mut records = RecordsBuilder::new();
    let views = cell(Kind::Counter, "views:1");
    records.add(views, None, 5);
    records.add(views, None, -2);
    records.add(views, Some(stamp(70)), 1);
    records.add(cell(Kind::Counter, "stock"), None, i64::MIN);
    let write = |key, kind, time, value, expires_at| Write {
        cell: cell(kind, key),
        stamp: stamp(time),
        value,
        expires_at,
    };
    records.write(write("profile:1", Kind::Register, 80, Some(&b"Ada"[..]), None));
    records.write(write("profile:2", Kind::Register, 81, Some(&b""[..]), Some(Time(99))));
    records.write(write("profile:1", Kind::Register, 82, None, None));
    records.write(write("stock", Kind::Counter, 79, None, None));
    let op = |session, number| SessionOp { session, number, digest: PayloadDigest([number as u8; 16]) };
    records.op(op(session(1), 7));
    records.mark(session(1), 6);
    records.conditional(&Conditional {
        op: op(session(2), 9),
        adds: vec![(views, Some(stamp(70)), -4), (cell(Kind::Counter, "likes"), None, 11)],
    });
    records.seal(Seal { region: region(2), epoch: Epoch(0x1111), end: Seq(300) });
    records.expire(Expire { home: region(2), before: Time(60) });
    records.stable(Stable {
        through: Seq(40),
        members: vec![
            Seal { region: region(1), epoch: Epoch(1), end: Seq(10) },
            Seal { region: region(3), epoch: Epoch(3), end: Seq(30) },
        ],
    });
    records
}

pub(crate) fn batch() -> Batch {
    Batch::close(place(), &records())
}

pub(crate) fn batch_bytes() -> Bytes {
    batch().bytes().clone()
}

pub(crate) fn checkpoint() -> Checkpoint {
    let dot = Seal { region: region(2), epoch: Epoch(2), end: Seq(20) };
    let digest = PayloadDigest([9; 16]);
    Checkpoint {
        clock: Time(5_000),
        logs: vec![LogEnd {
            region: region(2),
            epoch: Epoch(2),
            seq: Seq(20),
            digest: Digest::of(&[b"its last batch"]),
            ops_total: 1_008,
            clock: Time(4_999),
        }],
        sealed: vec![SealedLog { seal: dot, by_region: region(2), by_epoch: Epoch(3), by_seq: Seq(1) }],
        cells: vec![
            CellState {
                tenant: 1,
                kind: Kind::Counter,
                key: b"views:1".to_vec(),
                content: CellContent::Counter {
                    generation: Some(stamp(70)),
                    slots: vec![SlotState {
                        region: region(2),
                        epoch: Epoch(2),
                        positive: u128::from(u64::MAX) + 1,
                        negative: 4,
                    }],
                },
            },
            CellState {
                tenant: 1,
                kind: Kind::Register,
                key: b"profile:1".to_vec(),
                content: CellContent::Register {
                    stamp: stamp(80),
                    value: Some(b"Ada".to_vec()),
                    expires_at: Some(Time(99)),
                    dot,
                },
            },
        ],
        sessions: vec![SessionState {
            id: session(1),
            mark: 6,
            numbers: vec![NumberState { number: 7, digest }],
        }],
        conditionals: vec![ConditionalState {
            session: session(2),
            number: 9,
            digest,
            dot,
            adds: vec![ConditionalAdd { tenant: 1, key: b"likes".to_vec(), generation: None, delta: -11 }],
        }],
        floors: vec![FloorState { floor: Expire { home: region(2), before: Time(60) }, dot }],
        forgotten: vec![Expire { home: region(2), before: Time(50) }],
        stables: vec![StableState { stable: Stable { through: Seq(4), members: vec![dot] }, dot }],
    }
}
