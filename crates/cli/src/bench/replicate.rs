//! `bench replicate`: an open loop at a fixed rate, and how soon each write is readable in every other region.
//!
//! The load is `open_loop.rs`: `ack_ms` is from when a millisecond's signals were due until the last of them was
//! answered, `visible_ms` until a sampled one was read in each other region after its token. What is due while it warms
//! up is written, counted and compared like the rest, but not timed: the first write of each shard makes files.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tombolo_testbed::percentiles::{Latencies, Summary};
use tombolo_testbed::report::{BENCH_SCHEMA, Report};

use super::Measured;
use super::bed::Bed;
use super::meter::Meter;
use super::open_loop::{OpenLoop, Sampling};
use super::settings::{LoadSettings, RegionSettings};
use crate::error::CliError;
use crate::regions::Regions;

/// Arguments of `tombolo bench replicate`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Signals per second, over all regions together
    #[arg(long, value_name = "R", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: u64,
    /// For how many seconds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Seconds before these, whose latencies do not count
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    warm_up: u32,
    /// Exit with 8 if the 99th percentile of `visible_ms` is above this
    #[arg(long, value_name = "X")]
    assert_p99_ms: Option<f64>,
    #[command(flatten)]
    pub(crate) load: LoadSettings,
    #[command(flatten)]
    pub(crate) regions: RegionSettings,
}

/// The phase of the load that is timed, behind the one in which it warms up.
const TIMED: usize = 1;

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
    let meter = Meter::start(regions).await;
    let warm_up = Duration::from_secs(arguments.warm_up.into());
    let duration = warm_up + Duration::from_secs(arguments.seconds.into());
    let load_run = OpenLoop::start(&bed, load, arguments.rate, duration, Sampling::Reads);
    tokio::time::sleep(warm_up).await;
    load_run.next_phase();
    let (accepted, found) = load_run.join(&bed.names).await?;
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
        acks.merge(&found.acks_in(TIMED));
        for (to, latencies) in found.visible_in(TIMED) {
            visible.merge(latencies);
            let (to, visible_ms) = (bed.names[to].as_str(), latencies.summary());
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
    report.set("seconds", arguments.seconds);
    report.set("warm_up_seconds", arguments.warm_up);
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
