//! `tombolo init`: makes the files of a cluster and says what to run next.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};
use serde::Serialize;
use tombolo_daemon::config::{self, InitError, InitOptions, InitReport};

use crate::error::{CliError, Exit};
use crate::output::{Columns, Format, OutputOption, note, print, print_json};
use crate::target::config_invalid;

const EXAMPLES: &str = "\
Examples:
  tombolo init --dir my-cluster --dev
  tombolo init --dir /etc/tombolo --regions eu-west,us-east,ap-south --base-port 7400

Run on a directory that has files already it keeps them and adds what is missing. Each region takes four ports, \
in steps of ten from the base port: HTTP, RESP, QUIC and, for other regions, peer.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Cluster directory; made if it does not exist
    #[arg(long, value_name = "DIR", env = "TOMBOLO_CLUSTER", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Names of the regions [default: those declared, else eu-west,us-east,ap-south]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    regions: Vec<String>,
    /// HTTP port of the first region
    #[arg(long, value_name = "PORT", default_value_t = 7400, value_parser = clap::value_parser!(u16).range(1..))]
    base_port: u16,
    /// Partitions of the keys, 1 to 1024, fixed for the life of the cluster [default: as declared, else 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    shards: Option<u16>,
    /// Ask clients for no token: for this machine alone
    #[arg(long)]
    dev: bool,
    #[command(flatten)]
    pub(super) output: OutputOption,
}

#[derive(Serialize)]
struct Body {
    schema: &'static str,
    cluster: String,
    dir: PathBuf,
    regions: Vec<String>,
    files: Vec<FileBody>,
    next: Vec<String>,
}

#[derive(Serialize)]
struct FileBody {
    path: PathBuf,
    state: &'static str,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let options = InitOptions {
        dir: arguments.dir.clone(),
        regions: arguments.regions.clone(),
        base_port: arguments.base_port,
        shards: arguments.shards,
        dev: arguments.dev,
    };
    let report = config::init(options).map_err(|error| failed(error, &arguments.dir))?;
    let next = report.next_commands(&arguments.dir);
    match arguments.output.format {
        Format::Json => print_json(&body(report, &arguments.dir, next))?,
        Format::Human => {
            let mut files = Columns::new(&["file", "state"]);
            for (path, state) in &report.files {
                files.row([path.display().to_string(), state.name().to_owned()]);
            }
            print(&format!("{}\ncluster {}\n", files.render(), report.cluster))?;
            note(&format!("\nnext:\n  {}", next.join("\n  ")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn body(report: InitReport, dir: &std::path::Path, next: Vec<String>) -> Body {
    let file = |(path, state): (PathBuf, config::FileState)| FileBody { path, state: state.name() };
    Body {
        schema: "tombolo.init/v1",
        cluster: report.cluster.to_string(),
        dir: dir.to_owned(),
        regions: report.regions,
        files: report.files.into_iter().map(file).collect(),
        next,
    }
}

pub(super) fn failed(error: InitError, dir: &std::path::Path) -> CliError {
    let exit = match &error {
        InitError::Config(errors) => return config_invalid(errors, dir),
        InitError::Name(_)
        | InitError::NameReserved(_)
        | InitError::NamedTwice(_)
        | InitError::Address { .. }
        | InitError::Shards(_)
        | InitError::TooMany { .. } => Exit::Usage,
        InitError::IdTaken { .. } | InitError::Declared { .. } => Exit::Conflict,
        InitError::OtherRegions { .. }
        | InitError::OtherShards { .. }
        | InitError::HalfAuthority { .. }
        | InitError::NoAuthorityKey { .. } => Exit::ConfigInvalid,
        InitError::Pki(_) | InitError::File { .. } | InitError::Random(_) => Exit::Other,
    };
    CliError::new(exit, error.to_string())
}
