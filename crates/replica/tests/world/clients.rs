//! Clients and what they may expect: every accounted add owns one base-4 digit of one counter, so that an add which
//! is lost, or counted twice, shows as that digit.

use std::collections::BTreeMap;

use bytes::Bytes;
use tombolo_causality::{RegionId, SessionId, Stamp, TenantId, Time};
use tombolo_codec::{Kind, Op, PayloadDigest, SessionPart, StampSource, Verb, request_digest};
use tombolo_replica::{Ticket, WritePart};

use crate::rng::Rng;

/// Adds a counter holds, each a base-4 digit.
pub(crate) const DIGITS: usize = 20;

/// What a client knows of an accounted add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Sent, perhaps; no answer that settles it.
    Unknown,
    /// Answered yes, once it was durable: counts exactly once, for ever.
    Kept,
    /// Answered yes at `staged` alone: a crash may take it.
    Promised,
    /// Answered no for good: never counts.
    Refused,
}

pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) home: usize,
    /// By number, from 1 on: which accounted add, the request's ops.
    pub(crate) requests: Vec<(usize, Vec<Op>)>,
    /// By number, from 1 on: whether the authority answered it, or refused it for good.
    pub(crate) is_settled: Vec<bool>,
    /// The greatest settled mark that was sent.
    pub(crate) settled: u64,
}

/// What an answer is for.
pub(crate) struct Call {
    pub(crate) region: usize,
    pub(crate) add: Option<usize>,
    /// The session and the number.
    pub(crate) session: Option<(usize, u64)>,
    /// Other ops under a number that was answered before: yes would be wrong.
    pub(crate) is_forged: bool,
}

#[derive(Default)]
pub(crate) struct Clients {
    pub(crate) adds: Vec<Fate>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) calls: BTreeMap<Ticket, Call>,
    tickets: u64,
}

pub(crate) fn key_of(add: usize) -> Bytes {
    Bytes::from(format!("a{}", add / DIGITS))
}

fn add_op(add: usize) -> Op {
    let delta = 1i64 << (2 * (add % DIGITS));
    // Every other counter goes down.
    let delta = if (add / DIGITS).is_multiple_of(2) { delta } else { -delta };
    Op { key: key_of(add), verb: Verb::Add { delta } }
}

/// An op on cells that all clients share: nothing is known of their values but that regions agree.
pub(crate) fn shared_op(rng: &mut Rng, now: Time, region: RegionId) -> Op {
    let stamp = |rng: &mut Rng| match rng.below(3) {
        0 => StampSource::Fixed(Stamp {
            time: Time(now.0 - rng.below(1 << 30) as u64),
            region,
            op: rng.wide(),
        }),
        _ => StampSource::Here(rng.wide()),
    };
    let at = rng.below(4);
    let (prefix, verb) = match rng.below(10) {
        0..=3 => ("c", Verb::Add { delta: rng.below(9) as i64 - 4 }),
        4 => ("c", Verb::Delete { kind: Some(Kind::Counter), stamp: stamp(rng) }),
        5 => ("r", Verb::Delete { kind: None, stamp: stamp(rng) }),
        _ => {
            let value = Bytes::from(vec![b'a' + rng.below(26) as u8; rng.below(40)]);
            let expires_at = rng.percent(20).then(|| Time(now.0 + rng.below(1 << 34) as u64));
            ("r", Verb::Set { value, expires_at, stamp: stamp(rng) })
        }
    };
    // Some keys are of both kinds.
    let prefix = if rng.percent(10) { "x" } else { prefix };
    Op { key: Bytes::from(format!("{prefix}{at}")), verb }
}

pub(crate) fn part(ops: Vec<Op>, session: Option<SessionPart>, retry: bool) -> Box<WritePart> {
    let tenant = TenantId::DEFAULT;
    Box::new(WritePart { tenant, session, retry, after: Time::ZERO, ops, wants_values: false })
}

impl Clients {
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn call(&mut self, call: Call) -> Ticket {
        let ticket = self.ticket();
        self.calls.insert(ticket, call);
        ticket
    }

    /// A new accounted add; its digit is told by its number.
    fn account(&mut self) -> usize {
        self.adds.push(Fate::Unknown);
        self.adds.len() - 1
    }

    pub(crate) fn add(&mut self, region: usize, shared: Vec<Op>) -> (Ticket, Box<WritePart>) {
        let add = self.account();
        let mut ops = vec![add_op(add)];
        ops.extend(shared);
        let call = Call { region, add: Some(add), session: None, is_forged: false };
        (self.call(call), part(ops, None, false))
    }

    pub(crate) fn open_session(&mut self, home: usize, id: SessionId) {
        self.sessions.push(Session { id, home, requests: Vec::new(), is_settled: Vec::new(), settled: 0 });
    }

    /// The next number of a session.
    pub(crate) fn send_new(
        &mut self,
        at: usize,
        region: usize,
        shared: Vec<Op>,
        raises_mark: bool,
    ) -> (Ticket, Box<WritePart>) {
        let add = self.account();
        let mut ops = vec![add_op(add)];
        ops.extend(shared);
        self.sessions[at].requests.push((add, ops));
        self.sessions[at].is_settled.push(false);
        let number = self.sessions[at].requests.len() as u64;
        self.send(at, region, number, raises_mark, false)
    }

    /// A number of a session, for the first time or again, to any region.
    pub(crate) fn send(
        &mut self,
        at: usize,
        region: usize,
        number: u64,
        raises_mark: bool,
        is_retry: bool,
    ) -> (Ticket, Box<WritePart>) {
        if raises_mark {
            let settled =
                self.sessions[at].is_settled.iter().take_while(|&&settled| settled).count() as u64 + 1;
            self.sessions[at].settled = settled.max(self.sessions[at].settled);
        }
        let session = &self.sessions[at];
        let (add, ops) = session.requests[number as usize - 1].clone();
        let digest = request_digest(TenantId::DEFAULT, &ops);
        let settled = if raises_mark { session.settled } else { 0 };
        let part = part(ops, Some(SessionPart { id: session.id, number, settled, digest }), is_retry);
        let call = Call { region, add: Some(add), session: Some((at, number)), is_forged: false };
        (self.call(call), part)
    }

    /// Other ops under a number that was used.
    pub(crate) fn forge(&mut self, at: usize, number: u64) -> (Ticket, Box<WritePart>) {
        let session = &self.sessions[at];
        let ops = vec![Op { key: Bytes::from_static(b"forged"), verb: Verb::Add { delta: 1 } }];
        let part = SessionPart { id: session.id, number, settled: 0, digest: PayloadDigest([9; 16]) };
        let call = Call { region: session.home, add: None, session: Some((at, number)), is_forged: true };
        (self.call(call), self::part(ops, Some(part), true))
    }

    /// The process that was asked died: nobody answers its callers.
    pub(crate) fn crash(&mut self, region: usize) {
        self.calls.retain(|_, call| call.region != region);
    }

    /// Whether a call under this number is under way.
    pub(crate) fn is_under_way(&self, at: usize, number: u64) -> bool {
        self.calls.values().any(|call| call.session == Some((at, number)))
    }
}
