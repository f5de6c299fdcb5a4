//! The scenarios that tests search: named by what happens in them, each as small as its subject allows.
//!
//! [`RETRIES`] to [`DELETED_GARBAGE`] are small enough for a bad rule to be caught, and a good one to be shown, within
//! a second. [`WIDE`] are the large mixes, for as long as one cares to wait.

use crate::rules::action::Action;
use crate::scenario::{Budget, QUIET, Scenario};

const NOTHING: Budget = QUIET.budget;
const REGION_0: u8 = 0b001;
const REGION_1: u8 = 0b010;
/// A value, then its delete.
const SET_AND_DELETE: &[bool] = &[false, true];

/// One op, retried anywhere, around a delete.
pub const RETRIES: Scenario = Scenario {
    name: "one op, its retries, a delete",
    ops: 1,
    deletes: 1,
    budget: Budget { sends: 3, deletes: 1, ..NOTHING },
    ..QUIET
};

/// One op and a plain add around a delete, and a merge.
pub const RETRIES_MERGED: Scenario = Scenario {
    name: "one op, its retry, a plain add, a delete, a merge",
    ops: 1,
    deletes: 1,
    budget: Budget { sends: 2, deletes: 1, merges: 1, adds: 1, ..NOTHING },
    ..QUIET
};

/// One op around two deletes, and a merge.
pub const TWO_DELETES: Scenario = Scenario {
    name: "one op, its retry, two deletes, a merge",
    ops: 1,
    deletes: 2,
    budget: Budget { sends: 2, deletes: 2, merges: 1, ..NOTHING },
    ..QUIET
};

/// Two ops, so that the settled mark can move.
pub const MARKS: Scenario =
    Scenario { name: "two ops, their retries", ops: 2, budget: Budget { sends: 4, ..NOTHING }, ..QUIET };

/// Two ops, some given up, so that the mark passes what nobody answered.
pub const GIVEN_UP: Scenario = Scenario {
    name: "two ops, one given up",
    ops: 2,
    budget: Budget { sends: 3, give_ups: 1, ..NOTHING },
    ..QUIET
};

/// Two ops and a merge.
pub const MARKS_MERGED: Scenario = Scenario {
    name: "two ops, a retry, a merge",
    ops: 2,
    budget: Budget { sends: 3, merges: 1, ..NOTHING },
    ..QUIET
};

/// The home crashes.
pub const CRASH: Scenario = Scenario {
    name: "one op, a plain add, a crash of the home, a merge",
    ops: 1,
    faulty: REGION_0,
    budget: Budget { sends: 2, crashes: 1, merges: 1, adds: 1, ..NOTHING },
    ..QUIET
};

/// The home comes back with an old disk.
pub const ROLLBACK: Scenario = Scenario {
    name: "one op, its retry, an old disk of the home",
    ops: 1,
    faulty: REGION_0,
    budget: Budget { sends: 2, rollbacks: 1, ..NOTHING },
    ..QUIET
};

/// Two ops, and the home comes back with an old disk.
pub const MARKS_ROLLBACK: Scenario = Scenario {
    name: "two ops, a retry, an old disk of the home",
    ops: 2,
    faulty: REGION_0,
    budget: Budget { sends: 3, rollbacks: 1, ..NOTHING },
    ..QUIET
};

/// A plain add, and two regions that come back with old disks, one while the other asks what it lost.
pub const TWO_OLD_DISKS: Scenario = Scenario {
    name: "a plain add, old disks of two regions",
    faulty: REGION_0 | REGION_1,
    budget: Budget { adds: 1, rollbacks: 2, ..NOTHING },
    ..QUIET
};

/// A frame that is on its way while its sender comes back with an old disk.
pub const LATE_FRAME: Scenario = Scenario {
    name: "a plain add, a late frame, an old disk",
    faulty: REGION_0,
    budget: Budget { adds: 1, frames: 1, rollbacks: 1, ..NOTHING },
    ..QUIET
};

/// A frame on its way between two members, whose sender comes back with an old disk, as the asking region did.
pub const LATE_FRAME_OF_ANOTHER: Scenario = Scenario {
    name: "a plain add, a late frame, old disks of two regions",
    budget: Budget { frames: 1, ..TWO_OLD_DISKS.budget },
    ..TWO_OLD_DISKS
};

/// Nobody is whole yet.
pub const FIRST_START: Scenario = Scenario {
    name: "one op, its retry, a crash, nobody whole yet",
    ops: 1,
    is_first_start: true,
    budget: Budget { sends: 2, crashes: 1, ..NOTHING },
    ..QUIET
};

/// Plain adds, and regions that come back with old disks.
pub const ROLLBACK_ADDS: Scenario = Scenario {
    name: "two plain adds, two old disks",
    budget: Budget { adds: 2, rollbacks: 2, ..NOTHING },
    ..QUIET
};

/// Any region comes back with an old disk.
pub const ROLLBACK_ANYWHERE: Scenario = Scenario {
    name: "one op, its retry, an old disk anywhere",
    ops: 1,
    budget: Budget { sends: 2, rollbacks: 1, ..NOTHING },
    ..QUIET
};

/// The session ends and its tables go.
pub const EXPIRY: Scenario = Scenario {
    name: "one op, its retry, expiry",
    ops: 1,
    budget: Budget { sends: 2, garbage: true, ..NOTHING },
    ..QUIET
};

/// As [`EXPIRY`], and a member comes back with an old disk.
pub const EXPIRY_ROLLBACK: Scenario = Scenario {
    name: "one op, its retry, expiry, an old disk of a member",
    ops: 1,
    faulty: REGION_1,
    budget: Budget { sends: 2, rollbacks: 1, garbage: true, ..NOTHING },
    ..QUIET
};

/// The home is removed.
pub const REMOVAL: Scenario = Scenario {
    name: "one op, its retry, removal of the home",
    ops: 1,
    budget: Budget { sends: 2, removal: true, ..NOTHING },
    ..QUIET
};

/// The home is removed while another region is being restarted.
pub const REMOVAL_CRASH: Scenario = Scenario {
    name: "a plain add, a crash anywhere, removal of the home",
    budget: Budget { adds: 1, crashes: 1, removal: true, ..NOTHING },
    ..QUIET
};

/// Register writes and their copies; the clocks differ.
pub const REGISTER: Scenario = Scenario {
    name: "two register writes and a copy, clocks apart",
    writes: &[false, false],
    clocks: [1, 4, 8],
    budget: Budget { writes: 3, ..NOTHING },
    ..QUIET
};

/// Register writes and their copies; the clocks agree, so that stamps may tie.
pub const REGISTER_TIES: Scenario =
    Scenario { name: "two register writes and a copy", clocks: [1; 3], ..REGISTER };

/// A register that is deleted, its garbage, and a merge.
pub const TOMBSTONE: Scenario = Scenario {
    name: "a register write and its delete, garbage, a merge",
    writes: SET_AND_DELETE,
    budget: Budget { writes: 2, merges: 1, garbage: true, ..NOTHING },
    ..QUIET
};

/// A register that is deleted, its garbage, and removal of the home.
pub const TOMBSTONE_REMOVAL: Scenario = Scenario {
    name: "a register write and its delete, garbage, removal of the home",
    writes: SET_AND_DELETE,
    budget: Budget { writes: 2, garbage: true, removal: true, ..NOTHING },
    ..QUIET
};

/// A register that is deleted, and a member whose old disk holds the value; a merge.
pub const TOMBSTONE_OLD_DISK: Scenario = Scenario {
    name: "a register write and its delete, garbage, an old disk of a member, a merge",
    writes: SET_AND_DELETE,
    faulty: REGION_1,
    opening: &[
        Action::Write(0, 0),
        Action::Ship { log: 0, from: 0, to: 1 },
        Action::Save(1),
        Action::Write(1, 0),
    ],
    budget: Budget { writes: 2, rollbacks: 1, merges: 1, garbage: true, ..NOTHING },
    ..QUIET
};

/// A register that is deleted after the window of all before has passed, in a log that is then sealed; a copy.
pub const YOUNG_TOMBSTONE: Scenario = Scenario {
    name: "a late delete of the register in a sealed log, a copy, garbage",
    writes: &[true],
    faulty: REGION_0,
    opening: &[
        Action::WindowPasses,
        Action::Write(0, 0),
        Action::Crash(0),
        Action::Answer(0, 1),
        Action::Answer(0, 2),
        Action::Answer(0, 1),
        Action::BecomeWhole(0),
    ],
    budget: Budget { writes: 2, crashes: 1, garbage: true, ..NOTHING },
    ..QUIET
};

/// A counter that is deleted, and garbage.
pub const DELETED_GARBAGE: Scenario = Scenario {
    name: "a delete of the counter, a plain add, garbage",
    deletes: 1,
    budget: Budget { deletes: 1, adds: 1, garbage: true, ..NOTHING },
    ..QUIET
};

/// Small scenarios that no bad rule is named after.
pub const SMALL: &[Scenario] =
    &[TWO_DELETES, RETRIES_MERGED, MARKS_MERGED, GIVEN_UP, ROLLBACK_ANYWHERE, FIRST_START];

/// Large mixes: bounded by time, not by their end.
pub const WIDE: &[Scenario] = &[
    Scenario {
        name: "two ops, a delete, a crash of the home, a merge",
        ops: 2,
        deletes: 1,
        faulty: REGION_0,
        budget: Budget { sends: 3, deletes: 1, crashes: 1, merges: 1, ..NOTHING },
        ..QUIET
    },
    Scenario {
        name: "one op, a delete, an old disk anywhere, a merge",
        ops: 1,
        deletes: 1,
        budget: Budget { sends: 2, deletes: 1, rollbacks: 1, merges: 1, ..NOTHING },
        ..QUIET
    },
    Scenario {
        name: "one op, two crashes, a merge",
        ops: 1,
        budget: Budget { sends: 2, crashes: 2, merges: 1, ..NOTHING },
        ..QUIET
    },
    ROLLBACK_ADDS,
    Scenario {
        name: "one op, a delete, removal of the home, a crash, a merge",
        ops: 1,
        deletes: 1,
        budget: Budget { sends: 2, deletes: 1, removal: true, crashes: 1, merges: 1, ..NOTHING },
        ..QUIET
    },
    Scenario {
        name: "three ops, two deletes, a crash, an old disk, two merges",
        ops: 3,
        deletes: 2,
        budget: Budget { sends: 5, deletes: 2, crashes: 1, rollbacks: 1, merges: 2, ..NOTHING },
        ..QUIET
    },
    Scenario {
        name: "two ops, a delete, expiry, a crash, removal of the home",
        ops: 2,
        deletes: 1,
        budget: Budget { sends: 3, deletes: 1, crashes: 1, garbage: true, removal: true, ..NOTHING },
        ..QUIET
    },
    Scenario {
        name: "three register writes, a crash, an old disk, garbage, a merge",
        writes: &[false, true, false],
        clocks: [1, 4, 8],
        budget: Budget { writes: 5, crashes: 1, rollbacks: 1, garbage: true, merges: 1, ..NOTHING },
        ..QUIET
    },
    Scenario {
        name: "everything at once",
        ops: 3,
        deletes: 1,
        writes: SET_AND_DELETE,
        budget: Budget {
            sends: 4,
            deletes: 1,
            writes: 3,
            adds: 1,
            frames: 1,
            merges: 2,
            crashes: 1,
            rollbacks: 1,
            give_ups: 1,
            garbage: true,
            removal: true,
        },
        ..QUIET
    },
];
