//! The one JSON object a benchmark or acceptance run ends with.
//!
//! Holds what every profile reports and flattens what only one does beside it. Measures nothing itself. Start with
//! [`Report::new`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::machine::{Machine, commit};

/// The schema of a benchmark's report.
pub const BENCH_SCHEMA: &str = "tombolo.bench/v1";

/// A report: fields common to all, and those of its profile.
///
/// Fields that a run could not measure are `null`, never zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `tombolo.<what>/v1`.
    pub schema: String,
    /// Which load, such as `ingest`.
    pub profile: String,
    /// What was measured.
    pub commit: String,
    /// Where it was measured.
    pub machine: Machine,
    /// `sync`, `interval` or `async`.
    pub durability: String,
    /// Requests that were answered with an error.
    pub errors: u64,
    /// Requests that were not answered in time.
    pub timeouts: u64,
    /// CPU of all daemons per million signals.
    pub cpu_seconds_per_million: Option<f64>,
    /// Greatest resident memory of any one daemon.
    pub peak_rss_bytes: Option<u64>,
    /// Bytes between regions per signal.
    pub bytes_shipped_per_signal: Option<f64>,
    /// Bytes kept in data directories, of all regions together, per signal.
    pub bytes_on_disk_per_signal: Option<f64>,
    /// What only this profile reports.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Report {
    /// A report about this machine and commit, with nothing measured yet.
    #[must_use]
    pub fn new(schema: impl Into<String>, profile: impl Into<String>, durability: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            profile: profile.into(),
            commit: commit(),
            machine: Machine::read(),
            durability: durability.into(),
            errors: 0,
            timeouts: 0,
            cpu_seconds_per_million: None,
            peak_rss_bytes: None,
            bytes_shipped_per_signal: None,
            bytes_on_disk_per_signal: None,
            fields: Map::new(),
        }
    }

    /// Adds a field of the profile.
    ///
    /// Panics: if the value cannot be JSON, or the name is one of the common fields, which would stand there twice.
    pub fn set(&mut self, name: &str, value: impl Serialize) {
        let is_common = matches!(
            name,
            "schema" | "profile" | "commit" | "machine" | "durability" | "errors" | "timeouts"
        ) || matches!(
            name,
            "cpu_seconds_per_million"
                | "peak_rss_bytes"
                | "bytes_shipped_per_signal"
                | "bytes_on_disk_per_signal"
        );
        assert!(!is_common, "`{name}` is a common field");
        let value = serde_json::to_value(value).expect("a report's value has string keys and cannot fail");
        self.fields.insert(name.to_owned(), value);
    }

    /// As one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("a report has string keys and cannot fail")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::percentiles::Summary;

    fn report() -> Report {
        let mut report = Report::new(BENCH_SCHEMA, "ingest", "sync");
        report.set("signals_per_second", 1_234.5);
        report.set("ack_ms", Summary { p50: 0.5, p95: 1.0, p99: 2.0, max: 3.5 });
        report
    }

    #[test]
    fn profile_fields_stand_beside_the_common_ones() {
        let value: Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(value["schema"], "tombolo.bench/v1");
        assert_eq!(value["ack_ms"]["p99"], 2.0);
        assert_eq!(value["signals_per_second"], 1_234.5);
        assert_eq!(value["peak_rss_bytes"], Value::Null);
        assert!(value["machine"]["cores"].as_u64().unwrap() >= 1);
        assert!(value.get("fields").is_none());
    }

    #[test]
    fn a_report_reads_back_as_it_was_written() {
        let written = report();
        assert_eq!(serde_json::from_str::<Report>(&written.json()).unwrap(), written);
    }

    #[test]
    #[should_panic(expected = "common field")]
    fn a_common_field_cannot_be_set_twice() {
        report().set("errors", 1);
    }
}
