//! Ids as newtypes: two integers that mean different things never fit in one another's place.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use rkyv::{Archive, Deserialize, Serialize};

use crate::Time;

/// Why a text or a number is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A region id outside 1..=1023.
    #[error("region id {0} is outside 1..=1023")]
    Region(u32),
    /// A shard count outside 1..=1024.
    #[error("shard count {0} is outside 1..=1024")]
    ShardsCount(u32),
    /// Text that is not 32 hexadecimal digits.
    #[error("`{0}` is not an id of 32 hexadecimal digits")]
    Hex(String),
}

/// A failure domain with its own daemon. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct RegionId(u16);

impl RegionId {
    /// The greatest id a region may have.
    pub const MAX: u16 = 1023;

    /// Checks the bounds.
    ///
    /// Errors: [`IdError::Region`] outside 1..=1023.
    pub fn new(id: u16) -> Result<Self, IdError> {
        if id == 0 || id > Self::MAX { Err(IdError::Region(u32::from(id))) } else { Ok(Self(id)) }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl ArchivedRegionId {
    /// The number as it stands in the bytes, not yet checked.
    #[must_use]
    pub fn get(&self) -> u16 {
        self.0.to_native()
    }
}

impl fmt::Debug for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A fixed hash partition of the keys: the unit of ordering, parallelism and ownership.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct ShardId(pub u16);

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An isolation namespace, derived from the credential, never from a request field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Serialize, Deserialize)]
pub struct TenantId(pub u32);

impl TenantId {
    /// The tenant named `default`.
    pub const DEFAULT: Self = Self(1);
}

/// The place of a batch in its log: 1, 2, 3… without gaps; 0 means "nothing yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Archive, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first batch.
    pub const ZERO: Self = Self(0);

    /// The seq after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:08x}…", self.0 >> 96)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let refused = || IdError::Hex(text.chars().take(64).collect());
                let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| refused())?;
                Ok(Self(u128::from_be_bytes(bytes.try_into().map_err(|_| refused())?)))
            }
        }
    };
}

random_id!(
    /// The set of regions that share data; checked in every handshake and file.
    ClusterId
);
random_id!(
    /// One incarnation of a log's writer, drawn at every process start.
    Epoch
);

/// The batches written by one region's owner of one shard in one epoch. One writer, never forks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct LogId {
    /// The shard whose ops it holds.
    pub shard: ShardId,
    /// The region that wrote it.
    pub region: RegionId,
    /// The process incarnation that wrote it.
    pub epoch: Epoch,
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}/{:?}", self.shard, self.region, self.epoch)
    }
}

/// A client's numbered sequence of requests.
///
/// It names the epoch that opened it, so that a shard can tell by the id alone whether it is the session's authority
/// without having to be whole (design.md §3.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Serialize, Deserialize)]
pub struct SessionId {
    /// The region that opened it.
    pub home: RegionId,
    /// The incarnation of the home that opened it.
    pub epoch: Epoch,
    /// When it was opened, by the home's clock.
    pub opened: Time,
    /// Drawn at random by the home; 0: named by its client, see [`SessionId::named`].
    pub random: u64,
}

impl SessionId {
    /// A session that its client named instead of opening it: the name's digest stands where an epoch would.
    ///
    /// It is one region's: another region makes another id of the same name. It counts as opened at the end of the
    /// present window, so that it lives for one to two of them; a retry may come in the next one, see
    /// [`SessionId::neighbours`].
    #[must_use]
    pub fn named(home: RegionId, name_digest: u128, wall: Time, window_ms: u64) -> Self {
        let window = Self::window(window_ms);
        let opened = Time((wall.0 / window + 1).saturating_mul(window));
        Self { home, epoch: Epoch(name_digest), opened, random: 0 }
    }

    const fn window(window_ms: u64) -> u64 {
        let ntp = ((window_ms as u128) << 32) / 1_000;
        if ntp == 0 { 1 } else { ntp as u64 }
    }

    /// The sessions of the same name one window earlier and, should the clock step back, one later.
    #[must_use]
    pub const fn neighbours(&self, window_ms: u64) -> [Self; 2] {
        let window = Self::window(window_ms);
        let earlier = Self { opened: Time(self.opened.0.saturating_sub(window)), ..*self };
        let later = Self { opened: Time(self.opened.0.saturating_add(window)), ..*self };
        [earlier, later]
    }

    /// Whether its client named it: then no epoch opened it.
    #[must_use]
    pub const fn is_named(&self) -> bool {
        self.random == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_ids_outside_their_bounds_are_refused() {
        assert_eq!(RegionId::new(0), Err(IdError::Region(0)));
        assert_eq!(RegionId::new(1024), Err(IdError::Region(1024)));
        assert_eq!(RegionId::new(1023).map(RegionId::get), Ok(1023));
    }

    #[test]
    fn random_ids_print_and_parse_alike() {
        let id = ClusterId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("xyz".parse::<ClusterId>().is_err());
        assert!("00".parse::<Epoch>().is_err());
    }
}
