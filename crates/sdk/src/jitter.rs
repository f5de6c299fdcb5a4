//! Spreads pauses, so that the clients of a region that failed do not come back all at once.

use std::time::Duration;

/// A pause between three and five quarters as long.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let mut bits = [0; 4];
    getrandom::fill(&mut bits).expect("the operating system gives random bits");
    pause.mul_f64(0.75 + f64::from(u32::from_le_bytes(bits)) / f64::from(u32::MAX) / 2.0)
}
