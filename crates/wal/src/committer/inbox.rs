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

/// For what the thread of an inbox is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WokenBy {
    Any,
    /// Only for what somebody here waits for; the rest gathers.
    Urgent,
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
    has_urgent: bool,
    /// What the thread sleeps for, if it does and nobody has woken it yet: a wake-up is a system call, which every batch
    /// would cost.
    sleeps_for: Option<WokenBy>,
    is_closed: bool,
}

impl<T> Inbox<T> {
    pub(super) fn new(count_max: usize, bytes_max: usize) -> Self {
        let state = InboxState {
            queue: VecDeque::new(),
            bytes: 0,
            held: (0, 0),
            has_urgent: false,
            sleeps_for: None,
            is_closed: false,
        };
        Self { state: Mutex::new(state), woken: Condvar::new(), count_max, bytes_max }
    }

    /// Something that somebody waits for.
    pub(super) fn push(&self, item: T, bytes: usize, slack: usize) -> Result<(), Refused<T>> {
        self.put(item, (bytes, slack), true)
    }

    /// Something that may wait for more of its kind.
    pub(super) fn push_patient(&self, item: T, bytes: usize) -> Result<(), Refused<T>> {
        self.put(item, (bytes, 0), false)
    }

    fn put(&self, item: T, (bytes, slack): (usize, usize), is_urgent: bool) -> Result<(), Refused<T>> {
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
        state.has_urgent |= is_urgent;
        let woken = state.sleeps_for.take_if(|woken_by| is_urgent || *woken_by == WokenBy::Any);
        drop(state);
        if woken.is_some() {
            self.woken.notify_one();
        }
        Ok(())
    }

    /// What waits, in order, until it is `bytes_max` long; waits up to `within` for the first that wakes. Also whether
    /// nothing will ever come again.
    pub(super) fn take(&self, within: Duration, woken_by: WokenBy, bytes_max: usize) -> (Vec<T>, bool) {
        let state = locked(&self.state);
        let idle = |state: &mut InboxState<T>| {
            let is_woken = match woken_by {
                WokenBy::Any => !state.queue.is_empty(),
                WokenBy::Urgent => state.has_urgent,
            };
            state.sleeps_for = (!is_woken && !state.is_closed).then_some(woken_by);
            state.sleeps_for.is_some()
        };
        let waited = self.woken.wait_timeout_while(state, within, idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.sleeps_for = None;
        let (mut items, mut taken) = (Vec::new(), 0);
        while taken < bytes_max
            && let Some((item, bytes)) = state.queue.pop_front()
        {
            items.push(item);
            taken += bytes;
        }
        state.bytes -= taken;
        state.has_urgent &= !state.queue.is_empty();
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

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_may_wait_gathers_until_the_time_is_up() {
        let inbox = Inbox::new(8, 1_024);
        inbox.push_patient(1, 10).unwrap();
        let (started, within) = (std::time::Instant::now(), Duration::from_millis(30));
        assert_eq!(inbox.take(within, WokenBy::Urgent, 1_024), (vec![1], false));
        assert!(started.elapsed() >= within, "it was woken for what may wait");
        inbox.push_patient(2, 10).unwrap();
        assert_eq!(inbox.take(LONG, WokenBy::Any, 1_024), (vec![2], false));
        assert!(started.elapsed() < LONG, "it slept over what was there");
    }

    #[test]
    fn what_somebody_waits_for_wakes_and_takes_along_what_gathered() {
        let inbox = Inbox::new(8, 1_024);
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| {
                let started = std::time::Instant::now();
                (inbox.take(LONG, WokenBy::Urgent, 1_024), started.elapsed())
            });
            let is_asleep = || locked(&inbox.state).sleeps_for.is_some();
            while !is_asleep() {
                std::thread::yield_now();
            }
            inbox.push_patient(1, 10).unwrap();
            assert!(is_asleep(), "it was woken for what may wait");
            inbox.push(2, 10, 0).unwrap();
            let ((items, is_over), took) = taken.join().unwrap();
            assert!(items == [1, 2] && !is_over && took < LONG, "{items:?} after {took:?}");
        });
        let started = std::time::Instant::now();
        // What is left of a group that was too long is as urgent as before.
        inbox.push(3, 10, 0).unwrap();
        inbox.push_patient(4, 10).unwrap();
        assert_eq!(inbox.take(LONG, WokenBy::Urgent, 10), (vec![3], false));
        assert_eq!(inbox.take(LONG, WokenBy::Urgent, 10), (vec![4], false));
        inbox.close();
        assert_eq!(inbox.take(LONG, WokenBy::Urgent, 10), (vec![], true));
        assert!(started.elapsed() < LONG, "it slept over what was there");
    }
}
