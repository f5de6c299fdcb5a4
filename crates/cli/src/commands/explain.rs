//! `tombolo explain`: a code in words. The texts of refusals stand in `explain/texts.rs`, those of findings in
//! `explain/findings.rs`.

mod findings;
mod texts;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tombolo_codec::RejectCode;

use self::findings::{FINDINGS, FindingText};
use self::texts::explanation;
use crate::error::{CliError, Exit};
use crate::output::{Columns, Format, OutputOption, print, print_json};

const EXAMPLES: &str = "\
Examples:
  tombolo explain stamp_behind
  tombolo explain TRYAGAIN        all codes behind a RESP error
  tombolo explain peer_stalled    a finding of a region or of tombolo doctor
  tombolo explain                 all codes";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Code as HTTP and the SDK print it, or the first word of a RESP error [default: list all]
    #[arg(value_name = "CODE")]
    code: Option<String>,
    #[command(flatten)]
    pub(super) output: OutputOption,
}

#[derive(Serialize)]
struct Body {
    schema: &'static str,
    codes: Vec<CodeBody>,
}

/// A refusal or a finding; what only the one has, the other leaves out.
#[derive(Serialize)]
struct CodeBody {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resp: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<u16>,
    meaning: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<&'static str>,
    next: &'static str,
}

impl CodeBody {
    fn of_refusal(code: RejectCode) -> Self {
        let texts::Explanation { meaning, applied, next } = explanation(code);
        let (resp, http) = (Some(code.resp()), Some(code.http()));
        Self { code: code.name(), resp, http, meaning, applied: Some(applied), next }
    }

    const fn of_finding(finding: &FindingText) -> Self {
        let FindingText { code, meaning, next } = *finding;
        Self { code, resp: None, http: None, meaning, applied: None, next }
    }

    fn is_called(&self, name: &str) -> bool {
        self.code == name || self.resp.is_some_and(|resp| resp.to_ascii_lowercase() == name)
    }
}

fn all() -> Vec<CodeBody> {
    let refusals = RejectCode::ALL.iter().map(|&code| CodeBody::of_refusal(code));
    refusals.chain(FINDINGS.iter().map(CodeBody::of_finding)).collect()
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let codes = match &arguments.code {
        None => all(),
        Some(name) => named(name)?,
    };
    match arguments.output.format {
        Format::Json => print_json(&Body { schema: "tombolo.explain/v1", codes })?,
        Format::Human if arguments.code.is_none() => print(&list(&codes))?,
        Format::Human => {
            let texts: Vec<String> = codes.iter().map(human).collect();
            print(&texts.join("\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn named(name: &str) -> Result<Vec<CodeBody>, CliError> {
    let wanted = name.to_ascii_lowercase().replace('-', "_");
    let codes: Vec<CodeBody> = all().into_iter().filter(|code| code.is_called(&wanted)).collect();
    if codes.is_empty() {
        return Err(
            CliError::new(Exit::NotFound, format!("no code is called `{name}`")).next("tombolo explain")
        );
    }
    Ok(codes)
}

fn human(body: &CodeBody) -> String {
    let CodeBody { code, meaning, next, .. } = body;
    let head = match (body.resp, body.http) {
        (Some(resp), Some(http)) => format!("{code} (RESP {resp}, HTTP {http})"),
        _ => format!("{code} (a finding)"),
    };
    let applied = body.applied.map_or_else(String::new, |applied| format!("  applied  {applied}\n"));
    format!("{head}\n\n  meaning  {meaning}\n{applied}  next     {next}\n")
}

fn list(codes: &[CodeBody]) -> String {
    let mut columns = Columns::new(&["code", "resp", "http>", "meaning"]);
    for CodeBody { code, resp, http, meaning, .. } in codes {
        let http = http.map_or_else(|| "-".to_owned(), |http| http.to_string());
        columns.row([code, resp.unwrap_or("-"), &http, meaning]);
    }
    columns.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::rules;

    #[test]
    fn every_finding_that_can_be_raised_is_explained_once() {
        for code in tombolo_daemon::FINDING_CODES.iter().chain(rules::CODES) {
            assert_eq!(FINDINGS.iter().filter(|finding| finding.code == *code).count(), 1, "{code}");
        }
        let known =
            |code: &str| tombolo_daemon::FINDING_CODES.contains(&code) || rules::CODES.contains(&code);
        let unknown: Vec<&str> = FINDINGS.iter().map(|it| it.code).filter(|code| !known(code)).collect();
        assert_eq!(unknown, Vec::<&str>::new(), "explained and never raised");
    }
}
