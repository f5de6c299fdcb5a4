//! Acks on their way to a peer: only the latest position of each log matters, so a slow link costs a map, not a queue.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tombolo_causality::{LogId, Seq};
use tombolo_codec::Position;

/// Positions to tell one peer.
#[derive(Debug, Default)]
pub(crate) struct AckBoard {
    positions: Mutex<BTreeMap<LogId, Seq>>,
    changed: Notify,
}

impl AckBoard {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<LogId, Seq>> {
        // Whoever panicked left whole entries behind: each is one insert.
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, position: Position) {
        self.lock().insert(position.log, position.seq);
        self.changed.notify_one();
    }

    /// Waits until there is something to tell, and takes it. Safe to cancel.
    pub(crate) async fn take(&self) -> Vec<Position> {
        loop {
            let taken = std::mem::take(&mut *self.lock());
            if !taken.is_empty() {
                return taken.into_iter().map(|(log, seq)| Position { log, seq }).collect();
            }
            self.changed.notified().await;
        }
    }
}
