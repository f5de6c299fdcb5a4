//! A writer's buffer: ops in runs per shard, shared by the writer that fills it and the driver that sends it.
//!
//! One short lock and no channel per op: the driver takes whole runs. Start at [`Buffer::push`] and [`Buffer::take`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tombolo_causality::ShardId;
use tombolo_codec::{Reject, WireOp, WireVerb};

use crate::error::SdkError;
use crate::options::WriterOptions;
use crate::session::SessionShared;
use crate::token::Token;
use crate::writer::{FlushReport, NAMED_MAX};

/// What an op weighs besides its key and value.
const OP_BYTES: usize = 32;

/// What an op counts against the bounds.
pub(crate) fn weight(op: &WireOp) -> usize {
    let value_bytes = match &op.verb {
        WireVerb::Set { value, .. } => value.len(),
        WireVerb::Add(_) | WireVerb::Delete { .. } => 0,
    };
    op.key.len() + value_bytes + OP_BYTES
}

/// Ops of one shard that travel as one request.
pub(crate) struct Run {
    pub(crate) shard: ShardId,
    pub(crate) ops: Vec<WireOp>,
    pub(crate) bytes: usize,
    /// When its first op came.
    pub(crate) opened: Instant,
}

/// What came of a run, or of a part of one.
pub(crate) enum Outcome {
    Accepted {
        token: Token,
        is_conditional: bool,
    },
    /// The keys, and why.
    Rejected(Vec<Vec<u8>>, Reject),
    /// The keys, and what is known.
    Unknown(Vec<Vec<u8>>, String),
}

#[derive(Default)]
struct Shard {
    runs: VecDeque<Run>,
    in_flight: usize,
    is_dirty: bool,
}

struct State {
    shards: Vec<Shard>,
    /// Shards with a run that may be sent.
    dirty: Vec<u16>,
    ops_count: usize,
    bytes: usize,
    /// Whether the driver has been told to look.
    is_listed: bool,
    is_closed: bool,
    report: FlushReport,
}

pub(crate) struct Buffer {
    pub(crate) session: Arc<SessionShared>,
    options: WriterOptions,
    state: Mutex<State>,
    /// Rung when something was answered.
    pub(crate) progress: Notify,
}

/// What became of an op that was to be buffered.
pub(crate) enum Pushed {
    /// It is in; the driver knows.
    Silent,
    /// It is in; the driver has to be told.
    Tell,
    /// There is no room.
    Full(WireOp),
    /// The client is closed.
    Closed,
}

impl Buffer {
    pub(crate) fn new(session: Arc<SessionShared>, options: WriterOptions, shards_count: u16) -> Self {
        let shards = (0..shards_count).map(|_| Shard::default()).collect();
        let state = State {
            shards,
            dirty: Vec::new(),
            ops_count: 0,
            bytes: 0,
            is_listed: false,
            is_closed: false,
            report: FlushReport::default(),
        };
        Self { session, options, state: Mutex::new(state), progress: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, shard: ShardId, op: WireOp) -> Pushed {
        let bytes = weight(&op);
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.is_closed {
            return Pushed::Closed;
        }
        let is_full = state.ops_count >= self.options.ops_max || state.bytes + bytes > self.options.bytes_max;
        if is_full && state.ops_count > 0 {
            return Pushed::Full(op);
        }
        state.ops_count += 1;
        state.bytes += bytes;
        let entry = &mut state.shards[usize::from(shard.0)];
        match entry.runs.back_mut() {
            Some(run)
                if run.ops.len() < self.options.run_ops_max
                    && run.bytes + bytes <= self.options.run_bytes_max =>
            {
                run.ops.push(op);
                run.bytes += bytes;
            }
            _ => entry.runs.push_back(Run { shard, ops: vec![op], bytes, opened: Instant::now() }),
        }
        if entry.is_dirty || entry.in_flight >= self.options.runs_in_flight_max {
            return Pushed::Silent;
        }
        entry.is_dirty = true;
        state.dirty.push(shard.0);
        if std::mem::replace(&mut state.is_listed, true) { Pushed::Silent } else { Pushed::Tell }
    }

    /// The runs that may be sent: of each shard as many as its bound in flight leaves.
    pub(crate) fn take(&self) -> Vec<Run> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.is_listed = false;
        let mut taken = Vec::new();
        for shard in state.dirty.drain(..) {
            let entry = &mut state.shards[usize::from(shard)];
            entry.is_dirty = false;
            while entry.in_flight < self.options.runs_in_flight_max {
                let Some(run) = entry.runs.pop_front() else { break };
                entry.in_flight += 1;
                taken.push(run);
            }
        }
        taken
    }

    /// A run that was taken goes on as one more request.
    pub(crate) fn split(&self, shard: ShardId) {
        self.lock().shards[usize::from(shard.0)].in_flight += 1;
    }

    /// A run, or a part of one, has come to its end. Says whether there is more to take.
    pub(crate) fn settle(&self, shard: ShardId, ops_count: usize, bytes: usize, outcome: Outcome) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.ops_count -= ops_count;
        state.bytes -= bytes;
        let report = &mut state.report;
        match outcome {
            Outcome::Accepted { token, is_conditional } => {
                report.accepted += ops_count as u64;
                report.conditional += if is_conditional { ops_count as u64 } else { 0 };
                report.token.join(&token);
            }
            Outcome::Rejected(keys, reject) => {
                report.rejected_count += ops_count as u64;
                let room = NAMED_MAX - report.rejected.len();
                report.rejected.extend(keys.into_iter().take(room).map(|key| (key.into(), reject.clone())));
            }
            Outcome::Unknown(keys, text) => {
                report.unknown += ops_count as u64;
                let room = NAMED_MAX - report.unknown_first.len();
                let named = keys.into_iter().take(room).map(|key| (key.into(), text.clone()));
                report.unknown_first.extend(named);
            }
        }
        let entry = &mut state.shards[usize::from(shard.0)];
        entry.in_flight -= 1;
        if !entry.runs.is_empty() && !std::mem::replace(&mut entry.is_dirty, true) {
            state.dirty.push(shard.0);
        }
        let has_more = !state.dirty.is_empty();
        drop(guard);
        self.progress.notify_one();
        has_more
    }

    /// Takes no more; what is in and was never taken is lost, what was taken has an unknown outcome.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.progress.notify_one();
    }

    /// The report since the last one, once nothing is buffered or in flight.
    ///
    /// Errors: [`SdkError::Unknown`] if the driver ended with ops of this buffer unanswered.
    pub(crate) fn finished(&self) -> Option<Result<FlushReport, SdkError>> {
        let mut state = self.lock();
        if state.ops_count == 0 {
            return Some(Ok(std::mem::take(&mut state.report)));
        }
        let text = || format!("the client ended with {} ops unanswered", state.ops_count);
        state.is_closed.then(|| Err(SdkError::Unknown { text: text() }))
    }

    /// How many ops and bytes are buffered or in flight.
    pub(crate) fn held(&self) -> (usize, usize) {
        let state = self.lock();
        (state.ops_count, state.bytes)
    }
}
