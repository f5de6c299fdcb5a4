//! One seed from beginning to end: the faults, then the healing, then what must hold.

use tombolo_mutants::Mutant;

use crate::checks::Checked;
use crate::queue::{MS, Micros, SECOND};
use crate::rare::RareCounts;
use crate::sabotage::Sabotage;
use crate::world::World;

/// Within how long the regions must come together once all faults have ended.
const HEAL_WITHIN: Micros = 60 * SECOND;

/// How a seed is run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// For how long faults last, in simulated seconds.
    pub seconds: u64,
    /// What the world lies about.
    pub sabotage: Sabotage,
    /// A mutant to which the weather shall give its chance; whether it is planted is another matter.
    pub suits: Option<Mutant>,
    /// Whether every event is printed.
    pub is_traced: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { seconds: 60, sabotage: Sabotage::None, suits: None, is_traced: false }
    }
}

/// What a seed came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Of everything that happened: the same for the same seed, for ever.
    pub hash: u64,
    /// How many ops clients asked for.
    pub ops_count: u64,
    /// How many batches were written.
    pub batches_count: u64,
    /// How many events there were.
    pub events_count: u64,
    /// How long it was, in simulated milliseconds.
    pub simulated_ms: u64,
    /// How long the healing took, in simulated milliseconds.
    pub healed_ms: u64,
    /// What it met.
    pub rare: RareCounts,
}

/// Runs a seed.
///
/// Errors: which invariant broke, how, and when.
pub fn run(seed: u64, settings: Settings) -> Result<Summary, String> {
    let mut world = World::new(seed, settings);
    let outcome = go(&mut world, settings);
    let now = world.queue.now();
    outcome.map_err(|why| format!("at {}.{:06} s: {why}", now / SECOND, now % SECOND))?;
    Ok(Summary {
        hash: world.hash.0,
        ops_count: world.clients.ops_count(),
        batches_count: world.truth.batches.len() as u64,
        events_count: world.events_count,
        simulated_ms: now / MS,
        healed_ms: (now - settings.seconds * SECOND) / MS,
        rare: world.rare,
    })
}

fn go(world: &mut World, settings: Settings) -> Checked {
    world.run(settings.seconds * SECOND)?;
    heal(world)
}

/// Ends all faults, restarts everything, and waits until the regions have come together.
fn heal(world: &mut World) -> Checked {
    world.is_healing = true;
    world.healing_since = world.queue.now();
    world.net.mend_all();
    let count = world.nodes.len();
    for node in 0..count {
        world.nodes[node].disk.memory().limit_space(None);
        world.nodes[node].disk.memory().fail_syncs(0);
        world.nodes[node].slow_until = 0;
        world.nodes[node].clock.offset_us = 0;
        let is_power = world.chance.percent(50);
        // What was removed for good may live on, and goes on talking.
        if world.nodes[node].is_declared && (!world.is_gone(node) || world.nodes[node].is_up()) {
            world.crash(node, is_power);
        }
    }
    let until = world.queue.now() + HEAL_WITHIN;
    let mut unrest = None;
    while world.queue.now() < until {
        let step = world.queue.now() + 500 * MS;
        world.run(step)?;
        let is_unsettled = world.settle_rest();
        unrest = world.unrest();
        if unrest.is_none() && !is_unsettled {
            return check_healed(world);
        }
        if unrest.is_none() {
            unrest = Some("clients still ask".to_owned());
        }
    }
    let why = unrest.unwrap_or_default();
    Err(format!("R4: the regions do not come together in {} s: {why}", HEAL_WITHIN / SECOND))
}

fn check_healed(world: &mut World) -> Checked {
    world.check_c1()?;
    world.check_missing()?;
    for shard in 0..usize::from(world.plan.shards) {
        for node in world.remaining() {
            world.check_registers(node, shard)?;
            world.check_r9(node, shard)?;
        }
        let node = world.chance.pick(&world.remaining()).expect("some remain");
        world.check_replay(node, shard)?;
        world.check_c3(node, shard)?;
        world.check_slots(node, shard)?;
    }
    Ok(())
}
