//! What is not kept as batches any more comes as the difference of two states, joined in one step.

use insta::assert_snapshot;
use tombolo_causality::{Seq, TenantId};
use tombolo_codec::limits::ENTRIES_CELLS_MAX;
use tombolo_codec::{Kind, LeafAsk, PeerMessage, Section};
use tombolo_replica::{Input, Link, joined};

use crate::kit::{Node, add, delete, log, numbered, options, plain, position, region, second, session, set};

/// Region 1, which has written and pruned what region 2 lacks.
fn writer() -> Node {
    let mut node = Node::started(1, 1, &[1, 2]);
    node.peer_up(2, 2, 1);
    node.peer_answer(2, 1, &[], &[]);
    for at in 0..20 {
        node.done(plain(vec![add(&format!("views:{at}"), at), set(&format!("name:{at}"), "x")]));
    }
    node.done(numbered(session(1, 1), 1, 1, vec![add("views:1", 100)]));
    node
}

/// Region 2, connected to region 1, which says that it holds its log through `end`.
fn reader(mut node: Node, end: u64) -> Node {
    node.start();
    node.peer_up(1, 1, 1);
    let ends = [position(1, 1, end)];
    node.peer_answer(1, 1, &ends, &ends);
    node
}

/// Both, of which region 2 lacks the last three batches.
fn nearly_level() -> (Node, Node) {
    let one = writer();
    let mut two = reader(Node::open(options(2, 2, &[1, 2]), None, &[]), 21);
    for batch in &one.appended[..18] {
        two.remote(1, 1, batch);
    }
    two.durable(position(1, 1, 18));
    (one, two)
}

pub(crate) fn tell(node: &mut Node, from: u16, message: PeerMessage) -> String {
    let (_, input) = Input::said(region(from), Link(1), message).expect("it is for a shard");
    node.handle(input)
}

/// Carries what is said of cuts to and fro until nobody says more of it; gives what each did.
pub(crate) fn talk(one: &mut Node, two: &mut Node) -> String {
    let mut out = String::new();
    let is_of_cuts = |message: &PeerMessage| {
        matches!(Input::said(region(1), Link(1), message.clone()), Some((_, Input::Cut { .. })))
    };
    loop {
        let from_one: Vec<_> = one.said.drain(..).filter(is_of_cuts).collect();
        let from_two: Vec<_> = two.said.drain(..).filter(is_of_cuts).collect();
        if from_one.is_empty() && from_two.is_empty() {
            return out;
        }
        from_two.into_iter().for_each(|message| out += &tell(one, 2, message));
        from_one.into_iter().for_each(|message| out += &tell(two, 1, message));
    }
}

fn is_gone(node: &mut Node) -> String {
    tell(node, 1, PeerMessage::NotRetained { log: log(1, 1), from: Seq(1) })
}

fn install(node: &mut Node) -> String {
    let difference = node.installs.pop().expect("something is to be installed");
    let (checkpoint, _) = joined(node.replica.checkpoint(), &difference).expect("the states join");
    let out = node.handle(Input::Installed { difference: Box::new(difference) });
    assert_eq!(node.replica.checkpoint().logs, checkpoint.logs);
    out
}

#[test]
fn a_region_that_lacks_what_nobody_keeps_takes_the_difference_and_goes_on_behind_it() {
    let (mut one, mut two) = (writer(), Node::open(options(2, 2, &[1, 2]), None, &[]));
    two = reader(two, 21);
    one.said.clear();
    two.said.clear();
    assert_snapshot!(is_gone(&mut two), @"ask r1 for a cut");
    // Writes go on meanwhile, on both sides.
    one.done(plain(vec![add("views:1", 1_000)]));
    two.wall = second(101);
    two.done(plain(vec![add("views:1", 10_000), set("name:1", "newer")]));
    talk(&mut one, &mut two);
    assert_snapshot!(install(&mut two), @r"
    ack r1e1#22
    ask r1: r1e1 from #23
    whole
    ");
    assert_snapshot!(two.read(&["views:1", "views:19", "name:3", "name:1"], vec![]), @r#"answer 2: 11101 19 "x" "newer""#);
    one.done(plain(vec![add("views:1", 100_000)]));
    let batch = one.appended.last().unwrap().clone();
    assert_snapshot!(two.remote(1, 1, &batch), @"append r1e1#23 of 1 ops");
    two.durable(position(1, 1, 23));
    assert_snapshot!(two.read(&["views:1"], vec![]), @"answer 3: 111101");
}

#[test]
fn only_what_differs_is_sent() {
    let (mut one, mut two) = nearly_level();
    one.said.clear();
    two.said.clear();
    tell(&mut two, 1, PeerMessage::NotRetained { log: log(1, 1), from: Seq(19) });
    let sent = talk(&mut one, &mut two);
    let sent: Vec<&str> = sent.lines().filter(|line| line.starts_with("send")).collect();
    assert_snapshot!(sent.join("\n"), @r"
    send r2 3 entries, 1 unknown, 0 left
    send r2 2 entries, 0 unknown, 0 left
    send r2 1 entries, 0 unknown, 0 left
    ");
    install(&mut two);
    assert_eq!(two.replica.report(two.now()).digest, one.replica.report(one.now()).digest);
}

#[test]
fn nothing_of_a_difference_is_visible_before_it_is_durable_and_a_lost_connection_leaves_nothing() {
    let (mut one, mut two) = (writer(), Node::open(options(2, 2, &[1, 2]), None, &[]));
    two = reader(two, 21);
    one.said.clear();
    two.said.clear();
    is_gone(&mut two);
    let ask = two.said.pop().unwrap();
    tell(&mut one, 2, ask);
    let cut = one.said.pop().unwrap();
    tell(&mut two, 1, cut);
    two.peer_down(1, 1);
    two.said.clear();
    assert!(two.replica.fetching().is_none());
    two.peer_up(1, 1, 2);
    let ends = [position(1, 1, 21)];
    two.peer_answer(1, 2, &ends, &ends);
    two = {
        let mut two = reader(Node::open(options(2, 2, &[1, 2]), None, &[]), 21);
        two.said.clear();
        is_gone(&mut two);
        talk(&mut one, &mut two);
        two
    };
    assert!(two.replica.fetching().is_some_and(|fetch| fetch.is_installing));
    assert_snapshot!(two.read(&["views:1"], vec![]), @"answer 1: -");
    let late = one.appended[0].clone();
    assert_snapshot!(two.remote(1, 1, &late), @"");
    let failed = two.handle(Input::InstallFailed { text: "no room".to_owned() });
    assert_snapshot!(failed, @"notice difference_failed");
    assert!(two.replica.fetching().is_none());
}

#[test]
fn a_register_that_was_let_go_there_goes_here_and_one_written_here_since_stays() {
    let (mut one, mut two) = (writer(), Node::open(options(2, 2, &[1, 2]), None, &[]));
    let all = one.appended.clone();
    two = reader(two, 21);
    for batch in &all {
        two.remote(1, 1, batch);
    }
    two.durable(position(1, 1, 21));
    two.wall = second(200);
    two.done(plain(vec![set("name:5", "mine")]));
    one.done(plain(vec![delete("name:4", Some(Kind::Register)), delete("name:5", Some(Kind::Register))]));
    one.said.clear();
    two.said.clear();
    tell(&mut two, 1, PeerMessage::NotRetained { log: log(1, 1), from: Seq(22) });
    // The peer has let the tombstones go by then.
    let ask = two.said.pop().unwrap();
    tell(&mut one, 2, ask);
    talk(&mut one, &mut two);
    install(&mut two);
    assert_snapshot!(two.read(&["name:4", "name:5"], vec![]), @r#"answer 2: - "mine""#);
}

#[test]
fn whoever_takes_a_log_from_here_that_a_difference_ended_learns_that_it_is_not_kept() {
    let before = writer();
    let checkpoint = before.replica.checkpoint();
    // Region 1 has restarted, and sealed the log of its earlier epoch.
    let mut one = Node::open(options(1, 2, &[1, 2]), Some(&checkpoint), &[]);
    one.start();
    one.peer_up(2, 2, 1);
    one.peer_answer(2, 1, &[], &[]);
    one.settle();
    let mut two = Node::open(options(2, 2, &[1, 2, 3]), None, &[]);
    two = reader(two, 21);
    two.peer_up(3, 3, 1);
    let first = before.appended[0].clone();
    two.remote(1, 1, &first);
    two.durable(position(1, 1, 1));
    assert_snapshot!(two.subscribe(3, 1, position(1, 1, 2)), @"");
    one.said.clear();
    two.said.clear();
    tell(&mut two, 1, PeerMessage::NotRetained { log: log(1, 1), from: Seq(2) });
    talk(&mut one, &mut two);
    // Its files hold nothing of that, and region 3 is told so.
    assert_snapshot!(install(&mut two), @r"
    ack r1e2#1
    load for r3: r1e1 from #2
    ");
}

/// What region 2 asks for, in order, until a difference of `cells` cells has come, by digests of so many bytes.
fn asked_by(digest_bytes: u8, cells: u32) -> Vec<u8> {
    let mut narrow = options(2, 2, &[1, 2]);
    narrow.peer_limits.digest_bytes = digest_bytes;
    let (mut one, mut two) = (writer(), Node::open(narrow, None, &[]));
    for at in 0..cells {
        one.done(plain(vec![set(&format!("many:{at}"), "old")]));
    }
    let all = one.appended.clone();
    two = reader(two, all.len() as u64 + u64::from(cells));
    for batch in &all {
        two.remote(1, 1, batch);
    }
    two.durable(position(1, 1, all.len() as u64));
    for at in 0..cells {
        one.wall = second(300);
        one.done(plain(vec![set(&format!("many:{at}"), "new")]));
    }
    one.said.clear();
    two.said.clear();
    let from = Seq(all.len() as u64 + 1);
    tell(&mut two, 1, PeerMessage::NotRetained { log: log(1, 1), from });
    let mut asked_by = Vec::new();
    while two.installs.is_empty() {
        let asked = |message: &PeerMessage| match message {
            PeerMessage::CutAsk { digest_bytes, .. } => Some(*digest_bytes),
            _ => None,
        };
        asked_by.extend(two.said.iter().filter_map(asked));
        for message in std::mem::take(&mut two.said) {
            tell(&mut one, 2, message);
        }
        for message in std::mem::take(&mut one.said) {
            if matches!(message, PeerMessage::Cut { .. } | PeerMessage::Entries { .. }) {
                tell(&mut two, 1, message);
            }
        }
    }
    install(&mut two);
    assert_eq!(two.replica.report(two.now()).digest, one.replica.report(one.now()).digest);
    asked_by
}

#[test]
fn what_few_bytes_of_digests_take_for_the_same_is_noticed_and_looked_for_with_all_of_them() {
    assert_eq!(asked_by(3, 1_000), [3]);
    // Of 1,000 leaves that differ some differ by a multiple of 256.
    assert_eq!(asked_by(1, 1_000), [1, 8]);
    assert_eq!(asked_by(8, 1_000), [8]);
}

#[test]
fn a_digest_that_contradicts_its_entries_is_told_and_the_rest_is_installed() {
    let (mut one, mut two) = nearly_level();
    // It changes behind the digest that is kept, in a leaf that is compared.
    assert!(two.replica.damage_counter(TenantId::DEFAULT, b"views:1", 5));
    one.said.clear();
    two.said.clear();
    tell(&mut two, 1, PeerMessage::NotRetained { log: log(1, 1), from: Seq(19) });
    let said = talk(&mut one, &mut two);
    let said: Vec<&str> =
        said.lines().filter(|line| line.starts_with("ask r1 for a cut") || line.contains("notice")).collect();
    // Parts of digests leave it open, so all of them are asked for.
    assert_snapshot!(said.join("\n"), @r"
    ask r1 for a cut
    notice difference_unexplained
    ");
    install(&mut two);
    assert_snapshot!(two.read(&["views:18", "name:19"], vec![]), @r#"answer 1: 18 "x""#);
}

#[test]
fn what_is_being_installed_counts_as_received_so_that_no_heir_ends_its_log_before_it() {
    let (mut one, mut two) = (writer(), Node::open(options(2, 2, &[1, 2, 3]), None, &[]));
    two = reader(two, 21);
    one.said.clear();
    two.said.clear();
    is_gone(&mut two);
    talk(&mut one, &mut two);
    assert!(two.replica.fetching().is_some_and(|fetch| fetch.is_installing));
    assert_snapshot!(two.peer_up(3, 3, 1), @"describe to r3: received [r1e1#21] applied []");
    two.handle(Input::InstallFailed { text: "no room".to_owned() });
    assert_snapshot!(two.peer_up(3, 4, 2), @"describe to r3: received [] applied []");
}

#[test]
fn one_answer_holds_no_more_cells_than_the_asker_reads() {
    let mut wide = options(1, 1, &[1, 2]);
    wide.peer_limits.entries_bytes = 64 * 1_024 * 1_024;
    let mut one = Node::open(wide, None, &[]);
    one.start();
    one.peer_up(2, 2, 1);
    one.peer_answer(2, 1, &[], &[]);
    for batch in 0..25 {
        let ops = (0..4_000).map(|at| add(&format!("views:{batch}:{at}"), 1));
        one.done(plain(ops.collect()));
    }
    one.said.clear();
    let shard = log(1, 1).shard;
    tell(&mut one, 2, PeerMessage::CutAsk { shard, sealed: Vec::new(), digest_bytes: 8 });
    let Some(PeerMessage::Cut { cut, .. }) = one.said.pop() else { panic!("a cut") };
    // These hold about 6,000 of 100,000 cells.
    let mut leaves: Vec<u16> = (0..256).collect();
    let (mut cells_count, mut known) = (0, Vec::new());
    while !leaves.is_empty() {
        let ask = |(at, &leaf): (usize, &u16)| LeafAsk {
            leaf,
            known: if at == 0 { known.clone() } else { Vec::new() },
        };
        let leaves_asked = leaves.iter().enumerate().map(ask).collect();
        let section = Section::Counters;
        tell(&mut one, 2, PeerMessage::EntriesAsk { shard, cut, section, leaves: leaves_asked });
        let Some(PeerMessage::Entries { entries, rest, sent, .. }) = one.said.pop() else {
            panic!("entries")
        };
        assert!(entries.cells.len() <= ENTRIES_CELLS_MAX, "{}", entries.cells.len());
        assert!(rest.is_empty() || entries.cells.len() == ENTRIES_CELLS_MAX);
        cells_count += entries.cells.len();
        (leaves, known) = (rest, sent);
    }
    let checkpoint = one.replica.checkpoint();
    assert!(cells_count > ENTRIES_CELLS_MAX && cells_count < checkpoint.cells.len() / 10, "{cells_count}");
}
