//! [`MemoryDisk`]: a disk that loses, tears, rots and fills up, all by a seed.
//!
//! It keeps what a page cache shows apart from what would survive. A power cut keeps any subset of unsynced 512-byte
//! sectors, may tear one, and keeps any subset of unsynced directory changes in which every change follows those it
//! builds on. Start at [`MemoryDisk::power_loss`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::disk::{Disk, DiskError, parent};

const SECTOR_BYTES: usize = 512;

/// A disk in memory; share it through `Rc`, or through `Arc<Mutex<_>>` between threads.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    state: RefCell<State>,
}

/// An open file. A power cut makes it stale: using it afterwards is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryFile {
    inode: u64,
    power_cuts: u64,
}

#[derive(Debug, Default)]
struct State {
    chance: u64,
    power_cuts: u64,
    inodes: BTreeMap<u64, Inode>,
    inodes_count: u64,
    names: Names,
    stable_names: Names,
    changes: Vec<Change>,
    failing_syncs: u32,
    space_bytes: Option<u64>,
    ignores_syncs: bool,
    syncs_count: u64,
}

#[derive(Debug, Default)]
struct Inode {
    cached: Vec<u8>,
    stable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Debug, Default, Clone)]
struct Names {
    files: BTreeMap<String, u64>,
    dirs: BTreeSet<String>,
}

/// A change of names that no sync has made durable yet.
#[derive(Debug, Clone)]
enum Change {
    Create { path: String, inode: u64 },
    Remove { path: String },
    Rename { from: String, to: String },
    CreateDir { dir: String },
    RemoveDir { dir: String },
}

impl MemoryDisk {
    /// An empty disk; everything that chance decides follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let disk = Self::default();
        disk.state.borrow_mut().chance = seed;
        disk
    }

    /// Cuts the power and starts again: open files become stale, what was not synced survives by chance.
    pub fn power_loss(&self, seed: u64) {
        let state = &mut *self.state.borrow_mut();
        state.chance = state.random() ^ seed;
        state.power_cuts += 1;
        state.lose_names();
        state.lose_sectors();
    }

    /// A copy of what is durable and nothing else: an image that may be put back later.
    #[must_use]
    pub fn durable_copy(&self) -> Self {
        let state = self.state.borrow();
        let kept: BTreeSet<u64> = state.stable_names.files.values().copied().collect();
        let durable = |inode: &Inode| Inode {
            cached: inode.stable.clone(),
            stable: inode.stable.clone(),
            dirty: BTreeSet::new(),
        };
        let inodes = state.inodes.iter().filter(|(id, _)| kept.contains(id));
        let copy = State {
            chance: state.chance,
            power_cuts: state.power_cuts + 1,
            inodes: inodes.map(|(&id, inode)| (id, durable(inode))).collect(),
            inodes_count: state.inodes_count,
            names: state.stable_names.clone(),
            stable_names: state.stable_names.clone(),
            ..State::default()
        };
        Self { state: RefCell::new(copy) }
    }

    /// Lets the next `count` syncs of files fail: some of what was written is gone, and a later sync will not say so.
    pub fn fail_syncs(&self, count: u32) {
        self.state.borrow_mut().failing_syncs = count;
    }

    /// Limits how many bytes files may grow by from here on; none lifts the limit.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.state.borrow_mut().space_bytes = bytes;
    }

    /// Flips a bit of a file, also where it was durable.
    ///
    /// Errors: [`DiskError::NotFound`] if there is no such file or byte.
    pub fn rot(&self, path: &str, offset: u64) -> Result<(), DiskError> {
        let state = &mut *self.state.borrow_mut();
        let not_found = || DiskError::NotFound { path: path.to_owned() };
        let inode = *state.names.files.get(path).ok_or_else(not_found)?;
        let bit = 1 << (state.random() % 8);
        let inode = state.inodes.get_mut(&inode).expect("a name stands for an inode");
        let at = usize::try_from(offset).expect("offsets fit in memory");
        *inode.cached.get_mut(at).ok_or_else(not_found)? ^= bit;
        if let Some(byte) = inode.stable.get_mut(at) {
            *byte ^= bit;
        }
        Ok(())
    }

    /// Sabotage: syncs answer "done" and do nothing, as a writer would that acks before the sync.
    pub fn ignore_syncs(&self, ignore: bool) {
        self.state.borrow_mut().ignores_syncs = ignore;
    }

    /// How many syncs of files were asked for.
    #[must_use]
    pub fn syncs_count(&self) -> u64 {
        self.state.borrow().syncs_count
    }

    /// All files, sorted by path, with their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.state.borrow();
        state
            .names
            .files
            .iter()
            .map(|(path, inode)| (path.clone(), state.inodes[inode].cached.len() as u64))
            .collect()
    }
}

impl State {
    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn flip(&mut self) -> bool {
        self.random() & 1 == 0
    }

    fn lose_names(&mut self) {
        let mut lost: Vec<Change> = Vec::new();
        for change in std::mem::take(&mut self.changes) {
            if lost.iter().any(|earlier| change.builds_on(earlier)) || self.flip() {
                lost.push(change);
            } else {
                self.stable_names.apply(&change);
            }
        }
        self.names = self.stable_names.clone();
        let kept: BTreeSet<u64> = self.names.files.values().copied().collect();
        self.inodes.retain(|inode, _| kept.contains(inode));
    }

    fn lose_sectors(&mut self) {
        let inodes: Vec<u64> = self.inodes.keys().copied().collect();
        for id in inodes {
            let dirty: Vec<usize> =
                std::mem::take(&mut self.inodes.get_mut(&id).expect("listed above").dirty)
                    .into_iter()
                    .collect();
            let torn = if dirty.is_empty() || self.flip() {
                None
            } else {
                Some(dirty[usize::try_from(self.random() % dirty.len() as u64).expect("below a length")])
            };
            for sector in dirty {
                let bytes_count = if torn == Some(sector) {
                    usize::try_from(self.random()).unwrap_or(usize::MAX) % SECTOR_BYTES
                } else if self.flip() {
                    SECTOR_BYTES
                } else {
                    0
                };
                self.inodes.get_mut(&id).expect("listed above").settle(sector, bytes_count);
            }
            let inode = self.inodes.get_mut(&id).expect("listed above");
            inode.cached = inode.stable.clone();
        }
    }

    fn commit_names(&mut self, dir: &str) {
        // What is committed takes with it what it builds on.
        let mut wanted = vec![false; self.changes.len()];
        for at in (0..self.changes.len()).rev() {
            let change = &self.changes[at];
            wanted[at] = change.paths().any(|path| parent(path) == dir)
                || (at + 1..self.changes.len())
                    .any(|later| wanted[later] && self.changes[later].builds_on(change));
        }
        let mut left = Vec::new();
        for (change, wanted) in std::mem::take(&mut self.changes).into_iter().zip(wanted) {
            if wanted {
                self.stable_names.apply(&change);
            } else {
                left.push(change);
            }
        }
        self.changes = left;
        // The content of removed files goes once no power cut can bring their names back.
        let mut named: BTreeSet<u64> =
            self.names.files.values().chain(self.stable_names.files.values()).copied().collect();
        named.extend(self.changes.iter().filter_map(|change| match change {
            Change::Create { inode, .. } => Some(*inode),
            _ => None,
        }));
        self.inodes.retain(|inode, _| named.contains(inode));
    }

    fn change(&mut self, change: Change) {
        self.names.apply(&change);
        self.changes.push(change);
    }

    fn inode(&mut self, file: MemoryFile, operation: &'static str) -> Result<&mut Inode, DiskError> {
        let is_stale = file.power_cuts != self.power_cuts;
        self.inodes.get_mut(&file.inode).filter(|_| !is_stale).ok_or_else(|| DiskError::Io {
            path: format!("inode {}", file.inode),
            operation,
            cause: "the file was opened before a power cut, or removed".to_owned(),
        })
    }

    fn take_space(&mut self, wanted: u64) -> u64 {
        let Some(space) = &mut self.space_bytes else { return wanted };
        let taken = wanted.min(*space);
        *space -= taken;
        taken
    }
}

impl Inode {
    /// Makes the first bytes of a sector durable.
    fn settle(&mut self, sector: usize, bytes_count: usize) {
        let from = sector * SECTOR_BYTES;
        let to = (from + bytes_count).min(self.cached.len());
        if from < to {
            if self.stable.len() < to {
                self.stable.resize(to, 0);
            }
            self.stable[from..to].copy_from_slice(&self.cached[from..to]);
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[offset..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.dirty.extend(offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
        }
    }
}

impl Names {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { path, inode } => drop(self.files.insert(path.clone(), *inode)),
            Change::Remove { path } => drop(self.files.remove(path)),
            Change::Rename { from, to } => {
                if let Some(inode) = self.files.remove(from) {
                    self.files.insert(to.clone(), inode);
                }
            }
            Change::CreateDir { dir } => drop(self.dirs.insert(dir.clone())),
            Change::RemoveDir { dir } => drop(self.dirs.remove(dir)),
        }
    }

    fn has_dir(&self, dir: &str) -> bool {
        dir.is_empty() || self.dirs.contains(dir)
    }

    fn children(&self, dir: &str) -> Vec<String> {
        let names = self.files.keys().chain(&self.dirs).filter(|path| parent(path) == dir);
        let mut names: Vec<String> =
            names.map(|path| path[if dir.is_empty() { 0 } else { dir.len() + 1 }..].to_owned()).collect();
        names.sort_unstable();
        names
    }
}

impl Change {
    fn paths(&self) -> impl Iterator<Item = &str> {
        let (one, other) = match self {
            Self::Create { path, .. } | Self::Remove { path } => (path, None),
            Self::Rename { from, to } => (from, Some(to)),
            Self::CreateDir { dir } | Self::RemoveDir { dir } => (dir, None),
        };
        std::iter::once(one).chain(other).map(String::as_str)
    }

    /// Whether it cannot be kept without `earlier`: it touches the same name, or lies in (or held) that directory.
    fn builds_on(&self, earlier: &Self) -> bool {
        self.paths().any(|path| {
            earlier.paths().any(|other| path == other || parent(path) == other || parent(other) == path)
        })
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn create(&self, path: &str) -> Result<MemoryFile, DiskError> {
        let state = &mut *self.state.borrow_mut();
        if state.names.files.contains_key(path) {
            return Err(DiskError::Exists { path: path.to_owned() });
        }
        if !state.names.has_dir(parent(path)) {
            return Err(DiskError::NotFound { path: parent(path).to_owned() });
        }
        if state.space_bytes == Some(0) {
            return Err(DiskError::Full { path: path.to_owned(), operation: "create" });
        }
        state.inodes_count += 1;
        let inode = state.inodes_count;
        state.inodes.insert(inode, Inode::default());
        state.change(Change::Create { path: path.to_owned(), inode });
        Ok(MemoryFile { inode, power_cuts: state.power_cuts })
    }

    fn open(&self, path: &str) -> Result<MemoryFile, DiskError> {
        let state = self.state.borrow();
        let inode =
            state.names.files.get(path).ok_or_else(|| DiskError::NotFound { path: path.to_owned() })?;
        Ok(MemoryFile { inode: *inode, power_cuts: state.power_cuts })
    }

    fn write_at(&self, file: &MemoryFile, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let state = &mut *self.state.borrow_mut();
        let length = state.inode(*file, "write")?.cached.len() as u64;
        let end = offset + bytes.len() as u64;
        let growth = end.saturating_sub(length.max(offset)) + offset.saturating_sub(length);
        let missing = growth - state.take_space(growth);
        let kept = bytes.len().saturating_sub(usize::try_from(missing).expect("a write fits in memory"));
        let at = usize::try_from(offset).expect("offsets fit in memory");
        state.inode(*file, "write")?.write(at, &bytes[..kept]);
        if missing > 0 {
            return Err(DiskError::Full { path: format!("inode {}", file.inode), operation: "write" });
        }
        Ok(())
    }

    fn read_at(&self, file: &MemoryFile, offset: u64, bytes_max: usize) -> Result<Vec<u8>, DiskError> {
        let state = &mut *self.state.borrow_mut();
        let cached = &state.inode(*file, "read")?.cached;
        let from = usize::try_from(offset).map_or(cached.len(), |offset| offset.min(cached.len()));
        let to = from.saturating_add(bytes_max).min(cached.len());
        Ok(cached[from..to].to_vec())
    }

    fn len(&self, file: &MemoryFile) -> Result<u64, DiskError> {
        Ok(self.state.borrow_mut().inode(*file, "measure")?.cached.len() as u64)
    }

    fn sync_data(&self, file: &MemoryFile) -> Result<(), DiskError> {
        let state = &mut *self.state.borrow_mut();
        state.syncs_count += 1;
        let ignores_syncs = state.ignores_syncs;
        let is_failing = state.failing_syncs > 0;
        state.failing_syncs = state.failing_syncs.saturating_sub(1);
        let inode = state.inode(*file, "sync")?;
        if ignores_syncs {
            return Ok(());
        }
        let dirty = std::mem::take(&mut inode.dirty);
        for sector in dirty {
            // A failed sync leaves the pages clean in memory, whether or not they reached the disk.
            let is_kept = !is_failing || state.flip();
            if is_kept {
                state.inode(*file, "sync")?.settle(sector, SECTOR_BYTES);
            }
        }
        if is_failing {
            let cause = "input/output error (injected)".to_owned();
            return Err(DiskError::Io { path: format!("inode {}", file.inode), operation: "sync", cause });
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let state = &mut *self.state.borrow_mut();
        if !state.names.files.contains_key(from) {
            return Err(DiskError::NotFound { path: from.to_owned() });
        }
        if !state.names.has_dir(parent(to)) {
            return Err(DiskError::NotFound { path: parent(to).to_owned() });
        }
        state.change(Change::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        let state = &mut *self.state.borrow_mut();
        let inode =
            state.names.files.get(path).ok_or_else(|| DiskError::NotFound { path: path.to_owned() })?;
        let freed = state.inodes.get(inode).map_or(0, |inode| inode.cached.len() as u64);
        if let Some(space) = &mut state.space_bytes {
            *space += freed;
        }
        state.change(Change::Remove { path: path.to_owned() });
        Ok(())
    }

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        let state = &mut *self.state.borrow_mut();
        if !state.names.has_dir(parent(dir)) {
            return Err(DiskError::NotFound { path: parent(dir).to_owned() });
        }
        if !state.names.has_dir(dir) {
            state.change(Change::CreateDir { dir: dir.to_owned() });
        }
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> Result<(), DiskError> {
        let state = &mut *self.state.borrow_mut();
        if !state.names.has_dir(dir) {
            return Err(DiskError::NotFound { path: dir.to_owned() });
        }
        if !state.names.children(dir).is_empty() {
            let cause = "directory not empty".to_owned();
            return Err(DiskError::Io { path: dir.to_owned(), operation: "remove", cause });
        }
        state.change(Change::RemoveDir { dir: dir.to_owned() });
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        let state = &mut *self.state.borrow_mut();
        if !state.names.has_dir(dir) {
            return Err(DiskError::NotFound { path: dir.to_owned() });
        }
        if !state.ignores_syncs {
            state.commit_names(dir);
        }
        Ok(())
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let state = self.state.borrow();
        if !state.names.has_dir(dir) {
            return Err(DiskError::NotFound { path: dir.to_owned() });
        }
        Ok(state.names.children(dir))
    }
}

#[cfg(test)]
mod tests;
