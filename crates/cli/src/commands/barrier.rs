//! `tombolo await`: waits until a write is durable and visible in other regions, or a membership revision applied
//! there, or says who lags and why.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::duration;
use crate::client::{Client, with_schema};
use crate::error::{CliError, Exit};
use crate::output::{Columns, Format, OutputOption, print, print_json};
use crate::target::TargetOptions;

/// A region answers an await at its deadline; this is for the answer's way back.
const SLACK: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  tombolo await \"$(tombolo incr views:1)\"
  tombolo await TOKEN --regions us-east,ap-south --timeout 10s
  tombolo await TOKEN --at-least 2
  tombolo await --revision 4

Exits 7 if the time ran out first, with the regions that lag, and why, on stdout.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Token that a write was answered with
    #[arg(value_name = "TOKEN", required_unless_present = "revision")]
    write_token: Option<String>,
    /// Wait until this membership revision is applied instead
    #[arg(long, value_name = "N", conflicts_with = "write_token")]
    revision: Option<u64>,
    /// Regions to wait for [default: all that are declared]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', conflicts_with = "at_least")]
    regions: Vec<String>,
    /// Wait until this many regions have it, the answering one included
    #[arg(long, value_name = "COUNT")]
    at_least: Option<usize>,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    pub(super) output: OutputOption,
    #[command(flatten)]
    target: TargetOptions,
}

/// What a region says at the end of an await.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    reached: bool,
    waited_ms: f64,
    laggards: Vec<Laggard>,
}

#[derive(Debug, Deserialize)]
struct Laggard {
    region: String,
    reason: String,
    #[serde(default)]
    detail: String,
    behind_ops: u64,
    since: Option<String>,
}

impl Answer {
    /// Whether the regions have the write; the error names those that have not.
    pub(super) fn check(&self) -> Result<(), CliError> {
        self.check_or("the write is safe where it was answered; await it again")
    }

    fn check_or(&self, next: &str) -> Result<(), CliError> {
        if self.reached {
            return Ok(());
        }
        let names: Vec<&str> = self.laggards.iter().map(|laggard| laggard.region.as_str()).collect();
        let text = format!("not reached in {:.0} ms; not there yet: {}", self.waited_ms, names.join(", "));
        Err(CliError::new(Exit::Laggards, text).next(next))
    }

    pub(super) fn waited_ms(&self) -> f64 {
        self.waited_ms
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let client = arguments.target.one(client_timeout(arguments.timeout))?;
    let scope = match (arguments.at_least, arguments.regions.as_slice()) {
        (Some(count), _) => json!({"at_least": count}),
        (None, []) => json!("all"),
        (None, names) => json!(names),
    };
    let goal = match (&arguments.write_token, arguments.revision) {
        (Some(token), _) => json!({"token": token}),
        (None, revision) => json!({"revision": revision}),
    };
    let (answer, raw) = await_goal(&client, goal, scope, arguments.timeout)?;
    match arguments.output.format {
        Format::Json => print_json(&with_schema(raw, "tombolo.await/v1"))?,
        Format::Human => print(&human(&answer))?,
    }
    match arguments.revision {
        Some(_) => answer.check_or("see who lacks it: tombolo region list; or await it again")?,
        None => answer.check()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How long a call may take whose answer may take this long.
pub(super) fn client_timeout(timeout: Duration) -> Duration {
    timeout + SLACK
}

/// Awaits a token: the answer, and the same as it came.
pub(super) fn wait(
    client: &Client,
    token: &str,
    scope: Value,
    timeout: Duration,
) -> Result<(Answer, Value), CliError> {
    await_goal(client, json!({"token": token}), scope, timeout)
}

fn await_goal(
    client: &Client,
    mut body: Value,
    scope: Value,
    timeout: Duration,
) -> Result<(Answer, Value), CliError> {
    body["timeout_ms"] = u64::try_from(timeout.as_millis()).expect("a day of milliseconds fits").into();
    body["regions"] = scope;
    let raw: Value = client.ask("/v1/await", &body)?;
    let answer = Answer::deserialize(&raw).map_err(|error| {
        CliError::new(Exit::Other, format!("{} did not answer as a region does: {error}", client.name()))
    })?;
    Ok((answer, raw))
}

fn human(answer: &Answer) -> String {
    let outcome = if answer.reached { "reached" } else { "not reached" };
    let mut out = format!("{outcome} in {:.1} ms\n", answer.waited_ms);
    if !answer.laggards.is_empty() {
        let mut columns = Columns::new(&["laggard", "reason", "behind>", "since", "detail"]);
        for laggard in &answer.laggards {
            let behind = laggard.behind_ops.to_string();
            let since = laggard.since.as_deref().unwrap_or("-");
            columns.row([&laggard.region, &laggard.reason, &behind, since, &laggard.detail]);
        }
        out += &format!("\n{}", columns.render());
    }
    out
}
