//! `tombolo serve`: runs one region's daemon until it is told to stop. All of the work is the daemon crate's.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum, ValueHint};
use tombolo_daemon::{LogFormat, ServeOptions};

use crate::error::CliError;

const EXAMPLES: &str = "\
Examples:
  tombolo serve --cluster my-cluster --region eu-west
  tombolo serve --cluster /etc/tombolo --region eu-west --data /var/lib/tombolo --log json
  tombolo serve --cluster my-cluster --region eu-west --peer-override us-east=127.0.0.1:9001

It logs to stderr. SIGTERM flushes, tells the peers and exits 0; SIGHUP reloads certificates. Which \
levels are logged: TOMBOLO_LOG, such as `TOMBOLO_LOG=tombolo_daemon=debug`.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Cluster directory
    #[arg(long, value_name = "DIR", env = "TOMBOLO_CLUSTER", value_hint = ValueHint::DirPath)]
    cluster: PathBuf,
    /// Region to run
    #[arg(long, value_name = "NAME", env = "TOMBOLO_REGION")]
    region: String,
    /// Data directory [default: `storage.dir` of the region's file]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data: Option<PathBuf>,
    /// When a write is answered [default: `storage.durability` of the region's file]
    #[arg(long, value_name = "MODE", value_enum)]
    durability: Option<Durability>,
    /// Reach a peer elsewhere than where it advertises; may be given once per peer
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = peer_override)]
    peer_override: Vec<(String, String)>,
    /// How to log
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    log: Log,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Durability {
    /// Once it is on disk
    Sync,
    /// Once it is staged; the disk follows within `flush_interval_ms`
    Interval,
    /// Once it is staged; the disk follows when it can
    Async,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Log {
    /// One JSON object per line
    Json,
    /// For people
    Text,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, CliError> {
    let durability = arguments.durability.map(|mode| match mode {
        Durability::Sync => "sync",
        Durability::Interval => "interval",
        Durability::Async => "async",
    });
    let options = ServeOptions {
        cluster: arguments.cluster,
        region: arguments.region,
        data: arguments.data,
        durability: durability.map(str::to_owned),
        peer_overrides: arguments.peer_override,
        log: match arguments.log {
            Log::Json => LogFormat::Json,
            Log::Text => LogFormat::Text,
        },
    };
    match Box::pin(tombolo_daemon::run(options)).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(CliError::with_exit_code(error.exit_code(), error.to_string())),
    }
}

/// `NAME=HOST:PORT`; whether the host exists is for the daemon to find out.
fn peer_override(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').and_then(|(name, address)| {
        let (host, port) = address.rsplit_once(':')?;
        let is_whole = !name.is_empty() && !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
        is_whole.then(|| (name.to_owned(), address.to_owned()))
    });
    parts.ok_or_else(|| "it must be of the form NAME=HOST:PORT, such as us-east=127.0.0.1:9001".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_override_is_a_name_a_host_and_a_port() {
        let expected = Ok(("us-east".to_owned(), "[::1]:9001".to_owned()));
        assert_eq!(peer_override("us-east=[::1]:9001"), expected);
        for wrong in
            ["", "us-east", "us-east=", "us-east=host", "us-east=:1", "=h:1", "us-east=h:0", "us-east=h:x"]
        {
            assert!(peer_override(wrong).is_err(), "{wrong}");
        }
    }
}
