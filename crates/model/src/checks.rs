//! What must hold in every state, across every step, and once everything has come to rest.
//!
//! Judges only; `quiet.rs` brings a world to rest. A violation is a sentence.

use crate::rules::action::Action;
use crate::rules::log::{Logs, OPS, Record, Vector};
use crate::rules::shard::{Shard, digit};
use crate::rules::world::World;
use crate::variant::Rules;

/// Why a run is wrong.
pub type Violation = String;

/// Digits of the counter: the session's numbers, then plain adds.
const DIGITS: u8 = OPS as u8 + 3;

fn count(value: u16, number: u8) -> u16 {
    (value / digit(number)) & 3
}

fn name(number: u8) -> String {
    let ops = OPS as u8;
    if number < ops { format!("op {number}") } else { format!("plain add {}", number - ops) }
}

fn counted_twice(shard: &Shard, rules: Rules) -> Option<u8> {
    let value = shard.value(rules);
    (0..DIGITS).find(|&number| count(value, number) > 1)
}

/// What must hold after any action.
///
/// # Errors
/// The first thing that does not hold.
pub fn step(before: &World, after: &World, action: Action, rules: Rules) -> Result<(), Violation> {
    state(after, rules)?;
    let rolled = match action {
        Action::Rollback(region) => Some(region),
        _ => None,
    };
    for region in after.members().filter(|&region| Some(region) != rolled) {
        vanished(before, after, region, rules)?;
    }
    match action {
        Action::Send { number, region, .. } | Action::Absorb(region, number) => {
            logged_as_older(before, after, region, number)
        }
        _ => Ok(()),
    }
}

/// A region that holds a copy of an op logs it under no older generation: a delete would take an op that follows it.
fn logged_as_older(before: &World, after: &World, region: u8, number: u8) -> Result<(), Violation> {
    let greatest = |world: &World| {
        let shard = &world.region(region).shard;
        generations(&world.logs, &shard.vector, number).max()
    };
    let after_it = after.region(region);
    let logged = after.logs.prefix(after_it.log, after_it.shard.held(after_it.log)).last();
    let is_logged = before.region(region).shard.vector != after_it.shard.vector;
    match (greatest(before), logged) {
        (Some(known), Some(&(Record::Op { generation, .. } | Record::Cond { generation, .. })))
            if is_logged && generation < known =>
        {
            Err(format!(
                "region {region} logs op {number} as of before a delete that a copy it holds has seen"
            ))
        }
        _ => Ok(()),
    }
}

/// What is visible does not vanish, but by a delete (C2b).
///
/// Not promised are ops that the client gave up, and those of which the authority turns out to have logged a copy
/// before a delete: such an op belongs to the time before.
fn vanished(before: &World, after: &World, region: u8, rules: Rules) -> Result<(), Violation> {
    let (old, new) = (&before.region(region).shard, &after.region(region).shard);
    if old == new || old.generation < new.generation {
        return Ok(());
    }
    let (old, new) = (old.value(rules), new.value(rules));
    let vector = &after.region(region).shard.vector;
    let is_promised = |number: &u8| {
        let is_given_up = *number < OPS as u8 && after.client.given_up >> number & 1 == 1;
        let shard = &after.region(region).shard;
        let is_covered = shard.covers(*number, rules) || shard.is_forgotten;
        let is_of_before = is_covered && is_older(&after.logs, vector, *number);
        !is_given_up && !is_of_before
    };
    let mut digits = (0..DIGITS).filter(|&number| count(old, number) > count(new, number));
    match digits.find(is_promised) {
        Some(number) => Err(format!("{} vanished in region {region}", name(number))),
        None => Ok(()),
    }
}

fn state(world: &World, rules: Rules) -> Result<(), Violation> {
    for region in world.members() {
        let shard = &world.region(region).shard;
        if let Some(number) = counted_twice(shard, rules) {
            return Err(format!("{} counts twice in region {region}", name(number)));
        }
        register(world, region)?;
    }
    for one in world.members() {
        for other in world.members().filter(|&other| other > one) {
            pair(world, one, other, rules)?;
        }
    }
    Ok(())
}

/// A value never shows where a write is known that had seen it, or a later one (C4, C6).
fn register(world: &World, region: u8) -> Result<(), Violation> {
    let shard = &world.region(region).shard;
    let shown = shard.register;
    if shown.stamp == 0 || shown.tombstone {
        return Ok(());
    }
    for (write, (&stamp, &saw)) in world.client.stamps.iter().zip(&world.client.saw).enumerate() {
        let is_known = shard.seen >> write & 1 == 1;
        let own_stamp = world.client.stamps[usize::from(shown.write)];
        if is_known && (saw == shown.write + 1 || stamp > own_stamp) {
            return Err(format!(
                "region {region} shows register write {} though it knows write {write}, which came after it",
                shown.write
            ));
        }
    }
    Ok(())
}

/// State is a function of the vector (C2), and merging is a join (C3).
fn pair(world: &World, one: u8, other: u8, rules: Rules) -> Result<(), Violation> {
    let (a, b) = (&world.region(one).shard, &world.region(other).shard);
    if a.vector == b.vector && a != b {
        return Err(format!("regions {one} and {other} have equal vectors and different states"));
    }
    let joined = a.join(b, &world.logs, rules);
    if joined != b.join(a, &world.logs, rules) {
        return Err(format!("merging regions {one} and {other} depends on the order"));
    }
    if a.join(&joined, &world.logs, rules) != joined {
        return Err(format!("merging regions {one} and {other} again changes the result"));
    }
    match counted_twice(&joined, rules) {
        Some(number) => Err(format!("{} counts twice if regions {one} and {other} merge", name(number))),
        None => Ok(()),
    }
}

/// What must hold once everything has come to rest: `before` is the world from which it did.
///
/// # Errors
/// The first thing that does not hold.
pub fn rest(before: &World, after: &World, rules: Rules) -> Result<(), Violation> {
    state(after, rules).map_err(|violation| format!("at rest: {violation}"))?;
    let first = after.members().next().expect("two regions remain at least");
    let shard = &after.region(first).shard;
    for region in after.members() {
        if !after.region(region).is_whole {
            return Err(format!("at rest, region {region} is not whole"));
        }
        if after.region(region).shard != *shard {
            return Err(format!("at rest, regions {first} and {region} differ"));
        }
    }
    if let Some(number) = (0..OPS as u8).find(|&number| shard.is_conditional(number)) {
        return Err(format!("at rest, op {number} is still conditional"));
    }
    let mut held = Vector::default();
    for member in before.members() {
        let own = &before.region(member).shard.vector;
        held.iter_mut().zip(own).for_each(|(held, own)| *held = *own.max(held));
    }
    (0..DIGITS).try_for_each(|number| survivor(before, shard, &held, number, rules))?;
    register_at_rest(before, shard, &held)
}

/// Every record that a vector holds.
fn records<'a>(logs: &'a Logs, vector: &'a Vector) -> impl Iterator<Item = Record> + 'a {
    logs.names().flat_map(|log| logs.prefix(log, vector[usize::from(log)]).iter().copied())
}

/// The generations that the copies of an op or plain add were admitted under.
fn generations<'a>(logs: &'a Logs, vector: &'a Vector, number: u8) -> impl Iterator<Item = u8> + 'a {
    records(logs, vector).filter_map(move |record| match record {
        Record::Op { number: own, generation, .. } | Record::Cond { number: own, generation } => {
            (own == number).then_some(generation)
        }
        Record::Add { digit, generation } => (digit == number).then_some(generation),
        _ => None,
    })
}

/// Whether copies of an op were admitted under several generations.
fn is_older(logs: &Logs, vector: &Vector, number: u8) -> bool {
    generations(logs, vector, number).min() < generations(logs, vector, number).max()
}

/// Each op that survives counts once; of an older generation, not at all. One that has copies in both may do either:
/// which copy the authority meets first is open.
fn survivor(world: &World, shard: &Shard, held: &Vector, number: u8, rules: Rules) -> Result<(), Violation> {
    let current = records(&world.logs, held).filter_map(|record| match record {
        Record::Op { generation, .. }
        | Record::Cond { generation, .. }
        | Record::Add { generation, .. }
        | Record::Delete { generation } => Some(generation),
        _ => None,
    });
    let current = current.max().unwrap_or(0);
    let generations = || generations(&world.logs, held, number);
    let counted = count(shard.value(rules), number);
    let is_given_up = number < OPS as u8 && world.client.given_up >> number & 1 == 1;
    let must_count = generations().next().is_some() && generations().all(|own| own == current);
    let may_count = generations().any(|own| own == current);
    if must_count && counted == 0 && !is_given_up {
        return Err(format!("at rest, {} is held and does not count", name(number)));
    }
    if !may_count && counted > 0 {
        return Err(format!("at rest, {} counts though it was deleted", name(number)));
    }
    Ok(())
}

fn register_at_rest(world: &World, shard: &Shard, held: &Vector) -> Result<(), Violation> {
    let writes = records(&world.logs, held).filter_map(|record| match record {
        Record::Write { write, stamp, tombstone } => Some((stamp, write, tombstone)),
        _ => None,
    });
    let shown = shard.register;
    match writes.max() {
        Some((stamp, write, _)) if (shown.stamp, shown.write) == (stamp, write) => Ok(()),
        Some((_, _, true)) | None if shown.stamp == 0 => Ok(()),
        winner => {
            Err(format!("at rest, the register shows write {} and should show {winner:?}", shown.write))
        }
    }
}
