//! Conditional ops: logged by any region, counted once, absorbed by the session's authority; and what makes them, and
//! all that is deleted or expired, go.

use insta::assert_snapshot;
use tombolo_codec::{Batch, Kind, Position};
use tombolo_replica::Input;

use crate::kit::*;

const DAY: u64 = 86_400;

#[test]
fn a_mark_never_passes_what_is_conditional_also_while_that_is_staged() {
    let id = tombolo_causality::SessionId::named(region(1), 7, second(100), 1_000 * DAY);
    let part = |number| numbered(id, number, 0, vec![add("k", 1)]);
    let roomy = |epoch, members: &[u16]| tombolo_replica::Options {
        session_numbers_max: 1_024,
        ..options(1, epoch, members)
    };
    let mut before = Node::open(roomy(1, &[1]), None, &[]);
    before.start();
    for number in 1..=600 {
        before.done(part(number));
    }
    let mut node = Node::open(roomy(9, &[1, 2]), None, &before.appended);
    node.start();
    node.peer_up(2, 2, 2);
    let sealing = node.peer_answer(2, 2, &[], &[]);
    assert!(sealing.contains("append"), "{sealing}");
    // Staged while the seals are being synced, as this region is not whole yet.
    node.write(part(5_000));
    node.durable(position(1, 9, 1));
    // Whole now: the next number may raise the mark, in the very batch that holds the conditional.
    node.write(part(9_000));
    node.settle();
    node.settle();
    assert_eq!(value(&mut node), "602");
    assert_snapshot!(node.done(part(5_000)), @"answer 4: yes at r1e9#3, replayed, values []");
}

/// Lets a node take all batches of another's log.
fn feed(node: &mut Node, from: u16, batches: &[Batch]) {
    for batch in batches {
        node.remote(from, u64::from(from), batch);
        let header = batch.header();
        node.durable(Position { log: header.log, seq: header.seq });
    }
    node.settle();
}

/// Two or three regions that know each other and have nothing in their logs.
fn connected(id: u16, members: &[u16]) -> Node {
    let mut node = Node::started(id, u128::from(id), members);
    for &peer in members.iter().filter(|&&peer| peer != id) {
        node.peer_up(peer, u128::from(peer), u64::from(peer));
        node.peer_answer(peer, u64::from(peer), &[], &[]);
    }
    node
}

fn value(node: &mut Node) -> String {
    let answer = node.read(&["k"], vec![]);
    answer.rsplit(' ').next().unwrap_or_default().trim().to_owned()
}

#[test]
fn one_number_logged_in_three_regions_counts_once_in_each_at_every_moment() {
    let mut regions: Vec<Node> = [1, 2, 3].map(|id| connected(id, &[1, 2, 3])).into();
    let part = || numbered(session(1, 1), 1, 0, vec![add("k", 4)]);
    for node in &mut regions {
        node.done(part());
        assert_eq!(value(node), "4");
    }
    let logs: Vec<Vec<Batch>> = regions.iter().map(|node| node.appended.clone()).collect();
    for (to, from) in [(3, 2), (2, 3), (1, 2), (3, 1), (1, 3), (2, 1)] {
        feed(&mut regions[to - 1], from as u16, &logs[from - 1]);
        assert_eq!(value(&mut regions[to - 1]), "4", "region {to} after the log of {from}");
    }
    let reports: Vec<_> = regions.iter().map(|node| node.replica.report(node.now())).collect();
    assert!(reports.iter().all(|report| report.digest == reports[0].digest), "equal vectors, equal states");
    assert!(reports.iter().all(|report| report.conditionals_count == 0), "the home's log covers it");
}

#[test]
fn the_authority_absorbs_a_conditional_and_answers_its_retry_as_known() {
    let mut home = connected(1, &[1, 2]);
    let mut other = connected(2, &[1, 2]);
    other.done(numbered(session(1, 1), 7, 0, vec![add("k", 4), add("l", -1)]));
    feed(&mut home, 2, &other.appended.clone());
    assert_eq!(home.replica.report(home.now()).conditionals_count, 0);
    assert_snapshot!(home.done(numbered(session(1, 1), 7, 0, vec![add("k", 4), add("l", -1)])), @"answer 1: yes at r1e1#1, replayed, values []");
    assert_snapshot!(home.read(&["k", "l"], vec![]), @"answer 2: 4 -1");
    let absorbed: Vec<Batch> =
        home.appended.iter().filter(|batch| batch.header().log.region == region(1)).cloned().collect();
    feed(&mut other, 1, &absorbed);
    assert_eq!(other.replica.report(other.now()).conditionals_count, 0);
    assert_snapshot!(other.read(&["k", "l"], vec![]), @"answer 2: 4 -1");
}

#[test]
fn a_conditional_admitted_before_a_delete_goes_with_it_also_when_absorbed_after() {
    let mut home = connected(1, &[1, 2]);
    let mut other = connected(2, &[1, 2]);
    other.done(numbered(session(1, 1), 1, 0, vec![add("k", 4)]));
    home.done(plain(vec![delete("k", Some(Kind::Counter))]));
    feed(&mut home, 2, &other.appended.clone());
    assert_eq!(value(&mut home), "-", "it had not seen the delete");
    home.done(plain(vec![add("k", 1)]));
    assert_eq!(value(&mut home), "1");
}

#[test]
fn a_conditional_carries_a_delete_it_has_seen() {
    let mut home = connected(1, &[1, 2, 3]);
    let mut other = connected(2, &[1, 2, 3]);
    let mut third = connected(3, &[1, 2, 3]);
    home.done(plain(vec![add("k", 50)]));
    third.done(plain(vec![delete("k", Some(Kind::Counter))]));
    feed(&mut other, 3, &third.appended.clone());
    other.done(numbered(session(1, 1), 1, 0, vec![add("k", 4)]));
    // The home hears of the add, not yet of the delete itself; a retry there must not fall back before it.
    let conditional: Vec<Batch> =
        other.appended.iter().filter(|batch| batch.header().log.region == region(2)).cloned().collect();
    feed(&mut home, 2, &conditional);
    assert_eq!(value(&mut home), "4");
    home.done(numbered(session(1, 1), 1, 0, vec![add("k", 4)]));
    assert_eq!(value(&mut home), "4");
}

#[test]
fn elsewhere_than_at_its_authority_a_sessions_set_must_carry_its_stamp() {
    let mut other = connected(2, &[1, 2]);
    assert_snapshot!(other.done(numbered(session(1, 1), 1, 0, vec![set("r", "x")])), @"answer 1: malformed, applied: no");
    assert_snapshot!(other.done(numbered(session(1, 1), 1, 0, vec![set_at("r", "x", stamp(100, 3))])), @"answer 2: yes at r2e2#1, conditional, values []");
}

#[test]
fn a_session_that_its_client_named_is_exact_in_its_region_also_after_a_restart() {
    let named = |seconds| tombolo_causality::SessionId::named(region(1), 99, second(seconds), 1_000 * DAY);
    let part = |number| numbered(named(100), number, 0, vec![add("k", 1)]);
    let mut before = connected(1, &[1, 2]);
    assert_snapshot!(before.done(part(7)), @"answer 1: yes at r1e1#1, values [1]");
    let mut node = Node::open(options(1, 9, &[1, 2]), None, &before.appended);
    node.start();
    // Whether another epoch logged it is not known for sure before this one is whole.
    assert_snapshot!(node.done(part(8)), @"answer 1: yes at r1e9#1, conditional, values [2]");
    assert_snapshot!(node.done(part(7)), @"answer 2: yes at r1e1#1 r1e9#1, replayed, values []");
    node.peer_up(2, 2, 2);
    node.peer_answer(2, 2, &[], &[]);
    node.settle();
    assert_snapshot!(node.done(part(7)), @"answer 3: yes at r1e9#2, replayed, values []");
    assert_snapshot!(node.done(part(8)), @"answer 4: yes at r1e9#3, replayed, values []");
    assert_snapshot!(node.done(part(1_000)), @"answer 5: yes at r1e9#4, values [3]");
    assert_snapshot!(node.done(part(8)), @"answer 6: yes at r1e9#4, replayed, values []");
    // Still known where a retry comes in the next window, or the clock has stepped back into the last.
    let later = |number| numbered(named(100 + DAY), number, 0, vec![add("k", 1)]);
    assert_snapshot!(node.done(later(1_000)), @"answer 7: yes at r1e9#4, replayed, values []");
    assert_snapshot!(node.done(later(1_001)), @"answer 8: yes at r1e9#5, values [4]");
    assert_snapshot!(node.done(part(1_001)), @"answer 9: yes at r1e9#5, replayed, values []");
}

#[test]
fn tombstones_and_expired_sessions_go_once_every_member_says_it_holds_them() {
    let mut home = connected(1, &[1, 2]);
    let mut other = connected(2, &[1, 2]);
    home.done(plain(vec![set("r", "x")]));
    home.done(plain(vec![delete("r", Some(Kind::Register))]));
    home.done(numbered(session(1, 1), 1, 0, vec![add("k", 4)]));
    home.tick();
    let counts = |node: &Node| {
        let report = node.replica.report(node.now());
        (report.tombstones_count, report.sessions_count)
    };
    assert_eq!(counts(&home), (1, 1));

    // A day later the session takes nothing, and the region says so to all.
    home.wall = second(100 + DAY + 60);
    other.wall = home.wall;
    home.tick();
    home.settle();
    assert_snapshot!(home.done(numbered(session(1, 1), 2, 0, vec![add("k", 4)])), @"answer 4: session_expired, applied: no");
    assert_eq!(counts(&home), (1, 1), "nobody has said yet that it holds the tombstone");
    feed(&mut other, 1, &home.appended.clone());
    assert_eq!(counts(&other), (1, 1));

    // The tombstone has left the window; the floor has not.
    assert_snapshot!(home.tick(), @"ask r2: is r1e1 stable through #3?");
    let asked = |through| Input::StableAsked {
        roster: roster(&[1, 2], &[]).digest(),
        from: region(1),
        link: tombolo_replica::Link(1),
        log: log(1, 1),
        through: tombolo_causality::Seq(through),
    };
    assert_snapshot!(other.handle(asked(3)), @"tell r1: r1e1 is stable through #3, own log at r2e2#0");
    assert_snapshot!(other.handle(asked(99)), @"");
    let answered = |through| Input::StableAnswered {
        roster: roster(&[1, 2], &[]).digest(),
        from: region(2),
        link: tombolo_replica::Link(2),
        log: log(1, 1),
        through: tombolo_causality::Seq(through),
        own: position(2, 2, 0),
    };
    home.handle(answered(3));
    home.settle();
    assert_eq!(counts(&home), (0, 1));
    feed(&mut other, 1, &home.appended.clone());
    assert_eq!(counts(&other), (0, 1));

    // Another day later the floor has left it too.
    home.wall = second(100 + DAY + 60 + DAY / 16);
    home.tick();
    home.wall = second(100 + 2 * DAY + DAY / 8);
    other.wall = home.wall;
    assert_snapshot!(home.tick(), @"ask r2: is r1e1 stable through #5?");
    home.handle(answered(5));
    home.settle();
    feed(&mut other, 1, &home.appended.clone());
    assert_eq!((counts(&home), counts(&other)), ((0, 0), (0, 0)));
    assert_eq!(value(&mut other), "4", "what it counted stays");
    let digest = |node: &Node| node.replica.report(node.now()).digest;
    assert_eq!(digest(&home), digest(&other));
    let restored = Node::open(options(1, 1, &[1, 2]), Some(&home.replica.checkpoint()), &[]);
    assert_eq!(digest(&restored), digest(&home), "floors are part of a checkpoint");
}

#[test]
fn a_member_that_is_not_whole_does_not_answer_for_stability() {
    let mut other = Node::started(2, 2, &[1, 2, 3]);
    other.peer_up(1, 1, 1);
    other.peer_answer(1, 1, &[], &[]);
    let asked = Input::StableAsked {
        roster: roster(&[1, 2, 3], &[]).digest(),
        from: region(1),
        link: tombolo_replica::Link(1),
        log: log(1, 1),
        through: tombolo_causality::Seq::ZERO,
    };
    assert_snapshot!(other.handle(asked), @"");
}

#[test]
fn what_waits_for_a_sessions_home_is_bounded_in_bytes_and_a_session_opened_here_is_not() {
    let mut node = Node::started(2, 2, &[1, 2]);
    let adds = |from: usize| (from..from + 3_500).map(|at| add(&format!("{at:0200}"), 1)).collect::<Vec<_>>();
    for number in 1..=2 {
        assert!(
            node.done(numbered(session(1, 1), number, 0, adds(0))).contains("conditional"),
            "{number} fits"
        );
    }
    let refused = node.done(numbered(session(1, 1), 3, 0, adds(0)));
    assert!(refused.contains("session_full"), "{refused}");
    let taken = node.done(numbered(session(2, 2), 1, 0, adds(0)));
    assert!(taken.contains("yes") && !taken.contains("conditional"), "{taken}");
}
