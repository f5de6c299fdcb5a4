//! `tombolo verify`: asks every region for its digests. Equal vectors must show equal digests, without exception.
//!
//! Regions that only lag are given time; a difference under equal vectors is final and ends the wait at once. What is
//! compared stands in `verify/comparison.rs`.

mod comparison;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use self::comparison::{Comparison, ShardComparison, Verdict, compare};
use super::duration;
use crate::client::{Client, ShardDigest, ask_all};
use crate::error::{CliError, Exit};
use crate::output::{Columns, Format, OutputOption, print, print_json};
use crate::target::TargetOptions;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  tombolo verify --cluster my-cluster
  tombolo verify --cluster my-cluster --timeout 60s -o json

Exits 0 if every shard is equal in every region; 8 on a difference, or if a region still lags when the time is up; \
3 if a region cannot be reached until then. While clients write, regions are rarely equal: verify when they pause.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// How long regions that lag may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    pub(super) output: OutputOption,
    #[command(flatten)]
    target: TargetOptions,
}

#[derive(Serialize)]
struct Body<'a> {
    schema: &'static str,
    equal: bool,
    waited_ms: u64,
    regions: &'a [String],
    shards: &'a [ShardComparison],
    unreachable: Vec<&'a str>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let clients = arguments.target.every_region(CALL_TIMEOUT)?;
    let started = Instant::now();
    let (comparison, unreachable) = loop {
        let (comparison, unreachable) = look(&clients)?;
        let is_settled = match comparison.verdict() {
            Verdict::Different => true,
            Verdict::Equal => unreachable.is_empty(),
            Verdict::Behind => false,
        };
        if is_settled || started.elapsed() >= arguments.timeout {
            break (comparison, unreachable);
        }
        std::thread::sleep(POLL);
    };
    match arguments.output.format {
        Format::Json => print_json(&Body {
            schema: "tombolo.verify/v1",
            equal: comparison.verdict() == Verdict::Equal && unreachable.is_empty(),
            waited_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            regions: &comparison.regions,
            shards: &comparison.shards,
            unreachable: unreachable.iter().map(CliError::text).collect(),
        })?,
        Format::Human => print(&human(&comparison))?,
    }
    conclude(&comparison, unreachable)
}

/// One round; regions out of reach are left out of the comparison.
fn look(clients: &[Client]) -> Result<(Comparison, Vec<CliError>), CliError> {
    let answers = ask_all(clients, |client| client.get::<Vec<ShardDigest>>("/v1/digest", &[]));
    let mut held = Vec::new();
    let mut unreachable = Vec::new();
    for (client, answer) in clients.iter().zip(answers) {
        match answer {
            Ok(digests) => held.push((client.name().to_owned(), digests)),
            Err(error) if error.is_unreachable() => unreachable.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok((compare(held), unreachable))
}

fn conclude(comparison: &Comparison, mut unreachable: Vec<CliError>) -> Result<ExitCode, CliError> {
    let shards = |verdict| {
        let listed = comparison.shards.iter().filter(|shard| shard.verdict == verdict);
        listed
            .map(|shard| format!("{} ({})", shard.shard, shard.regions_named()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match comparison.verdict() {
        Verdict::Different => {
            let text = format!("equal vectors, different digests: shard {}", shards(Verdict::Different));
            Err(CliError::new(Exit::CheckFailed, text)
                .next("keep the data directories, and compare the logs: tombolo wal inspect DIR"))
        }
        _ if !unreachable.is_empty() => Err(unreachable.swap_remove(0)),
        Verdict::Behind => {
            let text = format!("not yet equal when the time was up: shard {}", shards(Verdict::Behind));
            Err(CliError::new(Exit::CheckFailed, text)
                .next("tombolo lag, then verify with a longer --timeout"))
        }
        Verdict::Equal if comparison.shards.is_empty() => {
            Err(CliError::new(Exit::CheckFailed, "no region showed any shard, so nothing was compared"))
        }
        Verdict::Equal => Ok(ExitCode::SUCCESS),
    }
}

fn human(comparison: &Comparison) -> String {
    let mut names = vec!["shard>"];
    names.extend(comparison.regions.iter().map(String::as_str));
    names.push("verdict");
    let mut columns = Columns::new(&names);
    for shard in &comparison.shards {
        let mut row = vec![shard.shard.to_string()];
        row.extend(comparison.regions.iter().map(|region| match shard.regions.get(region) {
            Some(held) => held.digest.chars().take(12).collect(),
            None => "-".to_owned(),
        }));
        row.push(shard.verdict.name().to_owned());
        columns.row(row);
    }
    columns.render()
}
