//! Version vectors: for each log, up to where *everything* is applied. Contiguous, never "highest seen".

use std::collections::BTreeMap;
use std::collections::btree_map;

use crate::ids::{Epoch, LogId, RegionId, Seq, ShardId};

/// For each log of one shard, the highest seq up to which everything is applied and durable here.
///
/// State is a function of it (C2): equal vectors mean equal states.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionVector {
    ends: BTreeMap<(RegionId, Epoch), Seq>,
}

impl VersionVector {
    /// Nothing of any log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Up to where it holds a log; [`Seq::ZERO`] for one it has nothing of.
    #[must_use]
    pub fn get(&self, region: RegionId, epoch: Epoch) -> Seq {
        self.ends.get(&(region, epoch)).copied().unwrap_or(Seq::ZERO)
    }

    /// Moves one log by exactly one batch.
    ///
    /// Panics if `seq` is not the next: a gap would be a claim to hold what is not here (R1).
    pub fn advance(&mut self, region: RegionId, epoch: Epoch, seq: Seq) {
        let end = self.ends.entry((region, epoch)).or_default();
        assert!(seq == end.next(), "a vector grows by one: at {end:?}, got {seq:?}");
        *end = seq;
    }

    /// Raises one log's end to at least `seq`, as for a peer's reported vector.
    pub fn raise(&mut self, region: RegionId, epoch: Epoch, seq: Seq) {
        if seq > Seq::ZERO {
            let end = self.ends.entry((region, epoch)).or_default();
            *end = seq.max(*end);
        }
    }

    /// Takes out a log that another one has taken over.
    pub fn remove(&mut self, region: RegionId, epoch: Epoch) {
        self.ends.remove(&(region, epoch));
    }

    /// Whether it holds at least all that `other` holds.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.ends.iter().all(|(&(region, epoch), &seq)| self.get(region, epoch) >= seq)
    }

    /// The least vector that covers both.
    pub fn join(&mut self, other: &Self) {
        for ((region, epoch), seq) in other {
            self.raise(region, epoch, seq);
        }
    }

    /// Every log with its end, ordered by region, then epoch.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.ends.iter())
    }

    /// How many logs it names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it holds nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The same ends under full log names.
    pub fn logs(&self, shard: ShardId) -> impl Iterator<Item = (LogId, Seq)> + '_ {
        self.iter().map(move |((region, epoch), seq)| (LogId { shard, region, epoch }, seq))
    }
}

/// Iterates over a vector's logs.
pub struct Iter<'a>(btree_map::Iter<'a, (RegionId, Epoch), Seq>);

impl Iterator for Iter<'_> {
    type Item = ((RegionId, Epoch), Seq);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(&log, &seq)| (log, seq))
    }
}

impl<'a> IntoIterator for &'a VersionVector {
    type Item = ((RegionId, Epoch), Seq);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn vector() -> impl Strategy<Value = VersionVector> {
        vec((1u16..4, 0u128..3, 0u64..5), 0..8).prop_map(|ends| {
            let mut vector = VersionVector::new();
            for (region, epoch, seq) in ends {
                vector.raise(RegionId::new(region).unwrap(), Epoch(epoch), Seq(seq));
            }
            vector
        })
    }

    fn joined(a: &VersionVector, b: &VersionVector) -> VersionVector {
        let mut out = a.clone();
        out.join(b);
        out
    }

    proptest! {
        #[test]
        fn join_is_the_least_upper_bound(a in vector(), b in vector(), c in vector()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&a, &a), a.clone());
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert!(joined(&a, &b).covers(&a) && joined(&a, &b).covers(&b));
            prop_assert_eq!(a.covers(&b), joined(&a, &b) == a);
        }
    }

    #[test]
    #[should_panic(expected = "grows by one")]
    fn a_gap_is_a_broken_rule() {
        VersionVector::new().advance(RegionId::new(1).unwrap(), Epoch(1), Seq(2));
    }
}
