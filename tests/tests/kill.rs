//! `kill -9` of each daemon under load: nothing acked is lost, nothing counts twice though the SDK sends again.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tombolo_sdk::{Client, Scope};
use tombolo_testbed::oracle::Oracle;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::bulk::Bulk;
use tombolo_tests::fates::Fates;
use tombolo_tests::{digits, tell, values, within};

/// Adds per second on the region that is killed, and on the others.
const HEAVY: u64 = 3_000;
const LIGHT: u64 = 300;
/// From the kill to the restart.
const DOWN: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_of_each_daemon_under_load_every_acked_op_counts_exactly_once() {
    let mut bed = Bed::start();
    let clients = bed.clients().await;
    let (mut oracle, mut all_fates) = (Oracle::new(), Vec::new());
    for victim in REGIONS {
        let (stop, stopped) = watch::channel(false);
        let (mut drives, mut bulks, mut fates) = (Vec::new(), Vec::new(), Vec::new());
        for (region, client) in REGIONS.iter().zip(&clients) {
            let session = client.session().await.unwrap();
            let fate = Fates::new(format!("{victim}:{region}"));
            let (driven, session_too, stopped_too) = (fate.clone(), session.clone(), stopped.clone());
            drives.push(tokio::spawn(async move { driven.drive(session_too, stopped_too).await }));
            let per_second = if *region == victim { HEAVY } else { LIGHT };
            bulks.push(tokio::spawn(Bulk { per_second }.drive(session, stopped.clone())));
            fates.push(fate);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let killed = Instant::now();
        bed.cluster.kill9(victim).unwrap();
        let down = Instant::now();
        tokio::time::sleep(DOWN).await;
        bed.cluster.spawn(victim).unwrap();
        bed.cluster.await_ready(victim).unwrap();
        let ready = down.elapsed();

        // Ready means recovered: what it acked is there at once, whether or not its peers have it.
        let at = REGIONS.iter().position(|region| *region == victim).unwrap();
        let counts = fates[at].counts(&bed.client(victim).await).await;
        let acked = fates[at].acked_before(killed);
        let lost: Vec<usize> = acked.iter().copied().filter(|op| counts[*op] != 1).collect();
        assert!(acked.len() > 30, "only {} ops were acked before the kill", acked.len());
        assert_eq!(lost, Vec::<usize>::new(), "{victim} lost what it had acked");

        tokio::time::sleep(Duration::from_millis(400)).await;
        stop.send_replace(true);
        for drive in drives {
            within("the numbered ops", 40, drive).await.unwrap();
        }
        let mut count = 0;
        for (region, bulk) in REGIONS.iter().zip(bulks) {
            let done = within("the bulk load", 40, bulk).await.unwrap();
            assert_eq!(
                done.failures(),
                Vec::<String>::new(),
                "bulk load on {region} while {victim} was killed"
            );
            count += done.count;
            oracle.merge(done.oracle);
        }
        for fate in &fates {
            assert_eq!(fate.failures(), Vec::<String>::new(), "while {victim} was killed");
        }
        tell(&format!(
            "kill of {victim}: ready {} ms after the kill, {} ms of it down on purpose; the client's next ack {} ms after it; {} acked before, {} numbered ops, {} answered as replays, {count} bulk ops",
            ready.as_millis(),
            DOWN.as_millis(),
            fates[at].first_ack_after(down).unwrap().as_millis(),
            acked.len(),
            fates.iter().map(Fates::len).sum::<usize>(),
            fates.iter().map(Fates::replayed_count).sum::<usize>(),
        ));
        all_fates.extend(fates);
    }
    bed.await_equal_digests();
    assert_eq!(wrong(&clients, &oracle, &all_fates).await, Vec::<String>::new());
    sabotage(&bed, &clients, oracle, all_fates).await;
}

async fn wrong(clients: &[Client], oracle: &Oracle, fates: &[Fates]) -> Vec<String> {
    let mut wrong = values::differences(clients, oracle).await;
    for (region, client) in REGIONS.iter().zip(clients) {
        for fate in fates {
            wrong.extend(fate.check(region, client).await);
        }
    }
    wrong
}

/// The same check must go red for an op that is lost and for one that counts twice.
async fn sabotage(bed: &Bed, clients: &[Client], oracle: Oracle, fates: Vec<Fates>) {
    let mut with_one_more = oracle.clone();
    with_one_more.record_add("bulk:1", 1);
    let red = wrong(clients, &with_one_more, &[]).await;
    assert_eq!(red.len(), REGIONS.len(), "an add that is missing is missed in every region: {red:?}");

    // A client that sends again under a new number.
    let session = clients[0].session().await.unwrap();
    let again = 17;
    let written = session.counter(fates[0].key(again)).incr(digits::delta(again)).await.unwrap();
    let awaited =
        within("a barrier", 20, clients[0].wait(&written.token, Scope::All, Duration::from_secs(15))).await;
    assert!(awaited.unwrap().reached);
    bed.await_equal_digests();
    let red = wrong(clients, &oracle, &fates).await;
    assert_eq!(red.len(), REGIONS.len(), "{red:?}");
    assert!(red.iter().all(|text| text.contains("op 17 of eu:eu counts 2 times")), "{red:?}");

    fates[1].pretend_one_more();
    let red = wrong(clients, &oracle, &fates[1..2]).await;
    assert_eq!(red.len(), REGIONS.len(), "{red:?}");
    assert!(red.iter().all(|text| text.contains("counts 0 times")), "{red:?}");
}
