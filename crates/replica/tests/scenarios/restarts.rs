//! A region that restarts a thousand times: every life takes the log of the one before over, so that neither vector nor
//! counters keep a trace of the dead ones.

use tombolo_causality::RegionId;
use tombolo_codec::checkpoint::CellContent;
use tombolo_codec::{Batch, Checkpoint, Position};

use crate::kit::*;

const PEER_EPOCH: u128 = 2;

/// The epoch of a life; no other region's.
fn epoch(life: u64) -> u128 {
    1_000 + u128::from(life)
}

/// What the peer says it holds.
fn held(peer: &Node) -> Vec<Position> {
    peer.replica.report(peer.now()).vector.logs(SHARD).map(|(log, seq)| Position { log, seq }).collect()
}

/// What one life leaves on disk.
struct Disk {
    checkpoint: Checkpoint,
    since: Vec<Batch>,
}

/// One life of region 1 from its disk: it becomes whole if `peer` answers, checkpoints, and adds 1.
fn live(life: u64, disk: Option<&Disk>, peer: Option<&mut Node>) -> (Node, Disk) {
    let options = options(1, epoch(life), &[1, 2]);
    let mut node = match disk {
        Some(disk) => Node::open(options, Some(&disk.checkpoint), &disk.since),
        None => Node::open(options, None, &[]),
    };
    node.start();
    if let Some(peer) = &peer {
        node.peer_up(2, PEER_EPOCH, life);
        let held = held(peer);
        node.peer_answer(2, life, &held, &held);
        for batch in peer.appended.iter().filter(|batch| batch.header().log.region == region(2)) {
            node.remote(2, life, batch);
        }
        node.settle();
        assert!(node.replica.is_whole(), "life {life}: {:?}", node.replica.waiting_for());
    }
    let checkpoint = node.replica.checkpoint();
    let checkpointed = node.appended.len();
    node.done(plain(vec![add("k", 1)]));
    if let Some(peer) = peer {
        peer.peer_up(1, epoch(life), life);
        for batch in node.appended.iter().filter(|batch| batch.header().log.region == region(1)) {
            let header = batch.header();
            peer.remote(1, life, batch);
            peer.durable(Position { log: header.log, seq: header.seq });
        }
    }
    let since = node.appended[checkpointed..].to_vec();
    (node, Disk { checkpoint, since })
}

/// Logs of the vector and slots of the counter, of the region that has most.
fn most_per_region(node: &Node) -> (usize, usize) {
    let most = |regions: Vec<RegionId>| {
        let count = |id: &RegionId| regions.iter().filter(|&other| other == id).count();
        regions.iter().map(count).max().unwrap_or_default()
    };
    let checkpoint = node.replica.checkpoint();
    let slots = checkpoint.cells.iter().flat_map(|cell| match &cell.content {
        CellContent::Counter { slots, .. } => slots.iter().map(|slot| slot.region).collect(),
        CellContent::Register { .. } => Vec::new(),
    });
    let logs = checkpoint.logs.iter().map(|end| end.region);
    (most(logs.collect()), most(slots.collect()))
}

#[test]
fn a_thousand_restarts_leave_one_log_and_one_slot_per_region() {
    let mut peer = Node::started(2, PEER_EPOCH, &[1, 2]);
    peer.peer_up(1, epoch(0), 0);
    peer.peer_answer(1, 0, &[], &[]);
    peer.done(plain(vec![add("k", 1_000_000)]));
    let (mut node, mut disk) = live(0, None, Some(&mut peer));
    for life in 1..=1_000 {
        (node, disk) = live(life, Some(&disk), Some(&mut peer));
    }
    for (name, node) in [("region 1", &mut node), ("region 2", &mut peer)] {
        assert_eq!(most_per_region(node), (1, 1), "{name}");
        let answer = node.read(&["k"], vec![]);
        assert!(answer.ends_with(": 1001001\n"), "{name}: {answer}");
    }
    let report = |node: &Node| node.replica.report(node.now());
    let (own, far) = (report(&node), report(&peer));
    assert_eq!(own.vector.iter().count(), 2, "one log per region");
    assert_eq!(own.vector, far.vector);
    assert_eq!(own.digest, far.digest);
}

#[test]
fn restarts_that_never_become_whole_pile_logs_and_slots_up() {
    let (mut node, mut disk) = live(0, None, None);
    for life in 1..=20 {
        (node, disk) = live(life, Some(&disk), None);
    }
    assert_eq!(most_per_region(&node), (21, 21));
    assert!(node.read(&["k"], vec![]).ends_with(": 21\n"), "the value is exact all the same");
}

#[test]
fn a_region_without_data_is_past_its_mark_once_it_holds_what_those_it_met_had_then() {
    let mut writer = Node::started(1, 1, &[1, 2, 3]);
    for at in 0..2 {
        writer.done(plain(vec![add("a", at + 1)]));
    }
    let mut node = Node::open(options(2, 9, &[1, 2, 3]), None, &[]);
    assert_eq!(node.replica.joining(), None, "it is for the shell to say that there was no data");
    node.replica.begin_joining();
    node.start();
    let report = |node: &Node| {
        let it = node.replica.joining().expect("region 3 is away: it does not become whole");
        (it.met_count, it.has_mark, it.is_behind)
    };
    assert_eq!(report(&node), (0, false, false));
    node.peer_up(1, 1, 1);
    let ends = [position(1, 1, 2)];
    node.peer_answer(1, 1, &ends, &ends);
    assert_eq!(report(&node), (1, true, true));
    let batches = writer.appended.clone();
    node.remote(1, 1, &batches[0]);
    node.durable(position(1, 1, 1));
    assert_eq!(report(&node), (1, true, true), "half of it is not enough");
    // Another answer of the same region moves the mark no further.
    node.peer_answer(1, 1, &[position(1, 1, 7)], &[position(1, 1, 7)]);
    node.remote(1, 1, &batches[1]);
    node.durable(position(1, 1, 2));
    assert_eq!(report(&node), (1, true, false));
}
