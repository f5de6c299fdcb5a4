//! Single entries of a shard's state: their names, what they hold as checkpoints and peers have it, and how one is put
//! in the place of another.
//!
//! Nothing here judges which of two is right. Start with [`EntryName`].

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use tombolo_causality::{Epoch, RegionId, SessionId, TenantId, Time};
use tombolo_codec::checkpoint::{CellContent, CellState, ConditionalState, SessionState};
use tombolo_codec::{Entries, Kind, Section};

use crate::heal::prints::NameRef;
use crate::state::State;
use crate::state::cells::{CellKey, counter_of, counter_state, register_of, register_state};
use crate::state::conditionals::conditional_states;
use crate::state::logs::Logs;
use crate::state::sessions::session_state;
use crate::state::table::{CutId, Named, leaf_of};

/// What names an entry in its shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryName {
    /// A counter or a register.
    Cell {
        /// Of which kind.
        is_counter: bool,
        /// Whose.
        tenant: TenantId,
        /// Its key.
        key: Box<[u8]>,
    },
    /// A session's numbers.
    Session(SessionId),
    /// The conditional requests of a session.
    Conditionals(SessionId),
}

impl EntryName {
    fn cell(kind: Kind, tenant: TenantId, key: &[u8]) -> Self {
        Self::Cell { is_counter: kind == Kind::Counter, tenant, key: Box::from(key) }
    }

    pub(crate) fn of(name: NameRef<'_>) -> Self {
        match name {
            NameRef::Counter(name) => Self::cell(Kind::Counter, name.tenant, &name.key),
            NameRef::Register(name) => Self::cell(Kind::Register, name.tenant, &name.key),
            NameRef::Session(id) => Self::Session(*id),
            NameRef::Conditionals(id) => Self::Conditionals(*id),
        }
    }

    /// The leaf it stands in.
    pub(crate) fn leaf(&self) -> u16 {
        leaf_of(match self {
            Self::Cell { tenant, key, .. } => CellKey::new(*tenant, key).place(),
            Self::Session(id) | Self::Conditionals(id) => id.place(),
        })
    }

    /// The table it stands in.
    #[must_use]
    pub const fn section(&self) -> Section {
        match self {
            Self::Cell { is_counter: true, .. } => Section::Counters,
            Self::Cell { is_counter: false, .. } => Section::Registers,
            Self::Session(_) => Section::Sessions,
            Self::Conditionals(_) => Section::Conditionals,
        }
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cell { is_counter, tenant, key } => {
                let kind = if *is_counter { "counter" } else { "register" };
                write!(f, "{kind}/{}/", tenant.0)?;
                key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Session(id) | Self::Conditionals(id) => {
                let kind = if matches!(self, Self::Session(_)) { "session" } else { "conditionals" };
                let SessionId { home, epoch, opened, random } = id;
                write!(f, "{kind}/{home}/{:x}/{:x}/{random:x}", epoch.0, opened.0)
            }
        }
    }
}

/// A text that names no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no entry")]
pub struct EntryNameError(String);

impl FromStr for EntryName {
    type Err = EntryNameError;

    fn from_str(text: &str) -> Result<Self, EntryNameError> {
        parsed(text).ok_or_else(|| EntryNameError(text.to_owned()))
    }
}

fn parsed(text: &str) -> Option<EntryName> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts[..] {
        [kind @ ("counter" | "register"), tenant, key] => {
            let bytes = (0..key.len()).step_by(2);
            let byte = |at: usize| u8::from_str_radix(key.get(at..at + 2)?, 16).ok();
            let key: Box<[u8]> = bytes.map(byte).collect::<Option<_>>()?;
            Some(EntryName::Cell {
                is_counter: kind == "counter",
                tenant: TenantId(tenant.parse().ok()?),
                key,
            })
        }
        [kind @ ("session" | "conditionals"), home, epoch, opened, random] => {
            let id = SessionId {
                home: RegionId::new(home.parse().ok()?).ok()?,
                epoch: Epoch(u128::from_str_radix(epoch, 16).ok()?),
                opened: Time(u64::from_str_radix(opened, 16).ok()?),
                random: u64::from_str_radix(random, 16).ok()?,
            };
            Some(if kind == "session" { EntryName::Session(id) } else { EntryName::Conditionals(id) })
        }
        _ => None,
    }
}

/// What stands under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryState {
    Cell(CellState),
    Session(SessionState),
    Conditionals(Vec<ConditionalState>),
}

impl EntryState {
    pub(crate) fn name(&self) -> EntryName {
        match self {
            Self::Cell(cell) => EntryName::cell(cell.kind, TenantId(cell.tenant), &cell.key),
            Self::Session(session) => EntryName::Session(session.id),
            Self::Conditionals(states) => EntryName::Conditionals(states[0].session),
        }
    }

    /// Slots stand in the order of their logs: each process has an order of its own.
    fn of_cell(mut cell: CellState) -> Self {
        if let CellContent::Counter { slots, .. } = &mut cell.content {
            slots.sort_unstable();
        }
        Self::Cell(cell)
    }

    /// The entries of an answer, or of a checkpoint.
    pub(crate) fn all(entries: Entries) -> impl Iterator<Item = Self> {
        let mut of_session: BTreeMap<SessionId, Vec<ConditionalState>> = BTreeMap::new();
        for state in entries.conditionals {
            of_session.entry(state.session).or_default().push(state);
        }
        let cells = entries.cells.into_iter().map(Self::of_cell);
        let sessions = entries.sessions.into_iter().map(Self::Session);
        cells.chain(sessions).chain(of_session.into_values().map(Self::Conditionals))
    }

    pub(crate) fn put(self, out: &mut Entries) {
        match self {
            Self::Cell(cell) => out.cells.push(cell),
            Self::Session(session) => out.sessions.push(session),
            Self::Conditionals(states) => out.conditionals.extend(states),
        }
    }

    /// Whether an entry that has seen all that `earlier` has may have come of it.
    pub(crate) fn may_follow(&self, earlier: &Self, logs: &Logs) -> bool {
        match (self, earlier) {
            (Self::Cell(late), Self::Cell(early)) => follows_cell(late, early, logs),
            (Self::Session(late), Self::Session(early)) => {
                let is_covered = |number: u64| {
                    number < late.mark || late.numbers.iter().any(|known| known.number == number)
                };
                late.mark >= early.mark && early.numbers.iter().all(|it| is_covered(it.number))
            }
            // Conditionals come and go as their authority covers them.
            _ => true,
        }
    }
}

fn follows_cell(late: &CellState, early: &CellState, logs: &Logs) -> bool {
    match (&late.content, &early.content) {
        (
            CellContent::Counter { generation: late_generation, slots: late },
            CellContent::Counter { generation, slots },
        ) => {
            if late_generation != generation {
                return late_generation > generation;
            }
            // What a sealed log added stands under another name by now.
            let standing = slots.iter().filter(|slot| logs.sealed((slot.region, slot.epoch)).is_none());
            standing.into_iter().all(|slot| {
                let is_it = |it: &&_| {
                    let it: &tombolo_codec::checkpoint::SlotState = it;
                    (it.region, it.epoch) == (slot.region, slot.epoch)
                };
                late.iter()
                    .find(is_it)
                    .is_some_and(|it| it.positive >= slot.positive && it.negative >= slot.negative)
            })
        }
        (CellContent::Register { .. }, CellContent::Register { .. }) => {
            let (Some(late), Some(early)) = (register_of(&late.content), register_of(&early.content)) else {
                return false;
            };
            let mut joined = late.clone();
            joined.merge(&early);
            joined == late
        }
        _ => false,
    }
}

impl fmt::Display for EntryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cell(cell) => match &cell.content {
                CellContent::Counter { generation, slots } => {
                    for (at, slot) in slots.iter().enumerate() {
                        let between = if at == 0 { "" } else { ", " };
                        write!(f, "{between}region {} +{} -{}", slot.region, slot.positive, slot.negative)?;
                    }
                    generation.map_or(Ok(()), |stamp| write!(f, " since {}", stamp.time.0))
                }
                CellContent::Register { stamp, value, .. } => match value {
                    Some(value) => {
                        write!(f, "`{}` at {}", value[..value.len().min(64)].escape_ascii(), stamp.time.0)
                    }
                    None => write!(f, "deleted at {}", stamp.time.0),
                },
            },
            Self::Session(session) => {
                write!(f, "settled below {}, {} numbers", session.mark, session.numbers.len())
            }
            Self::Conditionals(states) => write!(f, "{} requests", states.len()),
        }
    }
}

impl State {
    /// What stands under a name.
    pub(crate) fn entry(&self, name: &EntryName) -> Option<EntryState> {
        match name {
            EntryName::Cell { is_counter: true, tenant, key } => {
                let name = CellKey::new(*tenant, key);
                let counter = self.cells.counter_state(&name)?;
                Some(EntryState::of_cell(counter_state(&name, counter, &self.logs)))
            }
            EntryName::Cell { is_counter: false, tenant, key } => {
                let register = self.cells.register(*tenant, key)?;
                Some(EntryState::of_cell(register_state(&CellKey::new(*tenant, key), register)))
            }
            EntryName::Session(id) => {
                self.sessions.get(id).map(|session| EntryState::Session(session_state(*id, session)))
            }
            EntryName::Conditionals(id) => {
                let numbers = self.cells.conditionals.of_session(id)?;
                Some(EntryState::Conditionals(conditional_states(*id, numbers).collect()))
            }
        }
    }

    /// Whether an entry was changed since a cut was opened.
    pub(crate) fn is_changed_since(&self, cut: CutId, name: &EntryName) -> bool {
        match name {
            EntryName::Cell { is_counter: true, tenant, key } => {
                self.cells.counters.is_changed_since(cut, &CellKey::new(*tenant, key))
            }
            EntryName::Cell { is_counter: false, tenant, key } => {
                self.cells.registers.is_changed_since(cut, &CellKey::new(*tenant, key))
            }
            EntryName::Session(id) => self.sessions.table.is_changed_since(cut, id),
            EntryName::Conditionals(id) => self.cells.conditionals.table.is_changed_since(cut, id),
        }
    }

    /// Puts an entry, or none, in the place of the one there is.
    pub(crate) fn replace_entry(&mut self, name: &EntryName, state: Option<&EntryState>) {
        match name {
            EntryName::Cell { is_counter, tenant, key } => {
                let name = CellKey::new(*tenant, key);
                if *is_counter {
                    self.cells.drop_counter(&name, &self.logs);
                } else {
                    self.cells.drop_register(&name);
                }
            }
            EntryName::Session(id) => self.sessions.drop_session(id),
            EntryName::Conditionals(id) => self.cells.conditionals.cover_below(id, u64::MAX),
        }
        match state {
            Some(EntryState::Cell(cell)) => {
                let tenant = TenantId(cell.tenant);
                if let CellContent::Counter { generation, slots } = &cell.content {
                    let counter = counter_of(*generation, slots, &mut self.logs);
                    self.cells.replace_counter(tenant, &cell.key, counter, &self.logs);
                } else if let Some(register) = register_of(&cell.content) {
                    self.cells.join_register(tenant, &cell.key, register);
                }
            }
            Some(EntryState::Session(session)) => self.sessions.join(session),
            Some(EntryState::Conditionals(states)) => {
                states.iter().for_each(|state| self.cells.conditionals.join(state));
            }
            None => {}
        }
    }

    /// Changes a counter behind the digests' back, as damage in memory does.
    pub(crate) fn damage_counter(&mut self, tenant: TenantId, key: &[u8], by: u64) -> bool {
        self.cells.counters.damage(&CellKey::new(tenant, key), |counter| {
            if let Some((log, ..)) = counter.logs().first().copied() {
                counter.add(log, counter.generation(), by, 0);
            }
        })
    }

    /// Makes the digests anew from what stands in the tables. Cost: one pass over the shard.
    pub(crate) fn recount(&mut self) {
        let Self { cells, sessions, logs, .. } = self;
        cells.recount(logs);
        sessions.table.recount(crate::state::sessions::hash_session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_as_it_is_written_and_other_texts_are_none() {
        let id = SessionId {
            home: RegionId::new(3).unwrap(),
            epoch: Epoch(u128::MAX),
            opened: Time(9),
            random: 7,
        };
        let cell =
            |is_counter, key: &[u8]| EntryName::Cell { is_counter, tenant: TenantId(4), key: Box::from(key) };
        for name in [
            cell(true, b"views/1\xff"),
            cell(false, b""),
            EntryName::Session(id),
            EntryName::Conditionals(id),
        ] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for text in [
            "",
            "counter/1",
            "counter/1/abc",
            "counter/1/zz",
            "set/1/aa",
            "session/0/1/1/1",
            "counter/1/\u{e9}a",
        ] {
            assert!(text.parse::<EntryName>().is_err(), "{text}");
        }
    }
}
