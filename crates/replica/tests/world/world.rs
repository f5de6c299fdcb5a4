//! Regions, their disks and the network between them on one seed: draws what happens next, runs the effects, checks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, Seq, ShardId, TenantId, Time, VersionVector};
use tombolo_codec::{Position, Schema};
use tombolo_replica::{Durability, Input, Link, Now, Options, Replica, Ticket};

use crate::checks::Ledger;
use crate::clients::{Clients, key_of};
use crate::disk::{Disk, LogName};
use crate::net::{Message, Net};
use crate::rng::{EventHash, Rng};
use crate::sabotage::{Forger, Twin};

pub(crate) const SHARD: ShardId = ShardId(0);
pub(crate) const CLUSTER: ClusterId = ClusterId(7);
const SESSION_NUMBERS_MAX: usize = 12;
pub(crate) const CHECK_TICKET: Ticket = Ticket(u64::MAX);

pub(crate) struct Load {
    pub(crate) peer: RegionId,
    pub(crate) link: Link,
    pub(crate) log: LogId,
    pub(crate) from: Seq,
}

pub(crate) struct Region {
    pub(crate) id: RegionId,
    pub(crate) epoch: Epoch,
    pub(crate) replica: Option<Replica>,
    pub(crate) disk: Disk,
    pub(crate) durability: Durability,
    pub(crate) loads: VecDeque<Load>,
    pub(crate) paused: BTreeSet<RegionId>,
    /// The digits seen per counter, also by earlier incarnations.
    pub(crate) seen: Vec<u64>,
    pub(crate) was_rolled_back: bool,
    pub(crate) is_changed: bool,
    pub(crate) wall_offset: u64,
}

/// A barrier somebody waits at.
pub(crate) struct Waiter {
    pub(crate) at: usize,
    pub(crate) position: Position,
    pub(crate) reached: BTreeSet<RegionId>,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) hash: EventHash,
    pub(crate) regions: Vec<Region>,
    pub(crate) net: Net,
    pub(crate) clients: Clients,
    pub(crate) twin: Twin,
    pub(crate) ledger: Ledger,
    pub(crate) forger: Forger,
    pub(crate) positions: Vec<Position>,
    pub(crate) waiters: BTreeMap<Ticket, Waiter>,
    pub(crate) readers: BTreeMap<Ticket, (usize, Position)>,
    pub(crate) steps: u64,
    pub(crate) restarts: u64,
}

pub(crate) type Checked = Result<(), String>;

impl World {
    pub(crate) fn new(seed: u64, count: usize, relaxed_percent: u64, twin: Twin) -> Self {
        let mut rng = Rng::new(seed);
        let regions = (0..count)
            .map(|at| Region {
                id: RegionId::new(at as u16 + 1).expect("a world has few regions"),
                epoch: Epoch(0),
                replica: None,
                disk: Disk::default(),
                durability: if rng.percent(relaxed_percent) { Durability::Relaxed } else { Durability::Sync },
                loads: VecDeque::new(),
                paused: BTreeSet::new(),
                seen: Vec::new(),
                was_rolled_back: false,
                is_changed: false,
                wall_offset: rng.below(1 << 29) as u64,
            })
            .collect();
        Self {
            rng,
            hash: EventHash::default(),
            regions,
            net: Net::default(),
            clients: Clients::default(),
            twin,
            ledger: Ledger::default(),
            forger: Forger::default(),
            positions: Vec::new(),
            waiters: BTreeMap::new(),
            readers: BTreeMap::new(),
            steps: 0,
            restarts: 0,
        }
    }

    pub(crate) fn now(&self, at: usize) -> Now {
        let wall = Time((1_700_000_000 << 32) + self.steps * 800_000 + self.regions[at].wall_offset);
        Now { wall, monotonic_ms: self.steps / 5 }
    }

    // ---- inputs -------------------------------------------------------------------------------------------------

    pub(crate) fn handle(&mut self, at: usize, input: Input) -> Checked {
        let now = self.now(at);
        if let Some(replica) = &mut self.regions[at].replica {
            replica.handle(input, now);
        }
        self.run_effects(at)
    }

    pub(crate) fn flush(&mut self, at: usize) -> Checked {
        let now = self.now(at);
        if let Some(replica) = &mut self.regions[at].replica {
            replica.flush(now);
        }
        self.run_effects(at)
    }

    pub(crate) fn start(&mut self, at: usize, from_checkpoint: bool) -> Checked {
        let epoch = Epoch(self.rng.wide());
        self.restarts += 1;
        let now = self.now(at);
        let members = self.regions.iter().map(|region| region.id).collect();
        let region = &mut self.regions[at];
        let options = options(region.id, epoch, members, region.durability);
        let checkpoint = region.disk.checkpoint.as_ref().filter(|_| from_checkpoint);
        let mut replica = Replica::open(options, checkpoint);
        let mut names: Vec<LogName> = region.disk.logs.keys().copied().collect();
        // Logs come back in any order.
        for at in (1..names.len()).rev() {
            names.swap(at, self.rng.below(at + 1));
        }
        for name in names {
            for batch in &region.disk.logs[&name] {
                replica.replay(batch).map_err(|why| format!("replay: {why}"))?;
            }
        }
        replica.start(now);
        region.epoch = epoch;
        region.replica = Some(replica);
        region.is_changed = true;
        self.run_effects(at)
    }

    pub(crate) fn crash(&mut self, at: usize) {
        self.net.crash(at, &mut self.rng);
        self.clients.crash(at);
        let region = &mut self.regions[at];
        region.replica = None;
        region.loads.clear();
        region.paused.clear();
        region.disk.crash(&mut self.rng);
        self.waiters.retain(|_, waiter| waiter.at != at);
        self.readers.retain(|_, (reader, _)| *reader != at);
    }

    /// The disk of a crashed region comes back older, but only by what somebody else holds durable.
    pub(crate) fn roll_back(&mut self, at: usize) {
        let mut others: BTreeMap<LogName, usize> = BTreeMap::new();
        for (_, other) in self.regions.iter().enumerate().filter(|&(other, _)| other != at) {
            for (&name, batches) in &other.disk.logs {
                let known = others.entry(name).or_default();
                *known = batches.len().max(*known);
            }
        }
        let rng = &mut self.rng;
        self.regions[at].disk.roll_back(|name, len| {
            let safe = others.get(&name).copied().unwrap_or(0).min(len);
            // All that is beyond `safe` exists here alone.
            if safe < len { len } else { rng.below(len + 1) }
        });
        self.regions[at].was_rolled_back = true;
    }

    pub(crate) fn deliver(&mut self, id: u64, to: usize, lane: usize) -> Checked {
        let Some(connection) = self.net.connections.get_mut(&id) else { return Ok(()) };
        let from_at = connection.other(to);
        let direction = connection.towards(to);
        let Some(message) = direction.lanes[lane].pop_front() else { return Ok(()) };
        let (from, link) = (self.regions[from_at].id, Link(id));
        let input = match message {
            Message::Hello { epoch } => {
                direction.is_up = true;
                Input::PeerUp { peer: from, epoch, link }
            }
            Message::Answer { mut received, applied } => {
                if self.twin == Twin::AnswersLow {
                    received = lowered(&received, self.regions[to].id);
                }
                Input::PeerAnswer { peer: from, link, received, applied }
            }
            Message::Control(message) => match Input::said(from, link, message) {
                Some((_, Input::WholeAnswered { from, link, epochs, mut received })) => {
                    if self.twin == Twin::AnswersLow {
                        received = lowered(&received, self.regions[to].id);
                    }
                    Input::WholeAnswered { from, link, epochs, received }
                }
                Some((_, input)) => input,
                None => return Err("a replica sent what is not its own to say".to_owned()),
            },
            Message::Batch(batch) => {
                let is_dropped = self.twin == Twin::AltersBatch && self.rng.percent(5);
                let Some(batch) = self.forger.pass(to, batch, is_dropped) else { return Ok(()) };
                Input::Remote { from, link, batch }
            }
        };
        self.handle(to, input)
    }

    pub(crate) fn deliver_acks(&mut self, id: u64, to: usize) -> Checked {
        let Some(connection) = self.net.connections.get_mut(&id) else { return Ok(()) };
        let from_at = connection.other(to);
        let acks = std::mem::take(&mut connection.towards(to).acks);
        let positions = acks.into_iter().map(|(log, seq)| Position { log, seq }).collect();
        self.handle(to, Input::Acked { from: self.regions[from_at].id, link: Link(id), positions })
    }

    pub(crate) fn tell_down(&mut self, id: u64, to: usize) -> Checked {
        let Some(connection) = self.net.connections.get_mut(&id) else { return Ok(()) };
        let peer = self.regions[connection.other(to)].id;
        let direction = connection.towards(to);
        let was_up = direction.is_up;
        direction.is_closed = true;
        direction.clear();
        self.net.sweep();
        if was_up { self.handle(to, Input::PeerDown { peer, link: Link(id) }) } else { Ok(()) }
    }

    pub(crate) fn sync(&mut self, at: usize, name: LogName, count: usize) -> Checked {
        let region = &mut self.regions[at];
        let is_kept = self.twin != Twin::LosesDurable || name.0 != region.id;
        let through = region.disk.sync(name, count, is_kept);
        self.handle(
            at,
            Input::Durable { log: LogId { shard: SHARD, region: name.0, epoch: name.1 }, through },
        )
    }

    pub(crate) fn stage(&mut self, at: usize) -> Checked {
        let region = &self.regions[at];
        let name = (region.id, region.epoch);
        let through = region.disk.appended(name);
        self.handle(at, Input::Staged { log: LogId { shard: SHARD, region: name.0, epoch: name.1 }, through })
    }

    pub(crate) fn load(&mut self, at: usize, count_max: usize) -> Checked {
        let Some(load) = self.regions[at].loads.pop_front() else { return Ok(()) };
        let Load { peer, link, log, from } = load;
        let all = self.regions[at].disk.logs.get(&(log.region, log.epoch));
        let first = from.0 as usize - 1;
        let batches =
            all.map_or_else(Vec::new, |all| all.iter().skip(first).take(count_max).cloned().collect());
        self.handle(at, Input::Loaded { peer, link, log, batches })
    }

    pub(crate) fn has_loads(&self, at: usize) -> bool {
        !self.regions[at].loads.is_empty()
    }

    pub(crate) fn pause(&mut self, at: usize, peer: RegionId, is_paused: bool) -> Checked {
        let paused = &mut self.regions[at].paused;
        if is_paused {
            paused.insert(peer)
        } else {
            paused.remove(&peer)
        };
        self.handle(at, Input::PauseApply { peer, is_paused })
    }

    pub(crate) fn is_paused(&self, at: usize, peer: RegionId) -> bool {
        self.regions[at].paused.contains(&peer)
    }

    pub(crate) fn unpause_all(&mut self) -> Checked {
        for at in 0..self.regions.len() {
            for peer in self.regions[at].paused.clone() {
                self.pause(at, peer, false)?;
            }
        }
        Ok(())
    }

    pub(crate) fn checkpoint(&mut self, at: usize) -> Checked {
        let Some(checkpoint) = self.regions[at].replica.as_ref().map(Replica::checkpoint) else {
            return Ok(());
        };
        let bytes = checkpoint.encode(CLUSTER, SHARD).map_err(|why| why.to_string())?;
        let read =
            tombolo_codec::Checkpoint::decode(&bytes, CLUSTER, SHARD).map_err(|why| why.to_string())?;
        self.regions[at].disk.checkpoint = Some(read);
        Ok(())
    }

    pub(crate) fn wait(&mut self, at: usize) -> Checked {
        let Some(position) = self.rng.pick(&self.positions) else { return Ok(()) };
        let ticket = self.clients.ticket();
        if self.rng.percent(50) {
            self.waiters.insert(ticket, Waiter { at, position, reached: BTreeSet::new() });
            self.handle(at, Input::Await { ticket, positions: vec![position] })
        } else {
            self.readers.insert(ticket, (at, position));
            let (tenant, keys) = (TenantId::DEFAULT, vec![key_of(0)]);
            self.handle(at, Input::Read { ticket, tenant, keys, after: vec![position] })
        }
    }
}

fn lowered(received: &VersionVector, region: RegionId) -> VersionVector {
    let mut out = VersionVector::new();
    for ((writer, epoch), seq) in received {
        let cut = if writer == region { Seq(seq.0 / 2) } else { seq };
        out.raise(writer, epoch, cut);
    }
    out
}

pub(crate) fn options(
    region: RegionId,
    epoch: Epoch,
    members: Vec<RegionId>,
    durability: Durability,
) -> Options {
    Options {
        cluster: CLUSTER,
        shard: SHARD,
        region,
        epoch,
        members,
        durability,
        schema: Arc::new(Schema::default()),
        drift_ms_max: 500,
        session_numbers_max: SESSION_NUMBERS_MAX,
        window_ms: 86_400_000,
    }
}
