//! How soon a write is readable in the other regions: open loop, at three rates, over all six pairs.
//!
//! Of each region's load some ops are probes: adds of 1 to a counter of that region. Each other region reads those
//! counters again and again; a probe is visible there once the count includes it. Latency counts from the instant the
//! probe was due, whether or not it could be sent then.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tombolo_sdk::{Client, Value};
use tombolo_testbed::percentiles::Latencies;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::{tell, values, within};

const LIMIT: Duration = Duration::from_secs(2);
/// How long after the load probes may still show.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// Time between two handfuls of ops in one region.
const TICK: Duration = Duration::from_millis(2);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(4);
const KEYS: u64 = 10_000;
/// Probe counters of each region, so that probes lie in several shards.
const PROBE_KEYS: usize = 8;

#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    /// Over all regions together, beside the probes.
    per_second: u64,
    seconds: u64,
    /// Time between two probes in one region.
    probe_every: Duration,
}

impl Load {
    /// Probes of one region.
    fn probes_count(&self) -> u64 {
        (self.seconds * 1_000).div_ceil(self.probe_every.as_millis() as u64)
    }
}

/// Of each probe counter: when its n-th probe was due.
type Due = Arc<Mutex<BTreeMap<String, Vec<Instant>>>>;

/// What was seen of one pair of regions.
#[derive(Default)]
struct Pair {
    latencies: Latencies,
    missing: u64,
}

struct Visible {
    load: Load,
    pairs: BTreeMap<(&'static str, &'static str), Pair>,
    sent: u64,
    sent_in: Duration,
}

impl Visible {
    /// What breaks the promise; empty if it holds for every pair.
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for ((from, to), pair) in &self.pairs {
            let p99 = pair.latencies.p(99.0);
            if pair.missing > 0 {
                wrong.push(format!("{from} → {to}: {} probes never showed", pair.missing));
            }
            if p99 >= LIMIT {
                wrong.push(format!("{from} → {to}: p99 is {p99:?}"));
            }
            let (seen, sent) = (pair.latencies.len() + pair.missing, self.load.probes_count());
            if seen < sent {
                wrong.push(format!("{from} → {to}: {sent} probes were due, {seen} were sent"));
            }
        }
        wrong
    }

    fn tell(&self) {
        let mut all = Latencies::new();
        self.pairs.values().for_each(|pair| all.merge(&pair.latencies));
        let (ms, sum) = (|d: Duration| d.as_secs_f64() * 1_000.0, &all);
        tell(&format!(
            "visible, {}: {} ops in {:.2} s; {} probes, p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            self.load.name,
            self.sent,
            self.sent_in.as_secs_f64(),
            all.len(),
            ms(sum.p(50.0)),
            ms(sum.p(95.0)),
            ms(sum.p(99.0)),
            ms(sum.max()),
        ));
    }
}

/// A probe counter: each load has its own, so that counts begin at zero.
fn probe_key(load: &str, region: &str, slot: usize) -> String {
    format!("probe:{load}:{region}:{slot}")
}

/// One load as it runs.
struct Run {
    load: Load,
    start: Instant,
}

impl Run {
    /// Writes what is due; gives how many ops were handed over and how long that and their answers took.
    async fn write(
        self: Arc<Self>,
        region: &'static str,
        at: u64,
        client: Client,
        due: Due,
    ) -> (u64, Duration) {
        let session = client.session().await.unwrap();
        let mut writer = session.writer();
        let (mut count, mut probes, end) = (0, 0_usize, Duration::from_secs(self.load.seconds));
        let mut tick = Duration::ZERO;
        while tick < end {
            // Open loop: a tick that is late is not skipped, and does not move those after it.
            tokio::time::sleep_until((self.start + tick).into()).await;
            let share = |elapsed: Duration| {
                let ops = elapsed.as_micros() as u64 * self.load.per_second / 1_000_000;
                (ops + at) / REGIONS.len() as u64
            };
            if tick >= self.load.probe_every * probes as u32 {
                let key = probe_key(self.load.name, region, probes % PROBE_KEYS);
                due.lock().unwrap().entry(key.clone()).or_default().push(self.start + tick);
                writer.add(&key, 1).await.unwrap();
                (count, probes) = (count + 1, probes + 1);
            }
            for op in share(tick)..share(tick + TICK) {
                let key = format!("load:{}", (op * 7_919 + at) % KEYS);
                writer.add(&key, 1).await.unwrap();
                count += 1;
            }
            tick += TICK;
        }
        let report = writer.flush().await.unwrap();
        assert_eq!(report.accepted, count, "{report:?}");
        (count, self.start.elapsed())
    }

    /// Looks at the probes of the other regions until all have shown or it is told to stop.
    async fn look(
        self: Arc<Self>,
        to: &'static str,
        client: Client,
        due: Due,
        done: watch::Receiver<Option<Instant>>,
    ) -> BTreeMap<(&'static str, &'static str), Pair> {
        let others: Vec<&'static str> = REGIONS.into_iter().filter(|region| *region != to).collect();
        let places: Vec<(&'static str, String)> = others
            .iter()
            .flat_map(|from| (0..PROBE_KEYS).map(|slot| (*from, probe_key(self.load.name, from, slot))))
            .collect();
        let keys: Vec<&String> = places.iter().map(|(_, key)| key).collect();
        let mut seen = vec![0_usize; keys.len()];
        let mut pairs: BTreeMap<_, Pair> = others.iter().map(|from| ((*from, to), Pair::default())).collect();
        loop {
            let until = *done.borrow();
            let found = client.read(&keys, None).await.unwrap();
            let now = Instant::now();
            for (at, value) in found.iter().enumerate() {
                let Value::Counter(value) = value else { continue };
                let (from, key) = &places[at];
                let due = due.lock().unwrap();
                let due = &due[key];
                while seen[at] < *value as usize {
                    pairs.get_mut(&(*from, to)).unwrap().latencies.record(now - due[seen[at]]);
                    seen[at] += 1;
                }
            }
            let missing = |(at, (_, key)): (usize, &(&str, String))| {
                due.lock().unwrap().get(key).map_or(0, Vec::len) - seen[at]
            };
            let is_missing = places.iter().enumerate().map(missing).any(|count| count > 0);
            if until.is_some_and(|until| !is_missing || now >= until) {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        for (at, (from, key)) in places.iter().enumerate() {
            let sent = due.lock().unwrap().get(key).map_or(0, Vec::len);
            pairs.get_mut(&(*from, to)).unwrap().missing += (sent - seen[at]) as u64;
        }
        pairs
    }
}

async fn run(clients: &[Client], load: Load) -> Visible {
    let start = Instant::now() + Duration::from_millis(50);
    let run = Arc::new(Run { load, start });
    let due = Due::default();
    let (finish, done) = watch::channel(None);
    let spawn_look = |(to, client): (&&'static str, &Client)| {
        tokio::spawn(run.clone().look(to, client.clone(), due.clone(), done.clone()))
    };
    let looks: Vec<_> = REGIONS.iter().zip(clients).map(spawn_look).collect();
    let spawn_write = |(at, (region, client)): (usize, (&&'static str, &Client))| {
        tokio::spawn(run.clone().write(region, at as u64, client.clone(), due.clone()))
    };
    let writes: Vec<_> = REGIONS.iter().zip(clients).enumerate().map(spawn_write).collect();
    let (mut sent, mut sent_in) = (0, Duration::ZERO);
    for write in writes {
        let (count, took) = within("the load", load.seconds + 30, write).await.unwrap();
        (sent, sent_in) = (sent + count, sent_in.max(took));
    }
    finish.send_replace(Some(Instant::now() + PATIENCE));
    let mut pairs = BTreeMap::new();
    for look in looks {
        pairs.extend(within("the last look", 20, look).await.unwrap());
    }
    Visible { load, pairs, sent, sent_in }
}

/// The probes alone: less than one write a second in each region.
const TRICKLE: Load =
    Load { name: "a trickle", per_second: 0, seconds: 5, probe_every: Duration::from_millis(830) };
const OFTEN: Duration = Duration::from_millis(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_readable_in_every_other_region_within_two_seconds_at_every_rate() {
    let bed = Bed::start();
    let clients = bed.clients().await;
    let loads = [
        TRICKLE,
        Load { name: "1,000/s", per_second: 1_000, seconds: 4, probe_every: OFTEN },
        Load { name: "25,000/s", per_second: 25_000, seconds: 5, probe_every: OFTEN },
    ];
    let mut sent = 0;
    for load in loads {
        let visible = run(&clients, load).await;
        visible.tell();
        assert_eq!(visible.check(), Vec::<String>::new(), "{}", load.name);
        sent += visible.sent;
    }
    bed.await_equal_digests();
    // What was measured was counted: every op once, in every region.
    let mut keys: Vec<String> = (0..KEYS).map(|key| format!("load:{key}")).collect();
    for load in loads {
        for region in REGIONS {
            keys.extend((0..PROBE_KEYS).map(|slot| probe_key(load.name, region, slot)));
        }
    }
    for client in &clients {
        assert_eq!(values::sum(client, &keys).await, i128::from(sent));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sabotage_a_region_that_stops_applying_turns_the_check_red_until_it_resumes() {
    let bed = Bed::start();
    let clients = bed.clients().await;
    let load = Load { name: "paused", per_second: 100, seconds: 2, probe_every: OFTEN };
    let (status, answer) = bed.post("us", "/v1/admin/pause-apply", &json!({"peer": "eu"}));
    assert_eq!(status, 200, "{answer}");
    let paused = run(&clients, load).await;
    let wrong = paused.check();
    assert_eq!(wrong.len(), 1, "the paused pair alone is late: {wrong:?}");
    assert!(wrong[0].starts_with("eu → us") && wrong[0].contains("never showed"), "{wrong:?}");
    let (status, answer) = bed.post("us", "/v1/admin/resume-apply", &json!({"peer": "eu"}));
    assert_eq!(status, 200, "{answer}");
    bed.await_equal_digests();
    let resumed = run(&clients, Load { name: "resumed", ..load }).await;
    assert_eq!(resumed.check(), Vec::<String>::new());
}
