//! One replica under test, driven input by input; what it wants done comes back as lines of text.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tombolo_causality::VersionVector;
use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, Seq, SessionId, ShardId, Stamp, TenantId, Time};
use tombolo_codec::{
    Batch, Checkpoint, Kind, Op, PeerMessage, Position, ReadValue, Roster, Schema, SessionPart, StampSource,
    Verb, request_digest,
};
use tombolo_replica::{
    Answer, Difference, Durability, Effect, Input, Link, Mending, Now, Options, PeerLimits, Replica, Ticket,
    VerifyReport, WritePart,
};

pub(crate) const SHARD: ShardId = ShardId(0);

pub(crate) fn region(id: u16) -> RegionId {
    RegionId::new(id).expect("tests name valid regions")
}

/// Time in whole seconds, so that stamps read well.
pub(crate) fn second(at: u64) -> Time {
    Time(at << 32)
}

pub(crate) fn log(writer: u16, epoch: u128) -> LogId {
    LogId { shard: SHARD, region: region(writer), epoch: Epoch(epoch) }
}

pub(crate) fn position(writer: u16, epoch: u128, seq: u64) -> Position {
    Position { log: log(writer, epoch), seq: Seq(seq) }
}

pub(crate) fn stamp(seconds: u64, op: u128) -> Stamp {
    Stamp { time: second(seconds), region: region(1), op }
}

pub(crate) fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn add(at: &str, delta: i64) -> Op {
    Op { key: key(at), verb: Verb::Add { delta } }
}

pub(crate) fn set(at: &str, value: &str) -> Op {
    Op { key: key(at), verb: Verb::Set { value: key(value), expires_at: None, stamp: StampSource::Here(1) } }
}

pub(crate) fn set_at(at: &str, value: &str, stamp: Stamp) -> Op {
    Op {
        key: key(at),
        verb: Verb::Set { value: key(value), expires_at: None, stamp: StampSource::Fixed(stamp) },
    }
}

pub(crate) fn delete(at: &str, kind: Option<Kind>) -> Op {
    Op { key: key(at), verb: Verb::Delete { kind, stamp: StampSource::Here(2) } }
}

pub(crate) fn delete_at(at: &str, kind: Kind, stamp: Stamp) -> Op {
    Op { key: key(at), verb: Verb::Delete { kind: Some(kind), stamp: StampSource::Fixed(stamp) } }
}

/// A session of a home, opened in one of its epochs.
pub(crate) fn session(home: u16, epoch: u128) -> SessionId {
    SessionId { home: region(home), epoch: Epoch(epoch), opened: second(1), random: 5 }
}

pub(crate) fn numbered(id: SessionId, number: u64, settled: u64, ops: Vec<Op>) -> WritePart {
    let digest = request_digest(TenantId::DEFAULT, &ops);
    WritePart { session: Some(SessionPart { id, number, settled, digest }), ..plain(ops) }
}

pub(crate) fn plain(ops: Vec<Op>) -> WritePart {
    let tenant = TenantId::DEFAULT;
    WritePart { tenant, session: None, retry: false, after: Time::ZERO, ops, wants_values: true }
}

/// A replica and everything it appended, in order.
pub(crate) struct Node {
    pub(crate) replica: Replica,
    pub(crate) appended: Vec<Batch>,
    pub(crate) shipped: Vec<Batch>,
    /// What was said of cuts, and what is to be installed.
    pub(crate) said: Vec<PeerMessage>,
    pub(crate) installs: Vec<Difference>,
    pub(crate) mendings: Vec<Mending>,
    /// What verifications came to.
    pub(crate) verified: Vec<VerifyReport>,
    pub(crate) wall: Time,
    /// The incarnations that peers were last asked under.
    asked: Vec<(RegionId, Epoch)>,
    /// And under which roster.
    asked_under: u64,
    /// What each peer last answered, on which connection.
    answers: BTreeMap<u16, (u64, VersionVector)>,
    tickets: u64,
}

/// Who is in and who is out.
pub(crate) fn roster(members: &[u16], removed: &[u16]) -> Roster {
    let removed = removed.iter().map(|&id| region(id)).collect();
    Roster { removed, ..Roster::of(members.iter().map(|&id| region(id))) }
}

pub(crate) fn options(id: u16, epoch: u128, members: &[u16]) -> Options {
    Options {
        cluster: ClusterId(7),
        shard: SHARD,
        region: region(id),
        epoch: Epoch(epoch),
        roster: roster(members, &[]),
        durability: Durability::Sync,
        schema: Arc::new(Schema::default()),
        drift_ms_max: 500,
        session_numbers_max: 3,
        window_ms: 86_400_000,
        peer_limits: PeerLimits::default(),
    }
}

impl Node {
    pub(crate) fn open(options: Options, checkpoint: Option<&Checkpoint>, logs: &[Batch]) -> Self {
        let mut replica = Replica::open(options, checkpoint);
        for batch in logs {
            replica.replay(batch).expect("the logs of a test are sound");
        }
        Self {
            replica,
            appended: Vec::new(),
            shipped: Vec::new(),
            said: Vec::new(),
            installs: Vec::new(),
            mendings: Vec::new(),
            verified: Vec::new(),
            wall: second(100),
            asked: Vec::new(),
            asked_under: 0,
            answers: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// A region that has started.
    pub(crate) fn started(id: u16, epoch: u128, members: &[u16]) -> Self {
        let mut node = Self::open(options(id, epoch, members), None, &[]);
        node.start();
        node
    }

    /// A region without peers.
    pub(crate) fn alone() -> Self {
        let mut node = Self::started(1, 1, &[1]);
        node.effects();
        node
    }

    pub(crate) fn now(&self) -> Now {
        Now { wall: self.wall, monotonic_ms: (self.wall.seconds_since(second(100)) * 1_000.0) as u64 }
    }

    pub(crate) fn start(&mut self) -> String {
        let now = self.now();
        self.replica.start(now);
        self.effects()
    }

    pub(crate) fn handle(&mut self, input: Input) -> String {
        let now = self.now();
        self.replica.handle(input, now);
        self.effects()
    }

    pub(crate) fn flush(&mut self) -> String {
        // As the shell does: again when the pace is due.
        let now = self.now();
        let monotonic_ms = self.replica.next_flush_ms().unwrap_or_default().max(now.monotonic_ms);
        let now = Now { monotonic_ms, ..now };
        self.replica.flush(now);
        self.effects()
    }

    pub(crate) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub(crate) fn write(&mut self, part: WritePart) -> String {
        let ticket = self.ticket();
        self.handle(Input::Write { ticket, part: Box::new(part) })
    }

    pub(crate) fn check(&mut self, part: WritePart) -> String {
        let ticket = self.ticket();
        self.handle(Input::Check { ticket, part: Box::new(part) })
    }

    pub(crate) fn read(&mut self, keys: &[&str], after: Vec<Position>) -> String {
        let ticket = self.ticket();
        let keys = keys.iter().map(|&text| key(text)).collect();
        self.handle(Input::Read { ticket, tenant: TenantId::DEFAULT, keys, after })
    }

    pub(crate) fn wait(&mut self, at: Position) -> String {
        let ticket = self.ticket();
        self.handle(Input::Await { ticket, positions: vec![at] })
    }

    pub(crate) fn durable(&mut self, at: Position) -> String {
        self.handle(Input::Durable { log: at.log, through: at.seq })
    }

    pub(crate) fn staged(&mut self, at: Position) -> String {
        self.handle(Input::Staged { log: at.log, through: at.seq })
    }

    /// Closes the open batch and makes all that was appended durable.
    pub(crate) fn settle(&mut self) -> String {
        let mut out = self.flush();
        let first = self.appended.len().saturating_sub(8);
        let ends: Vec<Position> = self.appended[first..]
            .iter()
            .map(|b| Position { log: b.header().log, seq: b.header().seq })
            .collect();
        for end in ends {
            out += &self.durable(end);
        }
        out
    }

    /// A write that is durable when this returns.
    pub(crate) fn done(&mut self, part: WritePart) -> String {
        let mut out = self.write(part);
        out += &self.settle();
        out.lines().filter(|line| line.starts_with("answer")).map(|line| format!("{line}\n")).collect()
    }

    pub(crate) fn peer_up(&mut self, peer: u16, epoch: u128, link: u64) -> String {
        self.handle(Input::PeerUp { peer: region(peer), epoch: Epoch(epoch), link: Link(link) })
    }

    pub(crate) fn peer_answer(
        &mut self,
        peer: u16,
        link: u64,
        received: &[Position],
        applied: &[Position],
    ) -> String {
        let (received, applied) = (vector_of(received), vector_of(applied));
        self.answers.insert(peer, (link, received.clone()));
        let input = Input::PeerAnswer { peer: region(peer), link: Link(link), received, applied };
        let mut out = self.handle(input);
        // What is asked then is answered by all as before.
        for (from, (link, received)) in self.answers.clone() {
            let question = format!("ask r{from} for the whole of it\n");
            if out.contains(&question) {
                out = out.replace(&question, "");
                let (from, link) = (region(from), Link(link));
                let (epochs, roster) = (self.asked.clone(), self.asked_under);
                out += &self.handle(Input::WholeAnswered { from, link, roster, epochs, received });
            }
        }
        out
    }

    pub(crate) fn peer_down(&mut self, peer: u16, link: u64) -> String {
        self.handle(Input::PeerDown { peer: region(peer), link: Link(link) })
    }

    pub(crate) fn remote(&mut self, from: u16, link: u64, batch: &Batch) -> String {
        self.handle(Input::Remote { from: region(from), link: Link(link), batch: batch.clone() })
    }

    pub(crate) fn acked(&mut self, from: u16, link: u64, at: Position) -> String {
        self.handle(Input::Acked { from: region(from), link: Link(link), positions: vec![at] })
    }

    pub(crate) fn tick(&mut self) -> String {
        self.handle(Input::Tick)
    }

    pub(crate) fn subscribe(&mut self, from: u16, link: u64, at: Position) -> String {
        self.handle(Input::Subscribe { from: region(from), link: Link(link), log: at.log, seq: at.seq })
    }

    pub(crate) fn effects(&mut self) -> String {
        let mut out = String::new();
        while let Some(effect) = self.replica.poll_effect() {
            if let Effect::Proceed = effect {
                let now = self.now();
                self.replica.handle(Input::Proceed, now);
                continue;
            }
            if let Effect::Answer { answer: Answer::Verified(Ok(report)), .. } = &effect {
                self.verified.push((**report).clone());
            }
            if let Effect::Append(batch) = &effect {
                self.appended.push(batch.clone());
            }
            if let Effect::Send { message: PeerMessage::WholeAsk { epochs, roster, .. }, .. } = &effect {
                self.asked = epochs.clone();
                self.asked_under = *roster;
            }
            if let Effect::Ship { batch, .. } = &effect {
                self.shipped.push(batch.clone());
            }
            out += &line(&effect);
            if let Effect::Install(difference) = effect {
                self.installs.push(*difference);
            } else if let Effect::Mend(mending) = effect {
                self.mendings.push(*mending);
            } else if let Effect::Send { message, .. } = effect {
                self.said.push(message);
            }
            out.push('\n');
        }
        out
    }
}

fn vector_of(positions: &[Position]) -> VersionVector {
    let mut vector = VersionVector::new();
    positions.iter().for_each(|p| vector.raise(p.log.region, p.log.epoch, p.seq));
    vector
}

fn log_text(log: LogId) -> String {
    format!("r{}e{}", log.region, log.epoch.0)
}

fn position_text(at: &Position) -> String {
    format!("{}#{}", log_text(at.log), at.seq)
}

fn batch_text(batch: &Batch) -> String {
    let header = batch.header();
    format!("{}#{} of {} ops", log_text(header.log), header.seq, header.ops_count)
}

fn vector_text(vector: &VersionVector) -> String {
    let ends: Vec<String> =
        vector.logs(SHARD).map(|(log, seq)| position_text(&Position { log, seq })).collect();
    format!("[{}]", ends.join(" "))
}

fn value_text(value: &ReadValue) -> String {
    match value {
        ReadValue::Absent => "-".to_owned(),
        ReadValue::Counter(value) => value.to_string(),
        ReadValue::Register { value, .. } => format!("{:?}", String::from_utf8_lossy(value)),
    }
}

fn answer_text(answer: &Answer) -> String {
    match answer {
        Answer::Checked(Ok(_)) => "fine".to_owned(),
        Answer::Checked(Err(reject)) | Answer::Written(Err(reject)) => {
            let needed = reject.stamp_needed.map_or(String::new(), |s| format!(", above {}", s.time.0 >> 32));
            format!("{}, applied: {}{needed}", reject.code.name(), reject.applied.name())
        }
        Answer::Written(Ok(outcome)) => {
            let at = outcome.positions.iter().map(position_text).collect::<Vec<_>>().join(" ");
            let at = if at.is_empty() { "nowhere" } else { &at };
            let replayed = if outcome.replayed { ", replayed" } else { "" };
            let conditional = if outcome.conditional { ", conditional" } else { "" };
            let values: Vec<String> = outcome.values.iter().flatten().map(ToString::to_string).collect();
            format!("yes at {at}{conditional}{replayed}, values [{}]", values.join(" "))
        }
        Answer::Verified(Err(reject)) => reject.code.name().to_owned(),
        Answer::Verified(Ok(report)) => format!(
            "{} entries, {} rounds, {} in motion, {} damaged, {} mended",
            report.entries_count,
            report.rounds_count,
            report.in_motion_count,
            report.damaged_count,
            report.mended_count
        ),
        Answer::Read(values) => values.iter().map(value_text).collect::<Vec<_>>().join(" "),
    }
}

fn line(effect: &Effect) -> String {
    match effect {
        Effect::Append(batch) => format!("append {}", batch_text(batch)),
        Effect::Answer { ticket, answer } => format!("answer {}: {}", ticket.0, answer_text(answer)),
        Effect::Reached { ticket, region } => format!("reached {}: r{region}", ticket.0),
        Effect::Voided { ticket, region } => format!("voided {}: r{region}", ticket.0),
        Effect::Ship { peer, batch, .. } => format!("ship to r{peer}: {}", batch_text(batch)),
        Effect::Load { peer, log, from, .. } => format!("load for r{peer}: {} from #{from}", log_text(*log)),
        Effect::Send { peer, message: PeerMessage::Subscribe { log, from }, .. } => {
            format!("ask r{peer}: {} from #{from}", log_text(*log))
        }
        Effect::Send { peer, message: PeerMessage::Unsubscribe { log }, .. } => {
            format!("ask r{peer} no more: {}", log_text(*log))
        }
        Effect::Send { peer, message: PeerMessage::WholeAsk { .. }, .. } => {
            format!("ask r{peer} for the whole of it")
        }
        Effect::Send { peer, message: PeerMessage::StableAsk { log, through, .. }, .. } => {
            format!("ask r{peer}: is {} stable through #{through}?", log_text(*log))
        }
        Effect::Send { peer, message: PeerMessage::StableAnswer { log, through, own, .. }, .. } => {
            let own = position_text(own);
            format!("tell r{peer}: {} is stable through #{through}, own log at {own}", log_text(*log))
        }
        Effect::Send { peer, message: PeerMessage::Held { paused, halted, received, .. }, .. } => {
            let paused: Vec<String> = paused.iter().map(|region| format!("r{region}")).collect();
            let halted: Vec<String> = halted.iter().map(|(log, _)| log_text(*log)).collect();
            let received: Vec<String> = received.iter().map(position_text).collect();
            let words = |list: Vec<String>| if list.is_empty() { "-".to_owned() } else { list.join(" ") };
            format!(
                "tell r{peer} what is held: paused {} halted {} received {}",
                words(paused),
                words(halted),
                words(received)
            )
        }
        Effect::Send { peer, message, .. } => match message {
            PeerMessage::NotRetained { log, from } => {
                format!("tell r{peer}: {} is not kept from #{from}", log_text(*log))
            }
            PeerMessage::CutAsk { .. } => format!("ask r{peer} for a cut"),
            PeerMessage::Cut { .. } => format!("open a cut for r{peer}"),
            PeerMessage::CutRefused { .. } => format!("tell r{peer}: no cut now"),
            PeerMessage::EntriesAsk { section, leaves, .. } => {
                format!("ask r{peer} for {} leaves of {section:?}", leaves.len())
            }
            PeerMessage::Entries { entries, unknown, rest, .. } => {
                let count = entries.cells.len() + entries.sessions.len() + entries.conditionals.len();
                format!("send r{peer} {count} entries, {} unknown, {} left", unknown.len(), rest.len())
            }
            PeerMessage::CutDone { .. } => format!("tell r{peer}: done with the cut"),
            message => format!("send r{peer}: {message:?}"),
        },
        Effect::Install(difference) => format!("install {} cells", difference.state.cells.len()),
        Effect::Mend(_) => "mend".to_owned(),
        Effect::Proceed => "proceed".to_owned(),
        Effect::Disconnect { peer, .. } => format!("hang up on r{peer}"),
        Effect::Describe { peer, received, applied, .. } => {
            format!(
                "describe to r{peer}: received {} applied {}",
                vector_text(received),
                vector_text(applied)
            )
        }
        Effect::Ack(at) => format!("ack {}", position_text(at)),
        Effect::Applied { region, ops_count, .. } => format!("applied {ops_count} ops of r{region}"),
        Effect::BecameWhole => "whole".to_owned(),
        Effect::Notice(notice) => format!("notice {}", notice.code),
    }
}
