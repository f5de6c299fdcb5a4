//! The merge laws (C3), over all kinds, and that merging states equals applying all batches in any order (C2).

use proptest::collection::vec;
use proptest::prelude::*;
use tombolo_causality::{RegionId, Seq, Stamp, Time};
use tombolo_crdt::{Counter, Dot, Register};

type Log = u8;

fn stamp(time: u64, op: u128) -> Stamp {
    Stamp { time: Time(time), region: RegionId::new(1).expect("1 is within bounds"), op }
}

/// One batch of a log, as a counter sees it.
#[derive(Debug, Clone)]
enum Step {
    Add { generation: u64, positive: u64, negative: u64 },
    Delete { generation: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let amount = prop_oneof![0u64..10, Just(u64::MAX), Just(u64::MAX - 3)];
    prop_oneof![
        4 => (0u64..3, amount.clone(), amount)
            .prop_map(|(generation, positive, negative)| Step::Add { generation, positive, negative }),
        1 => (1u64..3).prop_map(|generation| Step::Delete { generation }),
    ]
}

fn generation(number: u64) -> Option<Stamp> {
    (number > 0).then(|| stamp(number, 0))
}

fn apply(counter: &mut Counter<Log>, log: Log, step: &Step) {
    match *step {
        Step::Add { generation: number, positive, negative } => {
            counter.add(log, generation(number), positive, negative);
        }
        Step::Delete { generation } => counter.delete(stamp(generation, 0)),
    }
}

/// Three logs, and how much of each a state has seen.
fn history() -> impl Strategy<Value = Vec<Vec<Step>>> {
    vec(vec(step(), 0..6), 3)
}

fn counter_at(history: &[Vec<Step>], ends: &[usize]) -> Counter<Log> {
    let mut counter = Counter::new();
    for (log, steps) in history.iter().enumerate() {
        for step in steps.iter().take(ends[log]) {
            apply(&mut counter, log as Log, step);
        }
    }
    counter
}

fn canonical(counter: &Counter<Log>) -> (Option<Stamp>, Vec<(Log, u128, u128)>) {
    (counter.generation(), counter.logs().to_vec())
}

fn merged(a: &Counter<Log>, b: &Counter<Log>) -> Counter<Log> {
    let mut out = a.clone();
    out.merge(b);
    out
}

proptest! {
    #[test]
    fn merging_counters_equals_applying_the_longer_prefix_of_each_log(
        history in history(),
        a in vec(0usize..7, 3),
        b in vec(0usize..7, 3),
        c in vec(0usize..7, 3),
    ) {
        let (x, y, z) = (counter_at(&history, &a), counter_at(&history, &b), counter_at(&history, &c));
        let longer: Vec<usize> = a.iter().zip(&b).map(|(&a, &b)| a.max(b)).collect();
        prop_assert_eq!(canonical(&merged(&x, &y)), canonical(&counter_at(&history, &longer)));
        prop_assert_eq!(canonical(&merged(&x, &y)), canonical(&merged(&y, &x)));
        prop_assert_eq!(canonical(&merged(&x, &x)), canonical(&x));
        prop_assert_eq!(
            canonical(&merged(&merged(&x, &y), &z)),
            canonical(&merged(&x, &merged(&y, &z)))
        );
    }

    #[test]
    fn the_order_between_logs_does_not_matter(history in history(), seed in any::<u64>()) {
        let ends: Vec<usize> = history.iter().map(Vec::len).collect();
        let straight = counter_at(&history, &ends);
        let mut shuffled = Counter::new();
        let mut at = vec![0; history.len()];
        let mut state = seed;
        while let Some(open) = (0..history.len()).map(|l| (l + state as usize) % history.len())
            .find(|&l| at[l] < history[l].len())
        {
            apply(&mut shuffled, open as Log, &history[open][at[open]]);
            at[open] += 1;
            state = state.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        }
        prop_assert_eq!(canonical(&straight), canonical(&shuffled));
    }

    #[test]
    fn a_value_is_the_exact_sum_of_what_its_generation_saw(steps in vec(step(), 0..12)) {
        let mut counter = Counter::new();
        let mut present = 0;
        let mut expected = 0i128;
        for (index, step) in steps.iter().enumerate() {
            apply(&mut counter, (index % 3) as Log, step);
            let (generation, delta) = match *step {
                Step::Add { generation, positive, negative } => {
                    (generation, i128::from(positive) - i128::from(negative))
                }
                Step::Delete { generation } => (generation, 0),
            };
            if generation > present {
                present = generation;
                expected = 0;
            }
            if generation == present {
                expected += delta;
            }
        }
        prop_assert_eq!(counter.value(), expected);
    }

    #[test]
    fn a_fold_moves_totals_and_changes_no_value(history in history()) {
        let ends: Vec<usize> = history.iter().map(Vec::len).collect();
        let mut counter = counter_at(&history, &ends);
        let (value, (p0, n0), (p1, n1)) = (counter.value(), counter.totals(0), counter.totals(1));
        counter.fold(0, 1);
        prop_assert_eq!(counter.value(), value);
        prop_assert_eq!(counter.totals(0), (0, 0));
        prop_assert_eq!(counter.totals(1), (p0 + p1, n0 + n1));
    }

    #[test]
    fn registers_merge_by_greatest_stamp_then_value(
        writes in vec((0u64..4, 0u128..3, proptest::option::of(0u8..3), 0u8..3, 1u64..4), 1..8),
        seed in any::<usize>(),
    ) {
        let make = |&(time, op, value, log, seq): &(u64, u128, Option<u8>, u8, u64)| {
            let value = value.map(|byte| vec![byte]);
            Register::new(stamp(time, op), value.as_deref(), None, Dot { log, seq: Seq(seq) })
        };
        let join = |order: &mut dyn Iterator<Item = usize>| {
            let mut out: Option<Register<Log>> = None;
            for index in order {
                let one = make(&writes[index]);
                match &mut out {
                    Some(out) => out.merge(&one),
                    None => out = Some(one),
                }
            }
            out
        };
        let len = writes.len();
        let straight = join(&mut (0..len));
        let rotated = join(&mut (0..len).map(|index| (index + seed % len) % len));
        let twice = join(&mut (0..len).chain((0..len).rev()));
        prop_assert_eq!(&straight, &rotated);
        prop_assert_eq!(&straight, &twice);
        let winner = writes.iter().map(|w| (w.0, w.1, w.2)).max().unwrap();
        let winner_value = winner.2.map(|byte| vec![byte]);
        let register = straight.unwrap();
        prop_assert_eq!(register.value(), winner_value.as_deref());
    }
}

#[test]
fn a_delete_takes_what_it_has_seen_and_nothing_later() {
    let mut counter = Counter::new();
    counter.add(1, None, 5, 0);
    counter.delete(stamp(9, 1));
    assert_eq!(counter.value(), 0);
    counter.add(2, None, 3, 0);
    assert_eq!(counter.value(), 0, "an add that had not seen the delete goes with it");
    counter.add(2, Some(stamp(9, 1)), 0, 4);
    assert_eq!(counter.value(), -4);
}
