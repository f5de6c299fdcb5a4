//! Links that fail in one direction only, or that carry far less than is written: the others go on as before, what is
//! wrong is named, and all is exact once the link is good again.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tombolo_sdk::Client;
use tombolo_testbed::oracle::Oracle;
use tombolo_testbed::percentiles::Latencies;
use tombolo_testbed::relay::LinkConditions;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::bulk::Bulk;
use tombolo_tests::{tell, values, within};

/// What one link carries while it is slow.
const SLOW_BYTES_PER_SECOND: u64 = 40_000;
/// Adds per second of each region but the slow one: more than that link carries.
const ADDS_PER_SECOND: u64 = 6_000;
/// How much the memory of a region may grow because another one is slow.
const RSS_GROWTH_MAX: u64 = 64 << 20;

/// Adds one by one, each awaited, until told to stop; how long each took.
async fn add_one_by_one(client: Client, key: String, stop: watch::Receiver<bool>) -> (Oracle, Latencies) {
    let session = client.session().await.unwrap();
    let (mut oracle, mut acks) = (Oracle::new(), Latencies::new());
    while !*stop.borrow() {
        let sent = Instant::now();
        session.counter(&key).incr(1).await.unwrap();
        acks.record(sent.elapsed());
        oracle.record_add(&key, 1);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (oracle, acks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_cut_in_one_direction_is_named_and_after_it_heals_writes_flow_both_ways() {
    let bed =
        Bed::start_with(|options| options.with_links(LinkConditions::delayed(Duration::from_millis(5))));
    let clients = bed.clients().await;
    let relay = bed.cluster.relay().unwrap();
    let (stop, stopped) = watch::channel(false);
    let spawn = |(region, client): (&&str, &Client)| {
        tokio::spawn(add_one_by_one(client.clone(), format!("one:{region}"), stopped.clone()))
    };
    let writers: Vec<_> = REGIONS.iter().zip(&clients).map(spawn).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    for (from, to) in [("eu", "ap"), ("ap", "eu")] {
        relay.cut_one_way(from, to).unwrap();
        // A connection needs both directions: neither side may call the other well.
        let noticed = bed.until("both sides notice", 15, |bed| {
            let is_named =
                |peer: &serde_json::Value| peer["state"] == "unreachable" || peer["state"] == "stalled";
            let ends = [(from, to), (to, from)];
            let unnamed = ends.iter().find(|(a, b)| !is_named(&bed.peer(a, b)));
            unnamed.map(|(a, b)| format!("{a} calls {b} {}", bed.peer(a, b)["state"]))
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (a, b) in [(from, to), (to, from)] {
            assert_ne!(bed.peer(a, b)["state"], "ok", "{a} calls {b} ok though one direction is cut");
        }
        // Over the third region nothing is late: any member serves any log.
        assert_eq!(bed.peer(from, "us")["state"], "ok");
        relay.heal_one_way(from, to).unwrap();
        let healed = bed.until("all are well again", 15, |bed| {
            let pairs =
                REGIONS.iter().flat_map(|a| REGIONS.iter().map(move |b| (a, b))).filter(|(a, b)| a != b);
            let unwell = |(a, b): (&&str, &&str)| {
                let peer = bed.peer(a, b);
                let is_well = peer["state"] == "ok" && peer["lag_seconds"].as_f64().unwrap() < 2.0;
                (!is_well).then(|| format!("{a} says of {b}: {peer}"))
            };
            pairs.into_iter().find_map(unwell)
        });
        tell(&format!(
            "one way {from} → {to}: noticed after {} ms, well {} ms after the heal",
            noticed.as_millis(),
            healed.as_millis()
        ));
    }
    stop.send_replace(true);
    let mut oracle = Oracle::new();
    for (region, writer) in REGIONS.iter().zip(writers) {
        let (written, acks) = within("a writer", 20, writer).await.unwrap();
        assert!(acks.len() > 100, "{region} wrote only {} times", acks.len());
        oracle.merge(written);
    }
    bed.await_equal_digests();
    assert_eq!(values::differences(&clients, &oracle).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_behind_a_slow_link_costs_the_others_neither_acks_nor_memory_and_catches_up() {
    let bed =
        Bed::start_with(|options| options.with_links(LinkConditions::delayed(Duration::from_millis(5))));
    let clients = bed.clients().await;
    bed.until("every region is whole", 20, Bed::not_whole);
    let relay = bed.cluster.relay().unwrap();
    let load = async |seconds: u64| {
        let (stop, stopped) = watch::channel(false);
        let bulk = |client: &Client| {
            let (client, stopped) = (client.clone(), stopped.clone());
            tokio::spawn(async move {
                Bulk { per_second: ADDS_PER_SECOND }.drive(client.session().await.unwrap(), stopped).await
            })
        };
        let bulks: Vec<_> = clients[..2].iter().map(bulk).collect();
        let single = tokio::spawn(add_one_by_one(clients[0].clone(), "single".into(), stopped.clone()));
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let lag = bed.peer("eu", "ap")["lag_seconds"].as_f64().unwrap();
        stop.send_replace(true);
        let mut oracle = Oracle::new();
        for bulk in bulks {
            let done = within("the load", 60, bulk).await.unwrap();
            assert_eq!(done.failures(), Vec::<String>::new());
            oracle.merge(done.oracle);
        }
        let (written, acks) = within("a writer", 20, single).await.unwrap();
        oracle.merge(written);
        (oracle, acks, lag)
    };
    let rss = || ["eu", "us"].map(|region| bed.cluster.usage(region).unwrap().rss_bytes);

    let (mut oracle, before, lag_before) = load(3).await;
    let rss_before = rss();
    let slow = LinkConditions {
        bytes_per_second: Some(SLOW_BYTES_PER_SECOND),
        queue_bytes_max: 64 << 10,
        ..LinkConditions::delayed(Duration::from_millis(5))
    };
    for region in ["eu", "us"] {
        relay.set(region, "ap", slow.clone()).unwrap();
    }
    let (more, during, lag_during) = load(8).await;
    oracle.merge(more);
    let grown =
        rss().iter().zip(rss_before).map(|(after, before)| after.saturating_sub(before)).max().unwrap();
    // Without this a link that is not slow would pass.
    assert!(
        lag_during > lag_before + 2.0,
        "the lag was {lag_before:.2} s before and {lag_during:.2} s with the slow link"
    );
    assert!(grown < RSS_GROWTH_MAX, "a region grew by {grown} bytes");
    let (p50, p50_before) = (during.p(50.0), before.p(50.0));
    let bound = p50_before * 2 + Duration::from_millis(10);
    assert!(p50 < bound, "half of the acks took {p50:?} or more; {p50_before:?} before");

    relay.set_all(&LinkConditions::delayed(Duration::from_millis(5)));
    let caught_up = bed.cluster.await_equal_digests(Duration::from_secs(60)).unwrap();
    assert_eq!(values::differences(&clients, &oracle).await, Vec::<String>::new());
    tell(&format!(
        "slow link: acks p50 {:.1} ms before, {:.1} ms during; lag {lag_during:.1} s; grown {} MB; level {} ms after",
        p50_before.as_secs_f64() * 1e3,
        p50.as_secs_f64() * 1e3,
        grown >> 20,
        caught_up.as_millis()
    ));
}
