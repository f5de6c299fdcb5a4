//! One table of a shard's state: what is kept under each name, digests that find where two regions differ, and cuts.
//!
//! A name has a place, a 64-bit hash that is the same in every process. Its middle bits name one of [`LEAVES_COUNT`]
//! leaves; each leaf keeps the sum of its entries' digests, so an update costs two additions. Entries live in
//! [`PARTS_COUNT`] small tables by leaf, so that growing one, or reading one, never takes long.
//!
//! A cut is the table as it was when the cut was opened: the first change of an entry leaves a copy behind (copy on
//! write), whatever is not copied has not changed. Start with [`Table::entry`] and [`Table::read_cut`].

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tombolo_codec::LEAVES_COUNT;
use tombolo_mutants::{Mutant, is_planted};

/// Tables that a table is made of.
pub(crate) const PARTS_COUNT: usize = 256;
pub(crate) const LEAVES_PER_PART: usize = LEAVES_COUNT / PARTS_COUNT;

/// A name in a table.
pub(crate) trait Named: Clone + PartialEq {
    /// A hash of it that is the same in every process.
    fn place(&self) -> u64;
}

/// The leaf of a place. Its low bits and its highest ones are what the hash tables use.
pub(crate) const fn leaf_of(place: u64) -> u16 {
    ((place >> 32) as usize % LEAVES_COUNT) as u16
}

const fn part_of(place: u64) -> usize {
    leaf_of(place) as usize / LEAVES_PER_PART
}

/// Names a cut of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CutId(pub(crate) u64);

/// Sums of digests: of the whole table, and of each leaf.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    total: u128,
    /// Empty until the first change: many tables of a shard never hold anything.
    leaves: Vec<u64>,
}

impl Tree {
    /// An entry's digest was `before` and is `after`; zero where there is none.
    pub(crate) fn change(&mut self, place: u64, before: u128, after: u128) {
        if self.leaves.is_empty() {
            self.leaves.resize(LEAVES_COUNT, 0);
        }
        self.total = self.total.wrapping_sub(before).wrapping_add(after);
        let leaf = &mut self.leaves[usize::from(leaf_of(place))];
        *leaf = leaf.wrapping_sub(print_of(before)).wrapping_add(print_of(after));
    }

    pub(crate) const fn total(&self) -> u128 {
        self.total
    }

    /// The sum of each leaf; empty for a table that never held anything.
    pub(crate) fn leaves(&self) -> &[u64] {
        &self.leaves
    }
}

/// What of an entry's digest is summed up in its leaf, and sent to tell entries apart.
pub(crate) const fn print_of(digest: u128) -> u64 {
    digest as u64
}

/// The lowest `digest_bytes` bytes of a print, or of a sum of prints: sums of what is left of prints are what is left of sums.
pub(crate) const fn narrowed(print: u64, digest_bytes: u8) -> u64 {
    if digest_bytes >= 8 { print } else { print & ((1 << (8 * digest_bytes)) - 1) }
}

struct TableCut<K, V> {
    id: CutId,
    /// Entries as they were, of those that changed since; none: there was no such entry.
    before: Parts<(K, Option<V>)>,
    /// Parts before this one were read and are not asked for again.
    passed: usize,
}

/// What is kept under each name.
pub(crate) struct Table<K, V> {
    parts: Parts<(K, V)>,
    len: usize,
    tree: Tree,
    cuts: Vec<TableCut<K, V>>,
}

type Parts<T> = Box<[HashTable<T>]>;

fn parts<T>() -> Parts<T> {
    (0..PARTS_COUNT).map(|_| HashTable::new()).collect()
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { parts: parts(), len: 0, tree: Tree::default(), cuts: Vec::new() }
    }
}

impl<K, V> std::fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Leaves a copy of an entry behind for the cuts that have none yet.
fn save<K: Named, V: Clone>(cuts: &mut [TableCut<K, V>], place: u64, name: &K, value: Option<&V>) {
    let part = part_of(place);
    if is_planted(Mutant::CutReadsOn) {
        return;
    }
    for cut in cuts.iter_mut().filter(|cut| cut.passed <= part) {
        let is_it = |entry: &(K, Option<V>)| entry.0 == *name;
        if let Entry::Vacant(vacant) = cut.before[part].entry(place, is_it, |entry| entry.0.place()) {
            vacant.insert((name.clone(), value.cloned()));
        }
    }
}

impl<K: Named, V: Clone> Table<K, V> {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) const fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn get(&self, place: u64, is_it: impl Fn(&K) -> bool) -> Option<&V> {
        self.parts[part_of(place)].find(place, |entry| is_it(&entry.0)).map(|entry| &entry.1)
    }

    /// The entry to be changed, made first if there is none; whether it was made; and the digests to tell.
    pub(crate) fn entry(
        &mut self,
        place: u64,
        is_it: impl Fn(&K) -> bool,
        make: impl FnOnce() -> (K, V),
    ) -> (&mut V, bool, &mut Tree) {
        let rehash = |entry: &(K, V)| entry.0.place();
        match self.parts[part_of(place)].entry(place, |entry| is_it(&entry.0), rehash) {
            Entry::Occupied(entry) => {
                let entry = entry.into_mut();
                if !self.cuts.is_empty() {
                    save(&mut self.cuts, place, &entry.0, Some(&entry.1));
                }
                (&mut entry.1, false, &mut self.tree)
            }
            Entry::Vacant(vacant) => {
                self.len += 1;
                let entry = vacant.insert(make()).into_mut();
                save(&mut self.cuts, place, &entry.0, None);
                (&mut entry.1, true, &mut self.tree)
            }
        }
    }

    /// An entry to be changed, and the digests to tell.
    pub(crate) fn get_mut(&mut self, name: &K) -> Option<(&mut V, &mut Tree)> {
        let place = name.place();
        let entry = self.parts[part_of(place)].find_mut(place, |entry| entry.0 == *name)?;
        save(&mut self.cuts, place, &entry.0, Some(&entry.1));
        Some((&mut entry.1, &mut self.tree))
    }

    /// Takes an entry out; the caller tells the digests.
    pub(crate) fn remove(&mut self, name: &K) -> Option<(V, &mut Tree)> {
        let place = name.place();
        let found = self.parts[part_of(place)].find_entry(place, |entry| entry.0 == *name).ok()?;
        let ((name, value), _) = found.remove();
        self.len -= 1;
        save(&mut self.cuts, place, &name, Some(&value));
        Some((value, &mut self.tree))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flatten().map(|(name, value)| (name, value))
    }

    /// Changes the entries that `is_due` names. Cost: one pass over the table.
    pub(crate) fn alter(
        &mut self,
        is_due: impl Fn(&K, &V) -> bool,
        mut change: impl FnMut(&K, &mut V, &mut Tree),
    ) {
        for (name, value) in self.parts.iter_mut().flatten() {
            if is_due(name, value) {
                save(&mut self.cuts, name.place(), name, Some(value));
                change(name, value, &mut self.tree);
            }
        }
    }

    /// Drops the entries of which `digest_of_goner` gives the digest. Cost: one pass over the table. Says how many.
    pub(crate) fn drop_where(&mut self, digest_of_goner: impl Fn(&K, &V) -> Option<u128>) -> usize {
        let mut gone = 0;
        for part in &mut self.parts {
            part.retain(|(name, value)| {
                let Some(digest) = digest_of_goner(name, value) else { return true };
                let place = name.place();
                save(&mut self.cuts, place, name, Some(value));
                self.tree.change(place, digest, 0);
                gone += 1;
                false
            });
        }
        self.len -= gone;
        gone
    }

    /// The entries of some leaves as they are.
    pub(crate) fn read<'a>(&'a self, leaves: &[u16], mut each: impl FnMut(u16, &'a K, &'a V)) {
        for (part, wanted) in by_part(leaves) {
            for (name, value) in &self.parts[part] {
                let leaf = leaf_of(name.place());
                if wanted.binary_search(&leaf).is_ok() {
                    each(leaf, name, value);
                }
            }
        }
    }

    /// From here on the table as it is now can be read under `id`, until [`Table::end_cut`].
    pub(crate) fn begin_cut(&mut self, id: CutId) {
        self.cuts.push(TableCut { id, before: parts(), passed: 0 });
    }

    /// Entries copied for open cuts.
    pub(crate) fn copied_count(&self) -> usize {
        self.cuts.iter().flat_map(|cut| &cut.before).map(HashTable::len).sum()
    }

    pub(crate) fn end_cut(&mut self, id: CutId) {
        self.cuts.retain(|cut| cut.id != id);
    }

    /// The entries of some leaves as they were when the cut was opened. `leaves` ascend.
    pub(crate) fn read_cut<'a>(&'a self, id: CutId, leaves: &[u16], mut each: impl FnMut(u16, &'a K, &'a V)) {
        let Some(cut) = self.cuts.iter().find(|cut| cut.id == id) else { return };
        for (part, wanted) in by_part(leaves) {
            let before = &cut.before[part];
            for (name, value) in &self.parts[part] {
                let place = name.place();
                let leaf = leaf_of(place);
                if wanted.binary_search(&leaf).is_ok()
                    && (before.is_empty() || before.find(place, |entry| entry.0 == *name).is_none())
                {
                    each(leaf, name, value);
                }
            }
            for (name, value) in before {
                let leaf = leaf_of(name.place());
                if let (Some(value), Ok(_)) = (value, wanted.binary_search(&leaf)) {
                    each(leaf, name, value);
                }
            }
        }
    }

    /// Whether an entry was made, changed or dropped since a cut was opened.
    pub(crate) fn is_changed_since(&self, id: CutId, name: &K) -> bool {
        let place = name.place();
        let cut = self.cuts.iter().find(|cut| cut.id == id);
        cut.is_none_or(|cut| cut.before[part_of(place)].find(place, |entry| entry.0 == *name).is_some())
    }

    /// Sums up the digests anew. Cost: one pass over the table.
    pub(crate) fn recount(&mut self, hash: impl Fn(&K, &V) -> u128) {
        let mut tree = Tree::default();
        self.iter().for_each(|(name, value)| tree.change(name.place(), 0, hash(name, value)));
        self.tree = tree;
    }

    /// Changes an entry behind the digests' back, as damage in memory does.
    pub(crate) fn damage(&mut self, name: &K, change: impl FnOnce(&mut V)) -> bool {
        let found = self.parts[part_of(name.place())].find_mut(name.place(), |entry| entry.0 == *name);
        found.map(|entry| change(&mut entry.1)).is_some()
    }

    /// The next part of a cut that is read in order and once; what was read costs nothing from then on.
    pub(crate) fn pass_cut(&mut self, id: CutId, part: usize, each: impl FnMut(u16, &K, &V)) {
        let first = part * LEAVES_PER_PART;
        let leaves: Vec<u16> = (first..first + LEAVES_PER_PART).map(|leaf| leaf as u16).collect();
        self.read_cut(id, &leaves, each);
        if let Some(cut) = self.cuts.iter_mut().find(|cut| cut.id == id) {
            cut.before[part] = HashTable::new();
            cut.passed = part + 1;
        }
    }
}

/// Runs of leaves that lie in one part: reading them costs one pass over it. `leaves` ascend.
pub(crate) fn by_part(leaves: &[u16]) -> impl Iterator<Item = (usize, &[u16])> {
    leaves
        .chunk_by(|a, b| usize::from(*a) / LEAVES_PER_PART == usize::from(*b) / LEAVES_PER_PART)
        .map(|run| (usize::from(run[0]) / LEAVES_PER_PART, run))
}

#[cfg(test)]
mod tests;
