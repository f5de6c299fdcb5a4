//! The parts of `/v1/status` and `/v1/digest` that are shown.
//!
//! Every field may be missing: a region of another version is shown as far as it is understood.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A region's view of itself and its peers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) cluster: String,
    pub(crate) region: String,
    pub(crate) node: String,
    pub(crate) version: String,
    pub(crate) durability: String,
    pub(crate) revision: u64,
    pub(crate) standing: String,
    pub(crate) shards: Vec<Shard>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) quarantine: Vec<String>,
    pub(crate) clock: Clock,
    pub(crate) whole: bool,
    pub(crate) waiting_for: Vec<String>,
    pub(crate) sessions: u64,
    pub(crate) waiters: u64,
    pub(crate) findings: Vec<Finding>,
}

/// One shard.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Shard {
    pub(crate) shard: u16,
    pub(crate) version_vector: BTreeMap<String, u64>,
    pub(crate) digest: String,
    pub(crate) durable: u64,
    pub(crate) keys: u64,
}

/// A peer, as the answering region sees it.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Peer {
    pub(crate) region: String,
    pub(crate) state: String,
    pub(crate) rtt_ms: f64,
    pub(crate) lag_seconds: f64,
    pub(crate) behind_ops: u64,
    pub(crate) oldest_unacked_seconds: f64,
    pub(crate) reconnects: u64,
    pub(crate) paused: bool,
    pub(crate) revision: u64,
    pub(crate) limit: Option<String>,
    pub(crate) evidence: String,
    pub(crate) shards: Vec<ShardLag>,
}

/// What a peer lacks of one shard.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ShardLag {
    pub(crate) shard: u16,
    pub(crate) state: String,
    pub(crate) lag_seconds: f64,
    pub(crate) behind_ops: u64,
}

/// The region's clock.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Clock {
    pub(crate) offset_ms: f64,
    pub(crate) max_drift_ms: u64,
}

/// Something an operator should know.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Finding {
    pub(crate) code: String,
    pub(crate) severity: String,
    pub(crate) text: String,
    pub(crate) next: String,
}

/// One shard's state by name. Nothing may be missing: an empty digest would equal another empty one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ShardDigest {
    pub(crate) shard: u16,
    pub(crate) version_vector: BTreeMap<String, u64>,
    pub(crate) digest: String,
}
