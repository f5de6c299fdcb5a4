//! Exactly once in a session: replays, conflicts, stale numbers, other homes, earlier epochs, full sessions.

use insta::assert_snapshot;
use tombolo_replica::WritePart;

use crate::kit::{Node, add, delete, numbered, options, plain, position, second, session, set};

#[test]
fn the_same_number_again_is_answered_with_the_log_that_holds_it() {
    let mut node = Node::alone();
    let part = || numbered(session(1, 1), 1, 0, vec![add("k", 5)]);
    node.write(part());
    // Still in the open batch, then in one that is being synced, then applied.
    node.write(part());
    node.flush();
    node.write(part());
    assert_snapshot!(node.durable(position(1, 1, 1)), @r"
    answer 1: yes at r1e1#1, values [5]
    answer 2: yes at r1e1#1, replayed, values []
    answer 3: yes at r1e1#1, replayed, values []
    ack r1e1#1
    ");
    node.done(plain(vec![add("other", 1)]));
    assert_snapshot!(node.write(part()), @"answer 5: yes at r1e1#2, replayed, values []");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 6: 5");
}

#[test]
fn another_payload_under_a_used_number_is_a_conflict() {
    let mut node = Node::alone();
    node.write(numbered(session(1, 1), 1, 0, vec![add("k", 5)]));
    assert_snapshot!(node.write(numbered(session(1, 1), 1, 0, vec![add("k", 6)])), @"answer 2: conflict, applied: no");
    node.settle();
    assert_snapshot!(node.write(numbered(session(1, 1), 1, 0, vec![add("j", 5)])), @"answer 3: conflict, applied: no");
    assert_snapshot!(node.check(numbered(session(1, 1), 1, 0, vec![set("k", "x")])), @"answer 4: conflict, applied: no");
    assert_snapshot!(node.read(&["k", "j"], vec![]), @"answer 5: 5 -");
}

#[test]
fn a_number_below_the_settled_mark_is_stale_never_new() {
    let mut node = Node::alone();
    node.done(numbered(session(1, 1), 1, 0, vec![add("k", 1)]));
    node.done(numbered(session(1, 1), 3, 3, vec![add("k", 1)]));
    assert_snapshot!(node.write(numbered(session(1, 1), 1, 0, vec![add("k", 1)])), @"answer 3: stale, applied: unknown");
    assert_snapshot!(node.write(numbered(session(1, 1), 2, 0, vec![add("k", 1)])), @"answer 4: stale, applied: unknown");
    // A mark cannot pass the request that carries it.
    node.done(numbered(session(1, 1), 4, 99, vec![add("k", 1)]));
    assert_snapshot!(node.done(numbered(session(1, 1), 5, 0, vec![add("k", 1)])), @"answer 6: yes at r1e1#4, values [4]");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 7: 4");
}

#[test]
fn a_session_of_another_region_is_logged_conditionally_once() {
    let mut node = Node::started(1, 1, &[1, 2]);
    let part = || numbered(session(2, 20), 1, 0, vec![add("k", 1)]);
    assert_snapshot!(node.done(part()), @"answer 1: yes at r1e1#1, conditional, values [1]");
    assert_snapshot!(node.done(part()), @"answer 2: yes at r1e1#1, conditional, replayed, values []");
    assert_snapshot!(node.done(numbered(session(2, 20), 1, 0, vec![add("k", 2)])), @"answer 3: conflict, applied: no");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 4: 1");
}

#[test]
fn a_retry_that_may_have_been_logged_before_is_not_said_to_be_unapplied() {
    let mut node = Node::started(1, 1, &[1, 2]);
    node.done(numbered(session(1, 1), 1, 0, vec![add("k", 1)]));
    node.done(numbered(session(1, 1), 2, 2, vec![add("k", 1)]));
    let again =
        |home, epoch| WritePart { retry: true, ..numbered(session(home, epoch), 1, 0, vec![add("k", 1)]) };
    assert_snapshot!(node.write(again(1, 1)), @"answer 3: stale, applied: unknown");
    assert_snapshot!(node.check(again(1, 1)), @"answer 4: stale, applied: unknown");
    node.wall = second(100_000);
    assert_snapshot!(node.write(again(2, 20)), @"answer 5: session_expired, applied: unknown");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 6: 2");
}

#[test]
fn an_earlier_epochs_session_is_conditional_until_whole_and_then_absorbed() {
    let mut before = Node::started(1, 1, &[1, 2]);
    before.peer_up(2, 20, 1);
    before.peer_answer(2, 1, &[], &[]);
    before.done(numbered(session(1, 1), 1, 0, vec![add("k", 5)]));

    let mut node = Node::open(options(1, 2, &[1, 2]), None, &before.appended);
    node.start();
    // What is known to be logged is said at once, naming the log that holds it; the rest is logged conditionally.
    assert_snapshot!(node.write(numbered(session(1, 1), 1, 0, vec![add("k", 5)])), @"answer 1: yes at r1e1#1, replayed, values []");
    assert_snapshot!(node.done(numbered(session(1, 1), 2, 0, vec![add("k", 7)])), @"answer 2: yes at r1e2#1, conditional, values [12]");
    assert_snapshot!(node.done(numbered(session(1, 2), 1, 0, vec![add("k", 100)])), @"answer 3: yes at r1e2#2, values [112]");
    node.peer_up(2, 20, 2);
    assert_snapshot!(node.peer_answer(2, 2, &[position(1, 1, 1)], &[position(1, 1, 1)]), @r"
    ask r2: r2e20 from #1
    append r1e2#3 of 0 ops
    ");
    assert_snapshot!(node.durable(position(1, 2, 3)), @r"
    ack r1e2#3
    whole
    ");
    assert_snapshot!(node.write(numbered(session(1, 1), 1, 0, vec![add("k", 5)])), @"answer 4: yes at r1e2#3, replayed, values []");
    assert_snapshot!(node.done(numbered(session(1, 1), 2, 0, vec![add("k", 7)])), @"answer 5: yes at r1e2#4, replayed, values []");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 6: 112");
    assert_eq!(node.replica.report(node.now()).conditionals_count, 0, "it is absorbed");
}

#[test]
fn a_region_is_not_whole_before_it_holds_what_a_peer_has_of_its_own_past() {
    let mut before = Node::started(1, 1, &[1, 2]);
    before.done(plain(vec![add("k", 1)]));
    before.done(numbered(session(1, 1), 1, 0, vec![add("k", 2)]));

    // The disk came back without its second batch; region 2 has it.
    let mut node = Node::open(options(1, 2, &[1, 2]), None, &before.appended[..1]);
    node.start();
    node.peer_up(2, 20, 1);
    assert_snapshot!(node.peer_answer(2, 1, &[position(1, 1, 2)], &[position(1, 1, 2)]), @r"
    ask r2: r1e1 from #2
    ask r2: r2e20 from #1
    ");
    assert_snapshot!(node.write(numbered(session(1, 1), 1, 0, vec![add("k", 2)])), @"");
    assert_snapshot!(node.settle(), @r"
    append r1e2#1 of 1 ops
    answer 1: yes at r1e2#1, conditional, values [3]
    ack r1e2#1
    ");
    assert_snapshot!(node.remote(2, 1, &before.appended[1]), @"append r1e1#2 of 1 ops");
    assert_snapshot!(node.durable(position(1, 1, 2)), @r"
    ack r1e1#2
    append r1e2#2 of 0 ops
    ");
    assert_snapshot!(node.durable(position(1, 2, 2)), @r"
    ack r1e2#2
    whole
    ");
    assert_snapshot!(node.write(numbered(session(1, 1), 1, 0, vec![add("k", 2)])), @"answer 2: yes at r1e2#2, replayed, values []");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 3: 3");
}

#[test]
fn a_full_session_goes_on_once_its_mark_rises() {
    let mut node = Node::alone();
    for number in 1..=3 {
        node.done(numbered(session(1, 1), number, 0, vec![add("k", 1)]));
    }
    assert_snapshot!(node.done(numbered(session(1, 1), 4, 0, vec![add("k", 1)])), @"answer 4: session_full, applied: no");
    assert_snapshot!(node.done(numbered(session(1, 1), 4, 4, vec![add("k", 1)])), @"answer 5: yes at r1e1#4, values [4]");
}

#[test]
fn the_lowest_open_number_is_taken_however_many_lie_above_it() {
    let mut node = Node::alone();
    for number in 2..=4 {
        node.done(numbered(session(1, 1), number, 0, vec![add("k", 1)]));
    }
    assert_snapshot!(node.done(numbered(session(1, 1), 5, 1, vec![add("k", 1)])), @"answer 4: session_full, applied: no");
    assert_snapshot!(node.done(numbered(session(1, 1), 1, 1, vec![add("k", 1)])), @"answer 5: yes at r1e1#4, values [4]");
    assert_snapshot!(node.done(numbered(session(1, 1), 5, 5, vec![add("k", 1)])), @"answer 6: yes at r1e1#5, values [5]");
}

#[test]
fn a_numbered_request_with_nothing_to_log_is_remembered_all_the_same() {
    let mut node = Node::alone();
    assert_snapshot!(node.done(plain(vec![delete("k", None)])), @"answer 1: yes at nowhere, values [0]");
    assert_snapshot!(node.done(numbered(session(1, 1), 1, 0, vec![delete("k", None)])), @"answer 2: yes at r1e1#1, values [0]");
    assert_snapshot!(node.done(numbered(session(1, 1), 1, 0, vec![delete("k", None)])), @"answer 3: yes at r1e1#1, replayed, values []");
}
