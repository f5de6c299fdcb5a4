//! What the acceptance tests share: a cluster of real daemons, load on it, and what must come of that.
//!
//! Speaks to regions as clients and operators do, and looks into none of them. Every wait has a bound. Start with
//! [`bed::Bed`]; the scenarios are the files in `tests/`.

pub mod bed;
pub mod bulk;
pub mod caller;
pub mod chance;
pub mod digits;
pub mod disks;
pub mod fates;
pub mod ledger;
pub mod process;
pub mod resp;
pub mod setter;
pub mod storm;
pub mod values;
pub mod writer;
pub mod wrong_clock;

use std::io::Write;
use std::time::Duration;

/// Waits for `future` at most `seconds`.
///
/// Panics: if it takes longer, with what was waited for.
pub async fn within<T>(what: &str, seconds: u64, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(seconds), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not done within {seconds} s"),
    }
}

/// Prints a measured number. Past the test harness, which keeps what passing tests print to itself.
pub fn tell(line: &str) {
    // Where stderr is closed nobody wants to know.
    let _ = std::io::stderr().lock().write_all(format!("    {line}\n").as_bytes());
}
