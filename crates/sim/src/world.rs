//! [`World`]: all nodes, the network between them, their clients, and what is due next.
//!
//! It takes the next event, hands it on, runs the effects of whatever replica it touched, and lets the checkers look.
//! Start at [`World::step`]. What each kind of event does stands in `process.rs`, `commit.rs`, `installs.rs`, `mesh.rs`,
//! `clients.rs` and `faults.rs`.

use std::collections::BTreeMap;

use tombolo_causality::{ClusterId, LogId, RegionId, Seq, ShardId};
use tombolo_codec::Position;
use tombolo_replica::{Answer, Difference, Effect, Input, Link, Ticket};

use crate::chance::{Chance, EventHash};
use crate::checks::{Checked, Checks};
use crate::clients::Clients;
use crate::cut_disk::CutDisk;
use crate::installs::Install;
use crate::net::Net;
use crate::node::{Node, WallClock};
use crate::plan::{Fault, Plan};
use crate::queue::{MS, Micros, Queue};
use crate::rare::{Rare, RareCounts};
use crate::run::Settings;
use crate::sabotage::{Forger, Sabotage};
use crate::suit::Suit;
use crate::truth::Truth;

pub(crate) const CLUSTER: ClusterId = ClusterId(0x5eed);

/// What may be due. `life` is the process that it was meant for.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Boot { node: usize, life: u64 },
    Flush { node: usize, life: u64, shard: usize },
    Commit { node: usize, life: u64, thread: usize },
    Synced { node: usize, life: u64, thread: usize },
    RetrySpace { node: usize, life: u64, thread: usize },
    Load { node: usize, life: u64, peer: RegionId, link: Link, log: LogId, from: Seq, bytes_max: usize },
    Checkpoint { node: usize, life: u64 },
    Tick { node: usize, life: u64 },
    Dial { from: usize, to: usize, life: u64 },
    Connected { from: usize, to: usize, lives: (u64, u64) },
    Deliver { connection: u64, end: usize, channel: usize },
    SendAcks { node: usize, life: u64, peer: usize },
    LinkLost { connection: u64, end: usize },
    Idle { connection: u64, end: usize },
    Restart { node: usize, life: u64 },
    CompareClocks,
    Wake { client: usize },
    Arrive { attempt: u64 },
    Answer { attempt: u64 },
    TimedOut { attempt: u64 },
    Cancel { node: usize, life: u64, shard: usize, ticket: Ticket },
    Strike { fault: Fault, mean: Micros },
    Mend { from: usize, to: usize },
    Resume { node: usize, life: u64, peer: RegionId },
    Space { node: usize },
    CheckAll,
    KeepImage { node: usize },
    Install { node: usize, life: u64, shard: usize, difference: Box<Difference> },
    Remove,
    Removed { node: usize, at: usize },
    Add,
    Advance { node: usize, life: u64, shard: usize, install: Box<Install> },
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) chance: Chance,
    pub(crate) hash: EventHash,
    pub(crate) queue: Queue<Event>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Net,
    pub(crate) clients: Clients,
    pub(crate) truth: Truth,
    pub(crate) checks: Checks,
    pub(crate) rare: RareCounts,
    pub(crate) sabotage: Sabotage,
    pub(crate) forger: Forger,
    pub(crate) tickets: u64,
    pub(crate) checked: BTreeMap<Ticket, Result<(), tombolo_codec::Reject>>,
    pub(crate) read: Option<Vec<tombolo_codec::ReadValue>>,
    pub(crate) is_healing: bool,
    pub(crate) healing_since: Micros,
    pub(crate) is_traced: bool,
    pub(crate) events_count: u64,
}

impl World {
    pub(crate) fn new(seed: u64, Settings { sabotage, is_traced, suits, .. }: Settings) -> Self {
        let mut chance = Chance::new(seed);
        // Seeds that follow one another shall not begin alike.
        let mut chance = Chance::new(chance.next() ^ chance.next().rotate_left(17));
        let plan = Plan::draw(&mut chance, sabotage, &Suit::of(suits));
        let count = plan.nodes.len();
        let first_count = count - usize::from(plan.adds_at.is_some());
        let node = |(at, drawn): (usize, &crate::plan::NodePlan)| Node {
            id: region_of(at),
            disk: CutDisk::new(tombolo_wal::MemoryDisk::new(seed.wrapping_mul(31) ^ at as u64)),
            images: Vec::new(),
            document: crate::members::declared(0..first_count),
            is_declared: at < first_count,
            clock: WallClock { offset_us: drawn.offset_us, drift_ppm: drawn.drift_ppm },
            is_relaxed: drawn.is_relaxed,
            sync_takes: drawn.sync_takes,
            slow_until: 0,
            life: 0,
            process: None,
            is_rolled_back: false,
            is_dead: false,
            is_ignorant: false,
            is_rotten: false,
            missing: Vec::new(),
            manifest: None,
        };
        let nodes = plan.nodes.iter().enumerate().map(node).collect();
        let shards = usize::from(plan.shards);
        let mut world = Self {
            net: Net::new(count),
            clients: Clients::new(&plan),
            truth: Truth::new(count, shards),
            checks: Checks::new(count, shards),
            rare: RareCounts::default(),
            nodes,
            plan,
            chance,
            hash: EventHash::default(),
            queue: Queue::new(),
            sabotage,
            forger: Forger::default(),
            tickets: 0,
            checked: BTreeMap::new(),
            read: None,
            is_healing: false,
            healing_since: 0,
            is_traced,
            events_count: 0,
        };
        if is_traced {
            eprintln!("{:#?}", world.plan);
        }
        if sabotage == Sabotage::IgnoredSyncs {
            world.nodes.iter().for_each(|node| node.disk.memory().ignore_syncs(true));
        }
        world.begin();
        world
    }

    /// What is due at first: every node starts, every client wakes, every fault is on its way.
    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            let delay = self.chance.range(1, 200) * MS;
            if self.nodes[node].is_declared {
                self.queue.after(delay, Event::Boot { node, life: 0 });
            }
            let delay = self.chance.range(3_000, 20_000) * MS;
            self.queue.after(delay, Event::KeepImage { node });
        }
        for client in 0..self.plan.clients {
            let delay = self.chance.around(500 * MS);
            self.queue.after(delay, Event::Wake { client });
        }
        for (fault, mean) in self.plan.faults.clone() {
            let delay = self.chance.around(mean);
            self.queue.after(delay, Event::Strike { fault, mean });
        }
        for at in self.plan.removals_at.clone() {
            self.queue.at(at, Event::Remove);
        }
        if let Some(at) = self.plan.adds_at {
            self.queue.at(at, Event::Add);
        }
        self.queue.after(250 * MS, Event::CompareClocks);
        self.queue.after(900 * MS, Event::CheckAll);
    }

    /// Runs until `until`. Errors: which invariant broke.
    pub(crate) fn run(&mut self, until: Micros) -> Checked {
        while let Some(event) = self.queue.pop(until) {
            self.events_count += 1;
            self.trace(|| format!("{event:?}"));
            self.hash.mix(self.queue.now());
            self.step(event)?;
        }
        Ok(())
    }

    pub(crate) fn trace(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            let now = self.queue.now();
            eprintln!("{:>6}.{:06} {}", now / 1_000_000, now % 1_000_000, text());
        }
    }

    fn is_alive(&self, node: usize, life: u64) -> bool {
        self.nodes[node].life == life && self.nodes[node].is_up()
    }

    fn step(&mut self, event: Event) -> Checked {
        match event {
            Event::Boot { node, life } => self.boot(node, life),
            Event::Flush { node, life, shard } if self.is_alive(node, life) => self.flush(node, shard),
            Event::Commit { node, life, thread } if self.is_alive(node, life) => self.commit(node, thread),
            Event::Synced { node, life, thread } if self.is_alive(node, life) => self.synced(node, thread),
            Event::RetrySpace { node, life, thread } if self.is_alive(node, life) => {
                self.retry_space(node, thread)
            }
            Event::Load { node, life, peer, link, log, from, bytes_max } if self.is_alive(node, life) => {
                self.load(node, (peer, link), (log, from), bytes_max)
            }
            Event::Checkpoint { node, life } if self.is_alive(node, life) => self.checkpoint(node),
            Event::Tick { node, life } if self.is_alive(node, life) => self.tick(node),
            Event::Dial { from, to, life } if self.is_alive(from, life) => {
                self.dial(from, to);
                Ok(())
            }
            Event::Connected { from, to, lives } => self.connected(from, to, lives),
            Event::Deliver { connection, end, channel } => self.deliver(connection, end, channel),
            Event::SendAcks { node, life, peer } if self.is_alive(node, life) => {
                self.send_acks(node, peer);
                Ok(())
            }
            Event::LinkLost { connection, end } => self.link_lost(connection, end),
            Event::Idle { connection, end } => self.idle(connection, end),
            Event::Restart { node, life } if self.is_alive(node, life) => {
                let is_power = self.chance.percent(50);
                self.crash(node, is_power);
                Ok(())
            }
            Event::CompareClocks => self.compare_clocks(),
            Event::Wake { client } => self.wake(client),
            Event::Arrive { attempt } => self.arrive(attempt),
            Event::Answer { attempt } => {
                self.answer(attempt);
                Ok(())
            }
            Event::TimedOut { attempt } => {
                self.timed_out(attempt);
                Ok(())
            }
            Event::Cancel { node, life, shard, ticket } if self.is_alive(node, life) => {
                self.input(node, shard, Input::Cancel { ticket })
            }
            Event::Strike { fault, mean } => self.strike(fault, mean),
            Event::Mend { from, to } => {
                self.mend(from, to);
                Ok(())
            }
            Event::Resume { node, life, peer } if self.is_alive(node, life) => self.pause(node, peer, false),
            Event::Space { node } => {
                self.nodes[node].disk.memory().limit_space(None);
                Ok(())
            }
            Event::Install { node, life, shard, difference } if self.is_alive(node, life) => {
                self.install(node, shard, difference)
            }
            Event::Advance { node, life, shard, install } if self.is_alive(node, life) => {
                self.advance(node, shard, *install)
            }
            Event::Remove => self.remove_one(),
            Event::Removed { node, at } => self.removed(node, at),
            Event::Add => self.add_one(),
            Event::Advance { .. } => {
                self.rare.count(Rare::InstallCutShort);
                Ok(())
            }
            Event::CheckAll => self.check_all(),
            Event::KeepImage { node } => {
                self.keep_image(node);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    // ---- replicas -----------------------------------------------------------------------------------------------

    pub(crate) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Hands an input to a shard of a living node and runs what follows.
    pub(crate) fn input(&mut self, node: usize, shard: usize, input: Input) -> Checked {
        let now = self.nodes[node].now(self.queue.now());
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        process.shards[shard].replica.handle(input, now);
        self.run_effects(node, shard)
    }

    pub(crate) fn input_all(&mut self, node: usize, make: impl Fn() -> Input) -> Checked {
        for shard in 0..usize::from(self.plan.shards) {
            self.input(node, shard, make())?;
        }
        Ok(())
    }

    fn flush(&mut self, node: usize, shard: usize) -> Checked {
        let now = self.nodes[node].now(self.queue.now());
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let target = &mut process.shards[shard];
        target.is_flush_due = false;
        target.replica.flush(now);
        let next = target.replica.next_flush_ms();
        self.run_effects(node, shard)?;
        if let Some(due_ms) = next {
            let delay = (due_ms.saturating_sub(now.monotonic_ms) * MS).max(MS);
            self.flush_within(node, shard, delay);
        }
        Ok(())
    }

    fn flush_within(&mut self, node: usize, shard: usize, delay: Micros) {
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return };
        if !std::mem::replace(&mut process.shards[shard].is_flush_due, true) {
            self.queue.after(delay, Event::Flush { node, life, shard });
        }
    }

    /// Runs the effects of one shard, then looks at it.
    pub(crate) fn run_effects(&mut self, node: usize, shard: usize) -> Checked {
        let mut is_applied = false;
        let mut answers = Vec::new();
        while let Some(effect) =
            self.nodes[node].process.as_mut().and_then(|process| process.shards[shard].replica.poll_effect())
        {
            match effect {
                Effect::Ack(position) => {
                    is_applied = true;
                    self.applied(node, position)?;
                }
                Effect::Answer { ticket, answer: Answer::Written(result) } => answers.push((ticket, result)),
                effect => self.run_effect(node, shard, effect)?,
            }
        }
        if is_applied {
            self.check_applied(node, shard)?;
        }
        for (ticket, result) in answers {
            self.hash.mix(ticket.0 << 1 | u64::from(result.is_ok()));
            self.written(node, shard, ticket, result)?;
        }
        if self.nodes[node].replica(shard).is_some_and(|replica| replica.blocked().next().is_some()) {
            self.rare.count(Rare::SealWaited);
        }
        if self.nodes[node].replica(shard).is_some_and(|replica| replica.next_flush_ms().is_some()) {
            let delay = self.chance.range(20, 400);
            self.flush_within(node, shard, delay);
        }
        Ok(())
    }

    fn run_effect(&mut self, node: usize, shard: usize, effect: Effect) -> Checked {
        match effect {
            Effect::Append(batch) => self.append(node, batch),
            Effect::Answer { ticket, answer: Answer::Checked(result) } => {
                self.checked.insert(ticket, result.map(drop));
                Ok(())
            }
            Effect::Answer { answer: Answer::Read(values), .. } => {
                self.read = Some(values);
                Ok(())
            }
            Effect::Ship { peer, link, batch } => self.ship(node, peer, link, batch),
            Effect::Send { peer, link, message } => {
                self.say(node, peer, link, message);
                Ok(())
            }
            Effect::Disconnect { peer, link } => {
                self.hang_up(node, peer, link);
                Ok(())
            }
            Effect::Describe { peer, link, received, applied } => {
                self.describe(node, shard, (peer, link), (received, applied));
                Ok(())
            }
            Effect::Load { peer, link, log, from, bytes_max } => {
                let delay = self.chance.range(100, 3_000);
                let life = self.nodes[node].life;
                self.queue.after(delay, Event::Load { node, life, peer, link, log, from, bytes_max });
                Ok(())
            }
            Effect::Install(difference) => {
                self.rare.count(Rare::DifferenceFetched);
                let (delay, life) = (self.chance.range(100, 5_000), self.nodes[node].life);
                self.queue.after(delay, Event::Install { node, life, shard, difference });
                Ok(())
            }
            Effect::Reached { ticket, region } => self.reached(node, shard, ticket, region),
            Effect::Voided { .. } => {
                self.rare.count(Rare::BarrierVoided);
                Ok(())
            }
            Effect::BecameWhole => self.became_whole(node, shard),
            Effect::Notice(notice) => self.noticed(node, &notice),
            Effect::Applied { .. }
            | Effect::Ack(_)
            | Effect::Answer { .. }
            // Of verifications, and nobody asks for one here.
            | Effect::Mend(_)
            | Effect::Proceed => Ok(()),
        }
    }

    /// Reads keys without a token.
    pub(crate) fn read(
        &mut self,
        node: usize,
        shard: usize,
        keys: Vec<bytes::Bytes>,
    ) -> Vec<tombolo_codec::ReadValue> {
        let now = self.nodes[node].now(self.queue.now());
        let ticket = self.ticket();
        let Some(process) = &mut self.nodes[node].process else { return Vec::new() };
        let replica = &mut process.shards[shard].replica;
        let (tenant, after) = (tombolo_causality::TenantId::DEFAULT, Vec::new());
        replica.handle(Input::Read { ticket, tenant, keys, after }, now);
        let Some(Effect::Answer { answer: Answer::Read(values), .. }) = replica.poll_effect() else {
            panic!("a read without a token is answered at once, and nothing else waits");
        };
        values
    }

    pub(crate) fn holds(&self, node: usize, position: &Position) -> bool {
        let shard = usize::from(position.log.shard.0);
        self.nodes[node].replica(shard).is_some_and(|replica| replica.covers(position))
    }
}

pub(crate) fn region_of(node: usize) -> RegionId {
    RegionId::new(u16::try_from(node + 1).expect("a world has few regions")).expect("1 and up")
}

pub(crate) fn node_of(region: RegionId) -> usize {
    usize::from(region.get()) - 1
}

pub(crate) fn shard_of(shard: usize) -> ShardId {
    ShardId(u16::try_from(shard).expect("a world has few shards"))
}
