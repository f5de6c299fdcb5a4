//! The disk at work: commit threads, reads for peers, checkpoints and pruning, as the daemon runs them.

use tombolo_causality::{LogId, RegionId, Seq};
use tombolo_codec::{Batch, Checkpoint, Position};
use tombolo_replica::{Input, Link};
use tombolo_wal::{CommitEvent, WalError, write_checkpoint};

use crate::checks::Checked;
use crate::queue::{MS, Micros};
use crate::rare::Rare;
use crate::sabotage::Sabotage;
use crate::world::{CLUSTER, Event, World};

/// Time between two attempts to write what found no space.
const RETRY_SPACE_EVERY: Micros = 100 * MS;

impl World {
    /// A replica wants a batch written: its commit thread takes it when it is next free.
    pub(crate) fn append(&mut self, node: usize, batch: Batch) -> Checked {
        let digest = u64::from_le_bytes(*batch.header().digest.0.first_chunk().expect("digests are longer"));
        self.hash.mix(digest);
        self.check_appended(node, &batch)?;
        if self.sabotage == Sabotage::EarlyAcks && batch.header().log.region != self.nodes[node].id {
            let position = Position { log: batch.header().log, seq: batch.header().seq };
            self.board_acks(node, position);
        }
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let at = process.thread_of(batch.header().log.shard);
        let thread = &mut process.threads[at];
        thread.inbox.push_back(batch);
        if !std::mem::replace(&mut thread.is_busy, true) {
            let delay = self.chance.range(5, 60);
            self.queue.after(delay, Event::Commit { node, life, thread: at });
        }
        Ok(())
    }

    /// A commit thread takes what waits, writes it, and begins to sync.
    pub(crate) fn commit(&mut self, node: usize, thread: usize) -> Checked {
        let mut events = Vec::new();
        let is_relaxed = self.nodes[node].is_relaxed;
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let target = &mut process.threads[thread];
        for batch in std::mem::take(&mut target.inbox) {
            target.group.append(batch, &mut |event| events.push(event));
        }
        if is_relaxed {
            target.group.report_staged(&mut |event| events.push(event));
        }
        let waits = target.group.waiting().0 > 0 && !std::mem::replace(&mut target.is_retry_due, true);
        let life = self.nodes[node].life;
        if waits {
            self.queue.after(RETRY_SPACE_EVERY, Event::RetrySpace { node, life, thread });
        }
        let now = self.queue.now();
        let mut delay = 20 + self.chance.around(self.nodes[node].sync_takes);
        if self.nodes[node].slow_until > now {
            delay += self.nodes[node].slow_until - now;
        }
        if is_relaxed {
            delay += self.chance.range(1, 20) * MS;
        }
        self.queue.after(delay, Event::Synced { node, life, thread });
        self.tell(node, events)
    }

    /// A commit thread's sync ends.
    pub(crate) fn synced(&mut self, node: usize, thread: usize) -> Checked {
        let mut events = Vec::new();
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let target = &mut process.threads[thread];
        if target.group.is_dirty() {
            target.group.sync(&mut |event| events.push(event));
            target.group.settle();
        }
        target.is_busy = !target.inbox.is_empty();
        let is_busy = target.is_busy;
        if self.sabotage == Sabotage::FailedSyncsHidden {
            for event in &mut events {
                if let CommitEvent::Failed { log, last, .. } = *event {
                    *event = CommitEvent::Durable { log, through: last };
                }
            }
        }
        let life = self.nodes[node].life;
        if is_busy {
            self.queue.after(5, Event::Commit { node, life, thread });
        }
        self.tell(node, events)
    }

    pub(crate) fn retry_space(&mut self, node: usize, thread: usize) -> Checked {
        let mut events = Vec::new();
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let target = &mut process.threads[thread];
        target.group.retry(&mut |event| events.push(event));
        target.is_retry_due = target.group.waiting().0 > 0;
        let is_retry_due = target.is_retry_due;
        let is_sync_due = target.group.is_dirty() && !std::mem::replace(&mut target.is_busy, true);
        let life = self.nodes[node].life;
        if is_retry_due {
            self.queue.after(RETRY_SPACE_EVERY, Event::RetrySpace { node, life, thread });
        }
        if is_sync_due {
            self.queue.after(500, Event::Synced { node, life, thread });
        }
        self.tell(node, events)
    }

    /// Passes a commit thread's events on, unless the power went meanwhile: then nobody hears of them.
    pub(crate) fn tell(&mut self, node: usize, events: Vec<CommitEvent>) -> Checked {
        if self.is_power_gone(node) {
            return Ok(());
        }
        let life = self.nodes[node].life;
        for event in events {
            if self.nodes[node].life != life {
                return Ok(());
            }
            self.tell_one(node, event)?;
        }
        Ok(())
    }

    fn tell_one(&mut self, node: usize, event: CommitEvent) -> Checked {
        match event {
            CommitEvent::Staged { log, through } => {
                self.input(node, usize::from(log.shard.0), Input::Staged { log, through })
            }
            CommitEvent::Durable { log, through } => {
                self.check_durable(node, log, through)?;
                self.truth.synced(node, log, through);
                self.input(node, usize::from(log.shard.0), Input::Durable { log, through })
            }
            CommitEvent::Failed { log, error, .. } => {
                self.trace(|| format!("region {}: {log:?} failed: {error}", node + 1));
                self.rare.count(Rare::SyncFailed);
                self.checks.w5.failed((node, self.nodes[node].life, log));
                if let Some(process) = &mut self.nodes[node].process
                    && !std::mem::replace(&mut process.is_restart_due, true)
                {
                    // Somebody looks at it, and restarts it.
                    let delay = self.chance.range(500, 4_000) * MS;
                    let life = self.nodes[node].life;
                    self.queue.after(delay, Event::Restart { node, life });
                }
                self.input(
                    node,
                    usize::from(log.shard.0),
                    Input::StorageFailed { log, text: error.to_string() },
                )
            }
            CommitEvent::Stalled { log, .. } => {
                self.rare.count(Rare::DiskFull);
                self.set_stalled(node, log, true)
            }
            CommitEvent::Resumed { log } => {
                self.rare.count(Rare::StalledDiskResumed);
                self.set_stalled(node, log, false)
            }
            CommitEvent::Synced { .. } => Ok(()),
        }
    }

    /// A shard's disk is full while any of its logs waits for room.
    fn set_stalled(&mut self, node: usize, log: LogId, is_stalled: bool) -> Checked {
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let is_any =
            |process: &crate::node::Process| process.stalled.iter().any(|one| one.shard == log.shard);
        let was_full = is_any(process);
        if is_stalled {
            process.stalled.insert(log);
        } else {
            process.stalled.remove(&log);
        }
        let is_full = is_any(process);
        if is_full == was_full {
            return Ok(());
        }
        self.input(node, usize::from(log.shard.0), Input::StorageFull { is_full })
    }

    /// Whether the power went in the middle of what was just done; then the process is over.
    pub(crate) fn is_power_gone(&mut self, node: usize) -> bool {
        if !self.nodes[node].disk.is_cut() {
            return false;
        }
        self.rare.count(Rare::PowerCutInside);
        self.crash(node, true);
        true
    }

    /// Reads a log's files for a peer.
    pub(crate) fn load(
        &mut self,
        node: usize,
        (peer, link): (RegionId, Link),
        (log, from): (LogId, Seq),
        bytes_max: usize,
    ) -> Checked {
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        let store = process.threads[process.thread_of(log.shard)].group.store(log.shard);
        let read = store.map(|store| store.read(log, from, bytes_max));
        if self.is_power_gone(node) {
            return Ok(());
        }
        let batches = match read {
            Some(Ok(batches)) => batches,
            Some(Err(error)) => {
                self.check_unreadable(node, &error)?;
                Vec::new()
            }
            None => Vec::new(),
        };
        if !batches.is_empty() {
            self.rare.count(Rare::ServedFromFiles);
        }
        self.input(node, usize::from(log.shard.0), Input::Loaded { peer, link, log, batches })
    }

    /// Writes a checkpoint of every shard, then prunes what the one before it and every member cover.
    pub(crate) fn checkpoint(&mut self, node: usize) -> Checked {
        let life = self.nodes[node].life;
        for shard in self.shard_ids() {
            let Some(replica) = self.nodes[node].replica(usize::from(shard.0)) else { return Ok(()) };
            let checkpoint = replica.checkpoint();
            let bytes = checkpoint.encode(CLUSTER, shard).map_err(|error| error.to_string())?;
            let disk = self.nodes[node].disk.clone();
            let written = write_checkpoint(&disk, shard, &bytes);
            if self.is_power_gone(node) {
                return Ok(());
            }
            match written {
                Ok(()) if self.plan.is_pruning => self.prune(node, shard, checkpoint)?,
                Ok(()) => {}
                Err(error) => self.check_refused_checkpoint(&error)?,
            }
            if self.nodes[node].life != life {
                return Ok(());
            }
        }
        if let Some(every) = self.plan.checkpoint_every {
            let delay = self.chance.around(every);
            self.queue.after(delay, Event::Checkpoint { node, life });
        }
        Ok(())
    }

    fn prune(&mut self, node: usize, shard: tombolo_causality::ShardId, checkpoint: Checkpoint) -> Checked {
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let Some(before) = process.checkpoints.insert(shard, without_entries(checkpoint)) else {
            return Ok(());
        };
        let is_bounded = self.plan.is_retention_short;
        let prunable = process.shards[usize::from(shard.0)].replica.prunable(&before, is_bounded);
        let thread = process.thread_of(shard);
        let Some(store) = process.threads[thread].group.store_mut(shard) else { return Ok(()) };
        let mut failed: Option<WalError> = None;
        let mut pruned_count = 0;
        for (position, has_ended) in prunable {
            let pruned = if !has_ended {
                store.prune(position.log, position.seq)
            } else if process.pruned.insert(position.log) {
                store.prune_log(position.log).map(|()| 1)
            } else {
                Ok(0)
            };
            match pruned {
                Ok(count) => pruned_count += count,
                Err(error) => failed = Some(error),
            }
        }
        (0..pruned_count).for_each(|_| self.rare.count(Rare::Pruned));
        if self.is_power_gone(node) {
            return Ok(());
        }
        failed.map_or(Ok(()), |error| Err(format!("pruning failed: {error}")))
    }
}

pub(crate) fn without_entries(checkpoint: Checkpoint) -> Checkpoint {
    let Checkpoint { clock, logs, sealed, .. } = checkpoint;
    Checkpoint { clock, logs, sealed, ..Checkpoint::default() }
}
