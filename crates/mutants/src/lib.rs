//! Planted bugs: each breaks one rule of the product in one line, and a checker is shown to notice.
//!
//! The line that keeps a rule asks [`is_planted`] whether it shall break it. In every ordinary build the answer is the
//! constant false, and the question costs nothing; only `--cfg tombolo_mutants` lets the simulator plant one. It is a
//! flag of the compiler and not a feature: features unite over a workspace, and one of these must never get into the
//! product. Start at [`Mutant`]; `cargo run -p ci -- mutants` runs them all.

#[cfg(tombolo_mutants)]
mod planted;

#[cfg(tombolo_mutants)]
pub use planted::{is_planted, plant};

/// Whether a rule is to be broken: never.
#[cfg(not(tombolo_mutants))]
#[must_use]
#[inline(always)]
pub const fn is_planted(_: Mutant) -> bool {
    false
}

macro_rules! mutants {
    ($($(#[$doc:meta])* $mutant:ident = $name:literal,)*) => {
        /// One rule that can be broken. The name is stable: reports and commands use it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[$doc])* $mutant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$mutant,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$mutant => $name,)*
                }
            }
        }
    };
}

mutants! {
    /// A write is answered before its batch is durable (W1).
    AckBeforeSync = "ack-before-sync",
    /// A log goes on after a failed sync (W5).
    RetryFailedSync = "retry-failed-sync",
    /// A batch is shipped before its own sync (R2).
    OfferBeforeDurable = "offer-before-durable",
    /// A process goes on under the epoch of the one before (W2). Planted in the simulator, which draws it as the daemon does.
    ReuseEpoch = "reuse-epoch",
    /// A restart forgets the readings that its logs carry (H1).
    StampBoundNotPersisted = "stamp-bound-not-persisted",
    /// A number is logged in another batch than its effect (S1).
    DedupEntryApart = "dedup-entry-apart",
    /// A conditional add counts although its number is covered (C1).
    CoveredConditionalCounts = "covered-conditional-counts",
    /// A number counts once for every region that logged it conditionally (F5).
    ConditionalPerRegion = "conditional-per-region",
    /// A restarted home logs for its sessions before it knows what it had logged (F1).
    AuthorityBeforeWhole = "authority-before-whole",
    /// A restarted region waits for what one member holds, not all (R8).
    WholeAsksSome = "whole-asks-some",
    /// A client takes the yes of a region that is not the authority for final (F2). Planted in the simulator's client.
    MarkMovesOnAnyAnswer = "mark-moves-on-any-answer",
    /// A seal is applied before all that it seals is here (C2).
    SealAppliedEarly = "seal-applied-early",
    /// A log is taken over by the maximum of the totals instead of their sum (F3).
    FoldByMaximum = "fold-by-maximum",
    /// What was received counts as durable (R2).
    ReceivedIsApplied = "received-is-applied",
    /// A barrier is told of what was received only (R3).
    BarrierOnReceive = "barrier-on-receive",
    /// What a region acked before its disk came back older still counts (F22).
    AckOfOldEpochCounts = "ack-of-old-epoch-counts",
    /// A floor drops the tables of its sessions at once, not when it is stable (F4).
    TablesGoAtOnce = "tables-go-at-once",
    /// Recovery cuts a log at the first batch that does not verify (W3).
    CutAtFirstBadDigest = "cut-at-first-bad-digest",
    /// A journal file is overwritten although a segment that it vouches for was not synced (W1).
    JournalRecycledEarly = "journal-recycled-early",
    /// A start does not write again what the journal holds (W1).
    RedoSkipped = "redo-skipped",
    /// A conditional add is absorbed under the authority's generation instead of its own (F27).
    AbsorbUnderOwnGeneration = "absorb-under-own-generation",
    /// A conditional add leaves the generation of its counter as it is (F28).
    ConditionalDoesNotRaise = "conditional-does-not-raise",
    /// A first attempt is logged although what it overwrites has a later stamp (C4).
    StampBehindAccepted = "stamp-behind-accepted",
    /// Other ops under a used number are answered as a replay (S2).
    OtherPayloadReplayed = "other-payload-replayed",
    /// A number below the settled mark counts as new (S3).
    StaleNumberIsNew = "stale-number-is-new",
    /// An expired session goes on (S4).
    ExpiredSessionGoesOn = "expired-session-goes-on",
    /// A checkpoint is written without the sessions (W9).
    CheckpointWithoutSessions = "checkpoint-without-sessions",
    /// The write that arrives last wins (C2).
    LastArrivalWins = "last-arrival-wins",
    /// A cut reads what has changed since it was opened (C7).
    CutReadsOn = "cut-reads-on",
    /// Of a counter that another region sent, its parts stand also where this region holds the longer prefix (C7).
    ShorterPrefixWins = "shorter-prefix-wins",
    /// What another region did not send keeps the slots of logs that it has taken over (C7).
    UnsentNotFolded = "unsent-not-folded",
    /// A register that another region lacks goes although that region has not seen what wrote it (F11).
    UnseenRegisterGoes = "unseen-register-goes",
    /// A register that another region let go stays (C7).
    DroppedRegisterStays = "dropped-register-stays",
    /// A register comes back that was let go here (C6).
    DroppedRegisterReturns = "dropped-register-returns",
    /// A conditional add of another region is joined although its number is covered (C7).
    CoveredConditionalJoined = "covered-conditional-joined",
    /// Floors that another region has acted on are not joined (C7).
    ForgottenFloorsLost = "forgotten-floors-lost",
    /// A join moves the vector first, and half of the cells never come (C7, F7).
    JoinedPiecewise = "joined-piecewise",
    /// Entries that did not fit into an answer are not asked for again (C7).
    RestForgotten = "rest-forgotten",
    /// A difference is installed before the checkpoint that holds it is durable (W1). Planted in the simulator, which
    /// installs as the daemon does.
    InstalledBeforeDurable = "installed-before-durable",
    /// The files of a log do not go on behind a difference (W3). Planted in the simulator, as above.
    LogsNotAdvanced = "logs-not-advanced",
    /// A stability record is stated before all members have answered (C6).
    StableBeforeAnswers = "stable-before-answers",
    /// A source sends on although a window of batches is not acknowledged (R9).
    WindowIgnored = "window-ignored",
    /// A log takes in more than its queue may hold (R9).
    QueueWithoutBound = "queue-without-bound",
    /// A cut stays open when the connection of the peer that reads it ends (R9).
    CutOutlivesLink = "cut-outlives-link",
    /// What members held before a region was removed counts as what they hold since (F31).
    AnswersOutliveMembership = "answers-outlive-membership",
    /// Batches of a removed region are taken after its heir took its logs over (R10).
    RemovedBatchTaken = "removed-batch-taken",
    /// Garbage is declared stable while a removed region's logs were not taken over (F32).
    StableBeforeInherited = "stable-before-inherited",
}
