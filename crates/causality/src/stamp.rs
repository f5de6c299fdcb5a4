//! Stamps: one value, total order, carried by every copy of a write.

use std::fmt;
use std::str::FromStr;

use rkyv::{Archive, Deserialize, Serialize};
use uhlc::NTP64;

use crate::ids::RegionId;

/// A point in hybrid-logical time: NTP64 since the Unix epoch (32 bits of seconds, 32 bits of fraction).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Archive, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// The beginning of time; smaller than every clock reading.
    pub const ZERO: Self = Self(0);

    /// The next representable instant.
    ///
    /// Units: 2⁻³² s. Saturates at the end of time.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// `ms` later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        let ntp = (u128::from(ms) << 32) / 1_000;
        Self(self.0.saturating_add(u64::try_from(ntp).unwrap_or(u64::MAX)))
    }

    /// `ms` earlier, but not before the beginning of time.
    #[must_use]
    pub fn minus_ms(self, ms: u64) -> Self {
        let ntp = (u128::from(ms) << 32) / 1_000;
        Self(self.0.saturating_sub(u64::try_from(ntp).unwrap_or(u64::MAX)))
    }

    /// How far this is after `earlier`; 0 if it is not.
    ///
    /// Units: seconds.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 4_294_967_296.0
    }

    /// From a wall reading.
    ///
    /// Units: nanoseconds since the Unix epoch.
    #[must_use]
    pub fn from_unix_ns(ns: u128) -> Self {
        let seconds = ns / 1_000_000_000;
        let fraction = ((ns % 1_000_000_000) << 32) / 1_000_000_000;
        Self(u64::try_from((seconds << 32) | fraction).unwrap_or(u64::MAX))
    }

    /// As milliseconds since the Unix epoch, rounded down.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        let (seconds, fraction) = (self.0 >> 32, self.0 & 0xffff_ffff);
        seconds * 1_000 + ((fraction * 1_000) >> 32)
    }

    /// The same instant in the type of the uhlc crate, whose stamp format this is.
    #[must_use]
    pub const fn ntp64(self) -> NTP64 {
        NTP64(self.0)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}.{:08x}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// Hybrid time, region and op id: the total order of register writes and counter deletes.
///
/// Fixed once by the sender; every copy and retry carries the same one (invariant C4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct Stamp {
    /// Hybrid time.
    pub time: Time,
    /// The session's home, or without a session the admitting region.
    pub region: RegionId,
    /// 128 random bits drawn by whoever fixed the stamp.
    pub op: u128,
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.time, self.region)
    }
}

/// `<time>-<region>-<op id>` in hexadecimal: what doors print and take back.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}-{:032x}", self.time.0, self.region.get(), self.op)
    }
}

impl FromStr for Stamp {
    type Err = StampError;

    fn from_str(text: &str) -> Result<Self, StampError> {
        let mut parts = text.split('-');
        let mut part = |bytes_max: usize| {
            parts.next().filter(|p| !p.is_empty() && p.len() <= bytes_max).ok_or(StampError)
        };
        let time = u64::from_str_radix(part(16)?, 16).map_err(|_| StampError)?;
        let region = u16::from_str_radix(part(4)?, 16).map_err(|_| StampError)?;
        let op = u128::from_str_radix(part(32)?, 16).map_err(|_| StampError)?;
        if parts.next().is_some() {
            return Err(StampError);
        }
        Ok(Self { time: Time(time), region: RegionId::new(region).map_err(|_| StampError)?, op })
    }
}

/// Text that is not a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stamp: expected `<time>-<region>-<op id>` in hexadecimal, as an earlier answer printed it")]
pub struct StampError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_prints_and_parses_alike() {
        let stamp =
            Stamp { time: Time(0x1234_5678_9abc_def0), region: RegionId::new(7).unwrap(), op: u128::MAX - 5 };
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        for bad in ["", "1-2", "1-2-3-4", "1-0-3", "1-401-3", "+1-2-z", "11111111111111111-1-1"] {
            assert_eq!(bad.parse::<Stamp>(), Err(StampError), "{bad}");
        }
    }

    #[test]
    fn time_converts_to_milliseconds_and_back_within_one() {
        let time = Time::from_unix_ns(1_700_000_000_123_456_789);
        assert_eq!(time.unix_ms(), 1_700_000_000_123);
        assert!((time.plus_ms(1_500).seconds_since(time) - 1.5).abs() < 1e-6);
    }
}
