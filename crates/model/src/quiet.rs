//! Brings a world to rest: no new requests and no faults; everything else that can happen does, until nothing can.
//!
//! Makes no choice: one order, always the same. The rules make no use of it.

use crate::rules::log::OPS;
use crate::rules::world::World;
use crate::rules::{admit, garbage, whole};
use crate::scenario::Scenario;
use crate::variant::Rules;

/// Rounds after which a world that has not come to rest never will: `checks::rest` then says what is missing.
const ROUNDS_MAX: usize = 16;

/// The world at rest.
#[must_use]
pub fn at_rest(world: &World, scenario: &Scenario, rules: Rules) -> World {
    let mut world = *world;
    // What is on its way is lost; that it arrives is one of the actions.
    world.frame = None;
    world.forget_unheld();
    for _ in 0..ROUNDS_MAX {
        let before = world;
        ship_all(&mut world, rules);
        members_return(&mut world, scenario, rules);
        absorb_all(&mut world, rules);
        collect(&mut world, rules);
        if world == before {
            break;
        }
    }
    world
}

fn ship_all(world: &mut World, rules: Rules) {
    for to in world.members() {
        for from in world.others(to) {
            for log in world.logs.names() {
                if world.ships(log, from, rules) {
                    world.ship(log, from, to, rules);
                }
            }
        }
    }
}

fn members_return(world: &mut World, scenario: &Scenario, rules: Rules) {
    for region in world.members() {
        for member in world.others(region) {
            if whole::asks(world, region, scenario, rules) && whole::lacks_answer(world, region, member) {
                whole::answer(world, region, member, rules);
            }
        }
        if !world.region(region).is_whole && whole::has_caught_up(world, region, rules) {
            whole::become_whole(world, region, scenario, rules);
        }
        if whole::may_inherit(world, region, scenario, rules) {
            whole::inherit(world, region, rules);
        }
    }
}

fn absorb_all(world: &mut World, rules: Rules) {
    for region in world.members() {
        for number in 0..OPS as u8 {
            if admit::may_absorb(world, region, number, rules) {
                admit::absorb(world, region, number, rules);
            }
        }
    }
}

/// Once a session is expired, its tables go too.
fn collect(world: &mut World, rules: Rules) {
    if !world.members().any(|region| world.region(region).shard.is_expired) {
        return;
    }
    world.is_late = true;
    for region in world.members() {
        for member in world.others(region) {
            world.region_mut(region).acks[usize::from(member)] = garbage::ack(world, region, member, rules);
        }
        if let Some(stable) = garbage::stable(world, region, rules) {
            garbage::write_stable(world, region, stable, rules);
        }
    }
}
