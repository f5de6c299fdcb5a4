//! The cells of one shard: tables of counters and registers, with a digest that is kept up as they change.
//!
//! A counter is its slots and the conditional adds that count on top of them. The digest is a sum over the cells of a hash of each cell's canonical bytes, so it does not depend on the order of
//! anything, and an add costs the hashes of one slot. It covers the *state* (slots, generations, dots, tombstones), not what a
//! reader sees, and reads no clock (C2).

use smallvec::SmallVec;
use tombolo_causality::{Seq, Stamp, TenantId, Time};
use tombolo_codec::checkpoint::{CellContent, CellState, SlotState};
use tombolo_codec::records::{Add, Seal, Write};
use tombolo_codec::{CellName, Kind, ReadValue};
use tombolo_crdt::{Counter, Dot, Register};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use crate::state::conditionals::{Conditionals, hash_numbers};
use crate::state::logs::{LogIndex, LogName, Logs};
use crate::state::table::{Named, Table, Tree};

/// A counter as a reader sees it: what the logs added and the conditional adds that are not covered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CounterView {
    pub(crate) generation: Option<Stamp>,
    pub(crate) value: i128,
    /// Whether nothing was added in its present generation.
    pub(crate) is_empty: bool,
}

/// A cell's name in the table of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CellKey {
    pub(crate) tenant: TenantId,
    pub(crate) key: Box<[u8]>,
}

fn place_of(tenant: TenantId, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, u64::from(tenant.0))
}

impl CellKey {
    pub(crate) fn new(tenant: TenantId, key: &[u8]) -> Self {
        Self { tenant, key: Box::from(key) }
    }

    fn is(&self, tenant: TenantId, key: &[u8]) -> bool {
        self.tenant == tenant && *self.key == *key
    }
}

impl Named for CellKey {
    fn place(&self) -> u64 {
        place_of(self.tenant, &self.key)
    }
}

/// All cells of a shard.
#[derive(Default)]
pub(crate) struct Cells {
    pub(crate) counters: Table<CellKey, Counter<LogIndex>>,
    pub(crate) registers: Table<CellKey, Register<LogName>>,
    pub(crate) conditionals: Conditionals,
    tombstones_count: usize,
}

type CanonicalBytes = SmallVec<[u8; 320]>;

fn canonical_name(tenant: TenantId, kind: Kind, key: &[u8]) -> CanonicalBytes {
    let mut out = CanonicalBytes::new();
    out.push(kind.code());
    out.extend_from_slice(&tenant.0.to_le_bytes());
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out
}

fn put_stamp(out: &mut CanonicalBytes, stamp: Option<Stamp>) {
    out.push(u8::from(stamp.is_some()));
    if let Some(stamp) = stamp {
        out.extend_from_slice(&stamp.time.0.to_le_bytes());
        out.extend_from_slice(&stamp.region.get().to_le_bytes());
        out.extend_from_slice(&stamp.op.to_le_bytes());
    }
}

fn put_log(out: &mut CanonicalBytes, (region, epoch): LogName) {
    out.extend_from_slice(&region.get().to_le_bytes());
    out.extend_from_slice(&epoch.0.to_le_bytes());
}

fn hash_name(tenant: TenantId, kind: Kind, key: &[u8]) -> u128 {
    xxh3_128(&canonical_name(tenant, kind, key))
}

/// One log's part of a counter. By name: the index of a log differs from process to process.
fn hash_slot(name: u128, (region, epoch): LogName, positive: u128, negative: u128) -> u128 {
    let mut out = [0u8; 66];
    out[..16].copy_from_slice(&name.to_le_bytes());
    out[16..18].copy_from_slice(&region.get().to_le_bytes());
    out[18..34].copy_from_slice(&epoch.0.to_le_bytes());
    out[34..50].copy_from_slice(&positive.to_le_bytes());
    out[50..].copy_from_slice(&negative.to_le_bytes());
    xxh3_128(&out)
}

/// A counter's part is a sum itself, so that an add to one slot costs the hashes of that slot alone.
pub(crate) fn hash_counter(tenant: TenantId, key: &[u8], counter: &Counter<LogIndex>, logs: &Logs) -> u128 {
    let slots = counter.logs().into_iter();
    let slots = slots.map(|(log, positive, negative)| (logs.name(log), positive, negative));
    hash_slots(tenant, key, counter.generation(), slots)
}

fn hash_slots(
    tenant: TenantId,
    key: &[u8],
    generation: Option<Stamp>,
    slots: impl Iterator<Item = (LogName, u128, u128)>,
) -> u128 {
    let name = hash_name(tenant, Kind::Counter, key);
    let mut out = CanonicalBytes::from_slice(&name.to_le_bytes());
    put_stamp(&mut out, generation);
    slots.fold(xxh3_128(&out), |sum, (log, positive, negative)| {
        sum.wrapping_add(hash_slot(name, log, positive, negative))
    })
}

/// What a cell as checkpoints and peers have it adds to the digest.
pub(crate) fn hash_cell(cell: &CellState) -> u128 {
    let tenant = TenantId(cell.tenant);
    match &cell.content {
        CellContent::Counter { generation, slots } => {
            let slots = slots.iter();
            let slots = slots.map(|it| ((it.region, it.epoch), it.positive, it.negative));
            hash_slots(tenant, &cell.key, *generation, slots)
        }
        CellContent::Register { .. } => {
            let register = register_of(&cell.content).expect("it is one");
            hash_register(tenant, &cell.key, &register)
        }
    }
}

pub(crate) fn hash_register(tenant: TenantId, key: &[u8], register: &Register<LogName>) -> u128 {
    let mut out = canonical_name(tenant, Kind::Register, key);
    put_stamp(&mut out, Some(register.stamp()));
    out.extend_from_slice(&register.expires_at().map_or(u64::MAX, |at| at.0).to_le_bytes());
    put_log(&mut out, register.dot().log);
    out.extend_from_slice(&register.dot().seq.0.to_le_bytes());
    out.push(u8::from(register.value().is_some()));
    out.extend_from_slice(register.value().unwrap_or_default());
    xxh3_128(&out)
}

impl Cells {
    pub(crate) fn digest(&self) -> u128 {
        let cells = self.counters.tree().total().wrapping_add(self.registers.tree().total());
        cells.wrapping_add(self.conditionals.digest())
    }

    /// Deleted registers that are still remembered.
    pub(crate) fn tombstones_count(&self) -> usize {
        self.tombstones_count
    }

    pub(crate) fn len(&self) -> usize {
        self.counters.len() + self.registers.len()
    }

    pub(crate) fn counter(&self, tenant: TenantId, key: &[u8]) -> Option<CounterView> {
        let counter = self.counters.get(place_of(tenant, key), |name| name.is(tenant, key));
        let generation = counter.and_then(Counter::generation);
        let conditional = self.conditionals.sum(tenant, key, generation);
        if counter.is_none() && conditional.is_none() {
            return None;
        }
        Some(CounterView {
            generation,
            value: counter.map_or(0, Counter::value) + conditional.unwrap_or(0),
            is_empty: counter.is_none_or(Counter::is_empty) && conditional.is_none(),
        })
    }

    pub(crate) fn counter_state(&self, name: &CellKey) -> Option<&Counter<LogIndex>> {
        self.counters.get(name.place(), |known| known == name)
    }

    pub(crate) fn register(&self, tenant: TenantId, key: &[u8]) -> Option<&Register<LogName>> {
        self.registers.get(place_of(tenant, key), |name| name.is(tenant, key))
    }

    /// Whether any register was ever written here: most shards of counters can skip the look-up.
    pub(crate) fn has_registers(&self) -> bool {
        !self.registers.is_empty()
    }

    /// The kind a reader sees under a key; of two, the register.
    pub(crate) fn visible_kind(&self, tenant: TenantId, key: &[u8], now: Time) -> Option<Kind> {
        if self.register(tenant, key).is_some_and(|register| register.is_visible(now)) {
            return Some(Kind::Register);
        }
        self.counter(tenant, key).is_some_and(|counter| !counter.is_empty).then_some(Kind::Counter)
    }

    pub(crate) fn read(&self, tenant: TenantId, key: &[u8], now: Time) -> ReadValue {
        if let Some(register) = self.register(tenant, key).filter(|register| register.is_visible(now)) {
            let value = register.value().expect("a visible register has a value").to_vec();
            return ReadValue::Register { value, stamp: register.stamp() };
        }
        match self.counter(tenant, key) {
            Some(counter) if !counter.is_empty => ReadValue::Counter(counter.value),
            _ => ReadValue::Absent,
        }
    }

    /// The counter to be changed, made first if there is none; its place, whether it was made, and the digests.
    fn counter_mut(
        &mut self,
        tenant: TenantId,
        key: &[u8],
    ) -> (u64, &mut Counter<LogIndex>, bool, &mut Tree) {
        let place = place_of(tenant, key);
        let make = || (CellKey::new(tenant, key), Counter::new());
        let (counter, is_new, tree) = self.counters.entry(place, |name| name.is(tenant, key), make);
        (place, counter, is_new, tree)
    }

    pub(crate) fn add(&mut self, add: &Add<'_>, log: LogIndex, logs: &Logs) {
        let CellName { tenant, key, .. } = add.cell;
        let (place, counter, is_new, tree) = self.counter_mut(tenant, key);
        let (before, after) = if !is_new && counter.generation() == add.generation && counter.has(log) {
            let name = hash_name(tenant, Kind::Counter, key);
            let slot = |(positive, negative)| hash_slot(name, logs.name(log), positive, negative);
            let before = slot(counter.totals(log));
            counter.add(log, add.generation, add.positive, add.negative);
            (before, slot(counter.totals(log)))
        } else {
            let before = if is_new { 0 } else { hash_counter(tenant, key, counter, logs) };
            counter.add(log, add.generation, add.positive, add.negative);
            (before, hash_counter(tenant, key, counter, logs))
        };
        tree.change(place, before, after);
    }

    /// Raises a counter to the generation an add was admitted under, whether the add counts or not (F28).
    pub(crate) fn enter(&mut self, cell: CellName<'_>, generation: Option<Stamp>, logs: &Logs) {
        let Some(stamp) = generation else { return };
        let (place, counter, is_new, tree) = self.counter_mut(cell.tenant, cell.key);
        if counter.generation() < generation {
            let before = if is_new { 0 } else { hash_counter(cell.tenant, cell.key, counter, logs) };
            counter.delete(stamp);
            tree.change(place, before, hash_counter(cell.tenant, cell.key, counter, logs));
        }
    }

    /// Lets go of the tombstones that a log wrote through `through`, or that a log wrote which it has taken over by then.
    /// Cost: one pass over the registers.
    pub(crate) fn drop_tombstones(&mut self, log: LogName, through: Seq, logs: &Logs) {
        self.tombstones_count -= self.registers.drop_where(|name, register| {
            let is_covered = |dot: Dot<LogName>| {
                let place = logs.resolve(dot.log, dot.seq);
                place.is_some_and(|(by, at)| by == log && at <= through)
            };
            let goes = register.value().is_none() && is_covered(register.dot());
            goes.then(|| hash_register(name.tenant, &name.key, register))
        });
    }

    pub(crate) fn write(&mut self, write: &Write<'_>, dot: Dot<LogName>, logs: &Logs) {
        let CellName { tenant, kind, key } = write.cell;
        match kind {
            Kind::Counter => {
                let (place, counter, is_new, tree) = self.counter_mut(tenant, key);
                let before = if is_new { 0 } else { hash_counter(tenant, key, counter, logs) };
                counter.delete(write.stamp);
                tree.change(place, before, hash_counter(tenant, key, counter, logs));
            }
            Kind::Register => {
                let written = Register::new(write.stamp, write.value, write.expires_at, dot);
                self.join_register(tenant, key, written);
            }
        }
    }

    /// Lets a register in; the greatest write wins.
    pub(crate) fn join_register(&mut self, tenant: TenantId, key: &[u8], written: Register<LogName>) {
        let place = place_of(tenant, key);
        let mut written = Some(written);
        let mut take = || written.take().expect("it is taken once");
        let make = || (CellKey::new(tenant, key), take());
        let (register, is_new, tree) = self.registers.entry(place, |name| name.is(tenant, key), make);
        let before = if is_new { 0 } else { hash_register(tenant, key, register) };
        let was_tombstone = !is_new && register.value().is_none();
        if let Some(written) = written {
            register.merge(&written);
        }
        self.tombstones_count += usize::from(register.value().is_none());
        self.tombstones_count -= usize::from(was_tombstone);
        tree.change(place, before, hash_register(tenant, key, register));
    }

    /// Moves what a sealed log added to the log that took it over. Cost: one pass over the counters, once a restart.
    ///
    /// Registers keep the position that wrote them: of copies in several logs the smallest stays, and a new name would
    /// make it matter whether a copy comes before the seal or after it (C2).
    pub(crate) fn fold(&mut self, sealed: (LogIndex, LogName), into: (LogIndex, Dot<LogName>), logs: &Logs) {
        let holds = |_: &CellKey, counter: &Counter<LogIndex>| {
            counter.slots().iter().any(|slot| slot.log == sealed.0)
        };
        self.counters.alter(holds, |name, counter, tree| {
            let before = hash_counter(name.tenant, &name.key, counter, logs);
            counter.fold(sealed.0, into.0);
            tree.change(name.place(), before, hash_counter(name.tenant, &name.key, counter, logs));
        });
        self.conditionals.fold(sealed.1, into.1);
    }

    pub(crate) fn dump(&self, logs: &Logs) -> Vec<CellState> {
        let counters = self.counters.iter().map(|(name, counter)| counter_state(name, counter, logs));
        counters.chain(self.registers.iter().map(|(name, register)| register_state(name, register))).collect()
    }

    pub(crate) fn restore(cells: &[CellState], conditionals: Conditionals, logs: &mut Logs) -> Self {
        let mut out = Self { conditionals, ..Self::default() };
        for cell in cells {
            let tenant = TenantId(cell.tenant);
            match &cell.content {
                CellContent::Counter { generation, slots } => {
                    let counter = counter_of(*generation, slots, logs);
                    out.replace_counter(tenant, &cell.key, counter, logs);
                }
                CellContent::Register { .. } => {
                    let register = register_of(&cell.content).expect("it is one");
                    out.join_register(tenant, &cell.key, register);
                }
            }
        }
        out
    }

    /// Puts a counter in the place of the one there is.
    pub(crate) fn replace_counter(
        &mut self,
        tenant: TenantId,
        key: &[u8],
        counter: Counter<LogIndex>,
        logs: &Logs,
    ) {
        let (place, present, is_new, tree) = self.counter_mut(tenant, key);
        let before = if is_new { 0 } else { hash_counter(tenant, key, present, logs) };
        *present = counter;
        tree.change(place, before, hash_counter(tenant, key, present, logs));
    }

    /// Takes a counter out.
    pub(crate) fn drop_counter(&mut self, name: &CellKey, logs: &Logs) {
        if let Some((counter, tree)) = self.counters.remove(name) {
            tree.change(name.place(), hash_counter(name.tenant, &name.key, &counter, logs), 0);
        }
    }

    /// Makes the digests anew.
    pub(crate) fn recount(&mut self, logs: &Logs) {
        self.counters.recount(|name, counter| hash_counter(name.tenant, &name.key, counter, logs));
        self.registers.recount(|name, register| hash_register(name.tenant, &name.key, register));
        self.conditionals.table.recount(hash_numbers);
    }

    /// Takes a register out that another region is known to have let go.
    pub(crate) fn drop_register(&mut self, name: &CellKey) {
        if let Some((register, tree)) = self.registers.remove(name) {
            tree.change(name.place(), hash_register(name.tenant, &name.key, &register), 0);
            self.tombstones_count -= usize::from(register.value().is_none());
        }
    }
}

/// A counter as checkpoints and peers have it.
pub(crate) fn counter_state(name: &CellKey, counter: &Counter<LogIndex>, logs: &Logs) -> CellState {
    let slots = counter.logs().into_iter().map(|(log, positive, negative)| {
        let (region, epoch) = logs.name(log);
        SlotState { region, epoch, positive, negative }
    });
    let content = CellContent::Counter { generation: counter.generation(), slots: slots.collect() };
    CellState { tenant: name.tenant.0, kind: Kind::Counter, key: name.key.to_vec(), content }
}

/// A register as checkpoints and peers have it.
pub(crate) fn register_state(name: &CellKey, register: &Register<LogName>) -> CellState {
    let (dot, (region, epoch)) = (register.dot(), register.dot().log);
    let content = CellContent::Register {
        stamp: register.stamp(),
        value: register.value().map(<[u8]>::to_vec),
        expires_at: register.expires_at(),
        dot: Seal { region, epoch, end: dot.seq },
    };
    CellState { tenant: name.tenant.0, kind: Kind::Register, key: name.key.to_vec(), content }
}

/// The counter of what checkpoints and peers have.
pub(crate) fn counter_of(
    generation: Option<Stamp>,
    slots: &[SlotState],
    logs: &mut Logs,
) -> Counter<LogIndex> {
    let slots: Vec<_> = slots
        .iter()
        .map(|slot| (logs.index((slot.region, slot.epoch)), slot.positive, slot.negative))
        .collect();
    Counter::restored(generation, slots)
}

/// The register of what checkpoints and peers have; none if it is a counter.
pub(crate) fn register_of(content: &CellContent) -> Option<Register<LogName>> {
    let CellContent::Register { stamp, value, expires_at, dot } = content else { return None };
    let dot = Dot { log: (dot.region, dot.epoch), seq: dot.end };
    Some(Register::new(*stamp, value.as_deref(), *expires_at, dot))
}

#[cfg(test)]
mod tests;
