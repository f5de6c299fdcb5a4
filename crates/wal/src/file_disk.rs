//! [`FileDisk`]: a data directory of the operating system, held by one process at a time.
//!
//! The only file of the crate that touches files. Never retries a sync: its error is final for what was written.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskError};

/// How many files that nobody uses at the moment stay open, so that reading along a log does not open one per read.
const OPEN_FILES_MAX: usize = 64;

/// A data directory; clones share it.
///
/// Errors: [`DiskError::Locked`] from [`FileDisk::open`] while another process (or another value) holds it.
#[derive(Clone, Debug)]
pub struct FileDisk {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Kept open: the lock lives as long as this handle.
    _lock: Option<File>,
    open_files: Mutex<VecDeque<Arc<OpenFile>>>,
}

/// An open file and the path it was opened under.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    path: String,
}

impl FileDisk {
    /// Creates the directory where it is missing, and takes it for this process.
    ///
    /// Errors: [`DiskError::Locked`] if it is taken.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, DiskError> {
        let root = root.into();
        let shown = root.display().to_string();
        std::fs::create_dir_all(&root).map_err(|cause| error(cause, &shown, "create"))?;
        let path = root.join("LOCK");
        let shown = path.display().to_string();
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|cause| error(cause, &shown, "open"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self::over(root, Some(lock))),
            Err(TryLockError::WouldBlock) => Err(DiskError::Locked { path: shown }),
            Err(TryLockError::Error(cause)) => Err(error(cause, &shown, "lock")),
        }
    }

    /// Opens a directory to look into it, also while a daemon uses it. The caller only reads.
    ///
    /// Errors: [`DiskError::NotFound`] if there is none.
    pub fn open_unlocked(root: impl Into<PathBuf>) -> Result<Self, DiskError> {
        let root = root.into();
        if root.is_dir() {
            Ok(Self::over(root, None))
        } else {
            Err(DiskError::NotFound { path: root.display().to_string() })
        }
    }

    fn over(root: PathBuf, lock: Option<File>) -> Self {
        Self { inner: Arc::new(Inner { root, _lock: lock, open_files: Mutex::default() }) }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    fn full(&self, path: &str) -> PathBuf {
        debug_assert!(!path.starts_with('/') && !path.contains(".."), "paths are made of ids: {path}");
        self.inner.root.join(path)
    }

    fn open_files(&self) -> MutexGuard<'_, VecDeque<Arc<OpenFile>>> {
        // A list of handles is whole after any panic.
        self.inner.open_files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, file: File, path: &str) -> Arc<OpenFile> {
        let file = Arc::new(OpenFile { file, path: path.to_owned() });
        let mut open = self.open_files();
        open.push_back(Arc::clone(&file));
        while open.len() > OPEN_FILES_MAX {
            open.pop_front();
        }
        file
    }

    fn forget(&self, path: &str) {
        self.open_files().retain(|file| file.path != path);
    }
}

impl Disk for FileDisk {
    type File = Arc<OpenFile>;

    fn create(&self, path: &str) -> Result<Self::File, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let file = options.open(self.full(path)).map_err(|cause| error(cause, path, "create"))?;
        Ok(self.keep(file, path))
    }

    fn open(&self, path: &str) -> Result<Self::File, DiskError> {
        {
            let mut open = self.open_files();
            if let Some(at) = open.iter().position(|file| file.path == path) {
                let file = open.remove(at).expect("the position was just found");
                open.push_back(Arc::clone(&file));
                return Ok(file);
            }
        }
        let mut options = OpenOptions::new();
        options.read(true).write(self.inner._lock.is_some());
        let file = options.open(self.full(path)).map_err(|cause| error(cause, path, "open"))?;
        Ok(self.keep(file, path))
    }

    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        file.file.write_all_at(bytes, offset).map_err(|cause| error(cause, &file.path, "write"))
    }

    fn read_at(&self, file: &Self::File, offset: u64, bytes_max: usize) -> Result<Vec<u8>, DiskError> {
        let left = self.len(file)?.saturating_sub(offset);
        let mut bytes = vec![0; bytes_max.min(usize::try_from(left).unwrap_or(usize::MAX))];
        let mut done = 0;
        while done < bytes.len() {
            match file.file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(cause) => return Err(error(cause, &file.path, "read")),
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }

    fn len(&self, file: &Self::File) -> Result<u64, DiskError> {
        Ok(file.file.metadata().map_err(|cause| error(cause, &file.path, "measure"))?.len())
    }

    fn sync_data(&self, file: &Self::File) -> Result<(), DiskError> {
        // A sync has no space to ask for: even "no space" here means that written pages may be gone.
        file.file.sync_data().map_err(|cause| final_error(&cause, &file.path, "sync"))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.forget(from);
        self.forget(to);
        std::fs::rename(self.full(from), self.full(to)).map_err(|cause| error(cause, from, "rename"))
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.forget(path);
        std::fs::remove_file(self.full(path)).map_err(|cause| error(cause, path, "remove"))
    }

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        match std::fs::create_dir(self.full(dir)) {
            Err(cause) if cause.kind() != ErrorKind::AlreadyExists => Err(error(cause, dir, "create")),
            _ => Ok(()),
        }
    }

    fn remove_dir(&self, dir: &str) -> Result<(), DiskError> {
        std::fs::remove_dir(self.full(dir)).map_err(|cause| error(cause, dir, "remove"))
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        let handle = File::open(self.full(dir)).map_err(|cause| error(cause, dir, "open"))?;
        handle.sync_all().map_err(|cause| final_error(&cause, dir, "sync"))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let entries = std::fs::read_dir(self.full(dir)).map_err(|cause| error(cause, dir, "list"))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|cause| error(cause, dir, "list"))?;
            // A name that is not UTF-8 was not made here.
            names.extend(entry.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }
}

fn error(cause: std::io::Error, path: &str, operation: &'static str) -> DiskError {
    let path = path.to_owned();
    match cause.kind() {
        ErrorKind::NotFound => DiskError::NotFound { path },
        ErrorKind::AlreadyExists => DiskError::Exists { path },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => DiskError::Full { path, operation },
        _ => final_error(&cause, &path, operation),
    }
}

fn final_error(cause: &std::io::Error, path: &str, operation: &'static str) -> DiskError {
    DiskError::Io { path: path.to_owned(), operation, cause: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_of_a_data_directory_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = FileDisk::open(dir.path()).unwrap();
        assert!(matches!(FileDisk::open(dir.path()), Err(DiskError::Locked { .. })));
        assert!(FileDisk::open_unlocked(dir.path()).is_ok());
        drop(first);
        assert!(FileDisk::open(dir.path()).is_ok());
    }

    #[test]
    fn files_are_written_read_renamed_and_listed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(dir.path()).unwrap();
        disk.create_dir("a").unwrap();
        disk.create_dir("a").unwrap();
        let file = disk.create("a/2").unwrap();
        assert!(matches!(disk.create("a/2"), Err(DiskError::Exists { .. })));
        disk.write_at(&file, 3, b"abc").unwrap();
        disk.sync_data(&file).unwrap();
        disk.sync_dir("a").unwrap();
        assert_eq!(disk.read_at(&file, 2, 100).unwrap(), b"\0abc");
        assert_eq!(disk.read_at(&file, 100, 100).unwrap(), b"");
        disk.create("a/1").unwrap();
        assert_eq!(disk.list("a").unwrap(), ["1", "2"]);
        disk.rename("a/2", "a/1").unwrap();
        let file = disk.open("a/1").unwrap();
        assert_eq!(disk.len(&file).unwrap(), 6);
        disk.remove("a/1").unwrap();
        assert!(disk.open("a/1").is_err_and(|error| error.is_not_found()));
        disk.remove_dir("a").unwrap();
        assert!(disk.list("a").is_err_and(|error| error.is_not_found()));
    }
}
