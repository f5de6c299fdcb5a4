//! Quarantine: where damaged files go. Nothing is removed from it here; [`salvage`] reads what is still whole.

use tombolo_causality::LogId;
use tombolo_codec::Batch;

use crate::disk::{Disk, DiskError, list_if_there, parent};
use crate::error::WalError;
use crate::log::{KnownEnd, WalSettings};
use crate::scan::SegmentScan;
use crate::segment::{QUARANTINE_DIR, quarantine_prefix};

const SCAN_WINDOW_BYTES: usize = 4 * 1_024 * 1_024;

/// Moves a file to quarantine under `name`, or that name with a number behind it; the path it has there.
pub(crate) fn quarantine<D: Disk>(disk: &D, path: &str, name: &str) -> Result<String, DiskError> {
    disk.create_dir(QUARANTINE_DIR)?;
    disk.sync_dir(parent(QUARANTINE_DIR))?;
    let taken = disk.list(QUARANTINE_DIR)?;
    let is_free = |name: &String| taken.binary_search(name).is_err();
    let numbered = (1..=taken.len()).map(|number| format!("{name}.{number}"));
    let name = std::iter::once(name.to_owned())
        .chain(numbered)
        .find(is_free)
        .expect("one more name than there are files is free");
    let to = format!("{QUARANTINE_DIR}/{name}");
    disk.rename(path, &to)?;
    // The new name first: a cut in between may show the file twice, never not at all.
    disk.sync_dir(QUARANTINE_DIR)?;
    disk.sync_dir(parent(path))?;
    Ok(to)
}

/// The batches that follow `end` in the quarantined files of a log: whole ones behind a gap that peers have filled.
pub(crate) fn salvage<D: Disk>(
    disk: &D,
    settings: WalSettings,
    log: LogId,
    mut end: KnownEnd,
    bytes_max: usize,
) -> Result<Vec<Batch>, WalError> {
    let prefix = quarantine_prefix(log);
    let names = list_if_there(disk, QUARANTINE_DIR)?;
    let mut batches = Vec::new();
    let mut left = bytes_max;
    for name in names.iter().filter(|name| name.starts_with(&prefix)) {
        let mut scan = SegmentScan::open(disk, &format!("{QUARANTINE_DIR}/{name}"), SCAN_WINDOW_BYTES)?;
        let mut at = 0;
        while let Some((found_at, batch)) = scan.search(at, settings.cluster, log, end.seq.next()) {
            at = found_at + batch.bytes().len() as u64;
            let header = batch.header();
            if header.seq == end.seq.next() && end.digest.is_some_and(|digest| digest == header.previous) {
                if left == 0 {
                    return Ok(batches);
                }
                left = left.saturating_sub(batch.bytes().len());
                end = KnownEnd::after(&batch);
                batches.push(batch);
            }
        }
    }
    Ok(batches)
}
