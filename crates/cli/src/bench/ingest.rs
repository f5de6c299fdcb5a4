//! `bench ingest`: as fast as back-pressure lets it, into every region at once, to full convergence.
//!
//! One client per region, its writer always full. The rate is all accepted signals over the time until the last of them
//! is durable and visible in every region, not until it was sent. Beside the load single adds are sent at fixed times,
//! on connections of their own: their answers are `ack_ms`, what another client of a saturated region sees.

use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tombolo_sdk::{SdkError, Session};
use tombolo_testbed::percentiles::Latencies;
use tombolo_testbed::report::{BENCH_SCHEMA, Report};

use super::Measured;
use super::bed::{Accepted, Bed};
use super::keys::{Draw, Keys};
use super::meter::Meter;
use super::settings::{LoadKind, LoadSettings, RegionSettings};
use crate::error::{CliError, Exit};
use crate::regions::{Regions, sdk_error};

/// Signals between two looks at the clock.
const BURST: u32 = 256;
/// From one single add to the next, per region.
const PROBE_EVERY: Duration = Duration::from_millis(10);
/// Single adds that are not answered, per region; beyond it the next one is late, and counts from when it was due.
const PROBES_MAX: usize = 512;
/// Length of a register's value.
const VALUE_BYTES: usize = 24;

/// Arguments of `tombolo bench ingest`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// For how many seconds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    #[command(flatten)]
    pub(crate) load: LoadSettings,
    #[command(flatten)]
    pub(crate) regions: RegionSettings,
}

/// What the single adds found.
#[derive(Default)]
struct Probed {
    acks: Latencies,
    failed: u64,
}

/// Runs the load once.
pub(crate) async fn measure(arguments: &Arguments, regions: &Regions) -> Result<Measured, CliError> {
    let load = &arguments.load;
    let bed = Bed::make(regions, load).await?;
    let probe_clients = regions.connect().await?;
    let (over, is_over) = watch::channel(false);
    let meter = Meter::start(regions).await;
    let deadline = meter.started() + Duration::from_secs(arguments.seconds.into());
    let mut probes = Vec::new();
    for (client, name) in probe_clients.iter().zip(&bed.names) {
        let session = client.session().await.map_err(|error| sdk_error(name, &error))?;
        probes.push(tokio::spawn(probe(session, format!("probe:{name}"), is_over.clone())));
    }
    let hand = |(session, seed): (&Session, u64)| Hand {
        session: session.clone(),
        keys: bed.keys.clone(),
        draw: Draw::new(load.dist, load.keys, seed),
        kind: load.kind,
        deadline,
    };
    let hands: Vec<_> =
        bed.sessions.iter().zip(1..).map(hand).map(|hand| tokio::spawn(hand.write())).collect();
    let mut accepted = Vec::new();
    for (name, hand) in bed.names.iter().zip(hands) {
        let done = hand.await.map_err(|error| CliError::new(Exit::Other, error.to_string()))?;
        accepted.push(done.map_err(|error| sdk_error(name, &error))?);
    }
    over.send_replace(true);
    let mut settled = bed.converge(&accepted, meter.started()).await?;
    let mut probed = Probed::default();
    for probe in probes {
        let found = probe.await.map_err(|error| CliError::new(Exit::Other, error.to_string()))?;
        probed.acks.merge(&found.acks);
        probed.failed += found.failed;
    }
    let signals: u64 = accepted.iter().map(|accepted| accepted.signals).sum();
    let durability = regions.statuses().await?.remove(0).durability;
    let mut report = Report::new(BENCH_SCHEMA, "ingest", durability);
    meter.stop(regions, signals, settled.converged, &mut report).await;
    bed.verify(&accepted, &mut settled).await?;
    settled.wrong.extend(accepted.iter().filter_map(|accepted| accepted.refusal.clone()));
    report.errors = accepted.iter().map(|accepted| accepted.refused).sum::<u64>() + probed.failed;
    report.timeouts = accepted.iter().map(|accepted| accepted.unknown).sum();
    report.set("kind", load.kind.name());
    report.set("dist", load.dist.name());
    report.set("keys", load.keys);
    report.set("seconds", arguments.seconds);
    report.set("signals", signals);
    report.set("converged_seconds", settled.converged.as_secs_f64());
    report.set("signals_per_second", signals as f64 / settled.converged.as_secs_f64());
    report.set("ack_ms", probed.acks.summary());
    for client in &probe_clients {
        client.close().await;
    }
    bed.close().await;
    Ok(Measured { report, wrong: settled.wrong })
}

/// Writes into one region.
struct Hand {
    session: Session,
    keys: std::sync::Arc<Keys>,
    draw: Draw,
    kind: LoadKind,
    deadline: Instant,
}

impl Hand {
    async fn write(mut self) -> Result<Accepted, SdkError> {
        let mut writer = self.session.writer();
        let mut accepted = Accepted::default();
        match self.kind {
            LoadKind::Counter => {
                while Instant::now() < self.deadline {
                    for _ in 0..BURST {
                        writer.add(self.keys.at(self.draw.next()), 1).await?;
                    }
                }
            }
            LoadKind::Register => {
                let mut number = 0_u64;
                while Instant::now() < self.deadline {
                    for _ in 0..BURST {
                        let place = self.draw.next();
                        number += 1;
                        writer.set(self.keys.at(place), value(number)).await?;
                        accepted.mark(place, self.keys.count());
                    }
                }
            }
        }
        accepted.take(&writer.flush().await?);
        Ok(accepted)
    }
}

/// A value that no other write of this region has.
fn value(number: u64) -> Vec<u8> {
    let mut value = vec![b'.'; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_be_bytes());
    value
}

/// Sends single adds at fixed times until the load is over, whether or not earlier ones were answered.
async fn probe(session: Session, key: String, is_over: watch::Receiver<bool>) -> Probed {
    let (mut probed, mut adds) = (Probed::default(), JoinSet::new());
    let mut ticks = interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !*is_over.borrow() {
        let due = ticks.tick().await;
        let counter = session.counter(&key);
        adds.spawn(async move { counter.incr(1).await.map(|_| due.elapsed()) });
        while adds.len() > PROBES_MAX
            && let Some(add) = adds.join_next().await
        {
            probed.take(add);
        }
        while let Some(add) = adds.try_join_next() {
            probed.take(add);
        }
    }
    while let Some(add) = adds.join_next().await {
        probed.take(add);
    }
    probed
}

impl Probed {
    fn take(&mut self, add: Result<Result<Duration, SdkError>, JoinError>) {
        match add.expect("an add does not panic and is not aborted") {
            Ok(latency) => self.acks.record(latency),
            Err(_) => self.failed += 1,
        }
    }
}

/// The line for people.
pub(crate) fn summary(report: &Report) -> String {
    let number = |name: &str| report.fields.get(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    format!(
        "{:.0} signals/s: {:.0} signals, everywhere after {:.2} s",
        number("signals_per_second"),
        number("signals"),
        number("converged_seconds")
    )
}
