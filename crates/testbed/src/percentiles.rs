//! Latencies and their nearest-rank percentiles.
//!
//! Bounded memory however many are recorded: values above 2 ms are kept to one part in a thousand, the greatest
//! exactly. Never averages. Start with [`Latencies`].

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency told apart; longer ones count as this long in percentiles, and whole in the maximum.
pub const LATENCY_MAX: Duration = Duration::from_secs(3_600);

/// Recorded latencies.
///
/// Units: microseconds inside; a latency is rounded up, so that no report is better than the measurement.
#[derive(Debug, Clone)]
pub struct Latencies {
    us: Histogram<u64>,
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        let us = Histogram::new_with_bounds(1, LATENCY_MAX.as_micros() as u64, 3);
        Self { us: us.expect("the bounds are constant and valid"), max: Duration::ZERO }
    }

    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        let us = latency.as_nanos().div_ceil(1_000);
        self.us.saturating_record(u64::try_from(us).unwrap_or(u64::MAX));
        self.max = self.max.max(latency);
    }

    /// The nearest-rank percentile: the smallest recorded latency that at least `percent` of all do not exceed.
    ///
    /// Shape: zero if nothing was recorded; `percent` is 0 to 100.
    #[must_use]
    pub fn p(&self, percent: f64) -> Duration {
        if self.is_empty() {
            return Duration::ZERO;
        }
        Duration::from_micros(self.us.value_at_quantile(percent / 100.0)).min(self.max)
    }

    /// The greatest, exactly; zero if nothing was recorded.
    #[must_use]
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// How many were recorded.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.us.len()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.us.is_empty()
    }

    /// Takes in what another recorded.
    pub fn merge(&mut self, other: &Self) {
        self.us.add(&other.us).expect("all have the same bounds");
        self.max = self.max.max(other.max);
    }

    /// What reports carry.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let ms = |latency: Duration| (latency.as_secs_f64() * 1e6).round() / 1e3;
        Summary { p50: ms(self.p(50.0)), p95: ms(self.p(95.0)), p99: ms(self.p(99.0)), max: ms(self.max) }
    }
}

/// The percentiles of a report.
///
/// Units: milliseconds, to a microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Greatest.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(us: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::new();
        us.into_iter().for_each(|us| latencies.record(Duration::from_micros(us)));
        latencies
    }

    #[test]
    fn percentiles_are_nearest_rank_to_one_in_a_thousand() {
        for count in [1_u64, 2, 3, 10, 99, 100, 101, 1_000] {
            let mut values: Vec<u64> = (0..count).map(|at| at * at * 37 % 90_001 + 1).collect();
            let latencies = of(values.iter().copied());
            values.sort_unstable();
            for percent in [1.0, 50.0, 95.0, 99.0, 99.9, 100.0] {
                let rank = (percent / 100.0 * count as f64).ceil() as usize;
                let (exact, found) = (values[rank - 1] as f64, latencies.p(percent).as_micros() as f64);
                assert!(
                    (found - exact).abs() <= exact / 1_000.0 + 0.5,
                    "p{percent} of {count}: {exact} {found}"
                );
            }
        }
    }

    #[test]
    fn small_values_and_the_maximum_are_exact() {
        let latencies = of([100, 200, 300, 1_234_567]);
        assert_eq!(latencies.p(50.0), Duration::from_micros(200));
        assert_eq!(latencies.max(), Duration::from_micros(1_234_567));
        assert_eq!(latencies.p(100.0), latencies.max());
        assert_eq!(
            serde_json::to_string(&latencies.summary()).unwrap(),
            r#"{"p50":0.2,"p95":1234.567,"p99":1234.567,"max":1234.567}"#
        );
    }

    #[test]
    fn merging_is_recording_both() {
        let mut merged = of([1, 2, 3]);
        merged.merge(&of([1_000, 2_000]));
        let both = of([1, 2, 3, 1_000, 2_000]);
        assert_eq!((merged.len(), merged.max(), merged.p(80.0)), (5, both.max(), both.p(80.0)));
    }

    #[test]
    fn nothing_recorded_is_zero_and_too_long_is_the_bound() {
        assert_eq!(Latencies::new().p(99.0), Duration::ZERO);
        assert!(Latencies::new().is_empty());
        let mut latencies = Latencies::new();
        latencies.record(LATENCY_MAX * 3);
        assert_eq!(latencies.max(), LATENCY_MAX * 3);
        assert!(latencies.p(50.0) >= LATENCY_MAX);
    }

    #[test]
    fn a_latency_is_rounded_up() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_nanos(10_001));
        latencies.record(Duration::from_secs(1));
        assert_eq!(latencies.p(50.0), Duration::from_micros(11));
    }
}
