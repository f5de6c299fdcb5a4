//! Checkpoints: a shard's state as one file that appears complete or not at all (W9), and the one before it.
//!
//! What is in the bytes is the codec's to know; whether they decode is the caller's to say. Start at
//! [`write_checkpoint`].

use tombolo_causality::ShardId;

use crate::disk::{Disk, DiskError, parent, write_beside};
use crate::error::WalError;
use crate::quarantine::quarantine;
use crate::segment::shard_dir;

/// Read in pieces of this size.
const READ_BYTES: usize = 8 * 1_024 * 1_024;

/// What was found of a shard's checkpoints.
#[derive(Debug)]
pub struct FoundCheckpoint<T> {
    /// The newest that decodes, if any does.
    pub checkpoint: Option<T>,
    /// Files that were there and do not decode: where they went, and why.
    pub damaged: Vec<(String, String)>,
}

/// Replaces a shard's checkpoint in one atomic step, and keeps the one before as the previous.
///
/// Errors: a full disk ([`WalError::is_full`]) leaves the old checkpoints as they were; after any other error the new
/// or the old is there, whole.
pub fn write_checkpoint<D: Disk>(disk: &D, shard: ShardId, bytes: &[u8]) -> Result<(), WalError> {
    let dir = shard_dir(shard);
    make_shard_dir(disk, shard)?;
    let [newest, previous] = paths(shard);
    let beside = format!("{newest}.new");
    write_beside(disk, &beside, bytes)?;
    match disk.rename(&newest, &previous) {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => {}
    }
    // A cut between the two leaves the previous alone, which is the state of a moment ago, whole.
    disk.rename(&beside, &newest)?;
    disk.sync_dir(&dir)?;
    Ok(())
}

/// Reads a shard's checkpoint: the newest that `decode` accepts. One that it refuses goes to quarantine, so that the
/// next one written does not push the good one out.
///
/// The whole file is in memory while it is decoded.
///
/// Errors: the disk's.
pub fn read_checkpoint<D: Disk, T, E: std::fmt::Display>(
    disk: &D,
    shard: ShardId,
    mut decode: impl FnMut(Vec<u8>) -> Result<T, E>,
) -> Result<FoundCheckpoint<T>, WalError> {
    let mut damaged = Vec::new();
    for path in paths(shard) {
        let bytes = match read_whole(disk, &path) {
            Err(error) if error.is_not_found() => continue,
            // Bytes that the disk does not give are damage like bytes that do not decode.
            read => read.map_err(|error| error.to_string()),
        };
        match bytes.and_then(|bytes| decode(bytes).map_err(|error| error.to_string())) {
            Ok(checkpoint) => return Ok(FoundCheckpoint { checkpoint: Some(checkpoint), damaged }),
            Err(what) => {
                let name = format!("{:04}-{}", shard.0, path.rsplit('/').next().unwrap_or_default());
                damaged.push((quarantine(disk, &path, &name)?, what));
            }
        }
    }
    Ok(FoundCheckpoint { checkpoint: None, damaged })
}

pub(crate) fn make_shard_dir<D: Disk>(disk: &D, shard: ShardId) -> Result<(), DiskError> {
    let dir = shard_dir(shard);
    let shards = parent(&dir);
    disk.create_dir(shards)?;
    disk.sync_dir(parent(shards))?;
    disk.create_dir(&dir)?;
    disk.sync_dir(shards)
}

/// Newest first.
fn paths(shard: ShardId) -> [String; 2] {
    let dir = shard_dir(shard);
    [format!("{dir}/checkpoint"), format!("{dir}/checkpoint.previous")]
}

fn read_whole<D: Disk>(disk: &D, path: &str) -> Result<Vec<u8>, DiskError> {
    let file = disk.open(path)?;
    let mut bytes = Vec::new();
    loop {
        let piece = disk.read_at(&file, bytes.len() as u64, READ_BYTES)?;
        if piece.is_empty() {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_disk::MemoryDisk;

    const SHARD: ShardId = ShardId(3);

    /// One byte repeated, so that a mixture of two checkpoints is noticed.
    fn decode(bytes: Vec<u8>) -> Result<u8, &'static str> {
        let first = *bytes.first().ok_or("empty")?;
        (bytes.len() == 3_000 && bytes.iter().all(|byte| *byte == first)).then_some(first).ok_or("mixed")
    }

    fn read(disk: &MemoryDisk) -> FoundCheckpoint<u8> {
        read_checkpoint(disk, SHARD, decode).unwrap()
    }

    #[test]
    fn a_power_cut_during_a_checkpoint_leaves_the_old_or_the_new_one_whole() {
        for seed in 0..300 {
            let disk = MemoryDisk::new(seed);
            write_checkpoint(&disk, SHARD, &[1; 3_000]).unwrap();
            write_checkpoint(&disk, SHARD, &[2; 3_000]).unwrap();
            // The third stops at any of its steps.
            let beside = "shards/0003/checkpoint.new";
            let steps = seed % 4;
            write_beside(&disk, beside, &[3; 3_000]).unwrap();
            if steps > 0 {
                disk.rename("shards/0003/checkpoint", "shards/0003/checkpoint.previous").unwrap();
            }
            if steps > 1 {
                disk.rename(beside, "shards/0003/checkpoint").unwrap();
            }
            if steps > 2 {
                disk.sync_dir("shards/0003").unwrap();
            }
            disk.power_loss(seed);
            let found = read(&disk);
            assert!(found.damaged.is_empty(), "seed {seed}: {found:?}");
            let value = found.checkpoint.unwrap();
            assert!(value == 2 || (steps > 1 && value == 3), "seed {seed}, {steps} steps: {value}");
            assert!(steps < 3 || value == 3, "seed {seed}: a finished checkpoint was lost");
            write_checkpoint(&disk, SHARD, &[4; 3_000]).unwrap();
            disk.power_loss(seed);
            assert_eq!(read(&disk).checkpoint, Some(4));
        }
    }

    #[test]
    fn a_rotten_checkpoint_is_quarantined_and_the_previous_one_serves() {
        let disk = MemoryDisk::new(1);
        assert!(read(&disk).checkpoint.is_none());
        write_checkpoint(&disk, SHARD, &[1; 3_000]).unwrap();
        write_checkpoint(&disk, SHARD, &[2; 3_000]).unwrap();
        disk.rot("shards/0003/checkpoint", 1_000).unwrap();
        let found = read(&disk);
        assert_eq!(found.checkpoint, Some(1));
        assert_eq!(found.damaged, [("quarantine/0003-checkpoint".to_owned(), "mixed".to_owned())]);
        // The next one must not push the good one out.
        write_checkpoint(&disk, SHARD, &[3; 3_000]).unwrap();
        disk.rot("shards/0003/checkpoint", 0).unwrap();
        disk.rot("shards/0003/checkpoint.previous", 0).unwrap();
        let found = read(&disk);
        assert_eq!((found.checkpoint, found.damaged.len()), (None, 2));
    }

    #[test]
    fn a_full_disk_leaves_the_old_checkpoint_and_heals() {
        let disk = MemoryDisk::new(1);
        write_checkpoint(&disk, SHARD, &[1; 3_000]).unwrap();
        disk.limit_space(Some(2_999));
        assert!(write_checkpoint(&disk, SHARD, &[2; 3_000]).unwrap_err().is_full());
        assert_eq!(read(&disk).checkpoint, Some(1));
        disk.limit_space(None);
        write_checkpoint(&disk, SHARD, &[2; 3_000]).unwrap();
        assert_eq!(read(&disk).checkpoint, Some(2));
    }
}
