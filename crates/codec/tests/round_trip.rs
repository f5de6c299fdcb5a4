//! What goes into a batch or checkpoint comes out of it, for any content.

mod sample;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use sample::{CLUSTER, SHARD, place, region};
use tombolo_causality::{Epoch, Seq, SessionId, Stamp, TenantId, Time};
use tombolo_codec::checkpoint::{CellContent, CellState, NumberState, SessionState, SlotState};
use tombolo_codec::records::{Conditional, Expire, Seal, SessionOp, Stable, Write};
use tombolo_codec::{Batch, CellName, Checkpoint, Kind, PayloadDigest, RecordsBuilder};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    tenant: u32,
    key: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Step {
    Add { cell: Cell, generation: Option<Stamp>, delta: i64 },
    Write { cell: Cell, kind: Kind, stamp: Stamp, value: Option<Vec<u8>>, expires_at: Option<Time> },
    Op(SessionOp),
    Mark(SessionId, u64),
    Conditional { op: SessionOp, adds: Vec<(Cell, Option<Stamp>, i64)> },
    Seal(Seal),
    Expire(Expire),
    Stable(Stable),
}

impl Cell {
    fn name(&self, kind: Kind) -> CellName<'_> {
        CellName { tenant: TenantId(self.tenant), kind, key: &self.key }
    }
}

/// Few and short, so that cells meet again.
fn cell() -> impl Strategy<Value = Cell> {
    (0u32..2, vec(0u8..2, 0..3)).prop_map(|(tenant, key)| Cell { tenant, key })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (0u64..6, 1u16..=1_023, any::<u128>()).prop_map(|(time, id, op)| Stamp {
        time: Time(time),
        region: region(id),
        op,
    })
}

fn generation() -> impl Strategy<Value = Option<Stamp>> {
    option::of((0u64..12).prop_map(|time| Stamp { time: Time(time), region: region(1), op: 0 }))
}

fn delta() -> impl Strategy<Value = i64> {
    prop_oneof![Just(i64::MAX), Just(i64::MIN), -3i64..4]
}

fn session() -> impl Strategy<Value = SessionId> {
    (1u16..4, 0u64..3).prop_map(|(home, random)| SessionId {
        home: region(home),
        epoch: Epoch(5),
        opened: Time(6),
        random,
    })
}

fn op() -> impl Strategy<Value = SessionOp> {
    (session(), any::<u64>(), any::<[u8; 16]>()).prop_map(|(session, number, digest)| SessionOp {
        session,
        number,
        digest: PayloadDigest(digest),
    })
}

fn seal() -> impl Strategy<Value = Seal> {
    (1u16..=1_023, any::<u128>(), any::<u64>()).prop_map(|(id, epoch, end)| Seal {
        region: region(id),
        epoch: Epoch(epoch),
        end: Seq(end),
    })
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(Kind::Counter), Just(Kind::Register)];
    // The end of time stands for "never".
    let expiry = option::of((0..u64::MAX).prop_map(Time));
    prop_oneof![
        6 => (cell(), generation(), delta())
            .prop_map(|(cell, generation, delta)| Step::Add { cell, generation, delta }),
        3 => (cell(), kind, stamp(), option::of(vec(any::<u8>(), 0..20)), expiry).prop_map(
            |(cell, kind, stamp, value, expires_at)| Step::Write { cell, kind, stamp, value, expires_at }
        ),
        2 => op().prop_map(Step::Op),
        1 => (session(), 1u64..9).prop_map(|(session, mark)| Step::Mark(session, mark)),
        1 => (op(), vec((cell(), generation(), delta()), 0..4))
            .prop_map(|(op, adds)| Step::Conditional { op, adds }),
        1 => seal().prop_map(Step::Seal),
        1 => (1u16..4, any::<u64>())
            .prop_map(|(home, before)| Step::Expire(Expire { home: region(home), before: Time(before) })),
        1 => (any::<u64>(), vec(seal(), 0..3))
            .prop_map(|(through, members)| Step::Stable(Stable { through: Seq(through), members })),
    ]
}

type Sums = BTreeMap<(u32, Vec<u8>, Option<Stamp>), (u128, u128)>;

fn add_to(sums: &mut Sums, cell: &Cell, generation: Option<Stamp>, positive: u128, negative: u128) -> i128 {
    let sum = sums.entry((cell.tenant, cell.key.clone(), generation)).or_default();
    sum.0 += positive;
    sum.1 += negative;
    i128::try_from(sum.0).expect("sums are far below") - i128::try_from(sum.1).expect("sums are far below")
}

fn conditional<'a>(op: SessionOp, adds: &'a [(Cell, Option<Stamp>, i64)]) -> Conditional<'a> {
    let adds = adds.iter().map(|(cell, generation, delta)| (cell.name(Kind::Counter), *generation, *delta));
    Conditional { op, adds: adds.collect() }
}

/// What a reader must find.
#[derive(Default)]
struct Expected {
    sums: Sums,
    /// Staged sums count what is conditional, too.
    conditional_sums: BTreeMap<(Cell, Option<Stamp>), i128>,
    marks: BTreeMap<SessionId, u64>,
    ops_count: u32,
    stamps: Option<(Time, Time)>,
}

fn build(steps: &[Step], expected: &mut Expected) -> RecordsBuilder {
    let mut records = RecordsBuilder::new();
    for step in steps {
        match step {
            Step::Add { cell, generation, delta } => {
                expected.ops_count += 1;
                let (positive, negative) =
                    (u128::from(delta.max(&0).unsigned_abs()), delta.min(&0).unsigned_abs());
                let running = add_to(&mut expected.sums, cell, *generation, positive, u128::from(negative));
                records.add(cell.name(Kind::Counter), *generation, *delta);
                let conditional = expected.conditional_sums.get(&(cell.clone(), *generation));
                let staged = running + conditional.copied().unwrap_or_default();
                assert_eq!(records.sum(cell.name(Kind::Counter), *generation), Some(staged), "{cell:?}");
            }
            Step::Write { cell, kind, stamp, value, expires_at } => {
                expected.ops_count += 1;
                let (low, high) = expected.stamps.unwrap_or((stamp.time, stamp.time));
                expected.stamps = Some((low.min(stamp.time), high.max(stamp.time)));
                let (value, expires_at) = (value.as_deref(), *expires_at);
                records.write(Write { cell: cell.name(*kind), stamp: *stamp, value, expires_at });
            }
            Step::Op(op) => records.op(*op),
            Step::Mark(session, mark) => {
                let known = expected.marks.entry(*session).or_default();
                *known = (*known).max(*mark);
                records.mark(*session, *mark);
            }
            Step::Conditional { op, adds } => {
                expected.ops_count += adds.len() as u32;
                for (cell, generation, delta) in adds {
                    let sum = expected.conditional_sums.entry((cell.clone(), *generation)).or_default();
                    *sum += i128::from(*delta);
                }
                records.conditional(&conditional(*op, adds));
            }
            Step::Seal(seal) => records.seal(*seal),
            Step::Expire(expire) => records.expire(*expire),
            Step::Stable(stable) => records.stable(stable.clone()),
        }
    }
    records
}

proptest! {
    #[test]
    fn records_come_out_of_a_verified_batch_as_they_went_in(steps in vec(step(), 0..60)) {
        let mut expected = Expected::default();
        let built = build(&steps, &mut expected);
        let closed = Batch::close(place(), &built);
        let batch = Batch::verify(closed.bytes().clone(), CLUSTER).unwrap();
        prop_assert_eq!(batch.header(), closed.header());
        prop_assert_eq!(batch.header().ops_count, expected.ops_count);
        prop_assert_eq!(batch.header().ops_total, place().ops_before + u64::from(expected.ops_count));
        prop_assert_eq!(batch.header().stamps, expected.stamps.unwrap_or_default());

        let records = batch.records();
        let mut sums = Sums::new();
        for add in records.adds() {
            prop_assert_eq!(add.cell.kind, Kind::Counter);
            let cell = Cell { tenant: add.cell.tenant.0, key: add.cell.key.to_vec() };
            let (positive, negative) = (u128::from(add.positive), u128::from(add.negative));
            add_to(&mut sums, &cell, add.generation, positive, negative);
        }
        prop_assert_eq!(sums, expected.sums);
        prop_assert_eq!(records.marks().collect::<BTreeMap<_, _>>(), expected.marks);

        let mut writes = records.writes();
        let mut ops = records.ops();
        let mut conditionals = records.conditionals();
        let (mut seals, mut expires, mut stables) = (records.seals(), records.expires(), records.stables());
        for step in &steps {
            match step {
                Step::Add { .. } | Step::Mark(..) => {}
                Step::Write { cell, kind, stamp, value, expires_at } => {
                    let (value, expires_at) = (value.as_deref(), *expires_at);
                    let write = Write { cell: cell.name(*kind), stamp: *stamp, value, expires_at };
                    prop_assert_eq!(writes.next(), Some(write));
                }
                Step::Op(op) => prop_assert_eq!(ops.next(), Some(*op)),
                Step::Conditional { op, adds } => {
                    prop_assert_eq!(conditionals.next(), Some(conditional(*op, adds)));
                }
                Step::Seal(seal) => prop_assert_eq!(seals.next(), Some(*seal)),
                Step::Expire(expire) => prop_assert_eq!(expires.next(), Some(*expire)),
                Step::Stable(stable) => prop_assert_eq!(stables.next(), Some(stable.clone())),
            }
        }
        prop_assert!(writes.next().is_none() && ops.next().is_none() && conditionals.next().is_none());
        prop_assert!(seals.next().is_none() && expires.next().is_none() && stables.next().is_none());
    }

    #[test]
    fn a_checkpoint_decodes_to_what_it_was(
        clock in any::<u64>(),
        cells in vec((any::<u32>(), vec(any::<u8>(), 0..9), any::<u128>(), option::of(stamp()), seal()), 0..9),
        sessions in vec((session(), any::<u64>(), vec(any::<u64>(), 0..5)), 0..5),
    ) {
        let cell = |(tenant, key, total, generation, dot): (u32, Vec<u8>, u128, Option<Stamp>, Seal)| {
            let slot = SlotState { region: dot.region, epoch: dot.epoch, positive: total, negative: !total };
            let (kind, content) = match generation {
                Some(stamp) if total % 2 == 0 => {
                    let value = (total % 4 == 0).then(|| key.clone());
                    (Kind::Register, CellContent::Register { stamp, value, expires_at: None, dot })
                }
                generation => (Kind::Counter, CellContent::Counter { generation, slots: vec![slot] }),
            };
            CellState { tenant, kind, key, content }
        };
        let session = |(id, mark, numbers): (SessionId, u64, Vec<u64>)| {
            let digest = PayloadDigest([3; 16]);
            let numbers = numbers.into_iter().map(|number| NumberState { number, digest }).collect();
            SessionState { id, mark, numbers }
        };
        let checkpoint = Checkpoint {
            clock: Time(clock),
            cells: cells.into_iter().map(cell).collect(),
            sessions: sessions.into_iter().map(session).collect(),
            ..sample::checkpoint()
        };
        let bytes = checkpoint.encode(CLUSTER, SHARD).unwrap();
        prop_assert_eq!(Checkpoint::decode(&bytes, CLUSTER, SHARD), Ok(checkpoint));
    }
}

#[test]
fn a_sum_beyond_a_column_goes_on_in_another_row() {
    let counter = sample::cell(Kind::Counter, "stock");
    let mut records = RecordsBuilder::new();
    for _ in 0..5 {
        records.add(counter, None, i64::MAX);
        records.add(counter, None, i64::MIN);
    }
    let batch = Batch::close(place(), &records);
    let rows: Vec<_> = batch.records().adds().collect();
    assert!(rows.len() > 1, "five times 2^63 do not fit u64");
    let sum = |of: fn(&tombolo_codec::records::Add<'_>) -> u64| rows.iter().map(|r| u128::from(of(r))).sum();
    let (positive, negative): (u128, u128) = (sum(|row| row.positive), sum(|row| row.negative));
    assert_eq!(positive, 5 * u128::from(i64::MAX.unsigned_abs()));
    assert_eq!(negative, 5 * u128::from(i64::MIN.unsigned_abs()));
}

#[test]
fn an_empty_builder_says_so_and_any_record_ends_that() {
    let mut steps = vec![
        Step::Op(SessionOp { session: sample::session(1), number: 1, digest: PayloadDigest([0; 16]) }),
        Step::Seal(Seal { region: region(1), epoch: Epoch(1), end: Seq(1) }),
        Step::Expire(Expire { home: region(1), before: Time(1) }),
        Step::Stable(Stable { through: Seq(1), members: vec![] }),
    ];
    assert!(RecordsBuilder::new().is_empty());
    while let Some(step) = steps.pop() {
        assert!(!build(&[step], &mut Expected::default()).is_empty());
    }
}

#[test]
fn the_sum_under_a_generation_that_returns_is_whole() {
    let counter = sample::cell(Kind::Counter, "views:1");
    let mut records = RecordsBuilder::new();
    for _ in 0..2 {
        for time in 0..12 {
            records.add(counter, Some(sample::stamp(time)), 3);
        }
    }
    for time in 0..12 {
        assert_eq!(records.sum(counter, Some(sample::stamp(time))), Some(6), "generation {time}");
    }
    assert_eq!(records.sum(counter, None), None);
}
