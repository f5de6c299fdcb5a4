//! Restarts, hellos, becoming whole, removal and the heir (design.md §3.4).

use super::log::{NONE, REGIONS, Record};
use super::region::Region;
use super::shard::Shard;
use super::world::{Frame, HOME, World};
use crate::scenario::Scenario;
use crate::variant::{Rules, Variant};

/// A region's process starts on a disk, in an epoch of its own; false if the model has no room for another.
#[must_use]
pub fn restart(world: &mut World, region: u8, disk: Shard, rules: Rules) -> bool {
    let old = world.region(region).log;
    let log = if rules.breaks(Variant::ReuseEpoch) { Some(old) } else { world.logs.open(region) };
    let Some(log) = log else { return false };
    *world.region_mut(region) = Region::restarted(disk, log);
    world.frame = world.frame.filter(|frame| frame.to != region);
    world.forget_unheld();
    true
}

/// Whether a region needs answers: it is not whole, or it has to inherit.
#[must_use]
pub fn asks(world: &World, region: u8, scenario: &Scenario, rules: Rules) -> bool {
    !world.region(region).is_whole || has_to_inherit(world, region, scenario, rules)
}

/// Whether a member's answer would tell a region anything.
#[must_use]
pub fn lacks_answer(world: &World, region: u8, member: u8) -> bool {
    let asking = world.region(region);
    let at = usize::from(member);
    asking.answers[at].is_none() || asking.met[at] != world.region(member).log
}

/// A member tells a region what it holds.
///
/// An answer from an epoch of the member that this process has not met voids the others' answers: before it began,
/// what it does not hold may have moved from its disk to a member that had answered already.
pub fn answer(world: &mut World, region: u8, member: u8, rules: Rules) {
    let vector = world.region(member).shard.vector;
    let epoch = world.region(member).log;
    refuse_old_frames(world, region, member, rules);
    let asking = world.region_mut(region);
    let at = usize::from(member);
    if asking.met[at] != epoch && !rules.breaks(Variant::RestartKeepsOtherAnswers) {
        asking.answers = [None; REGIONS];
    }
    asking.met[at] = epoch;
    asking.answers[at] = Some(vector);
    if !rules.breaks(Variant::AckOutlivesEpoch) {
        world.region_mut(member).acks[usize::from(region)] = None;
    }
}

/// A member that answers takes no frame any more from epochs that the asking region knows to be over: its own, and
/// those of members that it has met in a later one. Nor from a removed region.
fn refuse_old_frames(world: &mut World, region: u8, member: u8, rules: Rules) {
    let asking = world.region(region);
    let is_old = |frame: &Frame| {
        let met = asking.met[usize::from(frame.from)];
        frame.to == member
            && match () {
                () if Some(frame.from) == world.removed => true,
                () if frame.from == region => {
                    frame.epoch != asking.log && !rules.breaks(Variant::OldFramesTaken)
                }
                () => met != NONE && met != frame.epoch && !rules.breaks(Variant::HelloNamesNoEpochs),
            }
    };
    if world.frame.as_ref().is_some_and(is_old) {
        world.frame = None;
        world.forget_unheld();
    }
}

/// Whether all members answered, and all that they held then is here.
#[must_use]
pub fn has_caught_up(world: &World, region: u8, rules: Rules) -> bool {
    if rules.breaks(Variant::WholeAsksNobody) {
        return true;
    }
    let own = world.region(region);
    let is_answered = |member: u8| own.answers[usize::from(member)].is_some();
    let is_enough = if rules.breaks(Variant::WholeAsksSomeMembers) {
        world.others(region).any(is_answered)
    } else {
        world.others(region).all(is_answered)
    };
    is_enough && own.answers.iter().flatten().all(|answer| own.shard.reaches(answer))
}

/// Seals the earlier logs of `owner` in a region's log.
fn seal_logs_of(world: &mut World, owner: u8, region: u8, rules: Rules) {
    for log in world.logs.names() {
        let own = world.region(region);
        let is_open = own.shard.sealed_by[usize::from(log)] == NONE && log != own.log;
        if is_open && world.logs.get(log).region == owner {
            let end = own.shard.held(log);
            world.write(region, Record::Seal { log, end }, rules);
        }
    }
}

/// The region has caught up: it takes its earlier logs over.
pub fn become_whole(world: &mut World, region: u8, scenario: &Scenario, rules: Rules) {
    seal_logs_of(world, region, region, rules);
    let is_needed = has_to_inherit(world, region, scenario, rules) || rules.breaks(Variant::StaleHeirAnswers);
    let own = world.region_mut(region);
    own.is_whole = true;
    if !is_needed {
        own.answers = [None; REGIONS];
        own.met = [NONE; REGIONS];
    }
}

/// The home is removed: it and its disks are gone. Answers were given under another membership and count no more.
pub fn remove(world: &mut World, rules: Rules) {
    let log = world.region(HOME).log;
    *world.region_mut(HOME) = Region::new(log);
    world.removed = Some(HOME);
    world.saved[usize::from(HOME)] = None;
    for member in world.members() {
        let own = world.region_mut(member);
        let keeps = if own.is_whole { Variant::StaleHeirAnswers } else { Variant::RemovalKeepsAnswers };
        if !rules.breaks(keeps) {
            own.answers = [None; REGIONS];
        }
        own.answers[usize::from(HOME)] = None;
        own.acks[usize::from(HOME)] = None;
    }
    world.frame = world.frame.filter(|frame| frame.to != HOME);
    world.forget_unheld();
}

/// Whether a region is the heir and the removed region still has a log that is not sealed here.
#[must_use]
pub fn has_to_inherit(world: &World, region: u8, scenario: &Scenario, rules: Rules) -> bool {
    world.removed.is_some()
        && region == scenario.heir
        && !rules.breaks(Variant::RemovalWithoutHeir)
        && !is_removed_sealed(world, region)
}

/// Whether every log of a removed region is sealed in a region's state.
#[must_use]
pub fn is_removed_sealed(world: &World, region: u8) -> bool {
    let shard = &world.region(region).shard;
    let is_sealed = |log: u8| shard.sealed_by[usize::from(log)] != NONE;
    world.logs.names().all(|log| Some(world.logs.get(log).region) != world.removed || is_sealed(log))
}

/// Whether the heir may seal: whole, and all that any remaining member held after the removal is here.
#[must_use]
pub fn may_inherit(world: &World, region: u8, scenario: &Scenario, rules: Rules) -> bool {
    world.region(region).is_whole
        && has_to_inherit(world, region, scenario, rules)
        && has_caught_up(world, region, rules)
}

/// The heir seals the removed region's logs.
pub fn inherit(world: &mut World, region: u8, rules: Rules) {
    seal_logs_of(world, HOME, region, rules);
    world.region_mut(region).answers = [None; REGIONS];
    world.region_mut(region).met = [NONE; REGIONS];
}
