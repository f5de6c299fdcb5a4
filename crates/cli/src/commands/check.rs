//! `tombolo check`: everything that is wrong in a cluster's files, each with its place.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueHint};
use serde::Serialize;
use tombolo_daemon::config::{self, ConfigError};

use crate::error::{CliError, Exit};
use crate::output::{Columns, Format, OutputOption, note, print, print_json};
use crate::target::config_invalid;

const EXAMPLES: &str = "\
Examples:
  tombolo check --cluster my-cluster
  tombolo check --cluster my-cluster -o json | jq '.errors[]'

Exits 10 if anything is wrong. Every problem has the form file:line:column: message; hint.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Cluster directory
    #[arg(long, value_name = "DIR", env = "TOMBOLO_CLUSTER", value_hint = ValueHint::DirPath)]
    cluster: PathBuf,
    #[command(flatten)]
    pub(super) output: OutputOption,
}

#[derive(Serialize)]
struct Body<'a> {
    schema: &'static str,
    valid: bool,
    cluster: Option<String>,
    regions: Vec<&'a str>,
    errors: Vec<Problem<'a>>,
    warnings: Vec<Problem<'a>>,
}

#[derive(Serialize)]
struct Problem<'a> {
    file: &'a Path,
    line: usize,
    column: usize,
    message: &'a str,
    hint: Option<&'a str>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let dir = &arguments.cluster;
    let is_json = arguments.output.format == Format::Json;
    let report = match config::check(dir) {
        Ok(report) => report,
        Err(errors) if is_json => {
            print_json(&body(None, &errors, &[]))?;
            return Ok(Exit::ConfigInvalid.into());
        }
        Err(errors) => return Err(config_invalid(&errors, dir)),
    };
    if is_json {
        print_json(&body(Some(&report.config), &[], &report.warnings))?;
        return Ok(ExitCode::SUCCESS);
    }
    for warning in &report.warnings {
        note(&format!("warning: {warning}"));
    }
    let cluster = &report.config;
    let mut regions = Columns::new(&["region", "id>", "http", "resp", "quic", "peer", "durability"]);
    for region in &cluster.regions {
        let listen = &region.listen;
        regions.row([
            region.name.clone(),
            region.id.to_string(),
            listen.http.to_string(),
            listen.resp.to_string(),
            listen.quic.to_string(),
            listen.peer.to_string(),
            region.storage.durability.name().to_owned(),
        ]);
    }
    let summary = format!("ok: cluster {}, {} shards\n", cluster.cluster, cluster.shards);
    print(&format!("{}\n{summary}", regions.render()))?;
    Ok(ExitCode::SUCCESS)
}

fn body<'a>(
    config: Option<&'a config::ClusterConfig>,
    errors: &'a [ConfigError],
    warnings: &'a [ConfigError],
) -> Body<'a> {
    let problems = |errors: &'a [ConfigError]| errors.iter().map(problem).collect();
    Body {
        schema: "tombolo.check/v1",
        valid: errors.is_empty(),
        cluster: config.map(|config| config.cluster.to_string()),
        regions: config.iter().flat_map(|config| config.regions.iter().map(|r| r.name.as_str())).collect(),
        errors: problems(errors),
        warnings: problems(warnings),
    }
}

fn problem(error: &ConfigError) -> Problem<'_> {
    let ConfigError { file, line, column, message, hint } = error;
    Problem { file, line: *line, column: *column, message, hint: hint.as_deref() }
}
