//! Whether this region's own clock is too far ahead of its peers' (design.md §3.4).
//!
//! Only the side that is ahead refuses register writes: being behind harms nobody, and with two regions there is no
//! majority (F16).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tombolo_causality::{RegionId, Time};

/// Offsets to the peers heard of, and the verdict.
#[derive(Debug)]
pub(crate) struct Skew {
    drift_ms_max: f64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How far ahead this region is of each peer, in milliseconds.
    ahead_ms: BTreeMap<RegionId, f64>,
    is_ahead: bool,
}

impl Skew {
    pub(crate) fn new(drift_ms_max: u64) -> Self {
        Self { drift_ms_max: drift_ms_max as f64, state: Mutex::default() }
    }

    /// Takes a heartbeat's reading in; says the verdict if it changed.
    pub(crate) fn heard(&self, peer: RegionId, theirs: Time, ours: Time, rtt: Duration) -> Option<bool> {
        let apart = (ours.seconds_since(theirs) - theirs.seconds_since(ours)) * 1_000.0;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Their reading is half a round trip old.
        state.ahead_ms.insert(peer, apart - rtt.as_secs_f64() * 500.0);
        let beyond = state.ahead_ms.values().filter(|&&ahead| ahead > self.drift_ms_max).count();
        let is_ahead = beyond * 2 > state.ahead_ms.len();
        let was_ahead = std::mem::replace(&mut state.is_ahead, is_ahead);
        (was_ahead != is_ahead).then_some(is_ahead)
    }

    /// The median of how far ahead this region is, in milliseconds.
    pub(crate) fn offset_ms(&self) -> f64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut offsets: Vec<f64> = state.ahead_ms.values().copied().collect();
        offsets.sort_by(f64::total_cmp);
        offsets.get(offsets.len() / 2).copied().unwrap_or(0.0)
    }

    pub(crate) fn is_ahead(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(id: u16) -> RegionId {
        RegionId::new(id).unwrap()
    }

    #[test]
    fn only_the_side_that_is_ahead_of_most_peers_is_told_so() {
        let skew = Skew::new(500);
        let now = Time::from_unix_ns(1_700_000_000_000_000_000);
        let rtt = Duration::from_millis(20);
        assert_eq!(skew.heard(region(2), now, now.plus_ms(1_000), rtt), Some(true));
        assert_eq!(skew.heard(region(3), now, now, rtt), Some(false), "one of two is not most");
        assert_eq!(skew.heard(region(3), now, now.plus_ms(600), rtt), Some(true));
        let behind = Skew::new(500);
        assert_eq!(behind.heard(region(2), now.plus_ms(3_600_000), now, rtt), None);
        assert!(behind.offset_ms() < -3_000_000.0);
    }
}
