//! Whether this region's own clock is too far ahead of its peers' (design.md §3.4).
//!
//! Only the side that is ahead refuses register writes: being behind harms nobody, and with two regions there is no
//! majority (F16).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tombolo_causality::{RegionId, Time};

/// Heartbeats of a peer that are judged together: a delay on the way only makes this region seem ahead, so the least of
/// them is nearest to the truth.
const HEARTBEATS_COUNT: usize = 16;

/// Offsets to the peers heard of, and the verdict.
#[derive(Debug)]
pub(crate) struct Skew {
    drift_ms_max: f64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How far ahead this region seemed of each peer by its last heartbeats, in milliseconds.
    ahead_ms: BTreeMap<RegionId, VecDeque<f64>>,
    is_ahead: bool,
}

impl State {
    fn least(&self) -> Vec<f64> {
        let least = |heard: &VecDeque<f64>| heard.iter().copied().fold(f64::INFINITY, f64::min);
        self.ahead_ms.values().map(least).collect()
    }
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
        let heard = state.ahead_ms.entry(peer).or_default();
        heard.push_back(apart - rtt.as_secs_f64() * 500.0);
        if heard.len() > HEARTBEATS_COUNT {
            heard.pop_front();
        }
        let least = state.least();
        let beyond = least.iter().filter(|&&ahead| ahead > self.drift_ms_max).count();
        let is_ahead = beyond * 2 > least.len();
        let was_ahead = std::mem::replace(&mut state.is_ahead, is_ahead);
        (was_ahead != is_ahead).then_some(is_ahead)
    }

    /// The median of how far ahead this region is, in milliseconds.
    pub(crate) fn offset_ms(&self) -> f64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut offsets = state.least();
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
        let now = Time::from_unix_ns(1_700_000_000_000_000_000);
        let rtt = Duration::from_millis(20);
        let skew = Skew::new(500);
        assert_eq!(skew.heard(region(2), now, now.plus_ms(1_000), rtt), Some(true));
        assert_eq!(skew.heard(region(3), now, now, rtt), Some(false), "one of two is not most");
        let skew = Skew::new(500);
        assert_eq!(skew.heard(region(2), now, now.plus_ms(1_000), rtt), Some(true));
        assert_eq!(skew.heard(region(3), now, now.plus_ms(600), rtt), None);
        let behind = Skew::new(500);
        assert_eq!(behind.heard(region(2), now.plus_ms(3_600_000), now, rtt), None);
        assert!(behind.offset_ms() < -3_000_000.0);
    }

    #[test]
    fn a_heartbeat_that_was_held_up_is_no_skew_and_a_clock_that_steps_is() {
        let now = Time::from_unix_ns(1_700_000_000_000_000_000);
        let rtt = Duration::from_millis(20);
        let skew = Skew::new(500);
        assert_eq!(skew.heard(region(2), now, now.plus_ms(10), rtt), None);
        assert_eq!(skew.heard(region(2), now, now.plus_ms(2_000), rtt), None);
        let verdicts = (0..HEARTBEATS_COUNT).map(|_| skew.heard(region(2), now, now.plus_ms(2_000), rtt));
        assert_eq!(verdicts.flatten().collect::<Vec<_>>(), [true]);
    }
}
