//! One client's side of the RESP door: what its connection remembers, and its requests run in runs.
//!
//! Consecutive writes of a pipeline go to the region as one request, and so do consecutive reads; replies keep the
//! order of the requests. It never touches the socket: requests in, bytes in [`ReplyWriter`] out. Start at
//! [`Client::take`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::vec::IntoIter;

use bytes::Bytes;
use tombolo_causality::SessionId;
use tombolo_codec::{
    Applied, AwaitScope, Op, ReadValue, Reject, RejectCode, SessionToken, TokenError, limits,
};

use super::command::{self, Command, Read, Refusal, Write};
use super::request::ProtocolError;
use super::transaction::Transaction;
use super::write_mark::WriteMark;
use super::{Protocol, ReplyWriter};
use crate::service::{Caller, Goal, ReadRequest, SessionRef, WriteRequest};
use crate::{DoorStats, Service, admission};

/// Most ops of a run.
const RUN_OPS_MAX: usize = 1_024;
/// Keys and values of a run of writes; half of what one request may hold.
const RUN_BYTES_MAX: usize = limits::REQUEST_BYTES_MAX / 2;
/// Most keys of a run of reads; each may bring a value of the greatest length.
const RUN_KEYS_MAX: usize = 128;
/// How long a read waits for the connection's own writes to become visible.
const OWN_WRITES_MAX: Duration = Duration::from_secs(5);

/// What a connection is called.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) id: i64,
    pub(super) remote: SocketAddr,
    pub(super) name: Bytes,
}

/// A connection's state.
#[derive(Debug)]
pub(super) struct Client<S> {
    /// What is not yet sent.
    pub(super) replies: ReplyWriter,
    /// Set once nothing more is read: what is in `replies` is the last.
    pub(super) is_closing: bool,
    /// How many runs were answered.
    pub(super) runs_count: u64,
    pub(super) service: S,
    pub(super) stats: Arc<DoorStats>,
    pub(super) who: Who,
    pub(super) transaction: Option<Transaction>,
    caller: Option<Caller>,
    mark: WriteMark,
    writes: Vec<Write>,
    writes_ops: usize,
    writes_bytes: usize,
    reads: Vec<Read>,
    reads_keys: usize,
}

impl<S: Service> Client<S> {
    pub(super) fn new(service: S, stats: Arc<DoorStats>, id: i64, remote: SocketAddr) -> Self {
        // Where the region asks for no credential, the connection begins authenticated.
        let caller = service.authenticate(None).ok();
        Self {
            replies: ReplyWriter::new(),
            is_closing: false,
            runs_count: 0,
            service,
            stats,
            who: Who { id, remote, name: Bytes::new() },
            transaction: None,
            caller,
            mark: WriteMark::default(),
            writes: Vec::new(),
            writes_ops: 0,
            writes_bytes: 0,
            reads: Vec::new(),
            reads_keys: 0,
        }
    }

    /// Whether a request may take much longer than a write: whoever asked may go away meanwhile.
    pub(super) fn may_wait_long(args: &[Bytes]) -> bool {
        args.first().is_some_and(|name| command::is(name, "wait") || command::is(name, "waitaof"))
    }

    /// Takes a request in. A write or read may stay in a run until [`settle`](Self::settle).
    pub(super) async fn take(&mut self, args: Vec<Bytes>) {
        self.stats.count_request();
        let bytes = args.iter().map(Bytes::len).sum();
        let parsed = command::parse(args);
        if self.caller.is_none() && !is_open_to_all(&parsed) {
            let reject = Reject::new(RejectCode::Unauthenticated, "Authentication required.");
            return self.reject(&reject);
        }
        match parsed {
            Err(refusal) => {
                self.settle().await;
                if let Some(transaction) = &mut self.transaction {
                    transaction.is_broken = true;
                }
                self.refuse(&refusal);
            }
            Ok(command) if self.transaction.is_some() => self.queue(command, bytes).await,
            Ok(Command::Write(write)) => self.add_write(write).await,
            Ok(Command::Read(read)) => self.add_read(read).await,
            Ok(command) => {
                self.settle().await;
                self.perform(command).await;
            }
        }
    }

    /// Runs what is waiting in a run.
    pub(super) async fn settle(&mut self) {
        self.run_writes().await;
        self.run_reads().await;
    }

    /// The last reply of a connection whose bytes are not RESP.
    pub(super) fn break_off(&mut self, error: &ProtocolError) {
        self.count_error(RejectCode::Malformed);
        self.replies.error("ERR", &format!("Protocol error: {error}"));
        self.is_closing = true;
    }

    async fn add_write(&mut self, write: Write) {
        self.run_reads().await;
        let (ops, bytes) = (write.ops_count(), write.bytes());
        if self.writes_ops + ops > RUN_OPS_MAX || self.writes_bytes + bytes > RUN_BYTES_MAX {
            self.run_writes().await;
        }
        self.writes_ops += ops;
        self.writes_bytes += bytes;
        self.writes.push(write);
    }

    async fn add_read(&mut self, read: Read) {
        self.run_writes().await;
        let keys = read.keys().len();
        if self.reads_keys + keys > RUN_KEYS_MAX {
            self.run_reads().await;
        }
        self.reads_keys += keys;
        self.reads.push(read);
    }

    async fn run_writes(&mut self) {
        if self.writes.is_empty() {
            return;
        }
        let run = std::mem::take(&mut self.writes);
        (self.writes_ops, self.writes_bytes) = (0, 0);
        self.runs_count += 1;
        match self.write_all(&run).await {
            Ok(()) => {}
            Err(reject) if run.len() > 1 && may_concern_one_op(&reject) => {
                // Nothing of the run was applied, so each request can be told its own outcome.
                for write in &run {
                    if let Err(reject) = self.write_all(std::slice::from_ref(write)).await {
                        self.reject(&reject);
                    }
                }
            }
            Err(reject) => run.iter().for_each(|_| self.reject(&reject)),
        }
    }

    async fn run_reads(&mut self) {
        if self.reads.is_empty() {
            return;
        }
        let run = std::mem::take(&mut self.reads);
        self.reads_keys = 0;
        self.runs_count += 1;
        match self.read_all(&run).await {
            Ok(()) => {}
            Err(reject) if run.len() > 1 && may_concern_one_op(&reject) => {
                for read in &run {
                    if let Err(reject) = self.read_all(std::slice::from_ref(read)).await {
                        self.reject(&reject);
                    }
                }
            }
            Err(reject) => run.iter().for_each(|_| self.reject(&reject)),
        }
    }

    async fn write_all(&mut self, run: &[Write]) -> Result<(), Reject> {
        let mut values = self.hand_over(run.iter()).await?;
        run.iter().for_each(|write| self.reply_to_write(write, &mut values));
        Ok(())
    }

    async fn read_all(&mut self, run: &[Read]) -> Result<(), Reject> {
        let mut values = self.read_values(run.iter()).await?;
        run.iter().for_each(|read| self.reply_to_read(read, &mut values));
        Ok(())
    }

    /// Writes in one request; gives a value for each op.
    pub(super) async fn hand_over(
        &mut self,
        writes: impl Iterator<Item = &Write>,
    ) -> Result<IntoIter<Option<i128>>, Reject> {
        let caller = self.caller()?;
        let mut ops: Vec<Op> = Vec::new();
        let mut wants_values = false;
        for write in writes {
            wants_values |= !matches!(write, Write::Set { .. });
            write.push_ops(|| self.service.draw(), &mut ops);
        }
        let ops_count = ops.len();
        let request = admission::plain(ops, wants_values);
        let mut written = admission::write(&self.service, caller, request).await?;
        self.mark.absorb(&written.token);
        written.values.resize(ops_count, None);
        Ok(written.values.into_iter())
    }

    /// A write that counts once. One that had counted before is answered `DUPLICATE`: its value is not kept.
    async fn write_once(
        &mut self,
        write: &Write,
        producer: &[u8],
        number: u64,
        settled: u64,
    ) -> Result<(), Reject> {
        let caller = self.caller()?;
        let id = match self.session_of(producer)? {
            Some(id) => id,
            None => self.service.named_session(caller, producer),
        };
        let mut ops: Vec<Op> = Vec::new();
        write.push_ops(|| self.service.draw(), &mut ops);
        let session = Some(SessionRef { id, number, settled });
        let request = WriteRequest { session, ..admission::plain(ops, true) };
        let written = admission::write(&self.service, caller, request).await?;
        self.mark.absorb(&written.token);
        if written.replayed {
            self.replies.simple("DUPLICATE");
        } else {
            self.reply_to_write(write, &mut written.values.into_iter());
        }
        Ok(())
    }

    fn open_session(&self) -> Result<String, Reject> {
        let id = self.service.open_session(self.caller()?)?;
        Ok(SessionToken(id).encode(self.service.seal_key()))
    }

    /// The session a region opened, if the text is the id of one; none if it is a name.
    ///
    /// Errors: `bad_token` for an id that was altered, or that another cluster's region opened.
    fn session_of(&self, text: &[u8]) -> Result<Option<SessionId>, Reject> {
        let Ok(text) = std::str::from_utf8(text) else { return Ok(None) };
        match SessionToken::decode(text, self.service.seal_key()) {
            Ok(SessionToken(id)) => Ok(Some(id)),
            Err(TokenError::Malformed) => Ok(None),
            Err(error @ TokenError::Foreign) => Err(Reject::new(
                RejectCode::BadToken,
                format!("the session id is not one of this cluster's: {error}"),
            )),
        }
    }

    /// Reads in one request; gives a value for each key.
    pub(super) async fn read_values(
        &mut self,
        reads: impl Iterator<Item = &Read>,
    ) -> Result<IntoIter<ReadValue>, Reject> {
        let caller = self.caller()?;
        let keys = reads.flat_map(Read::keys).cloned().collect();
        let request = ReadRequest { keys, after: self.mark.uncovered(), timeout: OWN_WRITES_MAX };
        let values = admission::read(&self.service, caller, request).await?;
        self.mark.covered();
        Ok(values.into_iter())
    }

    /// Everything but reads and writes, outside of a transaction.
    async fn perform(&mut self, command: Command) {
        match command {
            Command::Write(_) | Command::Read(_) => unreachable!("reads and writes go through runs"),
            Command::WriteOnce { write, producer, number, settled } => {
                if let Err(reject) = self.write_once(&write, &producer, number, settled).await {
                    self.reject(&reject);
                }
            }
            Command::OpenSession => match self.open_session() {
                Ok(id) => self.replies.bulk(id.as_bytes()),
                Err(reject) => self.reject(&reject),
            },
            Command::CloseSession { id } => match self.session_of(&id) {
                // What was logged of it stays known for the window; nothing else is held for it.
                Ok(Some(_)) => self.replies.simple("OK"),
                Ok(None) => self.malformed("SESSION CLOSE takes an id that SESSION OPEN gave"),
                Err(reject) => self.reject(&reject),
            },
            Command::Talk(talk) => self.talk(&talk),
            Command::Hello(hello) => self.greet(hello),
            Command::Auth { token } => {
                if self.authenticate(&token) {
                    self.replies.simple("OK");
                }
            }
            Command::Wait { others, timeout } => match self.wait(others, timeout).await {
                Ok((_, others)) => self.replies.integer(others),
                Err(reject) => self.reject(&reject),
            },
            Command::WaitDurable { others, timeout, .. } => match self.wait(others, timeout).await {
                Ok((here, others)) => {
                    self.replies.array(2);
                    self.replies.integer(here);
                    self.replies.integer(others);
                }
                Err(reject) => self.reject(&reject),
            },
            Command::Multi => {
                self.transaction = Some(Transaction::default());
                self.replies.simple("OK");
            }
            Command::Exec => self.malformed("EXEC without MULTI"),
            Command::Discard => self.malformed("DISCARD without MULTI"),
            Command::Reset => self.reset(),
            Command::Quit => self.quit(),
        }
    }

    /// Whether the token was good; if not, the reply says so.
    pub(super) fn authenticate(&mut self, token: &[u8]) -> bool {
        let token = String::from_utf8_lossy(token);
        match self.service.authenticate(Some(&token)) {
            Ok(caller) => {
                self.caller = Some(caller);
                true
            }
            Err(reject) => {
                self.reject(&reject);
                false
            }
        }
    }

    /// How many regions hold this connection's writes, applied and durable: this one, and the others.
    async fn wait(&mut self, others: u64, timeout: Duration) -> Result<(i64, i64), Reject> {
        let identity = self.service.identity();
        // More than there are can never come: the answer is the same number, without the wait.
        let others_max = self.service.members_count().saturating_sub(1);
        let others = usize::try_from(others).unwrap_or(usize::MAX).min(others_max);
        let at_least = u16::try_from(others + 1).expect("a cluster has at most 1,023 regions");
        let scope = AwaitScope::AtLeast(at_least);
        let awaited = admission::wait(&self.service, Goal::Token(self.mark.token()), scope, timeout).await?;
        let is_here = awaited.laggards.iter().all(|laggard| laggard.region != identity.name);
        let here = usize::from(is_here).min(awaited.regions_reached);
        Ok((here as i64, (awaited.regions_reached - here) as i64))
    }

    pub(super) fn reset(&mut self) {
        self.transaction = None;
        self.caller = self.service.authenticate(None).ok();
        self.who.name = Bytes::new();
        self.replies.protocol = Protocol::Resp2;
        self.replies.simple("RESET");
    }

    pub(super) fn quit(&mut self) {
        self.replies.simple("OK");
        self.is_closing = true;
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.caller.is_some()
    }

    fn caller(&self) -> Result<Caller, Reject> {
        self.caller.ok_or_else(|| Reject::new(RejectCode::Unauthenticated, "Authentication required."))
    }

    pub(super) fn reject(&mut self, reject: &Reject) {
        self.count_error(reject.code);
        if reject.code == RejectCode::Busy && !self.service.is_ready() {
            // The word that clients know for a server which has just started.
            return self.replies.error("LOADING", &reject.text);
        }
        self.replies.reject(reject);
    }

    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        self.count_error(refusal.code);
        self.replies.error(refusal.word, &refusal.text);
    }

    pub(super) fn malformed(&mut self, text: &str) {
        self.count_error(RejectCode::Malformed);
        self.replies.error("ERR", text);
    }

    pub(super) fn count_error(&self, code: RejectCode) {
        self.stats.count_reject(code);
    }
}

fn is_open_to_all(parsed: &Result<Command, Refusal>) -> bool {
    matches!(parsed, Ok(Command::Auth { .. } | Command::Hello(_) | Command::Quit | Command::Reset))
}

/// Whether a run that was refused is worth sending again request by request.
fn may_concern_one_op(reject: &Reject) -> bool {
    use RejectCode as C;
    let is_about_the_region = matches!(
        reject.code,
        C::Busy
            | C::NotYet
            | C::ShuttingDown
            | C::StorageFull
            | C::StorageFailed
            | C::TimedOut
            | C::Draining
            | C::Removed
            | C::Unauthenticated
    );
    reject.applied == Applied::No && !is_about_the_region
}
