//! What a long path gives under several settings of QUIC: goodput of 16 busy lanes, how long control frames take beside
//! them, and how long small frames take on an idle path.
//!
//! Two transports on loopback with the relay between them: a bottleneck of 25 MB/s with a queue of one round trip, and
//! loss both ways. `cargo bench --bench wan` takes about ten minutes; `-- 80 1` measures one round trip (ms) and one loss
//! (percent) only. It prints the rows of the table in `README.md`.

#![allow(clippy::print_stdout, reason = "its rows are its report")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tombolo_benches::{CLUSTER, region};
use tombolo_testbed::percentiles::Latencies;
use tombolo_testbed::relay::{LinkConditions, Relay, RelayPeer};
use tombolo_transport::{
    Channel, Congestion, Frame, Identity, LANES_MAX, Link, Members, QuicLink, QuicSettings, QuicTransport,
    Transport, Tuning, create_authority,
};

const BYTES_PER_SECOND: u64 = 25_000_000;
const WARM_UP: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_secs(6);
const TRICKLE: Duration = Duration::from_secs(4);
const BULK_FRAME_BYTES: usize = 64 * 1_024;
const CONTROL_EVERY: Duration = Duration::from_millis(20);
const TRICKLE_EVERY: Duration = Duration::from_millis(1);
const TRICKLE_FRAME_BYTES: usize = 200;

fn settings() -> Vec<(&'static str, Tuning)> {
    let base = Tuning::default();
    vec![
        ("as shipped: capped BBR, 2.4 MB a lane, 12 MB in all", base),
        ("BBR as it is", Tuning { congestion: Congestion::Bbr, ..base }),
        ("CUBIC", Tuning { congestion: Congestion::Cubic, ..base }),
        ("4 MB in all", Tuning { in_flight_bytes_max: 4_000_000, ..base }),
        ("MTU up to 1,452", Tuning { mtu_bytes_max: 1_452, ..base }),
        ("fewer acknowledgements", Tuning { has_rare_acks: true, ..base }),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Path {
    rtt_ms: u64,
    loss_percent: f64,
}

/// What a run gave.
struct Outcome {
    megabytes_per_second: f64,
    control: Latencies,
    trickle: Latencies,
}

async fn join(tuning: Tuning, path: Path) -> (Relay, [QuicTransport; 2], [QuicLink; 2]) {
    let authority = create_authority(CLUSTER).expect("an authority is made from nothing");
    let names = ["a", "b"];
    let bind = |name: &str| {
        let issued = authority.issue_region(CLUSTER, name).expect("a region is issued");
        let identity = Identity::from_pem(&authority.cert_pem, &issued.cert_pem, &issued.key_pem)
            .expect("what was issued reads");
        let members = (1..).map(region).zip(names.iter().map(ToString::to_string));
        let settings = QuicSettings { tuning, ..QuicSettings::default() };
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        QuicTransport::bind(anywhere, identity, Members::new(CLUSTER, members), settings)
            .expect("a port is free")
    };
    let (a, b) = (bind("a"), bind("b"));
    let conditions = LinkConditions {
        delay: Duration::from_millis(path.rtt_ms / 2),
        loss: path.loss_percent / 100.0,
        bytes_per_second: Some(BYTES_PER_SECOND),
        queue_bytes_max: (BYTES_PER_SECOND * path.rtt_ms / 1_000) as usize,
        ..LinkConditions::default()
    };
    let peer = |name: &str, address| RelayPeer { name: name.to_owned(), address };
    let peers = vec![peer("a", a.local_address()), peer("b", b.local_address())];
    let relay = Relay::start(peers, conditions).expect("the relay starts");
    let address = relay.address("a", "b").expect("both are there");
    for _ in 0..20 {
        let (near, far) = tokio::join!(a.connect(region(2), address), async {
            tokio::time::timeout(Duration::from_secs(4), b.accept()).await
        });
        if let (Ok(near), Ok(Ok(far))) = (near, far) {
            return (relay, [a, b], [near, far]);
        }
    }
    panic!("no connection in twenty attempts at {path:?}");
}

/// A frame that says when it was made.
fn stamped(start: Instant, bytes: usize) -> Frame {
    let mut body = vec![0; bytes.max(8)];
    body[..8].copy_from_slice(&(start.elapsed().as_micros() as u64).to_le_bytes());
    Frame::new(9, Bytes::from(body))
}

fn age(start: Instant, frame: &Frame) -> Duration {
    let made = Duration::from_micros(frame.body.clone().get_u64_le());
    start.elapsed().saturating_sub(made)
}

async fn send_every(link: QuicLink, start: Instant, every: Duration, bytes: usize, until: Instant) {
    let mut ticks = tokio::time::interval(every);
    let mut lane = 0;
    while Instant::now() < until {
        ticks.tick().await;
        let channel = if bytes > 8 { Channel::Lane(lane) } else { Channel::Control };
        lane = (lane + 1) % LANES_MAX;
        if link.send(channel, vec![stamped(start, bytes)]).await.is_err() {
            return;
        }
    }
}

async fn receive(
    link: QuicLink,
    channel: Channel,
    start: Instant,
    from: Instant,
    until: Instant,
) -> (u64, Latencies) {
    let (mut bytes, mut ages) = (0, Latencies::new());
    let deadline = tokio::time::Instant::from_std(until);
    while let Ok(Ok(frame)) = tokio::time::timeout_at(deadline, link.recv(channel)).await {
        if Instant::now() >= from {
            bytes += frame.body.len() as u64;
            ages.record(age(start, &frame));
        }
    }
    (bytes, ages)
}

async fn measure(tuning: Tuning, path: Path) -> Outcome {
    // An idle path first: nothing of a queue is left over.
    let (relay, transports, [near, far]) = join(tuning, path).await;
    let start = Instant::now();
    let (from, until) = (start + Duration::from_secs(1), start + Duration::from_secs(1) + TRICKLE);
    let sender = tokio::spawn(send_every(near.clone(), start, TRICKLE_EVERY, TRICKLE_FRAME_BYTES, until));
    let late = until + Duration::from_secs(2);
    let lanes =
        (0..LANES_MAX).map(|lane| tokio::spawn(receive(far.clone(), Channel::Lane(lane), start, from, late)));
    let lanes: Vec<_> = lanes.collect();
    let mut trickle = Latencies::new();
    for lane in lanes {
        trickle.merge(&lane.await.expect("a receiver ends").1);
    }
    sender.await.expect("a sender ends");
    let begun = Instant::now();
    let (from, until) = (begun + WARM_UP, begun + WARM_UP + WINDOW);
    let bulk = |lane| {
        let link = near.clone();
        tokio::spawn(async move {
            while Instant::now() < until {
                if link.send(Channel::Lane(lane), vec![stamped(start, BULK_FRAME_BYTES)]).await.is_err() {
                    return;
                }
            }
        })
    };
    let senders: Vec<_> = (0..LANES_MAX).map(bulk).collect();
    let control = tokio::spawn(send_every(near.clone(), start, CONTROL_EVERY, 8, until));
    let lanes = (0..LANES_MAX)
        .map(|lane| tokio::spawn(receive(far.clone(), Channel::Lane(lane), start, from, until)));
    let lanes: Vec<_> = lanes.collect();
    let (_, control_ages) = receive(far.clone(), Channel::Control, start, from, until).await;
    let mut bytes = 0;
    for lane in lanes {
        bytes += lane.await.expect("a receiver ends").0;
    }
    senders.iter().for_each(tokio::task::JoinHandle::abort);
    control.abort();
    near.close("measured");
    drop((transports, far));
    relay.stop();
    Outcome {
        megabytes_per_second: bytes as f64 / 1e6 / WINDOW.as_secs_f64(),
        control: control_ages,
        trickle,
    }
}

fn main() {
    let numbers: Vec<f64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    println!("| round trip | loss | settings | MB/s of 25 | control p50 / p99 ms | idle p50 / p99 ms |");
    println!("|---|---|---|---|---|---|");
    for rtt_ms in [80, 200] {
        for loss_percent in [0.0, 0.1, 1.0, 10.0] {
            let is_wanted = numbers.first().is_none_or(|rtt| *rtt == rtt_ms as f64)
                && numbers.get(1).is_none_or(|loss| *loss == loss_percent);
            if !is_wanted {
                continue;
            }
            for (name, tuning) in settings() {
                let outcome = runtime.block_on(measure(tuning, Path { rtt_ms, loss_percent }));
                let ms = |of: &Latencies, part: f64| of.p(part).as_secs_f64() * 1_000.0;
                println!(
                    "| {rtt_ms} ms | {loss_percent} % | {name} | {:.1} | {:.0} / {:.0} | {:.0} / {:.0} |",
                    outcome.megabytes_per_second,
                    ms(&outcome.control, 50.0),
                    ms(&outcome.control, 99.0),
                    ms(&outcome.trickle, 50.0),
                    ms(&outcome.trickle, 99.0),
                );
            }
        }
    }
}
