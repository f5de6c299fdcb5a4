//! Writers whose region is killed, or comes back with an older disk: the SDK goes on in the next region within 2 s, and
//! every op counts exactly once.
//!
//! `TOMBOLO_FAILOVER_ROUNDS` says how many kills are measured; 3 if it is not set.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tombolo_sdk::{Client, Options, Scope};
use tombolo_testbed::percentiles::Latencies;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::fates::Fates;
use tombolo_tests::{digits, tell, within};

/// Longest time without an ack that a writer may see when its region dies.
const GAP_MAX: Duration = Duration::from_secs(2);
/// Writers of a round, each with a client of its own.
const WRITERS: usize = 3;

fn rounds() -> usize {
    std::env::var("TOMBOLO_FAILOVER_ROUNDS").map_or(3, |text| text.parse().expect("a number of rounds"))
}

/// Prefers `first`, then the regions after it. Never goes back, so that each round measures one failover.
fn options(bed: &Bed, first: usize) -> Options {
    let address =
        |step: usize| bed.cluster.quic(REGIONS[(first + step) % REGIONS.len()]).unwrap().to_string();
    let options = bed.options(REGIONS[first]).return_after(Duration::from_secs(3_600));
    (1..REGIONS.len()).fold(options, |options, step| options.fallback(address(step)))
}

/// Writers that write until they are told to stop.
struct Load {
    fates: Vec<Fates>,
    clients: Vec<Client>,
    drives: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Load {
    async fn start(name: &str, options: impl IntoIterator<Item = Options>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut load = Self { fates: Vec::new(), clients: Vec::new(), drives: Vec::new(), stop };
        for (index, options) in options.into_iter().enumerate() {
            let client = within("a client connects", 15, Client::connect(options)).await.unwrap();
            let (session, fates) = (client.session().await.unwrap(), Fates::new(format!("{name}:{index}")));
            let (driven, stopped) = (fates.clone(), stopped.clone());
            load.drives.push(tokio::spawn(async move { driven.drive(session, stopped).await }));
            load.fates.push(fates);
            load.clients.push(client);
        }
        load
    }

    /// Every op is answered, and with a yes.
    async fn finish(self) -> Vec<Fates> {
        self.stop.send_replace(true);
        for drive in self.drives {
            within("the numbered ops", 40, drive).await.unwrap();
        }
        for client in self.clients {
            within("a client closes", 20, client.close()).await;
        }
        for fates in &self.fates {
            assert_eq!(fates.failures(), Vec::<String>::new());
        }
        self.fates
    }
}

async fn wrong(bed: &Bed, fates: &[Fates]) -> Vec<String> {
    let mut wrong = Vec::new();
    for region in REGIONS {
        let client = bed.client(region).await;
        for fates in fates {
            wrong.extend(fates.check(region, &client).await);
        }
    }
    wrong
}

fn not_whole(bed: &Bed) -> Option<String> {
    REGIONS.iter().find_map(|region| {
        let status = bed.cluster.status(region).unwrap();
        (status["whole"] != true).then(|| format!("{region} waits for {}", status["waiting_for"]))
    })
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_whose_region_is_killed_is_acked_again_within_two_seconds_and_each_op_counts_once() {
    let mut bed = Bed::start();
    let (mut gaps, mut all_fates, mut conditional) = (Latencies::new(), Vec::new(), 0);
    for round in 0..rounds() {
        let victim = round % REGIONS.len();
        let load = Load::start(&format!("round {round}"), (0..WRITERS).map(|_| options(&bed, victim))).await;
        assert!(load.clients.iter().all(|client| client.region() == REGIONS[victim]));
        pause(500).await;
        bed.cluster.kill9(REGIONS[victim]).unwrap();
        pause(2_500).await;
        bed.cluster.spawn(REGIONS[victim]).unwrap();
        bed.cluster.await_ready(REGIONS[victim]).unwrap();
        pause(300).await;
        for client in &load.clients {
            assert_ne!(client.region(), REGIONS[victim]);
        }
        for fates in load.finish().await {
            gaps.record(fates.longest_gap());
            conditional += fates.conditional().len();
            all_fates.push(fates);
        }
        bed.await_equal_digests();
    }
    tell(&format!(
        "failover: {} writers lost their region; longest time without an ack p50 {} ms, p99 {} ms, most {} ms; {conditional} of {} ops were answered conditionally",
        gaps.len(),
        gaps.p(50.0).as_millis(),
        gaps.p(99.0).as_millis(),
        gaps.max().as_millis(),
        all_fates.iter().map(Fates::len).sum::<usize>(),
    ));
    assert!(gaps.p(99.0) <= GAP_MAX, "{:?}", gaps.p(99.0));
    assert!(conditional > 0, "nothing was unknown when a region died: a weak test");
    bed.until("every region is whole", 20, not_whole);
    bed.await_equal_digests();
    assert_eq!(wrong(&bed, &all_fates).await, Vec::<String>::new());
    sabotage(&mut bed, all_fates).await;
}

/// The same checks go red for an op sent again under a new number, and for a client that is slow to move.
async fn sabotage(bed: &mut Bed, all_fates: Vec<Fates>) {
    let fates = all_fates.iter().find(|fates| !fates.conditional().is_empty()).unwrap();
    let again = fates.conditional()[0];
    let client = bed.client(REGIONS[0]).await;
    let session = client.session().await.unwrap();
    let written = session.counter(fates.key(again)).incr(digits::delta(again)).await.unwrap();
    let awaited = client.wait(&written.token, Scope::All, Duration::from_secs(15)).await.unwrap();
    assert!(awaited.reached);
    let red = wrong(bed, &all_fates).await;
    assert_eq!(red.len(), REGIONS.len(), "{red:?}");
    assert!(red.iter().all(|text| text.contains("counts 2 times")), "{red:?}");

    let slow = options(bed, 1).failover_after(GAP_MAX * 3 / 2);
    let load = Load::start("slow", [slow]).await;
    pause(300).await;
    bed.cluster.kill9(REGIONS[1]).unwrap();
    pause(4_500).await;
    bed.cluster.spawn(REGIONS[1]).unwrap();
    bed.cluster.await_ready(REGIONS[1]).unwrap();
    let gap = load.finish().await[0].longest_gap();
    assert!(gap > GAP_MAX, "{gap:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_comes_back_with_an_older_disk_is_not_whole_until_others_answered_and_each_op_counts_once()
 {
    let mut bed = Bed::start();
    let data = bed.dir().join("data").join("eu");
    let older = bed.dir().join("older");
    let first = Load::start("before the copy", [options(&bed, 0)]).await;
    pause(300).await;
    let mut all_fates = first.finish().await;
    bed.cluster.terminate("eu", Duration::from_secs(10)).unwrap();
    copy(&data, &older);
    bed.cluster.spawn("eu").unwrap();
    bed.cluster.await_ready("eu").unwrap();

    // What the copy lacks: ops acked by the region, others of which it died owing the answer.
    let load = Load::start("after the copy", (0..WRITERS).map(|_| options(&bed, 0))).await;
    pause(600).await;
    bed.cluster.kill9("eu").unwrap();
    pause(2_500).await;
    bed.cluster.spawn("eu").unwrap();
    bed.cluster.await_ready("eu").unwrap();
    bed.until("every region is whole", 20, not_whole);
    // Its acked ops have left it by now: what has not is lost with a disk, in any system that acks in one region.
    pause(500).await;
    bed.cluster.kill9("eu").unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&older, &data);
    for peer in ["us", "ap"] {
        bed.cluster.pause(peer).unwrap();
    }
    bed.cluster.spawn("eu").unwrap();
    bed.cluster.await_ready("eu").unwrap();
    let alone = Instant::now();
    while alone.elapsed() < Duration::from_secs(3) {
        let status = bed.cluster.status("eu").unwrap();
        assert_eq!(status["whole"], false, "nobody can have told it what it lost");
        pause(100).await;
    }
    // The writers have gone there meanwhile: not whole, it takes what it is given.
    let regions: Vec<String> = load.clients.iter().map(Client::region).collect();
    for peer in ["us", "ap"] {
        bed.cluster.resume(peer).unwrap();
    }
    let whole = bed.until("every region is whole", 20, not_whole);
    pause(300).await;
    let fates = load.finish().await;
    tell(&format!(
        "older disk: whole {} ms after its peers answered; writers at {regions:?} before; {} ops were answered conditionally",
        whole.as_millis(),
        fates.iter().map(|fates| fates.conditional().len()).sum::<usize>(),
    ));
    assert!(regions.iter().any(|region| region == "eu"), "{regions:?}");
    all_fates.extend(fates);
    bed.await_equal_digests();
    assert_eq!(wrong(&bed, &all_fates).await, Vec::<String>::new());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
