//! The network: at most one living connection a pair, each with lanes that keep their order, and acks of which the
//! latest wins. A dead connection may still deliver what was on its way.

use std::collections::{BTreeMap, VecDeque};

use tombolo_causality::{Epoch, LogId, Seq, VersionVector};
use tombolo_codec::{Batch, PeerMessage};

use crate::rng::Rng;

/// One control lane, and lanes for batches.
pub(crate) const LANES: usize = 3;

pub(crate) enum Message {
    Hello { epoch: Epoch },
    Answer { received: VersionVector, applied: VersionVector },
    Control(PeerMessage),
    Batch(Batch),
}

/// One direction of a connection.
#[derive(Default)]
pub(crate) struct Direction {
    pub(crate) lanes: [VecDeque<Message>; LANES],
    pub(crate) acks: BTreeMap<LogId, Seq>,
    /// The receiver has handled the hello.
    pub(crate) is_up: bool,
    /// The sender has sent its answer, so acks may follow it.
    pub(crate) is_answered: bool,
    /// The receiver need not be told that the connection ended.
    pub(crate) is_closed: bool,
}

impl Direction {
    pub(crate) fn is_quiet(&self) -> bool {
        self.acks.is_empty() && self.lanes.iter().all(VecDeque::is_empty)
    }

    pub(crate) fn clear(&mut self) {
        self.acks.clear();
        self.lanes.iter_mut().for_each(VecDeque::clear);
    }

    /// The lanes that hold something.
    pub(crate) fn busy(&self) -> Vec<usize> {
        (0..LANES).filter(|&lane| !self.lanes[lane].is_empty()).collect()
    }
}

/// A connection between two regions, by their places in the world.
pub(crate) struct Connection {
    pub(crate) ends: (usize, usize),
    pub(crate) is_dead: bool,
    /// Towards the first end, towards the second.
    pub(crate) directions: [Direction; 2],
}

impl Connection {
    /// The direction that leads to `to`.
    pub(crate) fn towards(&mut self, to: usize) -> &mut Direction {
        &mut self.directions[usize::from(self.ends.1 == to)]
    }

    pub(crate) fn other(&self, end: usize) -> usize {
        if self.ends.0 == end { self.ends.1 } else { self.ends.0 }
    }
}

#[derive(Default)]
pub(crate) struct Net {
    pub(crate) connections: BTreeMap<u64, Connection>,
    next_id: u64,
}

impl Net {
    pub(crate) fn living(&self, a: usize, b: usize) -> Option<u64> {
        let ends = (a.min(b), a.max(b));
        let is_it = |connection: &&Connection| connection.ends == ends && !connection.is_dead;
        self.connections.iter().find(|(_, connection)| is_it(connection)).map(|(&id, _)| id)
    }

    /// Opens a connection; hellos are on their way in both directions.
    pub(crate) fn connect(&mut self, a: (usize, Epoch), b: (usize, Epoch)) {
        let (low, high) = if a.0 < b.0 { (a, b) } else { (b, a) };
        // A hello of an earlier connection is not heard after one of a later connection.
        for connection in self.connections.values_mut().filter(|c| c.ends == (low.0, high.0)) {
            for direction in &mut connection.directions {
                if !direction.is_up {
                    direction.clear();
                    direction.is_closed = true;
                }
            }
        }
        let mut directions = [Direction::default(), Direction::default()];
        directions[0].lanes[0].push_back(Message::Hello { epoch: high.1 });
        directions[1].lanes[0].push_back(Message::Hello { epoch: low.1 });
        self.next_id += 1;
        let connection = Connection { ends: (low.0, high.0), is_dead: false, directions };
        self.connections.insert(self.next_id, connection);
    }

    /// The connection ends; what was on its way arrives up to some point, or not at all.
    pub(crate) fn cut(&mut self, id: u64, rng: &mut Rng) {
        let connection = self.connections.get_mut(&id).expect("only known connections are cut");
        connection.is_dead = true;
        for direction in &mut connection.directions {
            for lane in &mut direction.lanes {
                let kept = if rng.percent(50) { 0 } else { rng.below(lane.len() + 1) };
                lane.truncate(kept);
            }
            if rng.percent(50) {
                direction.acks.clear();
            }
        }
    }

    /// A process died: nothing reaches it any more, and its connections are dead.
    pub(crate) fn crash(&mut self, region: usize, rng: &mut Rng) {
        let ids: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| c.ends.0 == region || c.ends.1 == region)
            .map(|(&id, _)| id)
            .collect();
        for id in ids {
            self.cut(id, rng);
            let connection = self.connections.get_mut(&id).expect("it was found above");
            let direction = connection.towards(region);
            direction.clear();
            direction.is_closed = true;
        }
        self.sweep();
    }

    pub(crate) fn sweep(&mut self) {
        let is_over = |c: &Connection| c.is_dead && c.directions.iter().all(|d| d.is_closed && d.is_quiet());
        self.connections.retain(|_, connection| !is_over(connection));
    }
}
