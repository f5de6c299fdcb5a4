//! What each request of the SDK is answered with. Sealed text is opened and made here; nothing waits here but for the
//! region.

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tombolo_causality::Time;
use tombolo_codec::{
    ClientAnswer, ClientRequest, Op, Reject, RejectCode, SessionToken, WireOp, WriteDone, limits,
};
use tombolo_transport::Frame;

use crate::service::{Caller, Goal, ReadRequest, WriteRequest};
use crate::{DoorStats, Service, admission};

/// What the streams of a connection share.
#[derive(Debug)]
pub(super) struct Desk<S> {
    service: S,
    pub(super) stats: Arc<DoorStats>,
    /// Who is connected; said once.
    caller: OnceLock<Caller>,
}

impl<S: Service> Desk<S> {
    pub(super) fn new(service: S, stats: Arc<DoorStats>) -> Self {
        Self { service, stats, caller: OnceLock::new() }
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.caller.get().is_some()
    }

    /// The answer's frame.
    pub(super) async fn answer(self: Arc<Self>, kind: u8, id: u64, request: ClientRequest) -> Frame {
        let answer = self.outcome(request).await.unwrap_or_else(|reject| self.rejected(reject));
        let body = answer.encode(id);
        if body.len() <= limits::REQUEST_BYTES_MAX {
            return Frame::new(kind, body);
        }
        let text = format!(
            "the answer has {} bytes and the limit is {}; ask for fewer keys",
            body.len(),
            limits::REQUEST_BYTES_MAX
        );
        let answer = self.rejected(Reject::new(RejectCode::TooLarge, text));
        Frame::new(kind, answer.encode(id))
    }

    fn rejected(&self, reject: Reject) -> ClientAnswer {
        self.stats.count_reject(reject.code);
        ClientAnswer::Rejected(reject)
    }

    async fn outcome(&self, request: ClientRequest) -> Result<ClientAnswer, Reject> {
        let key = self.service.seal_key();
        match request {
            ClientRequest::Authenticate { token } => self.welcome(&token),
            ClientRequest::OpenSession => {
                let caller = self.caller()?;
                admission::check_ready(&self.service)?;
                let id = self.service.open_session(caller)?;
                let identity = self.service.identity();
                Ok(ClientAnswer::Session {
                    id: SessionToken(id).encode(key),
                    numbers_max: u32::try_from(identity.session_numbers_max).unwrap_or(u32::MAX),
                    window_seconds: identity.window_seconds,
                })
            }
            ClientRequest::Write { session, retry, after, ops } => {
                let caller = self.caller()?;
                let session = match session {
                    None => None,
                    Some((id, number, settled)) => {
                        Some(admission::open_session_ref(&id, number, settled, key)?)
                    }
                };
                let ops = self.ops(ops);
                let request = WriteRequest { session, retry, after, ops, wants_values: false };
                let written = admission::write(&self.service, caller, request).await?;
                Ok(ClientAnswer::Written(WriteDone {
                    token: written.token.encode(key),
                    replayed: written.replayed,
                    conditional: written.conditional,
                    stamps: written.stamps,
                }))
            }
            ClientRequest::Read { keys, after, timeout_ms } => {
                let caller = self.caller()?;
                let after = match after {
                    None => None,
                    Some(token) => Some(admission::open_token(&token, key)?),
                };
                let timeout = admission::check_timeout(timeout_ms)?;
                let keys = keys.into_iter().map(Bytes::from).collect();
                let request = ReadRequest { keys, after, timeout };
                Ok(ClientAnswer::Values(admission::read(&self.service, caller, request).await?))
            }
            ClientRequest::Await { token, scope, timeout_ms } => {
                self.caller()?;
                let token = admission::open_token(&token, key)?;
                let timeout = admission::check_timeout(timeout_ms)?;
                let awaited = admission::wait(&self.service, Goal::Token(token), scope, timeout).await?;
                Ok(ClientAnswer::Awaited {
                    reached: awaited.reached,
                    waited_us: u64::try_from(awaited.waited.as_micros()).unwrap_or(u64::MAX),
                    laggards: awaited.laggards,
                })
            }
        }
    }

    fn welcome(&self, token: &str) -> Result<ClientAnswer, Reject> {
        let caller = self.service.authenticate((!token.is_empty()).then_some(token))?;
        if *self.caller.get_or_init(|| caller) != caller {
            let text = "this connection has said who it is before; open another for another credential";
            return Err(Reject::new(RejectCode::Forbidden, text));
        }
        let identity = self.service.identity();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(ClientAnswer::Welcome {
            region: identity.region,
            name: identity.name.clone(),
            epoch: identity.epoch,
            shards_count: identity.shards_count,
            tenant: caller.tenant.0,
            clock: Time::from_unix_ns(now.as_nanos()),
        })
    }

    fn caller(&self) -> Result<Caller, Reject> {
        let text = "say first who asks: the first request of a connection is `Authenticate`";
        self.caller.get().copied().ok_or_else(|| Reject::new(RejectCode::Unauthenticated, text))
    }

    fn ops(&self, ops: Vec<WireOp>) -> Vec<Op> {
        let mut draw = || self.service.draw();
        ops.into_iter().map(|op| op.into_op(&mut draw)).collect()
    }
}
