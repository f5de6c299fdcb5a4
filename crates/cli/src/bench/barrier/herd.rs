//! Many who wait at once: one region is kept from applying a mutation, all ask for it, and the region is let go.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tombolo_sdk::{Client, Scope, SdkError};
use tombolo_testbed::percentiles::Latencies;

use super::{CALLERS_PER_CONNECTION, KEY, panicked};
use crate::error::{CliError, Exit};
use crate::regions::{Regions, sdk_error};

/// How often they are let go: a release is one sample of a tail.
const ROUNDS: usize = 5;
/// How long they wait at most.
const TIMEOUT: Duration = Duration::from_secs(60);
/// From one look at how many wait to the next.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Default)]
pub(super) struct Released {
    /// From asking for the release until a waiter was answered.
    pub(super) latencies: Latencies,
    pub(super) timeouts: u64,
}

/// Has `count` wait in the first region for the last, and lets them go.
pub(super) async fn release(regions: &Regions, writer: &Client, count: usize) -> Result<Released, CliError> {
    let names = regions.names();
    let (first, last) = (names[0].clone(), names[names.len() - 1].clone());
    let mut clients = Vec::new();
    while clients.len() * CALLERS_PER_CONNECTION < count {
        clients.push(regions.connect_to(0).await?);
    }
    let session = writer.session().await.map_err(|error| sdk_error(&first, &error))?;
    let mut released = Released::default();
    for _ in 0..ROUNDS {
        regions.pause_apply(&last, &first, true).await?;
        let waited = round(regions, &clients, count, &session, (&first, &last), &mut released).await;
        // Whatever came of it, the region goes on.
        regions.pause_apply(&last, &first, false).await?;
        waited?;
    }
    for client in &clients {
        client.close().await;
    }
    Ok(released)
}

async fn round(
    regions: &Regions,
    clients: &[Client],
    count: usize,
    session: &tombolo_sdk::Session,
    (first, last): (&str, &str),
    released: &mut Released,
) -> Result<(), CliError> {
    let written = session.counter(KEY).incr(1).await.map_err(|error| sdk_error(first, &error))?;
    let mut waiting: JoinSet<Result<Option<Instant>, SdkError>> = JoinSet::new();
    for at in 0..count {
        let (client, token) = (clients[at % clients.len()].clone(), written.token.clone());
        waiting.spawn(async move {
            let awaited = client.wait(&token, Scope::All, TIMEOUT).await?;
            Ok(awaited.reached.then(Instant::now))
        });
    }
    let asked = Instant::now();
    while regions.waiters(0).await? < count as u64 {
        if asked.elapsed() > TIMEOUT / 2 {
            let text = format!("{first}: not all of {count} wait after {:?}", asked.elapsed());
            return Err(CliError::new(Exit::Other, text));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let let_go = Instant::now();
    regions.pause_apply(last, first, false).await?;
    while let Some(waited) = waiting.join_next().await {
        let waited = waited.map_err(|error| panicked(&error))?;
        match waited.map_err(|error| sdk_error(first, &error))? {
            Some(answered) => released.latencies.record(answered.saturating_duration_since(let_go)),
            None => released.timeouts += 1,
        }
    }
    Ok(())
}
