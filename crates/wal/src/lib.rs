//! The write-ahead log: batches on disk, checkpoints beside them, and what is left of both after a crash.
//!
//! The rules (log, recovery, checkpoint) speak to a small [`Disk`] and know no clock, thread or file, so that the
//! simulator runs the same code over [`MemoryDisk`]. Two files touch the world: `file_disk.rs` the files,
//! `committer.rs` the threads. Start with [`Disk`], then [`LogWriter`], [`recovery`] and [`Store`], then
//! [`GroupCommit`] and its journal; a daemon uses [`FileDisk`], [`redo()`] and [`Committer`].
//!
//! ```text
//! <data directory>/
//!   LOCK  manifest
//!   journal/00-a  00-b
//!   shards/0007/checkpoint  checkpoint.previous
//!   shards/0007/0001-<epoch>/00000000000000000001.seg
//!   quarantine/0007-0001-<epoch>-00000000000000000001.seg
//! ```

pub mod checkpoint;
mod committer;
mod disk;
mod error;
mod file_disk;
mod group;
mod index;
pub mod inspect;
mod journal;
mod log;
mod manifest;
mod members;
mod memory_disk;
mod quarantine;
pub mod recovery;
mod redo;
mod repair;
mod scan;
pub mod segment;
mod store;
#[cfg(test)]
mod testing;

pub use checkpoint::{FoundCheckpoint, read_checkpoint, write_checkpoint};
pub use committer::{Committer, CommitterSettings, Durability, Errand, NotStopped, Refused, Reply};
pub use disk::{Disk, DiskError};
pub use error::WalError;
pub use file_disk::FileDisk;
pub use group::{CommitEvent, GroupCommit, SyncedGroup};
pub use index::LogIndex;
pub use log::{KnownEnd, LogWriter, WalSettings, known_ends};
pub use manifest::{FoundManifest, Manifest};
pub use members::{read_members, write_members};
pub use memory_disk::MemoryDisk;
pub use recovery::{Damage, DamageKind, DamageReason, RecoveredLog};
pub use redo::{JournalDamage, Redone, redo};
pub use store::{MayGo, Store};
