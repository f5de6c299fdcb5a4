//! Long links under load: lag stays below 2 s, and comes back below it after a cut too short to end a connection.
//!
//! Such a cut loses what is in flight and leaves the connections as they are, so that it is the congestion control that
//! has to find its pace again.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tombolo_sdk::{Client, SdkError, Written};
use tombolo_testbed::relay::LinkConditions;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::{tell, within};

/// One way, as between Ireland, Virginia and Mumbai.
const PATHS: [(&str, &str, u64); 3] = [("eu", "us", 40), ("eu", "ap", 60), ("us", "ap", 75)];
/// Signals per second in each region: a fifth of them register writes.
const PER_SECOND: u64 = 5_000;
const SETS_IN_FLIGHT_MAX: usize = 256;
const LAG_MAX_SECONDS: f64 = 2.0;
const CUT: Duration = Duration::from_millis(500);
/// Looks at the lag that say together whether it lasts: about a second.
const LASTING_COUNT: usize = 10;

/// Adds go through a writer; each set is a request of its own, as applications send them that want its answer.
/// Gives how many sets failed for which reason.
async fn write(region: &'static str, client: Client, stop: watch::Receiver<bool>) -> BTreeMap<String, u64> {
    let session = client.session().await.unwrap();
    let (mut writer, mut adds, mut sets) = (session.writer(), 0, JoinSet::new());
    let (mut count, mut failed, start) = (0, BTreeMap::new(), Instant::now());
    let mut note = |set: Result<Written, SdkError>| {
        if let Err(error) = set {
            *failed.entry(error.to_string()).or_default() += 1;
        }
    };
    while !*stop.borrow() {
        let due = start.elapsed().as_millis() as u64 * PER_SECOND / 1_000;
        while count < due {
            count += 1;
            if count % 5 > 0 {
                writer.add(format!("miles:{}", count * 7_919 % 6_000), 1).await.unwrap();
                adds += 1;
                continue;
            }
            if sets.len() >= SETS_IN_FLIGHT_MAX {
                note(sets.join_next().await.unwrap().unwrap());
            }
            let register = session.register(format!("last:{}", count * 31 % 4_000));
            let value = format!("{region} was here for the {count}th time");
            sets.spawn(async move { register.set(value).await });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sets.join_all().await.into_iter().for_each(note);
    let report = writer.flush().await.unwrap();
    assert_eq!(report.accepted, adds, "{report:?}");
    failed
}

/// The greatest lag that any region has of any other, and of which pair.
fn worst_lag(bed: &Bed) -> (f64, String) {
    let mut worst = (0.0, "none".to_owned());
    for region in REGIONS {
        let status = bed.cluster.status(region).unwrap();
        for peer in status["peers"].as_array().unwrap() {
            let lag = peer["lag_seconds"].as_f64().unwrap();
            if lag > worst.0 {
                worst = (lag, format!("{region} → {}", peer["region"].as_str().unwrap()));
            }
        }
    }
    worst
}

/// Watches for some seconds; the greatest lag, and the least of the last [`LASTING_COUNT`] looks.
///
/// Who does not catch up lags in each of them. A single look also shows a machine that stood still for a moment.
fn watch_lag(bed: &Bed, seconds: f64) -> ((f64, String), (f64, String)) {
    let (start, mut seen) = (Instant::now(), Vec::new());
    while start.elapsed().as_secs_f64() < seconds {
        std::thread::sleep(Duration::from_millis(100));
        seen.push(worst_lag(bed));
    }
    let by_lag = |a: &&(f64, String), b: &&(f64, String)| a.0.total_cmp(&b.0);
    let worst = seen.iter().max_by(by_lag).unwrap().clone();
    let lasting = seen.iter().rev().take(LASTING_COUNT).min_by(by_lag).unwrap().clone();
    (worst, lasting)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_over_long_links_stays_below_two_seconds_and_returns_there_after_a_short_cut() {
    cut_shortly("long links", LinkConditions::delayed(Duration::from_millis(60))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_returns_below_two_seconds_after_a_short_cut_of_links_that_became_longer() {
    cut_shortly("links that became longer", LinkConditions::default()).await;
}

/// Links are as `at_first` when the regions connect, and as long as [`PATHS`] says from then on.
async fn cut_shortly(name: &str, at_first: LinkConditions) {
    let bed = Bed::start_with(|options| options.with_links(at_first));
    bed.until("all are linked", 10, |bed| {
        let apart = PATHS.iter().find(|(a, b, _)| bed.peer(a, b)["state"] != "ok");
        apart.map(|(a, b, _)| format!("{a} and {b} are not"))
    });
    let relay = bed.cluster.relay().unwrap();
    for (a, b, ms) in PATHS {
        let conditions = LinkConditions::delayed(Duration::from_millis(ms));
        relay.set(a, b, conditions.clone()).unwrap();
        relay.set(b, a, conditions).unwrap();
    }
    let clients = bed.clients().await;
    let (stop, stopped) = watch::channel(false);
    let spawn = |(region, client): (&&'static str, &Client)| {
        tokio::spawn(write(region, client.clone(), stopped.clone()))
    };
    let writers: Vec<_> = REGIONS.iter().zip(&clients).map(spawn).collect();
    let (calm, _) = watch_lag(&bed, 4.0);
    relay.isolate("ap").unwrap();
    tokio::time::sleep(CUT).await;
    relay.heal_all();
    let bytes = relay.bytes_total();
    let (after, lasting) = watch_lag(&bed, 4.0);
    let shipped = (relay.bytes_total() - bytes) as f64 / 4.0 / 1e6;
    stop.send_replace(true);
    for writer in writers {
        let failed = within("a writer", 40, writer).await.unwrap();
        assert!(failed.is_empty(), "register writes were refused: {failed:#?}");
    }
    let equal = bed.await_equal_digests();
    tell(&format!(
        "{name}: lag at most {:.2} s ({}); after a cut of {CUT:?} at most {:.2} s ({}), 4 s later {:.2} s ({}), {shipped:.2} MB/s on all links; equal {} ms after the last ack",
        calm.0,
        calm.1,
        after.0,
        after.1,
        lasting.0,
        lasting.1,
        equal.as_millis()
    ));
    assert!(calm.0 < LAG_MAX_SECONDS, "before any cut: {} s of {}", calm.0, calm.1);
    assert!(lasting.0 < LAG_MAX_SECONDS, "4 s after a cut of {CUT:?}: {} s of {}", lasting.0, lasting.1);
}
