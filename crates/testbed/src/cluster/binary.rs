//! Where the `tombolo` binary is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The variable that names it outright.
pub const BINARY_VARIABLE: &str = "TOMBOLO_BIN";

/// Why there is no binary to run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BinaryError {
    /// The variable names no file.
    #[error("{BINARY_VARIABLE} names {0}, which is not a file")]
    Named(PathBuf),
    /// Nothing beside the running executable.
    #[error("no tombolo binary at {0}: run `cargo build -p tombolo`, or name one in {BINARY_VARIABLE}")]
    Missing(PathBuf),
    /// The system does not say what is running.
    #[error("cannot tell where the running executable is: name the binary in {BINARY_VARIABLE}")]
    UnknownExecutable,
}

/// Finds the `tombolo` binary: `TOMBOLO_BIN`, else the running executable if it is one, else the build's output beside
/// the running test or example.
///
/// Errors: [`BinaryError`], with what to do.
pub fn binary() -> Result<PathBuf, BinaryError> {
    let executable = std::env::current_exe().map_err(|_| BinaryError::UnknownExecutable)?;
    find(std::env::var_os(BINARY_VARIABLE), &executable)
}

fn find(named: Option<OsString>, executable: &Path) -> Result<PathBuf, BinaryError> {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        return if named.is_file() { Ok(named) } else { Err(BinaryError::Named(named)) };
    }
    if executable.file_stem().is_some_and(|stem| stem == "tombolo") {
        return Ok(executable.to_owned());
    }
    // Cargo puts tests into `<profile>/deps` and examples into `<profile>/examples`.
    let directory = executable.parent().unwrap_or(Path::new("."));
    let is_inner = directory.file_name().is_some_and(|name| name == "deps" || name == "examples");
    let profile = if is_inner { directory.parent().unwrap_or(directory) } else { directory };
    let beside = profile.join(format!("tombolo{}", std::env::consts::EXE_SUFFIX));
    if beside.is_file() { Ok(beside) } else { Err(BinaryError::Missing(beside)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_taken_at_its_word() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let executable = Path::new("target/debug/tombolo");
        assert_eq!(find(Some(file.path().into()), executable), Ok(file.path().to_owned()));
        let missing = PathBuf::from("no/such/binary");
        assert_eq!(find(Some(missing.clone().into()), executable), Err(BinaryError::Named(missing)));
    }

    #[test]
    fn the_binary_finds_itself() {
        let executable = Path::new("some/place/tombolo");
        assert_eq!(find(None, executable), Ok(executable.to_owned()));
        assert_eq!(find(Some(OsString::new()), executable), Ok(executable.to_owned()));
    }

    #[test]
    fn a_test_finds_what_was_built_beside_it() {
        let target = tempfile::tempdir().unwrap();
        let (built, deps) = (target.path().join("tombolo"), target.path().join("deps"));
        std::fs::create_dir(&deps).unwrap();
        let test = deps.join("uat-0123456789abcdef");
        let missing = find(None, &test).unwrap_err();
        assert_eq!(missing, BinaryError::Missing(built.clone()));
        assert!(missing.to_string().contains("cargo build -p tombolo"));
        std::fs::write(&built, "").unwrap();
        assert_eq!(find(None, &test), Ok(built.clone()));
        assert_eq!(find(None, &target.path().join("other")), Ok(built));
    }
}
