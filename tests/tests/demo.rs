//! The first line of use: the demo checks itself on a month of real flights.

use tombolo_tests::process::run;
use tombolo_tests::tell;

#[test]
fn the_demo_passes_on_the_embedded_month() {
    let start = std::time::Instant::now();
    let ended = run(["demo", "--check"], 120);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("PASS"), "{}\n{}", ended.stdout, ended.stderr);
    tell(&format!("demo --check: {:.1} s", start.elapsed().as_secs_f64()));
}
