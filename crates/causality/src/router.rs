//! Router v1: which shard a key lives in. The same function in SDK and daemon, for ever.

use xxhash_rust::xxh3::Xxh3;

use crate::ids::{IdError, ShardId, TenantId};

/// Why a router cannot be built.
pub type RouterError = IdError;

/// Total, pure map from (tenant, key) to a shard; the kind is not hashed.
///
/// Source: design.md §2: xxh3_64 (seed 0) of tenant id (u32, little endian) ‖ key, modulo the shard count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Router {
    shards_count: u16,
}

impl Router {
    /// For a cluster of `shards_count` shards, fixed at its creation.
    ///
    /// Errors: [`IdError::ShardsCount`] outside 1..=1024.
    pub fn new(shards_count: u16) -> Result<Self, RouterError> {
        if shards_count == 0 || shards_count > 1024 {
            return Err(IdError::ShardsCount(u32::from(shards_count)));
        }
        Ok(Self { shards_count })
    }

    /// How many shards there are.
    #[must_use]
    pub const fn shards_count(self) -> u16 {
        self.shards_count
    }

    /// The shard of a key.
    #[must_use]
    pub fn shard(self, tenant: TenantId, key: &[u8]) -> ShardId {
        let mut hash = Xxh3::new();
        hash.update(&tenant.0.to_le_bytes());
        hash.update(key);
        let shard = hash.digest() % u64::from(self.shards_count);
        ShardId(u16::try_from(shard).expect("a remainder by a u16 is a u16"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_vectors_hold_for_ever() {
        let router = Router::new(16).unwrap();
        let shards: Vec<u16> = ["", "a", "views:1", "profile:1", "departures:IAH", "last_seen:N14228"]
            .iter()
            .map(|key| router.shard(TenantId::DEFAULT, key.as_bytes()).0)
            .collect();
        assert_eq!(shards, GOLDEN);
    }

    const GOLDEN: [u16; 6] = [8, 3, 10, 15, 3, 1];

    #[test]
    fn counts_outside_their_bounds_are_refused() {
        assert!(Router::new(0).is_err());
        assert!(Router::new(1025).is_err());
        assert!(Router::new(1024).is_ok());
    }
}
