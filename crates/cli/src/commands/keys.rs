//! `get`, `incr`, `decr`, `set` and `del`: data from a shell.
//!
//! A write is one attempt without a session: what is lost on the way is reported as unknown, never sent again. Scripts
//! that must count exactly once number their requests in a session, over HTTP or the SDK.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use tombolo_codec::limits;

use super::{barrier, duration};
use crate::client::{Client, percent_encoded, with_schema};
use crate::error::{CliError, Exit};
use crate::output::{Format, OutputOption, note, print, print_bytes, print_json};
use crate::target::TargetOptions;

/// How long a call may take that waits for nothing but a region's disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

const GET_EXAMPLES: &str = "\
Examples:
  tombolo get views:1
  tombolo get views:1 --region us-east --after \"$(tombolo incr views:1)\"
  tombolo get profile:7 -o json | jq -r .stamp

Exits 5 if nothing is visible under the key, 6 if the region did not reach --after in time.";

const ADD_EXAMPLES: &str = "\
Examples:
  tombolo incr views:1
  tombolo decr stock:42 3
  tombolo incr views:1 10 --wait --timeout 10s

The token on stdout is for `tombolo await` and `tombolo get --after`. One attempt is made: if the connection is lost \
after sending, the error says `applied: unknown`.";

const SET_EXAMPLES: &str = "\
Examples:
  tombolo set profile:7 'Ada'
  tombolo set avatar:7 - < avatar.png

The token on stdout is for `tombolo await` and `tombolo get --after`. A value of `-` is read from stdin, as it is.";

const DELETE_EXAMPLES: &str = "\
Examples:
  tombolo del profile:7
  tombolo del views:1 --kind counter

The token on stdout is for `tombolo await` and `tombolo get --after`. Adds and sets that had not seen the value go \
with it or win over it, as their stamps say.";

#[derive(Debug, Args)]
#[command(after_help = GET_EXAMPLES)]
pub(super) struct GetArguments {
    /// Key to read
    #[arg(value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    key: String,
    /// Read once the region covers this write
    #[arg(long, value_name = "TOKEN")]
    after: Option<String>,
    /// How long to wait for that
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    pub(super) output: OutputOption,
    #[command(flatten)]
    target: TargetOptions,
}

/// What all writes take.
#[derive(Debug, Args)]
pub(super) struct WriteOptions {
    /// Wait until all regions have it
    #[arg(long)]
    wait: bool,
    /// How long to wait for that
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    pub(super) output: OutputOption,
    #[command(flatten)]
    target: TargetOptions,
}

#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
pub(super) struct AddArguments {
    /// Counter
    #[arg(value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    key: String,
    /// By how much
    #[arg(value_name = "BY", default_value_t = 1, allow_negative_numbers = true)]
    by: i64,
    #[command(flatten)]
    pub(super) write: WriteOptions,
}

/// Which way an amount counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

#[derive(Debug, Args)]
#[command(after_help = SET_EXAMPLES)]
pub(super) struct SetArguments {
    /// Register
    #[arg(value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    key: String,
    /// Value, or `-` to read it from stdin
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    value: OsString,
    #[command(flatten)]
    pub(super) write: WriteOptions,
}

#[derive(Debug, Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub(super) struct DeleteArguments {
    /// Key to delete
    #[arg(value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    key: String,
    /// What to delete [default: the kind that the key has]
    #[arg(long, value_enum)]
    kind: Option<KindName>,
    #[command(flatten)]
    pub(super) write: WriteOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KindName {
    Counter,
    Register,
}

#[derive(Debug, Deserialize)]
struct WriteAnswer {
    token: String,
    region: String,
    durability: String,
}

pub(super) fn get(arguments: &GetArguments) -> Result<ExitCode, CliError> {
    let client = arguments.target.one(barrier::client_timeout(arguments.timeout))?;
    let mut headers = Vec::new();
    if let Some(token) = &arguments.after {
        headers.push(("tombolo-after", token.clone()));
        headers.push(("tombolo-timeout-ms", arguments.timeout.as_millis().to_string()));
    }
    let answer: Value = client.get(&format!("/v1/keys/{}", percent_encoded(&arguments.key)), &headers)?;
    if arguments.output.format == Format::Json {
        print_json(&with_schema(answer, "tombolo.key/v1"))?;
    } else if let Some(value) = answer["value"].as_str() {
        print(&format!("{value}\n"))?;
    } else {
        let value = answer["value_base64"].as_str().and_then(|text| BASE64.decode(text.as_bytes()).ok());
        let value = value.ok_or_else(|| no_region(&client, "the value is missing"))?;
        print_bytes(&value)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn add(arguments: &AddArguments, direction: Direction) -> Result<ExitCode, CliError> {
    let delta = match direction {
        Direction::Up => Some(arguments.by),
        Direction::Down => arguments.by.checked_neg(),
    };
    let delta =
        delta.ok_or_else(|| CliError::new(Exit::Usage, format!("{} cannot be subtracted", arguments.by)))?;
    write(&arguments.write, json!({"op": "add", "key": arguments.key, "delta": delta.to_string()}))
}

pub(super) fn set(arguments: &SetArguments) -> Result<ExitCode, CliError> {
    let value = if arguments.value == "-" { read_stdin()? } else { arguments.value.clone().into_vec() };
    let op = match String::from_utf8(value) {
        Ok(text) => json!({"op": "set", "key": arguments.key, "value": text}),
        Err(error) => {
            json!({"op": "set", "key": arguments.key, "value_base64": BASE64.encode(error.as_bytes())})
        }
    };
    write(&arguments.write, op)
}

pub(super) fn delete(arguments: &DeleteArguments) -> Result<ExitCode, CliError> {
    let mut op = json!({"op": "delete", "key": arguments.key});
    if let Some(kind) = arguments.kind {
        op["kind"] = json!(match kind {
            KindName::Counter => "counter",
            KindName::Register => "register",
        });
    }
    write(&arguments.write, op)
}

fn write(options: &WriteOptions, op: Value) -> Result<ExitCode, CliError> {
    let timeout = if options.wait { barrier::client_timeout(options.timeout) } else { CALL_TIMEOUT };
    let client = options.target.one(timeout)?;
    let raw: Value = client.write("/v1/ops", &json!({"ops": [op]}))?;
    let answer = WriteAnswer::deserialize(&raw).map_err(|error| no_region(&client, &error.to_string()))?;
    // The token first: whatever becomes of the waiting, the write is done and can be awaited again.
    match options.output.format {
        Format::Human => {
            print(&format!("{}\n", answer.token))?;
            note(&format!("acked in {} ({})", answer.region, answer.durability));
        }
        Format::Json if !options.wait => print_json(&with_schema(raw.clone(), "tombolo.write/v1"))?,
        Format::Json => {}
    }
    if options.wait {
        let waited = barrier::wait(&client, &answer.token, json!("all"), options.timeout);
        if options.output.format == Format::Json {
            let mut body = with_schema(raw, "tombolo.write/v1");
            // Also where the wait failed: the token must not be lost with it.
            body["await"] = waited.as_ref().map_or(Value::Null, |(_, raw)| raw.clone());
            print_json(&body)?;
        }
        let (awaited, _) = waited?;
        awaited.check()?;
        note(&format!("durable and visible in all regions after {:.1} ms", awaited.waited_ms()));
    }
    Ok(ExitCode::SUCCESS)
}

/// One byte more than a value may have is enough to be refused by the region.
fn read_stdin() -> Result<Vec<u8>, CliError> {
    let mut value = Vec::new();
    let read = std::io::stdin().lock().take(limits::VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value);
    read.map_err(|error| CliError::new(Exit::Other, format!("cannot read stdin: {error}")))?;
    if value.len() > limits::VALUE_BYTES_MAX {
        let text = format!("stdin holds more than the {} bytes a value may have", limits::VALUE_BYTES_MAX);
        return Err(CliError::new(Exit::Usage, text));
    }
    Ok(value)
}

fn no_region(client: &Client, what: &str) -> CliError {
    CliError::new(Exit::Other, format!("{} did not answer as a region does: {what}", client.name()))
}
