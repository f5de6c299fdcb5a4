//! Virtual time and what is due when: the only order in which anything happens.

use std::collections::BTreeMap;

/// Microseconds since the world began.
pub(crate) type Micros = u64;

pub(crate) const MS: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// Events by time; those of one moment in the order in which they were put in.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    now: Micros,
    count: u64,
    events: BTreeMap<(Micros, u64), E>,
}

impl<E> Queue<E> {
    pub(crate) const fn new() -> Self {
        Self { now: 0, count: 0, events: BTreeMap::new() }
    }

    pub(crate) const fn now(&self) -> Micros {
        self.now
    }

    pub(crate) fn at(&mut self, when: Micros, event: E) {
        self.count += 1;
        self.events.insert((when.max(self.now), self.count), event);
    }

    pub(crate) fn after(&mut self, delay: Micros, event: E) {
        self.at(self.now + delay, event);
    }

    /// The next event due before `until`; time moves to it, or to `until`.
    pub(crate) fn pop(&mut self, until: Micros) -> Option<E> {
        match self.events.first_entry().filter(|entry| entry.key().0 < until) {
            Some(entry) => {
                self.now = entry.key().0;
                Some(entry.remove())
            }
            None => {
                self.now = self.now.max(until);
                None
            }
        }
    }
}
