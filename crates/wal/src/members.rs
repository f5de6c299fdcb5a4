//! The file `members`: who belongs to the cluster, as this region last knew; replaced whole or not at all.
//!
//! What is in the bytes is the codec's to know.

use crate::disk::{Disk, parent, write_beside};
use crate::error::WalError;

const PATH: &str = "members";
const BESIDE: &str = "members.new";

/// Replaces the file in one atomic step; durable when this returns.
///
/// Errors: the disk's; then the old one or the new one is there, whole.
pub fn write_members<D: Disk>(disk: &D, bytes: &[u8]) -> Result<(), WalError> {
    write_beside(disk, BESIDE, bytes)?;
    disk.rename(BESIDE, PATH)?;
    disk.sync_dir(parent(PATH))?;
    Ok(())
}

/// Reads the file; none if there is none. `bytes_max` bounds what is read.
///
/// Errors: the disk's.
pub fn read_members<D: Disk>(disk: &D, bytes_max: usize) -> Result<Option<Vec<u8>>, WalError> {
    match disk.open(PATH) {
        Ok(file) => Ok(Some(disk.read_at(&file, 0, bytes_max)?)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_disk::MemoryDisk;

    #[test]
    fn a_power_cut_leaves_the_old_or_the_new_members_whole() {
        for seed in 0..100 {
            let disk = MemoryDisk::new(seed);
            assert_eq!(read_members(&disk, 100).unwrap(), None);
            write_members(&disk, &[1; 50]).unwrap();
            disk.power_loss(seed);
            assert_eq!(read_members(&disk, 100).unwrap(), Some(vec![1; 50]));
            write_beside(&disk, BESIDE, &[2; 50]).unwrap();
            if seed % 2 == 0 {
                disk.rename(BESIDE, PATH).unwrap();
            }
            disk.power_loss(seed);
            let found = read_members(&disk, 100).unwrap().unwrap();
            assert!(found == [1; 50] || (seed % 2 == 0 && found == [2; 50]), "seed {seed}");
        }
    }
}
