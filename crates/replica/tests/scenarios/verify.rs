//! Two regions that write all the time prove that they hold the same, and name and mend the one entry that differs.

use std::collections::BTreeSet;

use insta::assert_snapshot;
use tombolo_causality::TenantId;
use tombolo_codec::PeerMessage;
use tombolo_replica::{EntryName, Input};

use crate::difference::talk;
use crate::kit::{Node, add, numbered, options, plain, position, region, session, set};

const CELLS_COUNT: i64 = 2_000;

fn end(node: &Node, writer: u16) -> u64 {
    let own = node.appended.iter().filter(|batch| batch.header().log.region == region(writer));
    own.map(|batch| batch.header().seq.0).max().unwrap_or(0)
}

/// What `from` wrote comes to `to`, which says so.
fn share(from: (u16, &mut Node), to: (u16, &mut Node)) {
    let has = end(to.1, from.0);
    let own = from.1.appended.iter().filter(|batch| {
        let header = batch.header();
        header.log.region == region(from.0) && header.seq.0 > has
    });
    for batch in own.cloned().collect::<Vec<_>>() {
        to.1.remote(from.0, 1, &batch);
    }
    let at = position(from.0, u128::from(from.0), end(from.1, from.0));
    to.1.durable(at);
    from.1.acked(to.0, 1, at);
    // It had these itself all the time, and says so too.
    to.1.acked(from.0, 1, at);
}

fn level(one: &mut Node, two: &mut Node) {
    share((1, one), (2, two));
    share((2, two), (1, one));
}

/// Two regions with many cells each has written to, level and connected.
fn pair() -> (Node, Node) {
    let mut one = Node::open(options(1, 1, &[1, 2]), None, &[]);
    let mut two = Node::open(options(2, 2, &[1, 2]), None, &[]);
    for (node, peer) in [(&mut one, 2), (&mut two, 1)] {
        node.start();
        node.peer_up(peer, u128::from(peer), 1);
        node.peer_answer(peer, 1, &[], &[]);
    }
    for at in 0..CELLS_COUNT / 50 {
        let ops = (at * 50..at * 50 + 50).map(|at| add(&format!("views:{at}"), at));
        one.done(plain(ops.collect()));
    }
    for at in 0..10 {
        two.done(plain(vec![add(&format!("views:{at}"), 7), set(&format!("name:{at}"), "x")]));
    }
    one.done(numbered(session(1, 1), 1, 1, vec![add("views:1", 100)]));
    two.done(numbered(session(1, 1), 2, 1, vec![add("views:2", 100)]));
    level(&mut one, &mut two);
    level(&mut one, &mut two);
    one.said.clear();
    two.said.clear();
    (one, two)
}

fn begin(node: &mut Node, peer: u16, mend: Option<BTreeSet<EntryName>>) -> String {
    let ticket = node.ticket();
    node.handle(Input::Verify { ticket, peer: region(peer), mend })
}

fn views(at: u64) -> EntryName {
    let key = Box::from(format!("views:{at}").as_bytes());
    EntryName::Cell { is_counter: true, tenant: TenantId::DEFAULT, key }
}

fn digests(one: &Node, two: &Node) -> [String; 2] {
    [one, two].map(|node| node.replica.report(node.now()).digest.to_string())
}

/// A checkpoint with one counter changed, as a bit flipped in a file that was then signed anew.
fn altered(node: &Node, key: &str) -> Node {
    let mut checkpoint = node.replica.checkpoint();
    let cell = checkpoint.cells.iter_mut().find(|cell| cell.key == key.as_bytes()).expect("it is there");
    let tombolo_codec::checkpoint::CellContent::Counter { slots, .. } = &mut cell.content else {
        panic!("a counter");
    };
    slots[0].positive ^= 1 << 20;
    let mut out = Node::open(options(2, 3, &[1, 2]), Some(&checkpoint), &[]);
    out.start();
    out
}

#[test]
fn regions_that_write_meanwhile_prove_that_they_hold_the_same() {
    let (mut one, mut two) = pair();
    begin(&mut two, 1, None);
    // Both write while cuts are opened, and again while entries are compared.
    one.done(plain(vec![add("views:5", 1), set("name:1", "one")]));
    two.done(plain(vec![add("views:5", 1), add("views:6", 1)]));
    let ask = two.said.pop().expect("the peer holds all of the cut");
    assert!(matches!(ask, PeerMessage::CutAsk { .. }), "{ask:?}");
    crate::difference::tell(&mut one, 2, ask);
    let cut = one.said.pop().expect("it opened one");
    let waits = crate::difference::tell(&mut two, 1, cut);
    assert_eq!(waits, "", "it has not applied what the other's cut holds");
    one.done(plain(vec![add("views:9", 1)]));
    two.done(plain(vec![add("views:5", 1)]));
    level(&mut one, &mut two);
    let said = talk(&mut one, &mut two);
    let last = said.lines().rfind(|line| line.starts_with("answer")).unwrap_or_default();
    assert_snapshot!(last, @"answer 12: 2011 entries, 2 rounds, 0 in motion, 0 damaged, 0 mended");
    assert!(two.verified.iter().all(|report| report.damaged.is_empty()), "{:?}", two.verified);
    let report = two.verified.last().expect("it ended");
    assert_eq!((report.in_motion_count, report.are_digests_wrong), (0, false), "{report:?}");
    assert!(report.rounds_count > 1, "what changed meanwhile was looked at again: {report:?}");
    assert!(report.entries_count >= CELLS_COUNT as u64, "{report:?}");
}

#[test]
fn one_flipped_cell_among_many_is_named_while_both_sides_write_and_is_mended() {
    let (mut one, two) = pair();
    let mut two = altered(&two, "views:77");
    one.peer_up(2, 3, 2);
    let ends = [position(1, 1, end(&one, 1)), position(2, 2, end(&one, 2))];
    one.peer_answer(2, 2, &ends, &ends);
    drop((one.peer_down(2, 2), one.peer_up(2, 3, 1), one.peer_answer(2, 1, &ends, &ends)));
    two.peer_up(1, 1, 1);
    two.peer_answer(1, 1, &ends, &ends);
    one.said.clear();
    two.said.clear();
    let unequal = digests(&one, &two);
    assert_ne!(unequal[0], unequal[1]);
    begin(&mut two, 1, None);
    one.done(plain(vec![add("views:5", 1)]));
    talk(&mut one, &mut two);
    share((1, &mut one), (2, &mut two));
    talk(&mut one, &mut two);
    let report = two.verified.pop().expect("it ended");
    let names: Vec<&EntryName> = report.damaged.iter().map(|damaged| &damaged.name).collect();
    assert_eq!(names, [&views(77)], "{report:?}");
    assert_snapshot!(report.damaged[0].here.as_deref().unwrap_or_default(), @"region 1 +1048653 -0");
    assert_snapshot!(report.damaged[0].there.as_deref().unwrap_or_default(), @"region 1 +77 -0");
    assert!(!report.damaged[0].is_here, "a file that decodes contradicts nothing here");

    begin(&mut two, 1, Some(BTreeSet::from([views(77)])));
    talk(&mut one, &mut two);
    let mending = two.mendings.pop().expect("something is to be mended");
    let mut checkpoint = two.replica.checkpoint();
    assert_eq!(mending.mend(&mut checkpoint), 1);
    two.handle(Input::Mended { mending: Box::new(mending) });
    talk(&mut one, &mut two);
    let report = two.verified.pop().expect("it ended");
    assert_eq!((report.mended_count, report.damaged_count), (1, 0), "{report:?}");
}

#[test]
fn a_cell_that_is_damaged_in_memory_contradicts_its_digest_and_is_mended_with_it() {
    let (mut one, mut two) = pair();
    assert!(two.replica.damage_counter(TenantId::DEFAULT, b"views:77", 4_096));
    begin(&mut two, 1, None);
    talk(&mut one, &mut two);
    let report = two.verified.pop().expect("it ended");
    assert_eq!(report.damaged_count, 1, "{report:?}");
    assert_eq!((&report.damaged[0].name, report.damaged[0].is_here), (&views(77), true));
    begin(&mut two, 1, Some(BTreeSet::from([views(77)])));
    talk(&mut one, &mut two);
    let mending = two.mendings.pop().expect("something is to be mended");
    two.handle(Input::Mended { mending: Box::new(mending) });
    talk(&mut one, &mut two);
    assert_eq!(two.verified.pop().map(|report| (report.mended_count, report.damaged_count)), Some((1, 0)));
    level(&mut one, &mut two);
    let equal = digests(&one, &two);
    assert_eq!(equal[0], equal[1]);
    assert_snapshot!(two.read(&["views:77"], vec![]), @"answer 14: 77");
}

#[test]
fn what_a_write_changed_since_is_not_mended_over() {
    let (mut one, mut two) = pair();
    two.replica.damage_counter(TenantId::DEFAULT, b"views:77", 4_096);
    begin(&mut two, 1, Some(BTreeSet::from([views(77)])));
    talk(&mut one, &mut two);
    let mending = two.mendings.pop().expect("something is to be mended");
    one.done(plain(vec![add("views:77", 1)]));
    level(&mut one, &mut two);
    two.handle(Input::Mended { mending: Box::new(mending) });
    assert_snapshot!(two.read(&["views:77"], vec![]), @"answer 13: 4174");
}

#[test]
fn a_verification_ends_with_the_connection_and_leaves_no_cut() {
    let (mut one, mut two) = pair();
    assert_snapshot!(begin(&mut two, 1, None), @"ask r1 for a cut");
    assert_snapshot!(begin(&mut two, 1, None), @"answer 13: busy");
    assert_snapshot!(two.peer_down(1, 1), @"answer 12: not_yet");
    assert_snapshot!(begin(&mut two, 1, None), @"answer 14: not_yet");
    drop(one.peer_down(2, 1));
}
