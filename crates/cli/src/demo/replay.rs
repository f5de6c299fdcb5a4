//! The replay: each region's flights, written there at their time through one session.
//!
//! Adds go through the writer; each set by itself, because its answer carries the stamp that the oracle needs. Says what
//! was answered, never what is right. Start with [`Share::deal`] and [`Share::replay`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tombolo_sdk::{SdkError, Session, Writer, Written};
use tombolo_testbed::flights::{Flight, Flights, FlightsError, Signal};
use tombolo_testbed::oracle::Oracle;
use tombolo_testbed::percentiles::Latencies;

use crate::error::{CliError, Exit};

/// Sets that wait for their answers, per region.
const SETS_IN_FLIGHT_MAX: usize = 256;
/// How fine the replay's clock is.
const PACE: Duration = Duration::from_millis(5);
/// Failures that are kept in words; others are counted.
pub(super) const FAILURES_MAX: usize = 5;

/// What one region has to write.
#[derive(Default)]
pub(super) struct Share {
    /// Flights with their place in the whole file, from 0 to 1.
    flights: Vec<(f64, Flight)>,
    /// How many of them are written.
    pub(super) done: Arc<AtomicU64>,
}

/// What came of a share.
pub(super) struct Replayed {
    pub(super) flights_count: u64,
    pub(super) signals_count: u64,
    /// The winners among this region's sets.
    pub(super) oracle: Oracle,
    /// From handing over a set to its answer.
    pub(super) acks: Latencies,
    /// Signals that were refused or of which nobody knows, and why the first ones.
    pub(super) failures_count: u64,
    pub(super) failures: Vec<String>,
}

impl Share {
    /// Reads a file, or the embedded month, and deals its flights to `count` regions.
    pub(super) fn deal(input: Option<&Path>, count: usize) -> Result<Vec<Self>, CliError> {
        let flights = input.map_or_else(Flights::january, Flights::open);
        let flights: Result<Vec<Flight>, FlightsError> = flights.and_then(Iterator::collect);
        let flights = flights.map_err(|error| {
            let name = input.map_or_else(|| "the embedded month".into(), Path::to_string_lossy);
            CliError::new(Exit::Other, format!("{name}: {error}"))
        })?;
        let total = flights.len() as f64;
        let mut shares: Vec<Self> = (0..count).map(|_| Self::default()).collect();
        for (at, flight) in flights.into_iter().enumerate() {
            shares[flight.region(count)].flights.push((at as f64 / total, flight));
        }
        Ok(shares)
    }

    /// How many flights it has.
    pub(super) fn flights_count(&self) -> u64 {
        self.flights.len() as u64
    }

    /// The airports it writes for, most flights first.
    pub(super) fn airports(&self) -> Vec<String> {
        let mut counts = std::collections::BTreeMap::<&str, u64>::new();
        self.flights.iter().for_each(|(_, flight)| *counts.entry(&flight.origin).or_default() += 1);
        let mut airports: Vec<_> = counts.into_iter().collect();
        airports.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        airports.into_iter().map(|(name, _)| name.to_owned()).collect()
    }

    /// Writes every flight at its time, all within `duration` of `start` if the region keeps up.
    pub(super) async fn replay(self, session: Session, start: Instant, duration: Duration) -> Replayed {
        let (writer, in_flight) = (session.writer(), Arc::new(Semaphore::new(SETS_IN_FLIGHT_MAX)));
        let replayed = Replayed {
            flights_count: self.flights_count(),
            signals_count: 0,
            oracle: Oracle::new(),
            acks: Latencies::new(),
            failures_count: 0,
            failures: Vec::new(),
        };
        let mut hand = Hand { session, writer, in_flight, sets: JoinSet::new(), replayed };
        for (place, flight) in &self.flights {
            let due = start + duration.mul_f64(*place);
            if due > Instant::now() {
                tokio::time::sleep_until((due + PACE).into()).await;
            }
            for signal in flight.signals() {
                hand.write(signal).await;
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        hand.finish().await
    }
}

/// An answered set.
struct SetDone {
    key: String,
    value: String,
    answer: Result<Written, SdkError>,
    took: Duration,
}

/// What writes one region's signals.
struct Hand {
    session: Session,
    writer: Writer,
    in_flight: Arc<Semaphore>,
    sets: JoinSet<SetDone>,
    replayed: Replayed,
}

impl Hand {
    async fn write(&mut self, signal: Signal) {
        self.replayed.signals_count += 1;
        match signal {
            Signal::Add { key, delta } => {
                if let Err(error) = self.writer.add(&key, delta).await {
                    self.replayed.fail(|| format!("{key}: {error}"));
                }
            }
            Signal::Set { key, value } => self.set(key, value).await,
        }
    }

    async fn set(&mut self, key: String, value: String) {
        let permit = self.in_flight.clone().acquire_owned().await.expect("the semaphore is never closed");
        let register = self.session.register(&key);
        self.sets.spawn(async move {
            let sent = Instant::now();
            let answer = register.set(value.as_str()).await;
            drop(permit);
            SetDone { key, value, answer, took: sent.elapsed() }
        });
        while let Some(done) = self.sets.try_join_next() {
            self.replayed.take(done.expect("a set does not panic and is not aborted"));
        }
    }

    async fn finish(mut self) -> Replayed {
        while let Some(done) = self.sets.join_next().await {
            self.replayed.take(done.expect("a set does not panic and is not aborted"));
        }
        match self.writer.flush().await {
            Ok(report) => {
                self.replayed.failures_count += report.rejected_count + report.unknown;
                let refused = report
                    .rejected
                    .iter()
                    .map(|(key, reject)| format!("{}: {reject}", String::from_utf8_lossy(key)));
                let unknown = (report.unknown > 0)
                    .then(|| format!("{} adds were not answered in time", report.unknown));
                self.replayed.failures.extend(refused.chain(unknown).take(FAILURES_MAX));
            }
            Err(error) => self.replayed.fail(|| error.to_string()),
        }
        self.replayed
    }
}

impl Replayed {
    fn take(&mut self, done: SetDone) {
        let SetDone { key, value, answer, took } = done;
        match answer.map(|written| written.stamp) {
            Ok(Some(stamp)) => {
                self.acks.record(took);
                self.oracle.record_set(key, stamp, value);
            }
            Ok(None) => self.fail(|| format!("{key}: the answer carries no stamp")),
            Err(error) => self.fail(|| format!("{key}: {error}")),
        }
    }

    fn fail(&mut self, text: impl FnOnce() -> String) {
        self.failures_count += 1;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(text());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flight_of_the_month_is_dealt_once_and_in_order() {
        let shares = Share::deal(None, 3).unwrap();
        assert_eq!(shares.iter().map(Share::flights_count).sum::<u64>(), 26_865);
        assert_eq!(
            shares.iter().map(|share| share.airports().join("+")).collect::<Vec<_>>(),
            ["EWR", "JFK", "LGA"]
        );
        for share in &shares {
            assert!(share.flights.windows(2).all(|pair| pair[0].0 < pair[1].0));
            assert!(share.flights.iter().all(|(place, _)| (0.0..1.0).contains(place)));
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Share::deal(Some(Path::new("no/such/file.csv")), 3).err().unwrap();
        assert!(error.text().starts_with("no/such/file.csv: "), "{}", error.text());
    }
}
