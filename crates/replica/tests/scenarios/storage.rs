//! Full and failed disks; checkpoints and replay.

use insta::assert_snapshot;
use tombolo_replica::Input;

use crate::kit::{Node, add, delete, log, numbered, options, plain, position, session, set};

#[test]
fn a_full_disk_refuses_writes_answers_retries_and_comes_back() {
    let mut node = Node::alone();
    node.done(numbered(session(1, 1), 1, 0, vec![add("k", 5)]));
    assert_snapshot!(node.handle(Input::StorageFull { is_full: true }), @"notice storage_full");
    assert_snapshot!(node.write(plain(vec![add("k", 1)])), @"answer 2: storage_full, applied: no");
    assert_snapshot!(node.write(numbered(session(1, 1), 1, 0, vec![add("k", 5)])), @"answer 3: yes at r1e1#1, replayed, values []");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 4: 5");
    node.handle(Input::StorageFull { is_full: false });
    assert_snapshot!(node.done(plain(vec![add("k", 1)])), @"answer 5: yes at r1e1#2, values [6]");
}

#[test]
fn a_region_that_waited_for_room_to_seal_becomes_whole() {
    let mut before = Node::alone();
    before.done(plain(vec![add("k", 5)]));
    let mut node = Node::open(options(1, 2, &[1]), None, &before.appended);
    node.handle(Input::StorageFull { is_full: true });
    assert_snapshot!(node.start(), @"");
    assert_snapshot!(node.handle(Input::StorageFull { is_full: false }), @"append r1e2#1 of 0 ops");
    assert_snapshot!(node.durable(position(1, 2, 1)), @r"
    ack r1e2#1
    whole
    ");
}

#[test]
fn after_a_failed_sync_nothing_is_answered_yes_and_what_was_under_way_is_unknown() {
    let mut node = Node::alone();
    node.done(plain(vec![add("k", 1)]));
    node.write(numbered(session(1, 1), 1, 0, vec![add("k", 5)]));
    node.flush();
    node.write(plain(vec![add("k", 2)]));
    assert_snapshot!(node.handle(Input::StorageFailed { log: log(1, 1), text: "EIO".into() }), @r"
    notice storage_failed
    answer 2: storage_failed, applied: unknown
    answer 3: storage_failed, applied: unknown
    ");
    // It may be on disk: to say that it was not applied would be a lie.
    assert_snapshot!(node.write(numbered(session(1, 1), 1, 0, vec![add("k", 5)])), @"answer 4: storage_failed, applied: unknown");
    assert_snapshot!(node.write(plain(vec![add("k", 1)])), @"answer 5: storage_failed, applied: no");
    assert_snapshot!(node.flush(), @"");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 6: 1");
}

#[test]
fn a_checkpoint_and_the_rest_of_the_logs_give_what_all_of_the_logs_give() {
    let mut node = Node::alone();
    node.done(plain(vec![add("k", 5), set("r", "x"), add("gone", 1)]));
    node.done(numbered(session(1, 1), 1, 0, vec![add("k", -7), delete("gone", None)]));
    let checkpoint = node.replica.checkpoint();
    let at_checkpoint = node.replica.report(node.now());
    let restored = Node::open(options(1, 2, &[1]), Some(&checkpoint), &[]);
    let report = restored.replica.report(restored.now());
    assert_eq!((&report.vector, report.digest), (&at_checkpoint.vector, at_checkpoint.digest));

    node.done(numbered(session(1, 1), 2, 2, vec![add("k", 1), set("r", "y"), add("gone", 3)]));
    let live = node.replica.report(node.now());
    assert_ne!(live.digest, at_checkpoint.digest);
    for (checkpoint, logs) in [
        (None, &node.appended[..]),
        (Some(&checkpoint), &node.appended[..]),
        (Some(&checkpoint), &node.appended[2..]),
    ] {
        let mut again = Node::open(options(1, 2, &[1]), checkpoint, logs);
        let report = again.replica.report(again.now());
        assert_eq!((&report.vector, report.digest), (&live.vector, live.digest));
        assert_eq!(again.read(&["k", "r", "gone"], vec![]), "answer 1: -1 \"y\" 3\n");
    }
}

#[test]
fn a_gap_or_a_fork_on_disk_is_an_error_not_a_state() {
    let mut node = Node::alone();
    (0..3).for_each(|_| drop(node.done(plain(vec![add("k", 1)]))));
    let mut fork = Node::alone();
    (0..3).for_each(|_| drop(fork.done(plain(vec![add("k", 2)]))));
    let mut again = Node::open(options(1, 2, &[1]), None, &node.appended[..1]);
    assert!(again.replica.replay(&node.appended[2]).is_err());
    assert!(again.replica.replay(&fork.appended[1]).is_err());
    assert!(again.replica.replay(&node.appended[1]).is_err(), "the log is halted from then on");
}

#[test]
fn a_write_under_which_the_disk_fills_up_is_answered_and_counts_once_there_is_room() {
    let mut node = Node::alone();
    node.write(numbered(session(1, 1), 1, 0, vec![add("k", 5)]));
    node.flush();
    let answers = node.handle(Input::StorageFull { is_full: true });
    assert!(answers.contains("storage_full, applied: unknown"), "{answers}");
    node.handle(Input::StorageFull { is_full: false });
    node.settle();
    let again = node.write(numbered(session(1, 1), 1, 0, vec![add("k", 5)]));
    assert!(again.contains("replayed"), "{again}");
    let value = node.read(&["k"], vec![]);
    assert!(value.trim_end().ends_with(": 5"), "{value}");
}
