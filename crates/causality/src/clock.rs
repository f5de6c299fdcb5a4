//! The hybrid logical clock: grows strictly, follows the wall, is never dragged away by a far-future stamp.

use crate::stamp::Time;

/// Why a remote reading was not taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockRefusal {
    /// The reading is further ahead of the wall than the drift bound.
    #[error("a reading is {ahead_ms} ms ahead of this region's clock; the bound is {drift_ms_max} ms")]
    TooFarAhead {
        /// How far ahead it is.
        ahead_ms: u64,
        /// How far ahead it may be.
        drift_ms_max: u64,
    },
}

/// The ten lines of the hybrid-logical-clock algorithm over stamps of the uhlc format.
///
/// uhlc's own clock cannot be restored ahead of a wall clock that stepped back, reads an environment variable and
/// takes a lock; it serves as the oracle in a test. Each batch carries the reading at which it was closed, and
/// recovery takes the greatest of them over with [`HybridClock::restored`]: so readings that any record carries grow
/// strictly across restarts, also when the wall stepped back (H1).
#[derive(Debug, Clone)]
pub struct HybridClock {
    last: Time,
    drift_ms_max: u64,
}

impl HybridClock {
    /// A clock that has issued nothing yet.
    ///
    /// Units: `drift_ms_max` in milliseconds.
    #[must_use]
    pub const fn new(drift_ms_max: u64) -> Self {
        Self { last: Time::ZERO, drift_ms_max }
    }

    /// A clock that goes on after `last`, the greatest reading found on disk.
    #[must_use]
    pub const fn restored(drift_ms_max: u64, last: Time) -> Self {
        Self { last, drift_ms_max }
    }

    /// Issues a reading: strictly greater than all before, at least the wall.
    pub fn tick(&mut self, wall: Time) -> Time {
        self.last = wall.max(self.last.next());
        self.last
    }

    /// The greatest reading so far.
    #[must_use]
    pub const fn last(&self) -> Time {
        self.last
    }

    /// Takes over a remote reading, so that what follows it here is stamped later.
    ///
    /// Errors: [`ClockRefusal::TooFarAhead`]; the clock stays where it is, the record is applied all the same and
    /// the caller raises a finding.
    pub fn observe(&mut self, remote: Time, wall: Time) -> Result<(), ClockRefusal> {
        self.check(remote, wall)?;
        self.last = self.last.max(remote).max(wall);
        Ok(())
    }

    /// Whether a reading is within the drift bound of the wall.
    ///
    /// Errors: [`ClockRefusal::TooFarAhead`].
    pub fn check(&self, remote: Time, wall: Time) -> Result<(), ClockRefusal> {
        self.check_within(remote, wall, self.drift_ms_max)
    }

    /// Whether a reading may be one that another region accepted: its clock may lie one drift bound ahead of this
    /// one, and it accepts what lies one more ahead of itself.
    ///
    /// Errors: [`ClockRefusal::TooFarAhead`].
    pub fn check_copy(&self, remote: Time, wall: Time) -> Result<(), ClockRefusal> {
        self.check_within(remote, wall, self.drift_ms_max.saturating_mul(2))
    }

    fn check_within(&self, remote: Time, wall: Time, ahead_ms_max: u64) -> Result<(), ClockRefusal> {
        // A clock that was restored ahead of the wall judges by itself: it must accept what it could have issued.
        let reference = wall.max(self.last);
        if remote > reference.plus_ms(ahead_ms_max) {
            let ahead_ms = (remote.seconds_since(reference) * 1_000.0) as u64;
            return Err(ClockRefusal::TooFarAhead { ahead_ms, drift_ms_max: ahead_ms_max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use uhlc::{HLCBuilder, ID, NTP64, Timestamp};

    use super::*;

    thread_local! {
        static WALL: Cell<u64> = const { Cell::new(0) };
    }

    fn oracle_wall() -> NTP64 {
        NTP64(WALL.get())
    }

    const SECOND: u64 = 1 << 32;

    #[derive(Debug, Clone)]
    enum Step {
        Tick { wall: u64 },
        Observe { wall: u64, remote: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let time = (1_000 * SECOND)..(1_004 * SECOND);
        prop_oneof![
            time.clone().prop_map(|wall| Step::Tick { wall }),
            (time.clone(), time).prop_map(|(wall, remote)| Step::Observe { wall, remote }),
        ]
    }

    proptest! {
        /// uhlc also ticks when it takes a reading over, so it may run ahead of ours, by one a step at the most.
        #[test]
        fn it_agrees_with_uhlc(steps in vec(step(), 1..60)) {
            let peer = ID::try_from([2u8]).unwrap();
            let oracle = HLCBuilder::new()
                .with_id(ID::try_from([1u8]).unwrap())
                .with_clock(oracle_wall)
                .with_max_delta(Duration::from_millis(500))
                .build();
            let mut clock = HybridClock::new(500);
            let steps_count = steps.len() as u64;
            for step in steps {
                match step {
                    Step::Tick { wall } => {
                        let wall = wall & !0xf;
                        WALL.set(wall);
                        let expected = oracle.new_timestamp().get_time().as_u64();
                        let issued = clock.tick(Time(wall)).0;
                        prop_assert!(issued <= expected && expected - issued <= steps_count);
                    }
                    Step::Observe { wall, remote } => {
                        let (wall, remote) = (wall & !0xf, remote & !0xf);
                        WALL.set(wall);
                        let taken = oracle.update_with_timestamp(&Timestamp::new(NTP64(remote), peer)).is_ok();
                        // uhlc judges by the wall alone; ours also accepts what a restored clock could have issued.
                        if taken || clock.last() <= Time(wall) {
                            prop_assert_eq!(clock.observe(Time(remote), Time(wall)).is_ok(), taken);
                        }
                    }
                }
            }
        }

        #[test]
        fn readings_grow_strictly_whatever_the_wall_does(walls in vec(any::<u32>(), 1..50), restart_at in 0usize..50) {
            let mut clock = HybridClock::new(500);
            let mut before = Time::ZERO;
            for (index, wall) in walls.into_iter().enumerate() {
                if index == restart_at {
                    clock = HybridClock::restored(500, before);
                }
                let reading = clock.tick(Time(u64::from(wall)));
                prop_assert!(reading > before);
                before = reading;
            }
        }
    }

    #[test]
    fn a_far_future_reading_never_drags_the_clock() {
        let wall = Time(1_000 * SECOND);
        let mut clock = HybridClock::new(500);
        let year_ahead = Time(wall.0 + 31_536_000 * SECOND);
        assert!(clock.observe(year_ahead, wall).is_err());
        assert_eq!(clock.tick(wall), wall);
    }

    #[test]
    fn a_copy_may_lie_two_drift_bounds_ahead_and_a_first_attempt_one() {
        let wall = Time(1_000 * SECOND);
        let clock = HybridClock::new(500);
        let (one, two) = (wall.plus_ms(500), wall.plus_ms(1_000));
        assert!(clock.check(one, wall).is_ok() && clock.check(one.next(), wall).is_err());
        assert!(clock.check_copy(two, wall).is_ok());
        let refusal = clock.check_copy(two.plus_ms(1_000), wall);
        assert_eq!(refusal, Err(ClockRefusal::TooFarAhead { ahead_ms: 2_000, drift_ms_max: 1_000 }));
    }
}
