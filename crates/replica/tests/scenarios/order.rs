//! The order of steps: staged, durable, applied, offered, woken; group commit; what is answered before the sync.

use insta::assert_snapshot;
use tombolo_replica::Durability;

use crate::kit::{Node, add, numbered, options, plain, position, session, set};

/// Region 1 with region 2 connected and wanting its log.
fn with_peer(durability: Durability) -> Node {
    let mut options = options(1, 1, &[1, 2]);
    options.durability = durability;
    let mut node = Node::open(options, None, &[]);
    node.start();
    node.peer_up(2, 20, 1);
    node.peer_answer(2, 1, &[], &[]);
    node.subscribe(2, 1, position(1, 1, 1));
    node
}

#[test]
fn a_write_is_answered_acked_and_shipped_only_once_it_is_durable() {
    let mut node = with_peer(Durability::Sync);
    assert_snapshot!(node.write(plain(vec![add("k", 5)])), @"");
    assert_snapshot!(node.flush(), @"append r1e1#1 of 1 ops");
    assert_snapshot!(node.staged(position(1, 1, 1)), @"");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 2: -");
    assert_snapshot!(node.durable(position(1, 1, 1)), @r"
    answer 1: yes at r1e1#1, values [5]
    ack r1e1#1
    ship to r2: r1e1#1 of 1 ops
    ");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 3: 5");
}

#[test]
fn a_relaxed_write_is_answered_at_staged_and_all_else_waits_for_the_sync() {
    let mut node = with_peer(Durability::Relaxed);
    node.write(plain(vec![add("k", 5)]));
    node.flush();
    assert_snapshot!(node.staged(position(1, 1, 1)), @"answer 1: yes at r1e1#1, values [5]");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 2: -");
    let waiting = node.read(&["k"], vec![position(1, 1, 1)]);
    assert_snapshot!(waiting + &node.wait(position(1, 1, 1)), @"");
    assert_snapshot!(node.durable(position(1, 1, 1)), @r"
    ack r1e1#1
    ship to r2: r1e1#1 of 1 ops
    answer 3: 5
    reached 4: r1
    ");
}

#[test]
fn what_comes_while_a_batch_is_synced_goes_into_the_next_one() {
    let mut node = Node::alone();
    node.write(plain(vec![add("k", 1)]));
    assert_snapshot!(node.flush(), @"append r1e1#1 of 1 ops");
    for _ in 0..3 {
        node.write(plain(vec![add("k", 1)]));
        assert_eq!(node.flush(), "", "one sync is under way");
    }
    assert_snapshot!(node.durable(position(1, 1, 1)) + &node.flush(), @r"
    answer 1: yes at r1e1#1, values [1]
    ack r1e1#1
    append r1e1#2 of 3 ops
    ");
    assert_snapshot!(node.durable(position(1, 1, 2)), @r"
    answer 2: yes at r1e1#2, values [2]
    answer 3: yes at r1e1#2, values [3]
    answer 4: yes at r1e1#2, values [4]
    ack r1e1#2
    ");
}

#[test]
fn a_durable_answer_covers_only_what_it_names() {
    let mut node = Node::alone();
    node.write(plain(vec![add("k", 1)]));
    node.flush();
    node.write(numbered(session(1, 1), 1, 0, vec![add("k", 1)]));
    assert_snapshot!(node.durable(position(1, 1, 1)), @r"
    answer 1: yes at r1e1#1, values [1]
    ack r1e1#1
    ");
    assert_snapshot!(node.durable(position(1, 1, 1)), @"");
    assert_snapshot!(node.flush() + &node.durable(position(1, 1, 2)), @r"
    append r1e1#2 of 1 ops
    answer 2: yes at r1e1#2, values [2]
    ack r1e1#2
    ");
}

#[test]
fn callers_in_company_slow_the_pace_to_a_beat_and_a_lone_caller_never_waits() {
    let mut node = Node::alone();
    // How long the next batch waits, after one of so many callers.
    let mut wait_after = |callers: usize| {
        for _ in 0..callers {
            node.write(plain(vec![add("k", 1)]));
        }
        let closed = node.replica.next_flush_ms().unwrap_or_default();
        node.settle();
        let due = |node: &mut Node| {
            node.write(plain(vec![add("k", 1)]));
            node.replica.next_flush_ms().unwrap_or_default()
        };
        due(&mut node) - closed
    };
    // What was staged to look at the wait is in the batch of the next round: two callers where one is asked for.
    let company: Vec<u64> = (0..8).map(|_| wait_after(2)).collect();
    assert!(company.is_sorted() && company[0] == 1 && company[7] == 6, "{company:?}");

    let mut node = Node::alone();
    for round in 0..8 {
        node.write(plain(vec![add("k", 1)]));
        let due = node.replica.next_flush_ms();
        assert_eq!(due, Some(0), "round {round}");
        node.settle();
    }
    for _ in 0..8 {
        node.write(plain(vec![add("k", 1)]));
        node.write(plain(vec![add("k", 1)]));
        node.settle();
    }
    let rounds = (1..100).find(|_| {
        node.write(plain(vec![add("k", 1)]));
        let due = node.replica.next_flush_ms();
        node.settle();
        node.write(plain(vec![add("k", 1)]));
        let waits = node.replica.next_flush_ms() > due;
        node.settle();
        !waits
    });
    assert!(rounds.is_some_and(|rounds| rounds < 20), "the pace quickens again: {rounds:?}");
}

#[test]
fn values_of_many_callers_never_outgrow_a_batch() {
    let mut node = Node::alone();
    let value = "v".repeat(256 * 1_024);
    let mut taken = 0;
    while node.replica.has_room() && taken < 64 {
        node.write(plain(vec![set(&format!("k{taken}"), &value)]));
        taken += 1;
    }
    assert!(taken < 16, "commands are held back once the open batch is full");
    node.settle();
    assert!(node.replica.has_room());
}
