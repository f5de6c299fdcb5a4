//! A region that lost its disk comes back under load while another region is down: it refuses reads until it holds what
//! others held when it came, takes writes all the while, and ends with exact totals.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tombolo_testbed::cluster::ClusterOptions;
use tombolo_testbed::oracle::Oracle;
use tombolo_testbed::relay::LinkConditions;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::bulk::Bulk;
use tombolo_tests::{tell, values, within};

const WIPED: &str = "ap";
const DOWN: &str = "us";
/// A key that every region has from the beginning.
const MARK: &str = "mark";

/// A region whose link is slow takes a while until it is past its mark, so that there is something to refuse.
fn slow() -> LinkConditions {
    LinkConditions {
        delay: Duration::from_millis(40),
        bytes_per_second: Some(400_000),
        ..LinkConditions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_region_serves_reads_only_past_its_mark_while_another_region_is_down() {
    let mut bed = Bed::start_with(|options: ClusterOptions| options.with_links(LinkConditions::default()));
    let clients = bed.clients().await;
    bed.until("every region is whole", 20, Bed::not_whole);
    let mut oracle = Oracle::new();
    let session = clients[2].session().await.unwrap();
    session.counter(MARK).incr(7).await.unwrap();
    oracle.record_add(MARK, 7);
    let eu = clients[0].session().await.unwrap();
    for at in 0..1_500 {
        let (key, value) = (format!("name:{at}"), format!("{at} {}", "y".repeat(600)));
        let written = eu.register(&key).set(value.as_str()).await.unwrap();
        oracle.record_set(key, written.stamp.unwrap(), value);
    }
    bed.await_equal_digests();

    // One region down for good, one with an empty disk, and load on the third.
    bed.cluster.kill9(DOWN).unwrap();
    bed.cluster.kill9(WIPED).unwrap();
    let data = bed.dir().join("data").join(WIPED);
    std::fs::remove_dir_all(&data).unwrap();
    let relay = bed.cluster.relay().unwrap();
    relay.set("eu", WIPED, slow()).unwrap();
    let (stop, stopped) = watch::channel(false);
    let load = tokio::spawn(Bulk { per_second: 500 }.drive(clients[0].session().await.unwrap(), stopped));
    bed.cluster.spawn(WIPED).unwrap();
    bed.cluster.await_ready(WIPED).unwrap();

    let (mut refused, mut written) = (0, 0);
    let served = bed.until("reads are served", 60, |bed| {
        let (status, answer) = bed.post(WIPED, "/v1/read", &json!({"keys": [MARK, "name:1499"]}));
        if status == 503 {
            assert_eq!(answer["code"], "joining", "{answer}");
            assert!(answer["retry_after_ms"].is_number(), "{answer}");
            refused += 1;
            // Writes are taken all the while.
            let add = json!({"ops": [{"op": "add", "key": "early", "delta": "1"}]});
            let (status, answer) = bed.post(WIPED, "/v1/ops", &add);
            assert_eq!(status, 200, "{answer}");
            written += 1;
            return Some(format!("{answer}"));
        }
        assert_eq!(status, 200, "{answer}");
        // Never less than what was there before the disk was lost.
        let text = answer.to_string();
        assert!(text.contains("\"7\"") && text.contains("1499 yyy"), "{text}");
        None
    });
    oracle.record_add("early", written);
    assert!(refused > 0, "reads were served at once: the region cannot have been past its mark");
    assert!(!data.join("joining").exists() || served < Duration::from_secs(60));
    tell(&format!("bootstrap: reads served after {} ms, {refused} refused", served.as_millis()));
    assert!(bed.not_whole().is_some(), "{DOWN} is down: nobody is whole yet");

    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.send_replace(true);
    let bulk = within("the load", 60, load).await.unwrap();
    assert_eq!(bulk.failures(), Vec::<String>::new());
    oracle.merge(bulk.oracle);
    bed.cluster.relay().unwrap().set_all(&LinkConditions::default());
    bed.cluster.await_equal_digests_among(&["eu", WIPED], Duration::from_secs(60)).unwrap();
    bed.spawn_all();
    bed.cluster.await_equal_digests(Duration::from_secs(60)).unwrap();
    bed.until("every region is whole", 30, Bed::not_whole);
    bed.await_equal_digests();
    assert_eq!(values::differences(&clients, &oracle).await, Vec::<String>::new());

    // A region that has its data reads at once, whoever is away; and the check above can fail.
    REGIONS.iter().filter(|region| **region != WIPED).for_each(|region| bed.cluster.kill9(region).unwrap());
    bed.cluster.kill9(WIPED).unwrap();
    bed.cluster.spawn(WIPED).unwrap();
    bed.cluster.await_ready(WIPED).unwrap();
    let (status, answer) = bed.post(WIPED, "/v1/read", &json!({"keys": [MARK]}));
    assert_eq!(status, 200, "{answer}");
    bed.spawn_all();
    clients[0].session().await.unwrap().counter(MARK).incr(1).await.unwrap();
    bed.await_equal_digests();
    assert_eq!(values::differences(&clients, &oracle).await.len(), REGIONS.len());
}
