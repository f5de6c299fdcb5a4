use proptest::prelude::*;
use tombolo_causality::{ClusterId, RegionId};

use super::{MemberEntry, Membership, MembershipError, Standing};

fn region(id: u16) -> RegionId {
    RegionId::new(id).unwrap()
}

fn three() -> Membership {
    Membership::of((1..=3).map(|id| (region(id), format!("r{id}"), format!("host:{id}"))))
}

fn any_document() -> impl Strategy<Value = Membership> {
    let entry = (1..4u16, 1..4u32, 0..3u8, 0..2u8, 0..2u8).prop_map(|(id, version, standing, name, at)| {
        let standing = [Standing::Member, Standing::Draining, Standing::Removed][usize::from(standing)];
        let advertise = format!("at{at}");
        MemberEntry { region: region(id), name: format!("n{name}"), advertise, standing, version }
    });
    prop::collection::vec(entry, 0..5).prop_map(|entries| {
        let mut out = Membership::default();
        for entry in entries {
            out.join(&Membership { entries: vec![entry] });
        }
        out
    })
}

fn joined(a: &Membership, b: &Membership) -> Membership {
    let mut out = a.clone();
    out.join(b);
    out
}

proptest! {
    #[test]
    fn join_is_commutative_associative_and_idempotent(
        a in any_document(), b in any_document(), c in any_document()
    ) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(joined(&a, &a), a.clone());
        prop_assert!(joined(&a, &b).is_sound());
    }

    #[test]
    fn a_join_never_lowers_the_revision_nor_brings_a_removed_region_back(
        a in any_document(), b in any_document()
    ) {
        let both = joined(&a, &b);
        prop_assert!(both.revision() >= a.revision().max(b.revision()));
        for entry in a.entries().iter().filter(|entry| entry.standing == Standing::Removed) {
            prop_assert!(!both.is_present(entry.region));
        }
    }

    #[test]
    fn a_document_is_read_as_it_was_written(document in any_document()) {
        let bytes = document.encode(ClusterId(7));
        prop_assert_eq!(Membership::decode(&bytes, ClusterId(7)), Ok(document));
    }
}

#[test]
fn every_change_raises_the_revision_and_what_changes_nothing_does_not() {
    let mut document = three();
    assert_eq!(document.revision(), 3);
    document.set("r2", Standing::Draining).unwrap();
    document.set("r2", Standing::Draining).unwrap();
    assert_eq!(document.revision(), 4);
    document.set("r2", Standing::Removed).unwrap();
    assert_eq!(document.revision(), 5);
    document.add(region(4), "r4", "host:4").unwrap();
    document.add(region(4), "r4", "host:4").unwrap();
    assert_eq!(document.revision(), 6);
}

#[test]
fn a_removed_region_returns_only_under_a_new_id_and_name() {
    let mut document = three();
    document.set("r2", Standing::Removed).unwrap();
    let removed = MembershipError::Removed { region: region(2) };
    assert_eq!(document.add(region(2), "new", "host:9"), Err(removed.clone()));
    assert_eq!(document.add(region(9), "r2", "host:9"), Err(removed.clone()));
    assert_eq!(document.set("r2", Standing::Member), Err(removed));
    let taken = MembershipError::Taken { region: region(1), name: "r1".to_owned() };
    assert_eq!(document.add(region(1), "new", "host:9"), Err(taken));
    // A node that has not heard, and changes the region in vain.
    let mut late = three();
    late.set("r2", Standing::Draining).unwrap();
    late.set("r2", Standing::Member).unwrap();
    document.join(&late);
    assert!(!document.is_present(region(2)));
}

#[test]
fn the_digest_of_a_roster_tells_who_is_in_and_who_is_out() {
    let (mut one, mut other) = (three(), three());
    one.set("r2", Standing::Removed).unwrap();
    other.set("r3", Standing::Removed).unwrap();
    let digest = |document: &Membership| document.roster(region(1)).digest();
    assert_eq!(one.revision(), other.revision());
    assert_ne!(digest(&one), digest(&other));
    let two = Membership::of((1..=2).map(|id| (region(id), format!("r{id}"), String::new())));
    assert_ne!(digest(&two), digest(&other), "a region that was never there is not one that was removed");
    let before = digest(&one);
    one.set("r3", Standing::Draining).unwrap();
    assert_eq!(before, digest(&one), "a draining region answers as a member");
}

#[test]
fn damage_and_another_cluster_are_refused() {
    let bytes = three().encode(ClusterId(7));
    let other = MembershipError::Cluster { expected: ClusterId(8), found: ClusterId(7) };
    assert_eq!(Membership::decode(&bytes, ClusterId(8)), Err(other));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Membership::decode(&damaged, ClusterId(7)).is_err(), "byte {at}");
    }
    assert!(Membership::decode(&bytes[..bytes.len() - 1], ClusterId(7)).is_err());
    assert!(Membership::decode(&[], ClusterId(7)).is_err());
}

#[test]
fn a_region_leaves_only_as_it_was_looked_at_and_the_last_one_does_not_drain() {
    let entry = |(id, name): (u16, &str)| (region(id), name.to_owned(), format!("{name}.example:1"));
    let mut drained = Membership::of([(1, "a"), (2, "b")].map(entry));
    drained.drain("b").unwrap();
    let checked = drained.named("b").unwrap().clone();
    let mut left = drained.clone();
    left.leave(&checked).unwrap();
    assert!(!left.is_present(checked.region));
    let once = left.clone();
    left.leave(&checked).unwrap();
    assert_eq!(left, once, "it has left already");

    // Of two that came by one name, the one that asked goes.
    let mut twins = drained.clone();
    let other = region(3);
    twins.join(&Membership::of([(other, "b".to_owned(), "b.example:3".to_owned())]));
    twins.entries.sort_by_key(|entry| entry.region != other);
    twins.leave(&checked).unwrap();
    assert!(twins.is_present(other) && !twins.is_present(checked.region));
    assert!(matches!(drained.clone().drain("c"), Err(MembershipError::Unknown(_))));
    assert!(matches!(once.clone().drain("b"), Err(MembershipError::Removed { .. })));

    let mut last = drained.clone();
    assert_eq!(last.drain("a"), Err(MembershipError::Last("a".to_owned())), "nobody else takes writes");
    assert_eq!(last, drained);
    last.drain("b").unwrap();
    assert_eq!(last, drained, "it drains already");

    let mut undone = drained;
    for standing in [Standing::Member, Standing::Draining] {
        undone.set("b", standing).unwrap();
        let before = undone.clone();
        assert_eq!(undone.leave(&checked), Err(MembershipError::Changed("b".to_owned())), "{standing:?}");
        assert_eq!(undone, before);
    }
}
