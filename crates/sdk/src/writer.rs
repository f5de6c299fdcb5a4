//! Batched, pipelined writes with back-pressure.
//!
//! No linger time: while a shard has few requests in flight, what is buffered is sent at once; meanwhile the next run
//! grows. So a lone op leaves at once, and under load the runs are long.

use std::sync::Arc;

use bytes::Bytes;
use tombolo_codec::{Kind, Reject, WireOp, WireVerb};

use crate::buffer::{Buffer, Pushed};
use crate::client::Client;
use crate::error::SdkError;
use crate::session::{SessionShared, check_op};
use crate::token::Token;

/// Most rejected, and most unknown, ops that a report names; the others are counted.
pub const NAMED_MAX: usize = 1_024;

/// What came of the ops since the report before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlushReport {
    /// Ops that are durable in a region.
    pub accepted: u64,
    /// How many of those a region logged for another one, after a failover. They count once as the others do.
    pub conditional: u64,
    /// Ops that were not applied.
    pub rejected_count: u64,
    /// The keys of the first [`NAMED_MAX`] of them, each with its reason.
    pub rejected: Vec<(Bytes, Reject)>,
    /// Ops of which no answer came within the deadline: each counts at most once, perhaps not at all.
    pub unknown: u64,
    /// The keys of the first [`NAMED_MAX`] of them, each with what is known.
    pub unknown_first: Vec<(Bytes, String)>,
    /// Covers every accepted op.
    pub token: Token,
}

/// Writes many ops: hands them over in runs, one shard a request, so that each request is applied all or nothing.
///
/// Ops on one key keep their order. A request in which one op is refused is taken apart until that op stands alone.
/// Dropping a writer does not stop what it holds from being sent; call [`Writer::flush`] to learn what came of it.
pub struct Writer {
    client: Client,
    buffer: Arc<Buffer>,
}

impl Writer {
    pub(crate) fn new(client: Client, session: Arc<SessionShared>) -> Self {
        let buffer = client.shared().new_buffer(session);
        Self { client, buffer }
    }

    /// Moves a counter up, or down if `delta` is negative. Waits only while the buffer is full.
    ///
    /// Errors: [`SdkError::Rejected`] for a key above its limit, [`SdkError::Closed`]; what the region refuses is in
    /// the report.
    pub async fn add(&mut self, key: impl AsRef<[u8]>, delta: i64) -> Result<(), SdkError> {
        self.push(WireOp { key: key.as_ref().to_vec(), verb: WireVerb::Add(delta) }).await
    }

    /// Writes a register. Waits only while the buffer is full.
    ///
    /// Errors: as [`Writer::add`].
    pub async fn set(&mut self, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) -> Result<(), SdkError> {
        let verb = WireVerb::Set { value: value.into(), expires_at: None, stamp: None };
        self.push(WireOp { key: key.as_ref().to_vec(), verb }).await
    }

    /// Deletes a key; `kind` none: whatever is there. Waits only while the buffer is full.
    ///
    /// Errors: as [`Writer::add`].
    pub async fn delete(&mut self, key: impl AsRef<[u8]>, kind: Option<Kind>) -> Result<(), SdkError> {
        self.push(WireOp { key: key.as_ref().to_vec(), verb: WireVerb::Delete { kind, stamp: None } }).await
    }

    /// How many ops, and bytes of them, are buffered or in flight.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        self.buffer.held()
    }

    /// Waits until every op so far is answered, and says what came of them since the last report.
    ///
    /// Errors: [`SdkError::Unknown`] if the client ended before.
    pub async fn flush(&mut self) -> Result<FlushReport, SdkError> {
        loop {
            // A ring between the look and the wait is kept by `Notify`.
            if let Some(report) = self.buffer.finished() {
                return report;
            }
            self.buffer.progress.notified().await;
        }
    }

    async fn push(&mut self, mut op: WireOp) -> Result<(), SdkError> {
        check_op(&op)?;
        let shard = self.client.shared().shard(&op.key);
        loop {
            match self.buffer.push(shard, op) {
                Pushed::Silent => return Ok(()),
                Pushed::Tell => {
                    self.client.shared().tell(self.buffer.clone());
                    return Ok(());
                }
                Pushed::Closed => return Err(SdkError::Closed),
                Pushed::Full(back) => op = back,
            }
            self.buffer.progress.notified().await;
        }
    }
}
