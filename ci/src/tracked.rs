//! The files of the repository: those git tracks or, where git cannot answer, those `.gitignore` leaves.
//!
//! Never writes. Start at `Tracked::open`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tracked files, in order of their paths.
#[derive(Debug)]
pub(crate) struct Tracked {
    root: PathBuf,
    /// Relative to the root, with `/`.
    pub(crate) paths: Vec<String>,
}

impl Tracked {
    /// Asks git; without git (a source archive, a bare build image) walks the folders.
    ///
    /// Errors: a sentence, if a folder cannot be read.
    pub(crate) fn open(root: &Path) -> Result<Self, String> {
        let mut paths = match ask_git(root) {
            Some(paths) => paths,
            None => walk_folders(root)?,
        };
        // A file removed but not committed yet is still listed.
        paths.retain(|path| root.join(path).is_file());
        paths.sort();
        Ok(Self { root: root.to_owned(), paths })
    }

    /// A file's text; none if it cannot be read, or holds data and not text.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.root.join(path)).ok()?;
        // As git tells the two apart, but over the whole file.
        if bytes.contains(&0) { None } else { Some(String::from_utf8_lossy(&bytes).into_owned()) }
    }

    /// The entries of the top level, each once.
    pub(crate) fn top_level(&self) -> Vec<&str> {
        let mut entries: Vec<&str> = self.paths.iter().filter_map(|path| path.split('/').next()).collect();
        entries.dedup();
        entries
    }
}

fn ask_git(root: &Path) -> Option<Vec<String>> {
    if !root.join(".git").exists() {
        return None;
    }
    let output = Command::new("git")
        // CI containers often run as another user than the owner of the clone; only names are read here.
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(root)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

fn walk_folders(root: &Path) -> Result<Vec<String>, String> {
    let ignored = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    let ignored: Vec<&str> = ignored.lines().map(str::trim).filter(|line| line.starts_with('/')).collect();
    let mut paths = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root.join(&folder)).map_err(|error| format!("{folder}: {error}"))?;
        for entry in entries {
            let entry = entry.map_err(|error| format!("{folder}: {error}"))?;
            let path = format!("{folder}{}", entry.file_name().to_string_lossy());
            if path == ".git" || ignored.iter().any(|pattern| matches(pattern, &path)) {
                continue;
            }
            let kind = entry.file_type().map_err(|error| format!("{path}: {error}"))?;
            if kind.is_dir() { folders.push(format!("{path}/")) } else { paths.push(path) }
        }
    }
    Ok(paths)
}

/// Anchored patterns with at most one `*`, which is all this repository's `.gitignore` uses.
fn matches(pattern: &str, path: &str) -> bool {
    let pattern = pattern.trim_start_matches('/').trim_end_matches('/');
    match pattern.split_once('*') {
        None => pattern == path,
        Some((before, after)) => path
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|middle| !middle.contains('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignore_pattern_covers_its_folder_and_its_star_one_name() {
        assert!(matches("/target", "target"));
        assert!(!matches("/target", "crates/target"));
        assert!(matches("/regions/*.token", "regions/admin.token"));
        assert!(!matches("/regions/*.token", "regions/deep/admin.token"));
    }

    #[test]
    fn the_walk_without_git_finds_the_sources_and_not_the_builds() {
        let paths = walk_folders(&crate::root()).unwrap();
        assert!(paths.iter().any(|path| path == "ci/src/tracked.rs"));
        assert!(!paths.iter().any(|path| path.starts_with("target/") || path.starts_with(".git/")));
    }
}
