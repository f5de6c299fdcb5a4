//! The tree of commands: their names, what each takes, and which module runs it.
//!
//! Parsing is clap's, and each command's arguments stand beside the code that uses them. Start at [`Command`].

mod barrier;
mod check;
mod completions;
mod config;
mod doctor;
mod duration;
mod explain;
mod init;
mod keys;
mod lag;
mod man;
mod reconcile;
mod region;
mod serve;
mod status;
mod verify;
mod wal;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::error::{CliError, Exit};
use crate::output::Format;
use crate::{bench, demo};

/// How long what still runs may take once a command is done.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  tombolo demo                                       see three regions diverge and heal
  tombolo init --dir my-cluster --dev                make the files of a cluster on this machine
  tombolo serve --cluster my-cluster --region eu-west
  tombolo incr views:1 --cluster my-cluster --region eu-west
  tombolo get views:1 --cluster my-cluster --region us-east

Exit codes: 0 ok, 1 other, 2 usage, 3 unreachable, 4 not authorised, 5 not found, 6 conflict or precondition, \
7 await ended with laggards, 8 unhealthy or a check failed, 10 configuration invalid, 11 data directory in use, \
12 wrong cluster, region or epoch for this data directory, 13 storage failed.";

/// Every region takes writes, all the time, and all end with the same values, each write counted once.
#[derive(Debug, Parser)]
#[command(name = "tombolo", version, after_help = EXAMPLES, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start three regions on this machine, cut one off, heal, and check that every write counts once
    Demo(demo::Arguments),
    /// Make the files of a cluster, or those that are missing
    Init(init::Arguments),
    /// Run one region's daemon
    Serve(serve::Arguments),
    /// Check every file of a cluster, certificates included
    Check(check::Arguments),
    /// Explain the keys of the configuration files
    #[command(subcommand)]
    Config(config::Subcommands),
    /// Show a region: its peers, shards, clock and findings
    Status(status::Arguments),
    /// List, add, drain or remove regions of a running cluster
    #[command(subcommand)]
    Region(region::Subcommands),
    /// Show how far every region is behind every other
    Lag(lag::Arguments),
    /// Say what is wrong with a cluster, what shows it, and what to run next
    Doctor(doctor::Arguments),
    /// Prove that all regions hold the same, while they are written to
    Verify(verify::Arguments),
    /// Show what brings each region to what the others hold
    Reconcile(reconcile::Arguments),
    /// Read a key
    Get(keys::GetArguments),
    /// Add to a counter and print the write's token
    Incr(keys::AddArguments),
    /// Subtract from a counter and print the write's token
    Decr(keys::AddArguments),
    /// Set a register and print the write's token
    Set(keys::SetArguments),
    /// Delete a key and print the write's token
    Del(keys::DeleteArguments),
    /// Wait until a write is durable and visible in other regions
    Await(barrier::Arguments),
    /// Read a region's write-ahead log offline
    #[command(subcommand)]
    Wal(wal::Subcommands),
    /// Measure a cluster under load
    Bench(bench::Arguments),
    /// Explain an error code: what it means, what was applied, what to do next
    Explain(explain::Arguments),
    /// Print a shell's completion script
    Completions(completions::Arguments),
    /// Write manual pages into a directory
    Man(man::Arguments),
}

impl Cli {
    /// How this command prints, failures included.
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            Command::Init(arguments) => arguments.output.format,
            Command::Check(arguments) => arguments.output.format,
            Command::Config(config::Subcommands::Explain(arguments)) => arguments.output.format,
            Command::Status(arguments) => arguments.output.format,
            Command::Region(command) => command.format(),
            Command::Lag(arguments) => arguments.output.format,
            Command::Doctor(arguments) => arguments.output.format,
            Command::Verify(arguments) => arguments.output.format,
            Command::Reconcile(arguments) => arguments.output.format,
            Command::Get(arguments) => arguments.output.format,
            Command::Incr(arguments) | Command::Decr(arguments) => arguments.write.output.format,
            Command::Set(arguments) => arguments.write.output.format,
            Command::Del(arguments) => arguments.write.output.format,
            Command::Await(arguments) => arguments.output.format,
            Command::Wal(wal::Subcommands::Inspect(arguments)) => arguments.output.format,
            Command::Explain(arguments) => arguments.output.format,
            Command::Demo(arguments) => arguments.output.format,
            Command::Bench(arguments) => arguments.format(),
            Command::Serve(_) | Command::Completions(_) | Command::Man(_) => Format::Human,
        }
    }
}

/// Runs a command to its end.
///
/// Errors: whatever made it fail, with the exit code that says so.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, CliError> {
    match cli.command {
        Command::Demo(arguments) => block_on(demo::run(arguments)),
        Command::Bench(arguments) => block_on(bench::run(arguments)),
        Command::Serve(arguments) => block_on(serve::run(arguments)),
        Command::Init(arguments) => init::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Config(config::Subcommands::Explain(arguments)) => config::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Region(command) => region::run(&command),
        Command::Lag(arguments) => lag::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Reconcile(arguments) => reconcile::run(&arguments),
        Command::Get(arguments) => keys::get(&arguments),
        Command::Incr(arguments) => keys::add(&arguments, keys::Direction::Up),
        Command::Decr(arguments) => keys::add(&arguments, keys::Direction::Down),
        Command::Set(arguments) => keys::set(&arguments),
        Command::Del(arguments) => keys::delete(&arguments),
        Command::Await(arguments) => barrier::run(&arguments),
        Command::Wal(wal::Subcommands::Inspect(arguments)) => wal::inspect(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    }
}

fn block_on(future: impl Future<Output = Result<ExitCode, CliError>>) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| CliError::new(Exit::Other, format!("cannot start threads: {error}")))?;
    let done = runtime.block_on(future);
    // A blocking call that nobody waits for must not keep the process.
    runtime.shutdown_timeout(STOP_TIMEOUT);
    done
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }
}
