//! `tombolo completions`: a shell's completion script.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::Cli;
use crate::error::CliError;
use crate::output::print_bytes;

const EXAMPLES: &str = "\
Examples:
  tombolo completions bash > ~/.local/share/bash-completion/completions/tombolo
  tombolo completions zsh > \"${fpath[1]}/_tombolo\"
  tombolo completions fish > ~/.config/fish/completions/tombolo.fish";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Shell to print the script for
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    generate(arguments.shell, &mut Cli::command(), "tombolo", &mut script);
    print_bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}
