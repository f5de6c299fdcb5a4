//! Regions of one shard in one process: effects of one become inputs of another at once, every sync succeeds at once.
//!
//! It shows what the rules themselves cost, from admission in one region to the same state in all.

use std::sync::Arc;

use bytes::Bytes;
use tombolo_causality::{Epoch, RegionId, TenantId};
use tombolo_codec::{Op, Schema, SessionPart, Verb};
use tombolo_replica::{Answer, Durability, Effect, Input, Link, Now, Options, Replica, Ticket, WritePart};

use crate::{CLUSTER, SHARD, WALL, region};

const LINK: Link = Link(1);

/// A few regions, all connected.
pub struct Regions(Vec<(RegionId, Replica)>);

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
        let mut regions = Self(members.iter().map(open).collect());
        for (_, replica) in &mut regions.0 {
            replica.start(now());
        }
        for &to in &members {
            for &from in members.iter().filter(|&&from| from != to) {
                let epoch = Epoch(u128::from(from.get()));
                regions.tell(to, Input::PeerUp { peer: from, epoch, link: LINK });
            }
        }
        regions.settle();
        regions
    }

    fn tell(&mut self, to: RegionId, input: Input) {
        let (_, replica) = &mut self.0[usize::from(to.get()) - 1];
        replica.handle(input, now());
    }

    /// Writes a run of adds in one region; [`Regions::settle`] brings it everywhere.
    pub fn add(&mut self, at: RegionId, ticket: u64, keys: impl IntoIterator<Item = Bytes>) {
        let ops = keys.into_iter().map(|key| Op { key, verb: Verb::Add { delta: 1 } }).collect();
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
            let count = u16::try_from(self.0.len()).expect("a few regions");
            let mut inputs = Vec::new();
            for (own, replica) in &mut self.0 {
                // The pace is waited for in no time.
                let monotonic_ms = replica.next_flush_ms().unwrap_or_default();
                replica.flush(Now { monotonic_ms, ..now() });
                while let Some(effect) = replica.poll_effect() {
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
        let mut reports = self.0.iter().map(|(_, replica)| {
            let report = replica.report(now());
            (report.vector, report.digest)
        });
        let first = reports.next();
        reports.all(|report| Some(report) == first)
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
        Effect::Answer { answer: Answer::Written(Err(reject)), .. } => {
            panic!("nothing that a bench writes is refused: {reject:?}")
        }
        _ => {}
    }
}
