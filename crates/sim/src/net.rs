//! The network: directed paths that delay, lose and are cut, and connections over them with lanes that keep their order.
//!
//! A connection stands for QUIC: within it frames arrive in order per channel, and a lost packet shows as delay. What
//! no connection can make whole shows as its end: each side notices for itself. On top of what QUIC would do, batches
//! and acks arrive again, much later, and on connections that are over, because a replica has to bear it (R1). Hellos
//! and subscriptions do not: the mesh relies on the stream for those.

use std::collections::{BTreeMap, VecDeque};

use tombolo_causality::{Epoch, VersionVector};
use tombolo_codec::{Batch, Membership, PeerMessage, Position};
use tombolo_replica::Link;

use crate::queue::Micros;

/// One control channel, and lanes for batches.
pub(crate) const CHANNELS: usize = 4;
pub(crate) const CONTROL: usize = 0;

/// What travels.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    /// Who speaks.
    Hello { epoch: Epoch, members: Membership },
    /// Who belongs to the cluster, as its sender knows.
    Members(Membership),
    /// What each shard holds, in answer to a hello of that epoch.
    Answer { epoch: Epoch, answers: Epoch, parts: Vec<(VersionVector, VersionVector)> },
    /// A subscription or its end.
    Message(PeerMessage),
    /// What was applied.
    Acks { epoch: Epoch, positions: Vec<Position> },
    /// A batch.
    Batch(Batch),
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    pub(crate) channels: [VecDeque<(Micros, Frame)>; CHANNELS],
    pub(crate) last: [Micros; CHANNELS],
    pub(crate) is_scheduled: [bool; CHANNELS],
}

/// A connection between two nodes.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) ends: [usize; 2],
    /// What each end calls it.
    pub(crate) links: [Link; 2],
    pub(crate) is_open: [bool; 2],
    /// Towards each end.
    pub(crate) directions: [Direction; 2],
}

impl Connection {
    /// Which end a node is.
    pub(crate) fn end_of(&self, node: usize) -> usize {
        usize::from(self.ends[1] == node)
    }
}

/// Paths and connections.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) connections: BTreeMap<u64, Connection>,
    next_id: u64,
    /// How many cuts lie on a directed path, and until when it is slow.
    cuts: Vec<Vec<u32>>,
    pub(crate) clogged_until: Vec<Vec<Micros>>,
}

impl Net {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            connections: BTreeMap::new(),
            next_id: 0,
            cuts: vec![vec![0; nodes]; nodes],
            clogged_until: vec![vec![0; nodes]; nodes],
        }
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from][to] > 0
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cuts[from][to] += 1;
    }

    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        self.cuts[from][to] -= 1;
    }

    /// Ends every cut and clog.
    pub(crate) fn mend_all(&mut self) {
        self.cuts.iter_mut().flatten().for_each(|cuts| *cuts = 0);
        self.clogged_until.iter_mut().flatten().for_each(|until| *until = 0);
    }

    pub(crate) fn connect(&mut self, ends: [usize; 2], links: [Link; 2]) -> u64 {
        self.next_id += 1;
        let connection = Connection {
            ends,
            links,
            is_open: [true; 2],
            directions: [Direction::default(), Direction::default()],
        };
        self.connections.insert(self.next_id, connection);
        self.next_id
    }

    /// Closes one end; gives what was on its way to it, for whoever wants to see it arrive late.
    pub(crate) fn close(&mut self, id: u64, end: usize) -> Vec<Frame> {
        let Some(connection) = self.connections.get_mut(&id) else { return Vec::new() };
        connection.is_open[end] = false;
        let channels = std::mem::take(&mut connection.directions[end].channels);
        if connection.is_open == [false; 2] {
            self.connections.remove(&id);
        }
        channels.into_iter().flatten().map(|(_, frame)| frame).collect()
    }
}
