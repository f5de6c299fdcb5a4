use std::collections::HashMap;
use std::convert::Infallible;

use tombolo_causality::{RegionId, Time};

use super::*;
use crate::flights::{Flights, Signal};

fn stamp(time: u64, region: u16) -> Stamp {
    Stamp { time: Time(time), region: RegionId::new(region).unwrap(), op: 0 }
}

fn differences(oracle: &Oracle, found: &HashMap<String, String>) -> Vec<String> {
    let read = |key: &str| Ok::<_, Infallible>(found.get(key).cloned());
    oracle.compare(read).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn the_plain_pass_and_the_signals_of_the_embedded_month_agree() {
    let mut sums: HashMap<String, i64> = HashMap::new();
    for flight in Flights::january().unwrap() {
        for signal in flight.unwrap().signals() {
            if let Signal::Add { key, delta } = signal {
                *sums.entry(key).or_default() += delta;
            }
        }
    }
    let mut found: HashMap<_, _> = sums.into_iter().map(|(key, sum)| (key, sum.to_string())).collect();
    let oracle = Oracle::january(usize::MAX).unwrap();
    assert_eq!(oracle.keys_count(), found.len());
    assert_eq!(differences(&oracle, &found), Vec::<String>::new());
    // The same check with one add lost must go red.
    let sum: i64 = found["departures:ATL"].parse().unwrap();
    found.insert("departures:ATL".into(), (sum - 1).to_string());
    assert_eq!(differences(&oracle, &found), [format!("departures:ATL: expected {sum}, found {}", sum - 1)]);
}

#[test]
fn sums_taken_by_hand_are_found_again() {
    // From `zstdcat | awk`, which shares no code with this crate.
    let oracle = Oracle::january(usize::MAX).unwrap();
    let expected: HashMap<_, _> = oracle.expectations().collect();
    let sum = |key: &str| expected[key].clone().unwrap();
    assert_eq!(sum("departures:carrier:UA"), "4622");
    assert_eq!(sum("delay_minutes:ATL"), "5944");
    assert_eq!(sum("miles:tail:N14228"), "16479");
}

#[test]
fn only_the_flights_asked_for_are_added_up() {
    let oracle = Oracle::january(1).unwrap();
    let expected: Vec<_> = oracle.expectations().map(|(key, value)| (key, value.unwrap())).collect();
    let expected: Vec<_> = expected.iter().map(|(key, value)| (*key, value.as_str())).collect();
    assert_eq!(
        expected,
        [
            ("delay_minutes:IAH", "2"),
            ("departures:IAH", "1"),
            ("departures:carrier:UA", "1"),
            ("miles:tail:N14228", "1400"),
        ]
    );
}

#[test]
fn the_greatest_stamp_wins_whatever_came_last() {
    let mut oracle = Oracle::new();
    oracle.record_set("r", stamp(5, 1), "middle");
    oracle.record_set("r", stamp(5, 2), "greatest");
    oracle.record_set("r", stamp(4, 3), "last");
    let found = HashMap::from([("r".to_owned(), "last".to_owned())]);
    assert_eq!(differences(&oracle, &found), ["r: expected greatest, found last"]);
}

#[test]
fn a_deleted_register_must_be_absent() {
    let mut oracle = Oracle::new();
    oracle.record_set("r", stamp(5, 1), "value");
    oracle.record_delete("r", stamp(6, 1));
    assert!(differences(&oracle, &HashMap::new()).is_empty());
    let found = HashMap::from([("r".to_owned(), "value".to_owned())]);
    assert_eq!(differences(&oracle, &found), ["r: expected nothing, found value"]);
}

#[test]
fn oracles_of_several_writers_merge() {
    let (mut first, mut second) = (Oracle::new(), Oracle::new());
    first.record_add("c", 3);
    first.record_set("r", stamp(9, 1), "first");
    second.record_add("c", -5);
    second.record_set("r", stamp(8, 2), "second");
    first.merge(second);
    let found = HashMap::from([("c".to_owned(), "-2".to_owned()), ("r".to_owned(), "first".to_owned())]);
    assert!(differences(&first, &found).is_empty());
    assert_eq!(differences(&first, &HashMap::new()).len(), 2);
}

#[test]
fn a_row_that_cannot_be_added_up_is_refused() {
    let text = "dest,carrier,dep_delay,tailnum,distance\nIAH,UA,soon,N1,1\n";
    let error = Oracle::of(text.as_bytes(), usize::MAX).unwrap_err();
    assert_eq!(error.to_string(), "flight 1: `dep_delay` is not a whole number");
}
