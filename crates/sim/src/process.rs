//! Starts and ends of processes: recovery of every shard as the daemon does it, and what a crash leaves behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tombolo_causality::{Epoch, LogId, Seq, ShardId, VersionVector};
use tombolo_codec::{Checkpoint, Position, Schema};
use tombolo_mutants::{Mutant, is_planted};
use tombolo_replica::{Durability, Options, Replica};
use tombolo_wal::{
    DamageKind, Disk, GroupCommit, Manifest, RecoveredLog, Store, WalError, WalSettings, known_ends,
    read_checkpoint, redo,
};

use crate::checks::Checked;
use crate::cut_disk::CutDisk;
use crate::node::{CommitThread, Process, Shard};
use crate::queue::{MS, Micros};
use crate::rare::Rare;
use crate::sabotage::Sabotage;
use crate::world::{CLUSTER, Event, World, region_of, shard_of};

/// Where the manifest lies.
const MANIFEST: &str = "manifest";
/// Time between two looks after what has expired.
const TICK_EVERY: Micros = 1_000 * MS;
/// How far ahead of a region's clock a stamp may lie.
pub(crate) const DRIFT_MS_MAX: u64 = 500;

/// What recovery made of one shard.
pub(crate) struct Recovered {
    pub(crate) replica: Replica,
    pub(crate) shard: ShardId,
    pub(crate) logs: Vec<RecoveredLog>,
    /// The checkpoint it began with, and how many were damaged.
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) damaged_checkpoints: usize,
    pub(crate) refused: Vec<String>,
}

/// The log that a segment belongs to.
fn log_of(path: &str) -> Option<LogId> {
    let mut parts = path.split('/').skip(1);
    let (shard, name) = (parts.next()?, parts.next()?);
    let shard = tombolo_wal::segment::parse_shard_name(shard)?;
    tombolo_wal::segment::parse_log_name(shard, name)
}

impl World {
    pub(crate) fn settings(&self, node: usize) -> WalSettings {
        let mut settings = WalSettings::new(CLUSTER, region_of(node));
        settings.segment_bytes = self.plan.segment_bytes;
        settings.journal_bytes = self.plan.journal_bytes;
        settings
    }

    pub(crate) fn options(&self, node: usize, shard: ShardId, epoch: Epoch) -> Options {
        let is_relaxed = self.nodes[node].is_relaxed;
        Options {
            cluster: CLUSTER,
            shard,
            region: region_of(node),
            epoch,
            roster: self.nodes[node].document.roster(region_of(node)),
            durability: if is_relaxed { Durability::Relaxed } else { Durability::Sync },
            schema: Arc::new(Schema::default()),
            drift_ms_max: DRIFT_MS_MAX,
            session_numbers_max: self.plan.session_numbers_max,
            window_ms: self.plan.window / MS,
            peer_limits: self.plan.peer_limits,
        }
    }

    /// Starts a process. One that the power or a full disk stops is tried again.
    pub(crate) fn boot(&mut self, node: usize, life: u64) -> Checked {
        if self.nodes[node].life != life || self.nodes[node].is_up() {
            return Ok(());
        }
        let drawn = self.chance.wide();
        let epoch = Epoch(if is_planted(Mutant::ReuseEpoch) { node as u128 + 1 } else { drawn });
        match self.recover_all(node, epoch) {
            Ok((recovered, threads)) => {
                if self.nodes[node].disk.is_cut() {
                    return Err("a recovery went on after the power had gone".to_owned());
                }
                self.launch(node, epoch, recovered, threads)
            }
            Err(_) if self.nodes[node].disk.is_cut() => {
                self.rare.count(Rare::PowerCutInRecovery);
                self.crash(node, true);
                Ok(())
            }
            Err(WalError::Manifest { .. }) if self.nodes[node].manifest.is_some() => {
                self.rare.count(Rare::ManifestRefused);
                let bytes = self.nodes[node].manifest.take().expect("just seen");
                self.nodes[node].disk.memory().fail_syncs(0);
                let disk = self.nodes[node].disk.memory();
                let file = disk.open(MANIFEST).map_err(|error| error.to_string())?;
                disk.write_at(&file, 0, &bytes)
                    .and_then(|()| disk.sync_data(&file))
                    .map_err(|e| e.to_string())?;
                self.queue.after(100 * MS, Event::Boot { node, life });
                Ok(())
            }
            Err(error) if error.is_full() => {
                self.queue.after(300 * MS, Event::Boot { node, life });
                Ok(())
            }
            // A sync that fails while recovering ends the process, and the next one tries again.
            Err(WalError::Disk(error)) if error.to_string().contains("injected") => {
                self.queue.after(300 * MS, Event::Boot { node, life });
                Ok(())
            }
            Err(error) => Err(format!("region {} does not start: {error}", region_of(node))),
        }
    }

    fn recover_all(
        &mut self,
        node: usize,
        epoch: Epoch,
    ) -> Result<(Vec<Recovered>, Vec<CommitThread>), WalError> {
        let disk = self.nodes[node].disk.clone();
        let shards_count = self.plan.shards;
        Manifest { cluster: CLUSTER, region: region_of(node), shards_count }.claim(&disk)?;
        if self.nodes[node].manifest.take().is_some() {
            // The flipped bit went unnoticed: the check below names it.
            return Err(WalError::Manifest {
                path: MANIFEST.to_owned(),
                what: "W3: a damaged manifest was accepted",
            });
        }
        let redone = redo(&disk, self.settings(node))?;
        (0..redone.batches_count).for_each(|_| self.rare.count(Rare::JournalRedone));
        if let Some(damage) = redone.damage.first() {
            return Err(WalError::Manifest {
                path: damage.path.clone(),
                what: "W3: a journal that nothing damaged is said to be",
            });
        }
        let mut all = Vec::new();
        let mut stores: Vec<Vec<Store<CutDisk>>> = (0..self.plan.threads).map(|_| Vec::new()).collect();
        for shard in (0..shards_count).map(ShardId) {
            let (found, store) = self.recover(node, shard, epoch)?;
            stores[usize::from(shard.0) % self.plan.threads].push(store);
            all.push(found);
        }
        let mut threads = Vec::new();
        for (thread, stores) in stores.into_iter().enumerate() {
            let group = GroupCommit::open(&disk, self.settings(node), thread, stores)?;
            threads.push(CommitThread { group, inbox: VecDeque::new(), is_busy: false, is_retry_due: false });
        }
        Ok((all, threads))
    }

    fn recover(
        &self,
        node: usize,
        shard: ShardId,
        epoch: Epoch,
    ) -> Result<(Recovered, Store<CutDisk>), WalError> {
        let disk = self.nodes[node].disk.clone();
        let found = read_checkpoint(&disk, shard, |bytes| Checkpoint::decode(&bytes, CLUSTER, shard))?;
        let checkpoint = found.checkpoint;
        let known = checkpoint.as_ref().map(|checkpoint| known_ends(shard, checkpoint)).unwrap_or_default();
        let mut replica = Replica::open(self.options(node, shard, epoch), checkpoint.as_ref());
        let mut refused = Vec::new();
        let mut each = |batch: tombolo_codec::Batch| {
            if let Err(why) = replica.replay(&batch) {
                refused.push(why);
            }
        };
        let (store, logs) = Store::open(disk, self.settings(node), shard, &known, &mut each)?;
        let damaged_checkpoints = found.damaged.len();
        Ok((Recovered { shard, replica, logs, checkpoint, damaged_checkpoints, refused }, store))
    }

    fn launch(
        &mut self,
        node: usize,
        epoch: Epoch,
        recovered: Vec<Recovered>,
        threads: Vec<CommitThread>,
    ) -> Checked {
        self.hash.mix(epoch.0 as u64);
        for (shard, found) in recovered.iter().enumerate() {
            self.count_damage(found);
            self.check_recovered(node, shard, found)?;
        }
        let is_rolled_back = self.nodes[node].is_rolled_back || self.nodes[node].is_rotten;
        self.nodes[node].is_rotten = false;
        self.nodes[node].is_ignorant |= is_rolled_back;
        if is_rolled_back {
            self.reassess_fates();
            self.checks.h1.forget_lost(&self.truth);
        }
        let mut shards = Vec::new();
        for found in recovered {
            shards.push(Shard {
                recovered_queue_bytes: found.replica.burden().queue_bytes,
                replica: found.replica,
                is_flush_due: false,
                is_whole: false,
                paused: BTreeSet::new(),
                seen: VersionVector::new(),
                barriers: BTreeMap::new(),
                has_failed_install: false,
            });
        }
        let others = (0..self.nodes.len()).filter(|&other| other != node);
        let others_held =
            others.flat_map(|other| self.truth.held[other].iter().map(move |(&log, &seq)| (other, log, seq)));
        let others_held = others_held.collect();
        self.nodes[node].process = Some(Process {
            epoch,
            started: self.queue.now(),
            shards,
            threads,
            stalled: BTreeSet::new(),
            links: BTreeMap::new(),
            acks: vec![BTreeMap::new(); self.nodes.len()],
            next_link: 1,
            checkpoints: BTreeMap::new(),
            pruned: BTreeSet::new(),
            is_clock_ahead: false,
            is_restart_due: false,
            others_held,
        });
        for shard in 0..usize::from(self.plan.shards) {
            let vector = self.vector(node, shard);
            self.nodes[node].process.as_mut().expect("just started").shards[shard].seen = vector;
            self.look_at(node, shard)?;
            let now = self.nodes[node].now(self.queue.now());
            if let Some(process) = &mut self.nodes[node].process {
                process.shards[shard].replica.start(now);
            }
            self.run_effects(node, shard)?;
        }
        let life = self.nodes[node].life;
        for peer in (0..self.nodes.len()).filter(|&peer| peer != node) {
            let (from, to) = (node.min(peer), node.max(peer));
            let delay = self.chance.range(1, 250) * MS;
            let life = self.nodes[from].life;
            self.queue.after(delay, Event::Dial { from, to, life });
        }
        self.queue.after(TICK_EVERY, Event::Tick { node, life });
        if let Some(every) = self.plan.checkpoint_every {
            let delay = self.chance.around(every);
            self.queue.after(delay, Event::Checkpoint { node, life });
        }
        Ok(())
    }

    /// Shards look after what has expired.
    pub(crate) fn tick(&mut self, node: usize) -> Checked {
        let life = self.nodes[node].life;
        self.queue.after(TICK_EVERY, Event::Tick { node, life });
        self.input_all(node, || tombolo_replica::Input::Tick)
    }

    fn count_damage(&mut self, found: &Recovered) {
        if found.checkpoint.is_some() {
            self.rare.count(Rare::StartedFromCheckpoint);
        }
        if found.damaged_checkpoints > 0 && found.checkpoint.is_some() {
            self.rare.count(Rare::CheckpointFellBack);
        }
        for damage in found.logs.iter().flat_map(|log| &log.damage) {
            let is_torn = damage.kind == DamageKind::Torn;
            self.rare.count(if is_torn { Rare::TornTailCut } else { Rare::Quarantined });
        }
    }

    /// Ends a process: with the power, or alone. It starts again after a while.
    pub(crate) fn crash(&mut self, node: usize, is_power: bool) {
        self.stop(node, is_power);
        let life = self.nodes[node].life;
        let delay = if self.chance.percent(70) {
            self.chance.range(20, 1_500)
        } else {
            self.chance.range(1_500, 9_000)
        };
        let delay: Micros = if self.is_healing { 20 * MS } else { delay * MS };
        self.queue.after(delay, Event::Boot { node, life });
        if !self.is_healing && self.chance.percent(5) {
            // It does not even come to recover.
            let operations = self.chance.range(1, 60);
            self.nodes[node].disk.cut_after(operations);
        }
    }

    /// Ends a process for good.
    pub(crate) fn stop(&mut self, node: usize, is_power: bool) {
        self.trace(|| format!("region {} dies, with the power: {is_power}", region_of(node)));
        self.rare.count(if is_power { Rare::PowerCut } else { Rare::Killed });
        let target = &mut self.nodes[node];
        target.life += 1;
        target.disk.mend();
        let links: Vec<u64> = target
            .process
            .take()
            .map_or_else(Vec::new, |process| process.links.values().map(|link| link.connection).collect());
        if is_power {
            let seed = self.chance.next();
            target.disk.memory().power_loss(seed);
        }
        for connection in links {
            self.abandon(connection, node);
        }
    }

    /// Keeps an image of a disk for later, and again.
    pub(crate) fn keep_image(&mut self, node: usize) {
        if self.is_healing {
            return;
        }
        let is_sound = self.nodes[node].is_declared
            && !self.nodes[node].is_rotten
            && self.nodes[node].manifest.is_none();
        let restores = self.plan.faults.iter().any(|(fault, _)| *fault == crate::plan::Fault::Restore);
        if restores && is_sound {
            let image = self.nodes[node].disk.memory().durable_copy();
            let document = self.nodes[node].document.clone();
            self.nodes[node].images.push((image, document));
            if self.nodes[node].images.len() > 3 {
                self.nodes[node].images.remove(0);
            }
        }
        let delay = self.chance.range(3_000, 20_000) * MS;
        self.queue.after(delay, Event::KeepImage { node });
    }

    /// Damages a disk whose process is down, where others hold what goes.
    pub(crate) fn rot(&mut self, node: usize) {
        let files = self.nodes[node].disk.memory().files();
        let has_previous = |path: &str| files.iter().any(|(other, _)| *other == format!("{path}.previous"));
        let is_fair = |(path, len): &(String, u64)| {
            *len > 0
                && if path.ends_with("/checkpoint") {
                    has_previous(path)
                } else if path.ends_with(".seg") && path.starts_with("shards/") {
                    let is_safe = self.is_held_by_others(node, path);
                    if self.sabotage == Sabotage::RotOfTheOnlyCopy { !is_safe } else { is_safe }
                } else {
                    false
                }
        };
        let fair: Vec<(String, u64)> = files.iter().filter(|file| is_fair(file)).cloned().collect();
        if self.chance.percent(8) && self.sabotage == Sabotage::None && self.nodes[node].manifest.is_none() {
            self.rot_manifest(node);
        }
        let Some((path, len)) = self.chance.pick(&fair) else { return };
        // Segments are written ahead: most of a young file is zeros.
        let offset =
            if self.chance.percent(70) { self.chance.below(len.min(3_000)) } else { self.chance.below(len) };
        self.trace(|| format!("region {}: byte {offset} of {path} rots", region_of(node)));
        if self.nodes[node].disk.memory().rot(&path, offset).is_ok() {
            self.nodes[node].is_rotten = true;
            // The last batch of a log, once rotten, looks torn: recovery does not say that it is missing.
            if let Some(log) = log_of(&path).filter(|_| self.is_held_by_others(node, &path)) {
                let held = self.truth.held(node, log);
                self.nodes[node].missing.push((log, held));
            }
        }
    }

    fn rot_manifest(&mut self, node: usize) {
        let disk = self.nodes[node].disk.memory();
        let Ok(file) = disk.open(MANIFEST) else { return };
        let Ok(bytes) = disk.read_at(&file, 0, 4_096) else { return };
        if bytes.is_empty() {
            return;
        }
        let offset = self.chance.below(bytes.len() as u64);
        let disk = self.nodes[node].disk.memory();
        if disk.rot(MANIFEST, offset).is_ok() {
            self.nodes[node].manifest = Some(bytes);
        }
    }

    /// Whether all that this node has of a segment's log lies on another disk too; on every other one if checkpoints
    /// may cover what rots, as then nobody asks for it and it cannot be served.
    fn is_held_by_others(&self, node: usize, path: &str) -> bool {
        let Some(log) = log_of(path) else { return false };
        // What was written and not synced may be whole in the file, too.
        let last = self.truth.batches.range((log, Seq::ZERO)..=(log, Seq(u64::MAX))).next_back();
        let end = last.map_or(Seq::ZERO, |((_, seq), _)| *seq);
        let mut others = self.remaining().into_iter().filter(|&other| other != node);
        let holds = |other: usize| self.truth.held(other, log) >= end && self.nodes[other].is_sound();
        if self.plan.checkpoint_every.is_some() { others.all(holds) } else { others.any(holds) }
    }

    /// Whether what rot took elsewhere is still on its way back: perhaps from this very disk.
    fn is_repairing_others(&self, node: usize) -> bool {
        let lacks = |other: usize| {
            let lost = &self.nodes[other];
            let is_back = |&(log, seq): &(LogId, Seq)| self.holds(other, &Position { log, seq });
            lost.is_rotten || !lost.missing.iter().all(is_back)
        };
        self.remaining().into_iter().any(|other| other != node && lacks(other))
    }

    /// Puts an old image back, or an empty disk.
    pub(crate) fn restore(&mut self, node: usize) {
        if self.is_repairing_others(node) && self.sabotage == Sabotage::None {
            return;
        }
        let image = self.chance.pick(&(0..self.nodes[node].images.len()).collect::<Vec<_>>());
        // Younger images go: one put back after an older one would hold what was settled without it. A region found
        // beyond an end that was sealed has to be rebuilt from a peer.
        let (disk, document) = match image {
            Some(at) if !self.chance.percent(15) => {
                self.nodes[node].images.truncate(at + 1);
                let (image, document) = &self.nodes[node].images[at];
                (image.durable_copy(), document.clone())
            }
            _ => {
                self.nodes[node].images.clear();
                (tombolo_wal::MemoryDisk::new(self.chance.next()), self.first_document(node))
            }
        };
        // What rot took and peers gave back may go again with this disk.
        let truth = &self.truth;
        let missing = &mut self.nodes[node].missing;
        let missing_count = missing.len();
        missing.retain(|&(log, seq)| truth.held(node, log) < seq);
        (missing.len()..missing_count).for_each(|_| self.rare.count(Rare::QuarantineRepaired));
        self.rare.count(Rare::RolledBack);
        self.trace(|| format!("region {}: an older disk", region_of(node)));
        self.restore_document(node, document);
        self.nodes[node].disk = CutDisk::new(disk);
        self.nodes[node].is_rolled_back = true;
        self.nodes[node].manifest = None;
    }

    pub(crate) fn vector(&self, node: usize, shard: usize) -> VersionVector {
        let now = self.nodes[node].now(self.queue.now());
        self.nodes[node].replica(shard).map(|replica| replica.report(now).vector).unwrap_or_default()
    }

    pub(crate) fn shard_ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..usize::from(self.plan.shards)).map(shard_of)
    }
}
