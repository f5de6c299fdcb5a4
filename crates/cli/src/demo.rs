//! `tombolo demo`: three regions on this machine take real flights, one is cut off, all heal, and every value is checked.
//!
//! The daemons are processes of their own, with directories of their own, and reach each other through a relay with the
//! delays of a wide-area network. Decides nothing a region should decide: it writes as any client, and compares with
//! what one plain pass over the file gives. The order of events stands in `play.rs`; start
//! at [`run`].

mod compare;
mod lag;
mod outcome;
mod place;
mod play;
mod probe;
mod progress;
mod replay;
mod wan;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueHint};
use tombolo_testbed::cluster::ClusterOptions;
use tombolo_testbed::oracle::Oracle;

use self::place::Place;
use self::play::Play;
use self::progress::Progress;
use self::replay::Share;
use crate::error::{CliError, Exit};
use crate::output::{Format, OutputOption, note, print, print_json};
use crate::regions::{Regions, interrupted, started};

/// Arguments of `tombolo demo`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only check: exit with 1 on any difference, and never stay up
    #[arg(long)]
    check: bool,
    /// How many regions to start
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=wan::NAMES.len() as i64))]
    regions: u8,
    /// Keep everything in this directory, which must be new or empty
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    keep: Option<PathBuf>,
    /// Flights to replay instead of January 2013: CSV, plain or zstd
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    input: Option<PathBuf>,
    /// How long the replay takes, in seconds
    #[arg(long, value_name = "S", default_value_t = 9.0, value_parser = seconds)]
    seconds: f64,
    /// How long the cut lasts, in seconds
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = seconds)]
    cut_seconds: f64,
    #[command(flatten)]
    pub(crate) output: OutputOption,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    if (0.1..=3_600.0).contains(&seconds) { Ok(seconds) } else { Err("between 0.1 and 3600".to_owned()) }
}

/// What happens to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// All links are as the map says.
    Before,
    /// One region is cut off.
    Cut,
    /// The links are back; what was written meanwhile is on its way.
    Healing,
    /// All that was written before the links were back is everywhere.
    Healed,
    /// Nothing is written any more.
    Over,
}

impl Phase {
    /// Whether a write reaches every region on the shortest way.
    const fn is_whole(self) -> bool {
        matches!(self, Self::Before | Self::Healed)
    }
}

/// Runs the demo to its end, or to Ctrl-C, and stops what it started.
///
/// Errors: what kept it from running; a difference is no error but the exit code 1.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, CliError> {
    let (input, count) = (arguments.input.as_deref(), usize::from(arguments.regions));
    let shares = Share::deal(input, count)?;
    let oracle = input.map_or_else(|| Oracle::january(usize::MAX), |path| Oracle::open(path, usize::MAX));
    let oracle = oracle.map_err(|error| CliError::new(Exit::Other, error.to_string()))?;
    let place = Place::choose(arguments.keep.as_deref())?;
    let progress = Progress::new();
    progress.step(&format!("starting {count} regions in {}", place.path().display()));
    let options = wan::laid(ClusterOptions::new(place.path(), wan::NAMES[..count].iter().copied()), count);
    let has_passed = started(options, async |regions| {
        let play = Play::new(regions, &progress, arguments.seconds, arguments.cut_seconds);
        let outcome = play.run(shares, oracle).await?;
        match arguments.output.format {
            Format::Human => print(&format!("\n{}", outcome.human()))?,
            Format::Json => print_json(&outcome)?,
        }
        let is_watched = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        if is_watched && !arguments.check && arguments.output.format == Format::Human {
            stay(regions, place.path()).await;
        }
        Ok(outcome.pass)
    });
    Ok(if has_passed.await? { ExitCode::SUCCESS } else { Exit::Other.into() })
}

/// Leaves the regions up for whoever watches, until Ctrl-C.
async fn stay(regions: &Regions, dir: &Path) {
    note("\nThe regions stay up:");
    for region in regions.configs() {
        let listen = &region.listen;
        note(&format!(
            "  {:<14} http://{}  redis://{}  quic {}",
            region.name, listen.http, listen.resp, listen.quic
        ));
    }
    let (first, last) = (&regions.configs()[0], &regions.configs()[regions.configs().len() - 1]);
    note(&format!(
        "\nTry:\n  redis-cli -p {} INCRBY departures:BQN 1\n  curl http://{}/v1/keys/departures:BQN\n  \
         tombolo status --cluster {}\n\nCtrl-C stops them.",
        first.listen.resp.port(),
        last.listen.http,
        dir.display()
    ));
    interrupted().await;
}
