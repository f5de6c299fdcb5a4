//! Cuts of a shard: the state at one vector, readable while the state goes on. They serve checkpoints, peers whose
//! histories are gone, what is compared here with such a peer's, and verifications.
//!
//! Opening one copies the digests of the leaves and nothing else; see `state/table.rs` for how entries stay what they were.
//! Start with [`Replica::begin_cut`] for a whole one, [`Replica::cut_asked`] for one that a peer reads in pieces.

use std::collections::BTreeMap;

use tombolo_causality::{RegionId, SessionId, Time};
use tombolo_codec::checkpoint::{ConditionalState, SealedLog};
use tombolo_codec::limits::{ENTRIES_CELLS_MAX, ENTRIES_LEAVES_MAX};
use tombolo_codec::{Checkpoint, Entries, LeafAsk, LeafSums, PeerMessage, Section};
use tombolo_crdt::{Counter, Register};

use crate::input::{Link, Now};
use crate::replica::Replica;
use crate::state::State;
use crate::state::cells::{CellKey, counter_state, hash_counter, hash_register, register_state};
use crate::state::conditionals::{Numbers, conditional_states, hash_numbers};
use crate::state::logs::{LogIndex, LogName, Logs};
use crate::state::sessions::{Session, hash_session, session_state};
use crate::state::table::{CutId, PARTS_COUNT, Tree, by_part, narrowed, print_of};

/// A cut of which nothing was asked for so long is closed.
const PEER_CUT_IDLE_MS_MAX: u64 = 60_000;
/// What an entry costs beside its keys and values, about.
const ENTRY_BYTES: usize = 96;

/// A cut that a peer reads.
#[derive(Debug)]
struct PeerCut {
    peer: RegionId,
    link: Link,
    asked_ms: u64,
    /// Bytes that stand for a digest.
    digest_bytes: u8,
}

/// The cuts of a shard.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    last: u64,
    of_peers: BTreeMap<CutId, PeerCut>,
}

impl Cuts {
    /// Whose cuts are open, on which connections.
    pub(crate) fn of_peers(&self) -> impl Iterator<Item = (RegionId, Link)> + '_ {
        self.of_peers.values().map(|cut| (cut.peer, cut.link))
    }
}

/// An entry where it stands in its table.
enum EntryRef<'a> {
    Counter(&'a CellKey, &'a Counter<LogIndex>),
    Register(&'a CellKey, &'a Register<LogName>),
    Session(&'a SessionId, &'a Session),
    Conditionals(&'a SessionId, &'a Numbers),
}

impl EntryRef<'_> {
    fn digest(&self, logs: &Logs) -> u128 {
        match self {
            Self::Counter(name, counter) => hash_counter(name.tenant, &name.key, counter, logs),
            Self::Register(name, register) => hash_register(name.tenant, &name.key, register),
            Self::Session(id, session) => hash_session(id, session),
            Self::Conditionals(id, numbers) => hash_numbers(id, numbers),
        }
    }

    /// What it takes in memory, about: an answer is cut by that.
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Counter(name, counter) => name.key.len() + 50 * counter.slots().len(),
                Self::Register(name, register) => name.key.len() + register.value().map_or(0, <[u8]>::len),
                Self::Session(_, session) => 24 * session.numbers_count(),
                Self::Conditionals(id, numbers) => {
                    let of = |state: ConditionalState| {
                        ENTRY_BYTES + state.adds.iter().map(|add| 64 + add.key.len()).sum::<usize>()
                    };
                    conditional_states(**id, numbers).map(of).sum()
                }
            }
    }

    fn put(&self, logs: &Logs, out: &mut Entries) {
        match self {
            Self::Counter(name, counter) => out.cells.push(counter_state(name, counter, logs)),
            Self::Register(name, register) => out.cells.push(register_state(name, register)),
            Self::Session(id, session) => out.sessions.push(session_state(**id, session)),
            Self::Conditionals(id, numbers) => out.conditionals.extend(conditional_states(**id, numbers)),
        }
    }
}

impl State {
    pub(crate) fn trees(&self) -> [(Section, &Tree, usize); 4] {
        [
            (Section::Counters, self.cells.counters.tree(), self.cells.counters.len()),
            (Section::Registers, self.cells.registers.tree(), self.cells.registers.len()),
            (Section::Sessions, self.sessions.table.tree(), self.sessions.table.len()),
            (
                Section::Conditionals,
                self.cells.conditionals.table.tree(),
                self.cells.conditionals.table.len(),
            ),
        ]
    }

    /// The digests of every section, in full.
    pub(crate) fn sums(&self) -> Vec<LeafSums> {
        let sums = |(section, tree, len): (Section, &Tree, usize)| LeafSums {
            section,
            entries_count: len as u64,
            total: tree.total(),
            sums: tree.leaves().to_vec(),
        };
        self.trees().map(sums).into()
    }

    fn begin_cut(&mut self, id: CutId) {
        self.cells.counters.begin_cut(id);
        self.cells.registers.begin_cut(id);
        self.sessions.table.begin_cut(id);
        self.cells.conditionals.table.begin_cut(id);
    }

    /// Entries copied for open cuts.
    pub(crate) fn copied_count(&self) -> usize {
        self.cells.counters.copied_count()
            + self.cells.registers.copied_count()
            + self.sessions.table.copied_count()
            + self.cells.conditionals.table.copied_count()
    }

    fn end_cut(&mut self, id: CutId) {
        self.cells.counters.end_cut(id);
        self.cells.registers.end_cut(id);
        self.sessions.table.end_cut(id);
        self.cells.conditionals.table.end_cut(id);
    }

    /// The entries of some leaves in a cut, leaf by leaf. `leaves` ascend.
    fn in_cut(&self, id: CutId, section: Section, leaves: &[u16]) -> Vec<Vec<EntryRef<'_>>> {
        let mut out: Vec<Vec<EntryRef<'_>>> = leaves.iter().map(|_| Vec::new()).collect();
        let mut put = |leaf: u16, standing| {
            if let Ok(at) = leaves.binary_search(&leaf) {
                out[at].push(standing);
            }
        };
        let State { cells, sessions, .. } = self;
        match section {
            Section::Counters => {
                cells.counters.read_cut(id, leaves, |leaf, name, it| put(leaf, EntryRef::Counter(name, it)));
            }
            Section::Registers => {
                cells
                    .registers
                    .read_cut(id, leaves, |leaf, name, it| put(leaf, EntryRef::Register(name, it)));
            }
            Section::Sessions => {
                sessions.table.read_cut(id, leaves, |leaf, name, it| put(leaf, EntryRef::Session(name, it)));
            }
            Section::Conditionals => {
                let table = &cells.conditionals.table;
                table.read_cut(id, leaves, |leaf, name, it| put(leaf, EntryRef::Conditionals(name, it)));
            }
        }
        out
    }
}

impl Replica {
    /// Opens a cut of the whole shard; gives its vector, seals, floors and stability records. The entries are read with
    /// [`Replica::read_cut`], part by part; what waits in between is handled meanwhile.
    pub fn begin_cut(&mut self) -> (CutId, Checkpoint) {
        let id = self.open_cut();
        (id, self.state.head(self.clock.last()))
    }

    /// The next entries of a cut, from `part` 0 on, each part once and in order; none after the last one, and the cut is
    /// closed.
    pub fn read_cut(&mut self, id: CutId, part: usize) -> Option<Entries> {
        if part >= PARTS_COUNT {
            self.end_cut(id);
            return None;
        }
        let mut out = Entries::default();
        let State { cells, sessions, logs, .. } = &mut self.state;
        cells.counters.pass_cut(id, part, |_, name, counter| {
            out.cells.push(counter_state(name, counter, logs));
        });
        cells.registers.pass_cut(id, part, |_, name, register| {
            out.cells.push(register_state(name, register));
        });
        sessions.table.pass_cut(id, part, |_, name, session| {
            out.sessions.push(session_state(*name, session));
        });
        cells.conditionals.table.pass_cut(id, part, |_, session, numbers| {
            out.conditionals.extend(conditional_states(*session, numbers));
        });
        Some(out)
    }

    /// Closes a cut before its end.
    pub fn end_cut(&mut self, id: CutId) {
        self.state.end_cut(id);
        self.cuts.of_peers.remove(&id);
    }

    pub(crate) fn open_cut(&mut self) -> CutId {
        self.cuts.last += 1;
        let id = CutId(self.cuts.last);
        self.state.begin_cut(id);
        id
    }

    /// Opens a cut for a peer; an earlier one of it is closed.
    pub(crate) fn cut_asked(
        &mut self,
        (from, link): (RegionId, Link),
        sealed: &[SealedLog],
        digest_bytes: u8,
        now: Now,
    ) {
        if self.peers.on(from, link).is_none() {
            return;
        }
        let shard = self.options.shard;
        self.end_cuts_of(from);
        if self.cuts.of_peers.len() >= self.options.peer_limits.cuts_max {
            self.send(from, PeerMessage::CutRefused { shard });
            return;
        }
        let id = self.open_cut();
        self.cuts.of_peers.insert(id, PeerCut { peer: from, link, asked_ms: now.monotonic_ms, digest_bytes });
        // Digests compare under the same seals only: the asker applies ours to its own first, we cannot apply its.
        let knows =
            |sealed: &SealedLog| self.state.logs.sealed((sealed.seal.region, sealed.seal.epoch)).is_some();
        let sums = sealed.iter().all(knows).then(|| {
            let mut sums = self.state.sums();
            sums.iter_mut().flat_map(|of| &mut of.sums).for_each(|sum| *sum = narrowed(*sum, digest_bytes));
            sums
        });
        // No reading of this region's clock leaves it but in stamps: the asker keeps its own.
        let head = self.state.head(Time::ZERO);
        self.send(from, PeerMessage::Cut { shard, cut: id.0, head, sums });
    }

    pub(crate) fn entries_asked(
        &mut self,
        (from, link): (RegionId, Link),
        cut: u64,
        section: Section,
        leaves: &[LeafAsk],
        now: Now,
    ) {
        let id = CutId(cut);
        let shard = self.options.shard;
        let known = self.cuts.of_peers.get_mut(&id).filter(|it| it.peer == from && it.link == link);
        let Some(open) = known else {
            if self.peers.on(from, link).is_some() {
                self.send(from, PeerMessage::CutRefused { shard });
            }
            return;
        };
        open.asked_ms = now.monotonic_ms;
        let digest_bytes = open.digest_bytes;
        let message = self.entries(id, digest_bytes, section, leaves);
        self.send(from, message);
    }

    /// The entries of some leaves that the asker does not know, as many as go into one answer.
    fn entries(&self, id: CutId, digest_bytes: u8, section: Section, leaves: &[LeafAsk]) -> PeerMessage {
        let (mut entries, mut unknown, mut rest, mut sent) = (Entries::default(), vec![], vec![], vec![]);
        let (mut bytes, bytes_target) = (0, self.options.peer_limits.entries_bytes);
        let logs = &self.state.logs;
        let numbers: Vec<u16> = leaves.iter().take(ENTRIES_LEAVES_MAX).map(|ask| ask.leaf).collect();
        let mut asked = leaves.iter();
        let mut place = 0;
        for run in by_part(&numbers).map(|(_, run)| run) {
            let asks = asked.by_ref().take(run.len());
            if bytes >= bytes_target {
                rest.extend(asks.map(|ask| ask.leaf));
                continue;
            }
            for (ask, standing) in asks.zip(self.state.in_cut(id, section, run)) {
                let first = place;
                place += ask.known.len() as u32;
                if bytes >= bytes_target {
                    rest.push(ask.leaf);
                    continue;
                }
                let known = (first..).zip(&ask.known).map(|(place, &print)| (print, (place, false)));
                let mut known: BTreeMap<u64, (u32, bool)> = known.collect();
                let (mut is_cut_short, mut of_leaf) = (false, Vec::new());
                for entry in standing {
                    let print = narrowed(print_of(entry.digest(logs)), digest_bytes);
                    if let Some((_, is_met)) = known.get_mut(&print) {
                        *is_met = true;
                        continue;
                    }
                    let entry_bytes = entry.bytes();
                    let fits = bytes == 0 || bytes + entry_bytes < 10 * bytes_target;
                    if fits && entries.cells.len() < ENTRIES_CELLS_MAX {
                        bytes += entry_bytes;
                        of_leaf.push(print);
                        entry.put(logs, &mut entries);
                    } else {
                        is_cut_short = true;
                    }
                }
                if is_cut_short {
                    rest.push(ask.leaf);
                    sent = of_leaf;
                    bytes = bytes.max(bytes_target);
                } else {
                    let of_leaf = unknown.len();
                    unknown.extend(known.into_values().filter(|(_, is_met)| !is_met).map(|(place, _)| place));
                    unknown[of_leaf..].sort_unstable();
                }
            }
        }
        rest.extend(leaves.iter().skip(ENTRIES_LEAVES_MAX).map(|ask| ask.leaf));
        PeerMessage::Entries { shard: self.options.shard, cut: id.0, section, entries, unknown, rest, sent }
    }

    pub(crate) fn cut_done(&mut self, from: RegionId, link: Link, cut: u64) {
        let id = CutId(cut);
        if self.cuts.of_peers.get(&id).is_some_and(|it| it.peer == from && it.link == link) {
            self.end_cut(id);
        }
    }

    /// A connection ended, or a new cut replaces the old one.
    pub(crate) fn end_cuts_of(&mut self, peer: RegionId) {
        let of_peer = self.cuts.of_peers.iter().filter(|(_, cut)| cut.peer == peer);
        for id in of_peer.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.end_cut(id);
        }
    }

    pub(crate) fn end_idle_cuts(&mut self, now: Now) {
        let is_idle = |cut: &PeerCut| cut.asked_ms + PEER_CUT_IDLE_MS_MAX < now.monotonic_ms;
        let idle = self.cuts.of_peers.iter().filter(|(_, cut)| is_idle(cut));
        for id in idle.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.end_cut(id);
        }
    }
}
