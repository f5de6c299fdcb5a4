//! `GET /v1/keys/{key}` and `POST /v1/read`.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use tombolo_codec::{Kind, ReadValue, Reject, RejectCode, Token};

use super::problem::Problem;
use super::{App, body};
use crate::admission;
use crate::service::{ReadRequest, Service};

/// How long a read waits for `Tombolo-After` where the caller does not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// Text where it is text, base64 where it is not.
#[derive(Debug, Serialize)]
pub(super) struct KeyAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    /// `null` where nothing is visible.
    kind: Option<&'static str>,
    /// `null` where nothing is visible or the value is not text.
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    stamp: Option<String>,
}

impl KeyAnswer {
    fn new(key: Vec<u8>, value: ReadValue) -> Self {
        let (key, key_base64) = text_or_base64(key);
        let (kind, (value, value_base64), stamp) = match value {
            ReadValue::Absent => (None, (None, None), None),
            ReadValue::Counter(value) => (Some(Kind::Counter.name()), (Some(value.to_string()), None), None),
            ReadValue::Register { value, stamp } => {
                (Some(Kind::Register.name()), text_or_base64(value), Some(stamp.to_string()))
            }
        };
        Self { key, key_base64, kind, value, value_base64, stamp }
    }
}

fn text_or_base64(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64.encode(error.as_bytes()))),
    }
}

pub(super) async fn get<S: Service>(
    State(app): State<App<S>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<KeyAnswer>, Problem> {
    let caller = app.caller(&headers)?;
    let raw = uri.path().strip_prefix("/v1/keys/").expect("the route has this prefix");
    let key = percent_decoded(raw).ok_or_else(|| {
        Problem::malformed("the key in the path has a `%` that is not followed by two hexadecimal digits")
    })?;
    let (after, timeout) = waiting(&app.service, &headers)?;
    let request = ReadRequest { keys: vec![Bytes::copy_from_slice(&key)], after, timeout };
    let mut values = admission::read(&app.service, caller, request).await?;
    match values.pop().expect("a read answers each key") {
        ReadValue::Absent => {
            Err(Reject::new(RejectCode::NotFound, "nothing is visible under this key").into())
        }
        value => Ok(Json(KeyAnswer::new(key, value))),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadBody {
    keys: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ReadAnswer {
    values: Vec<KeyAnswer>,
}

pub(super) async fn read<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ReadAnswer>, Problem> {
    let caller = app.caller(&headers)?;
    let ReadBody { keys } = body::json(&headers, body).await?;
    let keys: Vec<Bytes> = keys.into_iter().map(Bytes::from).collect();
    let (after, timeout) = waiting(&app.service, &headers)?;
    let request = ReadRequest { keys: keys.clone(), after, timeout };
    let values = admission::read(&app.service, caller, request).await?;
    let answers = keys.iter().zip(values).map(|(key, value)| KeyAnswer::new(key.to_vec(), value));
    Ok(Json(ReadAnswer { values: answers.collect() }))
}

/// From the headers `Tombolo-After` and `Tombolo-Timeout-Ms`.
fn waiting(service: &impl Service, headers: &HeaderMap) -> Result<(Option<Token>, Duration), Problem> {
    let text = |name| match headers.get(name) {
        None => Ok(None),
        Some(value) => match value.to_str() {
            Ok(text) => Ok(Some(text.trim())),
            Err(_) => Err(Problem::malformed(format!("the header `{name}` is not plain text"))),
        },
    };
    let after = match text("tombolo-after")? {
        None => None,
        Some(token) => Some(admission::open_token(token, service.seal_key())?),
    };
    let timeout = match text("tombolo-timeout-ms")? {
        None => TIMEOUT_DEFAULT,
        Some(ms) => {
            let ms = ms.parse().map_err(|_| {
                Problem::malformed("the header `Tombolo-Timeout-Ms` is not a number of milliseconds")
            })?;
            admission::check_timeout(ms)?
        }
    };
    Ok((after, timeout))
}

/// Source: RFC 3986, section 2.1. `+` is itself: this is a path, not a form.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let (digits, tail) = tail.split_first_chunk::<2>()?;
            out.push(u8::try_from(hex(digits[0])? * 16 + hex(digits[1])?).ok()?);
            rest = tail;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    Some(out)
}

fn hex(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_decodes_to_any_bytes_and_a_broken_one_is_refused() {
        assert_eq!(percent_decoded("views%3A1%2fa+b").unwrap(), b"views:1/a+b");
        assert_eq!(percent_decoded("%00%ff").unwrap(), [0, 255]);
        for broken in ["%", "%1", "a%zz", "%+1", "%1"] {
            assert_eq!(percent_decoded(broken), None, "{broken}");
        }
    }
}
