//! Findings: what an operator should know, each once, newest last, with one next command.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tombolo_gateway::status::Finding;
use tombolo_replica::Notice;

/// Findings kept; a flood of different ones drops the later.
const FINDINGS_MAX: usize = 64;

/// Every code that a region raises; `tombolo explain` has each in words.
pub const FINDING_CODES: &[&str] = &[
    "apply_error",
    "checkpoint_failed",
    "clock_ahead",
    "clock_skew",
    "damaged_cells",
    "data_loss",
    "difference_failed",
    "difference_unexplained",
    "foreign_log",
    "fork",
    "hello_refused",
    "inherited",
    "joining",
    "log_unreadable",
    "members_not_saved",
    "misplaced",
    "removed",
    "retention_passed",
    "rot",
    "storage_failed",
    "storage_full",
    "superseded",
    "token_ahead",
];

/// What was found since the process started.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<BTreeMap<String, Finding>>);

/// Severity and next command per code.
fn advice(code: &str) -> (&'static str, &'static str) {
    match code {
        "clock_ahead" | "token_ahead" => {
            ("warning", "check the time service of that region: chronyc tracking")
        }
        "inherited" | "joining" => ("info", "tombolo status"),
        "clock_skew" => ("error", "correct this machine's clock: chronyc makestep"),
        "storage_full" => ("error", "make room on the data directory's disk: df -h"),
        "storage_failed" => ("error", "check the disk (dmesg), then restart the daemon"),
        "rot" | "data_loss" => ("error", "tombolo wal inspect <data directory>"),
        "damaged_cells" => ("error", "tombolo verify --repair"),
        "difference_unexplained" => ("error", "tombolo verify"),
        "fork" | "apply_error" | "misplaced" | "foreign_log" => ("error", "tombolo status"),
        _ => ("warning", "tombolo status"),
    }
}

impl Findings {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Finding>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises a finding; the same code in the same place is logged once and keeps its latest text.
    pub(crate) fn raise(&self, place: &str, notice: &Notice) {
        debug_assert!(FINDING_CODES.contains(&notice.code), "{} is not among FINDING_CODES", notice.code);
        let (severity, next) = advice(notice.code);
        let mut findings = self.lock();
        let key = format!("{}/{place}", notice.code);
        if findings.len() >= FINDINGS_MAX && !findings.contains_key(&key) {
            return;
        }
        let finding = Finding {
            code: notice.code.to_owned(),
            severity: severity.to_owned(),
            text: format!("{place}: {}", notice.text),
            next: next.to_owned(),
        };
        if findings.insert(key, finding).is_none() {
            tracing::warn!(code = notice.code, place, "{}", notice.text);
        }
    }

    /// Takes a finding back that is over.
    pub(crate) fn clear(&self, code: &str, place: &str) {
        self.lock().remove(&format!("{code}/{place}"));
    }

    pub(crate) fn list(&self) -> Vec<Finding> {
        self.lock().values().cloned().collect()
    }
}
