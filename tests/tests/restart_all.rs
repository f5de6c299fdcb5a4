//! All three daemons killed at once under load, and started again, twice.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tombolo_sdk::Client;
use tombolo_testbed::oracle::Oracle;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::bulk::Bulk;
use tombolo_tests::fates::Fates;
use tombolo_tests::{tell, values, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_of_all_daemons_at_once_all_hold_every_acked_op_once_and_become_whole() {
    let mut bed = Bed::start();
    let clients = bed.clients().await;
    let (mut oracle, mut all_fates) = (Oracle::new(), Vec::new());
    for round in 1..=2 {
        let (fates, bulk) = round_of_load(&mut bed, &clients, round).await;
        all_fates.extend(fates);
        oracle.merge(bulk);
        bed.await_equal_digests();
        let whole = bed.until("every region is whole", 20, Bed::not_whole);
        tell(&format!("restart of all, round {round}: whole {} ms after equal digests", whole.as_millis()));
        assert_eq!(values::differences(&clients, &oracle).await, Vec::<String>::new());
        for (region, client) in REGIONS.iter().zip(&clients) {
            for fate in &all_fates {
                assert_eq!(fate.check(region, client).await, Vec::<String>::new());
            }
        }
        // The epochs of earlier lives are sealed: one log of each region is left in every vector.
        bed.until("earlier logs are sealed", 20, |bed| {
            REGIONS.iter().find_map(|region| bed.unsealed(region))
        });
    }
    bed.await_equal_digests();
}

async fn round_of_load(bed: &mut Bed, clients: &[Client], round: u32) -> (Vec<Fates>, Oracle) {
    let (stop, stopped) = watch::channel(false);
    let (mut drives, mut bulks, mut fates) = (Vec::new(), Vec::new(), Vec::new());
    for (region, client) in REGIONS.iter().zip(clients) {
        let session = client.session().await.unwrap();
        let fate = Fates::new(format!("{round}:{region}"));
        let (driven, session_too, stopped_too) = (fate.clone(), session.clone(), stopped.clone());
        drives.push(tokio::spawn(async move { driven.drive(session_too, stopped_too).await }));
        bulks.push(tokio::spawn(Bulk { per_second: 1_000 }.drive(session, stopped.clone())));
        fates.push(fate);
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    let killed = Instant::now();
    for region in REGIONS {
        bed.cluster.kill9(region).unwrap();
    }
    for region in REGIONS {
        bed.cluster.spawn(region).unwrap();
    }
    for region in REGIONS {
        bed.cluster.await_ready(region).unwrap();
    }
    let ready = killed.elapsed();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.send_replace(true);
    let mut oracle = Oracle::new();
    for drive in drives {
        within("the numbered ops", 40, drive).await.unwrap();
    }
    for bulk in bulks {
        let done = within("the bulk load", 40, bulk).await.unwrap();
        assert_eq!(done.failures(), Vec::<String>::new());
        oracle.merge(done.oracle);
    }
    let mut acked = 0;
    for fate in &fates {
        assert_eq!(fate.failures(), Vec::<String>::new());
        acked += fate.acked_before(killed).len();
    }
    assert!(acked > 100, "only {acked} ops were acked before the kill");
    let count: usize = fates.iter().map(Fates::len).sum();
    tell(&format!(
        "restart of all, round {round}: all ready {} ms after the kill; {acked} of {count} numbered ops acked before it, {} answered as replays",
        ready.as_millis(),
        fates.iter().map(Fates::replayed_count).sum::<usize>()
    ));
    (fates, oracle)
}
