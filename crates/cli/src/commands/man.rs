//! `tombolo man`: one manual page per command, for packagers.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, ValueHint};

use super::Cli;
use crate::error::{CliError, Exit};
use crate::output::note;

const EXAMPLES: &str = "\
Examples:
  tombolo man /usr/local/share/man/man1
  tombolo man . && man ./tombolo-serve.1";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Directory to write the pages into
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let dir = &arguments.dir;
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|error| {
        CliError::new(Exit::Other, format!("cannot write manual pages to {}: {error}", dir.display()))
    })?;
    note(&format!("manual pages are in {}", dir.display()));
    Ok(ExitCode::SUCCESS)
}
