//! How old what a peer lacks is: the ends of this region's log over time, thinned out as they age.

use std::collections::VecDeque;

use tombolo_causality::Seq;

/// Ends kept; beyond it every other one goes, so that a long absence costs precision, not memory.
const POINTS_MAX: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Point {
    seq: Seq,
    ops_total: u64,
    closed_ms: u64,
}

/// The ends of this region's own log that some peer has not applied.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    points: VecDeque<Point>,
    /// The last end that every peer has applied.
    settled: (Seq, u64),
}

/// What a peer lacks of this region's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Behind {
    /// How many ops, at least.
    pub ops: u64,
    /// How long ago the oldest of them became durable, in milliseconds.
    pub oldest_ms: u64,
}

impl Progress {
    pub(crate) fn closed(&mut self, seq: Seq, ops_total: u64, now_ms: u64) {
        if self.points.len() >= POINTS_MAX {
            // The first one stays: it says how old the oldest is.
            let mut is_kept = false;
            self.points.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.points.push_back(Point { seq, ops_total, closed_ms: now_ms });
    }

    pub(crate) fn acked(&mut self, through: Seq) {
        while let Some(point) = self.points.front().filter(|point| point.seq <= through) {
            self.settled = (point.seq, point.ops_total);
            self.points.pop_front();
        }
    }

    pub(crate) fn behind(&self, applied: Seq, now_ms: u64) -> Behind {
        let at = self.points.partition_point(|point| point.seq <= applied);
        let Some(oldest) = self.points.get(at) else { return Behind::default() };
        let last = self.points.back().map_or(0, |point| point.ops_total);
        let before = match at.checked_sub(1) {
            Some(at) => self.points[at].ops_total,
            None => self.settled.1,
        };
        Behind { ops: last - before, oldest_ms: now_ms.saturating_sub(oldest.closed_ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_zero_when_everything_is_applied_and_grows_with_the_oldest_that_is_not() {
        let mut progress = Progress::default();
        assert_eq!(progress.behind(Seq(0), 50), Behind::default());
        progress.closed(Seq(1), 10, 100);
        progress.closed(Seq(2), 15, 200);
        assert_eq!(progress.behind(Seq(0), 300), Behind { ops: 15, oldest_ms: 200 });
        assert_eq!(progress.behind(Seq(1), 300), Behind { ops: 5, oldest_ms: 100 });
        assert_eq!(progress.behind(Seq(2), 300), Behind::default());
        progress.acked(Seq(1));
        assert_eq!(progress.behind(Seq(1), 400), Behind { ops: 5, oldest_ms: 200 });
    }

    #[test]
    fn a_long_absence_costs_bounded_memory() {
        let mut progress = Progress::default();
        for seq in 1..100_000 {
            progress.closed(Seq(seq), seq, seq);
        }
        assert!(progress.points.len() <= POINTS_MAX);
        let behind = progress.behind(Seq(0), 100_000);
        assert!(behind.ops == 99_999 && behind.oldest_ms == 99_999);
    }
}
