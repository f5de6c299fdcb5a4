//! What is wrong in a cluster's files: a place, a sentence, and what to do about it.
//!
//! Problems are collected, not thrown: a file with three mistakes is reported with three. Start at [`ConfigError`].

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong in a file of the cluster.
///
/// Shape: prints as `file:line:column: message; hint`, which editors turn into a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct ConfigError {
    /// The file, relative to the cluster directory.
    pub file: PathBuf,
    /// From 1. A file that is wrong as a whole is wrong at 1:1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Where in the files something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Place {
    /// A file as a whole.
    pub(super) fn start_of(file: &Path) -> Self {
        Self { file: file.to_owned(), line: 1, column: 1 }
    }
}

/// A value and where it stands, for checks that come after reading.
#[derive(Debug, Clone)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<T> Placed<T> {
    /// Another value at the same place.
    pub(super) fn with<U>(&self, value: U) -> Placed<U> {
        Placed { value, place: self.place.clone() }
    }
}

/// All problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<ConfigError>);

impl Problems {
    /// A problem whose remedy is plain from what is wrong.
    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.push(place, message.into(), None);
    }

    /// A problem with its remedy.
    pub(super) fn add_with_hint(
        &mut self,
        place: &Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(place, message.into(), Some(hint.into()));
    }

    fn push(&mut self, place: &Place, message: String, hint: Option<String>) {
        let Place { file, line, column } = place.clone();
        self.0.push(ConfigError { file, line, column, message, hint });
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order of the files.
    pub(super) fn into_errors(mut self) -> Vec<ConfigError> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}

/// The one of `valid` that `given` was probably meant to be.
pub(super) fn nearest<'a>(given: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Below this similarity a suggestion is noise: `colour` is 0.5 from `connections_max`.
    const SIMILARITY_MIN: f64 = 0.8;
    let given = given.to_ascii_lowercase().replace('-', "_");
    let scored = valid.into_iter().map(|name| (strsim::jaro_winkler(&given, &name.replace('-', "_")), name));
    scored
        .filter(|(score, _)| *score >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Names for a sentence: `` `a`, `b` ``.
pub(super) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_recognised_and_a_far_one_is_not() {
        let valid = ["durability", "dir", "segment_bytes"];
        assert_eq!(nearest("durabilty", valid), Some("durability"));
        assert_eq!(nearest("segment-bytes", valid), Some("segment_bytes"));
        assert_eq!(nearest("colour", valid), None);
    }
}
