//! Reads a JSON body: content type, size and time are bounded before anything is parsed.

use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tombolo_codec::{Reject, RejectCode, limits};

use super::problem::Problem;

/// How long a body may take to arrive.
const BODY_MAX: Duration = Duration::from_secs(30);
/// How much of a body that is too long is read away: a client that is still sending would else see a broken
/// connection in place of the answer.
const DISCARDED_BYTES_MAX: usize = 16 * limits::REQUEST_BYTES_MAX;

/// The body as a `T`; fields that `T` does not know are refused by `T`.
///
/// Errors: `malformed` with line and column, `too_large`, `timed_out`.
pub(super) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let bytes = bytes(headers, body).await?;
    parse(headers, &bytes)
}

/// As [`json`]; no body at all is `T`'s default.
pub(super) async fn json_or_default<T>(headers: &HeaderMap, body: Body) -> Result<T, Problem>
where
    T: DeserializeOwned + Default,
{
    let bytes = bytes(headers, body).await?;
    if bytes.is_empty() { Ok(T::default()) } else { parse(headers, &bytes) }
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Problem> {
    check_content_type(headers)?;
    read(bytes)
}

/// As [`json`], of bytes that are there.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::malformed(format!("the body is not what this route takes: {error}")))
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    // What `curl -d` says of any body unless told otherwise: the body is judged by what it is.
    let is_taken = ["application/json", "application/x-www-form-urlencoded"];
    if is_taken.iter().any(|taken| essence.eq_ignore_ascii_case(taken)) {
        return Ok(());
    }
    let text = format!("a body of type `{essence}`; send JSON with `Content-Type: application/json`");
    let reject = Reject::new(RejectCode::Malformed, text);
    Err(Problem::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, reject))
}

async fn bytes(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut stream = pin!(body.into_data_stream());
    let read = timeout(BODY_MAX, async {
        if announced.is_some_and(|length: usize| length > limits::REQUEST_BYTES_MAX) {
            // Who waits for leave to send has nothing to lose by an answer at once.
            if !headers.contains_key(header::EXPECT) {
                discard(stream.as_mut().get_mut()).await;
            }
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(announced.unwrap_or_default());
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| Problem::malformed(format!("the body broke off: {error}")))?;
            if bytes.len() + chunk.len() > limits::REQUEST_BYTES_MAX {
                discard(stream.as_mut().get_mut()).await;
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    });
    read.await.unwrap_or_else(|_| {
        let reject = Reject::new(RejectCode::TimedOut, "the body did not arrive in time");
        Err(Problem::with_status(StatusCode::REQUEST_TIMEOUT, reject))
    })
}

async fn discard(stream: &mut BodyDataStream) {
    let mut discarded = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        discarded += chunk.len();
        if discarded > DISCARDED_BYTES_MAX {
            return;
        }
    }
}

fn too_large() -> Problem {
    let text = format!("a body above the limit of {} bytes; split the request", limits::REQUEST_BYTES_MAX);
    Reject::new(RejectCode::TooLarge, text).into()
}
