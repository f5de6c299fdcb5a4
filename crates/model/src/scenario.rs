//! A scenario: what clients do and which faults may come, so that the search stays finite.

use crate::rules::action::Action;

/// How often each thing may still happen. What is not asked for does not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Times that session ops reach a region, copies included.
    pub sends: u8,
    /// Times that deletes reach a region, copies included.
    pub deletes: u8,
    /// Times that register writes reach a region, copies included.
    pub writes: u8,
    /// Adds outside the session.
    pub adds: u8,
    /// Frames that stay on their way while other things happen.
    pub frames: u8,
    /// State merges.
    pub merges: u8,
    /// Restarts of any region on its own disk.
    pub crashes: u8,
    /// Restarts on an old copy of a disk.
    pub rollbacks: u8,
    /// Ops that the client may give up.
    pub give_ups: u8,
    /// Whether the window passes, the session expires and garbage goes.
    pub garbage: bool,
    /// Whether the home is removed.
    pub removal: bool,
}

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What it is about.
    pub name: &'static str,
    /// Numbers of the session.
    pub ops: u8,
    /// Deletes of the counter.
    pub deletes: u8,
    /// Register writes: `true` is a delete.
    pub writes: &'static [bool],
    /// Regions that may crash or come back with an old disk, one bit each.
    pub faulty: u8,
    /// Each region's clock, as stamps it issues.
    pub clocks: [u8; 3],
    /// The heir of the home, if it is removed.
    pub heir: u8,
    /// Whether no region is whole yet; else all have been whole for ever.
    pub is_first_start: bool,
    /// What has happened before the search starts.
    pub opening: &'static [Action],
    /// What may happen.
    pub budget: Budget,
}

/// Nothing happens.
pub const QUIET: Scenario = Scenario {
    name: "quiet",
    ops: 0,
    deletes: 0,
    writes: &[],
    faulty: 0b111,
    clocks: [1, 1, 1],
    heir: 1,
    is_first_start: false,
    opening: &[],
    budget: Budget {
        sends: 0,
        deletes: 0,
        writes: 0,
        adds: 0,
        frames: 0,
        merges: 0,
        crashes: 0,
        rollbacks: 0,
        give_ups: 0,
        garbage: false,
        removal: false,
    },
};
