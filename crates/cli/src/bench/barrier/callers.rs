//! The closed loops: callers in all regions, each asking again as soon as it is answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tombolo_sdk::{Client, Scope};
use tombolo_testbed::percentiles::Latencies;

use super::mutator::{History, note_laggards};
use super::{CALLERS_PER_CONNECTION, panicked};
use crate::error::CliError;
use crate::regions::Regions;

/// How long a caller rests before the first mutation, and after an error: an error may come at once.
const REST: Duration = Duration::from_millis(5);

/// Callers at work.
pub(super) struct Callers {
    tasks: JoinSet<()>,
    clients: Vec<Client>,
    /// One for each connection: a histogram takes more memory than a caller may.
    found: Vec<Shared>,
}

type Shared = Arc<Mutex<Found>>;

fn lock(found: &Shared) -> MutexGuard<'_, Found> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What they found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) latencies: Latencies,
    pub(super) errors: u64,
    pub(super) timeouts: u64,
    pub(super) laggards: Vec<String>,
    pub(super) failure: Option<String>,
}

impl Callers {
    /// Starts them, by turns in each region. What is asked from `window.0` to `window.1` is measured.
    pub(super) async fn start(
        regions: &Regions,
        count: usize,
        history: &History,
        timeout: Duration,
        window: (Instant, Instant),
    ) -> Result<Self, CliError> {
        let mut clients = Vec::new();
        while clients.len() * CALLERS_PER_CONNECTION < count {
            clients.extend(regions.connect().await?);
        }
        let mut tasks = JoinSet::new();
        let found: Vec<Shared> = clients.iter().map(|_| Shared::default()).collect();
        for at in 0..count {
            let (client, found) = (&clients[at % clients.len()], &found[at % clients.len()]);
            tasks.spawn(call(client.clone(), history.clone(), timeout, window, found.clone()));
        }
        Ok(Self { tasks, clients, found })
    }

    /// Waits until all have ended.
    pub(super) async fn join(mut self) -> Result<Found, CliError> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| panicked(&error))?;
        }
        let mut all = Found::default();
        self.found.iter().for_each(|found| all.take(std::mem::take(&mut lock(found))));
        for client in &self.clients {
            client.close().await;
        }
        Ok(all)
    }
}

async fn call(
    client: Client,
    history: History,
    timeout: Duration,
    (from, end): (Instant, Instant),
    found: Shared,
) {
    loop {
        let asked = Instant::now();
        if asked >= end {
            return;
        }
        let Some(token) = history.wanted() else {
            tokio::time::sleep(REST).await;
            continue;
        };
        match client.wait(&token, Scope::All, timeout).await {
            Ok(awaited) if awaited.reached => {
                if asked >= from {
                    lock(&found).latencies.record(asked.elapsed());
                }
            }
            Ok(awaited) => {
                let mut found = lock(&found);
                found.timeouts += 1;
                // A caller that gave up waited this long at least.
                found.latencies.record(asked.elapsed());
                note_laggards(&mut found.laggards, &awaited);
            }
            Err(error) => {
                lock(&found).fail(&error.to_string());
                tokio::time::sleep(REST).await;
            }
        }
    }
}

impl Found {
    fn fail(&mut self, text: &str) {
        self.errors += 1;
        self.failure.get_or_insert_with(|| text.to_owned());
    }

    fn take(&mut self, other: Self) {
        self.latencies.merge(&other.latencies);
        self.errors += other.errors;
        self.timeouts += other.timeouts;
        for laggard in other.laggards {
            if !self.laggards.contains(&laggard) {
                self.laggards.push(laggard);
            }
        }
        self.failure = self.failure.take().or(other.failure);
    }
}
