//! [`Suit`]: what a seed must meet so that a mutant can show itself; all else is drawn as ever. The honest rules have to
//! hold in the same weather.

use tombolo_mutants::Mutant;

use crate::plan::Fault;

/// What is certain of a seed's plan.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Suit {
    pub(crate) faults: &'static [Fault],
    pub(crate) has_checkpoints: Option<bool>,
    pub(crate) is_expiring: Option<bool>,
    pub(crate) is_retention_short: Option<bool>,
    pub(crate) window_bytes: Option<usize>,
    /// Whether there are no other faults.
    pub(crate) is_calm: bool,
    /// Whether a region is removed.
    pub(crate) is_removing: bool,
}

impl Suit {
    pub(crate) fn of(mutant: Option<Mutant>) -> Self {
        let (faults, has_checkpoints, is_expiring): (&[Fault], _, _) = match mutant {
            Some(Mutant::RetryFailedSync) => (&[Fault::SyncFailure, Fault::PowerCut], None, None),
            Some(Mutant::StampBoundNotPersisted) => {
                (&[Fault::Kill, Fault::ClockJump], Some(false), Some(false))
            }
            Some(
                Mutant::ConditionalPerRegion | Mutant::CoveredConditionalCounts | Mutant::SealAppliedEarly,
            ) => (&[Fault::Kill, Fault::Isolate], None, None),
            Some(Mutant::AuthorityBeforeWhole | Mutant::WholeAsksSome | Mutant::AckOfOldEpochCounts) => {
                (&[Fault::Restore], None, None)
            }
            Some(Mutant::MarkMovesOnAnyAnswer | Mutant::AbsorbUnderOwnGeneration) => {
                (&[Fault::Isolate, Fault::Kill], None, None)
            }
            Some(Mutant::ConditionalDoesNotRaise) => {
                (&[Fault::Pause, Fault::CutOneWay, Fault::Kill], None, None)
            }
            Some(Mutant::FoldByMaximum | Mutant::ReuseEpoch) => (&[Fault::Kill], None, None),
            Some(Mutant::TablesGoAtOnce) => (&[Fault::Isolate, Fault::CutBothWays], None, Some(true)),
            Some(Mutant::ExpiredSessionGoesOn) => (&[], None, Some(true)),
            Some(Mutant::CutAtFirstBadDigest) => (&[Fault::Rot], Some(false), None),
            Some(Mutant::JournalRecycledEarly | Mutant::RedoSkipped) => (&[Fault::PowerCut], None, None),
            Some(Mutant::CheckpointWithoutSessions) => (&[Fault::Kill], Some(true), None),
            // What was deleted goes while regions see one another, and comes back when they were apart for long.
            Some(it) if Self::is_of_garbage(it) => (&[Fault::Isolate], Some(true), Some(true)),
            Some(it) if Self::is_of_differences(it) => {
                (&[Fault::Isolate, Fault::Restore, Fault::Kill], Some(true), None)
            }
            Some(Mutant::AnswersOutliveMembership | Mutant::RemovedBatchTaken) => {
                (&[Fault::Isolate, Fault::CutBothWays], None, None)
            }
            Some(Mutant::StableBeforeAnswers | Mutant::StableBeforeInherited) => {
                (&[Fault::Isolate, Fault::CutBothWays], None, Some(true))
            }
            Some(Mutant::WindowIgnored | Mutant::QueueWithoutBound) => {
                (&[Fault::Isolate, Fault::Pause, Fault::Break], None, None)
            }
            _ => (&[], None, None),
        };
        let is_retention_short = mutant.is_some_and(Self::is_of_differences).then_some(true);
        let is_calm = mutant.is_some_and(Self::is_of_garbage);
        let is_of_bounds = matches!(mutant, Some(Mutant::WindowIgnored | Mutant::QueueWithoutBound));
        let window_bytes = is_of_bounds.then_some(1_500);
        let is_removing = mutant.is_some_and(Self::is_of_removals);
        Self { faults, has_checkpoints, is_expiring, is_retention_short, window_bytes, is_calm, is_removing }
    }

    /// Whether it shows only where a region is removed.
    fn is_of_removals(mutant: Mutant) -> bool {
        matches!(
            mutant,
            Mutant::AnswersOutliveMembership | Mutant::RemovedBatchTaken | Mutant::StableBeforeInherited
        )
    }

    /// Whether it shows only where histories are gone.
    fn is_of_differences(mutant: Mutant) -> bool {
        matches!(
            mutant,
            Mutant::CutReadsOn
                | Mutant::ShorterPrefixWins
                | Mutant::UnsentNotFolded
                | Mutant::UnseenRegisterGoes
                | Mutant::DroppedRegisterStays
                | Mutant::DroppedRegisterReturns
                | Mutant::CoveredConditionalJoined
                | Mutant::ForgottenFloorsLost
                | Mutant::JoinedPiecewise
                | Mutant::RestForgotten
                | Mutant::InstalledBeforeDurable
                | Mutant::LogsNotAdvanced
                | Mutant::CutOutlivesLink
        )
    }

    /// Whether it shows only in what one region let go and another one has.
    fn is_of_garbage(mutant: Mutant) -> bool {
        matches!(
            mutant,
            Mutant::DroppedRegisterStays | Mutant::DroppedRegisterReturns | Mutant::ForgottenFloorsLost
        )
    }

    /// Makes sure of the faults.
    pub(crate) fn adjust(&self, faults: &mut Vec<Fault>) {
        faults.retain(|fault| !self.is_calm && !self.faults.contains(fault));
        faults.splice(0..0, self.faults.iter().copied());
    }
}
