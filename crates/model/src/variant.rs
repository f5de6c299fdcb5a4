//! The rules that were found wrong, each under a name, and the set of them that one run breaks on purpose.
//!
//! Holds no rule itself: the rules ask [`Rules::breaks`] where a variant would differ. Start at [`Variant`].

/// One rule broken. F1 to F33 count the findings of the rules' review; those that have no variant stand in the crate's
/// documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Variant {
    /// F1: a restarted region calls itself whole once *some* member answered; another may hold the only tail.
    WholeAsksSomeMembers,
    /// F1: a restarted region calls itself whole at once, without asking.
    WholeAsksNobody,
    /// F2: the settled mark passes numbers that any region answered, also those that logged a conditional.
    MarkMovesOnAnyAnswer,
    /// F2: what lies below the mark is not covered, only what is in the set.
    CoveredIsOnlyTheSet,
    /// F3: merging takes the maximum of each slot, though a slot empties when its log is sealed.
    PerSlotMaximum,
    /// F4: a session's tables go when `Expire` is applied; a late conditional then counts beside its `Op`.
    ExpireDropsTablesAtOnce,
    /// F4: a conditional that arrives after `Expire` is thrown away, though it was answered yes before.
    ExpireDropsLateConditionals,
    /// F5: each region's conditional counts for itself.
    ConditionalPerRegion,
    /// F7: a state is installed without the vector it stands for; the stream applies the same records again.
    InstallWithoutVector,
    /// F7: a state is installed without the session tables; a conditional counts beside its `Op`.
    InstallWithoutSessions,
    /// F8: only a log's owner ships it; a tail that one member holds never reaches the others.
    NobodyRelays,
    /// F9c: an epoch that did not open the session moves its mark, past answers that were lost with a disk.
    LaterEpochMovesMark,
    /// F9d: the heir seals by answers that were given before the removal.
    StaleHeirAnswers,
    /// F31: a removal leaves the answers standing that a region which is not yet whole was given before it.
    RemovalKeepsAnswers,
    /// F33: a member that was restarted answers again, and the other members' earlier answers stay.
    RestartKeepsOtherAnswers,
    /// A member goes on taking frames of a connection after it answered a hello of the sender's next epoch.
    OldFramesTaken,
    /// F34: a hello does not say which epochs of others are known; frames of a third region's last epoch are taken.
    HelloNamesNoEpochs,
    /// F11: a register that one side of a merge lacks counts as deleted.
    AbsentMeansDeleted,
    /// F11: a register that one side of a merge lacks counts as not yet known there.
    AbsentMeansUnknown,
    /// F12: every region that takes a copy of a register write stamps it itself.
    StampPerCopy,
    /// F14: two writes with one stamp are not told apart; what came first stays.
    StampTieUnbroken,
    /// F17: nobody inherits from a removed region.
    RemovalWithoutHeir,
    /// F22: a member's ack outlives the member's epoch, though its disk may have been rolled back since. Barriers
    /// need the rule; `Stable` does not, as the window keeps such a member from taking what is old.
    AckOutlivesEpoch,
    /// F27: absorbing gives the op the generation the authority sees, not the conditional's.
    AbsorbUnderOwnGeneration,
    /// F28: a conditional does not raise the counter's generation. Harmless alone, not with the next one.
    ConditionalDoesNotRaise,
    /// F28: the authority logs a retry under the generation it sees, though it holds a conditional of it.
    RetryIgnoresConditional,
    /// F29: the generation of a deleted, empty counter is dropped at `Stable`.
    CounterTombstoneDropped,
    /// F30: records that can be sent again are taken however old they are.
    NoWindow,
    /// F30: acks count for `Stable` though they were taken before what it covers left the window.
    EarlyAcksCount,
    /// `Stable` covers a sealed log whole, also what in it may still be sent again.
    AgeEndsAtSeals,
    /// F32: `Stable` is written though a removed region's log is not sealed yet.
    StableBeforeRemovedSealed,
    /// The generation of adds is not looked at: a delete empties the slots and that is all.
    AddsIgnoreGenerations,
    /// `Seal` is applied before the sealed log has arrived to its end.
    SealBeforeEnd,
    /// `Stable` is acted on at once, wherever the members' own logs have got to.
    StableIgnoresU,
    /// `Stable` is written before the conditionals of the expired session are absorbed.
    StableBeforeAbsorbing,
    /// `Stable` counts acks of members that are not whole.
    AckOfNotWholeRegion,
    /// A restarted writer goes on in its old log.
    ReuseEpoch,
    /// The authority never absorbs.
    NeverAbsorbs,
    /// The window also forbids absorbing: what was answered yes shortly before its end stays conditional for ever.
    WindowStopsAbsorbing,
    /// A region that is not whole takes ops of its own older sessions as their authority.
    NotWholeHasAuthority,
    /// A conditional counts only if the one with the smallest (log, seq) is of the counter's generation.
    WinnerBeforeGeneration,
}

/// The rules of one run: the good ones, or the good ones with some broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules(u64);

impl Rules {
    /// The rules as they hold.
    pub const GOOD: Self = Self(0);

    /// These rules, with one more of them broken.
    #[must_use]
    pub const fn without(self, variant: Variant) -> Self {
        Self(self.0 | 1 << variant as u8)
    }

    /// Whether a variant stands in for its rule.
    #[must_use]
    pub const fn breaks(self, variant: Variant) -> bool {
        self.0 >> variant as u8 & 1 == 1
    }
}
