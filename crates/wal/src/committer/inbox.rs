//! A bounded queue to one thread, which is woken only when it sleeps.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::locked;

/// An inbox did not take something; it is handed back.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<T> {
    /// Too much waits; try again after the next event.
    Full(T),
    /// The committer was shut down.
    Stopped(T),
}

/// A bounded queue to one thread.
pub(super) struct Inbox<T> {
    state: Mutex<InboxState<T>>,
    woken: Condvar,
    count_max: usize,
    bytes_max: usize,
}

struct InboxState<T> {
    queue: VecDeque<(T, usize)>,
    bytes: usize,
    /// Taken out, but not done with: counts towards the bounds.
    held: (usize, usize),
    /// The thread sleeps, and nobody has woken it yet: a wake-up is a system call, which every batch would cost.
    is_asleep: bool,
    is_closed: bool,
}

impl<T> Inbox<T> {
    pub(super) fn new(count_max: usize, bytes_max: usize) -> Self {
        let state =
            InboxState { queue: VecDeque::new(), bytes: 0, held: (0, 0), is_asleep: false, is_closed: false };
        Self { state: Mutex::new(state), woken: Condvar::new(), count_max, bytes_max }
    }

    pub(super) fn push(&self, item: T, bytes: usize, slack: usize) -> Result<(), Refused<T>> {
        let mut state = locked(&self.state);
        if state.is_closed {
            return Err(Refused::Stopped(item));
        }
        let count = state.queue.len() + state.held.0;
        if count >= self.count_max + slack || (bytes > 0 && state.bytes + state.held.1 >= self.bytes_max) {
            return Err(Refused::Full(item));
        }
        state.queue.push_back((item, bytes));
        state.bytes += bytes;
        let is_asleep = std::mem::take(&mut state.is_asleep);
        drop(state);
        if is_asleep {
            self.woken.notify_one();
        }
        Ok(())
    }

    /// What waits, in order, until it is `bytes_max` long; waits up to `within` for the first. Also whether nothing
    /// will ever come again.
    pub(super) fn take(&self, within: Duration, bytes_max: usize) -> (Vec<T>, bool) {
        let state = locked(&self.state);
        let idle = |state: &mut InboxState<T>| {
            state.is_asleep = state.queue.is_empty() && !state.is_closed;
            state.is_asleep
        };
        let waited = self.woken.wait_timeout_while(state, within, idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_asleep = false;
        let (mut items, mut taken) = (Vec::new(), 0);
        while taken < bytes_max
            && let Some((item, bytes)) = state.queue.pop_front()
        {
            items.push(item);
            taken += bytes;
        }
        state.bytes -= taken;
        (items, state.is_closed && state.queue.is_empty())
    }

    pub(super) fn hold(&self, held: (usize, usize)) {
        locked(&self.state).held = held;
    }

    pub(super) fn close(&self) {
        locked(&self.state).is_closed = true;
        self.woken.notify_all();
    }
}
