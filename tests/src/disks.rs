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

/// A daemon that was killed soon after its start may have no disk yet.
fn remove(directory: &Path) -> io::Result<()> {
    std::fs::remove_dir_all(directory).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// Keeps a region's disk as it is, under a name.
///
/// Panics: if it cannot be copied.
pub fn keep(bed: &Bed, region: &str, name: &str) {
    let (data, kept) = (data(bed, region), kept(bed, region, name));
    let copied =
        std::fs::create_dir_all(&data).and_then(|()| remove(&kept)).and_then(|()| copy(&data, &kept));
    copied.unwrap_or_else(|error| panic!("{error}"));
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
/// Panics: if it cannot be removed.
pub fn lose(bed: &Bed, region: &str) {
    remove(&data(bed, region)).unwrap_or_else(|error| panic!("{error}"));
}
