//! A look at a data directory that changes nothing, for `tombolo wal inspect`.
//!
//! Start at [`logs`], then [`log`].

use tombolo_causality::{LogId, Seq};
use tombolo_codec::Batch;

use crate::disk::{Disk, list_if_there};
use crate::error::WalError;
use crate::log::{KnownEnd, WalSettings};
use crate::recovery::{Damage, Survey};
use crate::segment::{
    QUARANTINE_DIR, SHARDS_DIR, log_dir, parse_log_name, parse_segment_name, parse_shard_name, segment_path,
    shard_dir,
};

/// One segment as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedSegment {
    /// Its file.
    pub path: String,
    /// Its length, with zeros behind its last batch.
    pub file_bytes: u64,
    /// Whether its header is the one its name asks for.
    pub has_header: bool,
    /// First seq and bytes from–to of each run of consecutive batches in it; one run if nothing is damaged.
    pub runs: Vec<(Seq, u64, u64)>,
}

/// One log as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedLog {
    /// Which.
    pub log: LogId,
    /// Its last batch before any gap.
    pub end: KnownEnd,
    /// Its files, ascending.
    pub segments: Vec<InspectedSegment>,
    /// What recovery would find, were there no checkpoint and no other log that seals this one.
    pub damage: Vec<Damage>,
}

/// Every log in the directory, sorted.
///
/// Errors: the disk's.
pub fn logs<D: Disk>(disk: &D) -> Result<Vec<LogId>, WalError> {
    let mut logs = Vec::new();
    for shard in list_if_there(disk, SHARDS_DIR)?.iter().filter_map(|name| parse_shard_name(name)) {
        let names = disk.list(&shard_dir(shard))?;
        logs.extend(names.iter().filter_map(|name| parse_log_name(shard, name)));
    }
    Ok(logs)
}

/// Paths of all quarantined files.
///
/// Errors: the disk's.
pub fn quarantined<D: Disk>(disk: &D) -> Result<Vec<String>, WalError> {
    let names = list_if_there(disk, QUARANTINE_DIR)?;
    Ok(names.into_iter().map(|name| format!("{QUARANTINE_DIR}/{name}")).collect())
}

/// One log; `each` is given its batches up to the first gap, in order. What a prune has removed is no gap.
///
/// Errors: [`WalError::WrongCluster`] or the disk's.
pub fn log<D: Disk>(
    disk: &D,
    settings: WalSettings,
    log: LogId,
    each: &mut dyn FnMut(Batch),
) -> Result<InspectedLog, WalError> {
    let names = list_if_there(disk, &log_dir(log))?;
    let first = names.iter().filter_map(|name| parse_segment_name(name)).min();
    let known = match first {
        Some(first) if first > Seq(1) => KnownEnd { seq: Seq(first.0 - 1), digest: None, ..KnownEnd::START },
        _ => KnownEnd::START,
    };
    let survey = Survey::run(disk, settings.cluster, log, known, each)?;
    let segments = survey.segments.iter().map(|segment| InspectedSegment {
        path: segment_path(log, segment.first),
        file_bytes: segment.file_bytes,
        has_header: segment.has_header,
        runs: segment.runs.iter().map(|run| (run.first, run.range.0, run.range.1)).collect(),
    });
    Ok(InspectedLog { log, end: survey.end, segments: segments.collect(), damage: survey.damage(settings) })
}
