//! Kill storm: daemons are killed with signal 9 every second, now and then all at once, while clients go on until each op
//! has its answer. Then every acked op counts exactly once, in every region.
//!
//! 20 seconds of storm; 120 with `TOMBOLO_UAT_LONG=1`. `TOMBOLO_UAT_SEED` draws another one.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::convert::Infallible;
use std::time::Duration;

use serde_json::json;
use tombolo_testbed::oracle::Oracle;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::caller::{Caller, Said};
use tombolo_tests::ledger::Ledger;
use tombolo_tests::setter::Setter;
use tombolo_tests::storm::{self, Storm, held, verdict};
use tombolo_tests::tell;
use tombolo_tests::writer::Writer;

/// Few numbers a session, so that sessions fill up, and checkpoints in the midst of the storm.
fn edited(region: &str) -> String {
    format!("session_numbers_max = 100\n{region}\ncheckpoint_interval_seconds = 2\n")
}

fn differences(caller: &Caller, oracle: &Oracle) -> Vec<String> {
    let keys: Vec<String> = oracle.expectations().map(|(key, _)| key.to_owned()).collect();
    let mut all = Vec::new();
    for (region, values) in held(caller, &keys) {
        let Ok(found) = oracle.compare(|key| Ok::<_, Infallible>(values[key].clone()));
        all.extend(found.into_iter().map(|difference| format!("{region}: {difference}")));
    }
    all
}

/// Kills one region a second, or all at once; how many kills.
fn rage(bed: &mut Bed, storm: Storm) -> usize {
    let mut kills_count = 0;
    storm.rage(|round, chance| {
        let at = chance.below(REGIONS.len());
        let victims = if round % 5 == 0 { &REGIONS[..] } else { &REGIONS[at..=at] };
        for victim in victims {
            storm::kill(bed, victim);
            kills_count += 1;
        }
        std::thread::sleep(Duration::from_millis(chance.below(300) as u64));
        // Whether it gets ready before the next kill is left to chance.
        for victim in victims {
            bed.cluster.spawn(victim).unwrap();
        }
    });
    kills_count
}

#[test]
fn after_a_storm_of_kills_every_acked_op_counts_once_in_every_region_and_the_greatest_stamps_win() {
    let (storm, mut bed) = (Storm::of_seconds(20), Bed::start_edited(edited));
    let caller = Caller::of(&bed);
    let writer = |at| Writer::new(&format!("w{at}"), caller.clone(), storm.seed * 10 + at, at % 2 == 0);
    let setter = |at| Setter::new(&format!("s{at}"), caller.clone(), storm.seed * 10 + 5 + at);
    let mut writers: Vec<Writer> = (0..4).map(writer).collect();
    let mut setters: Vec<Setter> = (0..2).map(setter).collect();
    let kills_count = storm::run(&mut writers, &mut setters, || {
        let kills_count = rage(&mut bed, storm);
        bed.spawn_all();
        kills_count
    });
    let calm = storm::await_calm(&bed);

    storm::check(&caller, &writers, storm);
    let mut oracle = Oracle::new();
    for setter in &setters {
        assert_eq!(setter.wrong, Vec::<String>::new());
        assert_eq!(setter.unanswered(), Vec::<String>::new(), "sets without an answer");
        assert!(setter.acked_count > 50 && setter.lost_count > 0, "{} sets were acked", setter.acked_count);
        oracle.merge(setter.oracle.clone());
    }
    assert!(kills_count > 10, "{kills_count} kills are no storm");
    assert_eq!(differences(&caller, &oracle), Vec::<String>::new());
    tell(&format!(
        "storm of {} s: {kills_count} kills; {}; {} sets; calm {} ms after",
        storm.lasts.as_secs(),
        storm::tale(&writers, 400),
        setters.iter().map(|setter| setter.acked_count).sum::<usize>(),
        calm.as_millis(),
    ));

    a_client_that_numbers_anew_turns_the_verdict_red(&bed, &caller);
    a_mark_beyond_a_conditional_yes_turns_the_verdict_red(&bed, &caller);
    a_set_that_the_oracle_lacks_turns_the_comparison_red(&bed, &caller, &oracle);
}

/// Sabotage: an answer is lost, and the op is sent again under a new number.
fn a_client_that_numbers_anew_turns_the_verdict_red(bed: &Bed, caller: &Caller) {
    let mut ledger = Ledger::new("anew");
    ledger.open(caller.open_session(0).unwrap(), 0);
    let op = ledger.next(false);
    let mut body = ledger.body(op, false);
    assert!(matches!(caller.write(0, &body, None), Said::Yes { .. }));
    ledger.note(op, "Http eu", Said::Nothing("the answer was dropped".into()));
    body["session"]["number"] = json!(2);
    let said = caller.write(0, &body, None);
    ledger.note(op, "Http eu, under a new number", said);
    bed.await_equal_digests();
    let red = verdict(caller, &ledger);
    assert!(red.len() == 1 && red[0].contains("eu: 2, us: 2: op 0 of anew"), "{red:?}");
    assert!(red[0].contains("2. Http eu, under a new number: yes"), "{red:?}");
}

/// Sabotage: the mark passes a number that only another region has answered, and the home has not seen.
fn a_mark_beyond_a_conditional_yes_turns_the_verdict_red(bed: &Bed, caller: &Caller) {
    for peer in ["us", "ap"] {
        assert_eq!(bed.post("eu", "/v1/admin/pause-apply", &json!({ "peer": peer })).0, 200);
    }
    let mut ledger = Ledger::new("marked");
    ledger.open(caller.open_session(0).unwrap(), 0);
    for (op, at) in [(0, 1), (1, 0)] {
        assert_eq!(ledger.next(false), op);
        let mut body = ledger.body(op, false);
        body["session"]["settled"] = json!(op + 1);
        let said = caller.write(at, &body, None);
        assert!(matches!(said, Said::Yes { .. }), "{said}");
        ledger.note(op, format!("Http {}", REGIONS[at]), said);
    }
    for peer in ["us", "ap"] {
        assert_eq!(bed.post("eu", "/v1/admin/resume-apply", &json!({ "peer": peer })).0, 200);
    }
    bed.await_equal_digests();
    let red = verdict(caller, &ledger);
    assert!(red.len() == 1 && red[0].contains("eu: 0, us: 0: op 0 of marked"), "{red:?}");
}

/// Sabotage: a later set by someone else.
fn a_set_that_the_oracle_lacks_turns_the_comparison_red(bed: &Bed, caller: &Caller, oracle: &Oracle) {
    let body = json!({"ops": [{"op": "set", "key": "set:0", "value": "later"}]});
    assert!(matches!(caller.write(0, &body, None), Said::Yes { .. }));
    bed.await_equal_digests();
    assert_eq!(differences(caller, oracle).len(), REGIONS.len());
}
