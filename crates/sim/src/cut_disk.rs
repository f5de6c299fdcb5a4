//! [`CutDisk`]: a memory disk whose power may go before any of its operations, so that a crash can hit each step of a
//! sync, a checkpoint, a repair.

use std::cell::Cell;
use std::rc::Rc;

use tombolo_wal::{Disk, DiskError, MemoryDisk};

type File = <MemoryDisk as Disk>::File;

/// A disk that one node's process holds.
#[derive(Clone)]
pub(crate) struct CutDisk {
    disk: Rc<MemoryDisk>,
    /// Operations left before the power goes.
    left: Rc<Cell<Option<u64>>>,
    is_cut: Rc<Cell<bool>>,
}

impl CutDisk {
    pub(crate) fn new(disk: MemoryDisk) -> Self {
        Self { disk: Rc::new(disk), left: Rc::default(), is_cut: Rc::default() }
    }

    pub(crate) fn memory(&self) -> &MemoryDisk {
        &self.disk
    }

    /// Cuts the power after so many more operations.
    pub(crate) fn cut_after(&self, operations: u64) {
        self.left.set(Some(operations));
    }

    /// Whether the power went: nothing the process says from here on leaves the machine.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.left.get().is_some()
    }

    /// The power is back.
    pub(crate) fn mend(&self) {
        self.left.set(None);
        self.is_cut.set(false);
    }

    fn step(&self, operation: &'static str) -> Result<&MemoryDisk, DiskError> {
        match self.left.get() {
            Some(0) => self.is_cut.set(true),
            Some(left) => self.left.set(Some(left - 1)),
            None => {}
        }
        if self.is_cut.get() {
            let cause = "the power went".to_owned();
            return Err(DiskError::Io { path: String::new(), operation, cause });
        }
        Ok(&self.disk)
    }
}

impl Disk for CutDisk {
    type File = File;

    fn create(&self, path: &str) -> Result<File, DiskError> {
        self.step("create")?.create(path)
    }
    fn open(&self, path: &str) -> Result<File, DiskError> {
        self.step("open")?.open(path)
    }
    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.step("write")?.write_at(file, offset, bytes)
    }
    fn read_at(&self, file: &File, offset: u64, bytes_max: usize) -> Result<Vec<u8>, DiskError> {
        self.step("read")?.read_at(file, offset, bytes_max)
    }
    fn len(&self, file: &File) -> Result<u64, DiskError> {
        self.step("measure")?.len(file)
    }
    fn sync_data(&self, file: &File) -> Result<(), DiskError> {
        self.step("sync")?.sync_data(file)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.step("rename")?.rename(from, to)
    }
    fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.step("remove")?.remove(path)
    }
    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.step("create directory")?.create_dir(dir)
    }
    fn remove_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.step("remove directory")?.remove_dir(dir)
    }
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.step("sync directory")?.sync_dir(dir)
    }
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.step("list")?.list(dir)
    }
}
