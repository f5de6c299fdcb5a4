//! [`Store`]: all logs of one shard on one disk.
//!
//! One owner; never syncs by itself. Start at [`Store::open`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tombolo_causality::{LogId, Seq, ShardId};
use tombolo_codec::Batch;

use crate::checkpoint::make_shard_dir;
use crate::disk::{Disk, list_if_there, remove_if_there};
use crate::error::WalError;
use crate::index::LogIndex;
use crate::log::{KnownEnd, LogWriter, WalSettings};
use crate::quarantine;
use crate::recovery::{RecoveredLog, recover_logs};
use crate::repair;
use crate::segment::{log_dir, parse_log_name, shard_dir};

/// Logs beyond this many let go of their open file once it is synced.
const OPEN_TAILS_MAX: usize = 32;

/// What of a log a shard can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MayGo {
    /// Which log.
    pub log: LogId,
    /// All through this.
    pub through: Seq,
    /// Whether that is all there will ever be of it.
    pub has_ended: bool,
}

/// The logs of one shard.
#[derive(Debug)]
pub struct Store<D: Disk> {
    disk: D,
    settings: WalSettings,
    shard: ShardId,
    logs: BTreeMap<LogId, LogWriter<D>>,
    dirty: BTreeSet<LogId>,
    poison: Option<String>,
}

impl<D: Disk + Clone> Store<D> {
    /// Recovers every log of the shard, one after the other, in the order of their ids: `known` is what the shard's
    /// checkpoint says of them, `each` is given the batches behind it.
    ///
    /// Logs that are known but have no file (sealed and pruned, or taken over in a snapshot) get a writer that goes on
    /// behind the known end.
    ///
    /// Errors: [`WalError::WrongCluster`], or the disk's. Damage is not an error: [`RecoveredLog::damage`].
    pub fn open(
        disk: D,
        settings: WalSettings,
        shard: ShardId,
        known: &BTreeMap<LogId, KnownEnd>,
        each: &mut dyn FnMut(Batch),
    ) -> Result<(Self, Vec<RecoveredLog>), WalError> {
        make_shard_dir(&disk, shard)?;
        let names = disk.list(&shard_dir(shard))?;
        let mut logs: BTreeSet<LogId> = names.iter().filter_map(|name| parse_log_name(shard, name)).collect();
        logs.extend(known.keys().filter(|log| log.shard == shard));
        let mut store =
            Self { disk, settings, shard, logs: BTreeMap::new(), dirty: BTreeSet::new(), poison: None };
        let mut recovered = Vec::new();
        for (writer, found) in recover_logs(&store.disk, settings, &logs, known, each)? {
            store.logs.insert(found.log, writer);
            recovered.push(found);
        }
        Ok((store, recovered))
    }

    /// The shard.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// Its logs.
    pub fn logs(&self) -> impl Iterator<Item = &LogWriter<D>> {
        self.logs.values()
    }

    /// One of them.
    #[must_use]
    pub fn log(&self, log: LogId) -> Option<&LogWriter<D>> {
        self.logs.get(&log)
    }

    fn writer(&mut self, log: LogId) -> Result<&mut LogWriter<D>, WalError> {
        if log.shard != self.shard {
            return Err(WalError::WrongLog { expected: format!("shard {}", self.shard), found: log });
        }
        let (disk, settings, poison) = (&self.disk, self.settings, &self.poison);
        Ok(self.logs.entry(log).or_insert_with(|| {
            let index = LogIndex::default();
            let mut writer = LogWriter::new(disk.clone(), settings, log, index, KnownEnd::START);
            poison.iter().for_each(|reason| writer.poison(reason));
            writer
        }))
    }

    /// Stages a batch of any log of the shard; a log not seen before begins with its first batch.
    ///
    /// Errors: those of [`LogWriter::append`], and [`WalError::WrongLog`] for another shard's batch.
    pub fn append(&mut self, batch: &Batch) -> Result<(), WalError> {
        let log = batch.header().log;
        self.writer(log)?.append(batch)?;
        self.dirty.insert(log);
        Ok(())
    }

    /// Whether something waits for a sync.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Notes that a journal holds everything appended, durably; says for each log that was appended to through which
    /// seq it is durable.
    pub(crate) fn note_durable(&mut self) -> Vec<(LogId, Result<Seq, WalError>)> {
        self.each_dirty(LogWriter::note_durable)
    }

    fn each_dirty(
        &mut self,
        run: impl Fn(&mut LogWriter<D>) -> Result<Seq, WalError>,
    ) -> Vec<(LogId, Result<Seq, WalError>)> {
        let dirty = std::mem::take(&mut self.dirty).into_iter();
        dirty.map(|log| (log, run(self.logs.get_mut(&log).expect("a dirty log has a writer")))).collect()
    }

    /// Syncs the segment of a log that a journal made durable; a log that was pruned away has none.
    ///
    /// Errors: as [`LogWriter::sync`].
    pub(crate) fn settle(&mut self, log: LogId) -> Result<(), WalError> {
        let is_crowded = self.logs.values().filter(|writer| writer.is_open()).count() > OPEN_TAILS_MAX;
        let Some(writer) = self.logs.get_mut(&log) else { return Ok(()) };
        writer.sync()?;
        if is_crowded {
            writer.close();
        }
        Ok(())
    }

    /// Closes all logs for writing, those to come too (W5).
    pub(crate) fn poison(&mut self, reason: &str) {
        self.logs.values_mut().for_each(|writer| writer.poison(reason));
        self.poison = Some(reason.to_owned());
    }

    /// Syncs every log that was appended to, and says for each through which seq it is durable.
    pub fn sync_dirty(&mut self) -> Vec<(LogId, Result<Seq, WalError>)> {
        let synced = self.each_dirty(LogWriter::sync);
        if self.logs.values().filter(|writer| writer.is_open()).count() > OPEN_TAILS_MAX {
            let just_used: BTreeSet<LogId> = synced.iter().map(|(log, _)| *log).collect();
            let idle = self.logs.values_mut().filter(|writer| !just_used.contains(&writer.log()));
            idle.filter(|writer| !writer.is_file_dirty()).for_each(LogWriter::close);
        }
        synced
    }

    /// Reads durable batches of a log from `from` on; see [`LogIndex::read`].
    ///
    /// Errors: those of [`LogIndex::read`]; for a log that is not here, [`WalError::NotRetained`].
    pub fn read(&self, log: LogId, from: Seq, bytes_max: usize) -> Result<Vec<Batch>, WalError> {
        let writer = self.logs.get(&log).ok_or(WalError::NotRetained { log, from, first: None })?;
        writer.read(from, bytes_max)
    }

    /// Lets a log go on behind `end`; see [`LogWriter::advance`].
    ///
    /// Errors: as [`LogWriter::sync`].
    pub fn advance(&mut self, log: LogId, end: KnownEnd) -> Result<(), WalError> {
        self.writer(log)?.advance(end)
    }

    /// The batches that follow a log's end in its quarantined files, up to `bytes_max`: whole ones behind a gap that
    /// has been filled from peers. The caller appends them like those of a peer.
    ///
    /// Errors: the disk's.
    pub fn salvage(&self, log: LogId, bytes_max: usize) -> Result<Vec<Batch>, WalError> {
        let end = self.logs.get(&log).map_or(KnownEnd::START, LogWriter::end);
        quarantine::salvage(&self.disk, self.settings, log, end, bytes_max)
    }

    /// Removes the segments of a log that hold nothing above `through`; see [`LogWriter::prune`]. Says how many.
    ///
    /// Errors: the disk's.
    pub fn prune(&mut self, log: LogId, through: Seq) -> Result<usize, WalError> {
        self.logs.get_mut(&log).map_or(Ok(0), |writer| writer.prune(through))
    }

    /// Removes a log that another one has sealed, with all its files.
    ///
    /// Errors: the disk's.
    pub fn prune_log(&mut self, log: LogId) -> Result<(), WalError> {
        self.logs.remove(&log);
        self.dirty.remove(&log);
        let dir = log_dir(log);
        repair::finish(&self.disk, log)?;
        let names = list_if_there(&self.disk, &dir)?;
        for name in &names {
            remove_if_there(&self.disk, &format!("{dir}/{name}"))?;
        }
        match self.disk.remove_dir(&dir) {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        self.disk.sync_dir(&shard_dir(self.shard))?;
        Ok(())
    }

    /// Removes what may go of the logs, as little as possible, until the shard's files are no longer than `bytes_max`:
    /// logs that have ended first, as a whole, then segments of the log that has most to give, the oldest first. Of
    /// every log that stands its newest segment stays. Gives through where the batches of which logs went.
    ///
    /// Errors: the disk's.
    pub fn shrink(&mut self, ends: &[MayGo], bytes_max: u64) -> Result<Vec<(LogId, Seq)>, WalError> {
        let mut gone = Vec::new();
        for end in ends.iter().filter(|end| end.has_ended) {
            if self.bytes_on_disk() <= bytes_max {
                return Ok(gone);
            }
            if self.logs.get(&end.log).is_some_and(|writer| writer.index().bytes_on_disk() > 0) {
                self.prune_log(end.log)?;
                gone.push((end.log, end.through));
            }
        }
        for (log, through) in self.to_shrink(ends, bytes_max) {
            self.prune(log, through)?;
            gone.push((log, through));
        }
        Ok(gone)
    }

    fn to_shrink(&self, ends: &[MayGo], bytes_max: u64) -> BTreeMap<LogId, Seq> {
        let mut excess = self.bytes_on_disk().saturating_sub(bytes_max);
        let standing = ends.iter().filter(|end| !end.has_ended).filter_map(|end| {
            let writer = self.logs.get(&end.log)?;
            let segments: VecDeque<_> =
                writer.index().prunable(end.through.min(writer.durable_through())).collect();
            let bytes: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
            Some((end.log, bytes, segments))
        });
        let mut standing: Vec<_> = standing.collect();
        let mut gone = BTreeMap::new();
        while excess > 0
            && let Some((log, bytes, segments)) = standing.iter_mut().max_by_key(|(_, bytes, _)| *bytes)
            && let Some((last, segment_bytes)) = segments.pop_front()
        {
            *bytes -= segment_bytes;
            excess = excess.saturating_sub(segment_bytes);
            gone.insert(*log, last);
        }
        gone
    }

    /// Length of all segment files of the shard.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        self.logs.values().map(|writer| writer.index().bytes_on_disk()).sum()
    }
}

#[cfg(test)]
mod tests;
