//! The bodies of `/v1/admin/verify` and `/v1/admin/reconcile`: whether regions hold the same, and what brings them
//! together.

use serde::{Deserialize, Serialize};

/// What to verify.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerifyRequest {
    /// With which regions; none named: with all others.
    pub peers: Vec<String>,
    /// Entries, as `entry` names them, to be replaced by what the peer has if they are damaged. Given, even if empty:
    /// digests that are wrong are made anew.
    pub mend: Option<Vec<String>>,
}

/// An entry that is not the same in two regions, and that no write can have made so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedEntry {
    /// Names it in a request.
    pub entry: String,
    /// Which shard.
    pub shard: u16,
    /// `counter`, `register`, `session` or `conditionals`.
    pub kind: String,
    /// Whose, of a counter or register.
    pub tenant: Option<u32>,
    /// Of a counter or register: its key, with what is not UTF-8 replaced.
    pub key: Option<String>,
    /// The region it was compared with.
    pub peer: String,
    /// What stands here; none: nothing.
    pub here: Option<String>,
    /// What stands there.
    pub there: Option<String>,
    /// Whether it contradicts the digest kept of it here: then what stands here is wrong.
    pub contradicts_digest: bool,
}

/// A shard that could not be compared with a peer's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// Which shard.
    pub shard: u16,
    /// With whom.
    pub peer: String,
    /// Why.
    pub text: String,
}

/// What a verification came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// `tombolo.verification/v1`.
    pub schema: String,
    /// The region that compared.
    pub region: String,
    /// With whom.
    pub peers: Vec<String>,
    /// How many shards were compared, with each of them.
    pub shards: usize,
    /// Entries compared, over all shards and peers.
    pub entries: u64,
    /// The most rounds that a shard took.
    pub rounds: u32,
    /// Entries that changed in every round: they are consistent, not proven equal.
    pub in_motion: usize,
    /// Entries that were mended.
    pub mended: usize,
    /// How many are damaged, those included that are not named.
    pub damaged_count: usize,
    /// Damaged entries by name.
    pub damaged: Vec<DamagedEntry>,
    /// Shards whose digests are wrong, though what stands there is not.
    pub wrong_digests: Vec<u16>,
    /// What could not be compared.
    pub unfinished: Vec<Unfinished>,
}

/// A part of a log that a peer holds and the asked region does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGap {
    /// `<region>/<epoch>`.
    pub log: String,
    /// The first batch that is lacking.
    pub from: u64,
    /// The last one that the peer holds.
    pub through: u64,
}

/// How far a difference or snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchProgress {
    /// Entries that have come.
    pub entries: u64,
    /// Leaves of the digest tree still to come.
    pub leaves_left: usize,
    /// Whether all has come and is being made durable.
    pub installing: bool,
}

/// What brings one shard to what a peer holds of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardPlan {
    /// Which shard.
    pub shard: u16,
    /// The peer.
    pub peer: String,
    /// Whether it is connected; if not, this is what its last words lead to.
    pub connected: bool,
    /// `in_sync`, `resume`, `difference` or `snapshot`.
    pub plan: String,
    /// Of a resume: what is sent. Of a difference or snapshot: what nobody connected keeps as batches.
    pub logs: Vec<LogGap>,
    /// Of a difference or snapshot that is under way.
    pub progress: Option<FetchProgress>,
}

/// The plan of a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// `tombolo.reconcile/v1`.
    pub schema: String,
    /// The region.
    pub region: String,
    /// Every shard and peer.
    pub plans: Vec<ShardPlan>,
}
