//! The project's own checks: `cargo run -p ci -- check | fix | layers | mutants | run`.
//!
//! Makes the architecture true: who may import whom (`layers`, a table to read first) and what code below the line
//! may not touch (`bans`). Never part of the product, and no crate may depend on it. Exit codes: 0 green, 2 usage,
//! 8 a check failed.

#![allow(clippy::print_stdout, reason = "a developer's command: what it prints is its result")]

mod bans;
mod edges;
mod layers;
mod names;
mod purity;
mod readme;
mod sources;
mod steps;
mod tidy;
mod tracked;
mod violation;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::steps::Length;

const USAGE: &str = "\
usage: cargo run -p ci -- COMMAND

  check   formatting, layers, the shape of the repository, clippy, docs: all that CI demands before the tests
  fix     repair what clippy and rustfmt can repair
  layers  only the table of layers: import edges, and purity below the line
  run     check, then the tests with the command of README.md, then 2,000 seeds of the simulator, then `mutants short`;
          what .ci/run calls
  mutants [short]
          plant each bug of crates/mutants in the simulator, where a checker must notice it; short: one range of seeds each
  nightly the long searches: seeds, mutants, model, decoders, scenarios; about an hour and a half";

/// The root of the repository, where the workspace manifest is.
pub(crate) fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&own).parent().expect("ci is a folder of the workspace").to_owned()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let is_green = match words[..] {
        ["check"] => steps::check(&root()),
        ["fix"] => steps::fix(&root()),
        ["layers"] => steps::layers(&root()),
        ["mutants"] => steps::mutants(&root(), Length::Long),
        ["mutants", "short"] => steps::mutants(&root(), Length::Short),
        ["run"] => steps::run(&root()),
        ["nightly"] => steps::nightly(&root()),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if is_green { ExitCode::SUCCESS } else { ExitCode::from(8) }
}
