//! [`Committer`]: the threads that write and sync, so that no async task ever waits for a disk.
//!
//! N commit threads own the stores, shard s belongs to thread s mod N; one thread reads (from views that no sync holds
//! up), one writes checkpoints. Callers only put things into bounded inboxes and are told the outcome by callback. A
//! group is what has come in while the last one was synced; only what other regions wrote gathers for a moment
//! ([`OTHERS_GATHER`]). Start at [`Committer::start`]; what a thread does with a group is in `group.rs`.

mod inbox;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tombolo_causality::{LogId, RegionId, Seq, ShardId};
use tombolo_codec::Batch;

pub use self::inbox::Refused;
use self::inbox::{Inbox, WokenBy};
use crate::checkpoint::write_checkpoint;
use crate::disk::{Disk, DiskError, forward_disk};
use crate::error::WalError;
use crate::group::{CommitEvent, GroupCommit, SyncedGroup};
use crate::index::LogIndex;
use crate::log::{KnownEnd, WalSettings};
use crate::store::{MayGo, Store};

/// How often batches that found the disk full are tried again.
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// How late a sync may be in [`Durability::Async`].
const ASYNC_SYNC_EVERY: Duration = Duration::from_secs(1);
/// A commit thread with nothing to do looks up this often.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// How long what other regions wrote gathers before it is synced: it comes in many pieces, one a log. No write here waits
/// for it, but reads behind another region's token and barriers come this much later. A write here ends the wait.
const OTHERS_GATHER: Duration = Duration::from_millis(1);
/// Errands may wait beyond the batches' bound, so that pruning gets through when the disk is full.
const ERRANDS_COUNT_MAX: usize = 1_024;

/// When batches are synced. Whatever it is, only synced ones are reported durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// At once; the batches that come in during a sync share the next one. Those of other regions gather a millisecond.
    Sync,
    /// At most this late; batches are reported staged before.
    Interval(Duration),
    /// Every second and at shutdown; batches are reported staged before.
    Async,
}

/// How a committer works.
#[derive(Debug, Clone, Copy)]
pub struct CommitterSettings {
    /// Whose logs.
    pub wal: WalSettings,
    /// When it syncs.
    pub durability: Durability,
    /// How many commit threads, at most one per shard.
    pub threads_count: usize,
    /// How many batches may wait per thread, with those that found the disk full.
    pub inbox_count_max: usize,
    /// How long they may be together.
    pub inbox_bytes_max: usize,
    /// A group takes in no more once it is this long.
    pub group_bytes_max: usize,
}

impl CommitterSettings {
    /// One thread, as one sync covers all logs, 4,096 batches and 256 MiB per inbox, groups of 64 MiB.
    #[must_use]
    pub const fn new(wal: WalSettings, durability: Durability) -> Self {
        Self {
            wal,
            durability,
            threads_count: 1,
            inbox_count_max: 4_096,
            inbox_bytes_max: 256 * 1_024 * 1_024,
            group_bytes_max: 64 * 1_024 * 1_024,
        }
    }
}

/// Is called once with the outcome, on a thread of the committer: it must not wait.
pub type Reply<T> = Box<dyn FnOnce(Result<T, WalError>) + Send>;

/// What else than appending is asked of the committer. Each is answered once.
pub enum Errand {
    /// Read durable batches of a log from `from` on: [`LogIndex::read`].
    Read {
        /// Which log.
        log: LogId,
        /// The first seq.
        from: Seq,
        /// About how much; at least one batch.
        bytes_max: usize,
        /// Gets the batches.
        reply: Reply<Vec<Batch>>,
    },
    /// Replace a shard's checkpoint: [`write_checkpoint`].
    Checkpoint {
        /// Which shard.
        shard: ShardId,
        /// The file's content.
        bytes: Vec<u8>,
        /// Told when it is durable.
        reply: Reply<()>,
    },
    /// Remove segments: [`Store::prune`].
    Prune {
        /// Of which log.
        log: LogId,
        /// That hold nothing above this.
        through: Seq,
        /// Gets their number.
        reply: Reply<usize>,
    },
    /// Remove a sealed log: [`Store::prune_log`].
    PruneLog {
        /// Which.
        log: LogId,
        /// Told when it is gone.
        reply: Reply<()>,
    },
    /// Remove what may go, until the shard's files take no more than so many bytes: [`Store::shrink`].
    Shrink {
        /// Which shard.
        shard: ShardId,
        /// What it can do without.
        ends: Vec<MayGo>,
        /// How long its files may be together.
        bytes_max: u64,
        /// Gets the logs of which something went, and through where.
        reply: Reply<Vec<(LogId, Seq)>>,
    },
    /// Let a log go on behind the end a state merge brought: [`Store::advance`]. Kept in order with batches.
    Advance {
        /// Which log.
        log: LogId,
        /// Where to.
        end: KnownEnd,
        /// Told when done.
        reply: Reply<()>,
    },
    /// Read what quarantined files hold behind a log's end: [`Store::salvage`].
    Salvage {
        /// Which log.
        log: LogId,
        /// About how much.
        bytes_max: usize,
        /// Gets the batches.
        reply: Reply<Vec<Batch>>,
    },
}

/// Threads were still at work when the wait for them ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{threads_count} commit threads did not stop in time")]
pub struct NotStopped {
    /// How many.
    pub threads_count: usize,
}

/// The handle; share it through `Arc`. Dropping it lets the threads finish what they have and end.
pub struct Committer {
    region: RegionId,
    commits: Vec<Arc<Inbox<Work>>>,
    reads: Arc<Inbox<Errand>>,
    checkpoints: Arc<Inbox<Errand>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

enum Work {
    Append(Batch),
    Errand(Errand),
}

/// What the reading thread knows of a log.
struct View {
    index: LogIndex,
    durable: Seq,
}

type Views = Arc<Mutex<BTreeMap<LogId, View>>>;

impl Committer {
    /// Starts the threads; `on_event` is called on them and must not wait. The commit journals must have been
    /// [redone](crate::redo()) before the stores were opened.
    ///
    /// Errors: [`DiskError::Io`] if the system gives no thread; those of [`GroupCommit::open`].
    pub fn start<D>(
        disk: D,
        stores: Vec<Store<D>>,
        settings: CommitterSettings,
        on_event: impl Fn(CommitEvent) + Send + Sync + 'static,
    ) -> Result<Self, WalError>
    where
        D: Disk + Clone + Send + 'static,
        D::File: Send,
    {
        let count = settings.threads_count.clamp(1, stores.len().max(1));
        let on_event: Arc<dyn Fn(CommitEvent) + Send + Sync> = Arc::new(on_event);
        let views = Views::default();
        let mut parts: Vec<Vec<Store<D>>> = (0..count).map(|_| Vec::new()).collect();
        for store in stores {
            store.logs().for_each(|writer| publish(&views, writer));
            parts[usize::from(store.shard().0) % count].push(store);
        }
        let inbox = |count| Arc::new(Inbox::new(count, settings.inbox_bytes_max));
        let commits: Vec<_> = (0..count).map(|_| inbox(settings.inbox_count_max)).collect();
        let errands = || Arc::new(Inbox::new(ERRANDS_COUNT_MAX, usize::MAX));
        let (reads, checkpoints) = (errands(), errands());
        let committer = Self {
            region: settings.wal.region,
            commits,
            reads: Arc::clone(&reads),
            checkpoints: Arc::clone(&checkpoints),
            threads: Mutex::default(),
        };
        for (number, part) in parts.into_iter().enumerate() {
            let thread = CommitThread {
                inbox: Arc::clone(&committer.commits[number]),
                group: GroupCommit::open(&disk, settings.wal, number, part)?,
                settings,
                on_event: Arc::clone(&on_event),
                views: Arc::clone(&views),
                dirty_since: None,
                has_own: false,
                tried_at: None,
            };
            committer.spawn(format!("wal-commit-{number}"), move || thread.run())?;
        }
        let (reading, wal) = (disk.clone(), settings.wal);
        committer.spawn("wal-read".to_owned(), move || {
            serve(&reads, |errand| {
                if let Errand::Read { log, from, bytes_max, reply } = errand {
                    reply(read(&reading, wal, &views, log, from, bytes_max));
                }
            });
        })?;
        committer.spawn("wal-checkpoint".to_owned(), move || {
            serve(&checkpoints, |errand| {
                if let Errand::Checkpoint { shard, bytes, reply } = errand {
                    reply(write_checkpoint(&disk, shard, &bytes));
                }
            });
        })?;
        Ok(committer)
    }

    fn spawn(&self, name: String, body: impl FnOnce() + Send + 'static) -> Result<(), WalError> {
        let thread = std::thread::Builder::new().name(name.clone()).spawn(body).map_err(|cause| {
            self.close();
            DiskError::Io { path: name, operation: "start thread", cause: cause.to_string() }
        })?;
        locked(&self.threads).push(thread);
        Ok(())
    }

    fn commit_inbox(&self, shard: ShardId) -> &Inbox<Work> {
        &self.commits[usize::from(shard.0) % self.commits.len()]
    }

    /// Hands a batch over. Batches of one log must be handed over in order; each ends as
    /// [`CommitEvent::Durable`] or [`CommitEvent::Failed`].
    ///
    /// Errors: [`Refused`] with the batch; never waits.
    pub fn try_append(&self, batch: Batch) -> Result<(), Refused<Batch>> {
        let (log, bytes) = (batch.header().log, batch.bytes().len());
        let (inbox, work) = (self.commit_inbox(log.shard), Work::Append(batch));
        let is_own = log.region == self.region;
        let pushed = if is_own { inbox.push(work, bytes, 0) } else { inbox.push_patient(work, bytes) };
        pushed.map_err(|refused| match refused {
            Refused::Full(Work::Append(batch)) => Refused::Full(batch),
            Refused::Stopped(Work::Append(batch)) => Refused::Stopped(batch),
            _ => unreachable!("what was handed in comes back"),
        })
    }

    /// Hands an errand over.
    ///
    /// Errors: [`Refused`] with the errand; never waits.
    pub fn try_errand(&self, errand: Errand) -> Result<(), Refused<Errand>> {
        let shard = match &errand {
            Errand::Read { .. } => return self.reads.push(errand, 0, 0),
            Errand::Checkpoint { .. } => return self.checkpoints.push(errand, 0, 0),
            Errand::Prune { log, .. }
            | Errand::PruneLog { log, .. }
            | Errand::Advance { log, .. }
            | Errand::Salvage { log, .. } => log.shard,
            Errand::Shrink { shard, .. } => *shard,
        };
        let pushed = self.commit_inbox(shard).push(Work::Errand(errand), 0, ERRANDS_COUNT_MAX);
        pushed.map_err(|refused| match refused {
            Refused::Full(Work::Errand(errand)) => Refused::Full(errand),
            Refused::Stopped(Work::Errand(errand)) => Refused::Stopped(errand),
            _ => unreachable!("what was handed in comes back"),
        })
    }

    fn close(&self) {
        self.commits.iter().for_each(|inbox| inbox.close());
        self.reads.close();
        self.checkpoints.close();
    }

    /// Takes in nothing more, lets the threads write and sync what they have, and waits for them. Batches that still
    /// find the disk full end as failed.
    ///
    /// Errors: [`NotStopped`] after `within`: a thread hangs in the disk.
    pub fn shutdown(&self, within: Duration) -> Result<(), NotStopped> {
        self.close();
        let started = Instant::now();
        let mut threads = locked(&self.threads);
        while threads.iter().any(|thread| !thread.is_finished()) && started.elapsed() < within {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (ended, left): (Vec<_>, Vec<_>) = threads.drain(..).partition(JoinHandle::is_finished);
        // A panic has been printed where it happened.
        let panicked = ended.into_iter().filter_map(|thread| thread.join().err()).count();
        let threads_count = left.len() + panicked;
        *threads = left;
        if threads_count == 0 { Ok(()) } else { Err(NotStopped { threads_count }) }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.close();
    }
}

/// One commit thread and all it owns.
struct CommitThread<D: Disk> {
    inbox: Arc<Inbox<Work>>,
    group: GroupCommit<D>,
    settings: CommitterSettings,
    on_event: Arc<dyn Fn(CommitEvent) + Send + Sync>,
    views: Views,
    dirty_since: Option<Instant>,
    /// Whether something this region wrote waits for the next sync. A full disk may blur it: that costs a sync, or a
    /// millisecond.
    has_own: bool,
    tried_at: Option<Instant>,
}

impl<D: Disk + Clone> CommitThread<D> {
    fn run(mut self) {
        loop {
            let (within, woken_by) = self.wait();
            let (works, is_over) = self.inbox.take(within, woken_by, self.settings.group_bytes_max);
            for work in works {
                match work {
                    Work::Append(batch) => {
                        self.has_own |= batch.header().log.region == self.settings.wal.region;
                        self.group.append(batch, &mut |event| (self.on_event)(event));
                    }
                    Work::Errand(errand) => self.run_errand(errand),
                }
            }
            self.retry_if_due();
            if self.settings.durability != Durability::Sync {
                self.group.report_staged(&mut |event| (self.on_event)(event));
            }
            if is_over {
                self.group.give_up(&mut |event| (self.on_event)(event));
                self.sync();
                // Nothing is lost if it fails: the next start redoes the journal.
                let _ = self.group.close();
                return;
            }
            self.sync_if_due();
            self.inbox.hold(self.group.waiting());
        }
    }

    fn sync_delay(&self) -> Duration {
        match self.settings.durability {
            Durability::Sync if self.has_own => Duration::ZERO,
            Durability::Sync => OTHERS_GATHER,
            Durability::Interval(delay) => delay,
            Durability::Async => ASYNC_SYNC_EVERY,
        }
    }

    /// How long the thread may sleep, and what ends that earlier.
    fn wait(&self) -> (Duration, WokenBy) {
        let until_sync = self.dirty_since.map(|since| self.sync_delay().saturating_sub(since.elapsed()));
        let until_retry = self.tried_at.map(|tried| RETRY_EVERY.saturating_sub(tried.elapsed()));
        let is_gathering = self.dirty_since.is_some() && self.settings.durability == Durability::Sync;
        let within = IDLE_WAIT.min(until_sync.unwrap_or(IDLE_WAIT)).min(until_retry.unwrap_or(IDLE_WAIT));
        (within, if is_gathering { WokenBy::Urgent } else { WokenBy::Any })
    }

    fn retry_if_due(&mut self) {
        if self.group.waiting().0 == 0 {
            self.tried_at = None;
            return;
        }
        let tried_at = *self.tried_at.get_or_insert_with(Instant::now);
        if tried_at.elapsed() >= RETRY_EVERY {
            self.group.retry(&mut |event| (self.on_event)(event));
            self.tried_at = (self.group.waiting().0 > 0).then(Instant::now);
        }
    }

    fn sync_if_due(&mut self) {
        if !self.group.is_dirty() {
            return;
        }
        let since = *self.dirty_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.sync_delay() {
            self.sync();
        }
    }

    fn sync(&mut self) {
        (self.dirty_since, self.has_own) = (None, false);
        if !self.group.is_dirty() {
            return;
        }
        let mut events = Vec::new();
        let started = Instant::now();
        let SyncedGroup { syncs_count, logs_count, batches_count, bytes_count } =
            self.group.sync(&mut |event| events.push(event));
        let took = started.elapsed();
        for event in &events {
            if let CommitEvent::Durable { log, .. } = event {
                self.publish(*log);
            }
        }
        // Readers see what is durable before anybody is told that it is.
        events.into_iter().for_each(|event| (self.on_event)(event));
        (self.on_event)(CommitEvent::Synced { took, syncs_count, logs_count, batches_count, bytes_count });
        self.settle();
    }

    /// Syncs what is due of the segments, after everybody has been told of the group.
    fn settle(&mut self) {
        let started = Instant::now();
        let syncs_count = self.group.settle();
        if syncs_count > 0 {
            let took = started.elapsed();
            let (logs_count, batches_count, bytes_count) = (0, 0, 0);
            (self.on_event)(CommitEvent::Synced {
                took,
                syncs_count,
                logs_count,
                batches_count,
                bytes_count,
            });
        }
    }

    fn publish(&self, log: LogId) {
        if let Some(writer) = self.group.store(log.shard).and_then(|store| store.log(log)) {
            publish(&self.views, writer);
        }
    }

    fn run_errand(&mut self, errand: Errand) {
        let stranger = |found| WalError::WrongLog { expected: "other shards".to_owned(), found };
        match errand {
            Errand::Prune { log, through, reply } => {
                let store = self.group.store_mut(log.shard).ok_or_else(|| stranger(log));
                let pruned = store.and_then(|store| store.prune(log, through));
                self.publish(log);
                reply(pruned);
            }
            Errand::PruneLog { log, reply } => {
                let store = self.group.store_mut(log.shard).ok_or_else(|| stranger(log));
                let pruned = store.and_then(|store| store.prune_log(log));
                locked(&self.views).remove(&log);
                reply(pruned);
            }
            Errand::Shrink { shard, ends, bytes_max, reply } => {
                let shrunk = match self.group.store_mut(shard) {
                    Some(store) => store.shrink(&ends, bytes_max),
                    None => Ok(Vec::new()),
                };
                for end in &ends {
                    match self.group.store(shard).and_then(|store| store.log(end.log)) {
                        Some(writer) => publish(&self.views, writer),
                        None => drop(locked(&self.views).remove(&end.log)),
                    }
                }
                reply(shrunk);
            }
            Errand::Advance { log, end, reply } => {
                let advanced = self.group.advance(log, end, &mut |event| (self.on_event)(event));
                self.publish(log);
                reply(advanced);
            }
            Errand::Salvage { log, bytes_max, reply } => {
                let store = self.group.store(log.shard).ok_or_else(|| stranger(log));
                reply(store.and_then(|store| store.salvage(log, bytes_max)));
            }
            Errand::Read { .. } | Errand::Checkpoint { .. } => unreachable!("they have threads of their own"),
        }
    }
}

fn publish<D: Disk + Clone>(views: &Views, writer: &crate::log::LogWriter<D>) {
    let view = View { index: writer.index().clone(), durable: writer.durable_through() };
    locked(views).insert(writer.log(), view);
}

fn read<D: Disk>(
    disk: &D,
    wal: WalSettings,
    views: &Views,
    log: LogId,
    from: Seq,
    bytes_max: usize,
) -> Result<Vec<Batch>, WalError> {
    let (index, durable) = {
        let views = locked(views);
        let view = views.get(&log).ok_or(WalError::NotRetained { log, from, first: None })?;
        (view.index.clone(), view.durable)
    };
    index.read(disk, (wal.cluster, log), (from, durable), bytes_max)
}

fn serve(inbox: &Inbox<Errand>, mut run: impl FnMut(Errand)) {
    loop {
        let (errands, is_over) = inbox.take(IDLE_WAIT, WokenBy::Any, usize::MAX);
        errands.into_iter().for_each(&mut run);
        if is_over {
            return;
        }
    }
}

/// No code that may panic runs under these locks; what they guard is whole after any panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A disk of one thread, such as [`crate::MemoryDisk`], for several.
impl<D: Disk> Disk for Mutex<D> {
    forward_disk!(D, self => locked(self));
}

#[cfg(test)]
mod tests;
