//! `bench barrier`: callers that wait for the latest mutation and ask again at once, as every step of a schema change
//! waits for the one before to be everywhere.
//!
//! The mutator is an open loop (`barrier/mutator.rs`): it writes on time whether or not anybody has been answered, and
//! `reached_ms` counts from when a mutation was due until a barrier found it in all regions. Callers (`barrier/callers.rs`)
//! ask again as soon as they are answered: `barrier_ms` is one question. The herd (`barrier/herd.rs`) waits all at once
//! for a region that is held back, and is let go together: `release_ms`.

mod callers;
mod herd;
mod mutator;

use std::time::{Duration, Instant};

use clap::Args;
use tombolo_sdk::{Client, Scope, Value};
use tombolo_testbed::report::{BENCH_SCHEMA, Report};

use self::callers::Callers;
use self::mutator::{History, Mutator};
use super::Measured;
use super::meter::Meter;
use super::settings::RegionSettings;
use crate::error::CliError;
use crate::regions::{Regions, sdk_error};

/// The key that is mutated: one, as a schema is one, so that a later token covers all before it.
const KEY: &str = "bench:schema";
/// How long the last mutation may take to be everywhere.
const CONVERGENCE_MAX: Duration = Duration::from_secs(10);
/// Callers that share a connection; a region reads ahead on a bounded number of requests for each.
const CALLERS_PER_CONNECTION: usize = 1_000;

const EXAMPLES: &str = "\
Examples:
  tombolo bench barrier                                            100 callers, 10 mutations/s
  tombolo bench barrier --mutate-rate 1000 --assert-p99-ms 20      exit with 8 if the 99th percentile is above it
  tombolo bench barrier --callers 0 --waiters 10000                10,000 wait at once and are let go together";

/// Arguments of `tombolo bench barrier`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Callers, over all regions together, each of which asks again as soon as it is answered
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    callers: u32,
    /// Mutations per second, written in the first region on time, whatever has been answered
    #[arg(long, value_name = "R", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    mutate_rate: u32,
    /// Seconds of load before anything is measured
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    warm_up: u32,
    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Wait for the mutation this many before the latest
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    offset: u32,
    /// How long a caller waits for one barrier
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
    /// After that, this many wait at once for a region that is held back, and are let go together
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    waiters: u32,
    /// Exit with 8 if the 99th percentile of `barrier_ms` is above this
    #[arg(long, value_name = "X")]
    assert_p99_ms: Option<f64>,
    /// Exit with 8 if the 99th percentile of `release_ms` is above this
    #[arg(long, value_name = "X", requires = "waiters")]
    assert_release_p99_ms: Option<f64>,
    #[command(flatten)]
    pub(crate) regions: RegionSettings,
}

/// Runs the load once.
pub(crate) async fn measure(arguments: &Arguments, regions: &Regions) -> Result<Measured, CliError> {
    let names = regions.names();
    let clients = regions.connect().await?;
    let first = &names[0];
    let before = value(first, &clients[0]).await?;
    let meter = Meter::start(regions).await;
    let started = Instant::now();
    let window = started + Duration::from_secs(arguments.warm_up.into());
    let end = window + Duration::from_secs(arguments.seconds.into());
    let history = History::new(arguments.offset as usize);
    let timeout = Duration::from_millis(arguments.timeout_ms);
    let session = clients[0].session().await.map_err(|error| sdk_error(first, &error))?;
    let mutator = Mutator { session, client: clients[0].clone(), history: history.clone(), timeout };
    let mutations = tokio::spawn(mutator.run(arguments.mutate_rate, window, end));
    let callers = Callers::start(regions, arguments.callers as usize, &history, timeout, (window, end));
    let callers = callers.await?.join().await?;
    let mutated = mutations.await.map_err(|error| panicked(&error))?;
    let mut wrong: Vec<String> = Vec::new();
    let all = clients[0].wait(&mutated.token, Scope::All, CONVERGENCE_MAX).await;
    let all = all.map_err(|error| sdk_error(first, &error))?;
    let elapsed = started.elapsed();
    let durability = regions.statuses().await?.remove(0).durability;
    let mut report = Report::new(BENCH_SCHEMA, "barrier", durability);
    meter.stop(regions, mutated.accepted, elapsed, &mut report).await;
    if !all.reached {
        wrong.push("the last mutation is not everywhere".to_owned());
    }
    for (name, client) in names.iter().zip(&clients).filter(|_| all.reached) {
        let found = value(name, client).await? - before;
        let accepted = i128::from(mutated.accepted);
        if !(accepted..=accepted + i128::from(mutated.failed)).contains(&found) {
            wrong.push(format!("{name}: the counter grew by {found}, accepted were {accepted}"));
        }
    }
    report.errors = callers.errors + mutated.failed;
    report.timeouts = callers.timeouts + mutated.timeouts;
    let laggards = callers.laggards.iter().chain(&mutated.laggards);
    let mut laggards: Vec<String> = laggards.cloned().collect();
    laggards.sort_unstable();
    laggards.dedup();
    wrong.extend(callers.failure.iter().chain(&mutated.failure).cloned());
    report.set("callers", arguments.callers);
    report.set("mutate_rate", arguments.mutate_rate);
    report.set("offset", arguments.offset);
    report.set("warm_up_seconds", arguments.warm_up);
    report.set("seconds", arguments.seconds);
    report.set("mutations", mutated.accepted);
    report.set("barriers", callers.latencies.len());
    report.set("barriers_per_second", callers.latencies.len() as f64 / f64::from(arguments.seconds));
    report.set("ack_ms", mutated.acks.summary());
    report.set("reached_ms", mutated.reached.summary());
    report.set("barrier_ms", callers.latencies.summary());
    let p99 = callers.latencies.summary().p99;
    wrong.extend(
        arguments
            .assert_p99_ms
            .filter(|bound| p99 > *bound)
            .map(|bound| format!("barrier p99 is {p99} ms, above {bound} ms")),
    );
    if arguments.waiters > 0 {
        let herd = herd::release(regions, &clients[0], arguments.waiters as usize).await?;
        report.timeouts += herd.timeouts;
        report.set("waiters", arguments.waiters);
        report.set("release_ms", herd.latencies.summary());
        let p99 = herd.latencies.summary().p99;
        wrong.extend(
            arguments
                .assert_release_p99_ms
                .filter(|bound| p99 > *bound)
                .map(|bound| format!("release p99 is {p99} ms, above {bound} ms")),
        );
    }
    if report.timeouts > 0 {
        wrong.push(format!("{} barriers timed out; laggards: {}", report.timeouts, laggards.join(", ")));
    }
    report.set("laggards", laggards);
    for client in &clients {
        client.close().await;
    }
    Ok(Measured { report, wrong })
}

/// A task's panic as a failure of the command.
fn panicked(error: &tokio::task::JoinError) -> CliError {
    CliError::new(crate::error::Exit::Other, error.to_string())
}

async fn value(name: &str, client: &Client) -> Result<i128, CliError> {
    let values = client.read(&[KEY], None).await.map_err(|error| sdk_error(name, &error))?;
    Ok(match values.first() {
        Some(Value::Counter(count)) => *count,
        _ => 0,
    })
}

/// The line for people.
pub(crate) fn summary(report: &Report) -> String {
    let number = |name: &str| report.fields.get(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    format!(
        "{:.0} callers, {:.0} mutations/s: {:.0} barriers/s, {} timeouts",
        number("callers"),
        number("mutate_rate"),
        number("barriers_per_second"),
        report.timeouts
    )
}
