//! The digest of the cells: a function of the state alone.

use tombolo_causality::{Epoch, RegionId, Seq};

use super::*;

fn log(region: u16) -> LogName {
    (RegionId::new(region).unwrap(), Epoch(u128::from(region)))
}

fn cell(kind: Kind) -> CellName<'static> {
    CellName { tenant: TenantId(1), kind, key: b"k" }
}

fn stamp(time: u64) -> Stamp {
    Stamp { time: Time(time), region: RegionId::new(1).unwrap(), op: 0 }
}

fn add(cells: &mut Cells, logs: &mut Logs, region: u16, delta: u64) {
    let index = logs.index(log(region));
    let add = Add { cell: cell(Kind::Counter), generation: None, positive: delta, negative: 0 };
    cells.add(&add, index, logs);
}

fn set(cells: &mut Cells, logs: &Logs, region: u16, time: u64, value: Option<&[u8]>) {
    let write = Write { cell: cell(Kind::Register), stamp: stamp(time), value, expires_at: None };
    cells.write(&write, Dot { log: log(region), seq: Seq(1) }, logs);
}

#[test]
fn the_digest_depends_on_the_state_alone_not_on_its_order_or_on_local_names() {
    let (mut a, mut a_logs) = (Cells::default(), Logs::default());
    add(&mut a, &mut a_logs, 1, 5);
    add(&mut a, &mut a_logs, 2, 7);
    set(&mut a, &a_logs, 1, 10, Some(b"old"));
    set(&mut a, &a_logs, 2, 20, None);
    let (mut b, mut b_logs) = (Cells::default(), Logs::default());
    b_logs.index(log(9));
    set(&mut b, &b_logs, 2, 20, None);
    add(&mut b, &mut b_logs, 2, 7);
    set(&mut b, &b_logs, 1, 10, Some(b"old"));
    add(&mut b, &mut b_logs, 1, 2);
    assert_ne!(a.digest(), b.digest());
    add(&mut b, &mut b_logs, 1, 3);
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn the_digest_tells_a_tombstone_from_nothing_and_one_writer_from_another() {
    let mut digests = vec![Cells::default().digest()];
    for (region, value) in [(1, None), (2, None), (1, Some(&b""[..]))] {
        let mut cells = Cells::default();
        set(&mut cells, &Logs::default(), region, 10, value);
        digests.push(cells.digest());
    }
    for region in [1, 2] {
        let (mut cells, mut logs) = (Cells::default(), Logs::default());
        add(&mut cells, &mut logs, region, 1);
        digests.push(cells.digest());
    }
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[test]
fn a_fold_gives_the_state_that_the_other_log_would_have_written() {
    let (mut folded, mut logs) = (Cells::default(), Logs::default());
    add(&mut folded, &mut logs, 1, 5);
    add(&mut folded, &mut logs, 2, 7);
    set(&mut folded, &logs, 1, 10, Some(b"x"));
    let (sealed, into) = (logs.index(log(1)), logs.index(log(2)));
    folded.fold((sealed, log(1)), (into, Dot { log: log(2), seq: Seq(1) }), &logs);
    let (mut written, mut logs) = (Cells::default(), Logs::default());
    add(&mut written, &mut logs, 2, 12);
    // A register keeps the position that wrote it.
    set(&mut written, &logs, 1, 10, Some(b"x"));
    assert_eq!(folded.digest(), written.digest());
}

#[test]
fn a_restored_dump_is_the_same_state() {
    let (mut cells, mut logs) = (Cells::default(), Logs::default());
    add(&mut cells, &mut logs, 1, u64::MAX);
    add(&mut cells, &mut logs, 1, 9);
    set(&mut cells, &logs, 2, 20, None);
    let mut fresh = Logs::default();
    fresh.index(log(8));
    let restored = Cells::restore(&cells.dump(&logs), Conditionals::default(), &mut fresh);
    assert_eq!((restored.digest(), restored.len()), (cells.digest(), cells.len()));
    let value = restored.counter(TenantId(1), b"k").map(|counter| counter.value);
    assert_eq!(value, Some(i128::from(u64::MAX) + 9));
}
