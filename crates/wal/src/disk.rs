//! [`Disk`]: the few things the log asks of a file system, so that a power cut is a method call in a test.
//!
//! Paths are relative, `/`-separated, made of ids only. Never interprets what it stores.

/// Why the disk did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// No space or no quota left; the same call may succeed once space returns.
    #[error("disk full: {operation} {path}")]
    Full {
        /// On what.
        path: String,
        /// Doing what.
        operation: &'static str,
    },
    /// There is no such file or directory.
    #[error("{path} does not exist")]
    NotFound {
        /// What was asked for.
        path: String,
    },
    /// A file to be created is there already.
    #[error("{path} exists already")]
    Exists {
        /// What was to be created.
        path: String,
    },
    /// Another process uses the data directory.
    #[error("{path} is in use by another process")]
    Locked {
        /// The lock file.
        path: String,
    },
    /// Anything else.
    #[error("{operation} {path}: {cause}")]
    Io {
        /// On what.
        path: String,
        /// Doing what.
        operation: &'static str,
        /// What the operating system says.
        cause: String,
    },
}

impl DiskError {
    /// Whether space returning may heal it.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether the thing is not there.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// A directory of files.
///
/// What was written is durable only after [`Disk::sync_data`] of the file *and*, for names that were created, renamed
/// or removed, [`Disk::sync_dir`] of their directory. The root directory is the empty path.
///
/// Errors: [`DiskError`] from every method.
pub trait Disk {
    /// An open file. Errors of a sync belong to it: a log keeps the one it wrote through until that is synced.
    type File: Clone + std::fmt::Debug;

    /// Creates an empty file; one that exists is refused.
    fn create(&self, path: &str) -> Result<Self::File, DiskError>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &str) -> Result<Self::File, DiskError>;
    /// Writes all of `bytes`, extending the file where it is shorter. After an error any part may have been written.
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Reads up to `bytes_max`; fewer only where the file ends.
    fn read_at(&self, file: &Self::File, offset: u64, bytes_max: usize) -> Result<Vec<u8>, DiskError>;
    /// The file's length in bytes.
    fn len(&self, file: &Self::File) -> Result<u64, DiskError>;
    /// Makes content and length durable. After an error nothing is known of what was written since the last success.
    fn sync_data(&self, file: &Self::File) -> Result<(), DiskError>;
    /// Renames a file, replacing what has the new name, in one step.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
    /// Removes a file.
    fn remove(&self, path: &str) -> Result<(), DiskError>;
    /// Creates a directory; one that exists is fine. Its parent must exist.
    fn create_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// Removes an empty directory.
    fn remove_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// The names in a directory, sorted.
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError>;
}

/// Passes every call on to a disk inside.
macro_rules! forward_disk {
    ($inner:ident, $this:ident => $target:expr) => {
        type File = $inner::File;

        fn create(&$this, path: &str) -> Result<Self::File, DiskError> {
            $target.create(path)
        }
        fn open(&$this, path: &str) -> Result<Self::File, DiskError> {
            $target.open(path)
        }
        fn write_at(&$this, file: &Self::File, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
            $target.write_at(file, offset, bytes)
        }
        fn read_at(&$this, file: &Self::File, offset: u64, bytes_max: usize) -> Result<Vec<u8>, DiskError> {
            $target.read_at(file, offset, bytes_max)
        }
        fn len(&$this, file: &Self::File) -> Result<u64, DiskError> {
            $target.len(file)
        }
        fn sync_data(&$this, file: &Self::File) -> Result<(), DiskError> {
            $target.sync_data(file)
        }
        fn rename(&$this, from: &str, to: &str) -> Result<(), DiskError> {
            $target.rename(from, to)
        }
        fn remove(&$this, path: &str) -> Result<(), DiskError> {
            $target.remove(path)
        }
        fn create_dir(&$this, dir: &str) -> Result<(), DiskError> {
            $target.create_dir(dir)
        }
        fn remove_dir(&$this, dir: &str) -> Result<(), DiskError> {
            $target.remove_dir(dir)
        }
        fn sync_dir(&$this, dir: &str) -> Result<(), DiskError> {
            $target.sync_dir(dir)
        }
        fn list(&$this, dir: &str) -> Result<Vec<String>, DiskError> {
            $target.list(dir)
        }
    };
}
pub(crate) use forward_disk;

impl<D: Disk> Disk for std::rc::Rc<D> {
    forward_disk!(D, self => (**self));
}

impl<D: Disk> Disk for std::sync::Arc<D> {
    forward_disk!(D, self => (**self));
}

/// The directory a path lies in.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Writes a file that appears under its name complete or not at all: beside it, synced, renamed, directory synced.
pub(crate) fn write_atomically<D: Disk>(disk: &D, path: &str, bytes: &[u8]) -> Result<(), DiskError> {
    let beside = format!("{path}.new");
    write_beside(disk, &beside, bytes)?;
    disk.rename(&beside, path)?;
    disk.sync_dir(parent(path))
}

/// Writes and syncs a file that has no meaning yet, in the place of one that an earlier attempt left.
pub(crate) fn write_beside<D: Disk>(disk: &D, path: &str, bytes: &[u8]) -> Result<(), DiskError> {
    remove_if_there(disk, path)?;
    let file = disk.create(path)?;
    let written = disk.write_at(&file, 0, bytes).and_then(|()| disk.sync_data(&file));
    if written.is_err() {
        // The first error is the one to report; a file left here has no meaning and goes at the next attempt.
        let _ = disk.remove(path);
    }
    written
}

/// Removes a file that may not be there.
pub(crate) fn remove_if_there<D: Disk>(disk: &D, path: &str) -> Result<(), DiskError> {
    match disk.remove(path) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// The names in a directory, or none if there is no such directory.
pub(crate) fn list_if_there<D: Disk>(disk: &D, dir: &str) -> Result<Vec<String>, DiskError> {
    match disk.list(dir) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        listed => listed,
    }
}
