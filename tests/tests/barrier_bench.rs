//! The bench of barriers, against real daemons: what it reports, and that it goes red.

use serde_json::{Value, json};
use tombolo_tests::bed::Bed;
use tombolo_tests::process::{Ended, run};
use tombolo_tests::tell;

fn bench(options: &[&str]) -> (Ended, Value) {
    let short =
        ["bench", "barrier", "-o", "json", "--seconds", "2", "--warm-up", "1", "--mutate-rate", "100"];
    let ended = run(short.iter().chain(options), 120);
    let report = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended, report)
}

#[test]
fn a_short_load_is_answered_in_time_and_a_bound_that_nothing_can_keep_fails() {
    let options = ["--callers", "50", "--waiters", "1000", "--shards", "4", "--assert-p99-ms", "0.001"];
    let (ended, report) = bench(&options);
    assert_eq!(ended.code, Some(8), "{ended:?}");
    // The bound is all that is wrong.
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(1), "{report}");
    assert!(ended.stderr.contains("wrong: barrier p99 is"), "{}", ended.stderr);
    assert_eq!((&report["timeouts"], &report["errors"]), (&json!(0), &json!(0)), "{report}");
    let number = |name: &str| report[name].as_f64().unwrap_or_else(|| panic!("{name}: {report}"));
    assert!(number("mutations") >= 299.0 && number("barriers") > 200.0, "{report}");
    let p99 = |name: &str| report[name]["p99"].as_f64().unwrap_or_else(|| panic!("{name}: {report}"));
    let times = ["barrier_ms", "reached_ms", "release_ms"].map(|name| (name, p99(name)));
    for (name, ms) in times {
        // Far above what it takes: other tests run beside this one.
        assert!(ms > 0.0 && ms < 1_000.0, "{name}: {report}");
    }
    tell(&format!("bench barrier: {:.0} barriers/s, p99 {times:?}", number("barriers_per_second")));
}

#[test]
fn a_region_that_does_not_apply_makes_barriers_time_out_and_the_run_fail() {
    let bed = Bed::start();
    let (status, answer) = bed.post("ap", "/v1/admin/pause-apply", &json!({"peer": "eu"}));
    assert_eq!(status, 200, "{answer}");
    let dir = bed.dir().to_string_lossy().into_owned();
    let (ended, report) =
        bench(&["--cluster", &dir, "--callers", "10", "--timeout-ms", "200", "--assert-p99-ms", "100"]);
    assert_eq!(ended.code, Some(8), "{ended:?}");
    assert!(report["timeouts"].as_u64() > Some(100), "{report}");
    assert!(report["laggards"].to_string().contains("ap (behind"), "{report}");
    assert!(report["barrier_ms"]["p99"].as_f64() >= Some(200.0), "{report}");
}
