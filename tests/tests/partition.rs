//! One region cut off while all three write the same counters and registers, then healed.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tombolo_sdk::{Client, Scope, Session};
use tombolo_testbed::oracle::Oracle;
use tombolo_testbed::percentiles::Latencies;
use tombolo_testbed::relay::LinkConditions;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::{tell, values, within};

const CUT_OFF: &str = "ap";
/// Odd, so that every key meets every verb.
const KEYS: u64 = 41;
/// A region that is cut off answers like any other; this is far above what its disk takes.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What one region's writer did.
#[derive(Default)]
struct Wrote {
    oracle: Oracle,
    answers: Latencies,
    count: u64,
}

/// Adds, sets, deletes and reads by turns, each op by itself and each awaited, on keys that all regions share.
async fn write(region: &'static str, client: Client, stop: watch::Receiver<bool>) -> Wrote {
    let session: Session = client.session().await.unwrap();
    let mut wrote = Wrote::default();
    while !*stop.borrow() {
        wrote.count += 1;
        let n = wrote.count;
        let (counter, register) = (format!("count:{}", n % KEYS), format!("name:{}", n * 3 % KEYS));
        let sent = Instant::now();
        match n % 8 {
            0 => {
                session.counter(&counter).get().await.unwrap();
                session.register(&register).get().await.unwrap();
            }
            1 => {
                let written = session.register(&register).delete().await.unwrap();
                wrote.oracle.record_delete(&register, written.stamp.unwrap());
            }
            2..=4 => {
                let value = format!("{region} {n}");
                let written = session.register(&register).set(value.as_str()).await.unwrap();
                wrote.oracle.record_set(&register, written.stamp.unwrap(), value);
            }
            _ => {
                let amount = n as i64 % 100 + 1;
                session.counter(&counter).incr(amount).await.unwrap();
                wrote.oracle.record_add(&counter, amount);
            }
        }
        wrote.answers.record(sent.elapsed());
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    wrote
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_cut_off_goes_on_and_after_healing_all_hold_every_write() {
    let delay = LinkConditions::delayed(Duration::from_millis(15));
    let bed = Bed::start_with(|options| options.with_links(delay));
    let clients = bed.clients().await;
    let relay = bed.cluster.relay().unwrap();
    let (stop, stopped) = watch::channel(false);
    let spawn = |(region, client): (&&'static str, &Client)| {
        tokio::spawn(write(region, client.clone(), stopped.clone()))
    };
    let writers: Vec<_> = REGIONS.iter().zip(&clients).map(spawn).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    relay.isolate(CUT_OFF).unwrap();
    let cut = Instant::now();

    // The link's end is noticed by silence; until then the region is merely behind.
    bed.until("the cut is noticed on both sides", 10, |bed| {
        let pairs = [("eu", CUT_OFF), ("us", CUT_OFF), (CUT_OFF, "eu"), (CUT_OFF, "us")];
        let open = pairs.iter().find(|(a, b)| bed.peer(a, b)["state"] != "unreachable");
        open.map(|(a, b)| format!("{a} says {b} is {}", bed.peer(a, b)["state"]))
    });
    let noticed = cut.elapsed();
    barriers_name_who_is_cut_off(&clients).await;
    while cut.elapsed() < Duration::from_secs(4) {
        assert_eq!(bed.get_status(CUT_OFF, "/readyz"), Some(200), "a partition makes no region unready");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let across = bed.cluster.digests("eu").unwrap() == bed.cluster.digests(CUT_OFF).unwrap();
    assert!(!across, "the regions hold different writes while they are apart");
    let lag_before = bed.peer("eu", CUT_OFF)["lag_seconds"].as_f64().unwrap();
    assert!(lag_before > 2.0, "eu says {CUT_OFF} is {lag_before} s behind after a cut of 4 s");

    relay.heal_all();
    let healed = Instant::now();
    // Writing goes on: lag must come down by itself, under load.
    bed.until("lag is below 2 s everywhere", 15, |bed| {
        let pairs = REGIONS.iter().flat_map(|a| REGIONS.iter().map(move |b| (a, b))).filter(|(a, b)| a != b);
        let lag = |(a, b): (&&str, &&str)| {
            let peer = bed.peer(a, b);
            let is_well = peer["state"] == "ok" && peer["lag_seconds"].as_f64().unwrap() < 2.0;
            (!is_well).then(|| format!("{a} says of {b}: {peer}"))
        };
        pairs.into_iter().find_map(lag)
    });
    let lag_in = healed.elapsed();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.send_replace(true);
    let mut oracle = Oracle::new();
    let mut told = Vec::new();
    for (region, writer) in REGIONS.iter().zip(writers) {
        let wrote = within("a writer", 20, writer).await.unwrap();
        let (p99, max) = (wrote.answers.p(99.0), wrote.answers.max());
        assert!(max < ANSWER_MAX, "{region}: an answer took {max:?}");
        assert!(wrote.count > 100, "{region} wrote only {} times", wrote.count);
        told.push(format!("{region} {} ops, p99 {:.1} ms", wrote.count, p99.as_secs_f64() * 1_000.0));
        oracle.merge(wrote.oracle);
    }
    bed.await_equal_digests();
    assert_eq!(values::differences(&clients, &oracle).await, Vec::<String>::new());
    tell(&format!(
        "partition: noticed after {} ms, lag below 2 s {} ms after the heal; {}",
        noticed.as_millis(),
        lag_in.as_millis(),
        told.join("; ")
    ));

    // The same check goes red for a register that lost to an older write, and for a counter that lacks one add.
    let session = clients[1].session().await.unwrap();
    session.counter("count:1").incr(1).await.unwrap();
    session.register("name:1").set("a later write").await.unwrap();
    bed.await_equal_digests();
    let red = values::differences(&clients, &oracle).await;
    assert_eq!(red.len(), 2 * REGIONS.len(), "{red:?}");
}

async fn barriers_name_who_is_cut_off(clients: &[Client]) {
    let timeout = Duration::from_millis(300);
    for (region, client) in REGIONS.iter().zip(clients) {
        let session = client.session().await.unwrap();
        let written = session.counter(format!("barrier:{region}")).incr(1).await.unwrap();
        let awaited =
            within("a barrier", 10, client.wait(&written.token, Scope::All, timeout)).await.unwrap();
        assert!(!awaited.reached, "{region}: {awaited:?}");
        let laggards: Vec<(&str, &str)> =
            awaited.laggards.iter().map(|late| (late.region.as_str(), late.reason.name())).collect();
        let mut expected = match *region {
            CUT_OFF => vec![("eu", "unreachable"), ("us", "unreachable")],
            _ => vec![(CUT_OFF, "unreachable")],
        };
        expected.sort_unstable();
        let mut laggards = laggards;
        laggards.sort_unstable();
        assert_eq!(laggards, expected, "{region}");
        assert!(awaited.laggards.iter().all(|late| late.behind_ops > 0), "{awaited:?}");
    }
    // What can be reached is reached.
    let session = clients[0].session().await.unwrap();
    let written = session.counter("barrier:two").incr(1).await.unwrap();
    for scope in [Scope::Named(vec!["eu".into(), "us".into()]), Scope::AtLeast(2)] {
        let wait = clients[0].wait(&written.token, scope, Duration::from_secs(5));
        assert!(within("a barrier", 10, wait).await.unwrap().reached);
    }
}
