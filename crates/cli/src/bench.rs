//! `tombolo bench`: load from outside, and one report of what came of it.
//!
//! Starts three regions for each run, unless it is given running ones, and drives them as applications do. It never
//! reports a rate without reading back that every accepted signal counts, once, in every region. A profile is a module
//! with `measure`; what they share stands beside them.

mod barrier;
mod bed;
mod heal;
mod ingest;
mod keys;
mod median;
mod meter;
mod open_loop;
mod replicate;
mod settings;
mod totals;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;
use tombolo_testbed::cluster::ClusterOptions;
use tombolo_testbed::report::Report;

use self::settings::RegionSettings;
use crate::error::{CliError, Exit};
use crate::output::{Columns, Format, note, print, print_json};
use crate::regions::{Regions, interrupted, started};

/// Arguments of `tombolo bench`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    profile: Profile,
}

#[derive(Debug, Subcommand)]
enum Profile {
    /// As fast as back-pressure lets it, into all regions at once, until all of it is everywhere
    Ingest(ingest::Arguments),
    /// A fixed rate, and how soon each write is readable in the other regions
    Replicate(replicate::Arguments),
    /// One region cut off under load, and how soon all regions are level again
    Heal(heal::Arguments),
    /// Callers that wait for the latest write to be everywhere, over and over
    Barrier(barrier::Arguments),
}

/// One run.
struct Measured {
    report: Report,
    /// What is not as it must be; empty if all is.
    wrong: Vec<String>,
}

impl Profile {
    const fn settings(&self) -> &RegionSettings {
        match self {
            Self::Ingest(arguments) => &arguments.regions,
            Self::Replicate(arguments) => &arguments.regions,
            Self::Heal(arguments) => &arguments.regions,
            Self::Barrier(arguments) => &arguments.regions,
        }
    }

    /// What to start in a directory.
    fn options(&self, dir: PathBuf) -> ClusterOptions {
        let options = self.settings().options(dir);
        match self {
            Self::Heal(arguments) => arguments.options(options),
            _ => options,
        }
    }

    async fn measure(&self, regions: &Regions) -> Result<Measured, CliError> {
        match self {
            Self::Ingest(arguments) => Box::pin(ingest::measure(arguments, regions)).await,
            Self::Replicate(arguments) => Box::pin(replicate::measure(arguments, regions)).await,
            Self::Heal(arguments) => Box::pin(heal::measure(arguments, regions)).await,
            Self::Barrier(arguments) => Box::pin(barrier::measure(arguments, regions)).await,
        }
    }

    fn summary(&self, report: &Report) -> String {
        match self {
            Self::Ingest(_) => ingest::summary(report),
            Self::Replicate(_) => replicate::summary(report),
            Self::Heal(_) => heal::summary(report),
            Self::Barrier(_) => barrier::summary(report),
        }
    }
}

impl Arguments {
    /// How the report is printed.
    pub(crate) const fn format(&self) -> Format {
        self.profile.settings().output.format
    }
}

/// Runs a profile and prints its report.
///
/// Errors: what kept it from running. Totals that do not add up, or a bound that was asked for and not kept, are the
/// exit code 8.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, CliError> {
    let (profile, settings) = (&arguments.profile, arguments.profile.settings());
    let (mut reports, mut wrong) = (Vec::new(), Vec::new());
    for run in 1..=settings.runs {
        let measured = once(profile, settings).await?;
        if settings.runs > 1 {
            note(&format!("run {run} of {}: {}", settings.runs, profile.summary(&measured.report)));
        }
        wrong.extend(measured.wrong);
        reports
            .push(serde_json::to_value(&measured.report).expect("a report has string keys and cannot fail"));
    }
    let mut merged = median::median(&reports);
    merged["runs"] = reports.len().into();
    merged["findings"] = wrong.clone().into();
    let report: Report = serde_json::from_value(merged).expect("medians of reports are a report");
    match arguments.format() {
        Format::Json => print_json(&report)?,
        Format::Human => print(&human(profile, &report))?,
    }
    wrong.iter().for_each(|text| note(&format!("wrong: {text}")));
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { Exit::CheckFailed.into() })
}

async fn once(profile: &Profile, settings: &RegionSettings) -> Result<Measured, CliError> {
    if let Some(dir) = &settings.cluster {
        let regions = Regions::running(dir)?;
        return tokio::select! {
            done = profile.measure(&regions) => done,
            () = interrupted() => Err(CliError::new(Exit::Other, "interrupted")),
        };
    }
    let place = settings.data.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("tombolo-bench-").tempdir_in(&place);
    let dir = dir.map_err(|error| CliError::new(Exit::Other, format!("{}: {error}", place.display())))?;
    started(profile.options(dir.path().to_owned()), async |regions| profile.measure(regions).await).await
}

/// The report for people.
fn human(profile: &Profile, report: &Report) -> String {
    let mut text = profile.summary(report) + "\n\n";
    let mut latencies = Columns::new(&["", "p50>", "p95>", "p99>", "max>"]);
    let mut row = |name: String, summary: &Value| {
        let ms = |field: &str| format!("{:.2} ms", summary[field].as_f64().unwrap_or(0.0));
        latencies.row([name, ms("p50"), ms("p95"), ms("p99"), ms("max")]);
    };
    let rows = [
        ("ack_ms", "answered"),
        ("others_ack_before_ms", "  by the others, before the cut"),
        ("others_ack_cut_ms", "  by the others, during the cut"),
        ("visible_ms", "visible"),
        ("reached_ms", "in all regions"),
        ("barrier_ms", "barrier"),
        ("release_ms", "released"),
        ("heal_ms", "connected to level"),
    ];
    for (name, title) in rows {
        if let Some(summary) = report.fields.get(name) {
            row(title.to_owned(), summary);
        }
    }
    for pair in report.fields.get("pairs").and_then(Value::as_array).into_iter().flatten() {
        let end = |name: &str| pair[name].as_str().unwrap_or("?").to_owned();
        row(format!("  {} → {}", end("from"), end("to")), &pair["visible_ms"]);
    }
    text += &latencies.render();
    let field = |name: &str| report.fields.get(name).and_then(Value::as_f64);
    let mut costs = Columns::new(&["cost", "value>"]);
    let mut cost = |name: &str, value: Option<f64>, digits: usize| {
        costs.row([
            name.to_owned(),
            value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.digits$}")),
        ]);
    };
    cost("CPU of all daemons, s per million signals", report.cpu_seconds_per_million, 3);
    cost("CPU of this client, s per million signals", field("client_cpu_seconds_per_million"), 3);
    cost("greatest memory of a daemon, MB", report.peak_rss_bytes.map(|bytes| bytes as f64 / 1e6), 0);
    cost("bytes shipped per signal", report.bytes_shipped_per_signal, 1);
    cost("bytes written per signal, all regions", field("bytes_written_per_signal"), 1);
    cost("bytes on disk per signal, all regions", report.bytes_on_disk_per_signal, 1);
    cost("errors", Some(report.errors as f64), 0);
    cost("timeouts", Some(report.timeouts as f64), 0);
    text + "\n" + &costs.render()
}
