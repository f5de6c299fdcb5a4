//! An open loop: every millisecond each region is due its share of signals, whether or not earlier ones were answered.
//!
//! All latencies count from the instant a signal was due. Each millisecond's signals are flushed as one; of some, one
//! signal by chance is read in each other region after its token. A load has phases, which are told apart by when a
//! signal was due ([`OpenLoop::next_phase`]). It judges nothing. Start with [`OpenLoop::start`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tombolo_sdk::{Client, FlushReport, SdkError, Session, Token, Writer};
use tombolo_testbed::percentiles::Latencies;

use super::bed::{Accepted, Bed};
use super::keys::{Chance, Draw, Keys};
use super::settings::{LoadKind, LoadSettings};
use crate::error::{CliError, Exit};
use crate::regions::sdk_error;

/// How often signals are due.
const TICK: Duration = Duration::from_millis(1);
const TICKS_PER_SECOND: u64 = 1_000;
/// Ticks whose signals are not all answered yet, per region; beyond it a tick waits, and its latency grows.
const TICKS_IN_FLIGHT_MAX: usize = 256;
/// Signals that are read elsewhere, over all regions.
const SAMPLES_PER_SECOND: u64 = 200;

/// Whether some signals are read in the other regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sampling {
    Reads,
    Nothing,
}

/// A load on every region of a bed.
pub(crate) struct OpenLoop {
    drives: Vec<JoinHandle<Result<Found, SdkError>>>,
    clock: Clock,
    answered: Arc<AtomicU64>,
    phases: Phases,
}

impl OpenLoop {
    /// Starts it; ends by itself after `duration`, or else with [`Self::stop`].
    pub(crate) fn start(
        bed: &Bed<'_>,
        load: &LoadSettings,
        signals_per_second: u64,
        duration: Duration,
        sampling: Sampling,
    ) -> Self {
        let (count, clock, answered) = (bed.names.len(), Clock::start(duration), Arc::default());
        let phases = Phases::default();
        let others = |at: usize| match sampling {
            Sampling::Reads => {
                bed.clients.iter().cloned().enumerate().filter(|(other, _)| *other != at).collect()
            }
            Sampling::Nothing => Vec::new(),
        };
        let drive = |at: usize| Drive {
            session: bed.sessions[at].clone(),
            others: others(at),
            keys: bed.keys.clone(),
            draw: Draw::new(load.dist, load.keys, at as u64 + 1),
            kind: load.kind,
            rate: Rate { signals_per_second, regions_count: count as u64, region: at as u64 },
            found: Arc::default(),
            answered: Arc::clone(&answered),
            phases: phases.clone(),
        };
        let drives = (0..count).map(|at| tokio::spawn(drive(at).run(clock.clone()))).collect();
        Self { drives, clock, answered, phases }
    }

    /// From here on what is due belongs to the next phase; a load begins in phase 0.
    pub(crate) fn next_phase(&self) {
        self.phases.next();
    }

    /// Signals that were answered with yes so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// No more ticks, not even those that are late; what was sent is still answered.
    pub(crate) fn stop(&self) {
        self.clock.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Waits until all is answered; gives what each region accepted, and the rest of what was found there.
    ///
    /// Errors: the first region whose load could not go on.
    pub(crate) async fn join(self, names: &[String]) -> Result<(Vec<Accepted>, Vec<Found>), CliError> {
        let (mut accepted, mut found) = (Vec::new(), Vec::new());
        for (name, drive) in names.iter().zip(self.drives) {
            let done = drive.await.map_err(|error| CliError::new(Exit::Other, error.to_string()))?;
            let mut done = done.map_err(|error| sdk_error(name, &error))?;
            accepted.push(std::mem::take(&mut done.accepted));
            found.push(done);
        }
        Ok((accepted, found))
    }
}

/// Says which ticks are due.
///
/// A thread of its own sleeps: the runtime's timers are a millisecond coarse, as long as a whole tick.
#[derive(Clone)]
struct Clock {
    start: Instant,
    is_stopped: Arc<AtomicBool>,
    /// How many ticks are due. Latest wins: whoever is late does all of them.
    due: watch::Receiver<u64>,
}

impl Clock {
    fn start(duration: Duration) -> Self {
        let (tell, due) = watch::channel(0);
        let ticks_count = duration.as_secs() * TICKS_PER_SECOND;
        let (start, is_stopped) = (Instant::now() + TICK, Arc::new(AtomicBool::new(false)));
        let stop = is_stopped.clone();
        // Ends by itself after the last tick, or once nobody listens.
        std::thread::spawn(move || {
            for tick in 0..ticks_count {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let at = start + TICK * tick as u32;
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                if tell.send(tick + 1).is_err() {
                    return;
                }
            }
        });
        Self { start, is_stopped, due }
    }
}

/// When each phase but the first began.
#[derive(Debug, Clone, Default)]
struct Phases(Arc<Mutex<Vec<Instant>>>);

impl Phases {
    fn next(&self) {
        lock(&self.0).push(Instant::now());
    }

    /// Which phase it was at an instant.
    fn at(&self, instant: Instant) -> usize {
        lock(&self.0).partition_point(|start| *start <= instant)
    }
}

/// Which signals are due when.
#[derive(Debug, Clone, Copy)]
struct Rate {
    signals_per_second: u64,
    regions_count: u64,
    region: u64,
}

impl Rate {
    /// Signals due before a tick, in one region. Regions take turns, so that the sum is right at any rate.
    fn before(&self, tick: u64) -> u64 {
        let all = u128::from(tick) * u128::from(self.signals_per_second) / u128::from(TICKS_PER_SECOND);
        ((all + u128::from(self.regions_count - 1 - self.region)) / u128::from(self.regions_count)) as u64
    }

    fn at(&self, tick: u64) -> u64 {
        self.before(tick + 1) - self.before(tick)
    }
}

/// What was found in one region.
#[derive(Default)]
pub(crate) struct Found {
    accepted: Accepted,
    /// From when a tick was due until all its signals were answered, by the phase in which it was due.
    acks: Vec<Latencies>,
    /// From when a signal was due until it was read elsewhere, by the phase in which it was due and the other region's
    /// place.
    visible: BTreeMap<(usize, usize), Latencies>,
    /// Samples that could not be read in time.
    pub(crate) unread: u64,
    /// Why the first write or read failed.
    pub(crate) failure: Option<String>,
}

/// Writes into one region what is due.
struct Drive {
    session: Session,
    others: Vec<(usize, Client)>,
    keys: Arc<Keys>,
    draw: Draw,
    kind: LoadKind,
    rate: Rate,
    found: Arc<Mutex<Found>>,
    answered: Arc<AtomicU64>,
    phases: Phases,
}

impl Drive {
    async fn run(mut self, mut clock: Clock) -> Result<Found, SdkError> {
        let (give_back, mut free) = mpsc::channel(TICKS_IN_FLIGHT_MAX);
        for _ in 0..TICKS_IN_FLIGHT_MAX {
            give_back.try_send(self.session.writer()).expect("there is room for all writers");
        }
        let (mut flushes, mut chance) = (JoinSet::new(), Chance::new(self.rate.region + 100));
        let samples_every = (TICKS_PER_SECOND * self.rate.regions_count).div_ceil(SAMPLES_PER_SECOND);
        let mut since_sample = 0;
        let mut number = 0;
        for tick in 0.. {
            // What was told is looked at first: an error means that no more is due.
            let is_over = clock.due.wait_for(|due| *due > tick).await.is_err();
            if is_over || clock.is_stopped.load(Ordering::Relaxed) {
                break;
            }
            since_sample += 1;
            let signals_count = self.rate.at(tick);
            if signals_count == 0 {
                continue;
            }
            let mut writer = free.recv().await.expect("this task holds a sender");
            let chosen = chance.below(signals_count.min(u32::MAX.into()) as u32);
            let mut sampled = None;
            for nth in 0..signals_count {
                let place = self.draw.next();
                number += 1;
                self.write(&mut writer, place, number).await?;
                if nth == u64::from(chosen) && since_sample >= samples_every {
                    sampled = Some(place);
                    since_sample = 0;
                }
            }
            let due = clock.start + TICK * tick as u32;
            flushes.spawn(self.flush(writer, due, sampled, give_back.clone()));
            while flushes.try_join_next().is_some() {}
        }
        while flushes.join_next().await.is_some() {}
        drop(flushes);
        let found = Arc::into_inner(self.found).expect("every flush has ended");
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    async fn write(&mut self, writer: &mut Writer, place: u32, number: u64) -> Result<(), SdkError> {
        let key = self.keys.at(place);
        match self.kind {
            LoadKind::Counter => writer.add(key, 1).await,
            LoadKind::Register => {
                lock(&self.found).accepted.mark(place, self.keys.count());
                writer.set(key, number.to_be_bytes()).await
            }
        }
    }

    /// Waits for the answers to one tick's signals, then for the sampled one in every other region.
    fn flush(
        &self,
        mut writer: Writer,
        due: Instant,
        sampled: Option<u32>,
        give_back: mpsc::Sender<Writer>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (found, keys, answered) = (self.found.clone(), self.keys.clone(), self.answered.clone());
        let phases = self.phases.clone();
        let others = if sampled.is_some() { self.others.clone() } else { Vec::new() };
        async move {
            let flushed = writer.flush().await;
            let acked = due.elapsed();
            // The receiver is gone once nothing is due any more.
            let _ = give_back.try_send(writer);
            let report = match flushed {
                Ok(report) => report,
                Err(error) => return lock(&found).fail(&error),
            };
            answered.fetch_add(report.accepted, Ordering::Relaxed);
            let phase = phases.at(due);
            lock(&found).answered(&report, phase, acked);
            let Some(place) = sampled.filter(|_| report.accepted > 0) else { return };
            let mut reads = JoinSet::new();
            for (to, client) in others {
                let (keys, token) = (keys.clone(), report.token.clone());
                reads.spawn(async move { (to, read_after(&client, keys.at(place), &token, due).await) });
            }
            while let Some(Ok((to, read))) = reads.join_next().await {
                lock(&found).read((phase, to), read);
            }
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_after(client: &Client, key: &str, token: &Token, due: Instant) -> Result<Duration, SdkError> {
    client.read(&[key], Some(token)).await.map(|_| due.elapsed())
}

impl Found {
    /// All latencies of answers.
    pub(crate) fn acks(&self) -> Latencies {
        let mut all = Latencies::new();
        self.acks.iter().for_each(|acks| all.merge(acks));
        all
    }

    /// Those of one phase.
    pub(crate) fn acks_in(&self, phase: usize) -> Latencies {
        self.acks.get(phase).cloned().unwrap_or_default()
    }

    /// How soon what was due in one phase was read elsewhere, by place of the other region.
    pub(crate) fn visible_in(&self, phase: usize) -> impl Iterator<Item = (usize, &Latencies)> {
        let visible = self.visible.range((phase, 0)..(phase + 1, 0));
        visible.map(|(&(_, to), latencies)| (to, latencies))
    }

    fn answered(&mut self, report: &FlushReport, phase: usize, acked: Duration) {
        if self.acks.len() <= phase {
            self.acks.resize_with(phase + 1, Latencies::new);
        }
        self.acks[phase].record(acked);
        self.accepted.take(report);
    }

    fn read(&mut self, place: (usize, usize), read: Result<Duration, SdkError>) {
        match read {
            Ok(latency) => self.visible.entry(place).or_default().record(latency),
            Err(error) => {
                self.unread += 1;
                self.fail(&error);
            }
        }
    }

    fn fail(&mut self, error: &SdkError) {
        self.failure.get_or_insert_with(|| error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_together_are_due_the_rate_at_every_tick() {
        for signals_per_second in [1, 7, 999, 1_000, 3_001, 1_000_000] {
            let rate = |region| Rate { signals_per_second, regions_count: 3, region };
            for tick in [0, 1, 2, 999, 1_000, 59_999] {
                let due: u64 = (0..3).map(|region| rate(region).before(tick)).sum();
                assert_eq!(due, tick * signals_per_second / 1_000, "{signals_per_second} at {tick}");
            }
        }
    }

    #[test]
    fn ticks_add_up_to_what_is_due() {
        let rate = Rate { signals_per_second: 12_345, regions_count: 3, region: 1 };
        assert_eq!((0..10_000).map(|tick| rate.at(tick)).sum::<u64>(), rate.before(10_000));
    }

    #[test]
    fn an_answer_counts_for_the_phase_in_which_its_signals_were_due() {
        let (phases, mut found) = (Phases::default(), Found::default());
        let first = Instant::now();
        phases.next();
        let second = Instant::now();
        // The answer to what was due in the first phase comes in the second.
        for (due, ms) in [(second, 1), (first, 2), (second, 3)] {
            found.answered(&FlushReport::default(), phases.at(due), Duration::from_millis(ms));
        }
        let ms = |latencies: Latencies| (latencies.len(), latencies.max().as_millis());
        assert_eq!([0, 1, 2].map(|phase| ms(found.acks_in(phase))), [(1, 2), (2, 3), (0, 0)]);
        assert_eq!(ms(found.acks()), (3, 3));
        // So does what was read elsewhere.
        for (place, ms) in [((0, 2), 1), ((1, 0), 2), ((1, 2), 3)] {
            found.read(place, Ok(Duration::from_millis(ms)));
        }
        let read = |phase| {
            found.visible_in(phase).map(|(to, read)| (to, read.max().as_millis())).collect::<Vec<_>>()
        };
        assert_eq!([read(0), read(1), read(2)], [vec![(2, 1)], vec![(0, 2), (2, 3)], vec![]]);
    }
}
