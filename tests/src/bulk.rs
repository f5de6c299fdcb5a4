//! Bulk load on one region: many adds through a writer, and what they must add up to.
//!
//! Start with [`Bulk::drive`]; what it gives goes into one [`Oracle`].

use std::time::Duration;

use tokio::sync::watch;
use tombolo_sdk::{FlushReport, Session};
use tombolo_testbed::oracle::Oracle;

/// Time between two handfuls.
const EVERY: Duration = Duration::from_millis(2);
/// Keys that all regions share.
const KEYS: u64 = 300;

/// A load to put on a region.
#[derive(Debug, Clone, Copy)]
pub struct Bulk {
    /// Adds per second.
    pub per_second: u64,
}

/// What came of a load.
#[derive(Debug)]
pub struct BulkDone {
    /// What the adds come to.
    pub oracle: Oracle,
    /// How many were handed over.
    pub count: u64,
    /// What the writer says of them.
    pub report: FlushReport,
}

impl Bulk {
    /// Writes until `stop`, then waits until everything is answered.
    ///
    /// Panics: if the writer refuses an add, or the client ends.
    pub async fn drive(self, session: Session, mut stop: watch::Receiver<bool>) -> BulkDone {
        let (mut writer, mut oracle, mut count) = (session.writer(), Oracle::new(), 0);
        let start = tokio::time::Instant::now();
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                _ = ticks.tick() => {}
            }
            let due = (start.elapsed().as_micros() as u64).saturating_mul(self.per_second) / 1_000_000;
            while count < due && !*stop.borrow() {
                count += 1;
                // Never zero in sum, so that a key that is expected is there.
                let (key, delta) = (format!("bulk:{}", count * 7 % KEYS), (count % 1_000 + 1) as i64);
                writer.add(&key, delta).await.unwrap_or_else(|error| panic!("{key}: {error}"));
                oracle.record_add(key, delta);
            }
        }
        let report = writer.flush().await.unwrap_or_else(|error| panic!("flush: {error}"));
        BulkDone { oracle, count, report }
    }
}

impl BulkDone {
    /// What is wrong: an add that was not accepted.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let FlushReport { accepted, rejected_count, unknown, rejected, .. } = &self.report;
        if *accepted == self.count {
            return Vec::new();
        }
        let why = rejected.first().map_or_else(String::new, |(_, reject)| format!("; {reject}"));
        let count = self.count;
        vec![format!("of {count} adds {accepted} accepted, {rejected_count} refused, {unknown} unknown{why}")]
    }
}
