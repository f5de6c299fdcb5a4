//! What regions say of their shards, and whether they agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One shard of one region, as `GET /v1/digest` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardDigest {
    /// Which shard.
    pub shard: u16,
    /// `<region>/<epoch>` → seq.
    pub version_vector: BTreeMap<String, u64>,
    /// Canonical digest of the shard's state.
    pub digest: String,
}

/// What comparing regions shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agreement {
    /// All regions hold the same shards with equal vectors and digests.
    Equal,
    /// Vectors differ: some region has yet to catch up. Says where.
    Behind(String),
    /// Equal vectors with unequal digests: C2 is broken, and waiting mends nothing. Says where.
    Broken(String),
}

/// Compares all regions with the first.
#[must_use]
pub fn agreement(regions: &[(String, Vec<ShardDigest>)]) -> Agreement {
    let by_shard = |shards: &[ShardDigest]| -> BTreeMap<u16, ShardDigest> {
        shards.iter().map(|shard| (shard.shard, shard.clone())).collect()
    };
    let Some(((first_name, first), others)) = regions.split_first() else { return Agreement::Equal };
    let first = by_shard(first);
    let mut behind = None;
    for (name, shards) in others {
        let shards = by_shard(shards);
        if !shards.keys().eq(first.keys()) {
            let text = format!("{first_name} has {} shards, {name} has {}", first.len(), shards.len());
            behind.get_or_insert(text);
        }
        for (id, shard) in &shards {
            let Some(own) = first.get(id) else { continue };
            if own.version_vector != shard.version_vector {
                behind.get_or_insert_with(|| {
                    let (ours, theirs) = (&own.version_vector, &shard.version_vector);
                    format!("shard {id}: {first_name} at {ours:?}, {name} at {theirs:?}")
                });
            } else if own.digest != shard.digest {
                return Agreement::Broken(format!(
                    "shard {id}: equal version vectors, but {first_name} has digest {} and {name} has {}",
                    own.digest, shard.digest
                ));
            }
        }
    }
    behind.map_or(Agreement::Equal, Agreement::Behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str, shards: &[(u16, u64, &str)]) -> (String, Vec<ShardDigest>) {
        let shards = shards.iter().map(|(shard, seq, digest)| ShardDigest {
            shard: *shard,
            version_vector: BTreeMap::from([("a/00".to_owned(), *seq)]),
            digest: (*digest).to_owned(),
        });
        (name.to_owned(), shards.collect())
    }

    #[test]
    fn the_order_of_shards_does_not_matter() {
        let (a, b) = (region("a", &[(0, 1, "x"), (1, 2, "y")]), region("b", &[(1, 2, "y"), (0, 1, "x")]));
        assert_eq!(agreement(&[a, b]), Agreement::Equal);
    }

    #[test]
    fn a_missing_shard_or_an_unequal_vector_is_behind() {
        let a = region("a", &[(0, 1, "x"), (1, 2, "y")]);
        let Agreement::Behind(text) = agreement(&[a.clone(), region("b", &[(0, 1, "x")])]) else { panic!() };
        assert_eq!(text, "a has 2 shards, b has 1");
        let b = region("b", &[(0, 1, "x"), (1, 3, "z")]);
        let Agreement::Behind(text) = agreement(&[a, b]) else { panic!() };
        assert_eq!(text, r#"shard 1: a at {"a/00": 2}, b at {"a/00": 3}"#);
    }

    #[test]
    fn equal_vectors_with_unequal_digests_are_broken_also_when_another_shard_is_behind() {
        let a = region("a", &[(0, 1, "x"), (1, 2, "y")]);
        let b = region("b", &[(0, 9, "x"), (1, 2, "other")]);
        assert!(matches!(agreement(&[a, b]), Agreement::Broken(text) if text.starts_with("shard 1")));
    }

    #[test]
    fn the_answer_of_a_daemon_is_understood() {
        let text = r#"[{"shard":0,"version_vector":{"eu-west/0a":7},"digest":"ab","later":1}]"#;
        let shards: Vec<ShardDigest> = serde_json::from_str(text).unwrap();
        assert_eq!(shards[0].version_vector["eu-west/0a"], 7);
    }
}
