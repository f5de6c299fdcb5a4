//! Rare events: what a sweep must have met to say anything about it.

/// Something that happens seldom and matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Rare {
    /// A process died with the machine's power.
    PowerCut,
    /// The power went in the middle of a disk operation.
    PowerCutInside,
    /// The power went while a process was recovering.
    PowerCutInRecovery,
    /// A process died, its machine did not.
    Killed,
    /// Recovery cut a torn tail.
    TornTailCut,
    /// Recovery found rot and set files aside.
    Quarantined,
    /// A range that rot took came back from peers.
    QuarantineRepaired,
    /// A checkpoint did not decode and the one before it stood in.
    CheckpointFellBack,
    /// A start was refused because of a damaged manifest.
    ManifestRefused,
    /// A process started from a checkpoint.
    StartedFromCheckpoint,
    /// A sync failed and the log took nothing more.
    SyncFailed,
    /// A disk was full under a batch.
    DiskFull,
    /// A full disk had room again and all that waited was written.
    StalledDiskResumed,
    /// A write was refused because the disk was full.
    RefusedWhenFull,
    /// Segments were pruned.
    Pruned,
    /// What nobody kept as batches any more came as the difference of two states.
    DifferenceFetched,
    /// It was installed.
    DifferenceInstalled,
    /// A process ended between the checkpoint with a difference and the logs that go on behind it.
    InstallCutShort,
    /// A difference was not installed because the disk was full or failed.
    InstallRefused,
    /// After that, one was.
    InstallRetried,
    /// What was being fetched went with its connection.
    FetchGivenUp,
    /// A region that came without any history was given it.
    SnapshotInstalled,
    /// A difference came from a region that knew seals of logs that stood here.
    DifferenceFolded,
    /// A difference came without digests: the asker knew seals that the other region did not.
    DifferenceUnsummed,
    /// Parts of digests did not find all that differed, and it was looked for with all of them.
    DigestsInFull,
    /// A region had no cut to give.
    CutRefused,
    /// Entries did not fit into one answer.
    EntriesSplit,
    /// A register went because another region had let it go.
    AbsentDropped,
    /// A difference was installed while conditional adds waited.
    InstalledAmidConditionals,
    /// A window of batches to a peer was full.
    WindowFull,
    /// A queue of batches that could not be applied was full.
    QueueFull,
    /// A seal waited for the log that it takes over.
    SealWaited,
    /// A region wrote while it was not whole.
    WroteNotWhole,
    /// A region became whole after a restart.
    BecameWhole,
    /// A disk came back older, or empty.
    RolledBack,
    /// A region whose disk had come back older was whole again.
    RollbackHealed,
    /// An acked op had no copy left when a disk came back older.
    TailLostWithDisk,
    /// A connection broke.
    LinkLost,
    /// A frame of an earlier connection arrived late.
    LateFrame,
    /// A batch arrived twice.
    Replayed,
    /// Batches were read from files for a peer.
    ServedFromFiles,
    /// A log came from somebody else than its writer.
    Relayed,
    /// A number below the mark was refused.
    StaleRefused,
    /// Other ops under a used number were refused.
    ConflictRefused,
    /// A retry was recognised.
    RetryRecognised,
    /// A session op was sent to a region that is not its home.
    Roamed,
    /// Another region than the home took a session op.
    Conditional,
    /// A session's home logged what another region had taken.
    Absorbed,
    /// A commit journal held a batch that was written to its segment again.
    JournalRedone,
    /// A session was refused because it had expired.
    ExpiredRefused,
    /// A floor under expired sessions was logged.
    FloorRaised,
    /// Garbage was declared stable.
    StableStated,
    /// A session was full.
    SessionFull,
    /// A register write met a later stamp.
    StampBehind,
    /// A clock was too far ahead.
    ClockSkew,
    /// A clock jumped.
    ClockJumped,
    /// A barrier was told of a region.
    BarrierReached,
    /// A region was killed right after a barrier was told of it.
    KilledAfterBarrier,
    /// A barrier was told that a region restarted.
    BarrierVoided,
    /// A region was removed for good.
    RegionRemoved,
    /// A region was added.
    RegionAdded,
    /// An heir took over what a removed region wrote.
    HeirSealed,
    /// A removed region's hello, or a late batch of it, was refused.
    RemovedRefused,
    /// An heir logged an op of a session whose home was removed.
    HeirAbsorbed,
    /// Two regions stood at equal vectors.
    EqualVectors,
}

impl Rare {
    /// All of them, in order.
    pub const ALL: [Self; 65] = [
        Self::PowerCut,
        Self::PowerCutInside,
        Self::PowerCutInRecovery,
        Self::Killed,
        Self::TornTailCut,
        Self::Quarantined,
        Self::QuarantineRepaired,
        Self::CheckpointFellBack,
        Self::ManifestRefused,
        Self::StartedFromCheckpoint,
        Self::SyncFailed,
        Self::DiskFull,
        Self::StalledDiskResumed,
        Self::RefusedWhenFull,
        Self::Pruned,
        Self::DifferenceFetched,
        Self::DifferenceInstalled,
        Self::InstallCutShort,
        Self::InstallRefused,
        Self::InstallRetried,
        Self::FetchGivenUp,
        Self::SnapshotInstalled,
        Self::DifferenceFolded,
        Self::DifferenceUnsummed,
        Self::DigestsInFull,
        Self::CutRefused,
        Self::EntriesSplit,
        Self::AbsentDropped,
        Self::InstalledAmidConditionals,
        Self::WindowFull,
        Self::QueueFull,
        Self::SealWaited,
        Self::WroteNotWhole,
        Self::BecameWhole,
        Self::RolledBack,
        Self::RollbackHealed,
        Self::TailLostWithDisk,
        Self::LinkLost,
        Self::LateFrame,
        Self::Replayed,
        Self::ServedFromFiles,
        Self::Relayed,
        Self::StaleRefused,
        Self::ConflictRefused,
        Self::RetryRecognised,
        Self::Roamed,
        Self::Conditional,
        Self::Absorbed,
        Self::JournalRedone,
        Self::ExpiredRefused,
        Self::FloorRaised,
        Self::StableStated,
        Self::SessionFull,
        Self::StampBehind,
        Self::ClockSkew,
        Self::ClockJumped,
        Self::BarrierReached,
        Self::KilledAfterBarrier,
        Self::BarrierVoided,
        Self::RegionRemoved,
        Self::RegionAdded,
        Self::HeirSealed,
        Self::RemovedRefused,
        Self::HeirAbsorbed,
        Self::EqualVectors,
    ];

    /// Snake case, as the summary prints it.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

/// How often each was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RareCounts([u64; Rare::ALL.len()]);

impl Default for RareCounts {
    fn default() -> Self {
        Self([0; Rare::ALL.len()])
    }
}

impl RareCounts {
    /// It was met once more.
    pub fn count(&mut self, rare: Rare) {
        self.0[rare as usize] += 1;
    }

    /// How often it was met.
    #[must_use]
    pub fn of(&self, rare: Rare) -> u64 {
        self.0[rare as usize]
    }

    /// Adds what another seed met.
    pub fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    /// What was never met: a sweep that is to vouch for all of it fails with these.
    #[must_use]
    pub fn missing(&self) -> Vec<Rare> {
        Rare::ALL.into_iter().filter(|&rare| self.of(rare) == 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rare_event_has_its_own_place_and_a_name() {
        for (at, rare) in Rare::ALL.into_iter().enumerate() {
            assert_eq!(rare as usize, at);
        }
        assert_eq!(Rare::PowerCutInside.name(), "power_cut_inside");
    }

    #[test]
    fn what_was_never_met_is_named() {
        let mut counts = RareCounts::default();
        Rare::ALL.into_iter().skip(1).for_each(|rare| counts.count(rare));
        assert_eq!(counts.missing(), [Rare::PowerCut]);
    }
}
