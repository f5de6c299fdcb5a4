//! `tombolo config explain`: every key of the files with its default, its bounds and its meaning.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use tombolo_daemon::config::{self, ExplainedKey};

use crate::error::{CliError, Exit};
use crate::output::{Columns, Format, OutputOption, print, print_json};

const EXAMPLES: &str = "\
Examples:
  tombolo config explain
  tombolo config explain durability
  tombolo config explain -o json";

#[derive(Debug, Subcommand)]
pub(super) enum Subcommands {
    /// Explain every key: its default, what it takes, what it means
    Explain(Arguments),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Only keys whose name contains this
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    #[command(flatten)]
    pub(super) output: OutputOption,
}

#[derive(Serialize)]
struct Body {
    schema: &'static str,
    keys: Vec<KeyBody>,
}

#[derive(Serialize)]
struct KeyBody {
    file: &'static str,
    key: String,
    default: String,
    takes: String,
    what: &'static str,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let text = arguments.text.as_deref().unwrap_or_default();
    let keys: Vec<ExplainedKey> =
        config::explain().into_iter().filter(|key| key.key.contains(text)).collect();
    if keys.is_empty() {
        let error = CliError::new(Exit::NotFound, format!("no key contains `{text}`"));
        return Err(error.next("tombolo config explain"));
    }
    match arguments.output.format {
        Format::Json => print_json(&Body {
            schema: "tombolo.config/v1",
            keys: keys
                .into_iter()
                .map(|ExplainedKey { file, key, default, takes, what, .. }| KeyBody {
                    file,
                    key,
                    default,
                    takes,
                    what,
                })
                .collect(),
        })?,
        Format::Human => print(&human(&keys))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn human(keys: &[ExplainedKey]) -> String {
    let mut out = String::new();
    let files: Vec<&str> = keys.iter().map(|key| key.file).collect();
    let mut files = files;
    files.dedup();
    for file in files {
        let mut columns = Columns::new(&["key", "default", "takes", "what"]);
        for key in keys.iter().filter(|key| key.file == file) {
            columns.row([key.key.as_str(), &key.default, &key.takes, key.what]);
        }
        let gap = if out.is_empty() { "" } else { "\n" };
        out += &format!("{gap}{file}\n\n{}", columns.render());
    }
    out
}
