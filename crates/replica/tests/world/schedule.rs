//! What happens next: draws it from the seed, then ends all faults and lets everybody be heard.

use crate::disk::LogName;
use crate::sabotage::Twin;
use crate::world::{Checked, World};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) steps: usize,
    /// How many regions of a hundred answer at `staged`.
    pub(crate) relaxed_percent: u64,
    pub(crate) twin: Twin,
}

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) hash: u64,
    pub(crate) adds: usize,
    pub(crate) restarts: u64,
}

/// Runs a seed. Errors: which invariant broke, and when.
pub(crate) fn run(seed: u64, plan: Plan) -> Result<Summary, String> {
    let count = 2 + (seed % 3) as usize;
    let mut world = World::new(seed, count, plan.relaxed_percent, plan.twin);
    for at in 0..count {
        world.start(at, false)?;
    }
    let weather = Weather {
        connects: 1 + world.rng.below(25),
        cuts: world.rng.below(15),
        crashes: world.rng.below(10),
    };
    for step in 0..plan.steps {
        next(&mut world, weather).map_err(|why| format!("step {step}: {why}"))?;
    }
    heal(&mut world).map_err(|why| format!("after the faults: {why}"))?;
    Ok(Summary { hash: world.hash.0, adds: world.clients.adds.len(), restarts: world.restarts })
}

/// How often things fail, in thousandths of all steps; drawn once a seed, so that some seeds see long partitions and
/// others many short lives.
#[derive(Clone, Copy)]
struct Weather {
    connects: usize,
    cuts: usize,
    crashes: usize,
}

fn next(world: &mut World, weather: Weather) -> Checked {
    let count = world.regions.len();
    let at = world.rng.below(count);
    let is_alive = world.regions[at].replica.is_some();
    let draw = world.rng.below(1_000);
    world.hash.mix(draw as u64);
    match draw {
        0..300 if is_alive => world.write(at),
        300..400 if is_alive => world.flush(at),
        400..550 if is_alive => sync_some(world, at),
        550..580 if is_alive => world.stage(at),
        580..840 => deliver_some(world),
        840..900 if is_alive && world.has_loads(at) => {
            let count_max = 1 + world.rng.below(4);
            world.load(at, count_max)
        }
        900..915 if is_alive => world.wait(at),
        915..930 => tell_one(world),
        930..937 if is_alive => pause_or_resume(world, at),
        937..942 if is_alive => world.checkpoint(at),
        942..950 if !is_alive => {
            let from_checkpoint = world.rng.percent(60);
            world.start(at, from_checkpoint)
        }
        950.. => fault(world, at, draw - 950, weather),
        _ => Ok(()),
    }
}

/// Faults and their ends share fifty thousandths of the steps.
fn fault(world: &mut World, at: usize, draw: usize, weather: Weather) -> Checked {
    let Weather { connects, cuts, crashes } = weather;
    if draw < connects {
        connect(world)
    } else if draw < connects + cuts {
        cut(world)
    } else if draw < connects + cuts + crashes && world.regions[at].replica.is_some() {
        world.crash(at);
        if matches!(world.twin, Twin::RollsBack | Twin::AnswersLow) && world.rng.percent(50) {
            world.roll_back(at);
        }
        Ok(())
    } else {
        Ok(())
    }
}

/// Restarts regions in turn, each after a little work and each before its predecessor was whole or after, as it comes.
pub(crate) fn restart_again_and_again(seed: u64, count: usize, restarts: usize) -> Result<World, String> {
    let mut world = World::new(seed, count, 0, Twin::Honest);
    for at in 0..count {
        world.start(at, false)?;
    }
    let weather = Weather { connects: 30, cuts: 2, crashes: 0 };
    for restart in 0..restarts {
        for _ in 0..150 {
            next(&mut world, weather)?;
        }
        world.crash(restart % count);
        world.start(restart % count, restart % 2 == 0)?;
    }
    heal(&mut world)?;
    Ok(world)
}

fn sync_some(world: &mut World, at: usize) -> Checked {
    let names: Vec<LogName> = world.regions[at].disk.pending.keys().copied().collect();
    let Some(name) = world.rng.pick(&names) else { return Ok(()) };
    let pending = world.regions[at].disk.pending[&name].len();
    let count = 1 + world.rng.below(pending);
    world.sync(at, name, count)
}

/// Every way that something can arrive: connection, receiver, lane; the last lane number stands for acks.
fn arrivals(world: &mut World) -> Vec<(u64, usize, Option<usize>)> {
    let mut out = Vec::new();
    for (&id, connection) in &world.net.connections {
        let (a, b) = connection.ends;
        for (to, direction) in [a, b].into_iter().zip(&connection.directions) {
            out.extend(direction.busy().into_iter().map(|lane| (id, to, Some(lane))));
            if !direction.acks.is_empty() {
                out.push((id, to, None));
            }
        }
    }
    out
}

fn deliver_some(world: &mut World) -> Checked {
    let arrivals = arrivals(world);
    let Some((id, to, lane)) = world.rng.pick(&arrivals) else { return Ok(()) };
    let Some(lane) = lane else { return world.deliver_acks(id, to) };
    for _ in 0..1 + world.rng.below(4) {
        world.deliver(id, to, lane)?;
    }
    Ok(())
}

fn pair(world: &mut World) -> (usize, usize) {
    let count = world.regions.len();
    let a = world.rng.below(count);
    (a, (a + 1 + world.rng.below(count - 1)) % count)
}

fn connect(world: &mut World) -> Checked {
    let (a, b) = pair(world);
    connect_pair(world, a, b);
    Ok(())
}

fn connect_pair(world: &mut World, a: usize, b: usize) {
    let is_alive = |at: usize| world.regions[at].replica.is_some();
    if is_alive(a) && is_alive(b) && world.net.living(a, b).is_none() {
        let (epoch_a, epoch_b) = (world.regions[a].epoch, world.regions[b].epoch);
        world.net.connect((a, epoch_a), (b, epoch_b));
    }
}

fn cut(world: &mut World) -> Checked {
    let (a, b) = pair(world);
    if let Some(id) = world.net.living(a, b) {
        world.net.cut(id, &mut world.rng);
    }
    Ok(())
}

/// Who has to be told of a dead connection: connection, region.
fn untold(world: &World) -> Vec<(u64, usize)> {
    let mut out = Vec::new();
    for (&id, connection) in world.net.connections.iter().filter(|(_, c)| c.is_dead) {
        let (a, b) = connection.ends;
        for (to, direction) in [a, b].into_iter().zip(&connection.directions) {
            if !direction.is_closed && world.regions[to].replica.is_some() {
                out.push((id, to));
            }
        }
    }
    out
}

fn tell_one(world: &mut World) -> Checked {
    let untold = untold(world);
    match world.rng.pick(&untold) {
        Some((id, to)) => world.tell_down(id, to),
        None => Ok(()),
    }
}

fn pause_or_resume(world: &mut World, at: usize) -> Checked {
    let peer = world.rng.below(world.regions.len());
    let id = world.regions[peer].id;
    let is_paused = world.is_paused(at, id);
    if peer == at { Ok(()) } else { world.pause(at, id, !is_paused) }
}

/// Ends all faults, then runs everything that is due until nothing is.
pub(crate) fn heal(world: &mut World) -> Checked {
    let count = world.regions.len();
    for at in 0..count {
        if world.regions[at].replica.is_none() {
            world.start(at, true)?;
        }
    }
    world.unpause_all()?;
    for round in 0.. {
        if round > 300 {
            return Err(format!("it never comes to rest: {}", world.unrest()));
        }
        let mut is_quiet = !world.retry_unsettled()?;
        for (id, to) in untold(world) {
            world.tell_down(id, to)?;
        }
        for a in 0..count {
            for b in a + 1..count {
                connect_pair(world, a, b);
            }
        }
        for at in 0..count {
            world.flush(at)?;
            while world.has_loads(at) {
                is_quiet = false;
                world.load(at, 8)?;
            }
            for name in world.regions[at].disk.pending.keys().copied().collect::<Vec<_>>() {
                is_quiet = false;
                let pending = world.regions[at].disk.pending[&name].len();
                world.sync(at, name, pending)?;
            }
            world.stage(at)?;
        }
        for (id, to, lane) in arrivals(world) {
            is_quiet = false;
            match lane {
                Some(lane) => {
                    while world
                        .net
                        .connections
                        .get_mut(&id)
                        .is_some_and(|c| !c.towards(to).lanes[lane].is_empty())
                    {
                        world.deliver(id, to, lane)?;
                    }
                }
                None => world.deliver_acks(id, to)?,
            }
        }
        if is_quiet {
            break;
        }
    }
    world.check_healed()
}
