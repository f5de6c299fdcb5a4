//! Who belongs to the cluster: a document that every node keeps, changes and merges, without asking anybody first.
//!
//! It is a join-semilattice: nodes that have heard of the same changes hold the same document, in whatever order they
//! heard. A region's id is never used again, so a removed one stays in it for ever. [`Membership::join`] is the only
//! way in which two become one; what the shards go by is the [`Roster`].

use std::collections::BTreeSet;

use rkyv::{Archive, Deserialize, Serialize};
use tombolo_causality::{ClusterId, RegionId};

use crate::digest::Digest;

const MAGIC: [u8; 4] = *b"TMMS";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 56;
/// Magic, version and cluster: what the digest covers besides the payload.
const DIGESTED_BYTES: usize = 24;
/// As many as there are region ids.
const REGIONS_MAX: usize = 1_023;
/// Longest name or address.
const TEXT_BYTES_MAX: usize = 255;
/// Longest document as a file.
pub const MEMBERSHIP_BYTES_MAX: usize = 1 << 20;

/// Where a region stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Serialize, Deserialize)]
pub enum Standing {
    /// It takes writes.
    Member,
    /// It refuses new writes and ships what it has: it is about to be removed.
    Draining,
    /// It is out, for ever.
    Removed,
}

impl Standing {
    /// The word that is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Draining => "draining",
            Self::Removed => "removed",
        }
    }
}

/// One region in the document.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct MemberEntry {
    /// Which.
    pub region: RegionId,
    /// Its name, never given to another.
    pub name: String,
    /// Where its peers reach it: `HOST:PORT`.
    pub advertise: String,
    /// Where it stands.
    pub standing: Standing,
    /// Raised by one with every change.
    pub version: u32,
}

impl MemberEntry {
    /// Moves it to a standing; where it stands already changes nothing.
    fn stand(&mut self, standing: Standing) {
        if self.standing != standing {
            self.standing = standing;
            self.version = self.version.saturating_add(1);
        }
    }

    /// Keeps the greater of each part: once removed is removed, and else what was changed last holds.
    fn join(&mut self, other: &Self) {
        self.name = std::mem::take(&mut self.name).max(other.name.clone());
        let is_removed = self.standing == Standing::Removed || other.standing == Standing::Removed;
        self.standing = if is_removed {
            Standing::Removed
        } else {
            (self.version, self.standing).max((other.version, other.standing)).1
        };
        if (other.version, &other.advertise) > (self.version, &self.advertise) {
            self.advertise.clone_from(&other.advertise);
        }
        self.version = self.version.max(other.version);
    }
}

/// Why bytes are not a membership of this cluster, or a change of it is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The bytes are not those that were written.
    #[error("not a membership document: {0}")]
    Damaged(&'static str),
    /// A format this build does not read.
    #[error("membership format version {0}; this build reads {VERSION}")]
    Version(u16),
    /// Another cluster's.
    #[error("a membership of cluster {found}, expected {expected}")]
    Cluster {
        /// Ours.
        expected: ClusterId,
        /// Its.
        found: ClusterId,
    },
    /// A region is not in it.
    #[error("no region has the name `{0}`")]
    Unknown(String),
    /// A removed region may come back only under a new id and name.
    #[error("region {region} was removed and may return only as new: under another name and id")]
    Removed {
        /// Which.
        region: RegionId,
    },
    /// Writes need at least one region that takes them.
    #[error("region {0} is the last one that takes writes: it cannot be drained")]
    Last(String),
    /// A region leaves only as it was looked at: it may have taken writes since.
    #[error(
        "region {0} was changed meanwhile, its draining may have been undone: nothing was changed; look again"
    )]
    Changed(String),
    /// An id or a name is in use.
    #[error("region {region} is `{name}` already")]
    Taken {
        /// The id.
        region: RegionId,
        /// The name it has.
        name: String,
    },
    /// A name or address is too long, or there are too many regions.
    #[error("{0} is too long")]
    TooLong(&'static str),
}

/// The document: every region the cluster has ever had.
#[derive(Clone, PartialEq, Eq, Debug, Default, Archive, Serialize, Deserialize)]
pub struct Membership {
    /// Ascending by region, each once.
    entries: Vec<MemberEntry>,
}

impl Membership {
    /// The document that declares these regions, all of them members.
    #[must_use]
    pub fn of(regions: impl IntoIterator<Item = (RegionId, String, String)>) -> Self {
        let mut out = Self::default();
        for (region, name, advertise) in regions {
            let entry = MemberEntry { region, name, advertise, standing: Standing::Member, version: 1 };
            out.join(&Self { entries: vec![entry] });
        }
        out
    }

    /// Takes in what another document knows; says whether that was news.
    pub fn join(&mut self, other: &Self) -> bool {
        let before = self.clone();
        for entry in &other.entries {
            match self.entries.binary_search_by_key(&entry.region, |known| known.region) {
                Ok(at) => self.entries[at].join(entry),
                Err(at) => self.entries.insert(at, entry.clone()),
            }
        }
        *self != before
    }

    /// A number that grows with every change.
    ///
    /// Equal documents have equal revisions. Two changes made in two places at once may reach the same one before they
    /// have met: what must not be confused is compared by [`Roster::digest`].
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.version)).sum()
    }

    /// Every region, ascending by id.
    #[must_use]
    pub fn entries(&self) -> &[MemberEntry] {
        &self.entries
    }

    /// A region's entry.
    #[must_use]
    pub fn get(&self, region: RegionId) -> Option<&MemberEntry> {
        self.entries.iter().find(|entry| entry.region == region)
    }

    /// The region of a name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&MemberEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Whether a region is in it and not removed.
    #[must_use]
    pub fn is_present(&self, region: RegionId) -> bool {
        self.get(region).is_some_and(|entry| entry.standing != Standing::Removed)
    }

    /// Declares a new region. One that is there already, with the same name and address, changes nothing.
    ///
    /// Errors: [`MembershipError::Removed`], [`MembershipError::Taken`], [`MembershipError::TooLong`].
    pub fn add(&mut self, region: RegionId, name: &str, advertise: &str) -> Result<(), MembershipError> {
        if name.len() > TEXT_BYTES_MAX || advertise.len() > TEXT_BYTES_MAX {
            return Err(MembershipError::TooLong("a name or address of more than 255 bytes"));
        }
        let known = self.entries.iter().find(|entry| entry.region == region || entry.name == name);
        match known {
            Some(entry) if entry.standing == Standing::Removed => {
                Err(MembershipError::Removed { region: entry.region })
            }
            Some(entry) if entry.region == region && entry.name == name && entry.advertise == advertise => {
                Ok(())
            }
            Some(entry) => Err(MembershipError::Taken { region: entry.region, name: entry.name.clone() }),
            None => {
                self.join(&Self::of([(region, name.to_owned(), advertise.to_owned())]));
                Ok(())
            }
        }
    }

    /// Moves a region to another standing; where it stands already changes nothing.
    ///
    /// Errors: [`MembershipError::Unknown`], [`MembershipError::Removed`] for what only a member can become.
    pub fn set(&mut self, name: &str, standing: Standing) -> Result<RegionId, MembershipError> {
        let unknown = || MembershipError::Unknown(name.to_owned());
        let entry = self.entries.iter_mut().find(|entry| entry.name == name).ok_or_else(unknown)?;
        if entry.standing == Standing::Removed && standing != Standing::Removed {
            return Err(MembershipError::Removed { region: entry.region });
        }
        entry.stand(standing);
        Ok(entry.region)
    }

    /// A region drains: it takes no more writes. Whether others do is looked at in this copy: two that drain in two places
    /// at once may leave none until one is undone.
    ///
    /// Errors: [`MembershipError::Last`] if no other is left that takes them, and those of [`Self::set`].
    pub fn drain(&mut self, name: &str) -> Result<RegionId, MembershipError> {
        let stays = |entry: &MemberEntry| entry.standing == Standing::Member && entry.name != name;
        let is_member = self.named(name).is_some_and(|entry| entry.standing == Standing::Member);
        if is_member && !self.entries.iter().any(stays) {
            return Err(MembershipError::Last(name.to_owned()));
        }
        self.set(name, Standing::Draining)
    }

    /// A region leaves, if it still drains as it did in `checked`; one that has left stays so.
    ///
    /// Errors: [`MembershipError::Changed`] if it does not.
    pub fn leave(&mut self, checked: &MemberEntry) -> Result<RegionId, MembershipError> {
        // By its id: two regions may have come by one name, where they were added in two places at once.
        let entry = self.entries.iter_mut().find(|entry| entry.region == checked.region);
        let changed = || MembershipError::Changed(checked.name.clone());
        let entry = entry.ok_or_else(changed)?;
        match entry.standing {
            Standing::Removed => {}
            Standing::Draining if entry.version == checked.version => entry.stand(Standing::Removed),
            Standing::Draining | Standing::Member => return Err(changed()),
        }
        Ok(entry.region)
    }

    /// Notes where a region is reached from now on; no change if it is there, or removed.
    pub fn move_to(&mut self, region: RegionId, advertise: &str) {
        let entry = self.entries.iter_mut().find(|entry| entry.region == region);
        let stays = |entry: &&mut MemberEntry| {
            entry.standing != Standing::Removed
                && entry.advertise != advertise
                && advertise.len() <= TEXT_BYTES_MAX
        };
        if let Some(entry) = entry.filter(stays) {
            advertise.clone_into(&mut entry.advertise);
            entry.version = entry.version.saturating_add(1);
        }
    }

    /// What the shards of a region go by.
    #[must_use]
    pub fn roster(&self, own: RegionId) -> Roster {
        let of = |is_removed: bool| {
            let is_it = move |entry: &&MemberEntry| (entry.standing == Standing::Removed) == is_removed;
            self.entries.iter().filter(is_it).map(|entry| entry.region).collect()
        };
        let standing = self.get(own).map_or(Standing::Removed, |entry| entry.standing);
        Roster { present: of(false), removed: of(true), standing }
    }

    /// Whether the entries are in order and within bounds: what a peer sent is checked before it is joined.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let is_sound = |entry: &MemberEntry| {
            RegionId::new(entry.region.get()).is_ok()
                && entry.name.len() <= TEXT_BYTES_MAX
                && entry.advertise.len() <= TEXT_BYTES_MAX
        };
        self.entries.len() <= REGIONS_MAX
            && self.entries.iter().all(is_sound)
            && self.entries.windows(2).all(|pair| pair[0].region < pair[1].region)
    }

    /// As the content of a file: magic `TMMS`, format version u16, two zero bytes, cluster id, blake3 over that and
    /// the payload, then the payload archived with rkyv.
    #[must_use]
    pub fn encode(&self, cluster: ClusterId) -> Vec<u8> {
        let payload = rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("encoding into memory cannot fail");
        let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&cluster.0.to_le_bytes());
        let digest = Digest::of(&[&out[..DIGESTED_BYTES], &payload]);
        out.extend_from_slice(&digest.0);
        out.extend_from_slice(&payload);
        out
    }

    /// From the content of a file.
    ///
    /// Errors: [`MembershipError`].
    pub fn decode(bytes: &[u8], cluster: ClusterId) -> Result<Self, MembershipError> {
        let Some((head, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(MembershipError::Damaged("too short"));
        };
        if head[..4] != MAGIC || bytes.len() > MEMBERSHIP_BYTES_MAX {
            return Err(MembershipError::Damaged("not one's first bytes, or too long"));
        }
        let version = u16::from_le_bytes([head[4], head[5]]);
        if version != VERSION {
            return Err(MembershipError::Version(version));
        }
        if Digest::of(&[&head[..DIGESTED_BYTES], payload]).0 != head[DIGESTED_BYTES..] {
            return Err(MembershipError::Damaged("digest mismatch"));
        }
        let found = ClusterId(u128::from_le_bytes(*head[8..].first_chunk().expect("inside the header")));
        if found != cluster {
            return Err(MembershipError::Cluster { expected: cluster, found });
        }
        let read = rkyv::from_bytes::<Self, rkyv::rancor::Error>(payload);
        let document = read.map_err(|_| MembershipError::Damaged("the payload does not read"))?;
        if document.is_sound() {
            Ok(document)
        } else {
            Err(MembershipError::Damaged("entries out of order or bounds"))
        }
    }
}

/// Who is a member and who was removed, as one region's shards go by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// Members, draining ones among them.
    pub present: BTreeSet<RegionId>,
    /// Removed ones, for ever.
    pub removed: BTreeSet<RegionId>,
    /// Where this region itself stands.
    pub standing: Standing,
}

impl Roster {
    /// Of regions that are all members.
    #[must_use]
    pub fn of(members: impl IntoIterator<Item = RegionId>) -> Self {
        Self { present: members.into_iter().collect(), removed: BTreeSet::new(), standing: Standing::Member }
    }

    /// Names who is in and who is out: answers given under another one do not count (F9d, F31). A revision would not
    /// do, as two removals in two places at once reach the same one.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let ids = |regions: &BTreeSet<RegionId>| -> Vec<u8> {
            regions.iter().flat_map(|region| region.get().to_le_bytes()).collect()
        };
        let digest = Digest::of(&[&ids(&self.present), &[0xff, 0xff], &ids(&self.removed)]);
        u64::from_le_bytes(*digest.0.first_chunk().expect("a digest is longer than that"))
    }
}

#[cfg(test)]
mod tests;
