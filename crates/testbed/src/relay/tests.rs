//! The relay between real sockets on loopback.

use std::net::UdpSocket;
use std::time::Duration;

use super::*;

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// A relay between `a` and `b`, with the sockets behind those names.
fn pair(conditions: LinkConditions) -> (Relay, UdpSocket, UdpSocket) {
    let (a, b) = (socket(), socket());
    let peer = |name: &str, socket: &UdpSocket| RelayPeer {
        name: name.to_owned(),
        address: socket.local_addr().unwrap(),
    };
    let relay = Relay::start(vec![peer("a", &a), peer("b", &b)], conditions).unwrap();
    (relay, a, b)
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 1 << 16];
    let (count, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..count].to_vec(), from)
}

fn receives_nothing(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    let nothing = socket.recv_from(&mut [0; 64]).is_err();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    nothing
}

#[test]
fn a_question_and_its_answer_each_take_the_delay() {
    let delay = Duration::from_millis(50);
    let (relay, a, b) = pair(LinkConditions::delayed(delay));
    let start = Instant::now();
    a.send_to(b"question", relay.address("a", "b").unwrap()).unwrap();
    let (question, from) = receive(&b);
    assert_eq!(question, b"question");
    assert!(start.elapsed() >= delay);
    b.send_to(b"answer", from).unwrap();
    let (answer, from) = receive(&a);
    assert_eq!(answer, b"answer");
    assert_eq!(from, relay.address("a", "b").unwrap());
    assert!(start.elapsed() >= 2 * delay);
    assert!(start.elapsed() < 2 * delay + Duration::from_secs(2));
    assert_eq!(relay.link_stats("a", "b").unwrap().bytes, 8);
    assert_eq!(relay.link_stats("b", "a").unwrap().bytes, 6);
    assert_eq!(relay.bytes_total(), 14);
}

#[test]
fn callers_get_their_own_answers() {
    let (relay, first, b) = pair(LinkConditions::default());
    let second = socket();
    let door = relay.address("a", "b").unwrap();
    first.send_to(b"1", door).unwrap();
    let (_, first_seen) = receive(&b);
    second.send_to(b"2", door).unwrap();
    let (_, second_seen) = receive(&b);
    assert_ne!(first_seen, second_seen);
    b.send_to(b"to 2", second_seen).unwrap();
    b.send_to(b"to 1", first_seen).unwrap();
    assert_eq!(receive(&first).0, b"to 1");
    assert_eq!(receive(&second).0, b"to 2");
}

#[test]
fn a_cut_drops_both_ways_and_a_heal_resumes_the_same_flow() {
    let (relay, a, b) = pair(LinkConditions::default());
    let door = relay.address("a", "b").unwrap();
    a.send_to(b"before", door).unwrap();
    let (_, seen) = receive(&b);
    relay.cut("a", "b").unwrap();
    a.send_to(b"lost", door).unwrap();
    b.send_to(b"lost", seen).unwrap();
    assert!(receives_nothing(&b) && receives_nothing(&a));
    relay.heal("a", "b").unwrap();
    a.send_to(b"after", door).unwrap();
    assert_eq!(receive(&b), (b"after".to_vec(), seen));
    b.send_to(b"back", seen).unwrap();
    assert_eq!(receive(&a).0, b"back");
    assert_eq!(relay.link_stats("a", "b").unwrap().dropped_cut, 1);
    assert_eq!(relay.link_stats("b", "a").unwrap().dropped_cut, 1);
}

#[test]
fn a_one_way_cut_leaves_the_other_way_open() {
    let (relay, a, b) = pair(LinkConditions::default());
    let door = relay.address("a", "b").unwrap();
    a.send_to(b"before", door).unwrap();
    let (_, seen) = receive(&b);
    relay.cut_one_way("b", "a").unwrap();
    assert!(relay.is_cut("b", "a").unwrap() && !relay.is_cut("a", "b").unwrap());
    a.send_to(b"passes", door).unwrap();
    assert_eq!(receive(&b).0, b"passes");
    b.send_to(b"lost", seen).unwrap();
    assert!(receives_nothing(&a));
    relay.heal_all();
    b.send_to(b"found", seen).unwrap();
    assert_eq!(receive(&a).0, b"found");
}

#[test]
fn an_isolated_region_is_cut_from_all_and_the_others_are_not() {
    let sockets = [socket(), socket(), socket()];
    let peers = ["a", "b", "c"].iter().zip(&sockets);
    let peers = peers.map(|(name, s)| RelayPeer { name: (*name).into(), address: s.local_addr().unwrap() });
    let relay = Relay::start(peers.collect(), LinkConditions::default()).unwrap();
    relay.isolate("b").unwrap();
    let cut: Vec<_> = ["ab", "ba", "bc", "cb", "ac", "ca"]
        .into_iter()
        .filter(|pair| relay.is_cut(&pair[..1], &pair[1..]).unwrap())
        .collect();
    assert_eq!(cut, ["ab", "ba", "bc", "cb"]);
    assert_eq!(relay.stats().len(), 6);
}

#[test]
fn the_largest_datagram_keeps_its_boundary() {
    let (relay, a, b) = pair(LinkConditions::delayed(Duration::from_millis(1)));
    let door = relay.address("a", "b").unwrap();
    let large = vec![9; 65_507];
    a.send_to(&large, door).unwrap();
    a.send_to(b"", door).unwrap();
    a.send_to(b"small", door).unwrap();
    assert_eq!(receive(&b).0, large);
    assert_eq!(receive(&b).0, b"");
    assert_eq!(receive(&b).0, b"small");
}

#[test]
fn datagrams_of_all_sizes_come_out_as_they_went_in() {
    for conditions in [LinkConditions::default(), LinkConditions::delayed(Duration::from_millis(2))] {
        let (relay, a, b) = pair(conditions);
        let door = relay.address("a", "b").unwrap();
        // Runs of equal sizes, shorter ones at their ends, longer ones after shorter ones, empty ones between.
        let sizes = [1200, 1200, 1200, 700, 700, 1200, 0, 0, 5, 5, 4, 9_000, 9_000, 9_001, 1, 40_000, 40_000];
        let sizes: Vec<usize> = sizes.iter().copied().cycle().take(170).collect();
        for (number, size) in sizes.iter().enumerate() {
            a.send_to(&vec![number as u8; *size], door).unwrap();
            if number % 17 == 16 {
                // Lets the receiver's buffer drain; what came in between is read in batches.
                for (number, size) in sizes.iter().enumerate().take(number + 1).skip(number - 16) {
                    assert_eq!(receive(&b).0, vec![number as u8; *size]);
                }
            }
        }
    }
}

#[test]
fn names_that_mean_no_link_are_refused() {
    let (relay, ..) = pair(LinkConditions::default());
    assert!(matches!(relay.cut("a", "x"), Err(RelayError::UnknownPeer(name)) if name == "x"));
    assert!(matches!(relay.address("a", "a"), Err(RelayError::SamePeer(name)) if name == "a"));
    let peer = RelayPeer { name: "a".into(), address: "127.0.0.1:1".parse().unwrap() };
    let repeated = Relay::start(vec![peer.clone(), peer], LinkConditions::default());
    assert!(matches!(repeated, Err(RelayError::RepeatedPeer(_))));
}

#[test]
fn a_stopped_relay_closes_its_doors() {
    let (relay, ..) = pair(LinkConditions::default());
    let door = relay.address("a", "b").unwrap();
    assert!(UdpSocket::bind(door).is_err());
    relay.stop();
    UdpSocket::bind(door).unwrap();
}
