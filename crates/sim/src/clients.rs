//! What clients know: their sessions, the requests they sent, and what became of each accounted add.
//!
//! Every request holds in each shard that it touches one accounted add: it owns one base-4 digit of one counter, so
//! that an add which is lost, or counted twice, shows as that digit. What clients do stands in `traffic.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use tombolo_causality::{SessionId, Stamp, Time};
use tombolo_codec::{Op, PayloadDigest, Position, Reject, Verb};
use tombolo_replica::{Outcome, Ticket};

use crate::plan::Plan;
use crate::queue::Micros;
use crate::truth::DIGITS;

/// What is promised of an accounted add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Sent, perhaps; counts at most once.
    Unknown,
    /// Answered yes, durable: counts exactly once, for ever.
    Kept,
    /// Answered yes before its sync: a crash may take it.
    Promised,
    /// Answered no for good: never counts.
    Refused,
    /// Answered yes, and then every copy of it went with a disk that came back older.
    Lost,
}

/// One accounted add.
#[derive(Debug)]
pub(crate) struct Add {
    pub(crate) fate: Fate,
    /// Yes was said only by regions that are not its authority: it goes if its client gives it up.
    pub(crate) is_conditional: bool,
    pub(crate) request: usize,
}

/// A request's ops in one shard.
#[derive(Debug, Clone)]
pub(crate) struct Portion {
    pub(crate) shard: usize,
    pub(crate) add: usize,
    pub(crate) ops: Vec<Op>,
}

/// How far a request is for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No answer that settles it.
    Open,
    /// Answered by its authority, all portions; or refused, or given up.
    Settled,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) client: usize,
    /// Which session, which number.
    pub(crate) session: Option<(usize, u64)>,
    pub(crate) portions: Vec<Portion>,
    pub(crate) digest: PayloadDigest,
    pub(crate) stage: Stage,
    pub(crate) attempts: u32,
    pub(crate) outstanding: u32,
    /// Whether any attempt may have been applied.
    pub(crate) is_maybe: bool,
    /// Whether its client was told yes.
    pub(crate) is_answered: bool,
    /// Which processes it came to: what another one logs of it, that one absorbs.
    pub(crate) arrived_at: Vec<(usize, u64)>,
    pub(crate) sent: Micros,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) home: usize,
    /// By number, from 1 on.
    pub(crate) requests: Vec<usize>,
    pub(crate) settled: u64,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) home: usize,
    pub(crate) session: Option<usize>,
    pub(crate) open: Vec<usize>,
    /// The greatest time it was told of.
    pub(crate) seen: Time,
}

/// What an attempt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To have the request done.
    Honest,
    /// Other ops under a number that was answered before: yes would be wrong.
    Forged,
    /// A number below the settled mark: it may be answered as a replay, or refused.
    Stale,
}

/// One sending of a request to one region.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) request: usize,
    pub(crate) node: usize,
    pub(crate) purpose: Purpose,
    pub(crate) is_retry: bool,
    pub(crate) settled: u64,
    pub(crate) after: Time,
    /// Whether that lay within the bound of the region's clock when it arrived.
    pub(crate) is_after_near: bool,
    pub(crate) results: Vec<Option<Result<Outcome, Reject>>>,
    /// The stamps of the registers that it writes, as they stood before.
    pub(crate) seen: Vec<Vec<Option<Stamp>>>,
    /// Its client no longer waits.
    pub(crate) is_timed_out: bool,
}

pub(crate) struct Clients {
    /// Per shard.
    pub(crate) adds: Vec<Vec<Add>>,
    pub(crate) clients: Vec<Client>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) requests: Vec<Request>,
    pub(crate) attempts: BTreeMap<u64, Attempt>,
    pub(crate) attempts_count: u64,
    /// Which attempt and portion a write's answer belongs to.
    pub(crate) calls: BTreeMap<Ticket, (u64, usize)>,
    /// Positions that were answered lately.
    pub(crate) positions: Vec<Position>,
}

impl Clients {
    pub(crate) fn new(plan: &Plan) -> Self {
        let nodes = plan.nodes.len();
        let client =
            |at: usize| Client { home: at % nodes, session: None, open: Vec::new(), seen: Time::ZERO };
        Self {
            adds: (0..plan.shards).map(|_| Vec::new()).collect(),
            clients: (0..plan.clients).map(client).collect(),
            sessions: Vec::new(),
            requests: Vec::new(),
            attempts: BTreeMap::new(),
            attempts_count: 0,
            calls: BTreeMap::new(),
            positions: Vec::new(),
        }
    }

    /// A new accounted add of a shard; its digit is told by its number.
    pub(crate) fn account(&mut self, shard: usize, request: usize) -> usize {
        self.adds[shard].push(Add { fate: Fate::Unknown, is_conditional: true, request });
        self.adds[shard].len() - 1
    }

    /// How many ops were asked for.
    pub(crate) fn ops_count(&self) -> u64 {
        self.requests
            .iter()
            .flat_map(|request| &request.portions)
            .map(|portion| portion.ops.len() as u64)
            .sum()
    }
}

/// The counter that holds an add.
pub(crate) fn key_of(add: usize) -> Bytes {
    Bytes::from(format!("a{}", add / DIGITS))
}

pub(crate) fn add_op(add: usize) -> Op {
    let delta = 1i64 << (2 * (add % DIGITS));
    // Every other counter goes down.
    let delta = if (add / DIGITS).is_multiple_of(2) { delta } else { -delta };
    Op { key: key_of(add), verb: Verb::Add { delta } }
}
