//! A small HTTP client for one region: JSON in, JSON out, one attempt, every wait bounded.
//!
//! Never retries: whether a write may be sent again is for whoever numbered it to know. A refusal (RFC 9457) and a
//! lost connection both become a [`CliError`] that says what was applied. Start at [`Client`].

mod status;

use std::io::ErrorKind;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tombolo_codec::Applied;
use ureq::http::{Request, Response, StatusCode};
use ureq::{Agent, Body, Timeout};

pub(crate) use self::status::{Peer, ShardDigest, ShardLag, Status};
use crate::error::{CliError, Exit, reject_code};

/// How long connecting may take: a region that does not accept by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// One region's HTTP door.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    region: Option<String>,
    token: Option<String>,
}

/// What a request would change, which decides what a lost connection means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Nothing,
    Write,
}

/// Source: RFC 9457, with our members.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    detail: Option<String>,
    code: Option<String>,
    applied: Option<String>,
    retry_after_ms: Option<u64>,
    stamp_needed: Option<String>,
}

impl Client {
    /// A client; `timeout` bounds a whole call.
    pub(crate) fn new(
        endpoint: String,
        region: Option<String>,
        token: Option<String>,
        timeout: Duration,
    ) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .timeout_connect(Some(CONNECT_TIMEOUT.min(timeout)))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("tombolo/", env!("CARGO_PKG_VERSION")));
        Self { agent: config.build().into(), endpoint, region, token }
    }

    /// The region's name where the cluster's files tell it, else its endpoint.
    pub(crate) fn name(&self) -> &str {
        self.region.as_deref().unwrap_or(&self.endpoint)
    }

    /// The region's name, if the cluster's files tell it.
    pub(crate) fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Reads something.
    ///
    /// Errors: [`Exit::Unreachable`], or the region's refusal.
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        headers: &[(&str, String)],
    ) -> Result<T, CliError> {
        self.call("GET", path, headers, Vec::new(), Effect::Nothing)
    }

    /// Asks with a body, changing nothing.
    ///
    /// Errors: as [`Self::get`].
    pub(crate) fn ask<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CliError> {
        self.call("POST", path, &[], json(body), Effect::Nothing)
    }

    /// Writes: one attempt.
    ///
    /// Errors: as [`Self::get`]; where the connection is lost after sending, says that the outcome is unknown.
    pub(crate) fn write<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        self.call("POST", path, &[], json(body), Effect::Write)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
        effect: Effect,
    ) -> Result<T, CliError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.endpoint));
        request = request.header("accept", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let sent = if method == "GET" {
            request.body(()).map(|request| self.agent.run(request))
        } else {
            request = request.header("content-type", "application/json");
            request.body(body).map(|request| self.agent.run(request))
        };
        // A header or an address that cannot be sent at all.
        let sent = sent
            .map_err(|error| CliError::new(Exit::Usage, format!("cannot ask {}: {error}", self.endpoint)))?;
        let response = sent.map_err(|error| self.lost(&error, effect))?;
        self.answer(response, effect)
    }

    fn answer<T: DeserializeOwned>(
        &self,
        mut response: Response<Body>,
        effect: Effect,
    ) -> Result<T, CliError> {
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        if !status.is_success() {
            return Err(self.refused(status, &body.unwrap_or_default()));
        }
        // The status says that it was done; only the answer did not arrive whole.
        let body = body.map_err(|error| self.lost(&error, effect))?;
        serde_json::from_slice(&body).map_err(|error| {
            let text = format!("{} did not answer as a region does: {error}", self.name());
            let error = CliError::new(Exit::Other, text);
            let error = if effect == Effect::Write { error.applied(Applied::Unknown) } else { error };
            error.next(format!("check that {} is a region's HTTP door", self.endpoint))
        })
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> CliError {
        let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        let code = problem.code.as_deref().and_then(reject_code);
        let exit = Exit::of_refusal(status.as_u16(), code);
        let text = match problem.detail {
            Some(detail) => format!("{}: {detail}", self.name()),
            None => format!("{} answered {status}", self.name()),
        };
        let mut error = CliError::new(exit, text);
        if let Some(code) = problem.code {
            error = error.code(code);
        }
        let applied = [Applied::No, Applied::Yes, Applied::Unknown];
        if let Some(applied) = applied.into_iter().find(|a| problem.applied.as_deref() == Some(a.name())) {
            error = error.applied(applied);
        }
        if let Some(stamp) = problem.stamp_needed {
            error.next(format!("write again with a stamp above {stamp}"))
        } else if exit == Exit::NotAuthorised && self.token.is_none() {
            error.next("give --token or TOMBOLO_TOKEN, or --cluster DIR to use the token kept there")
        } else if let Some(ms) = problem.retry_after_ms {
            error.next(format!("try again in {ms} ms"))
        } else {
            error
        }
    }

    fn lost(&self, error: &ureq::Error, effect: Effect) -> CliError {
        let name = self.name();
        if was_never_sent(error) {
            let at = if self.region.is_some() { format!(" at {}", self.endpoint) } else { String::new() };
            let unreachable =
                CliError::new(Exit::Unreachable, format!("{name}{at} cannot be reached: {error}"));
            let next = match &self.region {
                Some(region) => format!("start it: tombolo serve --cluster DIR --region {region}"),
                None => "check the address, and that the region runs".to_owned(),
            };
            let unreachable =
                if effect == Effect::Write { unreachable.applied(Applied::No) } else { unreachable };
            return unreachable.next(next);
        }
        let lost =
            CliError::new(Exit::Unreachable, format!("{name} took the request and did not answer: {error}"));
        match effect {
            Effect::Nothing => lost.next("ask again"),
            Effect::Write => lost
                .applied(Applied::Unknown)
                .next("read the key before writing again: the write may have been counted"),
        }
    }
}

/// Asks all regions at the same time; answers in their order.
pub(crate) fn ask_all<T: Send>(
    clients: &[Client],
    ask: impl Fn(&Client) -> Result<T, CliError> + Sync,
) -> Vec<Result<T, CliError>> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = clients.iter().map(|client| scope.spawn(|| ask(client))).collect();
        asked.into_iter().map(|asked| asked.join().expect("asking does not panic")).collect()
    })
}

fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("a request is plain JSON")
}

/// Whether the request certainly did not reach anybody. In doubt, it did.
fn was_never_sent(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Timeout(timeout) => matches!(timeout, Timeout::Resolve | Timeout::Connect),
        ureq::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::AddrNotAvailable
        ),
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::Tls(_)
        | ureq::Error::TlsRequired => true,
        _ => false,
    }
}

/// A key as it stands in a path.
pub(crate) fn percent_encoded(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// An answer printed as it came, with the schema it is printed under.
pub(crate) fn with_schema(answer: Value, schema: &str) -> Value {
    let mut fields = serde_json::Map::new();
    fields.insert("schema".to_owned(), Value::from(schema));
    match answer {
        Value::Object(answer) => fields.extend(answer),
        other => {
            fields.insert("answer".to_owned(), other);
        }
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests;
