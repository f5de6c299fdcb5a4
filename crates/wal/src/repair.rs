//! Repair: what recovery does to the files of one log, in steps that a crash may interrupt anywhere.
//!
//! A segment with damage in it is replaced by fresh ones that hold its usable runs: these are written beside it,
//! named after both, and synced; then the damaged file goes to quarantine; then the fresh ones take their names, the
//! one that takes the damaged file's name last. So its absence says that the fresh ones are complete. Never removes a
//! batch that verifies. Start at [`run`].

use tombolo_causality::{LogId, Seq};

use crate::disk::{Disk, DiskError, list_if_there, parent, remove_if_there};
use crate::error::WalError;
use crate::index::SegmentIndex;
use crate::log::{WalSettings, cut};
use crate::quarantine::quarantine;
use crate::recovery::{Damage, DamageKind, Run, Survey, SurveyedSegment};
use crate::segment::{
    SEGMENT_HEADER_BYTES, SegmentHeader, log_dir, parse_segment_name, quarantine_name, segment_name,
    segment_path,
};

const FRESH_SUFFIX: &str = ".new";
const COPY_BYTES: usize = 1_024 * 1_024;

/// Repairs the segments of a survey, and notes in `damage` where files went.
pub(crate) fn run<D: Disk>(
    disk: &D,
    settings: WalSettings,
    log: LogId,
    survey: &Survey,
    damage: &mut [Damage],
) -> Result<(), WalError> {
    for (at, segment) in survey.segments.iter().enumerate() {
        let path = segment_path(log, segment.first);
        let mut here = survey.breaks.iter().filter(|found| found.segment == at);
        let mut kinds = damage.iter().filter(|one| one.path == path).map(|one| one.kind).peekable();
        let is_torn = kinds.peek().is_some() && kinds.all(|kind| kind == DamageKind::Torn);
        if is_torn && segment.runs.is_empty() && !segment.has_header {
            disk.remove(&path)?;
            disk.sync_dir(&log_dir(log))?;
        } else if is_torn && segment.has_header {
            let end = segment.runs.last().map_or(SEGMENT_HEADER_BYTES as u64, |run| run.range.1);
            let file = disk.open(&path)?;
            cut(disk, &file, (end, segment.file_bytes))?;
        } else if here.next().is_some() || !segment.is_usable {
            let quarantined = replace(disk, settings, log, segment)?;
            for one in damage.iter_mut().filter(|one| one.path == path) {
                one.quarantined = Some(quarantined.clone());
            }
        }
    }
    Ok(())
}

/// Puts fresh segments with the usable runs in the place of a damaged one; where that one went.
fn replace<D: Disk>(
    disk: &D,
    settings: WalSettings,
    log: LogId,
    segment: &SurveyedSegment,
) -> Result<String, WalError> {
    let dir = log_dir(log);
    let path = segment_path(log, segment.first);
    let damaged = disk.open(&path)?;
    for run in segment.runs.iter().filter(|run| run.is_usable) {
        let header = SegmentHeader { cluster: settings.cluster, log, first: run.first };
        write_fresh(disk, &damaged, &format!("{dir}/{}", fresh_name(segment.first, run.first)), header, run)?;
    }
    disk.sync_dir(&dir)?;
    let quarantined = quarantine(disk, &path, &quarantine_name(log, &segment_name(segment.first)))?;
    finish(disk, log)?;
    Ok(quarantined)
}

fn write_fresh<D: Disk>(
    disk: &D,
    damaged: &D::File,
    path: &str,
    header: SegmentHeader,
    run: &Run,
) -> Result<(), DiskError> {
    remove_if_there(disk, path)?;
    let file = disk.create(path)?;
    disk.write_at(&file, 0, &header.encode())?;
    copy(disk, damaged, run.range, &file, SEGMENT_HEADER_BYTES as u64)?;
    disk.sync_data(&file)
}

fn copy<D: Disk>(
    disk: &D,
    from: &D::File,
    (mut at, until): (u64, u64),
    to: &D::File,
    mut to_at: u64,
) -> Result<(), DiskError> {
    while at < until {
        let wanted = usize::try_from(until - at).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
        let bytes = disk.read_at(from, at, wanted)?;
        if bytes.is_empty() {
            let cause = "the file is shorter than it was".to_owned();
            return Err(DiskError::Io { path: "segment".to_owned(), operation: "read", cause });
        }
        disk.write_at(to, to_at, &bytes)?;
        at += bytes.len() as u64;
        to_at += bytes.len() as u64;
    }
    Ok(())
}

/// Finishes or undoes a repair that a crash interrupted.
pub(crate) fn finish<D: Disk>(disk: &D, log: LogId) -> Result<(), DiskError> {
    let dir = log_dir(log);
    let names = list_if_there(disk, &dir)?;
    let mut fresh: Vec<(Seq, Seq)> = names.iter().filter_map(|name| parse_fresh_name(name)).collect();
    // Greatest first: the one with the damaged file's own name comes last.
    fresh.sort_unstable_by(|one, other| other.cmp(one));
    let is_there = |first: Seq| names.iter().any(|name| parse_segment_name(name) == Some(first));
    for (of, first) in fresh {
        let beside = format!("{dir}/{}", fresh_name(of, first));
        if is_there(of) {
            disk.remove(&beside)?;
        } else {
            disk.rename(&beside, &segment_path(log, first))?;
        }
        disk.sync_dir(&dir)?;
    }
    Ok(())
}

/// Makes the tail durable whatever became of earlier syncs: writes again what no mark covers, and syncs it with its
/// name.
pub(crate) fn settle<D: Disk>(
    disk: &D,
    log: LogId,
    tail: Option<&SegmentIndex>,
    durable: Seq,
) -> Result<(), DiskError> {
    let Some(tail) = tail else { return Ok(()) };
    let dir = log_dir(log);
    let file = disk.open(&segment_path(log, tail.first))?;
    let from = if tail.first > durable { 0 } else { tail.mark_before(durable.next()).1 };
    copy(disk, &file, (from, tail.end), &file, from)?;
    disk.sync_data(&file)?;
    disk.sync_dir(&dir)?;
    disk.sync_dir(parent(&dir))
}

fn fresh_name(of: Seq, first: Seq) -> String {
    format!("{:020}-{:020}{FRESH_SUFFIX}", of.0, first.0)
}

fn parse_fresh_name(name: &str) -> Option<(Seq, Seq)> {
    let (of, first) = name.strip_suffix(FRESH_SUFFIX)?.split_once('-')?;
    Some((Seq(of.parse().ok()?), Seq(first.parse().ok()?)))
}
