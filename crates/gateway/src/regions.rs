//! The bodies of `/v1/admin/regions`: who belongs to the cluster, and what an operator wants changed about it.

use serde::{Deserialize, Serialize};

/// A region, as the asked one knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionEntry {
    /// Its id, never used again.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub advertise: String,
    /// `member`, `draining` or `removed`.
    pub standing: String,
    /// `self`, `up` or `down`.
    pub link: String,
    /// The revision that it last said it goes by; none if it has said nothing since the asked one started.
    pub revision: Option<u64>,
    /// Of a draining region: whether every other member holds all that it wrote. Of others nothing.
    pub drained: Option<bool>,
    /// Of a removed region: in how many shards of the asked one nobody has taken its logs over yet.
    pub shards_without_heir: usize,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regions {
    /// `tombolo.regions/v1`.
    pub schema: String,
    /// The document's, after the change if there was one: what to await. Which regions go by it their entries say.
    pub revision: u64,
    /// Whether the request changed anything.
    pub changed: bool,
    /// Every region that ever was.
    pub regions: Vec<RegionEntry>,
    /// Of a removal: what the removed region may have acknowledged and no member is known to hold.
    pub unacknowledged: Vec<Unacknowledged>,
}

/// The end of a log that no remaining member is known to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unacknowledged {
    /// Which shard.
    pub shard: u16,
    /// Through which batch its writer said that it is durable there.
    pub heard: u64,
    /// Through which batch some other member is known to hold it.
    pub held: u64,
}

/// What to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RegionsRequest {
    /// A new region.
    Add {
        /// Its name.
        name: String,
        /// Its id.
        id: u16,
        /// Where its peers reach it: `HOST:PORT`.
        advertise: String,
    },
    /// It takes no new writes.
    Drain {
        /// Its name.
        name: String,
        /// Take that back: it takes writes again. Only the region itself may be asked.
        #[serde(default)]
        undo: bool,
    },
    /// It is out for ever. Unless it is dead only the region itself may be asked.
    Remove {
        /// Its name.
        name: String,
        /// It is gone, with what nobody else holds.
        #[serde(default)]
        dead: bool,
        /// Go on although acknowledged writes may be lost with it.
        #[serde(default)]
        accept_risk: bool,
    },
}
