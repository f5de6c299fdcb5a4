//! Disks that come back as they were, or do not come back: the data directory of a region that does not run.
//!
//! Starts and kills nothing.

use std::io;
use std::path::{Path, PathBuf};

use crate::bed::Bed;

fn data(bed: &Bed, region: &str) -> PathBuf {
    bed.dir().join("data").join(region)
}

fn kept(bed: &Bed, region: &str, name: &str) -> PathBuf {
    bed.dir().join("kept").join(region).join(name)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Keeps a region's disk as it is, under a name.
///
/// Panics: if it cannot be copied.
pub fn keep(bed: &Bed, region: &str, name: &str) {
    let kept = kept(bed, region, name);
    let kept_anew = std::fs::remove_dir_all(&kept).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    });
    kept_anew.and_then(|()| copy(&data(bed, region), &kept)).unwrap_or_else(|error| panic!("{error}"));
}

/// Puts a disk that was kept in the place of the region's own.
///
/// Panics: if there is none of this name.
pub fn put_back(bed: &Bed, region: &str, name: &str) {
    lose(bed, region);
    copy(&kept(bed, region, name), &data(bed, region)).unwrap_or_else(|error| panic!("{error}"));
}

/// Leaves nothing of a region's disk.
///
/// Panics: if there is none.
pub fn lose(bed: &Bed, region: &str) {
    std::fs::remove_dir_all(data(bed, region)).unwrap_or_else(|error| panic!("{error}"));
}
