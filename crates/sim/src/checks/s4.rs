//! S4: an expired session is refused with a typed error, never run as new.

use tombolo_causality::SessionId;

use crate::checks::Checked;
use crate::queue::MS;
use crate::world::{World, region_of};

/// How long an answer may take from its admission on: disks hang, and are full.
const ANSWER_MS_MAX: u64 = 12_000;

impl World {
    /// A region answered yes under a session.
    pub(crate) fn check_s4(&self, node: usize, session: &SessionId) -> Checked {
        let wall = self.nodes[node].clock.read(self.queue.now());
        let window_ms = self.plan.window / MS;
        if session.opened.plus_ms(window_ms + ANSWER_MS_MAX) < wall {
            return Err(format!("S4: region {} took an op of {session:?} at {wall:?}", region_of(node)));
        }
        Ok(())
    }
}
