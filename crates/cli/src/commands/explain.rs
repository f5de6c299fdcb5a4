//! `tombolo explain`: an error code in words. The texts stand in `explain/texts.rs`.

mod texts;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tombolo_codec::RejectCode;

use self::texts::explanation;
use crate::error::{CliError, Exit};
use crate::output::{Columns, Format, OutputOption, print, print_json};

const EXAMPLES: &str = "\
Examples:
  tombolo explain stamp_behind
  tombolo explain TRYAGAIN        all codes behind a RESP error
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

#[derive(Serialize)]
struct CodeBody {
    code: &'static str,
    resp: &'static str,
    http: u16,
    meaning: &'static str,
    applied: &'static str,
    next: &'static str,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let codes = match &arguments.code {
        None => RejectCode::ALL.to_vec(),
        Some(name) => named(name)?,
    };
    match arguments.output.format {
        Format::Json => {
            print_json(&Body { schema: "tombolo.explain/v1", codes: codes.into_iter().map(body).collect() })?;
        }
        Format::Human if arguments.code.is_none() => print(&list(&codes))?,
        Format::Human => {
            let texts: Vec<String> = codes.into_iter().map(human).collect();
            print(&texts.join("\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn named(name: &str) -> Result<Vec<RejectCode>, CliError> {
    let wanted = name.to_ascii_lowercase().replace('-', "_");
    let is_wanted = |code: &RejectCode| code.name() == wanted || code.resp().to_ascii_lowercase() == wanted;
    let codes: Vec<RejectCode> = RejectCode::ALL.iter().copied().filter(is_wanted).collect();
    if codes.is_empty() {
        return Err(
            CliError::new(Exit::NotFound, format!("no code is called `{name}`")).next("tombolo explain")
        );
    }
    Ok(codes)
}

fn body(code: RejectCode) -> CodeBody {
    let texts::Explanation { meaning, applied, next } = explanation(code);
    CodeBody { code: code.name(), resp: code.resp(), http: code.http(), meaning, applied, next }
}

fn human(code: RejectCode) -> String {
    let CodeBody { code, resp, http, meaning, applied, next } = body(code);
    format!(
        "{code} (RESP {resp}, HTTP {http})\n\n  meaning  {meaning}\n  applied  {applied}\n  next     {next}\n"
    )
}

fn list(codes: &[RejectCode]) -> String {
    let mut columns = Columns::new(&["code", "resp", "http>", "meaning"]);
    for code in codes {
        let CodeBody { code, resp, http, meaning, .. } = body(*code);
        columns.row([code, resp, &http.to_string(), meaning]);
    }
    columns.render()
}
