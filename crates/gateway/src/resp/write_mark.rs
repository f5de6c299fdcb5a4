//! What a connection remembers of its writes: for `WAIT`, and so that its reads see them.

use std::collections::BTreeMap;

use tombolo_causality::{LogId, Seq, Time};
use tombolo_codec::{Position, Token};

/// The latest position that the connection's writes reached in each log.
///
/// One process writes one log a shard, so this holds at most one entry a shard.
#[derive(Debug, Default)]
pub(super) struct WriteMark {
    positions: BTreeMap<LogId, Seq>,
    time: Time,
    /// Whether a read has already waited for all of it.
    is_covered: bool,
}

impl WriteMark {
    /// Takes in what another write reached.
    pub(super) fn absorb(&mut self, token: &Token) {
        for position in &token.positions {
            let seq = self.positions.entry(position.log).or_insert(position.seq);
            *seq = position.seq.max(*seq);
        }
        self.time = self.time.max(token.time);
        self.is_covered = false;
    }

    /// All of it.
    pub(super) fn token(&self) -> Token {
        let positions = self.positions.iter().map(|(&log, &seq)| Position { log, seq });
        Token { positions: positions.collect(), time: self.time }
    }

    /// What the next read has to wait for, if anything.
    pub(super) fn uncovered(&self) -> Option<Token> {
        (!self.is_covered && !self.positions.is_empty()).then(|| self.token())
    }

    /// Notes that a read after all of it was answered: a region never goes back behind what it covered.
    pub(super) fn covered(&mut self) {
        self.is_covered = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_causality::{Epoch, RegionId, ShardId};

    fn token(shard: u16, seq: u64) -> Token {
        let log = LogId { shard: ShardId(shard), region: RegionId::new(1).unwrap(), epoch: Epoch(1) };
        Token { positions: vec![Position { log, seq: Seq(seq) }], time: Time(seq) }
    }

    #[test]
    fn the_latest_position_of_each_shard_is_kept() {
        let mut mark = WriteMark::default();
        assert_eq!(mark.uncovered(), None);
        for (shard, seq) in [(2, 5), (1, 9), (2, 4)] {
            mark.absorb(&token(shard, seq));
        }
        let expected = [token(1, 9).positions, token(2, 5).positions].concat();
        assert_eq!(mark.token(), Token { positions: expected, time: Time(9) });
    }

    #[test]
    fn a_read_waits_once_for_each_write() {
        let mut mark = WriteMark::default();
        mark.absorb(&token(1, 1));
        assert_eq!(mark.uncovered(), Some(token(1, 1)));
        mark.covered();
        assert_eq!(mark.uncovered(), None);
        mark.absorb(&token(1, 2));
        assert_eq!(mark.uncovered(), Some(token(1, 2)));
    }
}
