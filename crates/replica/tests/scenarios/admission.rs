//! What may enter the log: kinds, ranges, stamps and generations, judged as if all that is staged were applied.

use insta::assert_snapshot;
use tombolo_causality::Time;
use tombolo_codec::Kind;
use tombolo_replica::{Durability, Input, WritePart};

use crate::kit::{
    Node, add, delete, delete_at, numbered, options, plain, position, second, session, set, set_at, stamp,
};

#[test]
fn a_counter_cannot_leave_i64_by_staged_adds() {
    let mut node = Node::alone();
    node.write(plain(vec![add("k", i64::MAX - 1)]));
    node.write(plain(vec![add("k", 1)]));
    let mut part = plain(vec![add("k", 1)]);
    part.wants_values = false;
    assert_snapshot!(node.write(part.clone()), @"answer 3: overflow, applied: no");
    node.settle();
    assert_snapshot!(node.write(part), @"answer 4: overflow, applied: no");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 5: 9223372036854775807");
}

#[test]
fn a_counter_cannot_leave_i64_by_the_adds_of_one_request() {
    let mut node = Node::alone();
    let ops = |last| vec![add("k", i64::MIN), add("k", 3), add("k", last)];
    let quiet = |ops| WritePart { wants_values: false, ..plain(ops) };
    assert_snapshot!(node.write(quiet(ops(-4))), @"answer 1: overflow, applied: no");
    assert_snapshot!(node.done(plain(ops(-3))), @"answer 2: yes at r1e1#1, values [-9223372036854775808 -9223372036854775805 -9223372036854775808]");
    assert_snapshot!(node.write(quiet(vec![add("j", i64::MAX), add("j", 1)])), @"answer 3: overflow, applied: no");
    assert_snapshot!(node.read(&["k", "j"], vec![]), @"answer 4: -9223372036854775808 -");
}

#[test]
fn an_op_of_another_kind_is_refused_also_while_the_cell_is_only_staged() {
    let mut node = Node::alone();
    node.write(plain(vec![add("c", 1), set("r", "x")]));
    assert_snapshot!(node.write(plain(vec![set("c", "x")])), @"answer 2: wrong_type, applied: no");
    assert_snapshot!(node.write(plain(vec![add("r", 1)])), @"answer 3: wrong_type, applied: no");
    node.settle();
    assert_snapshot!(node.write(plain(vec![set("c", "x")])), @"answer 4: wrong_type, applied: no");
    assert_snapshot!(node.write(plain(vec![add("r", 1)])), @"answer 5: wrong_type, applied: no");
    assert_snapshot!(node.write(plain(vec![add("n", 1), set("n", "x")])), @"answer 6: wrong_type, applied: no");
    assert_snapshot!(node.write(plain(vec![set("n", "x"), add("n", 1)])), @"answer 7: wrong_type, applied: no");
}

#[test]
fn a_key_changes_its_kind_by_a_delete_in_a_pipeline_and_not_back() {
    let mut node = Node::alone();
    node.done(plain(vec![add("k", 1), add("j", 1), set("r", "x")]));
    // All in one request, over a cell that is applied.
    assert_snapshot!(node.done(plain(vec![delete("k", None), set("k", "x"), add("k", 1)])), @"answer 2: wrong_type, applied: no");
    assert_snapshot!(node.write(plain(vec![delete("j", None), set("j", "x")])), @"");
    // In the batch before.
    assert_snapshot!(node.write(plain(vec![add("j", 1)])), @"answer 4: wrong_type, applied: no");
    assert_snapshot!(node.write(plain(vec![delete("r", None), add("r", 1)])), @"");
    assert_snapshot!(node.write(plain(vec![set("r", "y")])), @"answer 6: wrong_type, applied: no");
    node.settle();
    assert_snapshot!(node.read(&["k", "j", "r"], vec![]), @r#"answer 7: 1 "x" 1"#);
}

#[test]
fn a_pipeline_sees_its_own_ops_and_those_that_are_staged() {
    let mut node = Node::alone();
    assert_snapshot!(node.done(plain(vec![add("k", 5), delete("k", None), add("k", 2), set("r", "x"), delete("r", None), delete("r", None)])), @"answer 1: yes at r1e1#1, values [5 1 2 1 0]");
    node.write(plain(vec![add("k", 1)]));
    node.flush();
    node.write(plain(vec![delete("k", None)]));
    node.write(plain(vec![add("k", 10)]));
    node.write(plain(vec![add("k", 10)]));
    assert_snapshot!(node.settle() + &node.settle(), @r"
    answer 2: yes at r1e1#2, values [3]
    ack r1e1#2
    append r1e1#3 of 3 ops
    answer 3: yes at r1e1#3, values [1]
    answer 4: yes at r1e1#3, values [10]
    answer 5: yes at r1e1#3, values [20]
    ack r1e1#3
    ");
    assert_snapshot!(node.read(&["k", "r"], vec![]), @"answer 6: 20 -");
}

#[test]
fn a_delete_takes_what_it_saw_and_leaves_what_had_not_seen_it() {
    let mut a = Node::started(1, 1, &[1, 2]);
    let mut b = Node::started(2, 20, &[1, 2]);
    a.peer_up(2, 20, 1);
    a.done(plain(vec![add("k", 5)]));
    // Region 2 has not seen the delete; its add is of the earlier generation.
    b.done(plain(vec![add("k", 7)]));
    a.write(plain(vec![delete("k", Some(Kind::Counter))]));
    a.write(plain(vec![add("k", 1)]));
    a.settle();
    assert_snapshot!(a.read(&["k"], vec![]), @"answer 4: 1");
    a.remote(2, 1, &b.appended[0]);
    a.durable(position(2, 20, 1));
    assert_snapshot!(a.read(&["k"], vec![]), @"answer 5: 1");
}

#[test]
fn a_late_copy_of_an_old_delete_does_not_hide_the_newer_one_that_is_staged() {
    let mut node = Node::alone();
    node.done(plain(vec![add("k", 1)]));
    node.write(plain(vec![delete_at("k", Kind::Counter, stamp(100, 9))]));
    node.flush();
    let late = WritePart { retry: true, ..plain(vec![delete_at("k", Kind::Counter, stamp(50, 8))]) };
    node.write(late);
    node.write(plain(vec![add("k", 4)]));
    node.settle();
    node.settle();
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 5: 4");
}

#[test]
fn a_late_copy_of_an_old_delete_in_the_same_batch_does_not_hide_the_newer_one() {
    let mut node = Node::alone();
    node.done(plain(vec![add("k", 1)]));
    node.write(plain(vec![delete_at("k", Kind::Counter, stamp(100, 9))]));
    let late = WritePart { retry: true, ..plain(vec![delete_at("k", Kind::Counter, stamp(50, 8))]) };
    node.write(late);
    node.write(plain(vec![add("k", 4)]));
    node.settle();
    node.settle();
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 5: 4");
}

#[test]
fn a_write_that_has_seen_a_value_beats_it_however_far_ahead_that_is_stamped() {
    // It was written where the clock was wrong, and is applied all the same.
    let mut ahead = Node::started(2, 20, &[1, 2]);
    ahead.wall = second(5_000);
    ahead.done(plain(vec![set("r", "ahead")]));
    let mut node = Node::started(1, 1, &[1, 2]);
    node.peer_up(2, 20, 1);
    node.remote(2, 1, &ahead.appended[0]);
    node.durable(position(2, 20, 1));
    assert_snapshot!(node.read(&["r"], vec![]), @r#"answer 1: "ahead""#);
    node.done(plain(vec![set("r", "mine")]));
    assert_snapshot!(node.read(&["r"], vec![]), @r#"answer 3: "mine""#);
    // The raised stamp did not drag the clock along.
    node.done(plain(vec![set("s", "first")]));
    assert_snapshot!(node.write(plain(vec![set_at("s", "second", stamp(101, 1))])), @"answer 5: clock_skew, applied: no");
    // A caller that saw a later stamp elsewhere writes above that, within the bound.
    node.wall = second(102);
    let after = Time(second(102).0 + (1 << 30));
    let part = WritePart { after, ..plain(vec![set("t", "x")]) };
    node.done(part);
    assert_snapshot!(node.write(plain(vec![set_at("t", "y", stamp(102, 1))])), @"answer 7: stamp_behind, applied: no, above 102");
}

#[test]
fn stamps_of_the_sender_are_checked_on_a_first_attempt_only() {
    let mut node = Node::alone();
    node.done(plain(vec![set_at("r", "a", stamp(90, 1))]));
    assert_snapshot!(node.write(plain(vec![set_at("r", "b", stamp(80, 2))])), @"answer 2: stamp_behind, applied: no, above 90");
    assert_snapshot!(node.write(plain(vec![set_at("r", "b", stamp(90, 1))])), @"answer 3: stamp_behind, applied: no, above 90");
    let retry = WritePart { retry: true, ..plain(vec![set_at("r", "b", stamp(80, 2))]) };
    assert_snapshot!(node.done(retry), @"answer 4: yes at r1e1#2, values []");
    assert_snapshot!(node.read(&["r"], vec![]), @r#"answer 5: "a""#);
    assert_snapshot!(node.write(plain(vec![set_at("r", "far", stamp(102, 3))])), @"answer 6: clock_skew, applied: no");
    // Sent again outside a session, a write without its stamp would be another write.
    assert_snapshot!(node.write(WritePart { retry: true, ..plain(vec![set("r", "c")]) }), @"answer 7: malformed, applied: no");
    // A token beyond the bound is ignored, with a finding.
    assert_snapshot!(node.write(WritePart { after: second(999), ..plain(vec![set("q", "c")]) }), @"notice token_ahead");
}

#[test]
fn a_copy_with_a_stamp_that_no_region_can_have_accepted_is_refused_and_one_that_loses_is_not() {
    let mut ahead = Node::started(2, 20, &[1, 2]);
    ahead.wall = second(5_000);
    ahead.done(plain(vec![set("theirs", "ahead")]));
    let mut node = Node::started(1, 1, &[1, 2]);
    node.peer_up(2, 20, 1);
    let copy = |key: &str, at| WritePart { retry: true, ..plain(vec![set_at(key, "copy", at)]) };
    // Two bounds of 500 ms ahead of second 100.
    assert_snapshot!(node.done(copy("r", stamp(101, 1))), @"answer 1: yes at r1e1#1, values []");
    assert_snapshot!(node.write(copy("r", stamp(103, 1))), @"answer 2: clock_skew, applied: unknown");
    assert_snapshot!(node.write(copy("theirs", stamp(4_000, 1))), @"answer 3: clock_skew, applied: unknown");
    let gone = WritePart { retry: true, ..plain(vec![delete_at("r", Kind::Register, stamp(103, 1))]) };
    assert_snapshot!(node.write(gone), @"answer 4: clock_skew, applied: unknown");
    node.remote(2, 1, &ahead.appended[0]);
    node.durable(position(2, 20, 1));
    assert_snapshot!(node.done(copy("theirs", stamp(4_000, 1))), @"answer 5: yes at r1e1#2, values []");
    assert_snapshot!(node.read(&["r", "theirs"], vec![]), @r#"answer 6: "copy" "ahead""#);
}

#[test]
fn a_region_whose_clock_is_ahead_refuses_registers_and_takes_counters() {
    let mut node = Node::alone();
    node.handle(Input::ClockAhead { is_ahead: true });
    assert_snapshot!(node.write(plain(vec![set("r", "x")])), @"answer 1: clock_skew, applied: no");
    assert_snapshot!(node.done(plain(vec![add("k", 1)])), @"answer 2: yes at r1e1#1, values [1]");
    node.handle(Input::ClockAhead { is_ahead: false });
    assert_snapshot!(node.done(plain(vec![set("r", "x")])), @"answer 3: yes at r1e1#2, values []");
}

#[test]
fn a_refused_op_refuses_the_whole_request_and_leaves_its_number_free() {
    let mut node = Node::alone();
    node.done(plain(vec![set("r", "x")]));
    assert_snapshot!(node.write(numbered(session(1, 1), 1, 0, vec![add("k", 1), add("r", 1)])), @"answer 2: wrong_type, applied: no");
    assert_snapshot!(node.done(numbered(session(1, 1), 1, 0, vec![add("k", 2)])), @"answer 3: yes at r1e1#2, values [2]");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 4: 2");
}

#[test]
fn clocks_go_on_after_a_restart_although_the_wall_stepped_back() {
    let mut options = options(1, 1, &[1]);
    options.durability = Durability::Sync;
    let mut before = Node::open(options.clone(), None, &[]);
    before.start();
    before.done(plain(vec![set("r", "before")]));
    options.epoch = tombolo_causality::Epoch(2);
    let mut node = Node::open(options, None, &before.appended);
    node.start();
    node.settle();
    node.wall = second(10);
    node.done(plain(vec![set("s", "after")]));
    assert_snapshot!(node.write(plain(vec![set_at("s", "late", stamp(100, 0))])), @"answer 2: stamp_behind, applied: no, above 100");
}
