//! What a request means: names and arguments become a [`Command`] or a [`Refusal`]. Pure; nothing is run here.

use std::time::Duration;

use bytes::Bytes;
use tombolo_codec::{Op, Reject, RejectCode, StampSource, Verb, limits};

use super::table;
use crate::admission;

/// The longest name that is looked up; no command has a longer one.
const NAME_BYTES_MAX: usize = 32;
/// How much of an unknown request is quoted.
const QUOTED_BYTES_MAX: usize = 128;

/// A command that writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Write {
    Add { key: Bytes, delta: i64 },
    Set { key: Bytes, value: Bytes },
    Delete { keys: Vec<Bytes> },
}

impl Write {
    /// Appends its ops.
    pub(super) fn push_ops(&self, draw: impl Fn() -> u128, ops: &mut Vec<Op>) {
        match self {
            Self::Add { key, delta } => ops.push(Op { key: key.clone(), verb: Verb::Add { delta: *delta } }),
            Self::Set { key, value } => {
                let stamp = StampSource::Here(draw());
                let verb = Verb::Set { value: value.clone(), expires_at: None, stamp };
                ops.push(Op { key: key.clone(), verb });
            }
            Self::Delete { keys } => ops.extend(keys.iter().map(|key| Op {
                key: key.clone(),
                verb: Verb::Delete { kind: None, stamp: StampSource::Here(draw()) },
            })),
        }
    }

    pub(super) fn ops_count(&self) -> usize {
        match self {
            Self::Add { .. } | Self::Set { .. } => 1,
            Self::Delete { keys } => keys.len(),
        }
    }

    /// Keys and values together.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Add { key, .. } => key.len(),
            Self::Set { key, value } => key.len() + value.len(),
            Self::Delete { keys } => keys.iter().map(Bytes::len).sum(),
        }
    }

    fn check(&self) -> Result<(), Reject> {
        match self {
            Self::Add { key, .. } => admission::check_key(key),
            Self::Set { key, value } => {
                admission::check_key(key).and_then(|()| admission::check_value(value))
            }
            Self::Delete { keys } => {
                if keys.len() > limits::REQUEST_OPS_MAX {
                    let text = format!("{} keys; the limit is {}", keys.len(), limits::REQUEST_OPS_MAX);
                    return Err(Reject::new(RejectCode::TooLarge, text));
                }
                keys.iter().try_for_each(|key| admission::check_key(key))
            }
        }
    }
}

/// A command that reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Get(Bytes),
    GetMany(Vec<Bytes>),
    Exists(Vec<Bytes>),
    Type(Bytes),
    Length(Bytes),
}

impl Read {
    pub(super) fn keys(&self) -> &[Bytes] {
        match self {
            Self::Get(key) | Self::Type(key) | Self::Length(key) => std::slice::from_ref(key),
            Self::GetMany(keys) | Self::Exists(keys) => keys,
        }
    }
}

/// A command about the connection or the server, answered without the region's data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Talk {
    Ping(Option<Bytes>),
    Echo(Bytes),
    Info(Vec<Bytes>),
    Client(Vec<Bytes>),
    CommandTable(Vec<Bytes>),
    ConfigGet(Vec<Bytes>),
    Time,
    /// Accepted, because it asks for what is so anyway.
    Ok,
}

/// The arguments of `HELLO`.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Hello {
    pub(super) version: Option<i64>,
    pub(super) token: Option<Bytes>,
    pub(super) name: Option<Bytes>,
}

/// A request that makes sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Write(Write),
    /// A write that counts once however often it is sent: at this place in a session, or under a name of the client's.
    WriteOnce {
        write: Write,
        producer: Bytes,
        number: u64,
        settled: u64,
    },
    OpenSession,
    CloseSession {
        id: Bytes,
    },
    Read(Read),
    Talk(Talk),
    Hello(Hello),
    Auth {
        token: Bytes,
    },
    Wait {
        others: u64,
        timeout: Duration,
    },
    WaitDurable {
        locals: u64,
        others: u64,
        timeout: Duration,
    },
    Multi,
    Exec,
    Discard,
    Reset,
    Quit,
}

/// A request that does not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: RejectCode,
    pub(super) word: &'static str,
    pub(super) text: String,
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Self {
        Self { code: reject.code, word: reject.code.resp(), text: reject.text }
    }
}

fn error<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code: RejectCode::Malformed, word: "ERR", text: text.into() })
}

fn not_supported<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Reject::new(RejectCode::NotSupported, text).into())
}

/// Reads a request; `args` holds its name first.
pub(super) fn parse(mut args: Vec<Bytes>) -> Result<Command, Refusal> {
    let mut buffer = [0; NAME_BYTES_MAX];
    let Some(name) = lower(&args[0], &mut buffer) else { return unknown(&args) };
    match (name, &args[1..]) {
        ("incr", [key]) => add(key, Ok(1)),
        ("decr", [key]) => add(key, Ok(-1)),
        ("incrby", [key, delta]) => add(key, integer(delta)),
        ("decrby", [key, delta]) => add(key, integer(delta).and_then(negated)),
        ("incr", [key, option, place @ ..]) if is(option, "idmp") => add_once(key, Ok(1), place),
        ("decr", [key, option, place @ ..]) if is(option, "idmp") => add_once(key, Ok(-1), place),
        ("incrby", [key, delta, option, place @ ..]) if is(option, "idmp") => {
            add_once(key, integer(delta), place)
        }
        ("decrby", [key, delta, option, place @ ..]) if is(option, "idmp") => {
            add_once(key, integer(delta).and_then(negated), place)
        }
        ("session", [verb]) if is(verb, "open") => Ok(Command::OpenSession),
        ("session", [verb, id]) if is(verb, "close") => Ok(Command::CloseSession { id: id.clone() }),
        ("session", [verb, ..]) => {
            error(format!("unknown subcommand or wrong number of arguments for '{}'", verb.escape_ascii()))
        }
        ("set", [key, value]) => write(Write::Set { key: key.clone(), value: value.clone() }),
        ("set", [_, _, options @ ..]) => set_option(options),
        ("del" | "unlink", [_, ..]) => {
            args.remove(0);
            write(Write::Delete { keys: args })
        }
        ("get", [key]) => read(Read::Get(key.clone())),
        ("type", [key]) => read(Read::Type(key.clone())),
        ("strlen", [key]) => read(Read::Length(key.clone())),
        ("mget", [_, ..]) => {
            args.remove(0);
            read(Read::GetMany(args))
        }
        ("exists", [_, ..]) => {
            args.remove(0);
            read(Read::Exists(args))
        }
        ("ping", []) => Ok(Command::Talk(Talk::Ping(None))),
        ("ping", [text]) => Ok(Command::Talk(Talk::Ping(Some(text.clone())))),
        ("echo", [text]) => Ok(Command::Talk(Talk::Echo(text.clone()))),
        ("info", sections) => Ok(Command::Talk(Talk::Info(sections.to_vec()))),
        ("client", [_, ..]) => client(&args[1..]),
        ("command", rest) => Ok(Command::Talk(Talk::CommandTable(rest.to_vec()))),
        ("config", [verb, patterns @ ..]) => config(verb, patterns),
        ("time", []) => Ok(Command::Talk(Talk::Time)),
        ("select", [index]) => match integer(index)? {
            0 => Ok(Command::Talk(Talk::Ok)),
            _ => error("DB index is out of range"),
        },
        ("unwatch", []) => Ok(Command::Talk(Talk::Ok)),
        ("hello", rest) => hello(rest),
        ("auth", [token] | [_, token]) => Ok(Command::Auth { token: token.clone() }),
        ("wait", [others, ms]) => Ok(Command::Wait { others: count(others)?, timeout: patience(ms)? }),
        ("waitaof", [locals, others, ms]) => wait_durable(locals, others, ms),
        ("multi", []) => Ok(Command::Multi),
        ("exec", []) => Ok(Command::Exec),
        ("discard", []) => Ok(Command::Discard),
        ("reset", []) => Ok(Command::Reset),
        ("quit", _) => Ok(Command::Quit),
        (name, _) => otherwise(name, &args),
    }
}

fn lower<'a>(name: &[u8], buffer: &'a mut [u8; NAME_BYTES_MAX]) -> Option<&'a str> {
    let buffer = buffer.get_mut(..name.len())?;
    buffer.copy_from_slice(name);
    buffer.make_ascii_lowercase();
    std::str::from_utf8(buffer).ok()
}

/// Whether an argument is this word, in any case.
pub(super) fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// A name that is known with other arguments, refused, or unknown.
fn otherwise(name: &str, args: &[Bytes]) -> Result<Command, Refusal> {
    if table::find(name).is_some() {
        return error(format!("wrong number of arguments for '{name}' command"));
    }
    match table::refusal(name) {
        Some(why) => not_supported(format!("{} {why}", name.to_ascii_uppercase())),
        None => unknown(args),
    }
}

fn unknown(args: &[Bytes]) -> Result<Command, Refusal> {
    let quoted = |bytes: &[u8]| bytes[..bytes.len().min(QUOTED_BYTES_MAX)].escape_ascii().to_string();
    let mut text = format!("unknown command '{}', with args beginning with: ", quoted(&args[0]));
    let mut left = QUOTED_BYTES_MAX;
    for arg in &args[1..] {
        if left == 0 {
            break;
        }
        let arg = quoted(&arg[..arg.len().min(left)]);
        left = left.saturating_sub(arg.len());
        text.push_str(&format!("'{arg}' "));
    }
    error(text)
}

/// A number as Redis takes it: no sign but `-`, no spaces, no leading zeros.
fn integer(arg: &[u8]) -> Result<i64, Refusal> {
    let digits = arg.strip_prefix(b"-").unwrap_or(arg);
    let is_plain = match digits {
        [b'0'] => digits.len() == arg.len(),
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    let number = is_plain.then(|| std::str::from_utf8(arg).ok()?.parse().ok()).flatten();
    number.map_or_else(|| error("value is not an integer or out of range"), Ok)
}

fn negated(delta: i64) -> Result<i64, Refusal> {
    delta.checked_neg().map_or_else(|| error("decrement would overflow"), Ok)
}

fn count(arg: &[u8]) -> Result<u64, Refusal> {
    let value = integer(arg)?;
    u64::try_from(value).or_else(|_| error("value is out of range, must be positive"))
}

/// 0 is "as long as it takes" in Redis; here every wait ends.
fn patience(arg: &[u8]) -> Result<Duration, Refusal> {
    let Ok(ms) = integer(arg) else { return error("timeout is not an integer or out of range") };
    let Ok(ms) = u64::try_from(ms) else { return error("timeout is negative") };
    Ok(Duration::from_millis(if ms == 0 { limits::AWAIT_MS_MAX } else { ms.min(limits::AWAIT_MS_MAX) }))
}

fn add(key: &Bytes, delta: Result<i64, Refusal>) -> Result<Command, Refusal> {
    write(Write::Add { key: key.clone(), delta: delta? })
}

/// `IDMP producer id [SETTLED number]`.
fn add_once(key: &Bytes, delta: Result<i64, Refusal>, place: &[Bytes]) -> Result<Command, Refusal> {
    let (producer, id, settled) = match place {
        [producer, id] => (producer, id, None),
        [producer, id, option, settled] if is(option, "settled") => (producer, id, Some(settled)),
        _ => return error("IDMP takes a producer and an id, and may be followed by SETTLED and a number"),
    };
    if producer.is_empty() || producer.len() > limits::KEY_BYTES_MAX {
        return error(format!("a producer is a name of 1 to {} bytes", limits::KEY_BYTES_MAX));
    }
    let Some(number) = count(id).ok().filter(|&number| number > 0) else {
        return error("an id of IDMP is an integer above 0 that increases from op to op");
    };
    let settled = settled.map_or(Ok(0), |settled| count(settled))?;
    let write = Write::Add { key: key.clone(), delta: delta? };
    write.check()?;
    Ok(Command::WriteOnce { write, producer: producer.clone(), number, settled })
}

fn write(write: Write) -> Result<Command, Refusal> {
    write.check()?;
    Ok(Command::Write(write))
}

fn read(read: Read) -> Result<Command, Refusal> {
    admission::check_keys(read.keys())?;
    Ok(Command::Read(read))
}

fn set_option(options: &[Bytes]) -> Result<Command, Refusal> {
    let any = |words: &[&str]| options.iter().any(|option| words.iter().any(|word| is(option, word)));
    if any(&["nx", "xx", "ifeq", "ifne", "ifgt"]) {
        return not_supported(
            "SET with a condition decides by what one region sees, and another may decide otherwise at the same \
             moment: both would be told they won; a lock or a check-and-set cannot be right here",
        );
    }
    if any(&["get"]) {
        return not_supported(
            "SET with GET reads and writes in one step, and another region may write in between; send GET and then \
             SET",
        );
    }
    if any(&["ex", "px", "exat", "pxat", "keepttl"]) {
        return not_supported("SET with an expiry is not there yet; DEL the key when it is due");
    }
    error("syntax error")
}

fn client(args: &[Bytes]) -> Result<Command, Refusal> {
    let mut buffer = [0; NAME_BYTES_MAX];
    match (lower(&args[0], &mut buffer).unwrap_or_default(), &args[1..]) {
        ("setname", [name]) => {
            check_name(name)?;
            Ok(Command::Talk(Talk::Client(args.to_vec())))
        }
        ("setinfo", [_, _]) | ("getname" | "id" | "info", []) | ("list", _) => {
            Ok(Command::Talk(Talk::Client(args.to_vec())))
        }
        ("no-evict" | "no-touch", [_]) => Ok(Command::Talk(Talk::Ok)),
        (name @ ("setname" | "setinfo" | "getname" | "id" | "info" | "no-evict" | "no-touch"), _) => {
            error(format!("wrong number of arguments for 'client|{name}' command"))
        }
        (name @ ("tracking" | "caching" | "kill" | "reply" | "pause" | "unpause" | "unblock"), _) => {
            not_supported(format!("CLIENT {} is not there", name.to_ascii_uppercase()))
        }
        _ => error(format!("unknown subcommand '{}'", args[0].escape_ascii())),
    }
}

/// Names are printed in lists of words.
fn check_name(name: &[u8]) -> Result<(), Refusal> {
    if name.iter().all(u8::is_ascii_graphic) && name.len() <= limits::KEY_BYTES_MAX {
        return Ok(());
    }
    error("Client names cannot contain spaces, newlines or special characters.")
}

fn config(verb: &[u8], patterns: &[Bytes]) -> Result<Command, Refusal> {
    if is(verb, "get") {
        if patterns.is_empty() {
            return error("wrong number of arguments for 'config|get' command");
        }
        return Ok(Command::Talk(Talk::ConfigGet(patterns.to_vec())));
    }
    if ["set", "rewrite", "resetstat"].iter().any(|word| is(verb, word)) {
        return not_supported(
            "settings are those of the region's file; change it there and restart the daemon",
        );
    }
    error(format!("unknown subcommand '{}'", verb.escape_ascii()))
}

fn hello(args: &[Bytes]) -> Result<Command, Refusal> {
    let mut hello = Hello::default();
    let Some((version, mut rest)) = args.split_first() else { return Ok(Command::Hello(hello)) };
    let Ok(version) = integer(version) else {
        return error("Protocol version is not an integer or out of range");
    };
    hello.version = Some(version);
    while let Some((option, values)) = rest.split_first() {
        rest = match values {
            [_, token, rest @ ..] if is(option, "auth") => {
                hello.token = Some(token.clone());
                rest
            }
            [name, rest @ ..] if is(option, "setname") => {
                check_name(name)?;
                hello.name = Some(name.clone());
                rest
            }
            _ => return error(format!("Syntax error in HELLO option '{}'", option.escape_ascii())),
        };
    }
    Ok(Command::Hello(hello))
}

fn wait_durable(locals: &[u8], others: &[u8], ms: &[u8]) -> Result<Command, Refusal> {
    let (locals, others) = (count(locals)?, count(others)?);
    if locals > 1 {
        return error("value is out of range, must be between 0 and 1");
    }
    Ok(Command::WaitDurable { locals, others, timeout: patience(ms)? })
}

#[cfg(test)]
mod tests;
