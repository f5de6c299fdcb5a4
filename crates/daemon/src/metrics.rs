//! What the daemon counts, in the OpenMetrics text format.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tombolo_gateway::DoorStats;
use tombolo_gateway::status::ShardLag;
use tombolo_replica::LinkState;

/// One other region.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PeerLabel {
    pub(crate) region: String,
}

/// One state of the link to another region.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LinkLabel {
    region: String,
    state: &'static str,
}

/// One shard, towards another region.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabel {
    region: String,
    shard: u16,
}

type PeerGauge = Family<PeerLabel, Gauge<f64, AtomicU64>>;
type PeerCounter = Family<PeerLabel, Counter>;
type PeerHistogram = Family<PeerLabel, Histogram, fn() -> Histogram>;

/// 50 µs to 26 s, doubling.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 20))
}

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) signals: Counter,
    pub(crate) signals_applied: PeerCounter,
    pub(crate) ack_seconds: Histogram,
    pub(crate) fsync_seconds: Histogram,
    pub(crate) apply_age_seconds: PeerHistogram,
    pub(crate) lag_seconds: PeerGauge,
    pub(crate) behind_ops: PeerGauge,
    link_state: Family<LinkLabel, Gauge>,
    shard_lag_seconds: Family<ShardLabel, Gauge<f64, AtomicU64>>,
    shard_behind_ops: Family<ShardLabel, Gauge>,
    pub(crate) waiters: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) conditionals: Gauge,
    pub(crate) tombstones: Gauge,
    pub(crate) batches_shipped: PeerCounter,
    pub(crate) bytes_shipped: PeerCounter,
    pub(crate) reconnects: PeerCounter,
    pub(crate) differences_fetched: Counter,
    pub(crate) differences_installed: Counter,
    pub(crate) entries_fetched: PeerCounter,
    pub(crate) entries_bytes_fetched: PeerCounter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("tombolo");
        let r = &mut registry;
        let (signals, signals_applied) = (Counter::default(), PeerCounter::default());
        let (ack_seconds, fsync_seconds) = (latencies(), latencies());
        let apply_age_seconds = PeerHistogram::new_with_constructor(latencies);
        let (lag_seconds, behind_ops) = (PeerGauge::default(), PeerGauge::default());
        let (sessions, conditionals, tombstones) = (Gauge::default(), Gauge::default(), Gauge::default());
        let (batches_shipped, bytes_shipped) = (PeerCounter::default(), PeerCounter::default());
        let reconnects = PeerCounter::default();
        let (differences_fetched, differences_installed) = (Counter::default(), Counter::default());
        let (entries_fetched, entries_bytes_fetched) = (PeerCounter::default(), PeerCounter::default());
        r.register("signals", "Ops acknowledged here", signals.clone());
        r.register("signals_applied", "Ops of another region applied here", signals_applied.clone());
        r.register_with_unit(
            "ack",
            "From a write's arrival to its answer",
            Unit::Seconds,
            ack_seconds.clone(),
        );
        r.register_with_unit(
            "fsync",
            "One sync of a journal or a segment",
            Unit::Seconds,
            fsync_seconds.clone(),
        );
        let help = "From a batch being closed in its region, by that region's clock, to being visible here";
        r.register_with_unit("apply_age", help, Unit::Seconds, apply_age_seconds.clone());
        let help = "Age of the oldest write of this region that the other has not applied; 0 if it has all";
        r.register_with_unit("lag", help, Unit::Seconds, lag_seconds.clone());
        r.register("behind_ops", "Ops of this region that the other has not applied", behind_ops.clone());
        let (link_state, shard_lag_seconds) = (Family::default(), Family::default());
        let (shard_behind_ops, waiters) = (Family::default(), Gauge::default());
        let help = "1 for the state that the link to the other region is in, 0 for the others";
        r.register("link_state", help, Family::clone(&link_state));
        let help =
            "As tombolo_lag_seconds, of one shard; shards in which the other region has all are left out";
        r.register_with_unit("shard_lag", help, Unit::Seconds, Family::clone(&shard_lag_seconds));
        let help =
            "As tombolo_behind_ops, of one shard; shards in which the other region has all are left out";
        r.register("shard_behind_ops", help, Family::clone(&shard_behind_ops));
        let help = "Callers that wait for a barrier or for a read after a token";
        r.register("waiters", help, waiters.clone());
        let help = "Sessions remembered, over all shards; one goes when its home has expired it and every member \
            holds that, so not while a member is away or its home is not whole";
        r.register("sessions", help, sessions.clone());
        let help = "Requests logged elsewhere than at their session's home and not covered by its log, over all \
            shards; they wait for that home, so they do not fall while it is away or not whole";
        r.register("conditionals", help, conditionals.clone());
        let help = "Deleted registers that are remembered, over all shards; one goes when it has left the window \
            and every member holds it, so not while a member is away";
        r.register("tombstones", help, tombstones.clone());
        r.register("batches_shipped", "Batches sent to the other region", batches_shipped.clone());
        r.register("bytes_shipped", "Bytes of batches sent to the other region", bytes_shipped.clone());
        r.register("link_reconnects", "How often the link to the other region came up", reconnects.clone());
        let help = "Differences to another region's state that have come, of what nobody keeps as batches";
        r.register("differences_fetched", help, differences_fetched.clone());
        let help = "Differences to another region's state that were made durable and installed";
        r.register("differences_installed", help, differences_installed.clone());
        let help = "Entries of the other region's state that came, of differences and verifications";
        r.register("entries_fetched", help, entries_fetched.clone());
        let help = "Bytes of messages with entries of the other region's state that came";
        r.register("entries_bytes_fetched", help, entries_bytes_fetched.clone());
        Self {
            registry,
            differences_fetched,
            differences_installed,
            entries_fetched,
            entries_bytes_fetched,
            signals,
            signals_applied,
            ack_seconds,
            fsync_seconds,
            apply_age_seconds,
            lag_seconds,
            behind_ops,
            link_state,
            shard_lag_seconds,
            shard_behind_ops,
            waiters,
            sessions,
            conditionals,
            tombstones,
            batches_shipped,
            bytes_shipped,
            reconnects,
        }
    }

    pub(crate) fn set_link_state(&self, region: &str, state: LinkState) {
        for &each in LinkState::ALL {
            let label = LinkLabel { region: region.to_owned(), state: each.name() };
            self.link_state.get_or_create(&label).set(i64::from(each == state));
        }
    }

    /// The shards in which a region lacks something.
    pub(crate) fn set_shard_lags(&self, region: &str, shards: &[ShardLag]) {
        for lag in shards {
            let label = ShardLabel { region: region.to_owned(), shard: lag.shard };
            self.shard_lag_seconds.get_or_create(&label).set(lag.lag_seconds);
            let ops = i64::try_from(lag.behind_ops).unwrap_or(i64::MAX);
            self.shard_behind_ops.get_or_create(&label).set(ops);
        }
    }

    /// Before the shards of all regions are said anew.
    pub(crate) fn clear_shard_lags(&self) {
        self.shard_lag_seconds.clear();
        self.shard_behind_ops.clear();
    }

    /// All of it as text, with what the doors counted.
    pub(crate) fn render(&self, doors: &[(&'static str, Arc<DoorStats>)]) -> String {
        let mut out = String::new();
        text::encode_registry(&mut out, &self.registry).expect("writing into a string cannot fail");
        let rows = |out: &mut String, name: &str, kind: &str, help: &str, row: &dyn Fn(&DoorStats) -> u64| {
            let suffix = if kind == "counter" { "_total" } else { "" };
            // Writing into a string cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}");
            for (door, stats) in doors {
                let _ = writeln!(out, "{name}{suffix}{{door=\"{door}\"}} {}", row(stats));
            }
        };
        rows(&mut out, "tombolo_door_requests", "counter", "Requests taken in", &DoorStats::requests);
        rows(&mut out, "tombolo_door_connections", "gauge", "Open connections", &DoorStats::connections);
        let _ = writeln!(
            out,
            "# HELP tombolo_door_rejects Requests refused.\n# TYPE tombolo_door_rejects counter"
        );
        for (door, stats) in doors {
            for (code, count) in stats.rejects().filter(|(_, count)| *count > 0) {
                let code = code.name();
                let _ =
                    writeln!(out, "tombolo_door_rejects_total{{door=\"{door}\",code=\"{code}\"}} {count}");
            }
        }
        let _ = writeln!(out, "# EOF");
        out
    }
}
