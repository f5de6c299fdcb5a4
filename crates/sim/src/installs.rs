//! Differences on their way to the disk, as the daemon installs them: a checkpoint with what was fetched is made durable,
//! then the files of the logs go on behind it, and only then does the shard join it. Start at [`World::install`].

use std::collections::BTreeSet;

use tombolo_causality::{LogId, Seq};
use tombolo_codec::checkpoint::CellContent;
use tombolo_codec::{Checkpoint, PeerMessage};
use tombolo_mutants::{Mutant, is_planted};
use tombolo_replica::{Absent, Difference, Input, Moved, joined};
use tombolo_wal::write_checkpoint;

use crate::checks::Checked;
use crate::commit::without_entries;
use crate::plan::Fault;
use crate::queue::MS;
use crate::rare::Rare;
use crate::world::{CLUSTER, Event, World, region_of, shard_of};

/// What is durable as a checkpoint, and not joined yet.
#[derive(Debug, Clone)]
pub(crate) struct Install {
    difference: Box<Difference>,
    moved: Moved,
    /// Without its entries.
    checkpoint: Checkpoint,
    met: Vec<Rare>,
}

/// What is rare about a difference. Registers that go are told by the names before and after.
fn met(own: &Checkpoint, difference: &Difference, outcome: &Checkpoint, is_new: bool) -> Vec<Rare> {
    let mut met = Vec::new();
    let has = |seal: &tombolo_codec::checkpoint::SealedLog| own.sealed.iter().any(|it| it.seal == seal.seal);
    let stands = |seal: &tombolo_codec::checkpoint::SealedLog| {
        own.logs.iter().any(|end| (end.region, end.epoch) == (seal.seal.region, seal.seal.epoch))
    };
    if is_new {
        met.push(Rare::SnapshotInstalled);
    }
    if difference.absent == Absent::Unsent {
        met.push(Rare::DifferenceUnsummed);
    } else if difference.state.sealed.iter().any(|seal| !has(seal) && stands(seal)) {
        met.push(Rare::DifferenceFolded);
    }
    if !own.conditionals.is_empty() {
        met.push(Rare::InstalledAmidConditionals);
    }
    let registers = |of: &Checkpoint| -> BTreeSet<Vec<u8>> {
        let cells = of.cells.iter().filter(|cell| matches!(cell.content, CellContent::Register { .. }));
        cells.map(|cell| cell.key.clone()).collect()
    };
    if !registers(own).is_subset(&registers(outcome)) {
        met.push(Rare::AbsentDropped);
    }
    met
}

impl World {
    /// Makes a checkpoint with what was fetched durable.
    pub(crate) fn install(&mut self, node: usize, shard: usize, difference: Box<Difference>) -> Checked {
        let id = shard_of(shard);
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let thread = process.thread_of(id);
        // What was handed to the commit thread before comes first.
        if !process.threads[thread].inbox.is_empty() {
            self.queue.after(50, Event::Install { node, life, shard, difference });
            return Ok(());
        }
        let epoch = process.epoch;
        let own = process.shards[shard].replica.checkpoint();
        let (checkpoint, moved) = match joined(own.clone(), &difference) {
            Ok(joined) => joined,
            Err(error) => return Err(format!("C7: region {} cannot join: {error}", region_of(node))),
        };
        self.check_checkpoint(node, shard, &checkpoint)?;
        let is_former = |region, other| region == region_of(node) && other != epoch;
        let has_history = own.logs.iter().any(|end| is_former(end.region, end.epoch));
        let is_new = own.sealed.is_empty() && !has_history;
        let met = met(&own, &difference, &checkpoint, is_new);
        if is_planted(Mutant::InstalledBeforeDurable) {
            self.input(node, shard, Input::Installed { difference: difference.clone() })?;
        }
        let bytes = checkpoint.encode(CLUSTER, id).map_err(|error| error.to_string())?;
        self.strike_install(node);
        let disk = self.nodes[node].disk.clone();
        let written = write_checkpoint(&disk, id, &bytes);
        if self.is_power_gone(node) {
            return Ok(());
        }
        if let Err(error) = written {
            self.check_refused_checkpoint(&error)?;
            self.rare.count(Rare::InstallRefused);
            if let Some(process) = &mut self.nodes[node].process {
                process.shards[shard].has_failed_install = true;
            }
            return self.input(node, shard, Input::InstallFailed { text: error.to_string() });
        }
        self.strike_advance(node);
        let install = Install { difference, moved, checkpoint: without_entries(checkpoint), met };
        let delay = self.chance.range(20, 4_000);
        self.queue.after(delay, Event::Advance { node, life, shard, install: Box::new(install) });
        Ok(())
    }

    /// The files of the logs go on behind the checkpoint, then the shard joins the difference.
    pub(crate) fn advance(&mut self, node: usize, shard: usize, install: Install) -> Checked {
        let id = shard_of(shard);
        let Install { difference, moved, checkpoint, met } = install;
        let mut events = Vec::new();
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let thread = process.thread_of(id);
        process.checkpoints.insert(id, checkpoint);
        for end in moved.ends.iter().filter(|_| !is_planted(Mutant::LogsNotAdvanced)) {
            let log = LogId { shard: id, region: end.region, epoch: end.epoch };
            // A log that fails here takes no more batches; the next one tells.
            let _ = process.threads[thread].group.advance(log, end.into(), &mut |event| events.push(event));
        }
        if self.is_power_gone(node) {
            self.rare.count(Rare::InstallCutShort);
            return Ok(());
        }
        for end in &moved.ends {
            let log = LogId { shard: id, region: end.region, epoch: end.epoch };
            self.truth.synced(node, log, end.seq);
            self.note_jump(node, log, end.seq);
        }
        for &(region, epoch) in &moved.sealed {
            let log = LogId { shard: id, region, epoch };
            let end = self.truth.seals.get(&log).map_or(Seq::ZERO, |&(end, ..)| end);
            self.truth.synced(node, log, end);
        }
        let life = self.nodes[node].life;
        self.tell(node, events)?;
        if self.nodes[node].life != life {
            return Ok(());
        }
        self.rare.count(Rare::DifferenceInstalled);
        met.into_iter().for_each(|rare| self.rare.count(rare));
        if let Some(process) = &mut self.nodes[node].process
            && std::mem::take(&mut process.shards[shard].has_failed_install)
        {
            self.rare.count(Rare::InstallRetried);
        }
        if !is_planted(Mutant::InstalledBeforeDurable) {
            self.input(node, shard, Input::Installed { difference })?;
        }
        self.check_c7(node, shard)?;
        self.check_registers(node, shard)
    }

    /// Sometimes the disk fills up under the checkpoint, or the power goes within a few of the next operations.
    fn strike_install(&mut self, node: usize) {
        if self.is_struck_by(Fault::FullDisk) && self.chance.percent(15) {
            let space = self.chance.below(300);
            self.nodes[node].disk.memory().limit_space(Some(space));
            let delay = self.chance.range(100, 1_500) * MS;
            self.queue.after(delay, Event::Space { node });
        } else if self.is_struck_by(Fault::PowerCutInside) && self.chance.percent(10) {
            self.cut_within(node, 14);
        }
    }

    /// Sometimes the power goes before the files of all logs go on behind the checkpoint.
    fn strike_advance(&mut self, node: usize) {
        if self.is_struck_by(Fault::PowerCutInside) && self.chance.percent(20) {
            self.cut_within(node, 8);
        }
    }

    fn is_struck_by(&self, fault: Fault) -> bool {
        !self.is_healing && self.plan.faults.iter().any(|&(other, _)| other == fault)
    }

    fn cut_within(&mut self, node: usize, operations_max: u64) {
        if !self.nodes[node].disk.is_armed() {
            let operations = self.chance.below(operations_max);
            self.nodes[node].disk.cut_after(operations);
        }
    }

    /// What is said of cuts; sometimes the connection ends when one was opened on it.
    pub(crate) fn note_said(&mut self, node: usize, peer: usize, message: &PeerMessage) {
        match message {
            // Worlds begin with fewer: see `plan.rs`.
            PeerMessage::CutAsk { digest_bytes: 8, .. } => self.rare.count(Rare::DigestsInFull),
            PeerMessage::CutRefused { .. } => self.rare.count(Rare::CutRefused),
            PeerMessage::Entries { rest, .. } if !rest.is_empty() => self.rare.count(Rare::EntriesSplit),
            PeerMessage::Cut { .. } => {
                if !self.is_struck_by(Fault::Break) || !self.chance.percent(20) {
                    return;
                }
                let process = self.nodes[node].process.as_ref();
                let Some(link) = process.and_then(|process| process.links.get(&peer)) else { return };
                let id = link.connection;
                let Some(connection) = self.net.connections.get(&id) else { return };
                let (end, delay) = (connection.end_of(node), self.chance.range(1, 300) * MS);
                self.queue.after(delay, Event::LinkLost { connection: id, end });
            }
            _ => {}
        }
    }

    /// A connection is about to end, and what is being fetched on it.
    pub(crate) fn count_given_up(&mut self, node: usize, peer: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let fetching = process.shards.iter().filter_map(|shard| shard.replica.fetching());
        let lost = fetching.filter(|fetch| fetch.from == region_of(peer) && !fetch.is_installing).count();
        (0..lost).for_each(|_| self.rare.count(Rare::FetchGivenUp));
    }
}
