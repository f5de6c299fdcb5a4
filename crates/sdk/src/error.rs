//! What can go wrong for a caller. Each error says what took effect.

use tombolo_codec::{Applied, Reject, RejectCode};

/// Why a call did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdkError {
    /// No region was reached; the request was never sent, so nothing of it was applied.
    #[error("{address} is not reachable, nothing was sent: {text}")]
    Unreachable {
        /// Where the client tried: one region, or several.
        address: String,
        /// What the last attempt failed with.
        text: String,
    },
    /// The region, or the client before sending, refused; the refusal says what was applied.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// The request was sent and no answer came within the deadline: it counts at most once, perhaps not at all.
    #[error("the outcome is unknown: {text}")]
    Unknown {
        /// What happened instead of an answer.
        text: String,
    },
    /// The client was closed before; nothing was applied.
    #[error("the client is closed")]
    Closed,
    /// The CA certificate cannot be used, or no socket can be opened.
    #[error("the client cannot be set up: {text}")]
    Setup {
        /// What is wrong.
        text: String,
    },
}

impl SdkError {
    /// What took effect of the request.
    #[must_use]
    pub fn applied(&self) -> Applied {
        match self {
            Self::Rejected(reject) => reject.applied,
            Self::Unknown { .. } => Applied::Unknown,
            Self::Unreachable { .. } | Self::Closed | Self::Setup { .. } => Applied::No,
        }
    }
}

pub(crate) fn refuse(code: RejectCode, text: impl Into<String>) -> SdkError {
    SdkError::Rejected(Reject::new(code, text))
}

/// Whether asking again, later, may help.
pub(crate) fn is_retryable(reject: &Reject) -> bool {
    // What lies outside the window or below the mark is so for good.
    let is_over = matches!(reject.code, RejectCode::Stale | RejectCode::SessionExpired);
    if reject.applied == Applied::Yes || is_over {
        return false;
    }
    reject.retry_after_ms.is_some()
        || reject.applied == Applied::Unknown
        || matches!(
            reject.code,
            RejectCode::NotWhole
                | RejectCode::Joining
                | RejectCode::Busy
                | RejectCode::SessionFull
                | RejectCode::StorageFull
                | RejectCode::ShuttingDown
                | RejectCode::TimedOut
        )
}

/// Whether the region says that it serves no more, so that another one has to.
pub(crate) fn is_farewell(reject: &Reject) -> bool {
    matches!(
        reject.code,
        RejectCode::ShuttingDown | RejectCode::StorageFailed | RejectCode::Draining | RejectCode::Removed
    )
}

/// Whether one op of a request may be to blame, so that the others may pass without it.
pub(crate) fn is_about_an_op(reject: &Reject) -> bool {
    matches!(
        reject.code,
        RejectCode::WrongType
            | RejectCode::Overflow
            | RejectCode::ClockSkew
            | RejectCode::StampBehind
            | RejectCode::TooLarge
            | RejectCode::Malformed
            | RejectCode::NotSupported
            | RejectCode::Forbidden
    )
}

/// Whether a region refuses so only before it logs anything.
pub(crate) fn is_decided_before_logging(reject: &Reject) -> bool {
    let is_about_its_session =
        matches!(reject.code, RejectCode::NotWhole | RejectCode::SessionFull | RejectCode::SessionExpired);
    is_about_its_session || is_about_an_op(reject)
}
