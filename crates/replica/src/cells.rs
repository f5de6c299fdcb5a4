//! The cells of one shard: tables of counters and registers, with a digest that is kept up as they change.
//!
//! A counter is its slots and the conditional adds that count on top of them. The digest is a sum over the cells of a hash of each cell's canonical bytes, so it does not depend on the order of
//! anything, and an add costs the hashes of one slot. It covers the *state* (slots, generations, dots, tombstones), not what a
//! reader sees, and reads no clock (C2).

use hashbrown::HashTable;
use smallvec::SmallVec;
use std::hash::BuildHasher;
use tombolo_causality::{Seq, Stamp, TenantId, Time};
use tombolo_codec::checkpoint::{CellContent, CellState, SlotState};
use tombolo_codec::records::{Add, Seal, Write};
use tombolo_codec::{CellName, Kind, ReadValue};
use tombolo_crdt::{Counter, Dot, Register};
use xxhash_rust::xxh3::xxh3_128;

use crate::conditionals::Conditionals;
use crate::logs::{LogIndex, LogName, Logs};

/// A counter as a reader sees it: what the logs added and the conditional adds that are not covered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CounterView {
    pub(crate) generation: Option<Stamp>,
    pub(crate) value: i128,
    /// Whether nothing was added in its present generation.
    pub(crate) is_empty: bool,
}

struct Entry<V> {
    tenant: TenantId,
    key: Box<[u8]>,
    value: V,
}

struct Table<V>(HashTable<Entry<V>>);

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self(HashTable::new())
    }
}

fn hash_of(tenant: TenantId, key: &[u8]) -> u64 {
    foldhash::fast::FixedState::with_seed(0x7368_6172_645f_6331).hash_one((tenant, key))
}

impl<V> Table<V> {
    fn get(&self, tenant: TenantId, key: &[u8]) -> Option<&V> {
        let is_it = |entry: &Entry<V>| entry.tenant == tenant && *entry.key == *key;
        self.0.find(hash_of(tenant, key), is_it).map(|entry| &entry.value)
    }

    fn get_or_insert(&mut self, tenant: TenantId, key: &[u8], make: impl FnOnce() -> V) -> (&mut V, bool) {
        let is_it = |entry: &Entry<V>| entry.tenant == tenant && *entry.key == *key;
        let rehash = |entry: &Entry<V>| hash_of(entry.tenant, &entry.key);
        match self.0.entry(hash_of(tenant, key), is_it, rehash) {
            hashbrown::hash_table::Entry::Occupied(entry) => (&mut entry.into_mut().value, false),
            hashbrown::hash_table::Entry::Vacant(entry) => {
                let entry = entry.insert(Entry { tenant, key: Box::from(key), value: make() });
                (&mut entry.into_mut().value, true)
            }
        }
    }
}

/// All cells of a shard.
#[derive(Default)]
pub(crate) struct Cells {
    counters: Table<Counter<LogIndex>>,
    registers: Table<Register<LogName>>,
    pub(crate) conditionals: Conditionals,
    tombstones_count: usize,
    digest: u128,
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
fn hash_counter(tenant: TenantId, key: &[u8], counter: &Counter<LogIndex>, logs: &Logs) -> u128 {
    let name = hash_name(tenant, Kind::Counter, key);
    let mut out = CanonicalBytes::from_slice(&name.to_le_bytes());
    put_stamp(&mut out, counter.generation());
    counter.logs().into_iter().fold(xxh3_128(&out), |sum, (log, positive, negative)| {
        sum.wrapping_add(hash_slot(name, logs.name(log), positive, negative))
    })
}

fn hash_register(tenant: TenantId, key: &[u8], register: &Register<LogName>) -> u128 {
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
        self.digest.wrapping_add(self.conditionals.digest())
    }

    /// Deleted registers that are still remembered.
    pub(crate) fn tombstones_count(&self) -> usize {
        self.tombstones_count
    }

    pub(crate) fn len(&self) -> usize {
        self.counters.0.len() + self.registers.0.len()
    }

    pub(crate) fn counter(&self, tenant: TenantId, key: &[u8]) -> Option<CounterView> {
        let counter = self.counters.get(tenant, key);
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

    pub(crate) fn register(&self, tenant: TenantId, key: &[u8]) -> Option<&Register<LogName>> {
        self.registers.get(tenant, key)
    }

    /// Whether any register was ever written here: most shards of counters can skip the look-up.
    pub(crate) fn has_registers(&self) -> bool {
        !self.registers.0.is_empty()
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

    pub(crate) fn add(&mut self, add: &Add<'_>, log: LogIndex, logs: &Logs) {
        let CellName { tenant, key, .. } = add.cell;
        let (counter, is_new) = self.counters.get_or_insert(tenant, key, Counter::new);
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
        self.digest = self.digest.wrapping_sub(before).wrapping_add(after);
    }

    /// Raises a counter to the generation an add was admitted under, whether the add counts or not (F28).
    pub(crate) fn enter(&mut self, cell: CellName<'_>, generation: Option<Stamp>, logs: &Logs) {
        let Some(stamp) = generation else { return };
        let (counter, is_new) = self.counters.get_or_insert(cell.tenant, cell.key, Counter::new);
        if counter.generation() < generation {
            let before = if is_new { 0 } else { hash_counter(cell.tenant, cell.key, counter, logs) };
            counter.delete(stamp);
            let after = hash_counter(cell.tenant, cell.key, counter, logs);
            self.digest = self.digest.wrapping_sub(before).wrapping_add(after);
        }
    }

    /// Lets go of the tombstones that a log wrote through `through`. Cost: one pass over the registers.
    pub(crate) fn drop_tombstones(&mut self, log: LogName, through: Seq) {
        let (mut digest, mut gone) = (self.digest, 0);
        self.registers.0.retain(|entry| {
            let dot = entry.value.dot();
            let goes = entry.value.value().is_none() && dot.log == log && dot.seq <= through;
            if goes {
                digest = digest.wrapping_sub(hash_register(entry.tenant, &entry.key, &entry.value));
                gone += 1;
            }
            !goes
        });
        self.digest = digest;
        self.tombstones_count -= gone;
    }

    pub(crate) fn write(&mut self, write: &Write<'_>, dot: Dot<LogName>, logs: &Logs) {
        let CellName { tenant, kind, key } = write.cell;
        let (before, after) = match kind {
            Kind::Counter => {
                let (counter, is_new) = self.counters.get_or_insert(tenant, key, Counter::new);
                let before = if is_new { 0 } else { hash_counter(tenant, key, counter, logs) };
                counter.delete(write.stamp);
                (before, hash_counter(tenant, key, counter, logs))
            }
            Kind::Register => {
                let make = || Register::new(write.stamp, write.value, write.expires_at, dot);
                let (register, is_new) = self.registers.get_or_insert(tenant, key, make);
                let before = if is_new { 0 } else { hash_register(tenant, key, register) };
                let was_tombstone = !is_new && register.value().is_none();
                if !is_new {
                    register.write(write.stamp, write.value, write.expires_at, dot);
                }
                self.tombstones_count += usize::from(register.value().is_none());
                self.tombstones_count -= usize::from(was_tombstone);
                (before, hash_register(tenant, key, register))
            }
        };
        self.digest = self.digest.wrapping_sub(before).wrapping_add(after);
    }

    /// Moves all that a sealed log wrote to the log that took it over. Cost: one pass over the shard, once a restart.
    pub(crate) fn fold(&mut self, sealed: (LogIndex, LogName), into: (LogIndex, Dot<LogName>), logs: &Logs) {
        let mut digest = self.digest;
        for entry in &mut self.counters.0 {
            if entry.value.slots().iter().any(|slot| slot.log == sealed.0) {
                digest = digest.wrapping_sub(hash_counter(entry.tenant, &entry.key, &entry.value, logs));
                entry.value.fold(sealed.0, into.0);
                digest = digest.wrapping_add(hash_counter(entry.tenant, &entry.key, &entry.value, logs));
            }
        }
        for entry in &mut self.registers.0 {
            if entry.value.dot().log == sealed.1 {
                digest = digest.wrapping_sub(hash_register(entry.tenant, &entry.key, &entry.value));
                entry.value.fold(sealed.1, into.1);
                digest = digest.wrapping_add(hash_register(entry.tenant, &entry.key, &entry.value));
            }
        }
        self.digest = digest;
        self.conditionals.fold(sealed.1, into.1);
    }

    pub(crate) fn dump(&self, logs: &Logs) -> Vec<CellState> {
        let mut cells = Vec::with_capacity(self.len());
        for Entry { tenant, key, value } in &self.counters.0 {
            let slots = value.logs().into_iter().map(|(log, positive, negative)| {
                let (region, epoch) = logs.name(log);
                SlotState { region, epoch, positive, negative }
            });
            let content = CellContent::Counter { generation: value.generation(), slots: slots.collect() };
            cells.push(CellState { tenant: tenant.0, kind: Kind::Counter, key: key.to_vec(), content });
        }
        for Entry { tenant, key, value } in &self.registers.0 {
            let (dot, (region, epoch)) = (value.dot(), value.dot().log);
            let content = CellContent::Register {
                stamp: value.stamp(),
                value: value.value().map(<[u8]>::to_vec),
                expires_at: value.expires_at(),
                dot: Seal { region, epoch, end: dot.seq },
            };
            cells.push(CellState { tenant: tenant.0, kind: Kind::Register, key: key.to_vec(), content });
        }
        cells
    }

    pub(crate) fn restore(cells: &[CellState], conditionals: Conditionals, logs: &mut Logs) -> Self {
        let mut out = Self { conditionals, ..Self::default() };
        for cell in cells {
            let (tenant, key) = (TenantId(cell.tenant), cell.key.as_slice());
            let hash = match &cell.content {
                CellContent::Counter { generation, slots } => {
                    let slots: Vec<_> = slots
                        .iter()
                        .map(|slot| (logs.index((slot.region, slot.epoch)), slot.positive, slot.negative))
                        .collect();
                    let make = || Counter::restored(*generation, slots);
                    let (counter, _) = out.counters.get_or_insert(tenant, key, make);
                    hash_counter(tenant, key, counter, logs)
                }
                CellContent::Register { stamp, value, expires_at, dot } => {
                    let dot = Dot { log: (dot.region, dot.epoch), seq: dot.end };
                    let make = || Register::new(*stamp, value.as_deref(), *expires_at, dot);
                    let (register, _) = out.registers.get_or_insert(tenant, key, make);
                    out.tombstones_count += usize::from(register.value().is_none());
                    hash_register(tenant, key, register)
                }
            };
            out.digest = out.digest.wrapping_add(hash);
        }
        out
    }
}

#[cfg(test)]
mod tests;
