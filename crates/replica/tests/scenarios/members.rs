//! Regions that come, leave, and are lost: what a removed one wrote is folded exactly once, and nothing of it comes late.

use tombolo_causality::{Epoch, Seq};
use tombolo_codec::Standing;
use tombolo_replica::{Input, Link, MARKER};

use crate::kit::*;
use crate::net::{Net, at};

fn add_one(at: &str) -> tombolo_replica::WritePart {
    plain(vec![add(at, 1)])
}

/// Three regions; what the third wrote last has reached the second alone; then it is gone.
fn third_is_lost() -> Net {
    let mut net = Net::of(&[1, 2, 3]);
    net.write(3, plain(vec![add("k", 5)]));
    net.cut(1, 3);
    net.cut(1, 2);
    net.write(3, plain(vec![add("k", 7)]));
    net.kill(3);
    net.connect(1, 2);
    net
}

#[test]
fn a_dead_regions_contribution_is_folded_exactly_once() {
    let mut net = third_is_lost();
    net.tell(1, &[1, 2], &[3]);
    net.tell(2, &[1, 2], &[3]);
    assert_eq!(net.everywhere("k"), 12);
    assert!(net.vector(1).iter().all(|((writer, _), _)| writer != region(3)));
    for side in net.sides.values() {
        assert_eq!(side.replica.without_heir(), []);
    }
    net.write(2, add_one("k"));
    assert_eq!(net.everywhere("k"), 13);
}

#[test]
fn a_shard_in_which_the_removed_region_wrote_nothing_has_a_logged_heir_too() {
    let mut net = Net::of(&[1, 2, 3]);
    net.kill(3);
    net.tell(1, &[1, 2], &[3]);
    net.tell(2, &[1, 2], &[3]);
    assert!(net.sides.values().all(|side| side.replica.without_heir().is_empty()));
    let seals = at(&net.sides[&2], 1, 1, 1);
    assert_eq!(seals.seals().map(|seal| seal.epoch).collect::<Vec<_>>(), [MARKER]);
}

#[test]
fn nothing_is_sealed_before_every_remaining_member_goes_by_the_new_roster() {
    let mut net = third_is_lost();
    net.tell(1, &[1, 2], &[3]);
    assert_eq!(net.sides[&1].replica.without_heir(), [region(3)], "the second was not told yet");
    net.tell(2, &[1, 2], &[3]);
    assert_eq!(net.sides[&1].replica.without_heir(), []);
}

#[test]
fn answers_of_the_previous_membership_do_not_count() {
    let mut net = Net::of(&[1, 2, 3]);
    net.write(3, plain(vec![add("k", 5)]));
    // All have said what they hold; the second comes to hold more, which the first does not hear of.
    net.cut(1, 3);
    net.cut(1, 2);
    net.write(3, plain(vec![add("k", 7)]));
    net.tell(1, &[1, 2], &[3]);
    assert_eq!(net.sides[&1].replica.without_heir(), [region(3)]);
    net.write(3, plain(vec![add("k", 9)]));
    net.kill(3);
    net.tell(2, &[1, 2], &[3]);
    net.connect(1, 2);
    net.tick();
    assert_eq!(net.everywhere("k"), 21);
    assert_eq!(net.sides[&1].replica.without_heir(), []);
}

#[test]
fn late_batches_of_a_removed_region_change_nothing_on_every_path() {
    let mut net = Net::of(&[1, 2, 3]);
    net.write(3, plain(vec![add("k", 5)]));
    net.cut(1, 3);
    net.cut(2, 3);
    // It lives on, and does not know.
    net.write(3, plain(vec![add("k", 100)]));
    let late = at(&net.sides[&3], 3, 3, 2);
    net.restart(3, 33, roster(&[1, 2, 3], &[]));
    net.write(3, plain(vec![add("k", 200)]));
    let of_a_new_epoch = at(&net.sides[&3], 3, 33, 1);
    net.kill(3);
    net.tell(1, &[1, 2], &[3]);
    net.tell(2, &[1, 2], &[3]);
    assert_eq!(net.everywhere("k"), 5);
    let stored = |net: &Net| net.sides[&2].stored.values().map(Vec::len).sum::<usize>();
    let before = stored(&net);
    for batch in [&late, &of_a_new_epoch] {
        // Directly, on whatever connection it believes to have.
        for link in 0..9 {
            net.handle(2, Input::Remote { from: region(3), link: Link(link), batch: batch.clone() });
            // From a member, as if it relayed it.
            net.handle(2, Input::Remote { from: region(1), link: Link(link), batch: batch.clone() });
        }
        net.run();
    }
    assert_eq!(stored(&net), before);
    assert_eq!(net.everywhere("k"), 5);
    // At a restart, from the disk.
    let checkpoint = net.sides[&2].replica.checkpoint();
    let mut options = options(2, 22, &[1, 2]);
    options.roster = roster(&[1, 2], &[3]);
    let mut restarted = tombolo_replica::Replica::open(options, Some(&checkpoint));
    assert!(restarted.replay(&late).is_err());
    assert_eq!(restarted.checkpoint().sealed, checkpoint.sealed);
    assert_eq!(
        restarted.report(Default::default()).digest,
        net.sides[&2].replica.report(Default::default()).digest
    );
    // Its connection is refused from the start.
    net.handle(2, Input::PeerUp { peer: region(3), epoch: Epoch(33), link: Link(77) });
    net.handle(2, Input::Remote { from: region(3), link: Link(77), batch: of_a_new_epoch });
    net.run();
    assert_eq!(stored(&net), before);
}

#[test]
fn a_restart_of_the_heir_midway_seals_once() {
    for is_synced in [false, true] {
        let mut net = third_is_lost();
        net.sides.get_mut(&1).unwrap().is_disk_held = true;
        net.tell(1, &[1, 2], &[3]);
        net.tell(2, &[1, 2], &[3]);
        assert_eq!(net.sides[&1].replica.without_heir(), [region(3)], "staged, and not durable");
        if is_synced {
            net.sync(1);
        }
        net.restart(1, 11, roster(&[1, 2], &[3]));
        net.connect(1, 2);
        net.tick();
        assert_eq!(net.everywhere("k"), 12);
        assert!(net.sides.values().all(|side| side.replica.without_heir().is_empty()));
        let seals =
            net.sides[&2].stored.values().flatten().flat_map(|batch| batch.seals().collect::<Vec<_>>());
        let markers = seals.filter(|seal| seal.epoch == MARKER);
        assert_eq!(markers.count(), 1);
    }
}

#[test]
fn the_heir_of_an_heir_takes_over_what_that_had_inherited_or_inherits_itself() {
    for has_shipped in [false, true] {
        let mut net = Net::of(&[1, 2, 3, 4]);
        net.write(4, plain(vec![add("k", 5)]));
        net.write(1, add_one("k"));
        net.kill(4);
        if !has_shipped {
            net.sides.get_mut(&1).unwrap().is_disk_held = true;
        }
        for member in 1..=3 {
            net.tell(member, &[1, 2, 3], &[4]);
        }
        let is_sealed = net.sides[&2].replica.without_heir().is_empty();
        assert_eq!(is_sealed, has_shipped);
        net.kill(1);
        for member in 2..=3 {
            net.tell(member, &[2, 3], &[1, 4]);
        }
        assert_eq!(net.everywhere("k"), 6);
        assert!(net.sides.values().all(|side| side.replica.without_heir().is_empty()));
        // Sessions of both are the second's to log.
        for home in [1, 4] {
            let id = session(home, u128::from(home));
            assert_eq!(net.write(3, numbered(id, 1, 0, vec![add("s", 1)])), "yes, conditional");
            assert_eq!(net.write(2, numbered(id, 2, 0, vec![add("s", 1)])), "yes");
        }
        assert_eq!(net.everywhere("s"), 4);
        assert!(
            net.sides.values().all(|side| side.replica.report(Default::default()).conditionals_count == 0)
        );
    }
}

#[test]
fn an_earlier_heir_that_staged_its_seals_is_asked_by_a_later_one_of_smaller_id() {
    let mut net = Net::of(&[2, 3, 4]);
    net.write(4, plain(vec![add("k", 5)]));
    net.kill(4);
    net.sides.get_mut(&2).unwrap().is_disk_held = true;
    net.tell(2, &[2, 3], &[4]);
    net.tell(3, &[2, 3], &[4]);
    // A new region, of the smallest id, comes before the seals are durable.
    net.start(1, 1, roster(&[1, 2, 3], &[4]));
    for member in [2, 3] {
        net.tell(member, &[1, 2, 3], &[4]);
        net.connect(1, member);
    }
    net.tick();
    assert_eq!(net.sides[&1].replica.without_heir(), [region(4)], "it waits for what the second has staged");
    net.sync(2);
    net.tick();
    assert_eq!(net.everywhere("k"), 5);
    let seals = net.sides[&3].stored.values().flatten().flat_map(|batch| batch.seals().collect::<Vec<_>>());
    assert_eq!(seals.filter(|seal| seal.epoch == MARKER).count(), 1);
}

#[test]
fn nothing_is_declared_stable_while_a_removed_region_has_no_heir() {
    const DAY: u64 = 86_400;
    let mut net = Net::of(&[1, 2, 3]);
    net.write(2, plain(vec![set("r", "v")]));
    net.write(2, plain(vec![delete("r", None)]));
    net.kill(3);
    net.tick();
    // The first, which is the heir, has not written its seals yet.
    net.sides.get_mut(&1).unwrap().is_disk_held = true;
    net.tell(1, &[1, 2], &[3]);
    net.tell(2, &[1, 2], &[3]);
    net.seconds += DAY + 600;
    net.tick();
    net.tick();
    assert_eq!(net.sides[&2].questions_of_stability, 0);
    net.sync(1);
    for _ in 0..3 {
        net.tick();
    }
    assert_eq!(net.sides[&2].replica.without_heir(), []);
    net.seconds += DAY;
    net.tick();
    net.tick();
    assert!(net.sides[&2].questions_of_stability > 0);
    assert_eq!(net.sides[&2].replica.report(Default::default()).tombstones_count, 0);
}

#[test]
fn sessions_of_a_removed_home_are_absorbed_and_answered_by_its_heir() {
    let mut net = Net::of(&[1, 2, 3]);
    let id = session(3, 3);
    assert_eq!(net.write(3, numbered(id, 1, 0, vec![add("k", 1)])), "yes");
    net.kill(3);
    let second = numbered(id, 2, 0, vec![add("k", 10)]);
    assert_eq!(net.write(2, second.clone()), "yes, conditional");
    net.tell(1, &[1, 2], &[3]);
    net.tell(2, &[1, 2], &[3]);
    assert_eq!(net.everywhere("k"), 11);
    for side in net.sides.values() {
        assert_eq!(side.replica.report(Default::default()).conditionals_count, 0, "it was absorbed");
    }
    let again = |part: tombolo_replica::WritePart| tombolo_replica::WritePart { retry: true, ..part };
    assert_eq!(net.write(1, again(second.clone())), "yes, replayed");
    assert_eq!(net.write(2, again(second)), "yes, replayed");
    let first = numbered(id, 1, 0, vec![add("k", 1)]);
    assert_eq!(net.write(1, again(first)), "yes, replayed", "the removed region had logged it");
    assert_eq!(net.write(1, numbered(id, 3, 0, vec![add("k", 100)])), "yes");
    assert_eq!(net.write(1, numbered(id, 3, 0, vec![add("k", 7)])), "conflict, applied: no");
    assert_eq!(net.everywhere("k"), 111);
    // The heir restarts: once it is whole again it goes on as the authority.
    net.restart(1, 11, roster(&[1, 2], &[3]));
    assert_eq!(net.write(1, numbered(id, 4, 0, vec![add("k", 1_000)])), "session_full, applied: no");
    net.connect(1, 2);
    assert_eq!(net.write(1, numbered(id, 4, 0, vec![add("k", 1_000)])), "session_full, applied: no");
    assert_eq!(net.write(1, numbered(id, 2, 0, vec![add("k", 10)])), "yes, replayed");
    assert_eq!(net.everywhere("k"), 111);
}

#[test]
fn a_retry_at_the_heir_names_where_it_holds_what_the_home_never_logged() {
    let mut net = Net::of(&[1, 2, 3]);
    net.kill(3);
    let first = numbered(session(3, 3), 1, 0, vec![add("k", 1)]);
    assert_eq!(net.write(2, first.clone()), "yes, conditional");
    net.tell(1, &[1, 2], &[3]);
    net.tell(2, &[1, 2], &[3]);
    for at in [1, 2] {
        let again = tombolo_replica::WritePart { retry: true, ..first.clone() };
        assert_eq!(net.write(at, again), "yes, replayed");
        let end = net.vector(at).get(region(1), Epoch(1));
        assert_eq!(net.answered_at, [position(1, 1, end.0)], "no token of it may be empty (F21)");
    }
}

#[test]
fn the_heir_floors_the_sessions_it_inherited() {
    const DAY: u64 = 86_400;
    let mut net = Net::of(&[1, 2, 3]);
    assert_eq!(net.write(3, numbered(session(3, 3), 1, 0, vec![add("k", 1)])), "yes");
    net.kill(3);
    net.tell(1, &[1, 2], &[3]);
    net.tell(2, &[1, 2], &[3]);
    let sessions = |net: &Net, at: u16| net.sides[&at].replica.report(Default::default()).sessions_count;
    assert_eq!((sessions(&net, 1), sessions(&net, 2)), (1, 1));
    for _ in 0..4 {
        net.seconds += DAY / 2 + 3_600;
        net.tick();
        net.tick();
    }
    assert_eq!((sessions(&net, 1), sessions(&net, 2)), (0, 0));
    assert_eq!(net.everywhere("k"), 1);
}

#[test]
fn a_draining_region_refuses_new_writes_and_a_removed_one_says_so() {
    let mut net = Net::of(&[1, 2, 3]);
    assert_eq!(net.write(3, numbered(session(3, 3), 1, 0, vec![add("k", 1)])), "yes");
    let draining = tombolo_codec::Roster { standing: Standing::Draining, ..roster(&[1, 2, 3], &[]) };
    net.handle(3, Input::Members(draining));
    net.run();
    assert_eq!(net.write(3, add_one("k")), "draining, applied: no");
    assert_eq!(net.write(3, numbered(session(3, 3), 1, 0, vec![add("k", 1)])), "yes, replayed");
    net.write(1, add_one("k"));
    assert_eq!(net.everywhere("k"), 2);
    assert_eq!(net.sides[&1].replica.lacking(region(3), None), []);
    let removed = tombolo_codec::Roster { standing: Standing::Removed, ..roster(&[1, 2], &[3]) };
    net.handle(3, Input::Members(removed));
    net.run();
    assert_eq!(net.write(3, add_one("k")), "removed, applied: no");
    net.write(1, add_one("k"));
    assert_eq!(net.value(3, "k"), 2, "nobody sends it anything more");
}

#[test]
fn what_others_lack_of_a_region_that_leaves_is_told() {
    let mut net = Net::of(&[1, 2, 3]);
    net.cut(2, 3);
    net.cut(1, 2);
    net.write(3, add_one("k"));
    let lacking = net.sides[&1].replica.lacking(region(3), None);
    assert_eq!(
        lacking.iter().map(|lack| (lack.by, lack.held, lack.end)).collect::<Vec<_>>(),
        [(region(2), Seq(0), Seq(1))]
    );
    assert_eq!(net.sides[&1].replica.held_by_others((region(3), Epoch(3))), Seq(1));
    net.connect(1, 2);
    assert_eq!(net.sides[&1].replica.lacking(region(3), None), []);
}

#[test]
fn a_barrier_no_longer_counts_a_removed_region() {
    let mut net = Net::of(&[1, 2, 3]);
    net.write(1, add_one("k"));
    let ticket = tombolo_replica::Ticket(1);
    net.handle(1, Input::Await { ticket, positions: vec![position(1, 1, 1)] });
    net.run();
    assert_eq!(net.sides[&1].reached, [1, 2, 3].into());
    net.kill(3);
    net.tell(1, &[1, 2], &[3]);
    assert_eq!(net.sides[&1].reached, [1, 2].into());
    net.tell(2, &[1, 2], &[3]);
    let pruned = net.sides[&1].replica.prunable(&net.sides[&1].replica.checkpoint(), false);
    assert!(pruned.iter().any(|(end, _)| end.log == log(1, 1)), "nothing is kept for a region that is gone");
    assert!(pruned.iter().all(|(end, _)| end.log.epoch != MARKER));
}

#[test]
fn an_added_region_catches_up_and_its_writes_count() {
    let mut net = Net::of(&[1, 2]);
    net.write(1, add_one("k"));
    net.write(2, add_one("k"));
    net.start(3, 3, roster(&[1, 2, 3], &[]));
    for member in [1, 2] {
        net.tell(member, &[1, 2, 3], &[]);
        net.connect(member, 3);
    }
    net.tick();
    assert_eq!(net.everywhere("k"), 2);
    assert!(net.sides[&3].replica.is_whole());
    net.write(3, add_one("k"));
    assert_eq!(net.everywhere("k"), 3);
}
