//! Which region the client is at, where it goes next, and when it goes back. It dials nothing and waits for nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::jitter::jittered;

/// A failover this soon after a return doubles the pause before the next one…
const STEADY_AFTER: Duration = Duration::from_secs(60);
/// …up to this.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Regions by their place in the order of preference.
pub(crate) struct Regions {
    count: usize,
    at: usize,
    /// How long it stays where it went before it tries an earlier region again.
    pause: Duration,
    pause_min: Duration,
    /// When it last came back to an earlier region.
    returned: Option<Instant>,
    return_at: Option<Instant>,
}

impl Regions {
    pub(crate) fn new(count: usize, return_after: Duration) -> Self {
        Self { count, at: 0, pause: return_after, pause_min: return_after, returned: None, return_at: None }
    }

    /// A connection to that region stands.
    pub(crate) fn arrived(&mut self, at: usize, now: Instant) {
        if at < self.at {
            self.returned = Some(now);
        } else if at > self.at {
            let is_soon = self.returned.is_some_and(|returned| now < returned + STEADY_AFTER);
            let grown = (self.pause * 2).min(PAUSE_MAX.max(self.pause_min));
            self.pause = if is_soon { grown } else { self.pause_min };
        }
        self.at = at;
        self.return_at = (at > 0).then(|| now + jittered(self.pause));
    }

    /// Where to go when the present region is lost: the next ones in their order, itself last.
    pub(crate) fn next_ones(&self) -> Vec<usize> {
        (1..=self.count).map(|step| (self.at + step) % self.count).collect()
    }

    /// When to try which regions again that come before the present one.
    pub(crate) fn better_ones(&self) -> Option<(Instant, Vec<usize>)> {
        self.return_at.map(|start| (start, (0..self.at).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How long it waits before it tries earlier regions again, without the jitter.
    fn pause(regions: &Regions, now: Instant) -> Option<u64> {
        let (start, _) = regions.better_ones()?;
        let whole = start.duration_since(now).as_secs_f64() / SECOND.as_secs_f64();
        let near = |pause: &&u64| (whole / **pause as f64 - 1.0).abs() <= 0.26;
        [5, 10, 20, 40, 80, 160, 300].iter().find(near).copied()
    }

    #[test]
    fn it_goes_on_in_order_and_back_only_to_earlier_ones() {
        let now = Instant::now();
        let mut regions = Regions::new(3, 5 * SECOND);
        assert_eq!(regions.next_ones(), [1, 2, 0]);
        assert!(regions.better_ones().is_none());
        regions.arrived(2, now);
        assert_eq!(regions.next_ones(), [0, 1, 2]);
        assert_eq!(regions.better_ones().unwrap().1, [0, 1]);
        regions.arrived(1, now);
        assert_eq!(regions.better_ones().unwrap().1, [0]);
        assert_eq!(Regions::new(1, SECOND).next_ones(), [0]);
    }

    #[test]
    fn a_region_that_fails_again_soon_after_each_return_is_tried_less_and_less_often() {
        let mut now = Instant::now();
        let mut regions = Regions::new(2, 5 * SECOND);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            regions.arrived(1, now);
            pauses.extend(pause(&regions, now));
            now += 400 * SECOND;
            regions.arrived(0, now);
            now += SECOND;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        now += 61 * SECOND;
        regions.arrived(1, now);
        assert_eq!(pause(&regions, now), Some(5), "it stood for long enough");
    }
}
