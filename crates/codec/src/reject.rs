//! Refusals: one enum of codes for every door, each saying what was, or was not, applied.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};
use tombolo_causality::Stamp;

/// Whether a refused request took effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum Applied {
    /// Nothing of it did.
    No,
    /// All of it did.
    Yes,
    /// It may have, in part or as a whole: ask again under the same number.
    Unknown,
}

impl Applied {
    /// The word doors print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Unknown => "unknown",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $resp:literal, $http:literal;)*) => {
        /// What was wrong.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Archive, Serialize, Deserialize)]
        pub enum RejectCode { $($(#[$doc])* $name,)* }

        impl RejectCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The snake-case code in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$name => $text,)* } }

            /// The upper-case first word of a RESP error.
            #[must_use]
            pub const fn resp(self) -> &'static str { match self { $(Self::$name => $resp,)* } }

            /// The HTTP status.
            #[must_use]
            pub const fn http(self) -> u16 { match self { $(Self::$name => $http,)* } }
        }
    };
}

codes! {
    /// The key holds, or is declared as, another kind.
    WrongType = "wrong_type", "WRONGTYPE", 409;
    /// The counter would leave, or has left, the range of i64.
    Overflow = "overflow", "OVERFLOW", 409;
    /// The stamp is not above that of the cell.
    StampBehind = "stamp_behind", "STALE", 409;
    /// A stamp lies too far ahead of this region's clock, or this region's clock is too far ahead itself.
    ClockSkew = "clock_skew", "TRYAGAIN", 409;
    /// The number lies below the session's settled mark.
    Stale = "stale", "STALE", 409;
    /// The same number came with another payload.
    Conflict = "conflict", "CONFLICT", 409;
    /// The session is older than the window, or unknown.
    SessionExpired = "session_expired", "STALE", 410;
    /// The session holds too many numbers above its settled mark.
    SessionFull = "session_full", "TRYAGAIN", 429;
    /// This region restarted and has not yet caught up with what others hold.
    NotWhole = "not_whole", "TRYAGAIN", 503;
    /// Another region is the authority of the session.
    NotAuthority = "not_authority", "TRYAGAIN", 421;
    /// A key, value, request or batch is above its limit.
    TooLarge = "too_large", "ERR", 413;
    /// The request does not parse.
    Malformed = "malformed", "ERR", 400;
    /// What was asked for does not exist here.
    NotFound = "not_found", "ERR", 404;
    /// What was asked for cannot be right in a multi-writer store, or is not there yet.
    NotSupported = "not_supported", "NOTSUPPORTED", 501;
    /// No or a wrong credential.
    Unauthenticated = "unauthenticated", "NOAUTH", 401;
    /// The credential does not allow this.
    Forbidden = "forbidden", "NOAUTH", 403;
    /// A queue is full.
    Busy = "busy", "TRYAGAIN", 503;
    /// The disk is full; reads go on.
    StorageFull = "storage_full", "OOM", 507;
    /// A sync failed; nothing more is acknowledged on that file.
    StorageFailed = "storage_failed", "READONLY", 503;
    /// History before this point was lost and no peer has it.
    DataLoss = "data_loss", "READONLY", 503;
    /// The daemon is stopping.
    ShuttingDown = "shutting_down", "LOADING", 503;
    /// This region does not yet cover the token.
    NotYet = "not_yet", "TRYAGAIN", 412;
    /// A token, session id or stamp is not one of this cluster's.
    BadToken = "bad_token", "ERR", 400;
    /// A region is not a member.
    UnknownRegion = "unknown_region", "ERR", 400;
    /// The answer did not come in time.
    TimedOut = "timed_out", "TRYAGAIN", 504;
    /// This region is about to be removed and takes no new writes; reads go on.
    Draining = "draining", "READONLY", 503;
    /// Something that has to hold first does not; nothing was changed.
    Precondition = "precondition", "ERR", 409;
    /// This region was removed from its cluster.
    Removed = "removed", "READONLY", 410;
    /// This region began without data and does not yet hold what others do.
    Joining = "joining", "LOADING", 503;
}

/// Why a request was not, or not wholly, done.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Reject {
    /// What was wrong.
    pub code: RejectCode,
    /// What took effect.
    pub applied: Applied,
    /// A sentence for people: what happened, and what to do next.
    pub text: String,
    /// For `stamp_behind`: a stamp above this one is needed.
    pub stamp_needed: Option<Stamp>,
    /// When asking again may help.
    pub retry_after_ms: Option<u32>,
}

impl Reject {
    /// A refusal of which nothing was applied.
    pub fn new(code: RejectCode, text: impl Into<String>) -> Self {
        Self { code, applied: Applied::No, text: text.into(), stamp_needed: None, retry_after_ms: None }
    }

    /// The same, saying that it may have been applied.
    #[must_use]
    pub fn unknown(mut self) -> Self {
        self.applied = Applied::Unknown;
        self
    }

    /// The same, saying when to ask again.
    #[must_use]
    pub fn retry_after_ms(mut self, ms: u32) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (applied: {})", self.code.name(), self.text, self.applied.name())
    }
}

impl std::error::Error for Reject {}
