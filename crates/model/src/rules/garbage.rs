//! How garbage goes: the window, `Expire`, acks and `Stable` (design.md §3.3 and §3.4).

use super::admit::has_authority;
use super::log::{OPS, Record, Stable, Vector};
use super::region::Ack;
use super::whole::is_removed_sealed;
use super::world::World;
use crate::variant::{Rules, Variant};

fn is_past_window(world: &World, rules: Rules) -> bool {
    world.is_late || rules.breaks(Variant::NoWindow)
}

/// Whether a region may expire the session.
#[must_use]
pub fn may_expire(world: &World, region: u8, rules: Rules) -> bool {
    is_past_window(world, rules)
        && has_authority(world, region, rules)
        && !world.region(region).shard.is_expired
}

/// What a member would ack to a region, if that may count.
#[must_use]
pub fn ack(world: &World, region: u8, member: u8, rules: Rules) -> Option<Ack> {
    let asked = world.region(member);
    let log = world.region(region).log;
    let counts = (is_past_window(world, rules) || rules.breaks(Variant::EarlyAcksCount))
        && (asked.is_whole || rules.breaks(Variant::AckOfNotWholeRegion));
    let ack = Ack { epoch: asked.log, through: asked.shard.held(log), own: asked.shard.held(asked.log) };
    counts.then_some(ack)
}

/// Whether a `Stable` of a region through a position would let anything go.
#[must_use]
pub fn has_garbage(world: &World, region: u8, through: u8, rules: Rules) -> bool {
    let own = world.region(region);
    let shard = &own.shard;
    let stands = |wanted| world.logs.is_record_covered(wanted, &shard.vector, own.log, through);
    let generation = shard.generation;
    (shard.register.tombstone && world.logs.is_covered(shard.register.dot, own.log, through))
        || (shard.is_expired && !shard.is_forgotten && stands(Record::Expire))
        || (rules.breaks(Variant::CounterTombstoneDropped)
            && generation > 0
            && stands(Record::Delete { generation }))
}

/// How far a region's log holds nothing that may still be sent again, nor seals a log that does.
fn aged(world: &World, region: u8, rules: Rules) -> u8 {
    let own = world.region(region);
    let records = world.logs.prefix(own.log, own.shard.held(own.log));
    let is_young = |record: &Record| is_young(world, record, rules);
    records.iter().position(is_young).unwrap_or(records.len()) as u8
}

fn is_young(world: &World, record: &Record, rules: Rules) -> bool {
    match *record {
        Record::Write { write, .. } => world.client.young >> write & 1 == 1,
        Record::Seal { log, end } if !rules.breaks(Variant::AgeEndsAtSeals) => {
            world.logs.prefix(log, end).iter().any(|record| is_young(world, record, rules))
        }
        _ => false,
    }
}

/// The `Stable` that a region may write, if any.
#[must_use]
pub fn stable(world: &World, region: u8, rules: Rules) -> Option<Stable> {
    let own = world.region(region);
    let mut through = aged(world, region, rules);
    let mut ends = Vector::default();
    for member in world.others(region) {
        let ack = own.acks[usize::from(member)]?;
        through = through.min(ack.through);
        ends[usize::from(ack.epoch)] = ack.own;
    }
    for log in world.logs.names() {
        if log == own.log || Some(world.logs.get(log).region) == world.removed {
            ends[usize::from(log)] = own.shard.held(log);
        }
    }
    let is_absorbed = (0..OPS as u8).all(|number| !own.shard.is_conditional(number));
    let is_written = own.is_whole
        && own.shard.reaches(&ends)
        && (is_removed_sealed(world, region) || rules.breaks(Variant::StableBeforeRemovedSealed))
        && (!own.shard.is_expired || is_absorbed || rules.breaks(Variant::StableBeforeAbsorbing))
        && world.logs.stables.iter().any(Option::is_none)
        && has_garbage(world, region, through, rules);
    let at = own.shard.held(own.log) + 1;
    is_written.then_some(Stable { log: own.log, at, through, own: ends })
}

/// A region writes `Stable`.
pub fn write_stable(world: &mut World, region: u8, stable: Stable, rules: Rules) {
    let free = world.logs.stables.iter().position(Option::is_none).expect("asked for before");
    world.logs.stables[free] = Some(stable);
    world.write(region, Record::Stable { index: free as u8 }, rules);
}
