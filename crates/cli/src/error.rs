//! [`CliError`]: why a command failed, which exit code that is, and what to do next.
//!
//! Every command ends in `Result<ExitCode, CliError>`; nothing else in this binary chooses an exit code or prints a
//! failure. The codes are a promise to scripts: see [`Exit`].

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use tombolo_codec::{Applied, RejectCode};

use crate::output::Format;

/// How a command ended, for the script that ran it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// None of the others.
    Other = 1,
    /// The command line does not make sense.
    Usage = 2,
    /// No answer from the region.
    Unreachable = 3,
    /// No credential, a wrong one, or one that does not allow this.
    NotAuthorised = 4,
    /// What was asked for is not there.
    NotFound = 5,
    /// A conflict, or a precondition that does not hold.
    Conflict = 6,
    /// An await ended before all regions had it.
    Laggards = 7,
    /// Something is unhealthy, or a check failed.
    CheckFailed = 8,
    /// The cluster's files are wrong.
    ConfigInvalid = 10,
    /// A disk failed, or lost what it held.
    StorageFailed = 13,
}

impl Exit {
    /// What a refusal means to a script; `code` is the region's, where the answer is one of ours.
    pub(crate) fn of_refusal(status: u16, code: Option<RejectCode>) -> Self {
        match (status, code) {
            (_, Some(RejectCode::StorageFailed | RejectCode::DataLoss)) => Self::StorageFailed,
            (_, Some(RejectCode::UnknownRegion)) => Self::NotFound,
            (401 | 403, _) => Self::NotAuthorised,
            (404, _) => Self::NotFound,
            (409 | 410 | 412 | 421, _) => Self::Conflict,
            // Something in between answered in the region's place.
            (502..=504, None) => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CliError {
    exit: u8,
    text: String,
    code: Option<String>,
    pub(crate) applied: Option<Applied>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    schema: &'static str,
    exit: u8,
    text: &'a str,
    code: Option<&'a str>,
    applied: Option<&'static str>,
    next: Option<&'a str>,
}

impl CliError {
    /// A failure and the sentence that says what happened.
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self::with_exit_code(exit as u8, text)
    }

    /// A failure whose exit code another crate chose.
    pub(crate) fn with_exit_code(exit: u8, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), code: None, applied: None, next: None }
    }

    /// Nobody reads stdout any more: the command ends, quietly and well.
    pub(crate) fn reader_gone() -> Self {
        Self::with_exit_code(0, "nobody reads stdout")
    }

    /// The same, with what to do about it: a sentence or a command.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The same, with the code that `tombolo explain` knows.
    #[must_use]
    pub(crate) fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The same, saying what took effect.
    #[must_use]
    pub(crate) fn applied(mut self, applied: Applied) -> Self {
        self.applied = Some(applied);
        self
    }

    /// Whether no region answered, so that asking again may help.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.exit == Exit::Unreachable as u8
    }

    /// Whether something that has to hold first does not.
    pub(crate) fn is_conflict(&self) -> bool {
        self.exit == Exit::Conflict as u8
    }

    /// What happened, without the next step.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Says it on stderr; the answer is the process's exit code.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        if self.exit == 0 {
            return ExitCode::SUCCESS;
        }
        let text = match format {
            Format::Human => self.human(),
            Format::Json => {
                let body = Body {
                    schema: "tombolo.error/v1",
                    exit: self.exit,
                    text: &self.text,
                    code: self.code.as_deref(),
                    applied: self.applied.map(Applied::name),
                    next: self.next.as_deref(),
                };
                serde_json::to_string(&body).expect("an error is plain JSON") + "\n"
            }
        };
        // Where stderr is closed there is nobody to tell; the exit code still says it.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        ExitCode::from(self.exit)
    }

    fn human(&self) -> String {
        let mut out = format!("error: {}\n", self.text);
        if let Some(code) = &self.code {
            out += &format!("  code: {code}");
            if let Some(applied) = self.applied {
                out += &format!(", applied: {}", applied.name());
            }
            out.push('\n');
        } else if let Some(applied) = self.applied {
            out += &format!("  applied: {}\n", applied.name());
        }
        match (&self.next, &self.code) {
            (Some(next), _) => out += &format!("  next: {next}\n"),
            (None, Some(code)) if reject_code(code).is_some() => {
                out += &format!("  next: tombolo explain {code}\n");
            }
            (None, _) => {}
        }
        out
    }
}

/// The code of this name, if it is one of ours.
pub(crate) fn reject_code(name: &str) -> Option<RejectCode> {
    RejectCode::ALL.iter().copied().find(|code| code.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_happened_what_was_applied_and_what_to_do_next() {
        let error =
            CliError::new(Exit::Conflict, "the key is a register").code("wrong_type").applied(Applied::No);
        assert_eq!(
            error.human(),
            "error: the key is a register\n  code: wrong_type, applied: no\n  next: tombolo explain wrong_type\n"
        );
        let error = CliError::new(Exit::Unreachable, "no answer").next("start it");
        assert_eq!(error.human(), "error: no answer\n  next: start it\n");
    }

    #[test]
    fn every_refusal_of_a_region_has_the_exit_code_scripts_rely_on() {
        let exit = |code: RejectCode| Exit::of_refusal(code.http(), Some(code));
        assert_eq!(exit(RejectCode::Unauthenticated), Exit::NotAuthorised);
        assert_eq!(exit(RejectCode::Forbidden), Exit::NotAuthorised);
        assert_eq!(exit(RejectCode::NotFound), Exit::NotFound);
        assert_eq!(exit(RejectCode::UnknownRegion), Exit::NotFound);
        for conflict in [
            RejectCode::WrongType,
            RejectCode::Overflow,
            RejectCode::StampBehind,
            RejectCode::Conflict,
            RejectCode::SessionExpired,
            RejectCode::NotYet,
            RejectCode::NotAuthority,
        ] {
            assert_eq!(exit(conflict), Exit::Conflict, "{}", conflict.name());
        }
        assert_eq!(exit(RejectCode::StorageFailed), Exit::StorageFailed);
        assert_eq!(exit(RejectCode::Malformed), Exit::Other);
        assert_eq!(exit(RejectCode::Busy), Exit::Other);
        assert_eq!(Exit::of_refusal(503, None), Exit::Unreachable);
    }
}
