//! A link over a long path finds its pace again after a cut too short to end it, however little it knew of the path.
//!
//! Two transports with the relay between them, no daemons: what they carry hangs on the congestion control alone, hardly
//! on how busy this machine is. `wan.rs` looks at the same cut from the side of lag.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tombolo_causality::{ClusterId, RegionId};
use tombolo_testbed::relay::{LinkConditions, Relay, RelayPeer};
use tombolo_tests::{tell, within};
use tombolo_transport::{
    Authority, Channel, Frame, Identity, LANES_MAX, Link, Members, QuicLink, QuicSettings, QuicTransport,
    Transport, Tuning, create_authority,
};

const CLUSTER: ClusterId = ClusterId(7);
/// As from Virginia to Mumbai.
const ONE_WAY: Duration = Duration::from_millis(75);
/// Whether a link that knows little of its path mistakes it is chance: so many look at once.
const LINKS_COUNT: usize = 4;
const FRAME_BYTES: usize = 16 * 1_024;
/// Between two frames of a lane while there is little to send: 1.3 MB/s a link.
const PAUSE_CALM: Duration = Duration::from_millis(200);
/// From the cut on: 4.4 MB/s. What a link's first window holds is lost in the cut, the rest waits behind it.
const PAUSE_BUSY: Duration = Duration::from_millis(60);
const CUT: Duration = Duration::from_millis(400);
const BACK_WITHIN: Duration = Duration::from_secs(3);
const WATCHED: Duration = Duration::from_secs(1);
/// The least window of a link gives 1.7 on this path.
const CARRIED_MB_MIN: f64 = 3.5;

fn region(id: u16) -> RegionId {
    RegionId::new(id).unwrap()
}

fn bind(authority: &Authority, name: &str, tuning: Tuning) -> QuicTransport {
    let issued = authority.issue_region(CLUSTER, name).unwrap();
    let identity = Identity::from_pem(&authority.cert_pem, &issued.cert_pem, &issued.key_pem).unwrap();
    let members = [(region(1), "a".to_owned()), (region(2), "b".to_owned())];
    let settings = QuicSettings { tuning, ..QuicSettings::default() };
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    QuicTransport::bind(anywhere, identity, Members::new(CLUSTER, members), settings).unwrap()
}

async fn fill(link: QuicLink, lane: u8, is_busy: watch::Receiver<bool>) {
    // Lanes are not to send in step.
    sleep(PAUSE_CALM * u32::from(lane) / u32::from(LANES_MAX)).await;
    let frame = Frame::new(9, Bytes::from(vec![lane; FRAME_BYTES]));
    while link.send(Channel::Lane(lane), vec![frame.clone()]).await.is_ok() {
        let pause = if *is_busy.borrow() { PAUSE_BUSY } else { PAUSE_CALM };
        sleep(pause).await;
    }
}

async fn drain(link: QuicLink, lane: u8, bytes: Arc<AtomicU64>) {
    while let Ok(frame) = link.recv(Channel::Lane(lane)).await {
        bytes.fetch_add(frame.body.len() as u64, Ordering::Relaxed);
    }
}

/// What each link carries [`BACK_WITHIN`] after a cut, in million bytes per second.
async fn carried_after_a_cut(name: &str, tuning: Tuning) -> Vec<f64> {
    let authority = create_authority(CLUSTER).unwrap();
    let (a, b) = (bind(&authority, "a", tuning), bind(&authority, "b", tuning));
    let peer = |name: &str, address| RelayPeer { name: name.to_owned(), address };
    let peers = vec![peer("a", a.local_address()), peer("b", b.local_address())];
    let relay = Relay::start(peers, LinkConditions::delayed(ONE_WAY)).unwrap();
    let address = relay.address("a", "b").unwrap();
    let (busy, mut lanes, mut links) = (watch::Sender::new(false), JoinSet::new(), Vec::new());
    for _ in 0..LINKS_COUNT {
        let joined = async { tokio::join!(a.connect(region(2), address), b.accept()) };
        let (near, far) = within("two transports meet", 10, joined).await;
        let (near, far, bytes) = (near.unwrap(), far.unwrap(), Arc::new(AtomicU64::new(0)));
        for lane in 0..LANES_MAX {
            lanes.spawn(drain(far.clone(), lane, bytes.clone()));
            lanes.spawn(fill(near.clone(), lane, busy.subscribe()));
        }
        links.push((near, bytes));
    }
    sleep(Duration::from_secs(2)).await;
    relay.isolate("b").unwrap();
    busy.send_replace(true);
    sleep(CUT).await;
    relay.heal_all();
    sleep(BACK_WITHIN).await;
    let carried = |(_, bytes): &(QuicLink, Arc<AtomicU64>)| bytes.load(Ordering::Relaxed);
    let (before, since): (Vec<_>, _) = (links.iter().map(carried).collect(), Instant::now());
    sleep(WATCHED).await;
    let seconds = since.elapsed().as_secs_f64();
    let grown = links.iter().map(carried).zip(before).map(|(after, before)| after - before);
    let rates: Vec<f64> = grown.map(|bytes| bytes as f64 / 1e6 / seconds).collect();
    let windows: Vec<_> =
        links.iter().map(|(near, _)| near.stats().congestion_window_bytes / 1_000).collect();
    tell(&format!("{name}: {rates:.1?} MB/s {BACK_WITHIN:?} after a cut of {CUT:?}, windows {windows:?} kB"));
    lanes.shutdown().await;
    rates
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_are_at_their_pace_again_soon_after_a_short_cut() {
    let rates = carried_after_a_cut("as shipped", Tuning::default()).await;
    assert!(rates.iter().all(|rate| *rate > CARRIED_MB_MIN), "{rates:?} MB/s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_stay_at_the_least_window_after_a_cut_are_noticed() {
    let tuning = Tuning { in_flight_bytes_max: 256 * 1_024, ..Tuning::default() };
    let rates = carried_after_a_cut("256 KiB in all", tuning).await;
    assert!(rates.iter().all(|rate| *rate < CARRIED_MB_MIN), "{rates:?} MB/s");
}
