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
            _ => (&[], None, None),
        };
        Self { faults, has_checkpoints, is_expiring }
    }

    /// Makes sure of the faults.
    pub(crate) fn adjust(&self, faults: &mut Vec<Fault>) {
        faults.retain(|fault| !self.faults.contains(fault));
        faults.splice(0..0, self.faults.iter().copied());
    }
}
