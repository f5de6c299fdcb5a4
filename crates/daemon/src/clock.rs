//! The only place where the daemon reads a clock for the core.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tombolo_causality::Time;
use tombolo_replica::Now;

/// The wall and a clock that never goes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// Both readings, as the core takes them.
    pub(crate) fn now(&self) -> Now {
        let monotonic_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { wall: wall(), monotonic_ms }
    }

    /// When the clock that never goes back reads so much.
    pub(crate) fn at(&self, monotonic_ms: u64) -> Instant {
        self.started + Duration::from_millis(monotonic_ms)
    }
}

/// The wall's reading. A wall before 1970 reads as 1970.
pub(crate) fn wall() -> Time {
    Time::from_unix_ns(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos())
}

/// 128 random bits from the operating system.
///
/// Panics if it has none to give: nothing here can be safe without.
pub(crate) fn draw() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u128::from_le_bytes(bytes)
}
