//! What every transport must do, run against each of them; start at `conformance!` at the end.
//!
//! What concerns certificates, and so QUIC alone, stands in `quic.rs`; the client door in `client.rs`.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tombolo_causality::{ClusterId, RegionId};
use tombolo_transport::{
    Authority, Channel, Frame, FrameError, Hub, Identity, InProcess, LANES_MAX, Link, LinkError, Members,
    QuicSettings, QuicTransport, Refusal, Transport, TransportError, create_authority,
};

const LIMIT: usize = 200_000;
/// No step of a test takes longer, or the test fails.
const STEP_MAX: Duration = Duration::from_secs(20);
const CLUSTER: ClusterId = ClusterId(42);

/// Regions 1, 2, 3… joined by one kind of transport.
trait Network {
    type Transport: Transport;

    fn new() -> Self;

    fn region(&self, id: u16, frame_bytes_max: usize) -> Self::Transport;
}

struct InProcessNetwork(Hub);

impl Network for InProcessNetwork {
    type Transport = InProcess;

    fn new() -> Self {
        Self(Hub::new())
    }

    fn region(&self, id: u16, frame_bytes_max: usize) -> InProcess {
        self.0.transport(region(id), frame_bytes_max)
    }
}

struct QuicNetwork(Authority);

impl Network for QuicNetwork {
    type Transport = QuicTransport;

    fn new() -> Self {
        Self(create_authority(CLUSTER).unwrap())
    }

    fn region(&self, id: u16, frame_bytes_max: usize) -> QuicTransport {
        let issued = self.0.issue_region(CLUSTER, &format!("region-{id}")).unwrap();
        let identity = Identity::from_pem(&self.0.cert_pem, &issued.cert_pem, &issued.key_pem).unwrap();
        let members = Members::new(CLUSTER, (1..=5).map(|id| (region(id), format!("region-{id}"))));
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        QuicTransport::bind(
            anywhere,
            identity,
            members,
            QuicSettings { frame_bytes_max, ..QuicSettings::default() },
        )
        .unwrap()
    }
}

fn region(id: u16) -> RegionId {
    RegionId::new(id).unwrap()
}

async fn step<T>(future: impl Future<Output = T>) -> T {
    timeout(STEP_MAX, future).await.expect("the step is done in time")
}

/// A link from `a` to `b`, both ends of it.
async fn join<T: Transport>(a: &T, b: &T, b_id: u16) -> (T::Link, T::Link) {
    let (near, far) =
        step(async { tokio::join!(a.connect(region(b_id), b.local_address()), b.accept()) }).await;
    (near.unwrap(), far.unwrap())
}

async fn two<N: Network>()
-> (N::Transport, N::Transport, (<N::Transport as Transport>::Link, <N::Transport as Transport>::Link)) {
    let network = N::new();
    let (a, b) = (network.region(1, LIMIT), network.region(2, LIMIT));
    let links = join(&a, &b, 2).await;
    (a, b, links)
}

fn numbered(number: u32, body_bytes: usize) -> Frame {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(body_bytes.max(4), number as u8);
    Frame::new((number % 251) as u8, body)
}

async fn order_is_kept_per_channel<N: Network>() {
    let (_a, _b, (near, far)) = two::<N>().await;
    let mut tasks = tokio::task::JoinSet::new();
    let channels: Vec<_> = (0..LANES_MAX).map(Channel::Lane).chain([Channel::Control]).collect();
    for channel in channels {
        // Both directions at once, in runs of uneven length and frames of uneven size.
        for (from, to) in [(near.clone(), far.clone()), (far.clone(), near.clone())] {
            tasks.spawn(async move {
                let mut next = 0u32;
                while next < 300 {
                    let run = next..(next + 1 + next % 7).min(300);
                    next = run.end;
                    let frames = run.map(|n| numbered(n, (n as usize * 37) % 5_000)).collect();
                    from.send(channel, frames).await.unwrap();
                }
            });
            tasks.spawn(async move {
                for number in 0..300u32 {
                    let expected = numbered(number, (number as usize * 37) % 5_000);
                    assert_eq!(to.recv(channel).await.unwrap(), expected, "{channel}");
                }
            });
        }
    }
    step(async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    })
    .await;
}

async fn control_is_not_blocked_by_stalled_lanes<N: Network>() {
    let (_a, _b, (near, far)) = two::<N>().await;
    // Every lane is written to until nothing more goes in; nobody reads.
    let mut writers = tokio::task::JoinSet::new();
    for lane in 0..LANES_MAX {
        let near = near.clone();
        writers.spawn(async move {
            loop {
                let full = near.send(Channel::Lane(lane), vec![numbered(7, LIMIT)]);
                if timeout(Duration::from_millis(700), full).await.is_err() {
                    return;
                }
            }
        });
    }
    step(async { while writers.join_next().await.is_some() {} }).await;
    for number in 0..200 {
        step(near.send(Channel::Control, vec![numbered(number, 1_000)])).await.unwrap();
        assert_eq!(step(far.recv(Channel::Control)).await, Ok(numbered(number, 1_000)));
    }
    // One lane that is read moves again while the others stand.
    assert_eq!(step(far.recv(Channel::Lane(3))).await, Ok(numbered(7, LIMIT)));
}

async fn a_dropped_send_tears_no_frame<N: Network>() {
    let (_a, _b, (near, far)) = two::<N>().await;
    let lane = Channel::Lane(0);
    while timeout(Duration::from_millis(300), near.send(lane, vec![numbered(7, LIMIT)])).await.is_ok() {}
    let last = numbered(9, 10);
    let (sent, seen) = tokio::join!(step(near.send(lane, vec![last.clone()])), async {
        let mut frames_count = 0;
        loop {
            let frame = step(far.recv(lane)).await.unwrap();
            if frame == last {
                return frames_count;
            }
            assert_eq!(frame, numbered(7, LIMIT));
            frames_count += 1;
        }
    });
    sent.unwrap();
    assert!(seen > 0);
}

async fn frames_up_to_the_limit_pass<N: Network>() {
    let (_a, _b, (near, far)) = two::<N>().await;
    for frame in [Frame::new(0, Bytes::new()), Frame::new(255, vec![5; LIMIT]), Frame::new(1, vec![6; 1])] {
        step(near.send(Channel::Lane(15), vec![frame.clone()])).await.unwrap();
        assert_eq!(step(far.recv(Channel::Lane(15))).await, Ok(frame));
    }
}

async fn a_frame_above_the_limit_is_refused_by_its_sender<N: Network>() {
    let (_a, _b, (near, far)) = two::<N>().await;
    let refused = FrameError::TooLarge { body_bytes: LIMIT + 1, body_bytes_max: LIMIT };
    let sent = step(near.send(Channel::Control, vec![numbered(1, 10), numbered(2, LIMIT + 1)])).await;
    assert_eq!(sent, Err(refused.into()));
    let sent = step(near.send(Channel::Lane(16), vec![numbered(1, 10)])).await;
    assert_eq!(sent, Err(LinkError::LaneOutOfRange { lane: 16 }));
    // Nothing of it was sent, and the link lives on.
    step(near.send(Channel::Control, vec![numbered(3, 10)])).await.unwrap();
    assert_eq!(step(far.recv(Channel::Control)).await, Ok(numbered(3, 10)));
}

async fn a_frame_above_the_limit_is_refused_by_its_receiver<N: Network>() {
    let network = N::new();
    let (a, b) = (network.region(1, 10 * LIMIT), network.region(2, LIMIT));
    let (near, far) = join(&a, &b, 2).await;
    step(near.send(Channel::Control, vec![numbered(1, LIMIT), numbered(2, LIMIT + 1)])).await.unwrap();
    assert_eq!(step(far.recv(Channel::Control)).await, Ok(numbered(1, LIMIT)));
    let refused = LinkError::from(FrameError::TooLarge { body_bytes: LIMIT + 1, body_bytes_max: LIMIT });
    assert_eq!(step(far.recv(Channel::Control)).await, Err(refused.clone()));
    assert_eq!(step(far.closed()).await, refused);
    let LinkError::ClosedByPeer { reason } = step(near.closed()).await else { panic!("not told") };
    assert!(reason.contains(&LIMIT.to_string()), "{reason}");
}

async fn the_peer_is_who_it_proves_to_be<N: Network>() {
    let (_a, _b, (near, far)) = two::<N>().await;
    assert_eq!((near.peer(), far.peer()), (region(2), region(1)));
}

async fn connecting_to_the_wrong_region_is_refused<N: Network>() {
    let network = N::new();
    let (a, b) = (network.region(1, LIMIT), network.region(2, LIMIT));
    let refused = step(a.connect(region(3), b.local_address())).await.unwrap_err();
    assert!(
        matches!(&refused, TransportError::Refused { refusal: Refusal::WrongRegion { expected, seen }, .. }
            if expected.ends_with('3') && seen.ends_with('2')),
        "{refused}"
    );
    // The one that was reached by mistake has not taken it for a link.
    assert!(timeout(Duration::from_millis(200), b.accept()).await.is_err());
    join(&a, &b, 2).await;
}

async fn a_close_is_seen_by_the_other_side<N: Network>() {
    let (_a, _b, (near, far)) = two::<N>().await;
    let waiting = {
        let far = far.clone();
        tokio::spawn(async move { far.recv(Channel::Lane(1)).await })
    };
    near.close("superseded");
    let told = LinkError::ClosedByPeer { reason: "superseded".into() };
    let soon = Duration::from_secs(1);
    assert_eq!(timeout(soon, far.closed()).await, Ok(told.clone()));
    assert_eq!(step(waiting).await.unwrap(), Err(told.clone()));
    assert_eq!(step(far.send(Channel::Control, vec![numbered(1, 1)])).await, Err(told));
    assert_eq!(step(near.closed()).await, LinkError::Closed);
}

async fn a_dropped_link_is_closed<N: Network>() {
    let (_a, _b, (near, far)) = two::<N>().await;
    drop(near);
    let soon = Duration::from_secs(1);
    assert!(matches!(timeout(soon, far.closed()).await, Ok(LinkError::ClosedByPeer { .. })));
}

async fn finished_channels_deliver_all_and_then_end<N: Network>() {
    let (_a, _b, (near, far)) = two::<N>().await;
    let sent: Vec<_> = (0..10).map(|number| numbered(number, 20_000)).collect();
    near.send(Channel::Lane(2), sent.clone()).await.unwrap();
    let reading = tokio::spawn(async move {
        for frame in sent {
            assert_eq!(far.recv(Channel::Lane(2)).await, Ok(frame));
        }
        assert_eq!(far.recv(Channel::Lane(2)).await, Err(LinkError::Ended));
        far
    });
    step(near.finish()).await;
    let far = step(reading).await.unwrap();
    near.close("done");
    assert_eq!(step(far.closed()).await, LinkError::ClosedByPeer { reason: "done".into() });
}

async fn several_links_stand_side_by_side<N: Network>() {
    let network = N::new();
    let hub = network.region(1, LIMIT);
    let others: Vec<_> = (2..=4).map(|id| network.region(id, LIMIT)).collect();
    let mut links = Vec::new();
    for other in &others {
        // Each link stands before the next comes, so that both ends are known.
        links.push(join(other, &hub, 1).await);
    }
    // A second link of one region stands beside its first: which of them counts is decided above.
    links.push(join(&others[0], &hub, 1).await);
    let seen: Vec<_> = links.iter().map(|(_, far)| far.peer().get()).collect();
    assert_eq!(seen, [2, 3, 4, 2]);
    for (number, (near, _)) in links.iter().enumerate() {
        near.send(Channel::Control, vec![numbered(number as u32, 8)]).await.unwrap();
    }
    for (number, (_, far)) in links.iter().enumerate() {
        assert_eq!(step(far.recv(Channel::Control)).await, Ok(numbered(number as u32, 8)));
    }
}

async fn a_new_link_follows_a_closed_one<N: Network>() {
    let (a, b, (near, far)) = two::<N>().await;
    near.close("again");
    step(far.closed()).await;
    let (near, far) = join(&b, &a, 1).await;
    step(near.send(Channel::Lane(0), vec![numbered(1, 1)])).await.unwrap();
    assert_eq!(step(far.recv(Channel::Lane(0))).await, Ok(numbered(1, 1)));
}

async fn a_closed_transport_ends_its_links_and_its_waits<N: Network>() {
    let (a, b, (near, _far)) = two::<N>().await;
    let (a, b) = (a, Arc::new(b));
    let accepting = {
        let b = b.clone();
        tokio::spawn(async move { b.accept().await.map(|_| ()) })
    };
    step(b.close()).await;
    let LinkError::ClosedByPeer { reason } = step(near.closed()).await else { panic!("not told") };
    assert_eq!(reason, "the region shuts down");
    assert_eq!(step(accepting).await.unwrap(), Err(TransportError::Closed));
    assert_eq!(step(b.connect(region(1), a.local_address())).await.err(), Some(TransportError::Closed));
    let refused = step(a.connect(region(2), b.local_address())).await.unwrap_err();
    assert!(matches!(refused, TransportError::TimedOut { .. } | TransportError::Lost { .. }), "{refused}");
}

macro_rules! conformance {
    ($network:ident, $module:ident: $($test:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test::<super::$network>().await;
                }
            )*
        }
    };
    ($($module:ident: $network:ident),*) => {
        $(
            conformance!($network, $module:
                order_is_kept_per_channel
                control_is_not_blocked_by_stalled_lanes
                a_dropped_send_tears_no_frame
                frames_up_to_the_limit_pass
                a_frame_above_the_limit_is_refused_by_its_sender
                a_frame_above_the_limit_is_refused_by_its_receiver
                the_peer_is_who_it_proves_to_be
                connecting_to_the_wrong_region_is_refused
                a_close_is_seen_by_the_other_side
                a_dropped_link_is_closed
                finished_channels_deliver_all_and_then_end
                several_links_stand_side_by_side
                a_new_link_follows_a_closed_one
                a_closed_transport_ends_its_links_and_its_waits
            );
        )*
    };
}

conformance!(in_process: InProcessNetwork, quic: QuicNetwork);
