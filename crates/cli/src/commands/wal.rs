//! `tombolo wal inspect`: what a data directory holds, log by log, without changing it.
//!
//! Reading and judging is the wal crate's; this chooses logs and prints. What is printed stands in `wal/view.rs`.

mod view;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueHint};
use tombolo_causality::{ClusterId, LogId, RegionId};
use tombolo_wal::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, log_dir};
use tombolo_wal::{Disk, FileDisk, Manifest, WalError, WalSettings, inspect};

use self::view::{LogView, View};
use crate::error::{CliError, Exit};
use crate::output::{Format, OutputOption, note, print, print_json};

const EXAMPLES: &str = "\
Examples:
  tombolo wal inspect my-cluster/data/eu-west
  tombolo wal inspect my-cluster/data/eu-west --shard 7
  tombolo wal inspect my-cluster/data/eu-west --log 0002-3f --segments -o json

Nothing is changed, also while a daemon runs on the directory; the tail it writes at that moment may then show as \
torn. Exits 8 if a log is damaged otherwise, or a file is in quarantine.";

#[derive(Debug, Subcommand)]
pub(super) enum Subcommands {
    /// Read a data directory: logs, chain of digests, damage
    Inspect(Arguments),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Data directory of a region
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Only this shard
    #[arg(long, value_name = "NUMBER")]
    shard: Option<u16>,
    /// Only logs whose name, REGION-EPOCH, begins like this
    #[arg(long, value_name = "PREFIX")]
    log: Option<String>,
    /// Show every segment
    #[arg(long)]
    segments: bool,
    #[command(flatten)]
    pub(super) output: OutputOption,
}

pub(super) fn inspect(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let disk = FileDisk::open_unlocked(&arguments.dir).map_err(|error| match WalError::from(error) {
        WalError::Disk(error) if error.is_not_found() => not_found(arguments, "does not exist"),
        error => failed(&error),
    })?;
    let all = inspect::logs(&disk).map_err(|error| failed(&error))?;
    let settings = settings(&disk, &all, arguments)?;
    let chosen: Vec<LogId> = all.iter().copied().filter(|log| arguments.wants(*log)).collect();
    if chosen.is_empty() && !all.is_empty() {
        let names: Vec<String> = all.iter().take(5).map(|log| log_dir(*log)).collect();
        let error =
            CliError::new(Exit::NotFound, format!("none of the {} logs is of that shard or name", all.len()));
        return Err(error.next(format!("the first are: {}", names.join(", "))));
    }
    let mut logs = Vec::new();
    for log in chosen {
        let mut batches_count = 0;
        let mut ops_count = 0;
        let found = inspect::log(&disk, settings, log, &mut |batch| {
            batches_count += 1;
            ops_count += u64::from(batch.header().ops_count);
        });
        let found = found.map_err(|error| failed(&error))?;
        logs.push(LogView::new(found, batches_count, ops_count));
    }
    let quarantined = inspect::quarantined(&disk).map_err(|error| failed(&error))?;
    let view = View::new(settings.cluster, settings.region, logs, quarantined);
    match arguments.output.format {
        Format::Json => print_json(&view)?,
        Format::Human => print(&view.human(arguments.segments))?,
    }
    match view.problem() {
        None => Ok(ExitCode::SUCCESS),
        Some(text) => Err(CliError::new(Exit::CheckFailed, text)
            .next("a region that starts on it repairs what its peers hold; keep the files under quarantine/ until then")),
    }
}

impl Arguments {
    fn wants(&self, log: LogId) -> bool {
        let dir = log_dir(log);
        let name = dir.rsplit('/').next().expect("a path has a last part");
        self.shard.is_none_or(|shard| shard == log.shard.0)
            && self.log.as_ref().is_none_or(|prefix| name.starts_with(prefix))
    }
}

/// Whose directory it is: by its manifest, else by the header of any of its segments.
fn settings(disk: &FileDisk, logs: &[LogId], arguments: &Arguments) -> Result<WalSettings, CliError> {
    let reason = match Manifest::read(disk) {
        Ok(Some(manifest)) => return Ok(WalSettings::new(manifest.cluster, manifest.region)),
        Ok(None) if logs.is_empty() => return Err(not_found(arguments, "holds no data of a region")),
        Ok(None) => "there is no manifest".to_owned(),
        Err(error) => error.to_string(),
    };
    match logs.iter().find_map(|log| header_of_any(disk, *log)) {
        Some((cluster, region)) => {
            note(&format!("warning: {reason}; reading as cluster {cluster}, as a segment says"));
            Ok(WalSettings::new(cluster, region))
        }
        None => Err(CliError::new(Exit::StorageFailed, format!("{}: {reason}", arguments.dir.display()))),
    }
}

fn header_of_any(disk: &FileDisk, log: LogId) -> Option<(ClusterId, RegionId)> {
    let dir = log_dir(log);
    let names = disk.list(&dir).ok()?;
    names.iter().find_map(|name| {
        let file = disk.open(&format!("{dir}/{name}")).ok()?;
        let header = SegmentHeader::parse(&disk.read_at(&file, 0, SEGMENT_HEADER_BYTES).ok()?)?;
        Some((header.cluster, header.log.region))
    })
}

fn not_found(arguments: &Arguments, what: &str) -> CliError {
    CliError::new(Exit::NotFound, format!("{} {what}", arguments.dir.display())).next(
        "give the data directory of one region: `storage.dir` of its file, such as my-cluster/data/eu-west",
    )
}

fn failed(error: &WalError) -> CliError {
    let exit = match error {
        WalError::Disk(_) => Exit::StorageFailed,
        _ => Exit::Other,
    };
    CliError::new(exit, error.to_string())
}
