//! What a load costs: CPU and memory of the daemons, bytes between them and on their disks.

use std::time::{Duration, Instant};

use tombolo_testbed::machine::Usage;
use tombolo_testbed::report::Report;

use crate::regions::Regions;

/// Bytes of batches sent to other regions, as each daemon counts them.
const BYTES_SHIPPED: &str = "tombolo_bytes_shipped_total";

/// What had been used when the load began.
pub(crate) struct Meter {
    start: Instant,
    daemons: Option<Vec<Usage>>,
    client: Option<Usage>,
    relay_cpu: Option<f64>,
    shipped: Option<f64>,
}

impl Meter {
    /// Reads all meters.
    pub(crate) async fn start(regions: &Regions) -> Self {
        Self {
            shipped: regions.metric_total(BYTES_SHIPPED).await,
            daemons: regions.usages(),
            client: Usage::of(std::process::id()).ok(),
            relay_cpu: regions.relay().and_then(tombolo_testbed::relay::Relay::cpu_seconds),
            start: Instant::now(),
        }
    }

    /// When the load began.
    pub(crate) const fn started(&self) -> Instant {
        self.start
    }

    /// Reads all meters again, and reports what `signals` cost in `elapsed`.
    pub(crate) async fn stop(self, regions: &Regions, signals: u64, elapsed: Duration, report: &mut Report) {
        let per_signal = |amount: f64| (signals > 0).then(|| amount / signals as f64);
        let daemons = self.daemons.zip(regions.usages());
        let used: Option<Vec<Usage>> = daemons.map(|(before, after)| {
            after.iter().zip(&before).map(|(after, before)| after.since(before)).collect()
        });
        let relay_cpu = regions.relay().and_then(tombolo_testbed::relay::Relay::cpu_seconds);
        let relay_cpu = self.relay_cpu.zip(relay_cpu).map_or(0.0, |(before, after)| after - before);
        let client = self.client.zip(Usage::of(std::process::id()).ok());
        let client_cpu = client.map(|(before, after)| after.since(&before).cpu_seconds - relay_cpu);
        if let Some(used) = &used {
            let cpu_seconds: f64 = used.iter().map(|usage| usage.cpu_seconds).sum();
            report.cpu_seconds_per_million = per_signal(cpu_seconds * 1e6);
            report.peak_rss_bytes = used.iter().map(|usage| usage.peak_rss_bytes).max();
            report.set("daemons_cores_used", cpu_seconds / elapsed.as_secs_f64());
            let written: Option<u64> = used.iter().map(|usage| usage.write_bytes).sum();
            report.set("bytes_written_per_signal", written.and_then(|bytes| per_signal(bytes as f64)));
        }
        report.set("client_cpu_seconds_per_million", client_cpu.and_then(|cpu| per_signal(cpu * 1e6)));
        let shipped = self.shipped.zip(regions.metric_total(BYTES_SHIPPED).await);
        report.bytes_shipped_per_signal = shipped.and_then(|(before, after)| per_signal(after - before));
        report.bytes_on_disk_per_signal = regions.data_bytes().and_then(|bytes| per_signal(bytes as f64));
    }
}
