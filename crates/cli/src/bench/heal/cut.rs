//! The cut and its heal, under a load that runs: what is read when, and in which order.
//!
//! Judges nothing, but gives up a heal that does not come in time. Start with [`cut_and_heal`].

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::task::JoinSet;
use tombolo_sdk::{Scope, Session};
use tombolo_testbed::relay::Relay;

use super::looks::{Looks, lag_max, open_pair};
use super::others::Usages;
use super::{Arguments, cut_off};
use crate::bench::bed::Bed;
use crate::bench::keys::Chance;
use crate::bench::open_loop::OpenLoop;
use crate::error::{CliError, Exit};
use crate::regions::{cluster_error, sdk_error};

/// From one look at what the regions say to the next.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the load lasts before anything is measured: first connections, first pages of memory, first files.
const START_UP: Duration = Duration::from_secs(1);
/// The cut lasts longer by up to this, by chance: regions try again at intervals that count from the cut, so that cuts
/// of one length would all end in the same moment of an interval.
const JITTER_MS_MAX: u32 = 250;
/// How long it goes on once all is level.
const AFTER: Duration = Duration::from_secs(1);

/// What a cut and its heal came to.
pub(super) struct Healed {
    /// How long the cut lasted.
    pub(super) cut_seconds: f64,
    /// From the heal until the regions said so.
    pub(super) reconnected: Duration,
    pub(super) lag_is_low: Duration,
    /// From the heal until what each region had accepted by then was everywhere, in order.
    pub(super) caught_up: Vec<Duration>,
    /// Signals accepted during the cut.
    pub(super) backlog: u64,
    pub(super) lag_seconds: Lag,
    pub(super) usages: Usages,
}

/// The greatest lag of any pair.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Lag {
    pub(super) before: f64,
    /// At the end of the cut.
    pub(super) cut: f64,
    /// A while after all was level, still under load.
    pub(super) after: f64,
}

impl Healed {
    pub(super) fn caught_up(&self) -> Duration {
        self.caught_up.iter().copied().max().unwrap_or_default()
    }

    /// All of it: nothing that is measured is still open.
    pub(super) fn whole(&self) -> Duration {
        self.reconnected.max(self.lag_is_low).max(self.caught_up())
    }
}

/// Cuts the last region off under a load, lets it back, and waits until all is well.
pub(super) async fn cut_and_heal(
    arguments: &Arguments,
    bed: &Bed<'_>,
    relay: &Relay,
    writers: &OpenLoop,
) -> Result<Healed, CliError> {
    tokio::time::sleep(START_UP).await;
    writers.next_phase();
    tokio::time::sleep(arguments.before()).await;
    let before = lag_max(&bed.regions.statuses().await?);
    let mut usages = Usages { before: bed.regions.usages(), cut: None };
    writers.next_phase();
    relay.isolate(cut_off(&bed.names)).map_err(|error| cluster_error(error.into()))?;
    let answered = writers.answered();
    let cut_at = Instant::now();
    let jitter = Duration::from_millis(Chance::new(unix_ns()).below(JITTER_MS_MAX).into());
    tokio::time::sleep(Duration::from_secs_f64(arguments.cut_seconds) + jitter).await;
    let cut = lag_max(&bed.regions.statuses().await?);
    usages.cut = bed.regions.usages();

    let timeout = arguments.timeout();
    let barriers = Barriers::ask(bed, timeout);
    writers.next_phase();
    relay.heal_all();
    let (healed, cut_seconds) = (Instant::now(), cut_at.elapsed().as_secs_f64());
    let backlog = writers.answered() - answered;
    let (caught_up, looks) = tokio::try_join!(barriers.join(healed), look(bed, healed, timeout))?;
    let (reconnected, lag_is_low) = looks;
    tokio::time::sleep(AFTER).await;
    let after = lag_max(&bed.regions.statuses().await?);
    let lag_seconds = Lag { before, cut, after };
    let healed = Healed { cut_seconds, reconnected, lag_is_low, caught_up, backlog, lag_seconds, usages };
    // A busy machine may look, or answer, only after the time is over.
    if healed.whole() > timeout {
        return Err(late(timeout, Some(format!("it took {:.2} s", healed.whole().as_secs_f64()))));
    }
    Ok(healed)
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// Looks until every pair is connected and its lag low; gives when either was so.
async fn look(bed: &Bed<'_>, healed: Instant, timeout: Duration) -> Result<(Duration, Duration), CliError> {
    let mut looks = Looks::default();
    loop {
        let statuses = bed.regions.statuses().await?;
        if let Some(found) = looks.take(healed.elapsed(), &statuses) {
            return Ok(found);
        }
        if healed.elapsed() >= timeout {
            return Err(late(timeout, open_pair(&statuses)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn late(timeout: Duration, what: Option<String>) -> CliError {
    let what = what.unwrap_or_else(|| "a region went back to being late".to_owned());
    let text = format!("the cut has not healed {} s after frames pass again: {what}", timeout.as_secs_f64());
    CliError::new(Exit::CheckFailed, text)
        .next("give it longer with --timeout-seconds, or less to do with --rate")
}

/// For each region, whether all it had accepted is everywhere.
struct Barriers {
    waits: JoinSet<Result<(usize, Instant), CliError>>,
    timeout: Duration,
}

impl Barriers {
    /// Asks for all that the sessions have written so far.
    fn ask(bed: &Bed<'_>, timeout: Duration) -> Self {
        let mut waits = JoinSet::new();
        let tokens: Vec<_> = bed.sessions.iter().map(Session::token).collect();
        for (at, ((client, name), token)) in bed.clients.iter().zip(&bed.names).zip(tokens).enumerate() {
            let (client, name) = (client.clone(), name.clone());
            waits.spawn(async move {
                let awaited = client.wait(&token, Scope::All, timeout).await;
                let awaited = awaited.map_err(|error| sdk_error(&name, &error))?;
                if awaited.reached {
                    return Ok((at, Instant::now()));
                }
                let late_one = awaited.laggards.first().map(|late| {
                    format!("{} lacks {} signals of {name} ({})", late.region, late.behind_ops, late.reason)
                });
                Err(late(timeout, late_one))
            });
        }
        Self { waits, timeout }
    }

    /// Waits for all answers; gives how long after the heal each came.
    async fn join(mut self, healed: Instant) -> Result<Vec<Duration>, CliError> {
        let mut caught_up = vec![self.timeout; self.waits.len()];
        while let Some(waited) = self.waits.join_next().await {
            let (at, when) = waited.map_err(|error| CliError::new(Exit::Other, error.to_string()))??;
            caught_up[at] = when.saturating_duration_since(healed);
        }
        Ok(caught_up)
    }
}
