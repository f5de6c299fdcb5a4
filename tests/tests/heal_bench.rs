//! The bench of heals, against real daemons: what it reports, and that it goes red.

use serde_json::Value;
use tombolo_tests::process::{Ended, run};
use tombolo_tests::tell;

fn bench(options: &[&str]) -> (Ended, Value) {
    let short = [
        "bench", "heal", "-o", "json", "--ops", "6000", "--cells", "60000", "--rounds", "1", "--shards", "2",
    ];
    let ended = run(short.iter().chain(options), 120);
    let report = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended, report)
}

#[test]
fn few_ops_are_healed_by_difference_at_a_small_multiple_of_what_changed() {
    let (ended, report) = bench(&["--mode", "difference", "--assert-shipped-ratio", "3"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(report["differences"].as_u64() >= Some(4), "{report}");
    tell(&format!("bench heal: {} bytes shipped for each that changed", report["shipped_ratio"]));
}

#[test]
fn bounds_that_nothing_can_keep_make_the_run_fail_and_are_all_that_is_wrong() {
    for mode in ["resume", "difference"] {
        let bounds = ["--mode", mode, "--assert-shipped-ratio", "0.2", "--assert-heal-ms", "0.001"];
        let (ended, report) = bench(&bounds);
        assert_eq!(ended.code, Some(8), "{ended:?}");
        assert_eq!(report["findings"].as_array().map(Vec::len), Some(2), "{report}");
        assert!(ended.stderr.contains("bytes were shipped for each that changed"), "{}", ended.stderr);
        assert!(ended.stderr.contains("half of the heals took"), "{}", ended.stderr);
    }
}

#[test]
fn a_slow_link_makes_a_heal_take_longer_than_its_bound() {
    let slow = ["--link-ms", "300", "--assert-heal-ms", "300"];
    let (ended, _) = bench(&slow);
    assert_eq!(ended.code, Some(8), "{ended:?}");
    assert!(ended.stderr.contains("half of the heals took"), "{}", ended.stderr);
}
