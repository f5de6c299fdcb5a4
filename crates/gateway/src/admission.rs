//! The one path from a door to the region: limits first, then the [`Service`], each wait with a bound.
//!
//! It never looks at values or credentials. Every door calls [`write`], [`read`] and [`wait`]; none calls the service
//! past them.

use std::time::Duration;

use tokio::time::timeout;
use tombolo_causality::{RegionId, Time};
use tombolo_codec::{
    AwaitScope, Op, ReadValue, Reject, RejectCode, SealKey, SessionToken, StampSource, Token, Verb, limits,
};

use crate::Service;
use crate::service::{Awaited, Caller, Goal, ReadRequest, SessionRef, WriteRequest, Written};

/// The longest a door waits for the answer to a write; the region itself gives up earlier.
const WRITE_MAX: Duration = Duration::from_secs(60);
/// What a wait may take beyond its own deadline before the door answers in the region's place.
const SLACK: Duration = Duration::from_secs(5);
/// The longest a door waits for a report on the region.
const REPORT_MAX: Duration = Duration::from_secs(10);
/// When to come back to a region that still recovers.
const RECOVERY_RETRY_MS: u32 = 500;

/// Refuses while the region recovers.
///
/// Errors: `busy`.
pub(crate) fn check_ready(service: &impl Service) -> Result<(), Reject> {
    if service.is_ready() {
        return Ok(());
    }
    let text = "the region still reads its logs after a start; ask again";
    Err(Reject::new(RejectCode::Busy, text).retry_after_ms(RECOVERY_RETRY_MS))
}

fn too_large(text: String) -> Result<(), Reject> {
    Err(Reject::new(RejectCode::TooLarge, text))
}

/// Errors: `too_large`.
pub(crate) fn check_key(key: &[u8]) -> Result<(), Reject> {
    if key.len() > limits::KEY_BYTES_MAX {
        return too_large(format!("a key of {} bytes; the limit is {}", key.len(), limits::KEY_BYTES_MAX));
    }
    Ok(())
}

/// Errors: `too_large`.
pub(crate) fn check_value(value: &[u8]) -> Result<(), Reject> {
    if value.len() > limits::VALUE_BYTES_MAX {
        let text = format!("a value of {} bytes; the limit is {}", value.len(), limits::VALUE_BYTES_MAX);
        return too_large(text);
    }
    Ok(())
}

fn check_write(request: &WriteRequest) -> Result<(), Reject> {
    let ops = &request.ops;
    if ops.is_empty() {
        return Err(Reject::new(RejectCode::Malformed, "a request of no ops; send at least one"));
    }
    if ops.len() > limits::REQUEST_OPS_MAX {
        let text = format!("a request of {} ops; the limit is {}", ops.len(), limits::REQUEST_OPS_MAX);
        return too_large(text);
    }
    let mut bytes = 0;
    for (index, op) in ops.iter().enumerate() {
        check_key(&op.key)?;
        check_stamp(index, op)?;
        bytes += op.key.len();
        if let Verb::Set { value, .. } = &op.verb {
            check_value(value)?;
            bytes += value.len();
        }
    }
    if bytes > limits::REQUEST_BYTES_MAX {
        let limit = limits::REQUEST_BYTES_MAX;
        return too_large(format!("keys and values of {bytes} bytes in one request; the limit is {limit}"));
    }
    Ok(())
}

/// Errors: `malformed`.
fn check_stamp(index: usize, op: &Op) -> Result<(), Reject> {
    match &op.verb {
        Verb::Set { stamp: StampSource::Fixed(stamp), .. }
        | Verb::Delete { stamp: StampSource::Fixed(stamp), .. }
            if RegionId::new(stamp.region.get()).is_err() =>
        {
            let text = format!("ops[{index}]: the stamp names region {}, which cannot be", stamp.region);
            Err(Reject::new(RejectCode::Malformed, text))
        }
        _ => Ok(()),
    }
}

/// Errors: `too_large`.
pub(crate) fn check_keys(keys: &[bytes::Bytes]) -> Result<(), Reject> {
    if keys.len() > limits::READ_KEYS_MAX {
        let text = format!("a read of {} keys; the limit is {}", keys.len(), limits::READ_KEYS_MAX);
        return too_large(text);
    }
    keys.iter().try_for_each(|key| check_key(key))
}

/// A wait as a client asked for it.
///
/// Errors: `malformed` above the limit.
pub(crate) fn check_timeout(ms: u64) -> Result<Duration, Reject> {
    if ms > limits::AWAIT_MS_MAX {
        let text = format!("a timeout of {ms} ms; the limit is {}", limits::AWAIT_MS_MAX);
        return Err(Reject::new(RejectCode::Malformed, text));
    }
    Ok(Duration::from_millis(ms))
}

/// Errors: `unknown_region`, and `malformed` for a number that can never be reached.
fn check_scope(scope: &AwaitScope, known: &[String], members_count: usize) -> Result<(), Reject> {
    match scope {
        AwaitScope::All => Ok(()),
        AwaitScope::Named(names) => match names.iter().find(|name| !known.contains(name)) {
            None => Ok(()),
            Some(name) => {
                let known = known.join(", ");
                let text = format!("no region is called `{name}`; the regions are {known}");
                Err(Reject::new(RejectCode::UnknownRegion, text))
            }
        },
        AwaitScope::AtLeast(count) if (1..=members_count).contains(&usize::from(*count)) => Ok(()),
        AwaitScope::AtLeast(count) => {
            let text = format!("at least {count} regions can never be: ask for 1 to {members_count}");
            Err(Reject::new(RejectCode::Malformed, text))
        }
    }
}

/// A token from what a client sent.
///
/// Errors: `bad_token`.
pub(crate) fn open_token(text: &str, key: &SealKey) -> Result<Token, Reject> {
    Token::decode(text, key).map_err(|error| Reject::new(RejectCode::BadToken, error.to_string()))
}

/// A place in a session from what a client sent.
///
/// Errors: `bad_token`; `malformed` for the number 0.
pub(crate) fn open_session_ref(
    id: &str,
    number: u64,
    settled: u64,
    key: &SealKey,
) -> Result<SessionRef, Reject> {
    let SessionToken(id) = SessionToken::decode(id, key).map_err(|error| {
        Reject::new(RejectCode::BadToken, format!("the session id is not one of this cluster's: {error}"))
    })?;
    if number == 0 {
        return Err(Reject::new(RejectCode::Malformed, "a session numbers its requests 1, 2, 3…; 0 is none"));
    }
    Ok(SessionRef { id, number, settled })
}

/// Hands a write over.
///
/// It reaches the service in the first poll, so that polls in order are writes in order. Where the region does not
/// answer in time the outcome is unknown, and the error says so.
pub(crate) async fn write<S: Service>(
    service: &S,
    caller: Caller,
    request: WriteRequest,
) -> Result<Written, Reject> {
    check_ready(service)?;
    check_write(&request)?;
    timeout(WRITE_MAX, service.write(caller, request)).await.unwrap_or_else(|_| {
        let text = "the region gave no answer in time; in a session, ask again under the same number";
        Err(Reject::new(RejectCode::TimedOut, text).unknown())
    })
}

/// Reads, after the token if there is one.
pub(crate) async fn read<S: Service>(
    service: &S,
    caller: Caller,
    request: ReadRequest,
) -> Result<Vec<ReadValue>, Reject> {
    check_ready(service)?;
    check_keys(&request.keys)?;
    let keys_count = request.keys.len();
    let bound = request.timeout + SLACK;
    let values = bounded(bound, service.read(caller, request)).await??;
    assert_eq!(values.len(), keys_count, "a read answers each key");
    Ok(values)
}

/// Waits for a barrier.
pub(crate) async fn wait<S: Service>(
    service: &S,
    goal: Goal,
    scope: AwaitScope,
    patience: Duration,
) -> Result<Awaited, Reject> {
    check_ready(service)?;
    check_scope(&scope, &service.region_names(), service.members_count())?;
    bounded(patience + SLACK, service.wait(goal, scope, patience)).await?
}

/// Waits for a report on the region.
///
/// Errors: `timed_out`.
pub(crate) async fn report<T>(report: impl Future<Output = T>) -> Result<T, Reject> {
    bounded(REPORT_MAX, report).await
}

async fn bounded<T>(bound: Duration, answer: impl Future<Output = T>) -> Result<T, Reject> {
    let late = |_| Reject::new(RejectCode::TimedOut, "the region gave no answer in time; ask again");
    timeout(bound, answer).await.map_err(late)
}

/// A write outside any session, with stamps that are fixed here.
pub(crate) fn plain(ops: Vec<Op>, wants_values: bool) -> WriteRequest {
    WriteRequest { session: None, retry: false, after: Time::ZERO, ops, wants_values }
}
