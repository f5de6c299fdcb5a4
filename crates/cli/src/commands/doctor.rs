//! `tombolo doctor`: asks every region of the cluster and says what is wrong, what shows it, and what to run next.
//!
//! What is wrong is decided in `doctor/rules.rs`; `tombolo explain` has every code in words.

pub(super) mod rules;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use self::rules::{Seen, Severity, Symptom, examine};
use crate::client::{Status, ask_all};
use crate::error::{CliError, Exit};
use crate::output::{Format, OutputOption, print, print_json};
use crate::target::TargetOptions;

const TIMEOUT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  tombolo doctor --cluster my-cluster
  tombolo doctor -o json | jq -r '.findings[] | .code + \" \" + .next'
  tombolo explain peer_stalled

Exits 0 if all is well, 8 if a finding is a warning or an error.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) output: OutputOption,
    #[command(flatten)]
    target: TargetOptions,
}

#[derive(Serialize)]
struct Body<'a> {
    schema: &'static str,
    healthy: bool,
    regions: Vec<&'a str>,
    findings: &'a [Symptom],
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let clients = arguments.target.every_region(TIMEOUT)?;
    let answers = ask_all(&clients, |client| client.get::<Status>("/v1/status", &[]));
    let mut seen = Vec::new();
    for (client, answer) in clients.iter().zip(answers) {
        let region = client.name().to_owned();
        match answer {
            Ok(status) => seen.push(Seen { region, status: Ok(status) }),
            Err(error) if error.is_unreachable() => {
                seen.push(Seen { region, status: Err(error.text().to_owned()) });
            }
            Err(error) => return Err(error),
        }
    }
    let findings = examine(&seen);
    let healthy = findings.iter().all(|finding| finding.severity < Severity::Warning);
    let regions: Vec<&str> = seen.iter().map(|seen| seen.region.as_str()).collect();
    match arguments.output.format {
        Format::Json => {
            print_json(&Body { schema: "tombolo.doctor/v1", healthy, regions, findings: &findings })?;
        }
        Format::Human => print(&human(&regions, &findings))?,
    }
    Ok(if healthy { ExitCode::SUCCESS } else { Exit::CheckFailed.into() })
}

fn human(regions: &[&str], findings: &[Symptom]) -> String {
    if findings.is_empty() {
        return format!("all is well in {}\n", regions.join(", "));
    }
    let text = |finding: &Symptom| {
        let Symptom { code, severity, region, evidence, next } = finding;
        format!("{} {code} in {region}\n  {evidence}\n  next: {next}\n", severity.name())
    };
    findings.iter().map(text).collect::<Vec<_>>().join("\n")
}
