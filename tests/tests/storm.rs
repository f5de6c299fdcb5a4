//! Kill storm: daemons are killed with signal 9 every second, now and then all at once, while clients go on until each op
//! has its answer. Then every acked op counts exactly once, in every region.
//!
//! 20 seconds of storm; 120 with `TOMBOLO_UAT_LONG=1`. `TOMBOLO_UAT_SEED` draws another one.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tombolo_testbed::oracle::Oracle;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::caller::{Caller, Said};
use tombolo_tests::chance::Chance;
use tombolo_tests::ledger::{Ledger, Values};
use tombolo_tests::setter::Setter;
use tombolo_tests::tell;
use tombolo_tests::writer::Writer;

/// From one kill to the next.
const EVERY: Duration = Duration::from_secs(1);
/// How long writers may take to get their last answers once all is well.
const FINISH_MAX: Duration = Duration::from_secs(40);
/// Few numbers a session, so that sessions fill up, and checkpoints in the midst of the storm.
const NUMBERS_MAX: usize = 100;

fn storm() -> Duration {
    let is_long = std::env::var_os("TOMBOLO_UAT_LONG").is_some_and(|value| !value.is_empty());
    Duration::from_secs(if is_long { 120 } else { 20 })
}

fn seed() -> u64 {
    let named = std::env::var("TOMBOLO_UAT_SEED").ok().filter(|seed| !seed.is_empty());
    named.map_or(1, |seed| seed.parse().expect("TOMBOLO_UAT_SEED is a number"))
}

fn edited(region: &str) -> String {
    format!("session_numbers_max = {NUMBERS_MAX}\n{region}\ncheckpoint_interval_seconds = 2\n")
}

fn held(caller: &Caller, keys: &[String]) -> Values {
    let read = |(at, region): (usize, &&str)| (String::from(*region), caller.read(at, keys).unwrap());
    REGIONS.iter().enumerate().map(read).collect()
}

fn verdict(caller: &Caller, ledger: &Ledger) -> Vec<String> {
    ledger.verdict(&held(caller, &ledger.keys()))
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

fn await_calm(bed: &Bed) -> (Duration, Duration) {
    let whole = bed.until("every region is whole", 40, Bed::not_whole);
    (whole, bed.await_equal_digests())
}

/// Kills and restarts daemons until the time is up; how many kills.
fn rage(bed: &mut Bed, chance: &mut Chance) -> usize {
    let start = Instant::now();
    let mut kills_count = 0;
    for round in 1.. {
        let next = start + EVERY * round;
        if next.duration_since(start) > storm() {
            break;
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let at = chance.below(REGIONS.len());
        let victims = if round % 5 == 0 { &REGIONS[..] } else { &REGIONS[at..=at] };
        for victim in victims {
            let ended = bed.cluster.ended(victim).unwrap();
            assert_eq!(ended, None, "{victim} ended by itself; its log: {}", bed.log_tail(victim));
            bed.cluster.kill9(victim).unwrap();
            kills_count += 1;
        }
        std::thread::sleep(Duration::from_millis(chance.below(300) as u64));
        // Whether it gets ready before the next kill is left to chance.
        for victim in victims {
            bed.cluster.spawn(victim).unwrap();
        }
    }
    kills_count
}

#[test]
fn after_a_storm_of_kills_every_acked_op_counts_once_in_every_region_and_the_greatest_stamps_win() {
    let seed = seed();
    let mut bed = Bed::start_edited(edited);
    let caller = Caller::of(&bed);
    let mut writers: Vec<Writer> = (0..4)
        .map(|at| Writer::new(&format!("w{at}"), caller.clone(), seed * 10 + at, at % 2 == 0))
        .collect();
    let mut setters: Vec<Setter> =
        (0..2).map(|at| Setter::new(&format!("s{at}"), caller.clone(), seed * 10 + 5 + at)).collect();
    let stop = AtomicBool::new(false);
    let kills_count = std::thread::scope(|scope| {
        let stop = &stop;
        for writer in &mut writers {
            scope.spawn(|| writer.run(stop, FINISH_MAX));
        }
        for setter in &mut setters {
            scope.spawn(|| setter.run(stop, FINISH_MAX));
        }
        // Should the storm panic, the writers must end all the same.
        let raged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let kills_count = rage(&mut bed, &mut Chance::new(seed));
            bed.spawn_all();
            kills_count
        }));
        stop.store(true, Ordering::Release);
        raged.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let (whole, equal) = await_calm(&bed);

    let mut oracle = Oracle::new();
    for setter in &setters {
        assert_eq!(setter.wrong, Vec::<String>::new());
        assert_eq!(setter.unanswered(), Vec::<String>::new(), "sets without an answer");
        assert!(setter.acked_count > 50, "only {} sets were acked", setter.acked_count);
        oracle.merge(setter.oracle.clone());
    }
    for writer in &writers {
        assert_eq!(writer.wrong.join("\n"), "");
        assert_eq!(writer.unanswered().join("\n"), "", "ops without an answer");
        assert_eq!(verdict(&caller, &writer.ledger).join("\n"), "", "TOMBOLO_UAT_SEED={seed}");
    }
    assert_eq!(differences(&caller, &oracle), Vec::<String>::new());
    tell_of(&writers, &setters, kills_count, whole, equal);

    a_client_that_numbers_anew_turns_the_verdict_red(&bed, &caller);
    a_mark_beyond_a_conditional_yes_turns_the_verdict_red(&bed, &caller);
    a_set_that_the_oracle_lacks_turns_the_comparison_red(&bed, &caller, &oracle);
}

/// Says what the storm was, and insists that it was one.
fn tell_of(writers: &[Writer], setters: &[Setter], kills: usize, whole: Duration, equal: Duration) {
    let count = |what: &dyn Fn(&Said) -> bool| -> usize {
        writers.iter().map(|writer| writer.ledger.attempts_count(what)).sum()
    };
    let lost = count(&|said| matches!(said, Said::Nothing(_)));
    let replayed = count(&|said| matches!(said, Said::Yes { is_replayed: true, .. }));
    let conditional = count(&|said| matches!(said, Said::Yes { is_conditional: Some(true), .. }));
    let full = count(&|said| said.is_code("session_full"));
    let unknown: usize = writers.iter().map(|writer| writer.ledger.unknown_count()).sum();
    let ops: usize = writers.iter().map(|writer| writer.ledger.len()).sum();
    let acked: usize = writers.iter().map(|writer| writer.ledger.acked_count()).sum();
    let sessions: usize = writers.iter().map(|writer| writer.ledger.sessions_count()).sum();
    let sets: usize = setters.iter().map(|setter| setter.acked_count).sum();
    tell(&format!(
        "storm of {} s: {kills} kills; {acked} of {ops} ops acked in {sessions} sessions, {unknown} given up as unknown; attempts: {lost} without an answer, \
         {replayed} replays, {conditional} conditional, {full} refused as full; {sets} sets; whole {} ms and equal {} ms after",
        storm().as_secs(),
        whole.as_millis(),
        (whole + equal).as_millis(),
    ));
    assert!(acked > 400, "only {acked} ops were acked");
    assert!(unknown * 20 < acked, "{unknown} ops were given up as unknown, beside {acked} that were acked");
    for (what, attempts) in [("no answer", lost), ("a replay", replayed), ("a conditional yes", conditional)]
    {
        assert!(attempts > 10, "only {attempts} attempts ended in {what}: that was no storm");
    }
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
