//! Joining gives what replaying gives (C7): three regions write and read each other's logs in any order, and are joined
//! at any moment, wholly or by their difference.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tombolo_causality::{ClusterId, Epoch, LogId, RegionId, SessionId, ShardId, Stamp, Time};
use tombolo_codec::batch::Place;
use tombolo_codec::records::{Conditional, SessionOp, Write};
use tombolo_codec::{Batch, CellName, Kind, PayloadDigest, RecordsBuilder};

use super::*;
use crate::state::cells::{hash_counter, hash_register};
use crate::state::sessions::Known;
use crate::state::table::print_of;

const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn region(at: usize) -> RegionId {
    RegionId::new(at as u16 + 1).unwrap()
}

struct Node {
    state: State,
    log: LogName,
    /// Numbers that its sessions were given.
    mark: u64,
}

/// Three regions and every batch they wrote.
struct World {
    chance: Chance,
    time: u64,
    epochs: u128,
    nodes: Vec<Node>,
    logs: BTreeMap<LogName, Vec<Batch>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let node =
            |at: usize| Node { state: State::default(), log: (region(at), Epoch(at as u128 + 1)), mark: 0 };
        let chance = Chance(seed);
        Self { chance, time: 100, epochs: 10, nodes: (0..3).map(node).collect(), logs: BTreeMap::new() }
    }

    fn stamp(&mut self, at: usize) -> Stamp {
        self.time += 1;
        // Some writes are stamped far ahead or behind: their order is not that of the logs.
        let time = Time(self.time + self.chance.below(6));
        Stamp { time, region: region(at), op: u128::from(self.time) }
    }

    fn session(home: usize) -> SessionId {
        SessionId { home: region(home), epoch: Epoch(1), opened: Time(5), random: home as u64 + 1 }
    }

    fn write(&mut self, at: usize) {
        let mut records = RecordsBuilder::new();
        if self.chance.below(12) == 0 {
            let old = self.nodes[at].log;
            let end = self.nodes[at].state.logs.end(old);
            if end > Seq::ZERO {
                self.epochs += 1;
                self.nodes[at].log = (region(at), Epoch(self.epochs));
                records.seal(Seal { region: old.0, epoch: old.1, end });
            }
        }
        for _ in 0..1 + self.chance.below(3) {
            let key = KEYS[self.chance.below(3) as usize];
            let cell = |kind| CellName { tenant: TenantId(1), kind, key };
            match self.chance.below(9) {
                0 => {
                    let stamp = self.stamp(at);
                    let cell = cell(Kind::Counter);
                    records.write(Write { cell, stamp, value: None, expires_at: None });
                }
                1 | 2 => {
                    let stamp = self.stamp(at);
                    let value = (self.chance.below(4) > 0).then(|| stamp.op.to_le_bytes());
                    let value = value.as_ref().map(<[u8; 16]>::as_slice);
                    records.write(Write { cell: cell(Kind::Register), stamp, value, expires_at: None });
                }
                3..=5 => self.request(at, key, &mut records),
                _ => {
                    let state = &self.nodes[at].state;
                    let generation = state.cells.counter(TenantId(1), key).and_then(|it| it.generation);
                    let delta = self.chance.below(9) as i64 - 4;
                    records.add(cell(Kind::Counter), generation, delta);
                }
            }
        }
        self.close(at, &records);
    }

    /// A numbered request: for good at its home, conditional elsewhere.
    fn request(&mut self, at: usize, key: &'static [u8], records: &mut RecordsBuilder) {
        let home = self.chance.below(3) as usize;
        let (session, number) = (Self::session(home), self.nodes[home].mark + self.chance.below(4));
        let state = &self.nodes[at].state;
        let is_known = state.sessions.known(&session, number) != Known::New;
        let digest = PayloadDigest([number as u8; 16]);
        let op = SessionOp { session, number, digest };
        let cell = CellName { tenant: TenantId(1), kind: Kind::Counter, key };
        let generation = state.cells.counter(TenantId(1), key).and_then(|it| it.generation);
        let is_conditional = state.cells.conditionals.get(&session, number).is_some();
        if is_known || !records.is_empty() {
            return;
        }
        if at != home {
            if !is_conditional {
                records.conditional(&Conditional { op, adds: vec![(cell, generation, 100 + number as i64)] });
            }
            return;
        }
        if is_conditional {
            for add in state.cells.conditionals.absorbed(&session, number) {
                let cell = CellName { tenant: TenantId(add.tenant), kind: Kind::Counter, key: &add.key };
                records.add(cell, add.generation, add.delta);
            }
        } else {
            records.add(cell, generation, 100 + number as i64);
        }
        records.op(op);
        let lowest = state.cells.conditionals.lowest(&session).unwrap_or(u64::MAX);
        let mut mark = self.nodes[home].mark;
        while mark < lowest && self.nodes[at].state.sessions.known(&session, mark) != Known::New {
            mark += 1;
        }
        if mark > self.nodes[home].mark && self.chance.below(2) == 0 {
            self.nodes[home].mark = mark;
            records.mark(session, mark);
        }
    }

    fn close(&mut self, at: usize, records: &RecordsBuilder) {
        let node = &mut self.nodes[at];
        let tail = node.state.logs.tail(node.log);
        let seq = node.state.logs.end(node.log).next();
        let batch = Batch::close(
            Place {
                cluster: ClusterId(1),
                log: LogId { shard: ShardId(0), region: node.log.0, epoch: node.log.1 },
                seq,
                ops_before: tail.ops_total,
                clock: Time(self.time),
                durable_through: Seq::ZERO,
                previous: tail.digest,
            },
            records,
        );
        node.state.apply(&batch).expect("what a region writes applies there");
        self.logs.entry(node.log).or_default().push(batch);
    }

    /// The next batch of some log that is not here yet, if it applies.
    fn deliver(&mut self, at: usize) {
        let names: Vec<LogName> = self.logs.keys().copied().collect();
        if !names.is_empty() {
            let name = names[self.chance.below(names.len() as u64) as usize];
            apply_next(&mut self.nodes[at].state, &self.logs[&name], name);
        }
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            let at = self.chance.below(3) as usize;
            if self.chance.below(3) == 0 { self.write(at) } else { self.deliver(at) }
        }
    }

    /// What a region has, brought by replay to all that another one holds.
    fn replayed(&self, from: &State, to: &State) -> State {
        let mut state = copy(from);
        let mut is_any = true;
        while is_any {
            is_any = false;
            for (&name, batches) in &self.logs {
                if state.logs.sealed(name).is_none() && state.logs.end(name) < to.logs.held(name) {
                    is_any |= apply_next(&mut state, batches, name);
                }
            }
        }
        for &name in self.logs.keys() {
            assert!(state.logs.held(name) >= to.logs.held(name), "replay brings {name:?} to its end there");
        }
        state
    }
}

fn apply_next(state: &mut State, batches: &[Batch], name: LogName) -> bool {
    let next = state.logs.held(name).0 as usize;
    state.logs.sealed(name).is_none() && batches.get(next).is_some_and(|batch| state.apply(batch).is_ok())
}

fn copy(state: &State) -> State {
    State::restore(&state.dump(Time::ZERO))
}

/// What a region that has `mine` needs of `theirs`: the cells that differ once both are at the same seals.
fn difference(mine: &State, theirs: &State) -> Difference {
    let all = theirs.dump(Time::ZERO);
    let mut folded = copy(mine);
    let head = Checkpoint { cells: vec![], sessions: vec![], conditionals: vec![], ..all.clone() };
    let (names, before) = (Theirs::of(&head), folded.logs.clone());
    folded.fold_theirs(&Both { mine: &before, theirs: &names });
    let prints = |state: &State| -> BTreeMap<(Kind, CellKey), u64> {
        let counters = state.cells.counters.iter().map(|(name, it)| {
            ((Kind::Counter, name.clone()), print_of(hash_counter(name.tenant, &name.key, it, &state.logs)))
        });
        let registers = state.cells.registers.iter().map(|(name, it)| {
            ((Kind::Register, name.clone()), print_of(hash_register(name.tenant, &name.key, it)))
        });
        counters.chain(registers).collect()
    };
    let (here, there) = (prints(&folded), prints(theirs));
    let is_due = |cell: &CellState| {
        let name = (cell.kind, CellKey::new(TenantId(cell.tenant), &cell.key));
        here.get(&name) != there.get(&name)
    };
    // As the peer sees it: digests that it does not have, be it that it has another state under the same name.
    let is_unknown = |name: &&(Kind, CellKey)| here.get(*name) != there.get(*name);
    let absent = here.keys().filter(|name| name.0 == Kind::Register).filter(is_unknown);
    let absent = Absent::These(absent.map(|(_, name)| (name.tenant, name.key.clone())).collect());
    let cells = all.cells.iter().filter(|cell| is_due(cell)).cloned().collect();
    Difference { state: Checkpoint { cells, ..all }, absent, compared: mine.logs.all_held() }
}

/// What was asked for by an early state is joined with a later one: batches go on being applied meanwhile.
fn check_late(world: &World, early: &State, mine: &State, theirs: &State) -> Result<(), TestCaseError> {
    let (expected, mut joined) = (world.replayed(mine, theirs), copy(mine));
    let given = difference(early, theirs);
    let (kept, _) = super::joined(mine.dump(Time::ZERO), &given).expect("states of one world join");
    joined.join(&given).expect("states of one world join");
    prop_assert_eq!(sorted(joined.dump(Time::ZERO)), sorted(expected.dump(Time::ZERO)));
    prop_assert_eq!(sorted(kept), sorted(expected.dump(Time::ZERO)));
    Ok(())
}

fn check(world: &World, mine: &State, theirs: &State) -> Result<(), TestCaseError> {
    // A side that lacks a seal cannot be brought by replay beyond it in a region that has it: such worlds do not exist.
    let expected = world.replayed(mine, theirs);
    let whole =
        Difference { state: theirs.dump(Time::ZERO), absent: Absent::Unsent, compared: BTreeMap::new() };
    for given in [whole, difference(mine, theirs)] {
        let (kept, _) = super::joined(mine.dump(Time::ZERO), &given).expect("states of one world join");
        let mut joined = copy(mine);
        joined.join(&given).expect("states of one world join");
        prop_assert_eq!(sorted(kept), sorted(expected.dump(Time::ZERO)));
        let expected_cells = expected.dump(Time::ZERO);
        let found = joined.dump(Time::ZERO);
        prop_assert_eq!(joined.logs.vector(), expected.logs.vector());
        prop_assert_eq!(sorted(found), sorted(expected_cells));
        prop_assert_eq!(joined.digest(), expected.digest());
        // Again changes nothing.
        joined.join(&given).expect("states of one world join");
        prop_assert_eq!(joined.digest(), expected.digest());
    }
    Ok(())
}

fn sorted(mut state: Checkpoint) -> Checkpoint {
    state.cells.sort_by(|a, b| (a.kind.code(), &a.key).cmp(&(b.kind.code(), &b.key)));
    for cell in &mut state.cells {
        if let CellContent::Counter { slots, .. } = &mut cell.content {
            slots.sort_unstable();
        }
    }
    state.sessions.sort_by_key(|session| session.id);
    state.conditionals.sort_by_key(|it| (it.session, it.number, it.dot));
    state
}

proptest! {
    #[test]
    fn joining_gives_what_replaying_gives(seed: u64, steps in 1..160u64, more in 0..80u64) {
        let mut world = World::new(seed);
        world.run(steps);
        let early: Vec<State> = world.nodes.iter().map(|node| copy(&node.state)).collect();
        world.run(more);
        for mine in 0..3 {
            for theirs in 0..3 {
                check(&world, &world.nodes[mine].state, &world.nodes[theirs].state)?;
                check(&world, &early[mine], &world.nodes[theirs].state)?;
                check(&world, &world.nodes[mine].state, &early[theirs])?;
                check_late(&world, &early[mine], &world.nodes[mine].state, &world.nodes[theirs].state)?;
            }
        }
    }
}

#[test]
fn a_register_that_came_after_the_comparison_goes_if_the_other_region_had_let_it_go_by_then() {
    let mut world = World::new(1);
    let stamp = world.stamp(0);
    let cell = CellName { tenant: TenantId(1), kind: Kind::Register, key: KEYS[0] };
    let mut records = RecordsBuilder::new();
    records.write(Write { cell, stamp, value: None, expires_at: None });
    world.close(0, &records);
    let log = world.nodes[0].log;
    let mut theirs = copy(&world.nodes[0].state);
    theirs.cells.drop_tombstones(log, Seq(1), &theirs.logs);
    assert_eq!(theirs.cells.registers.iter().count(), 0);

    let mut mine = State::default();
    let given = difference(&mine, &theirs);
    assert!(apply_next(&mut mine, &world.logs[&log], log));
    assert_eq!(mine.cells.registers.iter().count(), 1);
    mine.join(&given).unwrap();
    assert_eq!(mine.digest(), theirs.digest());

    // One that the other region has not seen stays.
    let given = difference(&State::default(), &State::default());
    let mut mine = State::default();
    assert!(apply_next(&mut mine, &world.logs[&log], log));
    mine.join(&given).unwrap();
    assert_eq!(mine.cells.registers.iter().count(), 1);
}

#[test]
fn a_fork_and_an_end_that_was_passed_are_refused_and_change_nothing() {
    let mut world = World::new(1);
    while world.logs.len() < 3 {
        world.run(10);
    }
    let state = &world.nodes[0].state;
    let before = state.digest();
    let (name, end) = state.logs.vector().iter().next().unwrap();
    let mut other = state.dump(Time::ZERO);
    other.logs.iter_mut().find(|it| (it.region, it.epoch) == name).unwrap().digest.0[0] ^= 1;
    let mut joined = copy(state);
    let forked = Difference { state: other, ..Difference::default() };
    assert_eq!(joined.join(&forked), Err(JoinError::Fork(name)));
    let seal = Seal { region: name.0, epoch: name.1, end: Seq(end.0 - 1) };
    let sealed = SealedLog { seal, by_region: region(2), by_epoch: Epoch(99), by_seq: Seq(1) };
    let other = Checkpoint { sealed: vec![sealed], ..Checkpoint::default() };
    let passed = Difference { state: other, ..Difference::default() };
    let error = JoinError::BeyondEnd { log: name, end: seal.end, held: end };
    assert_eq!(joined.join(&passed), Err(error));
    assert_eq!(joined.digest(), before);
}
