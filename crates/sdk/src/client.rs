//! The client: what applications hold. It hands requests to the driver (`driver.rs`) and waits for their answers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tombolo_causality::{Router, ShardId, Stamp, TenantId};
use tombolo_codec::{AwaitScope, ClientAnswer, Laggard, RejectCode, WireOp, limits};

use crate::book::Book;
use crate::buffer::Buffer;
use crate::dial::Dialer;
use crate::driver::Driver;
use crate::error::{SdkError, refuse};
use crate::options::Options;
use crate::session::{Session, SessionShared, Written, check_key};
use crate::token::{Part, Token};

/// Requests on their way to the driver; more make their callers wait.
const ASKS_MAX: usize = 256;
/// What an answer may take beyond a barrier's own timeout.
const AWAIT_SLACK: Duration = Duration::from_secs(5);

/// A value as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing visible.
    Absent,
    /// A counter; it may lie outside i64 after merges.
    Counter(i128),
    /// A register.
    Register {
        /// The value.
        value: Bytes,
        /// Its stamp.
        stamp: Stamp,
    },
}

/// Which regions a barrier waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every declared region.
    All,
    /// These, by name.
    Named(Vec<String>),
    /// Any this many, the one that answers included.
    AtLeast(u16),
}

/// A barrier's answer. Not reaching it in time is an answer too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// Whether everything is durable and visible in every region of the scope.
    pub reached: bool,
    /// How long it took.
    pub waited: Duration,
    /// Regions that were not reached, each with a reason.
    pub laggards: Vec<Laggard>,
}

/// What handles ask of the driver.
pub(crate) enum Ask {
    Open { session: Weak<SessionShared>, id: u64, reply: oneshot::Sender<Result<(), SdkError>> },
    Write { session: Arc<SessionShared>, op: WireOp, reply: oneshot::Sender<Result<Written, SdkError>> },
    Read { keys: Vec<Vec<u8>>, after: Option<String>, reply: oneshot::Sender<Result<Vec<Value>, SdkError>> },
    Await(AwaitAsk),
}

pub(crate) struct AwaitAsk {
    pub(crate) token: String,
    pub(crate) scope: Scope,
    pub(crate) until: Instant,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<Awaited, SdkError>>,
}

impl Scope {
    pub(crate) fn on_the_wire(&self) -> AwaitScope {
        match self {
            Self::All => AwaitScope::All,
            Self::Named(names) => AwaitScope::Named(names.clone()),
            Self::AtLeast(count) => AwaitScope::AtLeast(*count),
        }
    }
}

/// What the handles and the driver share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    router: Router,
    tenant: TenantId,
    /// The name of the region it is connected to, or was last.
    region: Mutex<String>,
    next_session: AtomicU64,
    pub(crate) is_closed: AtomicBool,
    /// Buffers with runs to send, each at most once.
    listed: Mutex<Vec<Arc<Buffer>>>,
    /// Rung when a buffer is listed, or the client is closed.
    pub(crate) bell: Notify,
    buffers: Mutex<Vec<Weak<Buffer>>>,
}

impl Shared {
    pub(crate) fn shard(&self, key: &[u8]) -> ShardId {
        self.router.shard(self.tenant, key)
    }

    /// Takes note of the region at the other end.
    ///
    /// Errors: why it cannot be one of the same cluster, for the same tenant.
    pub(crate) fn arrived(&self, welcome: &ClientAnswer) -> Result<(), String> {
        let ClientAnswer::Welcome { name, shards_count, tenant, .. } = welcome else {
            return Err("the region did not say welcome".into());
        };
        if (*shards_count, TenantId(*tenant)) != (self.router.shards_count(), self.tenant) {
            return Err(format!("`{name}` has other shards or another tenant for this token"));
        }
        self.region.lock().unwrap_or_else(PoisonError::into_inner).clone_from(name);
        Ok(())
    }

    pub(crate) fn tell(&self, buffer: Arc<Buffer>) {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        self.bell.notify_one();
    }

    pub(crate) fn take_listed(&self) -> Vec<Arc<Buffer>> {
        std::mem::take(&mut *self.listed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn new_buffer(&self, session: Arc<SessionShared>) -> Arc<Buffer> {
        let buffer = Arc::new(Buffer::new(session, self.options.writer, self.router.shards_count()));
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.retain(|buffer| buffer.strong_count() > 0);
        buffers.push(Arc::downgrade(&buffer));
        drop(buffers);
        // After the registration: a driver that ended in between has either seen the buffer or left the mark.
        if self.is_closed.load(Ordering::SeqCst) {
            buffer.close();
        }
        buffer
    }

    pub(crate) fn close_buffers(&self) {
        let buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.iter().filter_map(Weak::upgrade).for_each(|buffer| buffer.close());
    }
}

/// A connection to the first region that answers, which mends itself. Cheap to clone; all clones share it.
///
/// One task owns the connection. A region that closes it, or owes answers and stays silent
/// ([`Options::failover_after`]), is left for the next one. Requests that are not answered by then are sent again there,
/// under their session, number and stamps, until their deadline; new ones go to a new session. Once an earlier region
/// answers again the client goes back, when no write is under way.
#[derive(Clone)]
pub struct Client {
    asks: mpsc::Sender<Ask>,
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
}

impl Client {
    /// Connects and proves who it is: to the preferred region, or to another one if that does not answer.
    ///
    /// Errors: [`SdkError::Unreachable`] after the connect deadline, [`SdkError::Rejected`] for a wrong token,
    /// [`SdkError::Setup`] for a CA that cannot be used.
    pub async fn connect(options: Options) -> Result<Self, SdkError> {
        let dialer = Dialer::new(&options)?;
        let (at, link) = dialer.first(options.connect_deadline, options.failover_after).await?;
        let ClientAnswer::Welcome { shards_count, tenant, name, .. } = &link.welcome else {
            return Err(SdkError::Unknown { text: "the region did not say welcome".into() });
        };
        let router =
            Router::new(*shards_count).map_err(|error| SdkError::Setup { text: error.to_string() })?;
        let shared = Arc::new(Shared {
            router,
            tenant: TenantId(*tenant),
            region: Mutex::new(name.clone()),
            next_session: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            listed: Mutex::default(),
            bell: Notify::new(),
            buffers: Mutex::default(),
            options,
        });
        let (asks, inbox) = mpsc::channel(ASKS_MAX);
        let (end, ended) = watch::channel(false);
        let book = Book::new(&shared.options);
        tokio::spawn(Driver::new(shared.clone(), inbox, book, dialer, end).run(at, link));
        Ok(Self { asks, shared, ended })
    }

    /// The name of the region that the client is connected to, or was last.
    #[must_use]
    pub fn region(&self) -> String {
        self.shared.region.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens a session homed in the region.
    ///
    /// Errors: [`SdkError`].
    pub async fn session(&self) -> Result<Session, SdkError> {
        let id = self.shared.next_session.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(SessionShared::new(id));
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Open { session: Arc::downgrade(&session), id, reply }, answer).await?;
        Ok(Session::new(self.clone(), session))
    }

    /// Values of keys, in their order, once the region covers `after`; one consistent view per shard.
    ///
    /// Errors: [`SdkError`]; `not_yet` if the region does not cover the token within the client's deadline.
    pub async fn read(
        &self,
        keys: &[impl AsRef<[u8]>],
        after: Option<&Token>,
    ) -> Result<Vec<Value>, SdkError> {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.as_ref().to_vec()).collect();
        keys.iter().try_for_each(|key| check_key(key))?;
        if keys.len() > limits::READ_KEYS_MAX {
            let text = format!("a read of {} keys; the limit is {}", keys.len(), limits::READ_KEYS_MAX);
            return Err(refuse(RejectCode::TooLarge, text));
        }
        let parts = after.map(Token::parts).unwrap_or_default();
        if let [] | [_] = parts {
            return self.read_after(keys, parts.first()).await;
        }
        self.read_by_shard(keys, after.expect("parts are of a token")).await
    }

    async fn read_after(&self, keys: Vec<Vec<u8>>, after: Option<&Part>) -> Result<Vec<Value>, SdkError> {
        let (reply, answer) = oneshot::channel();
        let after = after.map(|part| part.text.to_string());
        self.ask(Ask::Read { keys, after, reply }, answer).await
    }

    /// A request names one token: each shard's keys are asked for after the tokens that say something about it.
    async fn read_by_shard(&self, keys: Vec<Vec<u8>>, after: &Token) -> Result<Vec<Value>, SdkError> {
        let mut places: Vec<(ShardId, usize)> =
            keys.iter().enumerate().map(|(at, key)| (self.shared.shard(key), at)).collect();
        places.sort_unstable();
        let mut values = vec![Value::Absent; keys.len()];
        let mut waiting = Vec::new();
        for group in places.chunk_by(|a, b| a.0 == b.0) {
            let mut parts = after.of_shard(group[0].0).peekable();
            let mut last = None;
            while let Some(part) = parts.next() {
                if parts.peek().is_none() {
                    last = Some(part);
                } else {
                    self.read_after(Vec::new(), Some(part)).await?;
                }
            }
            let (reply, answer) = oneshot::channel();
            let keys = group.iter().map(|&(_, at)| keys[at].clone()).collect();
            let after = last.map(|part| part.text.to_string());
            self.send(Ask::Read { keys, after, reply }).await?;
            waiting.push((group, answer));
        }
        for (group, answer) in waiting {
            let found = answer.await.map_err(|_| driver_ended())??;
            for (&(_, at), value) in group.iter().zip(found) {
                values[at] = value;
            }
        }
        Ok(values)
    }

    /// Waits until all that a token names is durable and visible in the regions of the scope, at most `timeout`.
    ///
    /// Errors: [`SdkError`]; a timeout is none.
    pub async fn wait(&self, token: &Token, scope: Scope, timeout: Duration) -> Result<Awaited, SdkError> {
        let timeout = timeout.min(Duration::from_millis(limits::AWAIT_MS_MAX));
        let until = Instant::now() + timeout;
        let mut waiting = Vec::new();
        for text in token.texts() {
            let (reply, answer) = oneshot::channel();
            let (token, scope) = (text.to_owned(), scope.clone());
            let deadline = until + AWAIT_SLACK;
            self.send(Ask::Await(AwaitAsk { token, scope, until, deadline, reply })).await?;
            waiting.push(answer);
        }
        let mut whole = Awaited { reached: true, waited: Duration::ZERO, laggards: Vec::new() };
        for answer in waiting {
            let part = answer.await.map_err(|_| driver_ended())??;
            whole.reached &= part.reached;
            whole.waited = whole.waited.max(part.waited);
            for laggard in part.laggards {
                match whole.laggards.iter_mut().find(|known| known.region == laggard.region) {
                    Some(known) => known.behind_ops += laggard.behind_ops,
                    None => whole.laggards.push(laggard),
                }
            }
        }
        Ok(whole)
    }

    /// Takes no more requests, waits until those under way are answered or given up, and ends the connection.
    pub async fn close(&self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.shared.bell.notify_one();
        let mut ended = self.ended.clone();
        // An error means that the driver is gone, which is what is waited for.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    async fn send(&self, ask: Ask) -> Result<(), SdkError> {
        if self.shared.is_closed.load(Ordering::SeqCst) {
            return Err(SdkError::Closed);
        }
        self.asks.send(ask).await.map_err(|_| SdkError::Closed)
    }

    pub(crate) async fn ask<T>(
        &self,
        ask: Ask,
        answer: oneshot::Receiver<Result<T, SdkError>>,
    ) -> Result<T, SdkError> {
        self.send(ask).await?;
        answer.await.map_err(|_| driver_ended())?
    }
}

fn driver_ended() -> SdkError {
    SdkError::Unknown { text: "the client ended before an answer came".into() }
}
