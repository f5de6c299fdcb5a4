//! [`GroupCommit`]: stages batches of many logs and syncs them together; what a commit thread does, without the thread.
//!
//! The scheme for a full disk (W6): the first batch that does not fit stalls its log ([`CommitEvent::Stalled`], once).
//! It and every later batch of that log wait in order, are tried again at each [`GroupCommit::retry`], and once all of
//! them fit the log has resumed ([`CommitEvent::Resumed`]). Nothing handed over is dropped: each batch ends as durable
//! or as failed. How many wait is for the caller to bound, by what it hands over.
//!
//! With a [journal](GroupCommit::open) one sync covers the group, and the segments it touched are synced later, a few
//! after each group ([`GroupCommit::settle`]). Any sync that fails then closes all logs of the thread for writing: what
//! the journal holds may not be overwritten any more (W5). Never reads a clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tombolo_causality::{LogId, Seq, ShardId};
use tombolo_codec::Batch;
use tombolo_mutants::{Mutant, is_planted};

use crate::disk::Disk;
use crate::error::WalError;
use crate::journal::Journal;
use crate::journal::format::Entry;
use crate::log::{KnownEnd, WalSettings};
use crate::store::Store;

/// What happened to batches handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitEvent {
    /// Written, not synced; only where syncs are put off.
    Staged {
        /// Which log.
        log: LogId,
        /// Its last staged batch.
        through: Seq,
    },
    /// Survives a power cut.
    Durable {
        /// Which log.
        log: LogId,
        /// Its last durable batch.
        through: Seq,
    },
    /// Will not become durable in this process, whatever was said before; whether they are on the disk is unknown.
    Failed {
        /// Which log.
        log: LogId,
        /// The first of them.
        first: Seq,
        /// The last of them.
        last: Seq,
        /// Why.
        error: WalError,
    },
    /// The disk is full for this log; its batches wait.
    Stalled {
        /// Which log.
        log: LogId,
        /// What the disk said.
        error: WalError,
    },
    /// Every batch that waited is written.
    Resumed {
        /// Which log.
        log: LogId,
    },
    /// A group was synced, well or not.
    Synced {
        /// How long the syncs took.
        took: Duration,
        /// How many syncs of a file that was.
        syncs_count: usize,
        /// How many logs they made durable; none where only segments were synced whose journal is to be reused.
        logs_count: usize,
        /// How many batches they covered.
        batches_count: u64,
        /// How long these were.
        bytes_count: u64,
    },
}

/// How much one sync covered.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SyncedGroup {
    /// How many files were synced.
    pub syncs_count: usize,
    /// How many logs.
    pub logs_count: usize,
    /// How many batches.
    pub batches_count: u64,
    /// How long these were.
    pub bytes_count: u64,
}

/// The shards of one commit thread.
#[derive(Debug)]
pub struct GroupCommit<D: Disk> {
    stores: BTreeMap<ShardId, Store<D>>,
    journal: Option<Journal<D>>,
    waiting: BTreeMap<LogId, VecDeque<Batch>>,
    unsynced: BTreeMap<LogId, (Seq, Seq)>,
    staged: BTreeMap<LogId, Seq>,
    since_sync: SyncedGroup,
}

impl<D: Disk + Clone> GroupCommit<D> {
    /// Over these stores, with the journal of commit thread number `thread`. What its files held must have been
    /// [redone](crate::redo()). Where a full disk leaves no room for them, each sync of a group syncs its segments, until
    /// the next start.
    ///
    /// Errors: the disk's, but not that it is full.
    pub fn open(
        disk: &D,
        settings: WalSettings,
        thread: usize,
        stores: impl IntoIterator<Item = Store<D>>,
    ) -> Result<Self, WalError> {
        let journal = match Journal::open(disk, settings, thread) {
            Err(error) if error.is_full() => None,
            opened => Some(opened?),
        };
        Ok(Self { journal, ..Self::new(stores) })
    }

    /// Over these stores, without a journal: each sync of a group syncs every segment it touched.
    pub fn new(stores: impl IntoIterator<Item = Store<D>>) -> Self {
        Self {
            stores: stores.into_iter().map(|store| (store.shard(), store)).collect(),
            journal: None,
            waiting: BTreeMap::new(),
            unsynced: BTreeMap::new(),
            staged: BTreeMap::new(),
            since_sync: SyncedGroup::default(),
        }
    }

    /// The store of a shard.
    #[must_use]
    pub fn store(&self, shard: ShardId) -> Option<&Store<D>> {
        self.stores.get(&shard)
    }

    /// The store of a shard; batches go through [`GroupCommit::append`].
    pub fn store_mut(&mut self, shard: ShardId) -> Option<&mut Store<D>> {
        self.stores.get_mut(&shard)
    }

    /// All stores.
    pub fn stores(&self) -> impl Iterator<Item = &Store<D>> {
        self.stores.values()
    }

    /// Whether something waits for a sync.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.unsynced.is_empty()
    }

    /// How many batches wait for space, and how long they are.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let batches = self.waiting.values().flatten();
        batches.fold((0, 0), |(count, bytes), batch| (count + 1, bytes + batch.bytes().len()))
    }

    /// Stages a batch, or lets it wait behind those of its log that found no space.
    pub fn append(&mut self, batch: Batch, emit: &mut dyn FnMut(CommitEvent)) {
        let log = batch.header().log;
        if let Some(waiting) = self.waiting.get_mut(&log) {
            waiting.push_back(batch);
            return;
        }
        match self.stage(&batch) {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                emit(CommitEvent::Stalled { log, error });
                self.waiting.insert(log, VecDeque::from([batch]));
            }
            Err(error) => {
                let seq = batch.header().seq;
                emit(CommitEvent::Failed { log, first: seq, last: seq, error });
            }
        }
    }

    fn stage(&mut self, batch: &Batch) -> Result<(), WalError> {
        let (log, seq) = (batch.header().log, batch.header().seq);
        let store = self.stores.get_mut(&log.shard);
        let store =
            store.ok_or_else(|| WalError::WrongLog { expected: "other shards".to_owned(), found: log })?;
        store.append(batch)?;
        if let Some(journal) = &mut self.journal {
            let tail = store.log(log).and_then(|writer| writer.index().tail());
            let tail = tail.expect("a log that was appended to has a segment");
            let bytes = u32::try_from(batch.bytes().len()).expect("a batch is shorter than 4 GiB");
            let entry = Entry { first: tail.first, offset: tail.end - u64::from(bytes), bytes };
            journal.gather(log, entry, batch.bytes().clone());
        }
        self.unsynced.entry(log).or_insert((seq, seq)).1 = seq;
        self.staged.insert(log, seq);
        self.since_sync.batches_count += 1;
        self.since_sync.bytes_count += batch.bytes().len() as u64;
        Ok(())
    }

    /// Lets a log go on behind `end`; see [`Store::advance`]. What waits for space up to there is in what brought it there.
    ///
    /// Errors: as [`Store::advance`].
    pub fn advance(
        &mut self,
        log: LogId,
        end: KnownEnd,
        emit: &mut dyn FnMut(CommitEvent),
    ) -> Result<(), WalError> {
        if let Some(waiting) = self.waiting.get_mut(&log) {
            waiting.retain(|batch| batch.header().seq > end.seq);
            if waiting.is_empty() {
                self.waiting.remove(&log);
                emit(CommitEvent::Resumed { log });
            }
        }
        let store = self.stores.get_mut(&log.shard);
        let expected = || "other shards".to_owned();
        store.ok_or_else(|| WalError::WrongLog { expected: expected(), found: log })?.advance(log, end)
    }

    /// Says what was staged since the last call.
    pub fn report_staged(&mut self, emit: &mut dyn FnMut(CommitEvent)) {
        for (log, through) in std::mem::take(&mut self.staged) {
            emit(CommitEvent::Staged { log, through });
        }
    }

    /// Tries the batches that wait for space again, in order.
    pub fn retry(&mut self, emit: &mut dyn FnMut(CommitEvent)) {
        for (log, mut waiting) in std::mem::take(&mut self.waiting) {
            while let Some(batch) = waiting.front() {
                match self.stage(batch) {
                    Ok(()) => drop(waiting.pop_front()),
                    Err(error) if error.is_full() => break,
                    Err(error) => {
                        let (first, last) = ends(&waiting);
                        emit(CommitEvent::Failed { log, first, last, error });
                        waiting.clear();
                    }
                }
            }
            if waiting.is_empty() {
                emit(CommitEvent::Resumed { log });
            } else {
                self.waiting.insert(log, waiting);
            }
        }
    }

    /// Makes everything that was appended durable, and says what became so.
    pub fn sync(&mut self, emit: &mut dyn FnMut(CommitEvent)) -> SyncedGroup {
        let mut group = std::mem::take(&mut self.since_sync);
        let is_journaled = self.is_dirty()
            && self.commit(&mut group.syncs_count).unwrap_or_else(|error| {
                self.poison(&format!("the commit journal failed: {error}"));
                false
            });
        for store in self.stores.values_mut().filter(|store| store.is_dirty()) {
            let synced = if is_journaled { store.note_durable() } else { store.sync_dirty() };
            group.syncs_count += if is_journaled { 0 } else { synced.len() };
            for (log, synced) in synced {
                group.logs_count += 1;
                let range = self.unsynced.remove(&log);
                match (synced, range) {
                    (Ok(through), _) => emit(CommitEvent::Durable { log, through }),
                    (Err(error), Some((first, last))) => {
                        emit(CommitEvent::Failed { log, first, last, error })
                    }
                    (Err(_), None) => {}
                }
            }
        }
        // A log that was pruned away has nothing left to sync.
        self.unsynced.clear();
        group
    }

    /// Writes the group to the journal and syncs that, if there is a journal and the group is not too long for it.
    fn commit(&mut self, syncs_count: &mut usize) -> Result<bool, WalError> {
        let Some(journal) = &mut self.journal else { return Ok(false) };
        if journal.skip_long_group() {
            return Ok(false);
        }
        if !journal.has_room() {
            *syncs_count += self.settle_owed(true)? + 1;
            self.journal.as_mut().expect("it was there above").switch()?;
        }
        self.journal.as_mut().expect("it was there above").write()?;
        *syncs_count += 1;
        Ok(true)
    }

    /// Syncs some of the segments that keep a journal file from being overwritten, if any is due; says how many. To be
    /// called after each group, so that none has to wait for all of them.
    pub fn settle(&mut self) -> usize {
        self.settle_owed(false).unwrap_or_else(|error| {
            self.poison(&format!("a segment that the commit journal still holds was not synced: {error}"));
            0
        })
    }

    fn settle_owed(&mut self, is_all: bool) -> Result<usize, WalError> {
        let mut count = 0;
        let Some(journal) = &mut self.journal else { return Ok(0) };
        while let Some(log) = journal.next_owed(is_all) {
            if let Some(store) = self.stores.get_mut(&log.shard)
                && !is_planted(Mutant::JournalRecycledEarly)
            {
                store.settle(log)?;
            }
            journal.note_paid(log);
            count += 1;
        }
        Ok(count)
    }

    /// Closes all logs for writing. The journal stays as it is: the next start redoes it.
    fn poison(&mut self, reason: &str) {
        self.journal = None;
        self.stores.values_mut().for_each(|store| store.poison(reason));
    }

    /// Syncs all segments and voids the journal, so that the next start has nothing to redo; before the end of the
    /// process, after the last sync.
    ///
    /// Errors: the first; the next start redoes the journal, nothing is lost.
    pub fn close(mut self) -> Result<(), WalError> {
        let Some(mut journal) = self.journal.take() else { return Ok(()) };
        for store in self.stores.values_mut() {
            let logs: Vec<LogId> = store.logs().map(|writer| writer.log()).collect();
            for log in logs {
                store.settle(log)?;
            }
        }
        journal.void()?;
        Ok(())
    }

    /// Tries what still waits for space once more, and says of the rest that it failed; before the end of the process.
    pub fn give_up(&mut self, emit: &mut dyn FnMut(CommitEvent)) {
        self.retry(emit);
        for (log, waiting) in std::mem::take(&mut self.waiting) {
            let (first, last) = ends(&waiting);
            emit(CommitEvent::Failed { log, first, last, error: WalError::Stopped });
        }
    }
}

fn ends(waiting: &VecDeque<Batch>) -> (Seq, Seq) {
    let seq = |batch: Option<&Batch>| batch.map_or(Seq::ZERO, |batch| batch.header().seq);
    (seq(waiting.front()), seq(waiting.back()))
}

#[cfg(test)]
mod tests;
