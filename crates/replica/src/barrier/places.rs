//! Who waits for which place in which log, in the order of the places.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_causality::Seq;
use tombolo_codec::Position;

use crate::input::Ticket;
use crate::state::logs::LogName;

/// Tickets by log and seq, and where each stands besides at its own positions.
#[derive(Debug, Default)]
pub(super) struct Places {
    logs: BTreeMap<LogName, BTreeSet<(Seq, Ticket)>>,
    /// Places beyond a ticket's own positions: few wait while logs are taken over.
    added: BTreeMap<Ticket, Vec<(LogName, Seq)>>,
}

impl Places {
    pub(super) fn insert(&mut self, ticket: Ticket, positions: &[Position]) {
        for position in positions {
            let name = (position.log.region, position.log.epoch);
            self.logs.entry(name).or_default().insert((position.seq, ticket));
        }
    }

    /// Has the ticket found at one more place.
    pub(super) fn add(&mut self, ticket: Ticket, name: LogName, seq: Seq) {
        if self.logs.entry(name).or_default().insert((seq, ticket)) {
            self.added.entry(ticket).or_default().push((name, seq));
        }
    }

    pub(super) fn remove(&mut self, ticket: Ticket, positions: &[Position]) {
        for position in positions {
            self.take(ticket, (position.log.region, position.log.epoch), position.seq);
        }
        for (name, seq) in self.added.remove(&ticket).unwrap_or_default() {
            self.take(ticket, name, seq);
        }
    }

    fn take(&mut self, ticket: Ticket, name: LogName, seq: Seq) {
        if let Some(log) = self.logs.get_mut(&name) {
            log.remove(&(seq, ticket));
            if log.is_empty() {
                self.logs.remove(&name);
            }
        }
    }

    /// Who waits for a place in a log after `from` and through `end`.
    pub(super) fn through(&self, name: LogName, from: Seq, end: Seq) -> Vec<Ticket> {
        if from >= end {
            return Vec::new();
        }
        let range = (from.next(), Ticket(0))..=(end, Ticket(u64::MAX));
        self.logs.get(&name).into_iter().flat_map(|log| log.range(range.clone())).map(|&(_, t)| t).collect()
    }
}

#[cfg(test)]
mod tests {
    use tombolo_causality::{Epoch, LogId, RegionId, ShardId};

    use super::*;

    fn name(epoch: u128) -> LogName {
        (RegionId::new(1).unwrap(), Epoch(epoch))
    }

    fn at(epoch: u128, seq: u64) -> Position {
        let (region, epoch) = name(epoch);
        Position { log: LogId { shard: ShardId(0), region, epoch }, seq: Seq(seq) }
    }

    #[test]
    fn only_those_whose_place_was_passed_are_found() {
        let mut places = Places::default();
        for ticket in 1..=1_000 {
            places.insert(Ticket(ticket), &[at(7, ticket)]);
        }
        assert_eq!(places.through(name(7), Seq(10), Seq(12)), [Ticket(11), Ticket(12)]);
        assert_eq!(places.through(name(7), Seq(12), Seq(12)), []);
        assert_eq!(places.through(name(8), Seq(0), Seq(1_000)), []);
    }

    #[test]
    fn nothing_is_left_of_who_went() {
        let mut places = Places::default();
        places.insert(Ticket(1), &[at(7, 3), at(8, 4)]);
        places.add(Ticket(1), name(9), Seq(1));
        places.add(Ticket(1), name(9), Seq(1));
        assert_eq!(places.through(name(9), Seq(0), Seq(1)), [Ticket(1)]);
        places.remove(Ticket(1), &[at(7, 3), at(8, 4)]);
        assert!(places.logs.is_empty() && places.added.is_empty(), "{places:?}");
    }
}
