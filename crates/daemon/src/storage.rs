//! The disk as the shards' tasks see it: batches go in, events come back into their inboxes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tombolo_causality::{LogId, RegionId, Seq, ShardId};
use tombolo_codec::Batch;
use tombolo_replica::{Input, Link, Notice};
use tombolo_wal::{CommitEvent, Committer, Errand, Refused, WalError};

use crate::findings::Findings;
use crate::metrics::Metrics;

/// How long to wait before a read is asked again of a committer whose queue was full.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// How long the threads may take to write and sync what they have when the daemon stops.
pub(crate) const SHUTDOWN_WITHIN: Duration = Duration::from_secs(20);

/// The committer, and where its events go.
///
/// The inboxes have no bound of their own: there is one event for each batch handed over, and those are bounded.
pub(crate) struct Storage {
    committer: OnceLock<Committer>,
    events: Vec<mpsc::UnboundedSender<Input>>,
    metrics: Arc<Metrics>,
    findings: Arc<Findings>,
    quarantined: Vec<String>,
    /// Logs whose next batch waits for room. A shard's disk is full while any of its logs is among them.
    stalled: Mutex<BTreeSet<LogId>>,
}

impl Storage {
    pub(crate) fn new(
        events: Vec<mpsc::UnboundedSender<Input>>,
        metrics: Arc<Metrics>,
        findings: Arc<Findings>,
        quarantined: Vec<String>,
    ) -> Self {
        let stalled = Mutex::default();
        Self { committer: OnceLock::new(), events, metrics, findings, quarantined, stalled }
    }

    /// Takes the committer over; its callback is [`Storage::note`].
    pub(crate) fn set_committer(&self, committer: Committer) {
        assert!(self.committer.set(committer).is_ok(), "the committer is started once");
    }

    fn committer(&self) -> &Committer {
        self.committer.get().expect("the committer is started before any shard")
    }

    /// Files that recovery set aside.
    pub(crate) fn quarantined(&self) -> &[String] {
        &self.quarantined
    }

    fn tell(&self, shard: ShardId, input: Input) {
        if let Some(events) = self.events.get(usize::from(shard.0)) {
            // The shard's task has ended: the daemon is stopping.
            let _ = events.send(input);
        }
    }

    /// Passes an event of a commit thread on.
    pub(crate) fn note(&self, event: CommitEvent) {
        match event {
            CommitEvent::Staged { log, through } => self.tell(log.shard, Input::Staged { log, through }),
            CommitEvent::Durable { log, through } => self.tell(log.shard, Input::Durable { log, through }),
            CommitEvent::Failed { log, error, .. } => {
                self.tell(log.shard, Input::StorageFailed { log, text: error.to_string() });
            }
            CommitEvent::Stalled { log, error } => {
                tracing::warn!("the disk is full: {error}");
                self.set_stalled(log, true);
            }
            CommitEvent::Resumed { log } => self.set_stalled(log, false),
            CommitEvent::Synced { took, syncs_count, .. } => {
                for _ in 0..syncs_count {
                    self.metrics.fsync_seconds.observe(took.as_secs_f64() / syncs_count as f64);
                }
            }
        }
    }

    /// Tells a shard that its disk is full with the first of its logs that stalls, and that it has room with the last
    /// that resumes: until then the region's own log may be the one that waits.
    fn set_stalled(&self, log: LogId, is_stalled: bool) {
        let shard = log.shard;
        // No code that may panic runs under this lock. It is held while the shard is told, so that edges keep their order.
        let mut stalled = self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        let is_any = |stalled: &BTreeSet<LogId>| stalled.iter().any(|log| log.shard == shard);
        let was_full = is_any(&stalled);
        if is_stalled {
            stalled.insert(log);
        } else {
            stalled.remove(&log);
        }
        let is_full = is_any(&stalled);
        if is_full == was_full {
            return;
        }
        if !is_full {
            self.findings.clear("storage_full", &format!("shard {shard}"));
        }
        self.tell(shard, Input::StorageFull { is_full });
    }

    /// Hands a batch to the commit threads; gives it back if their queue is full.
    pub(crate) fn append(&self, batch: Batch) -> Result<(), Batch> {
        match self.committer().try_append(batch) {
            Ok(()) => Ok(()),
            Err(Refused::Full(batch)) => Err(batch),
            // The daemon is stopping: nothing is acknowledged any more.
            Err(Refused::Stopped(_)) => Ok(()),
        }
    }

    /// Reads a log's files for a peer.
    pub(crate) fn load(
        self: &Arc<Self>,
        peer: RegionId,
        link: Link,
        log: LogId,
        from: Seq,
        bytes_max: usize,
    ) {
        let storage = self.clone();
        let reply = Box::new(move |found: Result<Vec<Batch>, WalError>| {
            let batches = found.unwrap_or_else(|error| {
                // Pruned, or never here: the peer is told so and goes elsewhere.
                if matches!(error, WalError::NotRetained { .. }) {
                    return Vec::new();
                }
                let notice = Notice { code: "log_unreadable", text: error.to_string() };
                storage.findings.raise(&format!("shard {}", log.shard), &notice);
                Vec::new()
            });
            storage.tell(log.shard, Input::Loaded { peer, link, log, batches });
        });
        if let Err(Refused::Full(_)) =
            self.committer().try_errand(Errand::Read { log, from, bytes_max, reply })
        {
            let storage = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(RETRY_AFTER).await;
                storage.load(peer, link, log, from, bytes_max);
            });
        }
    }

    /// Runs an errand and waits for its outcome; none if the committer takes none now.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        make: impl FnOnce(tombolo_wal::Reply<T>) -> Errand,
    ) -> Option<Result<T, WalError>> {
        let (reply, answer) = oneshot::channel();
        self.committer().try_errand(make(Box::new(move |outcome| drop(reply.send(outcome))))).ok()?;
        answer.await.ok()
    }

    /// Writes and syncs what was handed over, then takes no more. Blocks.
    pub(crate) fn shutdown(&self) {
        if let Err(error) = self.committer().shutdown(SHUTDOWN_WITHIN) {
            tracing::error!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tombolo_causality::Epoch;

    use super::*;

    fn log(shard: u16, region: u16) -> LogId {
        let region = RegionId::new(region).expect("tests name valid regions");
        LogId { shard: ShardId(shard), region, epoch: Epoch(1) }
    }

    fn told(inbox: &mut mpsc::UnboundedReceiver<Input>) -> Vec<bool> {
        let is_full = |input| match input {
            Input::StorageFull { is_full } => is_full,
            other => panic!("a shard was told {other:?}"),
        };
        std::iter::from_fn(|| inbox.try_recv().ok()).map(is_full).collect()
    }

    #[test]
    fn a_shard_has_room_only_once_none_of_its_logs_waits_for_it() {
        let (senders, mut inboxes): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::unbounded_channel()).unzip();
        let findings = Arc::new(Findings::default());
        let storage = Storage::new(senders, Arc::new(Metrics::new()), findings.clone(), Vec::new());
        let notice = Notice { code: "storage_full", text: String::new() };
        findings.raise("shard 0", &notice);
        let stalled = |log| storage.note(CommitEvent::Stalled { log, error: WalError::Stopped });
        let resumed = |log| storage.note(CommitEvent::Resumed { log });

        stalled(log(0, 1));
        stalled(log(0, 2));
        stalled(log(1, 2));
        resumed(log(0, 2));
        assert_eq!(told(&mut inboxes[0]), [true], "log 1 of the shard still waits");
        assert_eq!(findings.list().len(), 1);
        resumed(log(1, 2));
        assert_eq!(told(&mut inboxes[1]), [true, false], "another shard counts for itself");
        resumed(log(0, 1));
        assert_eq!(told(&mut inboxes[0]), [false]);
        assert!(findings.list().is_empty());
        stalled(log(0, 2));
        assert_eq!(told(&mut inboxes[0]), [true]);
    }
}
