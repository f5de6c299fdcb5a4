//! Cuts stay what they were; leaves are the sums of what stands in them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Name(u16);

impl Named for Name {
    fn place(&self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u16, u32),
    Remove(u16),
    DropBelow(u32),
    AddToOdd(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..64u16, any::<u32>()).prop_map(|(name, value)| Step::Put(name, value)),
        2 => (0..64u16).prop_map(Step::Remove),
        1 => any::<u32>().prop_map(|value| Step::DropBelow(value / 8)),
        1 => (0..9u32).prop_map(Step::AddToOdd),
    ]
}

const fn digest(name: Name, value: u32) -> u128 {
    ((name.0 as u128) << 40 | value as u128).wrapping_mul(0x0100_0000_01b3)
}

fn run(table: &mut Table<Name, u32>, known: &mut BTreeMap<Name, u32>, step: &Step) {
    match *step {
        Step::Put(name, value) => {
            let name = Name(name);
            let (entry, is_new, tree) = table.entry(name.place(), |it| *it == name, || (name, 0));
            let before = if is_new { 0 } else { digest(name, *entry) };
            *entry = value;
            tree.change(name.place(), before, digest(name, value));
            known.insert(name, value);
        }
        Step::Remove(name) => {
            let name = Name(name);
            let removed = table.remove(&name).map(|(value, tree)| {
                tree.change(name.place(), digest(name, value), 0);
                value
            });
            assert_eq!(removed, known.remove(&name));
        }
        Step::DropBelow(least) => {
            let gone = table.drop_where(|name, value| (*value < least).then(|| digest(*name, *value)));
            let before = known.len();
            known.retain(|_, value| *value >= least);
            assert_eq!(gone, before - known.len());
        }
        Step::AddToOdd(more) => {
            table.alter(
                |name, _| name.0 % 2 == 1,
                |name, value, tree| {
                    let before = digest(*name, *value);
                    *value = value.wrapping_add(more);
                    tree.change(name.place(), before, digest(*name, *value));
                },
            );
            for (_, value) in known.iter_mut().filter(|(name, _)| name.0 % 2 == 1) {
                *value = value.wrapping_add(more);
            }
        }
    }
}

fn all_of(table: &Table<Name, u32>, id: CutId) -> BTreeMap<Name, u32> {
    let leaves: Vec<u16> = (0..LEAVES_COUNT as u16).collect();
    let mut found = BTreeMap::new();
    table.read_cut(id, &leaves, |leaf, name, value| {
        assert_eq!(leaf, leaf_of(name.place()));
        assert!(found.insert(*name, *value).is_none(), "{name:?} stands twice in a cut");
    });
    found
}

proptest! {
    #[test]
    fn a_cut_stays_what_it_was_and_leaves_are_sums(
        before in prop::collection::vec(step(), 0..60),
        between in prop::collection::vec(step(), 0..60),
        after in prop::collection::vec(step(), 0..60),
    ) {
        let (mut table, mut known) = (Table::default(), BTreeMap::new());
        before.iter().for_each(|step| run(&mut table, &mut known, step));
        let (early, at_early) = (CutId(1), known.clone());
        table.begin_cut(early);
        between.iter().for_each(|step| run(&mut table, &mut known, step));
        let (late, at_late) = (CutId(2), known.clone());
        table.begin_cut(late);
        // Half of the later cut is read and passed before the rest changes.
        let mut passed = BTreeMap::new();
        for part in 0..PARTS_COUNT / 2 {
            table.pass_cut(late, part, |_, name, value| passed.extend([(*name, *value)]));
        }
        after.iter().for_each(|step| run(&mut table, &mut known, step));
        for part in PARTS_COUNT / 2..PARTS_COUNT {
            table.pass_cut(late, part, |_, name, value| passed.extend([(*name, *value)]));
        }
        prop_assert_eq!(passed, at_late);
        prop_assert_eq!(all_of(&table, early), at_early);
        prop_assert_eq!(table.iter().map(|(name, value)| (*name, *value)).collect::<BTreeMap<_, _>>(), known.clone());
        prop_assert_eq!(table.len(), known.len());
        let total = known.iter().fold(0u128, |sum, (name, value)| sum.wrapping_add(digest(*name, *value)));
        prop_assert_eq!(table.tree().total(), total);
        let mut leaves = vec![0u64; if table.tree().leaves().is_empty() { 0 } else { LEAVES_COUNT }];
        for (name, value) in &known {
            let leaf = &mut leaves[usize::from(leaf_of(name.place()))];
            *leaf = leaf.wrapping_add(print_of(digest(*name, *value)));
        }
        prop_assert_eq!(table.tree().leaves(), &leaves[..]);
        table.end_cut(early);
        prop_assert!(all_of(&table, early).is_empty());
    }
}
