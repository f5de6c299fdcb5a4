//! Questions about the entries of a peer's cut: few under way at a time, answered in order, asked again for what did not
//! fit into an answer.
//!
//! It knows nothing of what the entries are for: `fetch.rs` joins them, `verify.rs` compares them. Start with
//! [`Questions::ask`].

use std::collections::VecDeque;

use tombolo_causality::ShardId;
use tombolo_codec::limits::ENTRIES_LEAVES_MAX;
use tombolo_codec::{Entries, LEAVES_COUNT, LeafAsk, PeerMessage, Section};
use tombolo_mutants::{Mutant, is_planted};

use crate::state::table::LEAVES_PER_PART;

/// Questions that may be under way: a share of the bandwidth, not all of it.
const QUESTIONS_MAX: usize = 4;
/// About how many entries a question may bring.
const QUESTION_ENTRIES: u64 = 4_096;
/// Most digests that leaves bring into one question, but for its first leaf: those of a verification, and those that are
/// asked for again. What is filled in once they are chosen is about [`QUESTION_ENTRIES`].
const QUESTION_PRINTS_MAX: usize = 8_192;

/// An answer with entries.
#[derive(Debug)]
pub(crate) struct Came {
    pub(crate) cut: u64,
    pub(crate) section: Section,
    pub(crate) entries: Entries,
    pub(crate) unknown: Vec<u32>,
    pub(crate) rest: Vec<u16>,
    pub(crate) sent: Vec<u64>,
}

/// What an answer brings.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) section: Section,
    pub(crate) entries: Entries,
    /// Digests that were named and are not in the cut, with their leaves.
    pub(crate) unknown: Vec<(u16, u64)>,
    /// Leaves of which all has come.
    pub(crate) complete: Vec<u16>,
}

/// What is still to be asked of a cut, and what was asked and not answered.
#[derive(Debug)]
pub(crate) struct Questions {
    pub(crate) cut: u64,
    due: VecDeque<(Section, LeafAsk)>,
    /// They are answered in order.
    asked: VecDeque<(Section, Vec<LeafAsk>)>,
    leaves_per_question: usize,
    /// Entries that have come.
    pub(crate) entries_count: u64,
}

impl Questions {
    /// Of a cut whose largest section has `entries_max` entries; none if that is not known.
    pub(crate) fn of(cut: u64, entries_max: Option<u64>) -> Self {
        let leaves_per_question = entries_max.map_or(ENTRIES_LEAVES_MAX / 4, |entries_max| {
            let per_leaf = entries_max.div_ceil(LEAVES_COUNT as u64).max(1);
            let leaves = usize::try_from(QUESTION_ENTRIES / per_leaf).unwrap_or(1);
            // A part of a table is passed over as a whole, however few of its leaves are asked for.
            let in_whole_parts = leaves - leaves % LEAVES_PER_PART;
            if in_whole_parts > 0 { in_whole_parts.min(ENTRIES_LEAVES_MAX) } else { leaves.max(1) }
        });
        let (due, asked) = (VecDeque::new(), VecDeque::new());
        Self { cut, due, asked, leaves_per_question, entries_count: 0 }
    }

    /// A leaf to be asked for, with the digests of the entries of it that are here.
    pub(crate) fn add(&mut self, section: Section, ask: LeafAsk) {
        self.due.push_back((section, ask));
    }

    /// Leaves still to come.
    pub(crate) fn leaves_count(&self) -> usize {
        self.due.len() + self.asked.iter().map(|(_, leaves)| leaves.len()).sum::<usize>()
    }

    /// Whether all has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.asked.is_empty() && self.due.is_empty()
    }

    /// What to send now: as much of what is due as may be under way. `fill` may name digests first.
    pub(crate) fn ask(
        &mut self,
        shard: ShardId,
        mut fill: impl FnMut(Section, &mut [LeafAsk]),
    ) -> Vec<PeerMessage> {
        let mut messages = Vec::new();
        while self.asked.len() < QUESTIONS_MAX && !self.due.is_empty() {
            let mut leaves: Vec<LeafAsk> = Vec::new();
            let section = self.due[0].0;
            let mut prints_count = 0;
            while let Some((_, next)) = self.due.front().filter(|(of, _)| *of == section) {
                let is_full = leaves.len() >= self.leaves_per_question
                    || (!leaves.is_empty() && prints_count + next.known.len() > QUESTION_PRINTS_MAX);
                if is_full {
                    break;
                }
                prints_count += next.known.len();
                let (_, ask) = self.due.pop_front().expect("it was seen just now");
                leaves.push(ask);
            }
            fill(section, &mut leaves);
            self.asked.push_back((section, leaves.clone()));
            messages.push(PeerMessage::EntriesAsk { shard, cut: self.cut, section, leaves });
        }
        messages
    }

    /// Takes an answer; none if it is not the one that is due.
    pub(crate) fn take(&mut self, came: Came) -> Option<Taken> {
        if self.cut != came.cut || self.asked.front().is_none_or(|(of, _)| *of != came.section) {
            return None;
        }
        let Came { section, entries, unknown, rest, sent, .. } = came;
        let (_, asked) = self.asked.pop_front().expect("it was seen just now");
        let known = asked.iter().flat_map(|ask| ask.known.iter().map(|&print| (ask.leaf, print)));
        let mut places = unknown.iter().map(|&place| place as usize).peekable();
        let is_unknown = |(at, _): &(usize, _)| places.next_if(|place| *place == *at).is_some();
        let unknown = known.enumerate().filter(is_unknown).map(|(_, known)| known).collect();
        let mut complete = Vec::new();
        // What did not fit is asked for again; of the first leaf of it a part has come.
        for mut ask in asked.into_iter().rev() {
            if !rest.contains(&ask.leaf) || is_planted(Mutant::RestForgotten) {
                complete.push(ask.leaf);
                continue;
            }
            if rest.first() == Some(&ask.leaf) {
                ask.known.extend(&sent);
            }
            self.due.push_front((section, ask));
        }
        let Entries { cells, sessions, conditionals } = &entries;
        self.entries_count += (cells.len() + sessions.len() + conditionals.len()) as u64;
        Some(Taken { section, entries, unknown, complete })
    }
}
