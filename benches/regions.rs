//! Regions of one shard in one process: effects of one become inputs of another at once, every sync succeeds at once.
//!
//! It shows what the rules themselves cost, from admission in one region to the same state in all. What was appended is
//! kept, so that a region that was cut off can be served from its "files"; a region may lose them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tombolo_causality::{Epoch, LogId, RegionId, TenantId};
use tombolo_codec::{Batch, Checkpoint, Op, Schema, SessionPart, StampSource, Verb};
use tombolo_replica::{Answer, Durability, Effect, Input, Link, Now, Options, Replica, Ticket, WritePart};

use crate::{CLUSTER, SHARD, WALL, region};

const LINK: Link = Link(1);

/// What stands for the files of one region.
type Files = BTreeMap<LogId, Vec<Batch>>;

/// A few regions, all connected.
pub struct Regions {
    all: Vec<(RegionId, Replica)>,
    files: Vec<Files>,
    /// Bytes of the messages and batches that passed between regions, if they are counted.
    passed_bytes: Option<usize>,
    differences_count: usize,
}

/// What a region of a bench is opened with; its epoch is its number.
#[must_use]
pub fn options(region: RegionId, members: Vec<RegionId>) -> Options {
    Options {
        cluster: CLUSTER,
        shard: SHARD,
        region,
        epoch: Epoch(u128::from(region.get())),
        roster: tombolo_codec::Roster::of(members),
        durability: Durability::Sync,
        schema: Arc::new(Schema::default()),
        drift_ms_max: 500,
        session_numbers_max: 1_024,
        window_ms: 86_400_000,
        peer_limits: tombolo_replica::PeerLimits::default(),
    }
}

/// Where an input goes.
type Routed = (RegionId, Input);

impl Regions {
    /// `count` regions that have greeted each other.
    #[must_use]
    pub fn connected(count: u16) -> Self {
        let members: Vec<RegionId> = (1..=count).map(region).collect();
        let open = |&region: &RegionId| (region, Replica::open(options(region, members.clone()), None));
        let files = vec![Files::new(); members.len()];
        let mut regions =
            Self { all: members.iter().map(open).collect(), files, passed_bytes: None, differences_count: 0 };
        for (_, replica) in &mut regions.all {
            replica.start(now());
        }
        regions.connect();
        regions.settle();
        regions
    }

    /// Connects all regions that are not; [`Regions::settle`] brings them together.
    pub fn connect(&mut self) {
        self.each_pair(|peer| Input::PeerUp { peer, epoch: Epoch(u128::from(peer.get())), link: LINK });
    }

    /// Cuts all regions off from one another.
    pub fn cut(&mut self) {
        self.each_pair(|peer| Input::PeerDown { peer, link: LINK });
        self.settle();
    }

    fn each_pair(&mut self, input: impl Fn(RegionId) -> Input) {
        let members: Vec<RegionId> = self.all.iter().map(|(region, _)| *region).collect();
        for &to in &members {
            for &from in members.iter().filter(|&&from| from != to) {
                self.tell(to, input(from));
            }
        }
    }

    /// Lets every region lose the files of its logs, as pruning would.
    pub fn prune(&mut self) {
        self.files.iter_mut().for_each(BTreeMap::clear);
    }

    /// Counts the bytes between regions from here on.
    pub fn count_bytes(&mut self) {
        self.passed_bytes = Some(0);
    }

    /// Gives the bytes that were counted, and counts no more.
    pub fn stop_counting(&mut self) -> usize {
        self.passed_bytes.take().unwrap_or_default()
    }

    /// How many differences were installed since the last call.
    pub fn take_differences(&mut self) -> usize {
        std::mem::take(&mut self.differences_count)
    }

    /// A region's state, and what its files have got since the last call.
    pub fn take_files(&mut self, region: RegionId) -> (Checkpoint, Vec<Batch>) {
        let at = usize::from(region.get()) - 1;
        let files = std::mem::take(&mut self.files[at]);
        (self.all[at].1.checkpoint(), files.into_values().flatten().collect())
    }

    fn tell(&mut self, to: RegionId, input: Input) {
        let (_, replica) = &mut self.all[usize::from(to.get()) - 1];
        replica.handle(input, now());
    }

    /// Writes a run of adds in one region; [`Regions::settle`] brings it everywhere.
    pub fn add(&mut self, at: RegionId, ticket: u64, keys: impl IntoIterator<Item = Bytes>) {
        let ops = keys.into_iter().map(|key| Op { key, verb: Verb::Add { delta: 1 } }).collect();
        self.write(at, ticket, None, ops);
    }

    /// Writes a run of sets in one region, of this value.
    pub fn set(&mut self, at: RegionId, ticket: u64, keys: impl IntoIterator<Item = Bytes>, value: &Bytes) {
        let op = |(number, key): (u128, Bytes)| {
            let stamp = StampSource::Here(u128::from(ticket) << 64 | number);
            Op { key, verb: Verb::Set { value: value.clone(), expires_at: None, stamp } }
        };
        let ops = (0..).zip(keys).map(op).collect();
        self.write(at, ticket, None, ops);
    }

    /// Writes a request in one region, with its place in a session or without one.
    pub fn write(&mut self, at: RegionId, ticket: u64, session: Option<SessionPart>, ops: Vec<Op>) {
        let part = Box::new(WritePart {
            tenant: TenantId::DEFAULT,
            session,
            retry: false,
            after: tombolo_causality::Time::ZERO,
            ops,
            wants_values: false,
        });
        self.tell(at, Input::Write { ticket: Ticket(ticket), part });
    }

    /// Runs effects until there are none.
    pub fn settle(&mut self) {
        loop {
            let count = u16::try_from(self.all.len()).expect("a few regions");
            let mut inputs = Vec::new();
            for ((own, replica), files) in self.all.iter_mut().zip(&mut self.files) {
                // The pace is waited for in no time.
                let monotonic_ms = replica.next_flush_ms().unwrap_or_default();
                replica.flush(Now { monotonic_ms, ..now() });
                while let Some(effect) = replica.poll_effect() {
                    if let Some(bytes) = &mut self.passed_bytes {
                        *bytes += passed_bytes(&effect);
                    }
                    self.differences_count += usize::from(matches!(effect, Effect::Install(_)));
                    if let Some(input) = stored(files, &effect) {
                        inputs.push((*own, input));
                    }
                    route(*own, effect, count, &mut inputs);
                }
            }
            if inputs.is_empty() {
                return;
            }
            for (to, input) in inputs {
                self.tell(to, input);
            }
        }
    }

    /// Whether every region shows the same state.
    #[must_use]
    pub fn are_equal(&self) -> bool {
        let mut reports = self.all.iter().map(|(_, replica)| {
            let report = replica.report(now());
            (report.vector, report.digest)
        });
        let first = reports.next();
        reports.all(|report| Some(report) == first)
    }
}

/// What a region's files do with an effect, and say.
fn stored(files: &mut Files, effect: &Effect) -> Option<Input> {
    match effect {
        Effect::Append(batch) => {
            files.entry(batch.header().log).or_default().push(batch.clone());
            None
        }
        Effect::Load { peer, link, log, from, bytes_max } => {
            let held = files.get(log).map_or(&[][..], Vec::as_slice);
            let first = held.partition_point(|batch| batch.header().seq < *from);
            let mut bytes = 0;
            let goes_on = |batch: &&Batch| {
                let has_room = bytes < *bytes_max;
                bytes += batch.bytes().len();
                has_room
            };
            let batches = held[first..].iter().take_while(goes_on).cloned().collect();
            Some(Input::Loaded { peer: *peer, link: *link, log: *log, batches })
        }
        _ => None,
    }
}

fn passed_bytes(effect: &Effect) -> usize {
    match effect {
        Effect::Ship { batch, .. } => batch.bytes().len(),
        Effect::Send { message, .. } => message.encode().len(),
        _ => 0,
    }
}

fn now() -> Now {
    Now { wall: WALL, monotonic_ms: 0 }
}

fn route(own: RegionId, effect: Effect, regions_count: u16, inputs: &mut Vec<Routed>) {
    match effect {
        Effect::Append(batch) => {
            let header = batch.header();
            inputs.push((own, Input::Durable { log: header.log, through: header.seq }));
        }
        Effect::Ship { peer, batch, .. } => {
            inputs.push((peer, Input::Remote { from: own, link: LINK, batch }));
        }
        Effect::Send { peer, message, .. } => {
            inputs.extend(Input::said(own, LINK, message).map(|(_, input)| (peer, input)));
        }
        Effect::Describe { peer, received, applied, .. } => {
            inputs.push((peer, Input::PeerAnswer { peer: own, link: LINK, received, applied }));
        }
        Effect::Ack(position) => {
            for peer in (1..=regions_count).map(region).filter(|&peer| peer != own) {
                let input = Input::Acked { from: own, link: LINK, positions: vec![position] };
                inputs.push((peer, input));
            }
        }
        // What the shell does besides, a checkpoint of the outcome, is its own.
        Effect::Install(difference) => inputs.push((own, Input::Installed { difference })),
        Effect::Answer { answer: Answer::Written(Err(reject)), .. } => {
            panic!("nothing that a bench writes is refused: {reject:?}")
        }
        _ => {}
    }
}
