//! C2b: an op visible in a region never vanishes there, but by a delete (accounted cells are never deleted) or that
//! region's own rollback. S1: a session op takes effect at most once.

use bytes::Bytes;
use tombolo_causality::{LogId, Seq, VersionVector};
use tombolo_codec::ReadValue;

use crate::checks::Checked;
use crate::clients::{Add, Fate, Stage, key_of};
use crate::truth::{DIGITS, adds_of};
use crate::world::{World, region_of};

/// Per node and shard, the digits seen of each counter.
pub(crate) struct Visible(Vec<Vec<Vec<u64>>>);

impl Visible {
    pub(crate) fn new(nodes: usize, shards: usize) -> Self {
        Self(vec![vec![Vec::new(); shards]; nodes])
    }

    pub(crate) fn forget(&mut self, node: usize, shard: usize) {
        self.0[node][shard].clear();
    }

    pub(crate) fn digit(&self, node: usize, shard: usize, add: usize) -> u64 {
        self.0[node][shard].get(add / DIGITS).map_or(0, |seen| seen >> (2 * (add % DIGITS)) & 3)
    }
}

/// Of one counter's digits each is 0 or 1, and none goes back to 0.
fn check_counter(key: usize, before: u64, value: i128, may_vanish: u64) -> Result<u64, String> {
    let after = u64::try_from(if key.is_multiple_of(2) { value } else { -value })
        .map_err(|_| format!("S1: counter a{key} is {value}"))?;
    if after & 0xaaaa_aaaa_aaaa_aaaa != 0 {
        return Err(format!("S1: an add to a{key} counts twice: {after:#x}"));
    }
    if before & !after & !may_vanish != 0 {
        return Err(format!("C2b: an add to a{key} vanished: {before:#x} became {after:#x}"));
    }
    Ok(after)
}

impl World {
    pub(crate) fn check_counters(&mut self, node: usize, shard: usize, counters: &[usize]) -> Checked {
        let keys: Vec<Bytes> = counters.iter().map(|&counter| key_of(counter * DIGITS)).collect();
        let values = self.read(node, shard, keys);
        for (&counter, value) in counters.iter().zip(values) {
            let value = match value {
                ReadValue::Counter(value) => value,
                ReadValue::Absent => 0,
                ReadValue::Register { .. } => return Err(format!("C2b: a{counter} is a register")),
            };
            let may_vanish = self.may_vanish(node, shard, counter);
            let seen = &mut self.checks.c2b.0[node][shard];
            if seen.len() <= counter {
                seen.resize(counter + 1, 0);
            }
            seen[counter] = check_counter(counter, seen[counter], value, may_vanish)
                .map_err(|why| format!("{why} (region {}, shard {shard})", region_of(node)))?;
        }
        Ok(())
    }

    /// The digits of adds that may go: conditional ones whose client gave them up. In a region that was removed, all
    /// that were conditional: among such, a session's home may settle a number because its heir answered it.
    fn may_vanish(&self, node: usize, shard: usize, counter: usize) -> u64 {
        let first = counter * DIGITS;
        let adds = self.clients.adds[shard].iter().skip(first).take(DIGITS);
        let is_given_up = |add: &Add| {
            add.fate == Fate::Unknown && self.clients.requests[add.request].stage == Stage::Settled
        };
        let may_vanish = |add: &Add| add.is_conditional && (self.is_gone(node) || is_given_up(add));
        adds.enumerate().filter(|(_, add)| may_vanish(add)).fold(0, |digits, (at, _)| digits | 3 << (2 * at))
    }

    /// Every accounted counter of a shard.
    pub(crate) fn check_digits(&mut self, node: usize, shard: usize) -> Checked {
        let counters: Vec<usize> = (0..self.clients.adds[shard].len().div_ceil(DIGITS)).collect();
        self.check_counters(node, shard, &counters)
    }

    /// The counters that the batches applied since the last look name.
    pub(crate) fn check_touched(&mut self, node: usize, shard: usize, vector: &VersionVector) -> Checked {
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        let before = &process.shards[shard].seen;
        let mut counters = Vec::new();
        for (log, end) in vector.logs(crate::world::shard_of(shard)) {
            let from = before.get(log.region, log.epoch);
            counters.extend(self.adds_between(log, from, end).into_iter().map(|add| add / DIGITS));
        }
        counters.sort_unstable();
        counters.dedup();
        self.check_counters(node, shard, &counters)
    }

    fn adds_between(&self, log: LogId, from: Seq, to: Seq) -> Vec<usize> {
        if from >= to {
            return Vec::new();
        }
        self.truth
            .batches
            .range((log, from.next())..=(log, to))
            .flat_map(|(_, batch)| adds_of(batch))
            .collect()
    }
}
