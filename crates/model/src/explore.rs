//! Exhaustive search, breadth first: every state that a scenario reaches, each once, told apart by 128-bit hashes.
//!
//! So the first violation found is one of the shortest. Start at [`explore`].

use std::hash::{Hash, Hasher};

use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_128;

use crate::checks::{self, Violation};
use crate::quiet::at_rest;
use crate::rules::action::Action;
use crate::rules::world::World;
use crate::scenario::Scenario;
use crate::variant::Rules;

/// How a search ended.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// States that were met, or walks that were made.
    pub states: usize,
    /// Steps that were made.
    pub steps: u64,
    /// Whether there is no state that was not met.
    pub is_exhaustive: bool,
    /// What was found wrong, with the actions that lead there.
    pub found: Option<(Violation, Vec<Action>)>,
}

impl Outcome {
    /// The violation, told as sentences.
    #[must_use]
    pub fn story(&self) -> String {
        let Some((violation, trace)) = &self.found else { return "no violation".to_owned() };
        let lines = trace.iter().zip(1..).map(|(action, at)| format!("  {at:2}. {action}\n"));
        format!("{}  => {violation}", lines.collect::<String>())
    }
}

/// Collects what a state hashes into bytes, and hashes them at once.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn write_u8(&mut self, byte: u8) {
        self.0.push(byte);
    }

    // Lengths and discriminants are small here.
    fn write_usize(&mut self, number: usize) {
        self.0.push(number as u8);
    }

    fn write_isize(&mut self, number: isize) {
        self.0.push(number as u8);
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// How each state was reached first: from which, and by what.
struct Trail(Vec<(u32, Action)>);

impl Trail {
    fn to(&self, mut at: u32) -> Vec<Action> {
        let mut actions = Vec::new();
        while at != 0 {
            let (from, action) = self.0[at as usize];
            actions.push(action);
            at = from;
        }
        actions.reverse();
        actions
    }
}

/// The world after the scenario's opening.
///
/// # Errors
/// A violation that the opening itself is.
pub fn opened(scenario: &Scenario, rules: Rules) -> Result<World, Outcome> {
    let mut world = World::new(scenario);
    for (at, &action) in scenario.opening.iter().enumerate() {
        let Some(next) = world.after(action, scenario, rules) else { continue };
        if let Err(violation) = checks::step(&world, &next, action, rules) {
            let found = Some((violation, scenario.opening[..=at].to_vec()));
            return Err(Outcome { states: at + 1, steps: at as u64 + 1, found, is_exhaustive: false });
        }
        world = next;
    }
    Ok(world)
}

/// Meets all states, up to `states_max`; brings every `rest_every`th to rest.
#[must_use]
pub fn explore(scenario: &Scenario, rules: Rules, states_max: usize, rest_every: usize) -> Outcome {
    let first = match opened(scenario, rules) {
        Ok(world) => world,
        Err(outcome) => return outcome,
    };
    let mut met: HashSet<u128, foldhash::fast::FixedState> = HashSet::default();
    let mut bytes = Bytes::default();
    let mut hash = |world: &World| {
        bytes.0.clear();
        world.hash(&mut bytes);
        xxh3_128(&bytes.0)
    };
    // The first state was reached by nothing; its entry is never read.
    let mut trail = Trail(vec![(0, Action::Remove)]);
    let mut layer = vec![(0, first)];
    let mut actions = Vec::new();
    let mut outcome = Outcome::default();
    met.insert(hash(&first));
    while !layer.is_empty() {
        let mut next_layer = Vec::new();
        for (at, world) in &layer {
            let found = |violation: Violation, last: Option<Action>| {
                let trace = scenario.opening.iter().copied().chain(trail.to(*at)).chain(last);
                Some((violation, trace.collect()))
            };
            if (*at as usize).is_multiple_of(rest_every)
                && let Err(violation) = checks::rest(world, &at_rest(world, scenario, rules), rules)
            {
                outcome.found = found(violation, None);
                outcome.states = trail.0.len();
                return outcome;
            }
            world.actions(scenario, rules, &mut actions);
            let mut reached = Vec::new();
            for &action in &actions {
                let Some(next) = world.after(action, scenario, rules) else { continue };
                outcome.steps += 1;
                if !met.insert(hash(&next)) {
                    continue;
                }
                if let Err(violation) = checks::step(world, &next, action, rules) {
                    outcome.found = found(violation, Some(action));
                    outcome.states = trail.0.len() + reached.len();
                    return outcome;
                }
                reached.push((action, next));
            }
            for (action, next) in reached {
                next_layer.push((trail.0.len() as u32, next));
                trail.0.push((*at, action));
            }
            outcome.states = trail.0.len();
            if outcome.states >= states_max {
                return outcome;
            }
        }
        layer = next_layer;
    }
    outcome.is_exhaustive = true;
    outcome
}
