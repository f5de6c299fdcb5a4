//! What every profile takes: which regions, how durable, how often, and what the load is made of.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use tombolo_testbed::cluster::ClusterOptions;
use tombolo_testbed::relay::LinkConditions;

use super::keys::{Distribution, KEYS_MAX};
use crate::output::OutputOption;

/// The regions a profile starts.
const NAMES: [&str; 3] = ["eu-west", "us-east", "ap-south"];

/// Where a profile runs.
#[derive(Debug, Args)]
pub(crate) struct RegionSettings {
    /// Measure the running regions of this cluster instead of starting three
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) cluster: Option<PathBuf>,
    /// Where the started regions keep their files while they run [default: the system's temporary directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "cluster")]
    pub(crate) data: Option<PathBuf>,
    /// Partitions of the keys in the started regions [default: 16]
    #[arg(long, value_name = "N", conflicts_with = "cluster", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) shards: Option<u16>,
    /// When the started regions answer a write
    #[arg(long, value_enum, default_value = "sync", conflicts_with = "cluster")]
    pub(crate) durability: Durability,
    /// Put a relay between the started regions that delays one way by this much; its work is not counted
    #[arg(long, visible_alias = "link-ms", value_name = "MS", conflicts_with = "cluster")]
    pub(crate) delay_ms: Option<u64>,
    /// How often to run, each time from nothing; the report holds medians
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=25))]
    pub(crate) runs: u8,
    #[command(flatten)]
    pub(crate) output: OutputOption,
}

impl RegionSettings {
    /// What to start in a directory.
    pub(crate) fn options(&self, dir: PathBuf) -> ClusterOptions {
        let mut options = ClusterOptions::new(dir, NAMES);
        options.shards = self.shards;
        options.links = self.delay_ms.map(|ms| LinkConditions::delayed(Duration::from_millis(ms)));
        options.serve_arguments = vec!["--durability".into(), self.durability.name().into()];
        options
    }
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// Once it is on disk.
    Sync,
    /// Once it is staged; the disk follows at an interval.
    Interval,
    /// Once it is staged; the disk follows when it can.
    Async,
}

impl Durability {
    const fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Interval => "interval",
            Self::Async => "async",
        }
    }
}

/// What is written.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadSettings {
    /// How many keys
    #[arg(long, value_name = "K", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(KEYS_MAX)))]
    pub(crate) keys: u32,
    /// Counters, which add 1 each time, or registers
    #[arg(long, value_enum, default_value = "counter")]
    pub(crate) kind: LoadKind,
    /// How often each key is drawn
    #[arg(long, value_enum, default_value = "uniform")]
    pub(crate) dist: Distribution,
}

/// What kind of cell a load writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadKind {
    /// Adds.
    Counter,
    /// Sets of 24 bytes.
    Register,
}

impl LoadKind {
    /// As it stands on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Register => "register",
        }
    }
}
