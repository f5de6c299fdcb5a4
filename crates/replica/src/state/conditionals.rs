//! Conditional adds that are not covered: logged by regions that are not their session's authority, and counted until
//! the authority's log covers them (design.md §3.3).
//!
//! One number counts once however many regions logged it (F5). In a cell it counts by its first copy, in the order of
//! (log, seq), that was admitted under the cell's generation. Covered ones are dropped: what is here is a function of the vector (C2).

use std::collections::BTreeMap;

use hashbrown::HashMap;
use smallvec::SmallVec;
use tombolo_causality::{RegionId, SessionId, Stamp, TenantId, Time};
use tombolo_codec::PayloadDigest;
use tombolo_codec::checkpoint::{ConditionalAdd, ConditionalState};
use tombolo_codec::records::{Conditional, Seal};
use tombolo_crdt::Dot;
use tombolo_mutants::{Mutant, is_planted};
use xxhash_rust::xxh3::xxh3_128;

use crate::state::logs::LogName;
use crate::state::table::{Named, Table};

/// One region's record of a conditional request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Logged {
    pub(crate) dot: Dot<LogName>,
    digest: PayloadDigest,
    adds: Vec<ConditionalAdd>,
}

/// What conditionals add to one counter under one generation.
#[derive(Debug)]
struct Sum {
    generation: Option<Stamp>,
    delta: i128,
    requests_count: usize,
}

/// What is conditional of one session.
pub(crate) type Numbers = BTreeMap<u64, SmallVec<[Logged; 1]>>;
type CellKey = (TenantId, Box<[u8]>);

/// All uncovered conditionals of a shard.
#[derive(Debug, Default)]
pub(crate) struct Conditionals {
    pub(crate) table: Table<SessionId, Numbers>,
    /// What they add to each counter, kept up to date: a counter in use is read far more often than its adds change.
    cells: HashMap<CellKey, SmallVec<[Sum; 1]>, foldhash::fast::FixedState>,
    len: usize,
}

fn hash(session: &SessionId, number: u64, copy: &Logged) -> u128 {
    let mut out: SmallVec<[u8; 256]> = SmallVec::new();
    out.extend_from_slice(&session.home.get().to_le_bytes());
    out.extend_from_slice(&session.epoch.0.to_le_bytes());
    out.extend_from_slice(&session.opened.0.to_le_bytes());
    out.extend_from_slice(&session.random.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&copy.digest.0);
    out.extend_from_slice(&copy.dot.log.0.get().to_le_bytes());
    out.extend_from_slice(&copy.dot.log.1.0.to_le_bytes());
    out.extend_from_slice(&copy.dot.seq.0.to_le_bytes());
    for add in &copy.adds {
        out.extend_from_slice(&add.tenant.to_le_bytes());
        out.extend_from_slice(&(add.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&add.key);
        out.push(u8::from(add.generation.is_some()));
        if let Some(stamp) = add.generation {
            out.extend_from_slice(&stamp.time.0.to_le_bytes());
            out.extend_from_slice(&stamp.region.get().to_le_bytes());
            out.extend_from_slice(&stamp.op.to_le_bytes());
        }
        out.extend_from_slice(&add.delta.to_le_bytes());
    }
    xxh3_128(&out)
}

fn cell_of(add: &ConditionalAdd) -> CellKey {
    (TenantId(add.tenant), Box::from(add.key.as_slice()))
}

/// Copies that count: those with the payload of the first. Another payload under the same number is its caller's
/// error, which two regions cannot notice while apart.
fn same_payload(copies: &[Logged]) -> impl Iterator<Item = &Logged> {
    let digest = copies.first().map(|first| first.digest);
    copies.iter().filter(move |copy| Some(copy.digest) == digest)
}

/// What a conditional add takes in memory, and at most on the wire.
pub(crate) fn conditional_bytes(key: &[u8]) -> usize {
    64 + key.len()
}

impl Conditionals {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(crate) fn digest(&self) -> u128 {
        self.table.tree().total()
    }

    pub(crate) fn of_session(&self, session: &SessionId) -> Option<&Numbers> {
        self.table.get(session.place(), |known| known == session)
    }

    /// The payload of a number that is conditional here, and the first log position that holds it.
    pub(crate) fn get(&self, session: &SessionId, number: u64) -> Option<(PayloadDigest, Dot<LogName>)> {
        let first = self.of_session(session)?.get(&number)?.first()?;
        Some((first.digest, first.dot))
    }

    /// How many numbers of a session are conditional.
    pub(crate) fn numbers_count(&self, session: &SessionId) -> usize {
        self.of_session(session).map_or(0, BTreeMap::len)
    }

    /// What a session's conditionals take, about.
    pub(crate) fn bytes_of(&self, session: &SessionId) -> usize {
        let copies = self.of_session(session).into_iter().flat_map(BTreeMap::values).flatten();
        copies.flat_map(|copy| &copy.adds).map(|add| conditional_bytes(&add.key)).sum()
    }

    /// The lowest number of a session that is conditional.
    pub(crate) fn lowest(&self, session: &SessionId) -> Option<u64> {
        self.of_session(session)?.keys().next().copied()
    }

    /// Every conditional number of the sessions of a home, in order.
    pub(crate) fn of_home(&self, home: RegionId) -> Vec<(SessionId, u64)> {
        let of_home = self.table.iter().filter(|(id, _)| id.home == home);
        let mut all: Vec<_> =
            of_home.flat_map(|(&id, numbers)| numbers.keys().map(move |&number| (id, number))).collect();
        all.sort_unstable();
        all
    }

    /// What conditionals add to a counter under a generation; none if there are none.
    pub(crate) fn sum(&self, tenant: TenantId, key: &[u8], generation: Option<Stamp>) -> Option<i128> {
        if self.cells.is_empty() {
            return None;
        }
        let sums = self.cells.get(&(tenant, Box::from(key)))?;
        sums.iter().find(|sum| sum.generation == generation).map(|sum| sum.delta)
    }

    /// What a request adds: to each counter and under each generation by its first copy that names both.
    fn parts(copies: &[Logged]) -> BTreeMap<(CellKey, Option<Stamp>), i128> {
        let mut parts = BTreeMap::new();
        for copy in same_payload(copies) {
            let mut own: BTreeMap<(CellKey, Option<Stamp>), i128> = BTreeMap::new();
            for add in &copy.adds {
                *own.entry((cell_of(add), add.generation)).or_default() += i128::from(add.delta);
            }
            for (at, delta) in own {
                let again = if is_planted(Mutant::ConditionalPerRegion) { parts.remove(&at) } else { None };
                parts.entry(at).or_insert(delta + again.unwrap_or(0));
            }
        }
        parts
    }

    /// Counts a request's parts in, or out again.
    fn count(&mut self, parts: BTreeMap<(CellKey, Option<Stamp>), i128>, is_in: bool) {
        for ((cell, generation), delta) in parts {
            let hashbrown::hash_map::Entry::Occupied(mut sums) = self.cells.entry(cell.clone()) else {
                if is_in {
                    let sum = Sum { generation, delta, requests_count: 1 };
                    self.cells.insert(cell, SmallVec::from_iter([sum]));
                }
                continue;
            };
            let found = sums.get().iter().position(|sum| sum.generation == generation);
            match found {
                Some(at) if is_in => {
                    sums.get_mut()[at].delta += delta;
                    sums.get_mut()[at].requests_count += 1;
                }
                Some(at) => {
                    let sum = &mut sums.get_mut()[at];
                    sum.delta -= delta;
                    sum.requests_count -= 1;
                    if sum.requests_count == 0 {
                        sums.get_mut().swap_remove(at);
                    }
                    if sums.get().is_empty() {
                        sums.remove();
                    }
                }
                None if is_in => sums.get_mut().push(Sum { generation, delta, requests_count: 1 }),
                None => {}
            }
        }
    }

    /// The adds by which the authority absorbs a number: of each cell those of the copy under the greatest generation
    /// (F27), the first of several.
    pub(crate) fn absorbed(&self, session: &SessionId, number: u64) -> Vec<ConditionalAdd> {
        let Some(copies) = self.of_session(session).and_then(|numbers| numbers.get(&number)) else {
            return Vec::new();
        };
        let mut best: BTreeMap<CellKey, (Option<Stamp>, &Logged)> = BTreeMap::new();
        for copy in same_payload(copies) {
            for add in &copy.adds {
                let known = best.entry(cell_of(add)).or_insert((add.generation, copy));
                if add.generation > known.0 {
                    *known = (add.generation, copy);
                }
            }
        }
        let of_cell = |(cell, (_, copy)): (CellKey, (Option<Stamp>, &Logged))| {
            copy.adds.iter().filter(|add| cell_of(add) == cell).cloned().collect::<Vec<_>>()
        };
        best.into_iter().flat_map(of_cell).collect()
    }

    /// Takes a record in; the caller has made sure that its number is not covered.
    pub(crate) fn insert(&mut self, record: &Conditional<'_>, dot: Dot<LogName>) {
        let adds = record.adds.iter().map(|&(cell, generation, delta)| ConditionalAdd {
            tenant: cell.tenant.0,
            key: cell.key.to_vec(),
            generation,
            delta,
        });
        let copy = Logged { dot, digest: record.op.digest, adds: adds.collect() };
        self.insert_copy(record.op.session, record.op.number, copy);
    }

    fn insert_copy(&mut self, session: SessionId, number: u64, copy: Logged) {
        self.len += 1;
        let place = session.place();
        let make = || (session, Numbers::new());
        let (numbers, _, tree) = self.table.entry(place, |known| *known == session, make);
        let copies = numbers.entry(number).or_default();
        if copies.contains(&copy) {
            self.len -= 1;
            return;
        }
        tree.change(place, 0, hash(&session, number, &copy));
        let before = Self::parts(copies);
        let at = copies.partition_point(|known| *known < copy);
        copies.insert(at, copy);
        let after = Self::parts(copies);
        self.count(before, false);
        self.count(after, true);
    }

    /// A number is covered: the authority's own record stands for it from now on.
    pub(crate) fn cover(&mut self, session: &SessionId, number: u64) {
        if self.of_session(session).is_none_or(|numbers| !numbers.contains_key(&number)) {
            return;
        }
        let Some((numbers, tree)) = self.table.get_mut(session) else { return };
        let copies = numbers.remove(&number).unwrap_or_default();
        for copy in &copies {
            tree.change(session.place(), hash(session, number, copy), 0);
            self.len -= 1;
        }
        if numbers.is_empty() {
            self.table.remove(session);
        }
        self.count(Self::parts(&copies), false);
    }

    /// Every number of a session below its settled mark is covered.
    pub(crate) fn cover_below(&mut self, session: &SessionId, mark: u64) {
        let Some(numbers) = self.of_session(session) else { return };
        let below: Vec<u64> = numbers.range(..mark).map(|(&number, _)| number).collect();
        for number in below {
            self.cover(session, number);
        }
    }

    /// Drops what belongs to sessions of a home opened before a time.
    pub(crate) fn forget(&mut self, home: RegionId, before: Time) {
        let gone = self.of_home(home).into_iter().filter(|(id, _)| id.opened < before);
        gone.for_each(|(id, number)| self.cover(&id, number));
    }

    /// Renames the log of what a sealed log wrote; so another copy may come first.
    pub(crate) fn fold(&mut self, sealed: LogName, into: Dot<LogName>) {
        let (mut changed, mut len) = (Vec::new(), self.len);
        let is_of = |copy: &Logged| copy.dot.log == sealed;
        let holds = |_: &SessionId, numbers: &Numbers| numbers.values().flatten().any(is_of);
        self.table.alter(holds, |session, numbers, tree| {
            let after = folded(numbers, sealed, into);
            tree.change(session.place(), hash_numbers(session, numbers), hash_numbers(session, &after));
            for (number, copies) in numbers.iter() {
                changed.push((Self::parts(copies), Self::parts(&after[number])));
                len -= copies.len() - after[number].len();
            }
            *numbers = after;
        });
        self.len = len;
        for (before, after) in changed {
            self.count(before, false);
            self.count(after, true);
        }
    }

    pub(crate) fn dump(&self) -> Vec<ConditionalState> {
        let mut all = Vec::with_capacity(self.len);
        self.table.iter().for_each(|(session, numbers)| all.extend(conditional_states(*session, numbers)));
        all
    }

    pub(crate) fn restore(states: &[ConditionalState]) -> Self {
        let mut out = Self::default();
        states.iter().for_each(|state| out.join(state));
        out
    }

    /// Lets a copy in; the caller has made sure that its number is not covered.
    pub(crate) fn join(&mut self, state: &ConditionalState) {
        self.insert_copy(state.session, state.number, logged(state));
    }
}

/// What a conditional request as checkpoints and peers have it adds to the digest.
pub(crate) fn hash_conditional(state: &ConditionalState) -> u128 {
    hash(&state.session, state.number, &logged(state))
}

fn logged(state: &ConditionalState) -> Logged {
    let dot = Dot { log: (state.dot.region, state.dot.epoch), seq: state.dot.end };
    Logged { dot, digest: state.digest, adds: state.adds.clone() }
}

/// A session's conditionals once a log that holds some of them was taken over.
pub(crate) fn folded(numbers: &Numbers, sealed: LogName, into: Dot<LogName>) -> Numbers {
    let mut out = numbers.clone();
    for copies in out.values_mut() {
        copies.iter_mut().filter(|copy| copy.dot.log == sealed).for_each(|copy| copy.dot = into);
        copies.sort_unstable();
        // Two logs that one record takes over may hold the same request: from then on it is one copy.
        copies.dedup();
    }
    out
}

/// What a session's conditionals add to the digest.
pub(crate) fn hash_numbers(session: &SessionId, numbers: &Numbers) -> u128 {
    let copies = numbers.iter().flat_map(|(number, copies)| copies.iter().map(move |copy| (*number, copy)));
    copies.fold(0, |sum, (number, copy)| sum.wrapping_add(hash(session, number, copy)))
}

/// A session's conditionals as checkpoints and peers have them.
pub(crate) fn conditional_states(
    session: SessionId,
    numbers: &Numbers,
) -> impl Iterator<Item = ConditionalState> + '_ {
    numbers.iter().flat_map(move |(&number, copies)| {
        copies.iter().map(move |copy| {
            let ((region, epoch), end) = (copy.dot.log, copy.dot.seq);
            let dot = Seal { region, epoch, end };
            ConditionalState { session, number, digest: copy.digest, dot, adds: copy.adds.clone() }
        })
    })
}
