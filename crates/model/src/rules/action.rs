//! All that can happen, each as a value that prints as a sentence. Start at [`Action`]; `step.rs` carries them out.

use std::fmt;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// An op, or a copy of it, reaches a region.
    Send {
        /// The op's number.
        number: u8,
        /// The region.
        region: u8,
        /// The settled mark it carries.
        mark: u8,
        /// Whether the answer reaches the client.
        is_heard: bool,
    },
    /// The client gives an op up that nobody answered.
    GiveUp(u8),
    /// A region takes an add outside any session.
    Add(u8),
    /// A delete of the counter, or a copy of it, reaches a region.
    Delete(u8, u8),
    /// A register write, or a copy of it, reaches a region.
    Write(u8, u8),
    /// The authority logs an op that it holds a conditional of.
    Absorb(u8, u8),
    /// A region catches up on a log from a member that holds it.
    Ship {
        /// The log.
        log: u8,
        /// Who has it.
        from: u8,
        /// Who takes it.
        to: u8,
    },
    /// A member sends what another lacks of a log, and it stays on its way.
    Depart {
        /// The log.
        log: u8,
        /// Who sends it.
        from: u8,
        /// To whom.
        to: u8,
    },
    /// What was on its way arrives.
    Arrive,
    /// A region installs another's state, joined with its own.
    Merge(u8, u8),
    /// A region's process starts again.
    Crash(u8),
    /// Someone copies a region's disk.
    Save(u8),
    /// A region's process starts again on the copied disk.
    Rollback(u8),
    /// A region is asked by another what it holds, and answers.
    Answer(u8, u8),
    /// A region has all that any member held, and seals its earlier logs.
    BecomeWhole(u8),
    /// The home is removed, for ever.
    Remove,
    /// The heir seals the removed region's logs.
    Inherit,
    /// The window passes over all that was sent so far.
    WindowPasses,
    /// The authority expires the session.
    Expire(u8),
    /// A member acks a region's log.
    Ack(u8, u8),
    /// A region says that garbage may go.
    Stable(u8),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Send { number, region, mark, is_heard } => {
                write!(f, "op {number} reaches region {region}")?;
                if mark > 0 {
                    write!(f, " with mark {mark}")?;
                }
                f.write_str(if is_heard { "; the client hears the answer" } else { "; no answer is heard" })
            }
            Self::GiveUp(number) => write!(f, "the client gives op {number} up"),
            Self::Add(region) => write!(f, "region {region} takes a plain add"),
            Self::Delete(delete, region) => write!(f, "delete {delete} reaches region {region}"),
            Self::Write(write, region) => write!(f, "register write {write} reaches region {region}"),
            Self::Absorb(region, number) => {
                write!(f, "region {region} absorbs the conditional of op {number}")
            }
            Self::Ship { log, from, to } => {
                write!(f, "region {to} catches up on log {log} from region {from}")
            }
            Self::Depart { log, from, to } => {
                write!(f, "region {from} sends a frame of log {log} to region {to}")
            }
            Self::Arrive => f.write_str("the frame arrives"),
            Self::Merge(from, to) => write!(f, "region {to} installs the state of region {from}"),
            Self::Crash(region) => write!(f, "region {region} crashes and starts again"),
            Self::Save(region) => write!(f, "the disk of region {region} is copied"),
            Self::Rollback(region) => write!(f, "region {region} starts again on its copied disk"),
            Self::Answer(region, member) => write!(f, "region {member} answers the hello of region {region}"),
            Self::BecomeWhole(region) => write!(f, "region {region} is whole and seals its earlier logs"),
            Self::Remove => f.write_str("the home is removed"),
            Self::Inherit => f.write_str("the heir seals the removed region's logs"),
            Self::WindowPasses => f.write_str("all that was sent leaves the window"),
            Self::Expire(region) => write!(f, "region {region} expires the session"),
            Self::Ack(region, member) => write!(f, "region {member} acks the log of region {region}"),
            Self::Stable(region) => write!(f, "region {region} writes Stable"),
        }
    }
}
