//! What a profile works with: regions, a client and a session in each, and the keys.
//!
//! Brings a load to its end too: everything answered, everywhere, and added up (`settle`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tombolo_sdk::{Client, FlushReport, Scope, Session, Token};
use tombolo_testbed::cluster::{Agreement, agreement};

use super::keys::Keys;
use super::settings::{LoadKind, LoadSettings};
use super::totals::Snapshot;
use crate::error::{CliError, Exit};
use crate::regions::{Regions, sdk_error};

/// How long the regions may take to hold the same once the load has ended.
const CONVERGENCE_MAX: Duration = Duration::from_secs(300);
/// From one look at the digests to the next.
const DIGEST_EVERY: Duration = Duration::from_millis(50);

/// Regions under a load.
pub(crate) struct Bed<'a> {
    pub(crate) regions: &'a Regions,
    pub(crate) names: Vec<String>,
    pub(crate) clients: Vec<Client>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) keys: Arc<Keys>,
    kind: LoadKind,
    /// What the counters held before, per region.
    sums_before: Vec<i128>,
}

/// What one region accepted.
#[derive(Default)]
pub(crate) struct Accepted {
    /// Signals that were answered with yes.
    pub(crate) signals: u64,
    /// Signals that were refused.
    pub(crate) refused: u64,
    /// Signals whose outcome is unknown.
    pub(crate) unknown: u64,
    /// Why the first was refused.
    pub(crate) refusal: Option<String>,
    /// Covers all accepted.
    pub(crate) token: Token,
    /// One bit per key that was written; empty for counters, whose sums say more.
    written: Vec<u64>,
}

impl Accepted {
    /// Takes in what a writer reports.
    pub(crate) fn take(&mut self, report: &FlushReport) {
        self.signals += report.accepted;
        self.refused += report.rejected_count;
        self.unknown += report.unknown;
        self.token.join(&report.token);
        if let Some((key, reject)) = report.rejected.first() {
            self.refusal.get_or_insert_with(|| format!("{}: {reject}", String::from_utf8_lossy(key)));
        }
    }

    /// Notes that one of `keys_count` keys is written.
    pub(crate) fn mark(&mut self, place: u32, keys_count: u32) {
        if self.written.is_empty() {
            self.written = vec![0; keys_count.div_ceil(64) as usize];
        }
        self.written[place as usize / 64] |= 1 << (place % 64);
    }

    fn has_written(&self, place: u32) -> bool {
        self.written.get(place as usize / 64).is_some_and(|bits| bits >> (place % 64) & 1 == 1)
    }
}

/// A load that came to its end.
pub(crate) struct Settled {
    /// From the given instant until everything accepted was durable and visible in every region.
    pub(crate) converged: Duration,
    /// What is wrong; empty if every accepted signal counts once everywhere.
    pub(crate) wrong: Vec<String>,
}

impl<'a> Bed<'a> {
    /// Connects, opens sessions, makes the keys.
    pub(crate) async fn make(regions: &'a Regions, load: &LoadSettings) -> Result<Self, CliError> {
        let (names, clients) = (regions.names(), regions.connect().await?);
        let mut sessions = Vec::new();
        for (name, client) in names.iter().zip(&clients) {
            sessions.push(client.session().await.map_err(|error| sdk_error(name, &error))?);
        }
        let count = load.keys;
        let keys = tokio::task::spawn_blocking(move || Arc::new(Keys::new(count))).await;
        let keys = keys.map_err(|error| CliError::new(Exit::Other, error.to_string()))?;
        let sums_before = if regions.are_started_here() {
            vec![0; names.len()]
        } else {
            Snapshot::read(&names, &clients, &keys).await?.sums()
        };
        Ok(Self { regions, names, clients, sessions, keys, kind: load.kind, sums_before })
    }

    /// Waits until all that was accepted is everywhere.
    pub(crate) async fn converge(&self, accepted: &[Accepted], start: Instant) -> Result<Settled, CliError> {
        let mut wrong = Vec::new();
        for (name, (client, accepted)) in self.names.iter().zip(self.clients.iter().zip(accepted)) {
            let awaited = client.wait(&accepted.token, Scope::All, CONVERGENCE_MAX).await;
            let awaited = awaited.map_err(|error| sdk_error(name, &error))?;
            let late = awaited.laggards.iter().map(|late| {
                format!("{} lacks {} signals of {name} ({})", late.region, late.behind_ops, late.reason)
            });
            wrong.extend(late.filter(|_| !awaited.reached));
        }
        Ok(Settled { converged: start.elapsed(), wrong })
    }

    /// Reads everything back and adds it up.
    pub(crate) async fn verify(&self, accepted: &[Accepted], settled: &mut Settled) -> Result<(), CliError> {
        let sum = |field: fn(&Accepted) -> u64| accepted.iter().map(field).sum::<u64>();
        let (signals, unknown) = (sum(|a| a.signals), sum(|a| a.unknown));
        let snapshot = Snapshot::read(&self.names, &self.clients, &self.keys).await?;
        settled.wrong.extend(match self.kind {
            LoadKind::Counter => snapshot.check_sums(&self.sums_before, signals, unknown),
            LoadKind::Register if self.regions.are_started_here() && unknown == 0 => {
                snapshot.check_presence(|place| accepted.iter().any(|a| a.has_written(place)))
            }
            LoadKind::Register => snapshot.unequal(),
        });
        let start = Instant::now();
        loop {
            match agreement(&self.regions.digests().await?) {
                Agreement::Equal => return Ok(()),
                Agreement::Behind(_) if start.elapsed() < CONVERGENCE_MAX => {
                    tokio::time::sleep(DIGEST_EVERY).await
                }
                Agreement::Behind(text) | Agreement::Broken(text) => {
                    settled.wrong.push(text);
                    return Ok(());
                }
            }
        }
    }

    /// Ends the clients.
    pub(crate) async fn close(self) {
        for client in &self.clients {
            client.close().await;
        }
    }
}
