//! What a datagram costs the relay of tests: as much of the machine is not the regions'. Expected: below 3 µs in bursts of
//! ten, as QUIC sends them, and 10 µs alone, which is a read and a send of its own.

#![allow(clippy::print_stdout, reason = "its rows are its report")]

use std::net::UdpSocket;
use std::time::Duration;

use tombolo_testbed::relay::{LinkConditions, Relay, RelayPeer};

const DATAGRAM_BYTES: usize = 1_200;
const DATAGRAMS_COUNT: usize = 40_000;
/// So many are sent between two rests, fewer than a socket's buffer holds.
const DATAGRAMS_PER_REST: usize = 400;
const REST: Duration = Duration::from_millis(2);

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout above zero");
    socket
}

/// Microseconds of the relay's threads for each datagram.
fn datagram_us(conditions: LinkConditions, per_burst: usize) -> f64 {
    let (a, b) = (socket(), socket());
    let peer = |name: &str, socket: &UdpSocket| RelayPeer {
        name: name.to_owned(),
        address: socket.local_addr().expect("it is bound"),
    };
    let relay = Relay::start(vec![peer("a", &a), peer("b", &b)], conditions).expect("two names");
    let door = relay.address("a", "b").expect("both are known");
    let state = quinn_udp::UdpSocketState::new((&a).into()).expect("a socket of this machine");
    let contents = vec![1; DATAGRAM_BYTES * per_burst];
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while b.recv(&mut buffer).is_ok() {}
    });
    for sent in (0..DATAGRAMS_COUNT).step_by(per_burst) {
        let segment_size = Some(DATAGRAM_BYTES);
        let (ecn, src_ip) = (None, None);
        let burst = quinn_udp::Transmit { destination: door, ecn, contents: &contents, segment_size, src_ip };
        state.send((&a).into(), &burst).expect("loopback takes it");
        if sent % DATAGRAMS_PER_REST < per_burst {
            std::thread::sleep(REST);
        }
    }
    reader.join().expect("it only reads");
    let passed = relay.link_stats("a", "b").expect("both are known").datagrams;
    relay.cpu_seconds().expect("Linux counts it") * 1e6 / passed as f64
}

fn main() {
    // `cargo test --benches` runs this too: it measures only when asked to.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let delayed = LinkConditions::delayed(Duration::from_millis(20));
    let lossy = LinkConditions { loss: 0.01, ..delayed.clone() };
    println!("{:12}{:>16}{:>16}", "link", "bursts of 10", "alone");
    for (name, conditions) in
        [("plain", LinkConditions::default()), ("20 ms", delayed), ("20 ms, 1 %", lossy)]
    {
        let (bursts, alone) = (datagram_us(conditions.clone(), 10), datagram_us(conditions, 1));
        println!("{name:12}{bursts:>13.2} µs{alone:>13.2} µs");
    }
}
