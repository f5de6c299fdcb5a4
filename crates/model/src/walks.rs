//! Random walks from a seed: deeper than the search, never complete. Start at [`walk`].

use crate::checks;
use crate::explore::{Outcome, opened};
use crate::quiet::at_rest;
use crate::rules::action::Action;
use crate::scenario::Scenario;
use crate::variant::Rules;

/// Steps of one walk at most.
const STEPS_MAX: usize = 40;

/// Chance from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// Makes `walks` walks; each is brought to rest once, somewhere on its way or at its end.
#[must_use]
pub fn walk(scenario: &Scenario, rules: Rules, seed: u64, walks: usize) -> Outcome {
    let first = match opened(scenario, rules) {
        Ok(world) => world,
        Err(outcome) => return outcome,
    };
    let mut dice = Dice(seed);
    let mut actions = Vec::new();
    let mut trace: Vec<Action> = Vec::new();
    let mut outcome = Outcome::default();
    for _ in 0..walks {
        let mut world = first;
        trace.clear();
        trace.extend_from_slice(scenario.opening);
        outcome.states += 1;
        let length = 1 + dice.below(STEPS_MAX);
        for _ in 0..length {
            world.actions(scenario, rules, &mut actions);
            let next = loop {
                if actions.is_empty() {
                    break None;
                }
                let action = actions.swap_remove(dice.below(actions.len()));
                if let Some(next) = world.after(action, scenario, rules) {
                    break Some((action, next));
                }
            };
            let Some((action, next)) = next else { break };
            trace.push(action);
            outcome.steps += 1;
            if let Err(violation) = checks::step(&world, &next, action, rules) {
                outcome.found = Some((violation, trace));
                return outcome;
            }
            world = next;
        }
        if let Err(violation) = checks::rest(&world, &at_rest(&world, scenario, rules), rules) {
            outcome.found = Some((violation, trace));
            return outcome;
        }
    }
    outcome
}
