//! `POST /v1/ops` and `POST /v1/sessions`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use bytes::Bytes;
use data_encoding::BASE64;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tombolo_causality::{Stamp, Time};
use tombolo_codec::{Kind, Op, Reject, SessionToken, StampSource, Verb};

use super::problem::Problem;
use super::{App, body};
use crate::admission;
use crate::service::{Service, SessionRef, WriteRequest};

const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoFields {}

#[derive(Debug, Serialize)]
pub(super) struct SessionAnswer {
    session: String,
    home: String,
    numbers_max: usize,
    window_seconds: u64,
}

pub(super) async fn open_session<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<SessionAnswer>, Problem> {
    let caller = app.caller(&headers)?;
    let NoFields {} = body::json_or_default(&headers, body).await?;
    admission::check_ready(&app.service)?;
    let id = app.service.open_session(caller)?;
    let identity = app.service.identity();
    Ok(Json(SessionAnswer {
        session: SessionToken(id).encode(app.service.seal_key()),
        home: identity.name.clone(),
        numbers_max: identity.session_numbers_max,
        window_seconds: identity.window_seconds,
    }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpsBody {
    session: Option<SessionBody>,
    #[serde(default)]
    retry: bool,
    ops: Vec<OpBody>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionBody {
    id: String,
    number: u64,
    /// Nothing is settled below 0, nor below 1.
    #[serde(default)]
    settled: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum VerbName {
    Add,
    Set,
    Delete,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindName {
    Counter,
    Register,
}

/// All fields of all ops: a tagged enum would lose the line and column of what is wrong.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpBody {
    op: VerbName,
    key: String,
    delta: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    kind: Option<KindName>,
    stamp: Option<String>,
    expires_in_ms: Option<IgnoredAny>,
}

#[derive(Debug, Serialize)]
pub(super) struct OpsAnswer {
    token: String,
    region: String,
    durability: &'static str,
    replayed: bool,
    conditional: bool,
    stamps: Vec<Option<String>>,
}

pub(super) async fn write<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<OpsAnswer>, Problem> {
    let caller = app.caller(&headers)?;
    let service = &app.service;
    let body: OpsBody = body::json(&headers, body).await?;
    let named = idempotency_key(&headers)?;
    let session = match (body.session, named) {
        (None, None) => None,
        (None, Some(name)) => {
            // RESP producers have names of their own.
            let id = service.named_session(caller, &[b"idempotency-key:", name].concat());
            Some(SessionRef { id, number: 1, settled: 0 })
        }
        (Some(_), Some(_)) => {
            let text =
                "a request is known by its number in `session` or by its `Idempotency-Key`; send one of them";
            return Err(Problem::malformed(text.to_owned()));
        }
        (Some(place), None) => {
            let key = service.seal_key();
            Some(admission::open_session_ref(&place.id, place.number, place.settled, key)?)
        }
    };
    let ops = into_ops(body.ops, || service.draw())?;
    let request = WriteRequest { session, retry: body.retry, after: Time::ZERO, ops, wants_values: false };
    let written = admission::write(service, caller, request).await?;
    let identity = service.identity();
    Ok(Json(OpsAnswer {
        token: written.token.encode(service.seal_key()),
        region: identity.name.clone(),
        durability: identity.durability,
        replayed: written.replayed,
        conditional: written.conditional,
        stamps: written.stamps.iter().map(|stamp| stamp.map(|stamp| stamp.to_string())).collect(),
    }))
}

/// The name a request is to be known by, in this region and for the window.
///
/// Errors: `malformed`.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => Ok(Some(key.as_bytes())),
        _ => {
            let text = format!("one `Idempotency-Key` of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes, or none");
            Err(Problem::malformed(text))
        }
    }
}

/// The ops in a body of `POST /v1/ops`; `draw` gives 128 random bits for each stamp that is fixed here.
///
/// Errors: `malformed` and `not_supported`, with the place. Limits are checked by the admission path.
pub fn read_ops(body: &[u8], draw: impl FnMut() -> u128) -> Result<Vec<Op>, Reject> {
    let body: OpsBody = body::read(body).map_err(Reject::from)?;
    into_ops(body.ops, draw).map_err(Reject::from)
}

fn into_ops(bodies: Vec<OpBody>, mut draw: impl FnMut() -> u128) -> Result<Vec<Op>, Problem> {
    bodies.into_iter().enumerate().map(|(index, op)| op.into_op(index, &mut draw)).collect()
}

impl OpBody {
    fn into_op(mut self, index: usize, draw: impl FnOnce() -> u128) -> Result<Op, Problem> {
        if self.expires_in_ms.is_some() {
            let text =
                format!("ops[{index}]: `expires_in_ms` is not there yet; delete the key when it is due");
            return Err(Problem::not_supported(text));
        }
        let verb = match self.op {
            VerbName::Add => Verb::Add { delta: self.delta(index)? },
            VerbName::Set => {
                let value = self.value(index)?;
                Verb::Set { value, expires_at: None, stamp: self.stamp(index, draw)? }
            }
            VerbName::Delete => {
                let kind = self.kind.take().map(|kind| match kind {
                    KindName::Counter => Kind::Counter,
                    KindName::Register => Kind::Register,
                });
                Verb::Delete { kind, stamp: self.stamp(index, draw)? }
            }
        };
        self.check_spent(index)?;
        Ok(Op { key: Bytes::from(self.key), verb })
    }

    fn delta(&mut self, index: usize) -> Result<i64, Problem> {
        let example = "a decimal string within i64, such as \"5\" or \"-5\"";
        let Some(text) = self.delta.take() else {
            return Err(Problem::malformed(format!("ops[{index}]: an add needs `delta`, {example}")));
        };
        text.parse().map_err(|_| Problem::malformed(format!("ops[{index}]: `delta` is not {example}")))
    }

    fn value(&mut self, index: usize) -> Result<Bytes, Problem> {
        match (self.value.take(), self.value_base64.take()) {
            (Some(text), None) => Ok(Bytes::from(text)),
            (None, Some(text)) => match BASE64.decode(text.as_bytes()) {
                Ok(value) => Ok(Bytes::from(value)),
                Err(error) => {
                    Err(Problem::malformed(format!("ops[{index}]: `value_base64` is not base64: {error}")))
                }
            },
            _ => {
                let text = format!("ops[{index}]: a set needs either `value` or `value_base64`");
                Err(Problem::malformed(text))
            }
        }
    }

    fn stamp(&mut self, index: usize, draw: impl FnOnce() -> u128) -> Result<StampSource, Problem> {
        match self.stamp.take() {
            Some(text) => match text.parse::<Stamp>() {
                Ok(stamp) => Ok(StampSource::Fixed(stamp)),
                Err(error) => Err(Problem::malformed(format!("ops[{index}]: `stamp` is {error}"))),
            },
            None => Ok(StampSource::Here(draw())),
        }
    }

    /// Errors: `malformed` if a field is left that this op does not take.
    fn check_spent(&self, index: usize) -> Result<(), Problem> {
        let left = [
            ("delta", self.delta.is_some()),
            ("value", self.value.is_some()),
            ("value_base64", self.value_base64.is_some()),
            ("kind", self.kind.is_some()),
            ("stamp", self.stamp.is_some()),
        ];
        match left.iter().find(|(_, is_left)| *is_left) {
            None => Ok(()),
            Some((name, _)) => {
                let verb = match self.op {
                    VerbName::Add => "an add",
                    VerbName::Set => "a set",
                    VerbName::Delete => "a delete",
                };
                Err(Problem::malformed(format!("ops[{index}]: {verb} takes no `{name}`")))
            }
        }
    }
}
