//! `bench replicate`: an open loop at a fixed rate, and how soon each write is readable in every other region.
//!
//! Every millisecond each region is due its share of signals, whether or not earlier ones were answered; all latencies
//! count from that instant. Each millisecond's signals are flushed as one: `ack_ms` is until the last of them is
//! answered. Of some, one signal by chance is read in each other region after its token: `visible_ms`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tombolo_sdk::{Client, FlushReport, SdkError, Session, Token, Writer};
use tombolo_testbed::percentiles::{Latencies, Summary};
use tombolo_testbed::report::{BENCH_SCHEMA, Report};

use super::Measured;
use super::bed::{Accepted, Bed};
use super::keys::{Chance, Draw, Keys};
use super::meter::Meter;
use super::settings::{LoadKind, LoadSettings, RegionSettings};
use crate::error::{CliError, Exit};
use crate::regions::{Regions, sdk_error};

/// How often signals are due.
const TICK: Duration = Duration::from_millis(1);
const TICKS_PER_SECOND: u64 = 1_000;
/// Ticks whose signals are not all answered yet, per region; beyond it a tick waits, and its latency grows.
const TICKS_IN_FLIGHT_MAX: usize = 256;
/// Signals that are read elsewhere, over all regions.
const SAMPLES_PER_SECOND: u64 = 200;

/// Arguments of `tombolo bench replicate`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Signals per second, over all regions together
    #[arg(long, value_name = "R", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: u64,
    /// Exit with 8 if the 99th percentile of `visible_ms` is above this
    #[arg(long, value_name = "X")]
    assert_p99_ms: Option<f64>,
    #[command(flatten)]
    pub(crate) load: LoadSettings,
    #[command(flatten)]
    pub(crate) regions: RegionSettings,
}

/// One pair of regions in the report.
#[derive(Debug, Serialize)]
struct Pair<'a> {
    from: &'a str,
    to: &'a str,
    samples: u64,
    visible_ms: Summary,
}

/// Runs the load once.
pub(crate) async fn measure(arguments: &Arguments, regions: &Regions) -> Result<Measured, CliError> {
    let load = &arguments.load;
    let bed = Bed::make(regions, load).await?;
    let count = bed.names.len();
    let meter = Meter::start(regions).await;
    let clock = Clock::start(Duration::from_secs(load.seconds.into()));
    let drive = |at: usize| Drive {
        session: bed.sessions[at].clone(),
        others: bed.clients.iter().cloned().enumerate().filter(|(other, _)| *other != at).collect(),
        keys: bed.keys.clone(),
        draw: Draw::new(load.dist, load.keys, at as u64 + 1),
        kind: load.kind,
        rate: Rate { signals_per_second: arguments.rate, regions_count: count as u64, region: at as u64 },
        found: Arc::default(),
    };
    let drives: Vec<_> = (0..count).map(|at| tokio::spawn(drive(at).run(clock.clone()))).collect();
    let (mut accepted, mut found) = (Vec::new(), Vec::new());
    for (name, drive) in bed.names.iter().zip(drives) {
        let done = drive.await.map_err(|error| CliError::new(Exit::Other, error.to_string()))?;
        let mut done = done.map_err(|error| sdk_error(name, &error))?;
        accepted.push(std::mem::take(&mut done.accepted));
        found.push(done);
    }
    let mut settled = bed.converge(&accepted, meter.started()).await?;
    let signals: u64 = accepted.iter().map(|accepted| accepted.signals).sum();
    let durability = regions.statuses().await?.remove(0).durability;
    let mut report = Report::new(BENCH_SCHEMA, "replicate", durability);
    meter.stop(regions, signals, settled.converged, &mut report).await;
    bed.verify(&accepted, &mut settled).await?;
    settled.wrong.extend(accepted.iter().filter_map(|accepted| accepted.refusal.clone()));
    settled.wrong.extend(found.iter().filter_map(|found| found.failure.clone()));
    report.errors = accepted.iter().map(|accepted| accepted.refused).sum::<u64>();
    report.timeouts = accepted.iter().map(|accepted| accepted.unknown).sum::<u64>();
    report.timeouts += found.iter().map(|found| found.unread).sum::<u64>();
    let (mut acks, mut visible, mut pairs) = (Latencies::new(), Latencies::new(), Vec::new());
    for (from, found) in bed.names.iter().zip(&found) {
        acks.merge(&found.acks);
        for (to, latencies) in &found.visible {
            visible.merge(latencies);
            let (to, visible_ms) = (bed.names[*to].as_str(), latencies.summary());
            pairs.push(Pair { from, to, samples: latencies.len(), visible_ms });
        }
    }
    if let Some(bound) = arguments.assert_p99_ms
        && visible.summary().p99 > bound
    {
        settled.wrong.push(format!("visible p99 is {} ms, above {bound} ms", visible.summary().p99));
    }
    report.set("kind", load.kind.name());
    report.set("dist", load.dist.name());
    report.set("keys", load.keys);
    report.set("seconds", load.seconds);
    report.set("rate", arguments.rate);
    report.set("signals", signals);
    report.set("samples", visible.len());
    report.set("signals_per_second", signals as f64 / settled.converged.as_secs_f64());
    report.set("ack_ms", acks.summary());
    report.set("visible_ms", visible.summary());
    report.set("pairs", &pairs);
    bed.close().await;
    Ok(Measured { report, wrong: settled.wrong })
}

/// Says which ticks are due.
///
/// A thread of its own sleeps: the runtime's timers are a millisecond coarse, as long as a whole tick.
#[derive(Clone)]
struct Clock {
    start: Instant,
    ticks_count: u64,
    /// How many ticks are due. Latest wins: whoever is late does all of them.
    due: watch::Receiver<u64>,
}

impl Clock {
    fn start(duration: Duration) -> Self {
        let (tell, due) = watch::channel(0);
        let ticks_count = duration.as_secs() * TICKS_PER_SECOND;
        let start = Instant::now() + TICK;
        // Ends by itself after the last tick, or once nobody listens.
        std::thread::spawn(move || {
            for tick in 0..ticks_count {
                let at = start + TICK * tick as u32;
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                if tell.send(tick + 1).is_err() {
                    return;
                }
            }
        });
        Self { start, ticks_count, due }
    }
}

/// Which signals are due when.
#[derive(Debug, Clone, Copy)]
struct Rate {
    signals_per_second: u64,
    regions_count: u64,
    region: u64,
}

impl Rate {
    /// Signals due before a tick, in one region. Regions take turns, so that the sum is right at any rate.
    fn before(&self, tick: u64) -> u64 {
        let all = u128::from(tick) * u128::from(self.signals_per_second) / u128::from(TICKS_PER_SECOND);
        ((all + u128::from(self.regions_count - 1 - self.region)) / u128::from(self.regions_count)) as u64
    }

    fn at(&self, tick: u64) -> u64 {
        self.before(tick + 1) - self.before(tick)
    }
}

/// What was found in one region.
#[derive(Default)]
struct Found {
    accepted: Accepted,
    acks: Latencies,
    /// By place of the other region.
    visible: BTreeMap<usize, Latencies>,
    /// Samples that could not be read in time.
    unread: u64,
    failure: Option<String>,
}

/// Writes into one region what is due.
struct Drive {
    session: Session,
    others: Vec<(usize, Client)>,
    keys: Arc<Keys>,
    draw: Draw,
    kind: LoadKind,
    rate: Rate,
    found: Arc<Mutex<Found>>,
}

impl Drive {
    async fn run(mut self, mut clock: Clock) -> Result<Found, SdkError> {
        let (give_back, mut free) = mpsc::channel(TICKS_IN_FLIGHT_MAX);
        for _ in 0..TICKS_IN_FLIGHT_MAX {
            give_back.try_send(self.session.writer()).expect("there is room for all writers");
        }
        let (mut flushes, mut chance) = (JoinSet::new(), Chance::new(self.rate.region + 100));
        let samples_every = (TICKS_PER_SECOND * self.rate.regions_count).div_ceil(SAMPLES_PER_SECOND);
        let mut since_sample = 0;
        let mut number = 0;
        for tick in 0..clock.ticks_count {
            // An error means that the last tick was told.
            let _ = clock.due.wait_for(|due| *due > tick).await;
            since_sample += 1;
            let signals_count = self.rate.at(tick);
            if signals_count == 0 {
                continue;
            }
            let mut writer = free.recv().await.expect("this task holds a sender");
            let chosen = chance.below(signals_count.min(u32::MAX.into()) as u32);
            let mut sampled = None;
            for nth in 0..signals_count {
                let place = self.draw.next();
                number += 1;
                self.write(&mut writer, place, number).await?;
                if nth == u64::from(chosen) && since_sample >= samples_every {
                    sampled = Some(place);
                    since_sample = 0;
                }
            }
            let due = clock.start + TICK * tick as u32;
            flushes.spawn(self.flush(writer, due, sampled, give_back.clone()));
            while flushes.try_join_next().is_some() {}
        }
        while flushes.join_next().await.is_some() {}
        drop(flushes);
        let found = Arc::into_inner(self.found).expect("every flush has ended");
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    async fn write(&mut self, writer: &mut Writer, place: u32, number: u64) -> Result<(), SdkError> {
        let key = self.keys.at(place);
        match self.kind {
            LoadKind::Counter => writer.add(key, 1).await,
            LoadKind::Register => {
                lock(&self.found).accepted.mark(place, self.keys.count());
                writer.set(key, number.to_be_bytes()).await
            }
        }
    }

    /// Waits for the answers to one tick's signals, then for the sampled one in every other region.
    fn flush(
        &self,
        mut writer: Writer,
        due: Instant,
        sampled: Option<u32>,
        give_back: mpsc::Sender<Writer>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (found, keys) = (self.found.clone(), self.keys.clone());
        let others = if sampled.is_some() { self.others.clone() } else { Vec::new() };
        async move {
            let flushed = writer.flush().await;
            let acked = due.elapsed();
            // The receiver is gone once nothing is due any more.
            let _ = give_back.try_send(writer);
            let report = match flushed {
                Ok(report) => report,
                Err(error) => return lock(&found).fail(&error),
            };
            lock(&found).answered(&report, acked);
            let Some(place) = sampled.filter(|_| report.accepted > 0) else { return };
            let mut reads = JoinSet::new();
            for (to, client) in others {
                let (keys, token) = (keys.clone(), report.token.clone());
                reads.spawn(async move { (to, read_after(&client, keys.at(place), &token, due).await) });
            }
            while let Some(Ok((to, read))) = reads.join_next().await {
                lock(&found).read(to, read);
            }
        }
    }
}

fn lock(found: &Mutex<Found>) -> std::sync::MutexGuard<'_, Found> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_after(client: &Client, key: &str, token: &Token, due: Instant) -> Result<Duration, SdkError> {
    client.read(&[key], Some(token)).await.map(|_| due.elapsed())
}

impl Found {
    fn answered(&mut self, report: &FlushReport, acked: Duration) {
        self.acks.record(acked);
        self.accepted.take(report);
    }

    fn read(&mut self, to: usize, read: Result<Duration, SdkError>) {
        match read {
            Ok(latency) => self.visible.entry(to).or_default().record(latency),
            Err(error) => {
                self.unread += 1;
                self.fail(&error);
            }
        }
    }

    fn fail(&mut self, error: &SdkError) {
        self.failure.get_or_insert_with(|| error.to_string());
    }
}

/// The line for people.
pub(crate) fn summary(report: &Report) -> String {
    let number = |name: &str| report.fields.get(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    format!(
        "{:.0} signals/s asked, {:.0} signals, {:.0} read elsewhere",
        number("rate"),
        number("signals"),
        number("samples")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_together_are_due_the_rate_at_every_tick() {
        for signals_per_second in [1, 7, 999, 1_000, 3_001, 1_000_000] {
            let rate = |region| Rate { signals_per_second, regions_count: 3, region };
            for tick in [0, 1, 2, 999, 1_000, 59_999] {
                let due: u64 = (0..3).map(|region| rate(region).before(tick)).sum();
                assert_eq!(due, tick * signals_per_second / 1_000, "{signals_per_second} at {tick}");
            }
        }
    }

    #[test]
    fn ticks_add_up_to_what_is_due() {
        let rate = Rate { signals_per_second: 12_345, regions_count: 3, region: 1 };
        assert_eq!((0..10_000).map(|tick| rate.at(tick)).sum::<u64>(), rate.before(10_000));
    }
}
