//! Barriers, pauses, windows, relays, forks and misplaced batches.

use insta::assert_snapshot;
use tombolo_causality::{Epoch, Seq, ShardId};
use tombolo_codec::Batch;
use tombolo_codec::batch::Place;
use tombolo_replica::{Held, Input, Link};

use crate::kit::{Node, add, log, options, plain, position, region, set};

/// Region 1 of three, connected to 2 and 3.
fn connected() -> Node {
    let mut node = Node::started(1, 1, &[1, 2, 3]);
    for (peer, epoch, link) in [(2, 20, 2), (3, 30, 3)] {
        node.peer_up(peer, epoch, link);
        node.peer_answer(peer, link, &[], &[]);
    }
    node
}

/// What another region wrote, batch by batch.
fn written(id: u16, epoch: u128, batches: usize) -> Vec<Batch> {
    let mut node = Node::started(id, epoch, &[1, 2, 3]);
    (0..batches).for_each(|_| drop(node.done(plain(vec![add("k", 1)]))));
    node.appended
}

#[test]
fn a_barrier_is_reached_by_acks_alone_and_void_with_the_epoch_that_gave_them() {
    let mut node = connected();
    node.write(plain(vec![add("k", 1)]));
    node.flush();
    assert_snapshot!(node.wait(position(1, 1, 1)), @"");
    assert_snapshot!(node.durable(position(1, 1, 1)), @r"
    answer 1: yes at r1e1#1, values [1]
    ack r1e1#1
    reached 2: r1
    ");
    assert_snapshot!(node.acked(2, 9, position(1, 1, 1)), @"");
    assert_snapshot!(node.acked(2, 2, position(1, 1, 1)), @"reached 2: r2");
    // A new connection of the same process keeps its word, another process does not.
    assert_snapshot!(node.peer_up(2, 20, 4), @"describe to r2: received [r1e1#1] applied [r1e1#1]");
    assert_snapshot!(node.peer_up(2, 21, 5), @r"
    voided 2: r2
    describe to r2: received [r1e1#1] applied [r1e1#1]
    ");
    assert_snapshot!(node.peer_answer(2, 5, &[position(1, 1, 1)], &[]), @"ask r2: r2e21 from #1");
    assert_snapshot!(node.acked(2, 5, position(1, 1, 1)), @"reached 2: r2");
}

#[test]
fn a_token_that_names_a_sealed_log_is_reached_where_the_seal_is() {
    let mut before = Node::started(1, 1, &[1, 2]);
    before.done(plain(vec![add("k", 1)]));
    let mut node = Node::open(options(1, 2, &[1, 2]), None, &before.appended);
    node.start();
    node.peer_up(2, 20, 1);
    node.peer_answer(2, 1, &[], &[]);
    node.wait(position(1, 1, 1));
    // Beyond the end: a crash took it before it was durable, and nobody will ever hold it.
    assert_snapshot!(node.wait(position(1, 1, 2)), @"");
    assert_snapshot!(node.settle(), @r"
    ack r1e2#1
    whole
    ");
    assert_snapshot!(node.acked(2, 1, position(1, 2, 1)), @"reached 1: r2");
    assert_snapshot!(node.read(&["k"], vec![position(1, 1, 1)]), @"answer 3: 1");
    assert_snapshot!(node.read(&["k"], vec![position(1, 1, 2)]), @"");
}

#[test]
fn a_barrier_is_told_of_a_peer_that_sealed_first_once_the_seal_is_here() {
    let first = written(2, 20, 1);
    let mut second = Node::open(options(2, 21, &[2]), None, &first);
    second.start();
    second.settle();
    let seal = &second.appended[0];
    let mut node = connected();
    node.wait(position(2, 20, 1));
    node.peer_up(2, 21, 5);
    node.peer_answer(2, 5, &[position(2, 21, 1)], &[position(2, 21, 1)]);
    // The seal came first: it is not kept, and what it seals is asked of whoever applied it.
    assert_snapshot!(node.remote(2, 5, seal), @"ask r2: r2e20 from #1");
    assert_snapshot!(node.remote(2, 5, seal), @"");
    assert_snapshot!(node.remote(2, 5, &first[0]), @"append r2e20#1 of 1 ops");
    assert_snapshot!(node.durable(position(2, 20, 1)), @r"
    applied 1 ops of r2
    ack r2e20#1
    reached 1: r1
    ask r2: r2e21 from #1
    ");
    assert_snapshot!(node.remote(2, 5, seal), @"append r2e21#1 of 0 ops");
    assert_snapshot!(node.durable(position(2, 21, 1)), @r"
    applied 0 ops of r2
    reached 1: r2
    ack r2e21#1
    ");
}

#[test]
fn a_pause_holds_back_applying_and_a_resume_keeps_the_order() {
    let mut node = connected();
    let batches = written(2, 20, 3);
    assert_snapshot!(node.handle(Input::PauseApply { peer: region(2), is_paused: true }), @r"
    tell r2 what is held: paused r2 halted - received -
    tell r3 what is held: paused r2 halted - received -
    ");
    batches.iter().for_each(|batch| drop(node.remote(2, 2, batch)));
    assert_snapshot!(node.durable(position(2, 20, 3)), @"");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 1: -");
    assert_snapshot!(node.handle(Input::PauseApply { peer: region(2), is_paused: false }), @r"
    tell r2 what is held: paused - halted - received -
    tell r3 what is held: paused - halted - received -
    applied 1 ops of r2
    applied 1 ops of r2
    applied 1 ops of r2
    ack r2e20#3
    ");
    assert_snapshot!(node.read(&["k"], vec![]), @"answer 2: 3");
}

#[test]
fn a_queue_that_stands_still_is_told_and_a_new_connection_is_told_again() {
    let mut node = connected();
    let batches = written(2, 20, 2);
    batches.iter().for_each(|batch| drop(node.remote(2, 2, batch)));
    assert_snapshot!(node.handle(Input::Tick), @"");
    // Nothing has become durable since the last look.
    assert_snapshot!(node.handle(Input::Tick), @r"
    tell r2 what is held: paused - halted - received r2e20#2
    tell r3 what is held: paused - halted - received r2e20#2
    ");
    let told = node.peer_up(3, 31, 7);
    assert!(told.contains("tell r3 what is held: paused - halted - received r2e20#2"), "{told}");
    node.durable(position(2, 20, 2));
    let told = node.handle(Input::Tick);
    assert!(told.contains("tell r2 what is held: paused - halted - received -"), "{told}");
}

#[test]
fn what_a_peer_says_it_holds_back_is_why_it_lacks_a_position_until_it_connects_anew() {
    let mut node = connected();
    node.done(plain(vec![add("k", 1)]));
    let at = [position(1, 1, 1)];
    let name = (region(1), Epoch(1));
    let held = Held { halted: [(name, "a fork".to_owned())].into(), ..Held::default() };
    node.handle(Input::HeldThere { from: region(2), link: Link(2), held });
    let halted = |node: &Node| node.replica.shortfall(region(2), &at, node.now()).halted;
    assert_eq!(halted(&node).as_deref(), Some("a fork"));
    let facts = node.replica.report(node.now()).peers.remove(0).facts;
    assert_eq!((facts.halted_there.as_deref(), facts.behind.ops), (Some("a fork"), 1));
    // Of another connection, and of one that began anew, nothing counts.
    node.handle(Input::HeldThere { from: region(2), link: Link(9), held: Held::default() });
    assert_eq!(halted(&node).as_deref(), Some("a fork"));
    node.peer_up(2, 20, 12);
    assert_eq!(halted(&node), None);
}

#[test]
fn a_peer_that_does_not_ack_costs_one_window_and_an_ack_moves_it_on() {
    let mut node = connected();
    node.subscribe(2, 2, position(1, 1, 1));
    let value = "x".repeat(100 * 1_024);
    for _ in 0..15 {
        node.done(plain(vec![set("r", &value)]));
    }
    let sent: usize = node.shipped.iter().map(|batch| batch.bytes().len()).sum();
    assert!((1_000_000..1_200_000).contains(&sent), "{sent} bytes are on their way");
    let shipped = node.shipped.len() as u64;
    node.acked(2, 2, position(1, 1, 4));
    assert_eq!(node.shipped.len() as u64, shipped + 4);
    let seqs: Vec<u64> = node.shipped.iter().map(|batch| batch.header().seq.0).collect();
    assert_eq!(seqs, (1..=shipped + 4).collect::<Vec<_>>());
    // The other peer wants nothing and gets nothing.
    assert_snapshot!(node.acked(3, 3, position(1, 1, 1)), @"");
}

#[test]
fn what_every_peer_has_applied_is_not_kept_in_memory_and_comes_from_files() {
    let mut node = connected();
    for _ in 0..3 {
        node.done(plain(vec![add("k", 1)]));
    }
    assert_snapshot!(node.acked(2, 2, position(1, 1, 3)), @"");
    // Region 3 may still want it.
    assert_snapshot!(node.subscribe(3, 3, position(1, 1, 3)), @"ship to r3: r1e1#3 of 1 ops");
    node.acked(3, 3, position(1, 1, 3));
    // Region 2 comes back without its disk.
    node.peer_up(2, 21, 12);
    assert_snapshot!(node.subscribe(2, 12, position(1, 1, 1)), @"load for r2: r1e1 from #1");
}

#[test]
fn a_log_comes_from_its_writer_and_from_whoever_has_it_while_that_is_away() {
    let mut node = Node::started(1, 1, &[1, 2, 3]);
    node.peer_up(3, 30, 3);
    assert_snapshot!(node.peer_answer(3, 3, &[position(2, 20, 2)], &[position(2, 20, 2)]), @r"
    ask r3: r2e20 from #1
    ask r3: r3e30 from #1
    ");
    let batches = written(2, 20, 3);
    assert_snapshot!(node.remote(3, 3, &batches[0]), @"append r2e20#1 of 1 ops");
    assert_snapshot!(node.durable(position(2, 20, 1)), @r"
    applied 1 ops of r2
    ack r2e20#1
    ");
    node.peer_up(2, 20, 2);
    assert_snapshot!(node.peer_answer(2, 2, &[position(2, 20, 3)], &[position(2, 20, 3)]), @r"
    ask r3 no more: r2e20
    ask r2: r2e20 from #2
    ");
    assert_snapshot!(node.remote(2, 2, &batches[1]) + &node.remote(3, 3, &batches[1]), @"append r2e20#2 of 1 ops");
    assert_snapshot!(node.peer_down(2, 2), @"");
    assert_snapshot!(node.acked(3, 3, position(2, 20, 3)), @"ask r3: r2e20 from #3");
    assert_snapshot!(node.remote(3, 3, &batches[2]), @"append r2e20#3 of 1 ops");
}

#[test]
fn a_source_that_skips_is_asked_once_for_the_first_that_is_missing() {
    let mut node = connected();
    let batches = written(2, 20, 4);
    node.remote(2, 2, &batches[0]);
    assert_eq!(node.remote(2, 2, &batches[2]), "ask r2: r2e20 from #2\n");
    assert_eq!(node.remote(2, 2, &batches[3]), "");
    let rest: String = batches[1..].iter().map(|batch| node.remote(2, 2, batch)).collect();
    assert_eq!(rest.lines().count(), 3, "{rest}");
}

#[test]
fn a_relay_serves_a_log_that_it_does_not_write() {
    let mut node = connected();
    let batches = written(2, 20, 2);
    batches.iter().for_each(|batch| drop(node.remote(2, 2, batch)));
    node.subscribe(3, 3, position(2, 20, 1));
    assert_snapshot!(node.durable(position(2, 20, 2)), @r"
    applied 1 ops of r2
    applied 1 ops of r2
    ack r2e20#2
    load for r3: r2e20 from #1
    ");
    let load = |batches: &[Batch]| Input::Loaded {
        peer: region(3),
        link: Link(3),
        log: log(2, 20),
        batches: batches.to_vec(),
    };
    assert_snapshot!(node.handle(load(&batches)), @r"
    ship to r3: r2e20#1 of 1 ops
    ship to r3: r2e20#2 of 1 ops
    ");
    assert_snapshot!(node.handle(load(&[])), @"");
}

#[test]
fn what_is_read_for_an_earlier_subscription_does_not_end_the_present_one() {
    let mut node = connected();
    let batches = written(2, 20, 4);
    batches.iter().for_each(|batch| drop(node.remote(2, 2, batch)));
    node.durable(position(2, 20, 4));
    node.subscribe(3, 3, position(2, 20, 1));
    node.subscribe(3, 3, position(2, 20, 3));
    let load = |batches: &[Batch]| Input::Loaded {
        peer: region(3),
        link: Link(3),
        log: log(2, 20),
        batches: batches.to_vec(),
    };
    assert_snapshot!(node.handle(load(&batches[..2])), @"");
    assert_snapshot!(node.handle(load(&batches[2..])), @r"
    ship to r3: r2e20#3 of 1 ops
    ship to r3: r2e20#4 of 1 ops
    ");
}

/// Batches of another region that fill a window by tens.
fn written_large(id: u16, epoch: u128, batches: usize) -> Vec<Batch> {
    let mut node = Node::started(id, epoch, &[1, 2, 3]);
    let value = "x".repeat(100 * 1_024);
    (0..batches).for_each(|_| drop(node.done(plain(vec![set("r", &value)]))));
    node.appended
}

/// A relay of three with a log of region 2 whose batches fill more than two windows.
fn relay(batches: &[Batch]) -> Node {
    let mut node = connected();
    for batch in batches {
        node.remote(2, 2, batch);
        node.durable(position(2, 20, batch.header().seq.0));
    }
    node
}

fn loaded(node: &mut Node, batches: &[Batch]) -> String {
    let batches = batches.to_vec();
    node.handle(Input::Loaded { peer: region(3), link: Link(3), log: log(2, 20), batches })
}

fn seqs(batches: &[Batch]) -> Vec<u64> {
    batches.iter().map(|batch| batch.header().seq.0).collect()
}

#[test]
fn what_a_peer_got_elsewhere_while_files_were_read_for_it_is_not_sent_and_fills_no_window() {
    let batches = written_large(2, 20, 36);
    let mut node = relay(&batches);
    assert_snapshot!(node.subscribe(3, 3, position(2, 20, 3)), @"load for r3: r2e20 from #3");
    // Its earlier source still delivered these; there will be no other ack of them.
    assert_snapshot!(node.acked(3, 3, position(2, 20, 20)), @"");
    assert_snapshot!(loaded(&mut node, &batches[2..8]), @"load for r3: r2e20 from #21");
    loaded(&mut node, &batches[20..26]);
    loaded(&mut node, &batches[26..32]);
    assert_eq!(seqs(&node.shipped), (21..=32).collect::<Vec<_>>());
    assert_snapshot!(node.acked(3, 3, position(2, 20, 32)), @"load for r3: r2e20 from #33");
}

#[test]
fn what_a_peer_acked_before_its_question_came_is_not_sent() {
    let batches = written_large(2, 20, 24);
    let mut node = relay(&batches);
    node.acked(3, 3, position(2, 20, 20));
    assert_snapshot!(node.subscribe(3, 3, position(2, 20, 3)), @"load for r3: r2e20 from #21");
}

#[test]
fn a_log_whose_start_is_pruned_while_it_is_read_is_served_from_where_the_peer_is() {
    let batches = written_large(2, 20, 6);
    let mut node = relay(&batches);
    assert_snapshot!(node.subscribe(3, 3, position(2, 20, 1)), @"load for r3: r2e20 from #1");
    node.acked(3, 3, position(2, 20, 5));
    assert_snapshot!(loaded(&mut node, &[]), @"load for r3: r2e20 from #6");
    assert_snapshot!(loaded(&mut node, &batches[5..]), @"ship to r3: r2e20#6 of 1 ops");
    assert_snapshot!(node.acked(3, 3, position(2, 20, 9)), @"");
}

#[test]
fn a_log_that_is_not_applied_gathers_two_windows_however_often_it_is_asked_for() {
    let mut node = connected();
    let batches = written_large(2, 20, 60);
    node.handle(Input::PauseApply { peer: region(2), is_paused: true });
    // Each subscription starts with an empty window: its source sends ten and a bit.
    let mut taken = 0;
    for link in 10..15 {
        node.peer_up(2, 20, link);
        let asked = node.peer_answer(2, link, &[], &[]);
        assert_eq!(asked, format!("ask r2: r2e20 from #{}\n", taken + 1));
        for batch in &batches[taken..taken + 11] {
            taken += usize::from(node.remote(2, link, batch).starts_with("append"));
        }
    }
    assert!((20..=22).contains(&taken), "{taken} batches of 100 KiB");
    // What was taken in before the pause ended is applied in parts: the rest is asked for when a window fits.
    node.handle(Input::PauseApply { peer: region(2), is_paused: false });
    let apply = |node: &mut Node, seq: usize| node.durable(position(2, 20, seq as u64));
    let asks = |text: &str| text.lines().filter(|line| line.starts_with("ask")).count();
    assert_eq!(asks(&apply(&mut node, 5)), 0, "half a window is free");
    // There is room for the next one, and what lies further on comes again: neither is asked for now.
    assert_eq!(node.remote(2, 14, &batches[taken + 1]), "");
    assert_eq!(node.remote(2, 14, &batches[taken]), format!("append r2e20#{} of 1 ops\n", taken + 1));
    let all = apply(&mut node, taken + 1);
    assert!(all.ends_with(&format!("ask r2: r2e20 from #{}\n", taken + 2)), "{all}");
    assert_eq!(asks(&all), 1);
    for batch in &batches[taken + 1..] {
        assert!(node.remote(2, 14, batch).starts_with("append"));
        let seq = usize::try_from(batch.header().seq.0).unwrap();
        assert_eq!(asks(&apply(&mut node, seq)), 0);
    }
    assert_eq!(node.replica.report(node.now()).vector.get(region(2), log(2, 20).epoch), Seq(60));
}

#[test]
fn what_was_dropped_while_its_source_went_away_is_asked_of_the_next_one() {
    let mut node = connected();
    let batches = written_large(2, 20, 30);
    batches.iter().for_each(|batch| drop(node.remote(2, 2, batch)));
    let taken = node.appended.len() as u64;
    assert!(taken < 25);
    node.peer_down(2, 2);
    let all = node.durable(position(2, 20, taken));
    assert!(!all.contains("ask"), "{all}");
    let asked = node.acked(3, 3, position(2, 20, 30));
    assert_eq!(asked, format!("ask r3: r2e20 from #{}\n", taken + 1));
    assert!(node.remote(3, 3, &batches[taken as usize]).starts_with("append"));
}

#[test]
fn two_batches_under_one_name_halt_the_log() {
    let mut node = connected();
    let mut other = Node::started(2, 20, &[1, 2, 3]);
    other.done(plain(vec![add("k", 99)]));
    let batches = written(2, 20, 2);
    node.remote(2, 2, &batches[0]);
    assert_snapshot!(node.remote(3, 3, &other.appended[0]), @r"
    notice fork
    tell r2 what is held: paused - halted r2e20 received -
    tell r3 what is held: paused - halted r2e20 received -
    ");
    assert_snapshot!(node.remote(2, 2, &batches[1]), @"");
    assert_eq!(node.replica.report(node.now()).halted.len(), 1);
}

#[test]
fn batches_of_another_shard_of_a_stranger_or_of_this_very_log_are_refused() {
    let mut node = connected();
    node.done(plain(vec![add("k", 1)]));
    let own = node.appended[0].clone();
    assert_snapshot!(node.remote(2, 2, &own), @"notice misplaced");
    assert_snapshot!(node.remote(2, 2, &written(9, 90, 1)[0]), @"notice foreign_log");
    let header = own.header().clone();
    let mut elsewhere = log(2, 20);
    elsewhere.shard = ShardId(5);
    let place = Place {
        cluster: header.cluster,
        log: elsewhere,
        seq: Seq(1),
        ops_before: 0,
        clock: header.clock,
        durable_through: Seq(0),
        previous: header.previous,
    };
    let misplaced = Batch::close(place, &tombolo_codec::RecordsBuilder::new());
    assert_snapshot!(node.remote(2, 2, &misplaced), @"notice misplaced");
    // An old connection of a peer is not heard.
    assert_snapshot!(node.remote(2, 77, &written(2, 20, 1)[0]), @"");
}
