//! A region whose wall clock is far ahead: it refuses register writes and says why, the others go on and take nothing of its
//! time, and everything converges.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use serde_json::json;
use tombolo_testbed::oracle::Oracle;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::{tell, values, wrong_clock};

const WRONG: &str = "ap";
const AHEAD_SECONDS: i64 = 90;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_whose_clock_is_ahead_refuses_register_writes_and_wins_no_register() {
    let mut bed = Bed::init();
    let wrong = wrong_clock::ahead_by(bed.dir(), AHEAD_SECONDS);
    bed.cluster.set_environment(WRONG, wrong).unwrap();
    bed.spawn_all();
    let clients = bed.clients().await;
    let set = |bed: &Bed, region: &str, value: &str| {
        bed.post(region, "/v1/ops", &json!({"ops": [{"op": "set", "key": "name", "value": value}]}))
    };
    let noticed = bed.until("the clock is noticed", 20, |bed| {
        let finding = bed.finding(WRONG, "clock_skew");
        finding.is_none().then(|| bed.cluster.status(WRONG).unwrap()["clock"].to_string())
    });
    let (status, answer) = set(&bed, WRONG, "from the future");
    assert_eq!((status, &answer["code"]), (409, &json!("clock_skew")), "{answer}");
    // Counters know no time: they are taken, and count.
    let mut oracle = Oracle::new();
    for (region, client) in REGIONS.iter().zip(&clients) {
        let key = format!("count:{region}");
        client.session().await.unwrap().counter(&key).incr(5).await.unwrap();
        oracle.record_add(key, 5);
    }
    // The others write registers as ever, each write above the one before.
    for (at, region) in ["eu", "us", "eu"].into_iter().enumerate() {
        let value = format!("{at} of {region}");
        let client = &clients[REGIONS.iter().position(|known| *known == region).unwrap()];
        let written = client.session().await.unwrap().register("name").set(value.as_str()).await.unwrap();
        oracle.record_set("name", written.stamp.unwrap(), value);
        bed.await_equal_digests();
    }
    let offset = bed.cluster.status(WRONG).unwrap()["clock"]["offset_ms"].as_f64().unwrap();
    assert!((offset - AHEAD_SECONDS as f64 * 1_000.0).abs() < 2_000.0, "{offset} ms ahead");
    for region in ["eu", "us"] {
        let offset = bed.cluster.status(region).unwrap()["clock"]["offset_ms"].as_f64().unwrap();
        assert!(offset < 500.0, "{region} takes itself to be {offset} ms ahead");
        assert_eq!(bed.finding(region, "clock_skew"), None);
    }
    assert_eq!(values::differences(&clients, &oracle).await, Vec::<String>::new());

    // With its clock put right, it writes registers again.
    bed.cluster.set_environment(WRONG, []).unwrap();
    bed.cluster.kill9(WRONG).unwrap();
    bed.spawn_all();
    let right = bed.until("register writes are taken", 20, |bed| {
        let (status, answer) = set(bed, WRONG, "in time");
        (status != 200).then(|| answer.to_string())
    });
    bed.await_equal_digests();
    let differ = values::differences(&clients, &oracle).await;
    assert_eq!(differ.len(), REGIONS.len(), "a later write wins, and the check sees it: {differ:?}");
    tell(&format!(
        "wrong clock: noticed after {} ms, well {} ms after it was put right",
        noticed.as_millis(),
        right.as_millis()
    ));
}
