//! Stamps for sets and deletes: fixed here once, above every stamp this client has seen.
//!
//! The wall reading is the region's, carried on by this machine's monotonic clock: a wall clock that is wrong or jumps
//! here does no harm.

use tokio::time::Instant;
use tombolo_causality::{HybridClock, RegionId, Stamp, Time};

const POOL_BYTES: usize = 4_096;

/// The client's hybrid clock and its random bits.
pub(crate) struct Stamps {
    clock: HybridClock,
    /// A reading of the region's clock and when it came in.
    anchor: (Time, Instant),
    /// Random bits drawn ahead: one call to the system for 256 stamps.
    pool: Box<[u8; POOL_BYTES]>,
    used: usize,
}

impl Stamps {
    pub(crate) fn new(drift_ms_max: u64, region_clock: Time, now: Instant) -> Self {
        Self {
            clock: HybridClock::new(drift_ms_max),
            anchor: (region_clock, now),
            pool: Box::new([0; POOL_BYTES]),
            used: POOL_BYTES,
        }
    }

    /// Takes a newer reading of the region's clock.
    pub(crate) fn anchor(&mut self, region_clock: Time, now: Instant) {
        self.anchor = (region_clock, now);
    }

    fn wall(&self, now: Instant) -> Time {
        let (time, since) = self.anchor;
        let elapsed = Time::from_unix_ns(now.saturating_duration_since(since).as_nanos());
        Time(time.0.saturating_add(elapsed.0))
    }

    /// Takes note of a stamp in an answer.
    ///
    /// One too far ahead does not drag the clock with it: a write over that value is told the stamp it needs.
    pub(crate) fn see(&mut self, time: Time, now: Instant) {
        if let Err(refusal) = self.clock.observe(time, self.wall(now)) {
            tracing::debug!(%refusal, "a stamp is left out of the clock");
        }
    }

    /// The greatest time seen or drawn.
    pub(crate) fn latest(&self) -> Time {
        self.clock.last()
    }

    /// A stamp above all that was seen and drawn, and above `above`.
    pub(crate) fn draw(&mut self, region: RegionId, above: Time, now: Instant) -> Stamp {
        let ticked = self.clock.tick(self.wall(now));
        let time = ticked.max(above.next());
        if time > ticked {
            self.see(time, now);
        }
        Stamp { time, region, op: self.random() }
    }

    fn random(&mut self) -> u128 {
        if self.used == POOL_BYTES {
            getrandom::fill(&mut *self.pool).expect("the operating system gives random bits");
            self.used = 0;
        }
        let bits = self.pool[self.used..].first_chunk::<16>().expect("the pool holds whole stamps");
        self.used += 16;
        u128::from_le_bytes(*bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_and_stand_above_what_was_seen_unless_it_is_far_ahead() {
        let now = Instant::now();
        let region = RegionId::new(1).unwrap();
        let start = Time(1_000 << 32);
        let mut stamps = Stamps::new(500, start, now);
        let first = stamps.draw(region, Time::ZERO, now);
        let second = stamps.draw(region, Time::ZERO, now);
        assert!(second > first && first.time >= start && first.op != second.op);
        let near = start.plus_ms(400);
        stamps.see(near, now);
        assert!(stamps.draw(region, Time::ZERO, now).time > near);
        let far = start.plus_ms(3_600_000);
        stamps.see(far, now);
        assert!(stamps.draw(region, Time::ZERO, now).time < far);
        assert!(stamps.draw(region, far, now).time > far, "asked for, it goes above");
        assert!(stamps.draw(region, Time::ZERO, now).time < far, "and comes back");
    }
}
