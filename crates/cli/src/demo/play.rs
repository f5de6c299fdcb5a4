//! The order of events: replay in all regions at once, cut, heal, wait, compare.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tombolo_sdk::{Client, Laggard, Scope, Session, Token};
use tombolo_testbed::cluster::{Agreement, agreement};
use tombolo_testbed::machine::{Machine, commit};
use tombolo_testbed::oracle::Oracle;
use tombolo_testbed::relay::Relay;

use super::compare::{Compared, compare};
use super::lag::{Lag, Lags};
use super::outcome::{Cut, Outcome, RegionOutcome};
use super::probe::{Probe, Probed};
use super::progress::{Progress, Row};
use super::replay::{FAILURES_MAX, Replayed, Share};
use super::{Phase, wan};
use crate::error::{CliError, Exit};
use crate::regions::{Regions, cluster_error, sdk_error};

/// How long barriers and equal digests may take; far beyond what a healed network needs.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(30);
/// From one look at the digests to the next.
const DIGEST_EVERY: Duration = Duration::from_millis(50);
/// Where in the replay the cut begins.
const CUT_AT: f64 = 0.35;

/// Regions on which flights are replayed.
pub(super) struct Play<'a> {
    regions: &'a Regions,
    names: Vec<String>,
    progress: &'a Progress,
    paths: Vec<wan::Path>,
    seconds: f64,
    cut_seconds: f64,
}

/// What was measured while the replay ran.
struct Played {
    replays: Vec<Replayed>,
    probes: Vec<Probed>,
    lags: Vec<Lag>,
    cut: Cut,
    failures: Vec<String>,
}

impl<'a> Play<'a> {
    /// A replay of `seconds`, with a cut of `cut_seconds` in it.
    pub(super) fn new(regions: &'a Regions, progress: &'a Progress, seconds: f64, cut_seconds: f64) -> Self {
        let names = regions.names();
        let paths = wan::paths(names.len());
        Self { regions, names, progress, paths, seconds, cut_seconds }
    }

    /// Replays, cuts, heals, compares.
    ///
    /// Errors: what kept it from being known whether all is right.
    pub(super) async fn run(&self, shares: Vec<Share>, oracle: Oracle) -> Result<Outcome, CliError> {
        for path in &self.paths {
            self.progress.step(&format!("  {} ↔ {}: {} ms one way", path.a, path.b, path.one_way_ms));
        }
        let (clients, names) = (self.regions.connect().await?, &self.names);
        let flights: u64 = shares.iter().map(Share::flights_count).sum();
        let mut sessions = Vec::new();
        for (client, name) in clients.iter().zip(names) {
            sessions.push(client.session().await.map_err(|error| sdk_error(name, &error))?);
        }
        let airports: Vec<Vec<String>> = shares.iter().map(Share::airports).collect();
        for (name, airports) in names.iter().zip(&airports) {
            self.progress.step(&format!("  {name} writes the flights of {}", airports.join(" and ")));
        }
        self.progress.step(&format!(
            "replaying {flights} flights in {:.0} s; after {:.1} s {} is cut off for {:.0} s",
            self.seconds,
            self.seconds * CUT_AT,
            names.last().expect("there are at least two regions"),
            self.cut_seconds
        ));
        let mut played = self.replay(shares, &clients, &sessions).await?;
        let expected = expectations(oracle, names, &mut played);
        self.progress.step("waiting until the last write is everywhere, then comparing every key");
        played.failures.extend(self.barriers(&clients, tokens(&sessions)).await?);
        let (digests_equal, digests) = self.await_equal_digests().await?;
        let mut compared = Vec::new();
        for (name, client) in names.iter().zip(&clients) {
            compared.push(compare(name, client, &expected).await?);
        }
        for client in &clients {
            client.close().await;
        }
        let Played { replays, probes, lags, cut, failures } = played;
        let signals = replays.iter().map(|replayed| replayed.signals_count).sum();
        let regions = names
            .iter()
            .cloned()
            .zip(airports)
            .zip(replays.iter().zip(&probes))
            .zip(lags.into_iter().zip(compared))
            .map(|(((name, airports), (replayed, probed)), (lag, compared))| {
                region_outcome(name, airports, replayed, probed, lag, compared)
            });
        let outcome = Outcome {
            schema: "tombolo.demo/v1",
            pass: false,
            commit: commit(),
            machine: Machine::read(),
            paths: self.paths.clone(),
            flights,
            signals,
            keys: expected.keys_count(),
            cut,
            digests_equal,
            digests,
            regions: regions.collect(),
            failures,
        };
        Ok(outcome.judged())
    }

    /// Starts all writers, cuts the last region off and lets it back while they write.
    async fn replay(
        &self,
        shares: Vec<Share>,
        clients: &[Client],
        sessions: &[Session],
    ) -> Result<Played, CliError> {
        let names = &self.names;
        let (phase, phases) = watch::channel(Phase::Before);
        let lags = Lags::new(names.len());
        let row = |(name, share): (&String, &Share)| Row {
            name: name.clone(),
            flights_count: share.flights_count(),
            done: share.done.clone(),
        };
        let rows = names.iter().zip(&shares).map(row).collect();
        let shown = tokio::spawn(self.progress.clone().watch(rows, lags.clone(), phases.clone()));
        let looked = tokio::spawn(lags.clone().watch(self.regions.doors().clone(), phases.clone()));
        let probes: Vec<JoinHandle<Probed>> = (0..names.len())
            .map(|at| {
                let others = clients.iter().enumerate().filter(|(other, _)| *other != at);
                let probe = Probe {
                    key: probe_key(&names[at]),
                    session: sessions[at].clone(),
                    others: others.map(|(_, client)| client.clone()).collect(),
                    phase: phases.clone(),
                };
                tokio::spawn(probe.run())
            })
            .collect();
        let (start, duration) = (Instant::now(), Duration::from_secs_f64(self.seconds));
        let replays: Vec<JoinHandle<Replayed>> = shares
            .into_iter()
            .zip(sessions)
            .map(|(share, session)| tokio::spawn(share.replay(session.clone(), start, duration)))
            .collect();
        let (cut, failures) = self.cut_and_heal(start, &phase, clients, sessions).await?;
        let replays = joined(replays).await?;
        // Nobody has stopped looking yet, so there is someone to tell.
        phase.send_replace(Phase::Over);
        let probes = joined(probes).await?;
        joined(vec![shown, looked]).await?;
        Ok(Played { replays, probes, lags: lags.seen(), cut, failures })
    }

    async fn cut_and_heal(
        &self,
        start: Instant,
        phase: &watch::Sender<Phase>,
        clients: &[Client],
        sessions: &[Session],
    ) -> Result<(Cut, Vec<String>), CliError> {
        let names = &self.names;
        let name = names.last().expect("there are at least two regions");
        let relay = self.relay();
        tokio::time::sleep_until((start + Duration::from_secs_f64(self.seconds * CUT_AT)).into()).await;
        phase.send_replace(Phase::Cut);
        relay.isolate(name).map_err(|error| cluster_error(error.into()))?;
        let cut = Instant::now();
        self.progress.step(&format!("✂ {name} is cut off; every region goes on writing"));
        tokio::time::sleep(Duration::from_secs_f64(self.cut_seconds)).await;
        let tokens = tokens(sessions);
        let seconds = cut.elapsed().as_secs_f64();
        phase.send_replace(Phase::Healing);
        relay.heal_all();
        let healed = Instant::now();
        let failures = self.barriers(clients, tokens).await?;
        let heal_seconds = failures.is_empty().then(|| healed.elapsed().as_secs_f64());
        phase.send_replace(Phase::Healed);
        self.progress.step(&heal_seconds.map_or_else(
            || "the links are back; not all that was written meanwhile has arrived in time".to_owned(),
            |after| {
                format!("the links are back; all that was written meanwhile is everywhere after {after:.2} s")
            },
        ));
        Ok((Cut { region: name.clone(), seconds, heal_seconds }, failures))
    }

    /// Waits until each region's token is everywhere, all at once; says who is late.
    async fn barriers(&self, clients: &[Client], tokens: Vec<Token>) -> Result<Vec<String>, CliError> {
        let waits = clients.iter().zip(tokens).zip(&self.names).map(|((client, token), name)| {
            let (client, name) = (client.clone(), name.clone());
            tokio::spawn(async move { barrier(&name, &client, &token).await })
        });
        let mut late = Vec::new();
        for waited in joined(waits.collect()).await? {
            late.extend(waited?);
        }
        Ok(late)
    }

    fn relay(&self) -> &Relay {
        self.regions.relay().expect("the demo's regions are started with links")
    }

    async fn await_equal_digests(&self) -> Result<(bool, Option<String>), CliError> {
        let start = Instant::now();
        loop {
            match agreement(&self.regions.digests().await?) {
                Agreement::Equal => return Ok((true, None)),
                Agreement::Broken(text) => return Ok((false, Some(text))),
                Agreement::Behind(text) if start.elapsed() > BARRIER_TIMEOUT => {
                    return Ok((false, Some(text)));
                }
                Agreement::Behind(_) => tokio::time::sleep(DIGEST_EVERY).await,
            }
        }
    }
}

/// All that each session has written so far.
fn tokens(sessions: &[Session]) -> Vec<Token> {
    sessions.iter().map(Session::token).collect()
}

/// Waits until a token is everywhere; says who is late if it is not in time.
async fn barrier(name: &str, client: &Client, token: &Token) -> Result<Option<String>, CliError> {
    let awaited =
        client.wait(token, Scope::All, BARRIER_TIMEOUT).await.map_err(|error| sdk_error(name, &error))?;
    let late = || {
        let laggard = |late: &Laggard| format!("{} ({}, {} ops)", late.region, late.reason, late.behind_ops);
        awaited.laggards.iter().map(laggard).collect::<Vec<_>>().join(", ")
    };
    Ok((!awaited.reached).then(|| format!("the writes of {name} are not everywhere: {}", late())))
}

/// What all regions must hold: the file's sums, the winners among the sets, and the probes.
fn expectations(mut oracle: Oracle, names: &[String], played: &mut Played) -> Oracle {
    for (name, (replayed, probed)) in names.iter().zip(played.replays.iter_mut().zip(&played.probes)) {
        oracle.merge(std::mem::take(&mut replayed.oracle));
        oracle.record_add(probe_key(name), probed.count);
        let probe = probed.failure.iter().map(|failure| format!("probe: {failure}"));
        let told = replayed.failures.iter().cloned().chain(probe);
        played.failures.extend(told.take(FAILURES_MAX).map(|failure| format!("{name}: {failure}")));
    }
    oracle
}

fn region_outcome(
    region: String,
    airports: Vec<String>,
    replayed: &Replayed,
    probed: &Probed,
    lag_seconds: Lag,
    compared: Compared,
) -> RegionOutcome {
    RegionOutcome {
        region,
        airports,
        flights: replayed.flights_count,
        signals: replayed.signals_count,
        failed: replayed.failures_count + probed.failures_count,
        ack_ms: replayed.acks.summary(),
        visible_ms: probed.visible.summary(),
        lag_seconds,
        flights_counted: compared.flights_counted,
        differences_count: compared.differences.len(),
        differences: compared.differences,
    }
}

fn probe_key(region: &str) -> String {
    format!("probe:{region}")
}

async fn joined<T>(tasks: Vec<JoinHandle<T>>) -> Result<Vec<T>, CliError> {
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.map_err(|error| CliError::new(Exit::Other, error.to_string()))?);
    }
    Ok(results)
}
