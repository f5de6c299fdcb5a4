//! The bodies of `/v1/status` and `/v1/digest`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One shard's state by name: equal vectors must show equal digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardDigest {
    /// Which shard.
    pub shard: u16,
    /// `<region name>/<epoch hex>` → seq.
    pub version_vector: BTreeMap<String, u64>,
    /// Canonical digest of the cell state, hexadecimal.
    pub digest: String,
}

/// One shard, as `/v1/status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// Vector and digest.
    #[serde(flatten)]
    pub state: ShardDigest,
    /// Highest durable seq of this region's own log.
    pub durable: u64,
    /// Visible and hidden cells held.
    pub keys: u64,
}

/// A peer, as `/v1/status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub region: String,
    /// `ok`, `slow`, `stalled`, `unreachable` or `catching_up`.
    pub state: String,
    /// Round-trip time.
    pub rtt_ms: f64,
    /// How old the oldest of this region's writes is that the peer has not applied; 0 if it has all.
    pub lag_seconds: f64,
    /// How many of this region's ops it lacks.
    pub behind_ops: u64,
    /// Age of the oldest batch it has not acknowledged.
    pub oldest_unacked_seconds: f64,
    /// How often the link came up again.
    pub reconnects: u64,
    /// Whether applying its batches is paused here.
    pub paused: bool,
    /// The revision of the membership that it last said it goes by; 0: it has said nothing.
    pub revision: u64,
    /// Whether it says that applying this region's batches is paused there.
    #[serde(default)]
    pub paused_there: bool,
    /// Which end keeps it from being better: `sender`, `network` or `receiver`; none where it is ok.
    #[serde(default)]
    pub limit: Option<String>,
    /// What shows that; empty where it is ok.
    #[serde(default)]
    pub evidence: String,
    /// Shards in which it lacks something; in the others it lacks nothing.
    #[serde(default)]
    pub shards: Vec<ShardLag>,
}

/// What a peer lacks of one shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardLag {
    /// Which shard.
    pub shard: u16,
    /// As of the peer, for this shard alone.
    pub state: String,
    /// How old the oldest of this region's writes is that the peer has not applied.
    pub lag_seconds: f64,
    /// How many of this region's ops it lacks.
    pub behind_ops: u64,
}

/// This region's clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// How far ahead of its peers it is, by their heartbeats; negative: behind.
    pub offset_ms: f64,
    /// The bound.
    pub max_drift_ms: u64,
}

/// Something an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable code.
    pub code: String,
    /// `info`, `warning` or `error`.
    pub severity: String,
    /// What happened.
    pub text: String,
    /// The next command to run.
    pub next: String,
}

/// The body of `/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `tombolo.status/v1`.
    pub schema: String,
    /// Cluster id.
    pub cluster: String,
    /// Region name.
    pub region: String,
    /// `<region>/<epoch>`.
    pub node: String,
    /// Version of the build.
    pub version: String,
    /// `sync`, `interval` or `async`.
    pub durability: String,
    /// This incarnation.
    pub epoch: String,
    /// The revision of the membership that this region goes by.
    pub revision: u64,
    /// `member`, `draining` or `removed`.
    pub standing: String,
    /// Every shard.
    pub shards: Vec<ShardStatus>,
    /// Every other declared region.
    pub peers: Vec<PeerStatus>,
    /// Damaged files that were set aside.
    pub quarantine: Vec<String>,
    /// The clock.
    pub clock: ClockStatus,
    /// Whether this region has caught up with all that any member held when it started.
    pub whole: bool,
    /// Whom it waits for to become whole.
    pub waiting_for: Vec<String>,
    /// Sessions held, added up over the shards: one that wrote to several shards counts in each of them.
    pub sessions: u64,
    /// Callers that wait for a barrier or for a read after a token.
    #[serde(default)]
    pub waiters: u64,
    /// What an operator should know.
    pub findings: Vec<Finding>,
}
