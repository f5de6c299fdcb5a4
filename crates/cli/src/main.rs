//! The `tombolo` binary: one command line for running, using and examining a cluster.
//!
//! It parses, asks and prints; what a region does is the daemon's, and files are read through the crates that write
//! them. Data goes to stdout, everything else to stderr, and the exit code says what kind of failure it was
//! ([`error::Exit`]). The tree of commands stands in `commands.rs`; start there.

mod bench;
mod client;
mod commands;
mod demo;
mod error;
mod output;
mod regions;
mod target;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::Cli;

/// What one thread allocates another frees, all the time: from the doors to the shards, from these to the disk and to
/// the peers. An allocator whose arenas are locked for that spends a third of a release of 10,000 waiters on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.format();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => error.report(format),
    }
}
