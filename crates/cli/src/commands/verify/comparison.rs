//! [`Comparison`]: the digests of all regions side by side, and what they say about each shard.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::client::ShardDigest;

/// What the digests of a shard say, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// All regions hold the same.
    Equal,
    /// Some have not applied all that others have.
    Behind,
    /// Two regions with equal vectors hold different states.
    Different,
}

/// What one region holds of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Held {
    pub(super) digest: String,
    pub(super) version_vector: BTreeMap<String, u64>,
}

/// One shard in all regions that showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ShardComparison {
    pub(super) shard: u16,
    pub(super) verdict: Verdict,
    pub(super) regions: BTreeMap<String, Held>,
    /// Regions that hold another state than another region with the same vector.
    pub(super) different: Vec<String>,
}

/// All shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) regions: Vec<String>,
    pub(super) shards: Vec<ShardComparison>,
}

impl Comparison {
    /// The worst of its shards.
    pub(super) fn verdict(&self) -> Verdict {
        self.shards.iter().map(|shard| shard.verdict).max().unwrap_or(Verdict::Equal)
    }
}

impl ShardComparison {
    /// The regions to look at: those that differ, else all that showed the shard.
    pub(super) fn regions_named(&self) -> String {
        if self.different.is_empty() {
            self.regions.keys().cloned().collect::<Vec<_>>().join(", ")
        } else {
            self.different.join(", ")
        }
    }
}

/// Lays what the regions hold side by side.
pub(super) fn compare(held: Vec<(String, Vec<ShardDigest>)>) -> Comparison {
    let regions: Vec<String> = held.iter().map(|(region, _)| region.clone()).collect();
    let mut shards: BTreeMap<u16, BTreeMap<String, Held>> = BTreeMap::new();
    for (region, digests) in held {
        for ShardDigest { shard, version_vector, digest } in digests {
            shards.entry(shard).or_default().insert(region.clone(), Held { digest, version_vector });
        }
    }
    let shards = shards.into_iter().map(|(shard, held)| judge(shard, held, regions.len())).collect();
    Comparison { regions, shards }
}

fn judge(shard: u16, regions: BTreeMap<String, Held>, regions_count: usize) -> ShardComparison {
    let mut by_vector: BTreeMap<&BTreeMap<String, u64>, BTreeSet<&str>> = BTreeMap::new();
    for held in regions.values() {
        by_vector.entry(&held.version_vector).or_default().insert(&held.digest);
    }
    let is_different = |held: &&Held| by_vector[&held.version_vector].len() > 1;
    let different: Vec<String> =
        regions.iter().filter(|(_, held)| is_different(held)).map(|(region, _)| region.clone()).collect();
    let verdict = if !different.is_empty() {
        Verdict::Different
    } else if by_vector.len() > 1 || regions.len() < regions_count {
        Verdict::Behind
    } else {
        Verdict::Equal
    };
    ShardComparison { shard, verdict, regions, different }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str, shards: &[(u16, u64, &str)]) -> (String, Vec<ShardDigest>) {
        let digest = |&(shard, seq, digest): &(u16, u64, &str)| ShardDigest {
            shard,
            version_vector: BTreeMap::from([("eu-west/0a".to_owned(), seq)]),
            digest: digest.to_owned(),
        };
        (name.to_owned(), shards.iter().map(digest).collect())
    }

    #[test]
    fn equal_vectors_with_equal_digests_are_equal() {
        let comparison = compare(vec![region("a", &[(0, 7, "x")]), region("b", &[(0, 7, "x")])]);
        assert_eq!(comparison.verdict(), Verdict::Equal);
    }

    #[test]
    fn a_difference_under_equal_vectors_is_found_also_while_a_third_region_lags() {
        let comparison = compare(vec![
            region("a", &[(0, 7, "x"), (1, 1, "s")]),
            region("b", &[(0, 7, "y"), (1, 1, "s")]),
            region("c", &[(0, 6, "z"), (1, 1, "s")]),
        ]);
        assert_eq!(comparison.verdict(), Verdict::Different);
        assert_eq!(comparison.shards[0].regions_named(), "a, b");
        assert_eq!(comparison.shards[1].verdict, Verdict::Equal);
    }

    #[test]
    fn other_vectors_are_behind_whatever_the_digests_say() {
        let comparison = compare(vec![region("a", &[(0, 7, "x")]), region("b", &[(0, 6, "x")])]);
        assert_eq!(comparison.verdict(), Verdict::Behind);
    }

    #[test]
    fn a_shard_that_a_region_does_not_show_is_behind_and_not_equal() {
        let comparison = compare(vec![region("a", &[(0, 7, "x"), (1, 1, "s")]), region("b", &[(0, 7, "x")])]);
        assert_eq!(comparison.verdict(), Verdict::Behind);
    }
}
