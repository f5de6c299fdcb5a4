//! A violation: one place in one file that breaks a rule, with what to do instead.
//!
//! Never decides anything; the checks make violations, `steps` prints them.

use std::fmt;

/// One broken rule, at a place an editor can jump to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    /// Path relative to the root of the repository.
    pub(crate) file: String,
    /// 1-based; 0 if the whole file is meant.
    pub(crate) line: usize,
    /// 1-based, in characters.
    pub(crate) column: usize,
    /// What is wrong and what to do instead.
    pub(crate) text: String,
}

impl Violation {
    /// A violation of a whole file.
    pub(crate) fn of_file(file: impl Into<String>, text: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, column: 0, text: text.into() }
    }

    /// A violation at a byte offset of a file's text.
    pub(crate) fn at_offset(
        file: impl Into<String>,
        source: &str,
        offset: usize,
        text: impl Into<String>,
    ) -> Self {
        let before = &source[..offset.min(source.len())];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            file: file.into(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            text: text.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(out, "{}: {}", self.file, self.text)
        } else {
            write!(out, "{}:{}:{}: {}", self.file, self.line, self.column, self.text)
        }
    }
}
