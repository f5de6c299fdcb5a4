//! Where the demo's cluster keeps its files, and whether they stay.

use std::path::{Path, PathBuf};

use crate::error::{CliError, Exit};

/// Where the cluster's files are, and whether they stay.
pub(super) enum Place {
    /// In a directory that was named.
    Kept(PathBuf),
    /// In one that goes with this value.
    Temporary(tempfile::TempDir),
}

impl Place {
    /// The named directory, or a temporary one.
    ///
    /// Errors: [`Exit::Usage`] if the named one is not empty.
    pub(super) fn choose(keep: Option<&Path>) -> Result<Self, CliError> {
        let io = |what: &Path, error: std::io::Error| {
            CliError::new(Exit::Other, format!("{}: {error}", what.display()))
        };
        let Some(dir) = keep else {
            let made = tempfile::Builder::new().prefix("tombolo-demo-").tempdir();
            return made.map(Self::Temporary).map_err(|error| io(&std::env::temp_dir(), error));
        };
        std::fs::create_dir_all(dir).map_err(|error| io(dir, error))?;
        // What an earlier run left would be counted again.
        if dir.read_dir().map_err(|error| io(dir, error))?.next().is_some() {
            return Err(CliError::new(Exit::Usage, format!("{} is not empty", dir.display()))
                .next("name a new directory"));
        }
        Ok(Self::Kept(dir.to_owned()))
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Kept(dir) => dir,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_something_in_it_is_refused_and_a_new_one_is_made() {
        let outer = tempfile::tempdir().unwrap();
        assert!(Place::choose(Some(&outer.path().join("a/b"))).unwrap().path().is_dir());
        assert_eq!(
            Place::choose(Some(outer.path())).err().unwrap().text(),
            format!("{} is not empty", outer.path().display())
        );
    }

    #[test]
    fn a_temporary_directory_goes_with_its_value() {
        let place = Place::choose(None).unwrap();
        let path = place.path().to_owned();
        assert!(path.is_dir());
        drop(place);
        assert!(!path.exists());
    }
}
