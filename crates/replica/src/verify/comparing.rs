//! One round of a verification: what stands here is hashed anew, part by part, and compared with the sums of a peer's cut;
//! what differs there is asked for.
//!
//! Whether a difference is damage is `verify.rs`'s to judge. Start with [`Comparing::part`].

use std::collections::{BTreeMap, BTreeSet};

use tombolo_codec::{LeafAsk, LeafSums, Section};

use crate::heal::prints::View;
use crate::heal::questions::Questions;
use crate::state::State;
use crate::state::table::{LEAVES_PER_PART, print_of};
use crate::verify::entry::EntryName;

#[derive(Debug)]
pub(crate) struct Comparing {
    pub(crate) sums: Vec<LeafSums>,
    pub(crate) next_part: usize,
    pub(crate) questions: Questions,
    /// Entries here that stand in leaves that differ, by digest.
    pub(crate) names: BTreeMap<(Section, u64), EntryName>,
    pub(crate) judged: BTreeSet<EntryName>,
    pub(crate) moving: BTreeSet<EntryName>,
    /// Leaves whose content contradicts the digest kept of it.
    pub(crate) wrong: BTreeSet<(Section, u16)>,
    pub(crate) entries_count: u64,
}

impl Comparing {
    /// With a cut of this name, whose leaves sum up to these.
    pub(crate) fn new(cut: u64, sums: Vec<LeafSums>) -> Self {
        let entries_max = sums.iter().map(|sums| sums.entries_count).max();
        Self {
            sums,
            next_part: 0,
            questions: Questions::of(cut, entries_max),
            names: BTreeMap::new(),
            judged: BTreeSet::new(),
            moving: BTreeSet::new(),
            wrong: BTreeSet::new(),
            entries_count: 0,
        }
    }

    /// Hashes one part of the tables; what differs there is to be asked for.
    pub(crate) fn part(&mut self, state: &State, part: usize) {
        let (sums, entries_count) = state.part_sums(part);
        self.entries_count += entries_count;
        for LeafSum { section, leaf, sum, kept } in sums {
            if sum != kept {
                self.wrong.insert((section, leaf));
            }
            if sum == at_peer(&self.sums, section, leaf) {
                continue;
            }
            let mut known = Vec::new();
            state.each_digest((&View::default(), None), section, &[leaf], |_, digest, name| {
                let print = print_of(digest);
                known.push(print);
                self.names.insert((section, print), EntryName::of(name));
            });
            self.questions.add(section, LeafAsk { leaf, known });
        }
    }
}

/// The leaf of a section where what stands here is not what the other side has, or not what was kept.
struct LeafSum {
    section: Section,
    leaf: u16,
    sum: u64,
    kept: u64,
}

impl State {
    /// The sums of the leaves of one part, made anew; and how many entries stand in it.
    fn part_sums(&self, part: usize) -> (Vec<LeafSum>, u64) {
        let first = part * LEAVES_PER_PART;
        let leaves: Vec<u16> = (first..first + LEAVES_PER_PART).map(|leaf| leaf as u16).collect();
        let mut entries_count = 0;
        let mut out = Vec::new();
        for (section, tree, _) in self.trees() {
            let mut sums = [0u64; LEAVES_PER_PART];
            self.each_digest((&View::default(), None), section, &leaves, |leaf, digest, _| {
                let sum = &mut sums[usize::from(leaf) - first];
                *sum = sum.wrapping_add(print_of(digest));
                entries_count += 1;
            });
            let kept = |leaf: u16| tree.leaves().get(usize::from(leaf)).copied().unwrap_or(0);
            let sums = leaves.iter().zip(sums);
            out.extend(sums.map(|(&leaf, sum)| LeafSum { section, leaf, sum, kept: kept(leaf) }));
        }
        (out, entries_count)
    }
}

fn at_peer(sums: &[LeafSums], section: Section, leaf: u16) -> u64 {
    sums.iter().find(|sums| sums.section == section).map_or(0, |sums| sums.at(usize::from(leaf)))
}
