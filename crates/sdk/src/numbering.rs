//! Numbers: which session of the region a handle writes under, and which of its numbers are still open.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Weak;

use tombolo_causality::{Epoch, RegionId};

use crate::session::SessionShared;

/// A session as the region knows it.
///
/// Its numbers are settled below the lowest that is open. A number closes when it is answered, or when its caller was
/// told that the outcome is unknown, never before (design.md §3.3).
pub(crate) struct Wire {
    pub(crate) id: String,
    pub(crate) home: RegionId,
    /// The incarnation that opened it; in another one new requests go to a new session.
    pub(crate) epoch: Epoch,
    numbers_max: u64,
    next: u64,
    open: BTreeSet<u64>,
    /// Requests that wait for the window to move.
    pub(crate) blocked: VecDeque<u64>,
    /// Whether its handle has gone on to another one.
    pub(crate) is_left: bool,
}

impl Wire {
    pub(crate) fn new(id: String, numbers_max: u32, home: RegionId, epoch: Epoch) -> Self {
        Self {
            id,
            home,
            epoch,
            numbers_max: u64::from(numbers_max.max(1)),
            next: 1,
            open: BTreeSet::new(),
            blocked: VecDeque::new(),
            is_left: false,
        }
    }

    /// All numbers below it are settled.
    pub(crate) fn settled(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
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

    pub(crate) fn close(&mut self, number: u64) {
        self.open.remove(&number);
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
    use super::*;

    #[test]
    fn the_mark_passes_a_number_only_when_it_is_closed_and_the_window_follows() {
        let mut wire = Wire::new("s".into(), 3, RegionId::new(1).unwrap(), Epoch(1));
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
}
