//! The files of a cluster: `cluster.toml` and one `regions/<name>.toml` per region, read into one value.
//!
//! Files are read completely and checked against each other before anything else runs, and all problems are reported at
//! once, each with its place. Nothing here listens or connects, and only [`init`] writes. Every key with its default
//! and bounds stands in `keys.rs`. Start at [`ClusterConfig::load`].

mod check;
mod cluster_file;
mod cross;
mod document;
mod error;
mod grow;
mod init;
mod issue;
mod keys;
mod load;
mod region_file;
mod secret;
mod templates;

use std::net::SocketAddr;
use std::path::PathBuf;

use tombolo_causality::{ClusterId, RegionId, TenantId};
use tombolo_codec::{Schema, SealKey};

pub use check::{CheckReport, check};
pub use error::ConfigError;
pub use grow::{AddOptions, add_region};
pub use init::{FileState, InitError, InitOptions, InitReport, REGIONS_DEFAULT, SHARDS_DEFAULT, init};
pub use keys::{ExplainedKey, explain};
pub(crate) use region_file::check_address;
pub use secret::Secret;

/// A cluster as its files describe it: checked, with every path joined to the cluster directory.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The cluster directory, as it was given.
    pub dir: PathBuf,
    /// The cluster's id.
    pub cluster: ClusterId,
    /// Number of shards, fixed for the life of the cluster.
    pub shards: u16,
    /// Revision of the regions and signals declared.
    pub revision: u64,
    /// All regions, in the order of `cluster.toml`.
    pub regions: Vec<RegionConfig>,
    /// Declared kinds.
    pub schema: Schema,
    /// Who may use which namespace.
    pub tenants: Vec<TenantConfig>,
    /// Opens `/v1/admin`.
    pub admin_token: Secret,
    /// Seals tokens and session ids.
    pub seal_key: SealKey,
    /// The CA's certificate.
    pub authority: PathBuf,
    /// The CA's key: only whoever issues certificates has it.
    pub authority_key: PathBuf,
}

impl ClusterConfig {
    /// The region of this name.
    #[must_use]
    pub fn region(&self, name: &str) -> Option<&RegionConfig> {
        self.regions.iter().find(|region| region.name == name)
    }
}

/// A tenant and its credential.
#[derive(Debug, Clone)]
pub struct TenantConfig {
    /// Its name, as `AUTH` takes it.
    pub name: String,
    /// Its namespace.
    pub id: TenantId,
    /// Its bearer token.
    pub token: Secret,
}

/// One region, from `regions/<name>.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionConfig {
    /// Its name.
    pub name: String,
    /// Its id, for ever.
    pub id: RegionId,
    /// Where the other regions reach it: `HOST:PORT`, UDP.
    pub advertise: String,
    /// Where it listens.
    pub listen: ListenConfig,
    /// How it stores.
    pub storage: StorageConfig,
    /// How far a remote stamp may be ahead of the local clock, milliseconds.
    pub max_drift_ms: u64,
    /// Most numbers a session holds above its settled mark, per shard.
    pub session_numbers_max: usize,
    /// For how long a retry is recognised, seconds. The same in all regions.
    pub window_seconds: u64,
    /// What its doors take.
    pub limits: LimitsConfig,
    /// Its certificate.
    pub certificate: PathBuf,
    /// The certificate's key: only this region's machine has it.
    pub key: PathBuf,
}

/// The listeners of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// HTTP/JSON (TCP).
    pub http: SocketAddr,
    /// RESP2/3 (TCP).
    pub resp: SocketAddr,
    /// The SDK (UDP).
    pub quic: SocketAddr,
    /// Other regions, mutually authenticated (UDP).
    pub peer: SocketAddr,
    /// Whether clients need a token.
    pub auth: Auth,
}

/// Whether clients need a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// They do.
    Token,
    /// They do not, and are the tenant `default`. Only on loopback.
    None,
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on disk.
    Sync,
    /// Once it is staged; the disk follows within `flush_interval_ms`.
    Interval,
    /// Once it is staged; the disk follows when it can.
    Async,
}

impl Durability {
    /// As it stands in the files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Interval => "interval",
            Self::Async => "async",
        }
    }

    /// The mode of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sync, Self::Interval, Self::Async].into_iter().find(|mode| mode.name() == name)
    }
}

/// How a region stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// The data directory.
    pub dir: PathBuf,
    /// When a write is answered.
    pub durability: Durability,
    /// Longest time until the disk follows, with [`Durability::Interval`]; milliseconds.
    pub flush_interval_ms: u64,
    /// Size of a segment file.
    pub segment_bytes: u64,
    /// How much of the logs is kept for members that lack it, over all shards.
    pub wal_retention_bytes: u64,
    /// Time between checkpoints, seconds; 0 for none.
    pub checkpoint_interval_seconds: u64,
}

/// What a region's doors take: at most what the formats allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Most client connections at each door.
    pub connections_max: usize,
    /// Most ops in one request.
    pub request_ops_max: usize,
    /// Longest request, bytes.
    pub request_bytes_max: usize,
    /// Longest register value, bytes.
    pub value_bytes_max: usize,
    /// Most waiters on barriers.
    pub waiters_max: usize,
    /// Longest wait a client may ask for, milliseconds.
    pub await_ms_max: u64,
}
