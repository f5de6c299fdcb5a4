//! The bench that cuts a region off and times its return, against real daemons.

use serde_json::Value;
use tombolo_tests::process::{Ended, run};
use tombolo_tests::tell;

/// A short cut under a light load.
fn heal(options: &[&str]) -> Ended {
    let short = ["bench", "heal", "--rate", "2000", "--keys", "500", "--shards", "4", "--cut-seconds", "3"];
    run(short.iter().chain(options), 120)
}

fn seconds(report: &Value, field: &str) -> f64 {
    report[field].as_f64().unwrap_or_else(|| panic!("{field}: {report}"))
}

#[test]
fn a_cut_heals_with_exact_sums_and_bounds_that_nothing_can_keep_fail() {
    let bounds =
        ["--assert-heal-seconds=0.000001", "--assert-others-p99-change=-100", "--assert-growth-mib=-99999"];
    let ended = heal(&[&["-o", "json"][..], &bounds].concat());
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    // The bounds are all that is wrong: sums, digests and the cut itself are right.
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(3), "{report}");
    for text in
        ["the heal took", "above 0.000001 s", "the others' ack p99 was", "above -100 %", "above -99999 MiB"]
    {
        assert!(ended.stderr.contains(text), "{text}: {}", ended.stderr);
    }
    assert_eq!(ended.code, Some(8), "{}", ended.stderr);
    let heal = seconds(&report, "heal_seconds");
    for part in ["reconnected_seconds", "lag_low_seconds", "caught_up_seconds"] {
        assert!((0.0..=heal).contains(&seconds(&report, part)), "{part}: {report}");
    }
    assert!(report["lag_seconds"]["cut"].as_f64() > Some(2.0), "{report}");
    assert!(seconds(&report, "backlog_signals") > 3_000.0, "{report}");
    for field in ["others_ack_before_ms", "others_ack_cut_ms"] {
        assert!(report[field]["p99"].as_f64() > Some(0.0), "{field}: {report}");
    }
    let growth = |side: &Value| side["rss_growth_mib"].as_f64().expect("memory can be read here");
    let sides = report["regions"].as_array().expect("three regions");
    let others = sides.iter().filter(|side| side["is_cut_off"] == false).map(growth);
    assert_eq!(others.reduce(f64::max), Some(seconds(&report, "others_rss_growth_mib")), "{report}");
    tell(&format!("bench heal: level {heal:.2} s after a cut of 3 s"));
}

#[test]
fn a_heal_that_does_not_come_in_time_ends_with_what_is_missing() {
    // Nothing can cross a link of 60 ms within 20 ms.
    let ended = heal(&["--link-ms", "60", "--timeout-seconds", "0.02"]);
    assert_eq!(ended.code, Some(8), "{ended:?}");
    assert_eq!(ended.stdout, "");
    let text = &ended.stderr;
    assert!(text.contains("the cut has not healed 0.02 s after frames pass again: "), "{text}");
    assert!(text.contains("next: give it longer with --timeout-seconds"), "{text}");
}
