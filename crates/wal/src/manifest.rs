//! [`Manifest`]: whose data directory this is. Written once, at the first start; a mismatch is refused before
//! anything is touched.
//!
//! Lines of `key=value`, the last one a digest over those before it.

use tombolo_causality::{ClusterId, RegionId};

use crate::disk::{Disk, list_if_there, write_atomically};
use crate::error::WalError;
use crate::segment::SHARDS_DIR;

const PATH: &str = "manifest";
/// The layout of the data directory that this build reads.
const FORMAT: u32 = 1;
/// A manifest is a few lines; more is not one.
const BYTES_MAX: usize = 4_096;

/// Whose data a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manifest {
    /// The cluster.
    pub cluster: ClusterId,
    /// The region.
    pub region: RegionId,
    /// How many shards the cluster has.
    pub shards_count: u16,
}

/// Whether the directory had a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundManifest {
    /// A first start: it was written just now.
    Created,
    /// It was there and is the one expected.
    Matched,
}

impl Manifest {
    /// Checks the data directory against what is expected of it, and marks an empty one.
    ///
    /// Errors: [`WalError::WrongCluster`], [`WalError::WrongRegion`], [`WalError::WrongShards`] and
    /// [`WalError::Format`] name both sides; [`WalError::Manifest`] if it is damaged, or missing beside data.
    pub fn claim<D: Disk>(&self, disk: &D) -> Result<FoundManifest, WalError> {
        let Some(found) = Self::read(disk)? else {
            if !list_if_there(disk, SHARDS_DIR)?.is_empty() {
                return Err(manifest_error("is missing beside data: not a first start"));
            }
            write_atomically(disk, PATH, self.encode().as_bytes())?;
            return Ok(FoundManifest::Created);
        };
        let path = PATH.to_owned();
        if found.cluster != self.cluster {
            return Err(WalError::WrongCluster { path, expected: self.cluster, found: found.cluster });
        }
        if found.region != self.region {
            return Err(WalError::WrongRegion { path, expected: self.region, found: found.region });
        }
        if found.shards_count != self.shards_count {
            return Err(WalError::WrongShards {
                path,
                expected: self.shards_count,
                found: found.shards_count,
            });
        }
        Ok(FoundManifest::Matched)
    }

    /// Reads the manifest, if there is one.
    ///
    /// Errors: [`WalError::Format`], [`WalError::Manifest`], or the disk's.
    pub fn read<D: Disk>(disk: &D) -> Result<Option<Self>, WalError> {
        let file = match disk.open(PATH) {
            Err(error) if error.is_not_found() => return Ok(None),
            opened => opened?,
        };
        let bytes = disk.read_at(&file, 0, BYTES_MAX)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| manifest_error("is not text"))?;
        Self::parse(text).map(Some)
    }

    fn encode(&self) -> String {
        let lines = format!(
            "format={FORMAT}\ncluster={}\nregion={}\nshards={}\n",
            self.cluster, self.region, self.shards_count
        );
        let digest = blake3::hash(lines.as_bytes()).to_hex();
        format!("{lines}digest={digest}\n")
    }

    fn parse(text: &str) -> Result<Self, WalError> {
        let (lines, digest) = text.rsplit_once("digest=").ok_or(manifest_error("has no digest"))?;
        if digest.strip_suffix('\n') != Some(blake3::hash(lines.as_bytes()).to_hex().as_str()) {
            return Err(manifest_error("is damaged: digest mismatch"));
        }
        let value = |key: &str| -> Result<&str, WalError> {
            let mut values = lines.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            values.next().ok_or(manifest_error("lacks a line"))
        };
        let unreadable = || manifest_error("has a value that does not read");
        let format = value("format")?.parse().map_err(|_| unreadable())?;
        if format != FORMAT {
            return Err(WalError::Format { path: PATH.to_owned(), expected: FORMAT, found: format });
        }
        let region = value("region")?.parse().map_err(|_| unreadable())?;
        Ok(Self {
            cluster: value("cluster")?.parse().map_err(|_| unreadable())?,
            region: RegionId::new(region).map_err(|_| unreadable())?,
            shards_count: value("shards")?.parse().map_err(|_| unreadable())?,
        })
    }
}

fn manifest_error(what: &'static str) -> WalError {
    WalError::Manifest { path: PATH.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_disk::MemoryDisk;

    fn manifest() -> Manifest {
        Manifest { cluster: ClusterId(7), region: RegionId::new(2).unwrap(), shards_count: 16 }
    }

    #[test]
    fn a_directory_is_claimed_once_and_strangers_are_refused_by_name() {
        let disk = MemoryDisk::new(1);
        assert_eq!(manifest().claim(&disk), Ok(FoundManifest::Created));
        disk.power_loss(1);
        assert_eq!(manifest().claim(&disk), Ok(FoundManifest::Matched));
        let wrong = |other: Manifest| other.claim(&disk).unwrap_err();
        assert!(matches!(
            wrong(Manifest { cluster: ClusterId(8), ..manifest() }),
            WalError::WrongCluster { .. }
        ));
        let region = RegionId::new(3).unwrap();
        let refused = wrong(Manifest { region, ..manifest() });
        assert_eq!(refused.to_string(), "manifest belongs to region 2, this is region 3");
        assert!(refused.is_wrong_directory());
        assert!(matches!(wrong(Manifest { shards_count: 8, ..manifest() }), WalError::WrongShards { .. }));
    }

    #[test]
    fn damage_and_a_manifest_missing_beside_data_are_refused() {
        let disk = MemoryDisk::new(1);
        manifest().claim(&disk).unwrap();
        disk.rot("manifest", 20).unwrap();
        assert!(matches!(manifest().claim(&disk), Err(WalError::Manifest { .. })));
        disk.remove("manifest").unwrap();
        disk.create_dir("shards").unwrap();
        disk.create_dir("shards/0001").unwrap();
        assert!(matches!(manifest().claim(&disk), Err(WalError::Manifest { .. })));
    }

    #[test]
    fn another_format_is_refused_by_number() {
        let lines = "format=9\ncluster=0\nregion=1\nshards=1\n";
        let text = format!("{lines}digest={}\n", blake3::hash(lines.as_bytes()).to_hex());
        assert!(matches!(Manifest::parse(&text), Err(WalError::Format { found: 9, .. })));
    }
}
