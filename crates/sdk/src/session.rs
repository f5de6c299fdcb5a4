//! A session: its requests are numbered, so each counts once however often it has to be sent.
//!
//! Counters and registers are named through it. Numbers, stamps and retries are the driver's (`book.rs`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::oneshot;
use tombolo_causality::{Stamp, Time};
use tombolo_codec::{Kind, RejectCode, WireOp, WireVerb, limits};

use crate::client::{Ask, Client, Value};
use crate::error::{SdkError, refuse};
use crate::token::Token;
use crate::writer::Writer;

pub(crate) struct SessionShared {
    pub(crate) id: u64,
    seen: Mutex<Token>,
}

impl SessionShared {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, seen: Mutex::default() }
    }

    pub(crate) fn reached(&self, token: &Token) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).join(token);
    }

    fn token(&self) -> Token {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What an acknowledged write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What it reached.
    pub token: Token,
    /// Whether an earlier attempt had been logged before.
    pub replayed: bool,
    /// Whether it was logged conditionally, by a region that is not the session's authority.
    pub conditional: bool,
    /// The stamp of a set or delete.
    pub stamp: Option<Stamp>,
}

/// A client's numbered sequence of requests. Cheap to clone; clones share the sequence.
///
/// Reads through it see everything that was written through it.
#[derive(Clone)]
pub struct Session {
    client: Client,
    shared: Arc<SessionShared>,
}

impl Session {
    pub(crate) fn new(client: Client, shared: Arc<SessionShared>) -> Self {
        Self { client, shared }
    }

    /// The counter under a key.
    #[must_use]
    pub fn counter(&self, key: impl AsRef<[u8]>) -> Counter {
        Counter { session: self.clone(), key: key.as_ref().to_vec() }
    }

    /// The register under a key.
    #[must_use]
    pub fn register(&self, key: impl AsRef<[u8]>) -> Register {
        Register { session: self.clone(), key: key.as_ref().to_vec() }
    }

    /// A writer for many ops, with its own bound.
    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer::new(self.client.clone(), self.shared.clone())
    }

    /// Values of keys, in their order, at least as fresh as everything this session wrote.
    ///
    /// Errors: [`SdkError`]; nothing is ever applied by a read.
    pub async fn read(&self, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Value>, SdkError> {
        self.client.read(keys, Some(&self.shared.token())).await
    }

    /// All that this session has written and learnt of.
    #[must_use]
    pub fn token(&self) -> Token {
        self.shared.token()
    }

    async fn write(&self, key: &[u8], verb: WireVerb) -> Result<Written, SdkError> {
        let op = WireOp { key: key.to_vec(), verb };
        check_op(&op)?;
        let (reply, answer) = oneshot::channel();
        self.client.ask(Ask::Write { session: self.shared.clone(), op, reply }, answer).await
    }

    async fn value(&self, key: &[u8]) -> Result<Value, SdkError> {
        let values = self.read(&[key]).await?;
        values
            .into_iter()
            .next()
            .ok_or_else(|| SdkError::Unknown { text: "an answer without a value".into() })
    }
}

/// Limits of an op, checked before it is sent.
pub(crate) fn check_op(op: &WireOp) -> Result<(), SdkError> {
    check_key(&op.key)?;
    if let WireVerb::Set { value, .. } = &op.verb
        && value.len() > limits::VALUE_BYTES_MAX
    {
        let (found, limit) = (value.len(), limits::VALUE_BYTES_MAX);
        return Err(refuse(RejectCode::TooLarge, format!("a value of {found} bytes; the limit is {limit}")));
    }
    Ok(())
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), SdkError> {
    if key.len() > limits::KEY_BYTES_MAX {
        let (found, limit) = (key.len(), limits::KEY_BYTES_MAX);
        return Err(refuse(RejectCode::TooLarge, format!("a key of {found} bytes; the limit is {limit}")));
    }
    Ok(())
}

/// A number that goes up and down, in every region at once.
#[derive(Clone)]
pub struct Counter {
    session: Session,
    key: Vec<u8>,
}

impl Counter {
    /// Adds. Returns once it is durable in the region.
    ///
    /// Errors: [`SdkError`]; it was retried already.
    pub async fn incr(&self, amount: i64) -> Result<Written, SdkError> {
        self.session.write(&self.key, WireVerb::Add(amount)).await
    }

    /// Subtracts. Returns once it is durable in the region.
    ///
    /// Errors: as [`Counter::incr`]; `overflow` for an amount that has no opposite.
    pub async fn decr(&self, amount: i64) -> Result<Written, SdkError> {
        let delta = amount.checked_neg().ok_or_else(|| {
            refuse(RejectCode::Overflow, "the least i64 has no opposite; subtract in two steps")
        })?;
        self.incr(delta).await
    }

    /// The value; 0 where there is none. It may lie outside i64 after merges.
    ///
    /// Errors: [`SdkError`]; `wrong_type` where the key holds a register.
    pub async fn get(&self) -> Result<i128, SdkError> {
        match self.session.value(&self.key).await? {
            Value::Absent => Ok(0),
            Value::Counter(value) => Ok(value),
            Value::Register { .. } => Err(refuse(RejectCode::WrongType, "the key holds a register")),
        }
    }

    /// Starts over at zero: adds that this delete has seen are gone, in every region.
    ///
    /// Errors: as [`Counter::incr`].
    pub async fn delete(&self) -> Result<Written, SdkError> {
        let kind = Some(Kind::Counter);
        self.session.write(&self.key, WireVerb::Delete { kind, stamp: None }).await
    }
}

/// A value of which the last write wins, in every region.
#[derive(Clone)]
pub struct Register {
    session: Session,
    key: Vec<u8>,
}

impl Register {
    /// Writes. Returns once it is durable in the region.
    ///
    /// Errors: [`SdkError`]; it was retried already.
    pub async fn set(&self, value: impl Into<Vec<u8>>) -> Result<Written, SdkError> {
        let verb = WireVerb::Set { value: value.into(), expires_at: None, stamp: None };
        self.session.write(&self.key, verb).await
    }

    /// Writes a value that stops being visible after `ttl`, by this machine's clock.
    ///
    /// Errors: as [`Register::set`].
    pub async fn set_for(&self, value: impl Into<Vec<u8>>, ttl: Duration) -> Result<Written, SdkError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires_at = Some(Time::from_unix_ns(now.saturating_add(ttl).as_nanos()));
        let verb = WireVerb::Set { value: value.into(), expires_at, stamp: None };
        self.session.write(&self.key, verb).await
    }

    /// The value; none where there is none.
    ///
    /// Errors: [`SdkError`]; `wrong_type` where the key holds a counter.
    pub async fn get(&self) -> Result<Option<Bytes>, SdkError> {
        match self.session.value(&self.key).await? {
            Value::Absent => Ok(None),
            Value::Register { value, .. } => Ok(Some(value)),
            Value::Counter(_) => Err(refuse(RejectCode::WrongType, "the key holds a counter")),
        }
    }

    /// Deletes. Returns once it is durable in the region.
    ///
    /// Errors: as [`Register::set`].
    pub async fn delete(&self) -> Result<Written, SdkError> {
        let kind = Some(Kind::Register);
        self.session.write(&self.key, WireVerb::Delete { kind, stamp: None }).await
    }
}
