//! Several replicas and what they say to each other: every message arrives at once, every batch is durable at once,
//! unless a test says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_causality::{Epoch, RegionId, Seq, VersionVector};
use tombolo_codec::{Batch, Position, ReadValue, Roster};
use tombolo_replica::{Answer, Effect, Input, Link, LogName, Now, Options, Outcome, Replica, WritePart};

use crate::kit::*;

pub(crate) struct Side {
    pub(crate) replica: Replica,
    options: Options,
    /// What its disk holds.
    pub(crate) stored: BTreeMap<LogName, Vec<Batch>>,
    /// While it is held, batches are written and not synced.
    pub(crate) is_disk_held: bool,
    unsynced: Vec<Position>,
    answers: Vec<Answer>,
    /// What it asked of whom that nobody heard, as text.
    pub(crate) notices: Vec<&'static str>,
    pub(crate) reached: BTreeSet<u16>,
    pub(crate) questions_of_stability: usize,
}

#[derive(Default)]
pub(crate) struct Net {
    pub(crate) sides: BTreeMap<u16, Side>,
    links: BTreeMap<(u16, u16), Link>,
    links_count: u64,
    pub(crate) seconds: u64,
    /// What the last yes named.
    pub(crate) answered_at: Vec<Position>,
}

fn id(region: RegionId) -> u16 {
    region.get()
}

impl Net {
    /// Regions that all know and hear each other.
    pub(crate) fn of(members: &[u16]) -> Self {
        let mut net = Self { seconds: 100, ..Self::default() };
        for &member in members {
            net.start(member, u128::from(member), roster(members, &[]));
        }
        for &one in members {
            for &other in members.iter().filter(|&&other| other > one) {
                net.connect(one, other);
            }
        }
        net
    }

    fn now(&self) -> Now {
        Now { wall: second(self.seconds), monotonic_ms: self.seconds * 1_000 }
    }

    pub(crate) fn start(&mut self, region: u16, epoch: u128, roster: Roster) {
        let options = Options { roster, ..options(region, epoch, &[region]) };
        self.open(region, options, BTreeMap::new());
    }

    fn open(&mut self, region: u16, options: Options, stored: BTreeMap<LogName, Vec<Batch>>) {
        let mut replica = Replica::open(options.clone(), None);
        for batch in stored.values().flatten() {
            replica.replay(batch).expect("what a disk holds is sound");
        }
        replica.start(self.now());
        let side = Side {
            replica,
            options,
            stored,
            is_disk_held: false,
            unsynced: Vec::new(),
            answers: Vec::new(),
            notices: Vec::new(),
            reached: BTreeSet::new(),
            questions_of_stability: 0,
        };
        self.sides.insert(region, side);
        self.run();
    }

    /// Dies and starts again with what was synced, in another epoch and under a roster.
    pub(crate) fn restart(&mut self, region: u16, epoch: u128, roster: Roster) {
        let mut side = self.kill(region);
        for lost in &side.unsynced {
            let log = side.stored.entry((lost.log.region, lost.log.epoch)).or_default();
            log.retain(|batch| batch.header().seq < lost.seq);
        }
        let options = Options { roster, epoch: Epoch(epoch), ..side.options };
        self.open(region, options, side.stored);
    }

    pub(crate) fn kill(&mut self, region: u16) -> Side {
        let peers: Vec<u16> = self.sides.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.cut(region, peer));
        self.sides.remove(&region).expect("it runs")
    }

    pub(crate) fn connect(&mut self, one: u16, other: u16) {
        self.links_count += 1;
        let link = Link(self.links_count);
        self.links.insert((one.min(other), one.max(other)), link);
        for (here, there) in [(one, other), (other, one)] {
            let epoch = self.sides[&there].options.epoch;
            self.handle(here, Input::PeerUp { peer: region(there), epoch, link });
        }
        self.run();
    }

    pub(crate) fn cut(&mut self, one: u16, other: u16) {
        let Some(link) = self.links.remove(&(one.min(other), one.max(other))) else { return };
        for (here, there) in [(one, other), (other, one)] {
            self.handle(here, Input::PeerDown { peer: region(there), link });
        }
        self.run();
    }

    pub(crate) fn handle(&mut self, at: u16, input: Input) {
        let now = self.now();
        self.sides.get_mut(&at).expect("it runs").replica.handle(input, now);
    }

    pub(crate) fn tell(&mut self, at: u16, members: &[u16], removed: &[u16]) {
        self.handle(at, Input::Members(roster(members, removed)));
        self.run();
        self.tick();
    }

    /// A second passes.
    pub(crate) fn tick(&mut self) {
        self.seconds += 1;
        for at in self.sides.keys().copied().collect::<Vec<_>>() {
            self.handle(at, Input::Tick);
        }
        self.run();
    }

    pub(crate) fn write(&mut self, at: u16, part: WritePart) -> String {
        let ticket = tombolo_replica::Ticket(99);
        self.handle(at, Input::Write { ticket, part: Box::new(part) });
        self.run();
        match self.sides.get_mut(&at).expect("it runs").answers.pop() {
            Some(Answer::Written(Ok(Outcome { replayed, conditional, positions, .. }))) => {
                self.answered_at = positions.to_vec();
                let how = [(replayed, ", replayed"), (conditional, ", conditional")];
                how.iter().filter(|(is, _)| *is).fold("yes".to_owned(), |text, (_, how)| text + how)
            }
            Some(Answer::Written(Err(reject))) => {
                format!("{}, applied: {}", reject.code.name(), reject.applied.name())
            }
            other => format!("{other:?}"),
        }
    }

    pub(crate) fn value(&mut self, at: u16, name: &str) -> i128 {
        let ticket = tombolo_replica::Ticket(98);
        let tenant = tombolo_causality::TenantId::DEFAULT;
        self.handle(at, Input::Read { ticket, tenant, keys: vec![key(name)], after: Vec::new() });
        self.run();
        match self.sides.get_mut(&at).expect("it runs").answers.pop() {
            Some(Answer::Read(values)) => match values[0] {
                ReadValue::Counter(value) => value,
                _ => 0,
            },
            other => panic!("{other:?} is no answer to a read"),
        }
    }

    pub(crate) fn sync(&mut self, at: u16) {
        let side = self.sides.get_mut(&at).expect("it runs");
        side.is_disk_held = false;
        for Position { log, seq } in std::mem::take(&mut side.unsynced) {
            self.handle(at, Input::Durable { log, through: seq });
        }
        self.run();
    }

    pub(crate) fn vector(&self, at: u16) -> VersionVector {
        self.sides[&at].replica.report(self.now()).vector
    }

    /// The value everywhere, if all are equal in all else.
    pub(crate) fn everywhere(&mut self, name: &str) -> i128 {
        let all: Vec<u16> = self.sides.keys().copied().collect();
        let now = self.now();
        let reports: Vec<_> = all.iter().map(|at| self.sides[at].replica.report(now)).collect();
        for report in &reports {
            assert_eq!(report.vector, reports[0].vector);
            assert_eq!(report.digest, reports[0].digest);
            assert_eq!(report.halted, []);
        }
        let values: BTreeSet<i128> = all.iter().map(|&at| self.value(at, name)).collect();
        assert_eq!(values.len(), 1, "{values:?}");
        values.into_iter().next().expect("one at least")
    }

    pub(crate) fn run(&mut self) {
        loop {
            let mut is_idle = true;
            for at in self.sides.keys().copied().collect::<Vec<_>>() {
                let later = Now { monotonic_ms: self.now().monotonic_ms + 500, ..self.now() };
                self.sides.get_mut(&at).expect("it runs").replica.flush(later);
                while let Some(effect) = self.sides.get_mut(&at).and_then(|it| it.replica.poll_effect()) {
                    is_idle = false;
                    self.effect(at, effect);
                }
            }
            if is_idle {
                return;
            }
        }
    }

    fn link(&self, one: u16, other: u16) -> Option<Link> {
        self.links.get(&(one.min(other), one.max(other))).copied()
    }

    fn effect(&mut self, at: u16, effect: Effect) {
        let links = self.links.clone();
        let is_up = |peer: RegionId, link| {
            let other = id(peer);
            links.get(&(at.min(other), at.max(other))) == Some(&link)
        };
        let side = self.sides.get_mut(&at).expect("it runs");
        match effect {
            Effect::Append(batch) => {
                let header = batch.header();
                let end = Position { log: header.log, seq: header.seq };
                side.stored.entry((end.log.region, end.log.epoch)).or_default().push(batch);
                if side.is_disk_held {
                    side.unsynced.push(end);
                } else {
                    self.handle(at, Input::Durable { log: end.log, through: end.seq });
                }
            }
            Effect::Answer { answer, .. } => side.answers.push(answer),
            Effect::Load { peer, link, log, from, .. } => {
                let stored = side.stored.get(&(log.region, log.epoch));
                let batches = stored.into_iter().flatten().filter(|b| b.header().seq >= from).cloned();
                let input = Input::Loaded { peer, link, log, batches: batches.collect() };
                self.handle(at, input);
            }
            Effect::Ship { peer, link, batch } if is_up(peer, link) => {
                self.handle(id(peer), Input::Remote { from: region(at), link, batch });
            }
            Effect::Send { peer, link, message } => {
                if matches!(message, tombolo_codec::PeerMessage::StableAsk { .. }) {
                    side.questions_of_stability += 1;
                }
                if is_up(peer, link)
                    && let Some((_, input)) = Input::said(region(at), link, message)
                {
                    self.handle(id(peer), input);
                }
            }
            Effect::Describe { peer, link, received, applied } if is_up(peer, link) => {
                self.handle(id(peer), Input::PeerAnswer { peer: region(at), link, received, applied });
            }
            Effect::Disconnect { peer, link } if is_up(peer, link) => self.cut(at, id(peer)),
            Effect::Ack(position) => {
                let peers: Vec<u16> = self.sides.keys().copied().filter(|&peer| peer != at).collect();
                for peer in peers {
                    if let Some(link) = self.link(at, peer) {
                        let positions = vec![position];
                        self.handle(peer, Input::Acked { from: region(at), link, positions });
                    }
                }
            }
            Effect::Reached { region, .. } => drop(side.reached.insert(id(region))),
            Effect::Voided { region, .. } => drop(side.reached.remove(&id(region))),
            Effect::Notice(notice) => side.notices.push(notice.code),
            _ => {}
        }
    }
}

/// The batch at a position of a disk.
pub(crate) fn at(side: &Side, writer: u16, epoch: u128, seq: u64) -> Batch {
    let log = &side.stored[&(region(writer), Epoch(epoch))];
    log.iter().find(|batch| batch.header().seq == Seq(seq)).expect("it is stored").clone()
}
