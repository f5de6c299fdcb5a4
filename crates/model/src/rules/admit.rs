//! Admission: what may enter a log, and as what (design.md §3.3). Start at [`send`].

use super::log::{OPS, Record};
use super::world::{HOME, OPENED_IN, World};
use crate::scenario::Scenario;
use crate::variant::{Rules, Variant};

/// Whether whatever can be sent again is too old to be taken.
fn is_past_window(world: &World, rules: Rules) -> bool {
    world.is_late && !rules.breaks(Variant::NoWindow)
}

/// Whether a region logs ops of the session as `Op`.
#[must_use]
pub fn has_authority(world: &World, region: u8, rules: Rules) -> bool {
    world.region(region).has_authority(OPENED_IN)
        || (rules.breaks(Variant::NotWholeHasAuthority) && region == HOME && world.removed.is_none())
}

/// Whether an op's record in this region may bring a settled mark.
#[must_use]
pub fn records_marks(world: &World, region: u8, rules: Rules) -> bool {
    world.region(region).log == OPENED_IN || rules.breaks(Variant::LaterEpochMovesMark)
}

/// A session op, or a copy of it, reaches a region.
pub fn send(world: &mut World, (number, mark): (u8, u8), region: u8, is_heard: bool, rules: Rules) {
    world.client.sent |= 1 << number;
    let shard = &world.region(region).shard;
    if is_past_window(world, rules) || shard.is_expired || shard.is_forgotten {
        return;
    }
    let is_covered = shard.covers(number, rules);
    let is_known = is_covered || shard.is_conditional(number);
    let generation = shard.generation;
    if has_authority(world, region, rules) {
        if is_covered && shard.set >> number & 1 == 0 {
            return; // Stale: below the mark, and not in the set.
        }
        if !is_known || (!is_covered && rules.breaks(Variant::RetryIgnoresConditional)) {
            let mark = if records_marks(world, region, rules) { mark } else { 0 };
            world.write(region, Record::Op { number, generation, mark }, rules);
        } else if !is_covered {
            absorb(world, region, number, rules);
        }
        world.client.settled |= u8::from(is_heard) << number;
    } else if !is_known {
        world.write(region, Record::Cond { number, generation }, rules);
    }
    if is_heard {
        world.client.answered |= 1 << number;
        if rules.breaks(Variant::MarkMovesOnAnyAnswer) {
            world.client.settled |= 1 << number;
        }
    }
}

/// Whether the authority may absorb what it holds of a number.
#[must_use]
pub fn may_absorb(world: &World, region: u8, number: u8, rules: Rules) -> bool {
    has_authority(world, region, rules)
        && world.region(region).shard.is_conditional(number)
        && !world.region(region).shard.is_forgotten
        && !rules.breaks(Variant::NeverAbsorbs)
        && !(world.is_late && rules.breaks(Variant::WindowStopsAbsorbing))
}

/// The authority logs what it holds as a conditional, under the conditional's generation; no mark moves.
pub fn absorb(world: &mut World, region: u8, number: u8, rules: Rules) {
    let shard = &world.region(region).shard;
    let generation = if rules.breaks(Variant::AbsorbUnderOwnGeneration) {
        shard.generation
    } else {
        shard.conditionals[usize::from(number)].generation
    };
    world.write(region, Record::Op { number, generation, mark: 0 }, rules);
}

/// An add outside any session: a digit of its own.
pub fn add(world: &mut World, region: u8, rules: Rules) {
    let generation = world.region(region).shard.generation;
    let digit = OPS as u8 + world.client.adds;
    world.client.adds += 1;
    world.write(region, Record::Add { digit, generation }, rules);
}

/// A delete of the counter: its generation is fixed where it is first sent, above all that was seen there.
pub fn delete(world: &mut World, delete: u8, region: u8, rules: Rules) {
    if is_past_window(world, rules) {
        return;
    }
    let next = ((world.region(region).shard.generation >> 1) + 1) << 1 | delete;
    let generation = match world.client.deletes[usize::from(delete)] {
        0 => next,
        fixed => fixed,
    };
    world.client.deletes[usize::from(delete)] = generation;
    world.write(region, Record::Delete { generation }, rules);
}

/// Stamps of clocks after the window has passed are above all before.
const LATER: u8 = 16;

/// A register write: its stamp is fixed where it is first sent, above the value seen there.
pub fn write(world: &mut World, write: u8, region: u8, scenario: &Scenario, rules: Rules) {
    let at = usize::from(write);
    let is_first = world.client.stamps[at] == 0;
    if is_first && world.is_late {
        world.client.young |= 1 << write;
    }
    if is_past_window(world, rules) && world.client.young >> write & 1 == 0 {
        return;
    }
    let register = world.region(region).shard.register;
    let clock = scenario.clocks[usize::from(region)] + if world.is_late { LATER } else { 0 };
    let stamp = clock.max(register.stamp + 1);
    if is_first {
        world.client.stamps[at] = stamp;
        world.client.saw[at] = if register.stamp == 0 { 0 } else { register.write + 1 };
    }
    let stamp = if rules.breaks(Variant::StampPerCopy) { stamp } else { world.client.stamps[at] };
    world.write(region, Record::Write { write, stamp, tombstone: scenario.writes[at] }, rules);
}
