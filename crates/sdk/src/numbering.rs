//! Numbers: which session of the region a handle writes under, and which of its numbers are still open.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Weak;

use tokio::time::Instant;
use tombolo_causality::{Epoch, RegionId};

use crate::session::SessionShared;

/// A session as the region knows it.
///
/// Its numbers are settled below the lowest that is open. A number closes when the session's authority answers it, or
/// when its caller was told that the outcome is unknown, never before (design.md §3.3). What another region answered is
/// conditional: to the caller a yes, but the mark stays at it, or the home would take the conditional copy for one that
/// it has counted (F2). Such a session gets no new requests, so it needs no more marks: it goes once all are answered.
pub(crate) struct Wire {
    pub(crate) id: String,
    pub(crate) home: RegionId,
    /// The incarnation that opened it; in another one new requests go to a new session.
    pub(crate) epoch: Epoch,
    /// When new requests go to a new session: long before the region forgets this one.
    rotate_at: Instant,
    numbers_max: u64,
    next: u64,
    open: BTreeSet<u64>,
    /// The lowest number that was answered conditionally.
    conditional: Option<u64>,
    /// Requests that wait for the window to move.
    pub(crate) blocked: VecDeque<u64>,
    /// Whether its handle has gone on to another one.
    pub(crate) is_left: bool,
}

impl Wire {
    pub(crate) fn new(id: String, numbers_max: u32, home: (RegionId, Epoch), rotate_at: Instant) -> Self {
        Self {
            id,
            home: home.0,
            epoch: home.1,
            rotate_at,
            numbers_max: u64::from(numbers_max.max(1)),
            next: 1,
            open: BTreeSet::new(),
            conditional: None,
            blocked: VecDeque::new(),
            is_left: false,
        }
    }

    /// All numbers below it are settled.
    pub(crate) fn settled(&self) -> u64 {
        let open = self.open.first().copied().unwrap_or(self.next);
        self.conditional.map_or(open, |number| open.min(number))
    }

    /// Whether new requests may go under it.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        !self.is_left && now < self.rotate_at
    }

    /// Whether that region, in that incarnation, opened it.
    pub(crate) fn is_of(&self, home: (RegionId, Epoch)) -> bool {
        (self.home, self.epoch) == home
    }

    /// The next number, unless the window is full.
    pub(crate) fn draw(&mut self) -> Option<u64> {
        if self.next >= self.settled() + self.numbers_max {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.open.insert(number);
        Some(number)
    }

    /// The number was answered by the session's authority, or its caller was told that the outcome is unknown.
    pub(crate) fn close(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// The number was answered by a region that is not the session's authority.
    pub(crate) fn answered_conditionally(&mut self, number: u64) {
        self.open.remove(&number);
        self.conditional = Some(self.conditional.map_or(number, |lowest| lowest.min(number)));
        self.is_left = true;
    }

    /// Whether nobody needs it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_left && self.open.is_empty()
    }
}

/// A session as the application holds it.
pub(crate) struct Handle {
    pub(crate) shared: Weak<SessionShared>,
    /// The session of the region that new requests go under.
    pub(crate) current: Option<u64>,
    /// Whether a session is being opened for it.
    pub(crate) is_opening: bool,
    /// Requests that wait for that.
    pub(crate) waiting: VecDeque<u64>,
}

impl Handle {
    pub(crate) fn new(shared: Weak<SessionShared>) -> Self {
        Self { shared, current: None, is_opening: false, waiting: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn wire() -> Wire {
        let rotate_at = Instant::now() + Duration::from_secs(60);
        Wire::new("s".into(), 3, (RegionId::new(1).unwrap(), Epoch(1)), rotate_at)
    }

    #[test]
    fn the_mark_passes_a_number_only_when_it_is_closed_and_the_window_follows() {
        let mut wire = wire();
        assert_eq!([wire.draw(), wire.draw(), wire.draw()], [Some(1), Some(2), Some(3)]);
        assert_eq!((wire.settled(), wire.draw()), (1, None));
        wire.close(2);
        assert_eq!((wire.settled(), wire.draw()), (1, None));
        wire.close(1);
        assert_eq!((wire.settled(), wire.draw()), (3, Some(4)));
        wire.close(3);
        wire.close(4);
        assert_eq!(wire.settled(), 5);
    }

    #[test]
    fn the_mark_never_passes_a_number_that_was_answered_conditionally() {
        let mut wire = wire();
        assert_eq!([wire.draw(), wire.draw(), wire.draw()], [Some(1), Some(2), Some(3)]);
        wire.answered_conditionally(2);
        assert!(!wire.is_fresh(Instant::now()));
        wire.close(1);
        wire.close(3);
        assert_eq!(wire.settled(), 2);
        assert!(wire.is_over(), "it needs no more marks");
    }

    #[test]
    fn a_session_gets_no_new_requests_once_it_is_old() {
        let wire = wire();
        assert!(wire.is_fresh(Instant::now()));
        assert!(!wire.is_fresh(Instant::now() + Duration::from_secs(61)));
    }
}
