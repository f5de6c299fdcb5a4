//! A request that is not answered: what it is, how often it was tried, and how its caller is told the end.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tombolo_causality::ShardId;
use tombolo_codec::{Applied, ClientRequest, Reject, RejectCode, WireOp, decode_request};

use crate::buffer::{Buffer, Outcome};
use crate::client::{AwaitAsk, Scope, Value};
use crate::error::SdkError;
use crate::session::{SessionShared, Written};
use crate::token::Token;

/// Its place in a session of the region: which one (by the book's number for it), and the request's number there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) wire: u64,
    pub(crate) number: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Waits to be sent.
    Ready,
    /// Sent on the present connection, or on one that is gone, and not answered.
    Sent(Instant),
    /// Refused for a while.
    Resting(Instant),
}

pub(crate) enum Body {
    /// Never encoded so far; stamps are not fixed.
    Ops(Vec<WireOp>),
    /// As it was sent last; stamps are fixed.
    Encoded(Bytes),
    Read {
        keys: Vec<Vec<u8>>,
        after: Option<String>,
    },
    Await {
        token: String,
        scope: Scope,
        until: Instant,
    },
    Open,
}

pub(crate) enum Reply {
    One { session: Arc<SessionShared>, reply: oneshot::Sender<Result<Written, SdkError>> },
    Run { buffer: Arc<Buffer>, shard: ShardId, ops_count: usize },
    Read(oneshot::Sender<Result<Vec<Value>, SdkError>>),
    Await(oneshot::Sender<Result<crate::client::Awaited, SdkError>>),
    Open { handle: u64, reply: Option<oneshot::Sender<Result<(), SdkError>>> },
}

pub(crate) struct Entry {
    pub(crate) body: Body,
    pub(crate) reply: Reply,
    /// What it counts against the bounds.
    pub(crate) bytes: usize,
    pub(crate) deadline: Instant,
    pub(crate) state: State,
    /// How often it was sent under its present number.
    pub(crate) attempts: u32,
    /// How often it got a new number.
    pub(crate) renumbered: u32,
    /// Whether it says that it is a retry even when its number is new.
    pub(crate) is_retry: bool,
    /// Whether an attempt was never answered: whatever later attempts are told, that one may have been applied.
    pub(crate) is_lost: bool,
    pub(crate) last_reject: Option<Reject>,
    pub(crate) place: Option<Place>,
}

impl Entry {
    pub(crate) fn new(body: Body, reply: Reply, bytes: usize, deadline: Instant) -> Self {
        Self {
            body,
            reply,
            bytes,
            deadline,
            state: State::Ready,
            attempts: 0,
            renumbered: 0,
            is_retry: false,
            is_lost: false,
            last_reject: None,
            place: None,
        }
    }

    pub(crate) fn from_await(ask: AwaitAsk) -> Self {
        let body = Body::Await { token: ask.token, scope: ask.scope, until: ask.until };
        Self::new(body, Reply::Await(ask.reply), 0, ask.deadline)
    }

    pub(crate) fn is_write(&self) -> bool {
        matches!(self.reply, Reply::One { .. } | Reply::Run { .. })
    }

    pub(crate) fn is_barrier(&self) -> bool {
        matches!(self.body, Body::Await { .. })
    }

    /// Whether the region answers it without waiting for others.
    pub(crate) fn is_answered_soon(&self) -> bool {
        !matches!(self.body, Body::Await { .. } | Body::Read { after: Some(_), .. })
    }

    pub(crate) fn session(&self) -> Option<&Arc<SessionShared>> {
        match &self.reply {
            Reply::One { session, .. } => Some(session),
            Reply::Run { buffer, .. } => Some(&buffer.session),
            _ => None,
        }
    }

    /// The ops of a write, with the stamps they were sent with.
    pub(crate) fn ops(&self) -> Vec<WireOp> {
        match &self.body {
            Body::Ops(ops) => ops.clone(),
            Body::Encoded(body) => match decode_request(body) {
                Ok((_, ClientRequest::Write { ops, .. })) => ops,
                _ => unreachable!("what was encoded here is a write"),
            },
            Body::Read { .. } | Body::Await { .. } | Body::Open => Vec::new(),
        }
    }

    /// Tells a writer that a run of it was logged. Says whether the writer has more to send.
    pub(crate) fn accept_run(self, token: Token, is_conditional: bool) -> Option<Arc<Buffer>> {
        let Reply::Run { buffer, shard, ops_count } = self.reply else { return None };
        buffer.session.reached(&token);
        let outcome = Outcome::Accepted { token, is_conditional };
        buffer.settle(shard, ops_count, self.bytes, outcome).then_some(buffer)
    }

    /// Tells the caller that it was refused for good. Says whether a writer has more to send.
    pub(crate) fn refuse(self, reject: Reject) -> Option<Arc<Buffer>> {
        let doubtful = self.is_write() && self.is_lost && reject.applied == Applied::No;
        let reject = if doubtful { reject.unknown() } else { reject };
        self.fail(SdkError::Rejected(reject))
    }

    /// Tells the caller what is known when its time is up.
    pub(crate) fn give_up(self, addresses: &str, trouble: Option<&str>) -> Option<Arc<Buffer>> {
        let is_open = self.is_lost || matches!(self.state, State::Sent(_));
        let error = match (&self.last_reject, trouble) {
            _ if self.is_write() && is_open => {
                let last = self.last_reject.as_ref().map(ToString::to_string);
                let last = last.or(trouble.map(str::to_owned)).unwrap_or_default();
                SdkError::Unknown { text: format!("no answer within the deadline; {last}") }
            }
            (Some(reject), _) => SdkError::Rejected(reject.clone()),
            (None, Some(trouble)) => {
                SdkError::Unreachable { address: addresses.to_owned(), text: trouble.to_owned() }
            }
            (None, None) => {
                let text = "no answer within the deadline";
                SdkError::Rejected(Reject::new(RejectCode::TimedOut, text))
            }
        };
        self.fail(error)
    }

    /// Tells the caller. A caller that is gone has stopped waiting. Says whether a writer has more to send.
    pub(crate) fn fail(self, error: SdkError) -> Option<Arc<Buffer>> {
        let ops = if matches!(self.reply, Reply::Run { .. }) { self.ops() } else { Vec::new() };
        match self.reply {
            Reply::One { reply, .. } => drop(reply.send(Err(error))),
            Reply::Read(reply) => drop(reply.send(Err(error))),
            Reply::Await(reply) => drop(reply.send(Err(error))),
            Reply::Open { reply: Some(reply), .. } => drop(reply.send(Err(error))),
            Reply::Open { reply: None, .. } => {}
            Reply::Run { buffer, shard, ops_count } => {
                let keys = ops.into_iter().map(|op| op.key).collect();
                let outcome = match error {
                    SdkError::Rejected(reject) if reject.applied == Applied::No => {
                        Outcome::Rejected(keys, reject)
                    }
                    error if error.applied() == Applied::No => {
                        Outcome::Rejected(keys, Reject::new(RejectCode::TimedOut, error.to_string()))
                    }
                    error => Outcome::Unknown(keys, error.to_string()),
                };
                if buffer.settle(shard, ops_count, self.bytes, outcome) {
                    return Some(buffer);
                }
            }
        }
        None
    }
}
