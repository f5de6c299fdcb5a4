//! [`Caller`]: a client that outlives what it calls. Every attempt ends within two seconds and in a value: yes, a
//! refusal, or no answer.
//!
//! Knows no numbers and retries nothing: see [`crate::ledger`] and [`crate::writer`].

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::{Bed, REGIONS};

/// How long an attempt may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It is logged.
    Yes {
        /// It was logged before.
        is_replayed: bool,
        /// Whether its authority has yet to log it; RESP does not say.
        is_conditional: Option<bool>,
    },
    /// It is refused.
    No {
        /// The code, or the first word of RESP in lower case.
        code: String,
        /// Whether this attempt certainly took no effect.
        is_without_effect: bool,
        /// The whole refusal.
        text: String,
    },
    /// Nobody listened: it never left.
    Unsent,
    /// No answer, and why.
    Nothing(String),
}

impl Said {
    /// Whether it is a refusal with this code.
    #[must_use]
    pub fn is_code(&self, wanted: &str) -> bool {
        matches!(self, Self::No { code, .. } if code == wanted)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes { is_replayed, is_conditional } => {
                let replayed = if *is_replayed { ", replayed" } else { "" };
                let conditional = match is_conditional {
                    Some(true) => ", conditional",
                    Some(false) => ", by its authority",
                    None => "",
                };
                write!(f, "yes{replayed}{conditional}")
            }
            Self::No { code, is_without_effect, text } => {
                write!(
                    f,
                    "no, {code}, applied: {}: {text}",
                    if *is_without_effect { "no" } else { "unknown" }
                )
            }
            Self::Unsent => write!(f, "nobody listens"),
            Self::Nothing(why) => write!(f, "no answer ({why})"),
        }
    }
}

/// Why there is no answer.
struct Failure {
    was_sent: bool,
    why: String,
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        let is_refused =
            matches!(&error, ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused);
        Self { was_sent: !is_refused, why: error.to_string() }
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.why
    }
}

/// Where one region's doors are.
#[derive(Debug, Clone)]
struct Doors {
    http: String,
    resp: SocketAddr,
}

/// A client of all regions of a [`Bed`], each named by its place in [`REGIONS`].
#[derive(Debug, Clone)]
pub struct Caller {
    agent: ureq::Agent,
    doors: Vec<Doors>,
}

impl Caller {
    /// Of the regions of a bed, whether or not they run.
    ///
    /// Panics: never, as a bed has these regions.
    #[must_use]
    pub fn of(bed: &Bed) -> Self {
        let doors = |region: &&str| Doors {
            http: bed.cluster.http(region).expect("a region of the bed"),
            resp: bed.cluster.resp(region).expect("a region of the bed"),
        };
        let config = ureq::Agent::config_builder();
        let config = config.timeout_global(Some(ANSWER_MAX)).http_status_as_error(false).proxy(None);
        Self { agent: config.build().into(), doors: REGIONS.iter().map(doors).collect() }
    }

    /// Opens a session in a region.
    ///
    /// Errors: why there is none.
    pub fn open_session(&self, at: usize) -> Result<String, String> {
        match self.post(at, "/v1/sessions", &json!({}), None)? {
            (200, answer) => answer["session"].as_str().map(str::to_owned).ok_or(format!("{answer}")),
            (status, answer) => Err(format!("{status}: {answer}")),
        }
    }

    /// `POST /v1/ops`, with an `Idempotency-Key` if one is named.
    #[must_use]
    pub fn write(&self, at: usize, body: &Value, idempotency_key: Option<&str>) -> Said {
        match self.post(at, "/v1/ops", body, idempotency_key) {
            Ok((200, answer)) => Said::Yes {
                is_replayed: answer["replayed"] == true,
                is_conditional: answer["conditional"].as_bool(),
            },
            Ok((status, answer)) => match answer["code"].as_str() {
                Some(code) => Said::No {
                    code: code.to_owned(),
                    is_without_effect: answer["applied"] == "no",
                    text: format!("{status} {}", answer["detail"].as_str().unwrap_or_default()),
                },
                None => Said::Nothing(format!("{status} without a code: {answer}")),
            },
            Err(Failure { was_sent: false, .. }) => Said::Unsent,
            Err(Failure { why, .. }) => Said::Nothing(why),
        }
    }

    /// `INCRBY key delta IDMP session number` on a connection of its own.
    #[must_use]
    pub fn incrby_once(&self, at: usize, key: &str, delta: i64, session: &str, number: u64) -> Said {
        let (delta, number) = (delta.to_string(), number.to_string());
        let words = ["INCRBY", key, &delta, "IDMP", session, &number];
        let line = match self.resp(at, &words) {
            Ok(line) => line,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Said::Unsent,
            Err(error) => return Said::Nothing(error.to_string()),
        };
        let yes = |is_replayed| Said::Yes { is_replayed, is_conditional: None };
        match line.split_at_checked(1) {
            Some((":", _)) => yes(false),
            Some(("+", "DUPLICATE")) => yes(true),
            Some(("-", text)) => Said::No {
                code: text.split(' ').next().unwrap_or_default().to_ascii_lowercase(),
                is_without_effect: !text.contains("(applied: "),
                text: text.to_owned(),
            },
            _ => Said::Nothing(format!("not an answer: {line:?}")),
        }
    }

    /// The values of keys in a region as text; none for what is absent.
    ///
    /// Errors: why they cannot be read.
    pub fn read(&self, at: usize, keys: &[String]) -> Result<BTreeMap<String, Option<String>>, String> {
        let mut values = BTreeMap::new();
        for keys in keys.chunks(1_000) {
            let (status, answer) = self.post(at, "/v1/read", &json!({ "keys": keys }), None)?;
            let found = answer["values"].as_array().filter(|_| status == 200);
            let found = found.ok_or_else(|| format!("{}: {status}: {answer}", REGIONS[at]))?;
            let text = |value: &Value| value["value"].as_str().map(str::to_owned);
            values.extend(keys.iter().cloned().zip(found.iter().map(text)));
        }
        Ok(values)
    }

    fn post(
        &self,
        at: usize,
        path: &str,
        body: &Value,
        idempotency_key: Option<&str>,
    ) -> Result<(u16, Value), Failure> {
        let url = format!("{}{path}", self.doors[at].http);
        let mut request = self.agent.post(&url).header("content-type", "application/json");
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let mut answer = request.send(body.to_string())?;
        let text = answer.body_mut().read_to_string()?;
        let value = serde_json::from_str(&text)
            .map_err(|error| Failure { was_sent: true, why: format!("{error}: {text}") })?;
        Ok((answer.status().as_u16(), value))
    }

    fn resp(&self, at: usize, words: &[&str]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.doors[at].resp, ANSWER_MAX)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(command.as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}
