//! `bench heal --ops`: the same keys written on both sides of a cut, and how soon both sides hold the same again.
//!
//! Two regions hold the cells; in each round the link is cut, each side writes half of the ops, the link comes back, and
//! the clock runs from the last look at which the two were not connected until their digests are equal. With `--mode
//! difference` neither side keeps its log for the other, so that states are compared instead of batches sent: retention
//! is none, and after its ops each side rewrites a key of every shard until the ops are out of memory too. Whether every
//! shard was healed like that is read from the daemons' logs.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::json;
use tombolo_causality::{Router, ShardId, TenantId};
use tombolo_sdk::{Session, Writer};
use tombolo_testbed::cluster::{Agreement, ClusterOptions, agreement};
use tombolo_testbed::percentiles::Latencies;
use tombolo_testbed::relay::Relay;
use tombolo_testbed::report::{BENCH_SCHEMA, Report};

use super::super::Measured;
use super::super::meter::Meter;
use super::Arguments;
use crate::error::{CliError, Exit};
use crate::regions::{Regions, cluster_error, sdk_error};

/// From one look at the digests to the next.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long anything may take that is waited for.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// What a counter's change is counted as, beside its key.
const DELTA_BYTES: usize = 8;
/// What a register's change is counted as, beside its key and value: its stamp, which every copy of a write carries.
const STAMP_BYTES: usize = 8 + 2 + 16;
/// What a daemon logs when it has taken a difference.
const INSTALLED: &str = "installed a difference";
/// In which segments logs lie that are to be pruned: their newest one always stays.
const SEGMENT_BYTES: u64 = 64 << 10;
/// Of its newest batches a region keeps 1 MiB in memory for each shard: so many values of such a size are more.
const FILLERS_COUNT: usize = 6;
const FILLER_BYTES: usize = 240 << 10;
/// Fillers of one request.
const FILLERS_AT_ONCE: usize = 8;

/// How the two sides come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// By the batches that either side lacks.
    Resume,
    /// By the entries in which the states differ, as logs are not kept.
    Difference,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Difference => "difference",
        }
    }
}

/// What to start: two regions, which keep nothing for each other if states are to be compared.
pub(super) fn options(mut options: ClusterOptions, mode: Mode) -> ClusterOptions {
    options.regions.truncate(2);
    options.storage = vec!["checkpoint_interval_seconds = 0".to_owned()];
    if mode == Mode::Difference {
        options.storage.push("wal_retention_bytes = 0".to_owned());
        options.storage.push(format!("segment_bytes = {SEGMENT_BYTES}"));
    }
    options
}

fn key(cell: u32) -> String {
    let kind = if cell.is_multiple_of(2) { "c" } else { "r" };
    format!("bench:{kind}:{cell}")
}

/// Writes to cells, half of them counters; gives the bytes that changed.
async fn write(
    session: &Session,
    region: &str,
    cells: impl Iterator<Item = u32>,
    round: u32,
) -> Result<usize, CliError> {
    let refused = |error| sdk_error(region, &error);
    let (mut writer, mut bytes) = (session.writer(), 0);
    for cell in cells {
        let key = key(cell);
        bytes += key.len();
        if cell.is_multiple_of(2) {
            writer.add(&key, i64::from(round) + 1).await.map_err(refused)?;
            bytes += DELTA_BYTES;
        } else {
            let value = format!("{region:8.8}{round:8}{cell:8}");
            bytes += value.len() + STAMP_BYTES;
            writer.set(&key, value).await.map_err(refused)?;
        }
    }
    flush(&mut writer, region).await?;
    Ok(bytes)
}

async fn flush(writer: &mut Writer, region: &str) -> Result<(), CliError> {
    let report = writer.flush().await.map_err(|error| sdk_error(region, &error))?;
    if report.rejected_count + report.unknown > 0 {
        let text = format!("{region}: {} writes refused, {} unknown", report.rejected_count, report.unknown);
        return Err(CliError::new(Exit::CheckFailed, text));
    }
    Ok(())
}

/// Rewrites a key of every shard until what was written before is in no region's memory any more; gives the bytes that
/// changed in the end.
async fn fill(session: &Session, region: &str, shards_count: u16) -> Result<usize, CliError> {
    let router = Router::new(shards_count).map_err(|error| CliError::new(Exit::Other, error.to_string()))?;
    let in_shard = |shard: u16| {
        let keys = (0..).map(|at: u32| format!("bench:filler:{at}"));
        let mut keys = keys.filter(|key| router.shard(TenantId::DEFAULT, key.as_bytes()) == ShardId(shard));
        keys.next().expect("some key is in every shard")
    };
    let keys: Vec<String> = (0..shards_count).map(in_shard).collect();
    let mut writer = session.writer();
    for _ in 0..FILLERS_COUNT {
        for keys in keys.chunks(FILLERS_AT_ONCE) {
            for key in keys {
                let value = vec![b'f'; FILLER_BYTES];
                writer.set(key, value).await.map_err(|error| sdk_error(region, &error))?;
            }
            flush(&mut writer, region).await?;
        }
    }
    for key in &keys {
        writer.set(key, region).await.map_err(|error| sdk_error(region, &error))?;
    }
    flush(&mut writer, region).await?;
    Ok(keys.iter().map(|key| key.len() + region.len() + STAMP_BYTES).sum())
}

/// What the rounds came to.
#[derive(Default)]
struct Healed {
    heals: Latencies,
    shipped: u64,
    changed: usize,
    /// Shards that took a difference, over both sides.
    differences: usize,
    wrong: Vec<String>,
}

/// Loads the cells, then cuts, writes and heals, round by round.
pub(super) async fn measure(
    arguments: &Arguments,
    ops: u32,
    relay: &Relay,
    regions: &Regions,
) -> Result<Measured, CliError> {
    let (names, clients) = (regions.names(), regions.connect().await?);
    let mut sessions = Vec::new();
    for (name, client) in names.iter().zip(&clients) {
        sessions.push(client.session().await.map_err(|error| sdk_error(name, &error))?);
    }
    write(&sessions[0], &names[0], 0..arguments.cells, 0).await?;
    await_level(regions).await?;
    let meter = Meter::start(regions).await;
    let mut healed = Healed::default();
    for round in 1..=u32::from(arguments.rounds) {
        one_round(arguments, (ops, round), relay, regions, &sessions, &mut healed).await?;
    }
    let signals = u64::from(ops) * u64::from(arguments.rounds);
    let durability = regions.statuses().await?.remove(0).durability;
    let mut report = Report::new(BENCH_SCHEMA, "heal", durability);
    let elapsed = meter.started().elapsed();
    meter.stop(regions, signals, elapsed, &mut report).await;
    let ratio = healed.shipped as f64 / healed.changed.max(1) as f64;
    let p50_ms = healed.heals.p(50.0).as_secs_f64() * 1_000.0;
    report.set("mode", arguments.mode.name());
    report.set("ops", ops);
    report.set("cells", arguments.cells);
    report.set("rounds", arguments.rounds);
    report.set("heal_ms", healed.heals.summary());
    report.set("bytes_shipped", healed.shipped / u64::from(arguments.rounds));
    report.set("bytes_changed", healed.changed as u64 / u64::from(arguments.rounds));
    report.set("shipped_ratio", ratio);
    report.set("differences", healed.differences / usize::from(arguments.rounds));
    let mut wrong = healed.wrong;
    if let Some(bound) = arguments.assert_heal_ms.filter(|bound| p50_ms > *bound) {
        wrong.push(format!("half of the heals took {p50_ms:.1} ms or more, above {bound} ms"));
    }
    if let Some(bound) = arguments.assert_shipped_ratio.filter(|bound| ratio > *bound) {
        wrong.push(format!("{ratio:.2} bytes were shipped for each that changed, above {bound}"));
    }
    for client in &clients {
        client.close().await;
    }
    Ok(Measured { report, wrong })
}

async fn one_round(
    arguments: &Arguments,
    (ops, round): (u32, u32),
    relay: &Relay,
    regions: &Regions,
    sessions: &[Session],
    healed: &mut Healed,
) -> Result<(), CliError> {
    let names = regions.names();
    relay.isolate(&names[1]).map_err(|error| cluster_error(error.into()))?;
    await_state(regions, true).await?;
    // The same cells on both sides, others in each round.
    let per_side = ops / 2;
    // Even, so that every other cell is a counter.
    let stride = (arguments.cells / per_side.max(1)).max(2) & !1;
    let cell = |at: u32| (at * stride + at % 2 + round * 2) % arguments.cells;
    let shards_count = regions.digests().await?.first().map_or(0, |(_, shards)| shards.len());
    for (session, name) in sessions.iter().zip(&names) {
        healed.changed += write(session, name, (0..per_side).map(cell), round).await?;
        if arguments.mode == Mode::Difference {
            healed.changed += fill(session, name, u16::try_from(shards_count).unwrap_or(0)).await?;
        }
    }
    if matches!(agreement(&regions.digests().await?), Agreement::Equal) {
        healed.wrong.push("the cut did not hold: both sides have the same before the heal".to_owned());
    }
    if arguments.mode == Mode::Difference {
        // Only what the checkpoint before the last covers goes.
        regions.checkpoint().await?;
        regions.checkpoint().await?;
    }
    let (installed, bytes) = (regions.logged_count(INSTALLED), relay.bytes_total());
    relay.heal_all();
    let connected = await_state(regions, false).await?;
    await_level(regions).await?;
    healed.heals.record(connected.elapsed());
    healed.shipped += relay.bytes_total() - bytes;
    let differences = regions.logged_count(INSTALLED) - installed;
    healed.differences += differences;
    let of_all = names.len() * shards_count;
    let is_as_asked = match arguments.mode {
        Mode::Resume => differences == 0,
        Mode::Difference => differences >= of_all,
    };
    if !is_as_asked {
        let text = format!("round {round}: {differences} of {of_all} shards were healed by a difference");
        healed.wrong.push(text);
    }
    Ok(())
}

/// Waits until every region finds a peer unreachable, or none does; gives when that was not yet seen to be so.
async fn await_state(regions: &Regions, is_cut: bool) -> Result<Instant, CliError> {
    let start = Instant::now();
    let mut last = start;
    loop {
        let statuses = regions.statuses().await?;
        let is_cut_off =
            |status: &crate::client::Status| status.peers.iter().any(|peer| peer.state == "unreachable");
        if statuses.iter().all(|status| is_cut_off(status) == is_cut) {
            return Ok(last);
        }
        if start.elapsed() > WAIT_MAX {
            return Err(CliError::new(Exit::CheckFailed, "the link neither ended nor came back"));
        }
        last = Instant::now();
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn await_level(regions: &Regions) -> Result<(), CliError> {
    let start = Instant::now();
    loop {
        match agreement(&regions.digests().await?) {
            Agreement::Equal => return Ok(()),
            Agreement::Behind(_) if start.elapsed() < WAIT_MAX => tokio::time::sleep(LOOK_EVERY).await,
            Agreement::Behind(text) | Agreement::Broken(text) => {
                return Err(CliError::new(Exit::CheckFailed, text));
            }
        }
    }
}

/// The line for people.
pub(super) fn summary(report: &Report) -> String {
    let number = |name: &str| report.fields.get(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    let heal = report.fields.get("heal_ms").cloned().unwrap_or_else(|| json!({}));
    format!(
        "{:.0} divergent ops among {:.0} cells, healed by {}: {:.1} ms from connected to equal digests (greatest {:.1} ms)\n  \
         {:.0} bytes shipped for {:.0} changed: {:.2} for one",
        number("ops"),
        number("cells"),
        report.fields.get("mode").and_then(serde_json::Value::as_str).unwrap_or("?"),
        heal["p50"].as_f64().unwrap_or(0.0),
        heal["max"].as_f64().unwrap_or(0.0),
        number("bytes_shipped"),
        number("bytes_changed"),
        number("shipped_ratio"),
    )
}
