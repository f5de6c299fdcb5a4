//! What connections change: what is sent again over a new one, and when the one that stands is of no more use.

use tokio::time::Instant;
use tombolo_codec::ClientAnswer;

use super::Book;
use crate::entry::State;
use crate::stamps::Stamps;

/// Rounds through all regions, each of them silent, after which it grows no more patient.
const PATIENCE_ROUNDS_MAX: u32 = 4;

impl Book {
    /// A connection stands, to whatever region: everything unanswered is sent again in its old order. What may have been
    /// logged keeps its session and number, also where that is of another region or an earlier incarnation.
    pub(crate) fn link_up(&mut self, welcome: &ClientAnswer, now: Instant) {
        let ClientAnswer::Welcome { region, epoch, clock, .. } = welcome else {
            unreachable!("a link is made of a welcome");
        };
        let home = (*region, *epoch);
        self.link = Some(home);
        self.heard = now;
        self.farewell = None;
        let drift_ms_max = self.drift_ms_max;
        let stamps = self.stamps.get_or_insert_with(|| Stamps::new(drift_ms_max, *clock, now));
        stamps.anchor(*clock, now);
        for handle in self.handles.values_mut() {
            handle.waiting.clear();
            if let Some(wire) = handle.current.and_then(|wire| self.wires.get_mut(&wire))
                && !wire.is_of(home)
            {
                wire.is_left = true;
                handle.current = None;
            }
        }
        for entry in self.entries.values_mut() {
            entry.is_lost |= matches!(entry.state, State::Sent(_));
            if let Some(place) = entry.place
                && !entry.is_lost
                && let Some(wire) = self.wires.get_mut(&place.wire).filter(|wire| !wire.is_of(home))
            {
                // Each attempt was refused, so nothing of it was logged: it may go under a new session.
                wire.close(place.number);
                entry.place = None;
                entry.attempts = 0;
            }
        }
        self.wires.retain(|_, wire| !wire.is_over());
        self.wires.values_mut().for_each(|wire| wire.blocked.clear());
        self.ready.clear();
        self.ready_barriers.clear();
        for (&id, entry) in &mut self.entries {
            if matches!(entry.state, State::Resting(_)) {
                continue;
            }
            entry.state = State::Ready;
            let ready = if entry.is_barrier() { &mut self.ready_barriers } else { &mut self.ready };
            ready.push_back(id);
        }
    }

    /// The connection is gone, or an attempt at a new one has failed.
    pub(crate) fn link_down(&mut self, trouble: String) {
        self.link = None;
        self.trouble = trouble;
    }

    /// Whether the region owes answers and has said nothing for too long.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        // Where all of them are slow, moving from one to the other at the same pace would get no answer from any.
        let rounds = (self.silent_count / self.regions_count).min(PATIENCE_ROUNDS_MAX);
        let silence_max = self.failover_after * (1 << rounds);
        let long_ago = |since: Instant| since + silence_max < now;
        long_ago(self.heard) && self.waiting_since.is_some_and(long_ago)
    }

    /// The connection is given up because its region is silent.
    pub(crate) fn note_silence(&mut self) {
        self.silent_count = self.silent_count.saturating_add(1);
    }

    /// Why the region has to be left, if it has said that it cannot serve and there is another one.
    pub(crate) fn take_farewell(&mut self) -> Option<String> {
        self.farewell.take()
    }

    /// Whether the region owes an answer to a write.
    pub(crate) fn has_writes_under_way(&self) -> bool {
        self.entries.values().any(|entry| entry.is_write() && matches!(entry.state, State::Sent(_)))
    }
}
