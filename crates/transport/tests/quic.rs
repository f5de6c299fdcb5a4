//! What concerns QUIC alone: who is refused and with which words, what the socket survives, what the settings do.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tombolo_causality::{ClusterId, RegionId};
use tombolo_transport::{
    Authority, Channel, Frame, Identity, Link, LinkError, Members, QuicLink, QuicSettings, QuicTransport,
    Refusal, Transport, TransportError, create_authority,
};

const CLUSTER: ClusterId = ClusterId(42);
const OTHER_CLUSTER: ClusterId = ClusterId(43);
const STEP_MAX: Duration = Duration::from_secs(10);

fn region(id: u16) -> RegionId {
    RegionId::new(id).unwrap()
}

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn identity(authority: &Authority, cluster: ClusterId, name: &str) -> Identity {
    let issued = authority.issue_region(cluster, name).unwrap();
    Identity::from_pem(&authority.cert_pem, &issued.cert_pem, &issued.key_pem).unwrap()
}

fn members(cluster: ClusterId, names: &[&str]) -> Members {
    Members::new(cluster, (1..).map(region).zip(names.iter().map(|name| name.to_string())))
}

fn bind(identity: Identity, members: Members) -> QuicTransport {
    QuicTransport::bind(anywhere(), identity, members, QuicSettings::default()).unwrap()
}

async fn step<T>(future: impl Future<Output = T>) -> T {
    timeout(STEP_MAX, future).await.expect("the step is done in time")
}

async fn join(a: &QuicTransport, b: &QuicTransport, b_id: u16) -> (QuicLink, QuicLink) {
    let (near, far) =
        step(async { tokio::join!(a.connect(region(b_id), b.local_address()), b.accept()) }).await;
    (near.unwrap(), far.unwrap())
}

/// `a` is region 1 for itself and `b` region 2 in the eyes of `a`; gives what `a` gets when it dials `b`, after
/// checking that `b` has taken no link.
async fn refused(a: &QuicTransport, b: &QuicTransport) -> TransportError {
    let error = step(a.connect(region(2), b.local_address())).await.unwrap_err();
    assert!(timeout(Duration::from_millis(200), b.accept()).await.is_err(), "{error}, but a link came out");
    error
}

/// A CA that names no cluster, as one made with other tools: it signs for any.
fn unbound_authority() -> Authority {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    Authority { cert_pem: certificate.pem(), key_pem: key.serialize_pem() }
}

#[tokio::test]
async fn a_region_of_a_foreign_authority_is_refused() {
    let (ours, theirs) = (create_authority(CLUSTER).unwrap(), create_authority(CLUSTER).unwrap());
    let names = ["a", "b"];
    let a = bind(identity(&ours, CLUSTER, "a"), members(CLUSTER, &names));
    let b = bind(identity(&theirs, CLUSTER, "b"), members(CLUSTER, &names));
    let error = refused(&a, &b).await;
    assert!(matches!(error, TransportError::Refused { refusal: Refusal::Chain { .. }, .. }), "{error}");
}

#[tokio::test]
async fn a_dialler_of_a_foreign_authority_is_refused_by_who_listens() {
    let (ours, theirs) = (create_authority(CLUSTER).unwrap(), create_authority(CLUSTER).unwrap());
    let names = ["a", "b"];
    // The dialler would take anybody: its certificate is foreign, the CA it checks against is the right one.
    let issued = theirs.issue_region(CLUSTER, "a").unwrap();
    let both = format!("{}{}", theirs.cert_pem, ours.cert_pem);
    let forged = Identity::from_pem(&both, &issued.cert_pem, &issued.key_pem).unwrap();
    let a = bind(forged, members(CLUSTER, &names));
    let b = bind(identity(&ours, CLUSTER, "b"), members(CLUSTER, &names));
    let error = refused(&a, &b).await;
    assert!(matches!(error, TransportError::RefusedByPeer { .. }), "{error}");
}

#[tokio::test]
async fn a_region_of_another_cluster_is_refused_on_both_sides() {
    let authority = unbound_authority();
    let names = ["a", "b"];
    let ours = bind(identity(&authority, CLUSTER, "a"), members(CLUSTER, &names));
    let theirs = bind(identity(&authority, OTHER_CLUSTER, "b"), members(OTHER_CLUSTER, &names));
    let error = refused(&ours, &theirs).await;
    let other = Refusal::OtherCluster { expected: CLUSTER, seen: OTHER_CLUSTER };
    assert_eq!(error, TransportError::Refused { address: theirs.local_address(), refusal: other });
}

#[tokio::test]
async fn a_name_that_is_no_member_is_refused_and_told_why() {
    let authority = create_authority(CLUSTER).unwrap();
    let stranger = bind(identity(&authority, CLUSTER, "stranger"), members(CLUSTER, &["stranger", "b"]));
    let b = bind(identity(&authority, CLUSTER, "b"), members(CLUSTER, &["a", "b"]));
    let error = refused(&stranger, &b).await;
    let TransportError::RefusedByPeer { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.contains("`stranger`") && reason.contains("\"a\""), "{reason}");
    // The other way around the dialling side notices.
    let error = step(b.connect(region(1), stranger.local_address())).await.unwrap_err();
    let TransportError::Refused { refusal: Refusal::UnknownRegion { seen, members }, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((seen.as_str(), members.len()), ("stranger", 2));
}

#[tokio::test]
async fn a_region_with_the_own_name_is_refused() {
    let authority = create_authority(CLUSTER).unwrap();
    let names = ["a", "b"];
    let b = bind(identity(&authority, CLUSTER, "b"), members(CLUSTER, &names));
    let clone = bind(identity(&authority, CLUSTER, "b"), members(CLUSTER, &names));
    let error = step(b.connect(region(2), clone.local_address())).await.unwrap_err();
    let own = Refusal::OwnRegion { name: "b".into() };
    assert_eq!(error, TransportError::Refused { address: clone.local_address(), refusal: own });
}

#[tokio::test]
async fn a_node_whose_certificate_names_no_member_does_not_start() {
    let authority = create_authority(CLUSTER).unwrap();
    let stranger = identity(&authority, CLUSTER, "stranger");
    let started =
        QuicTransport::bind(anywhere(), stranger, members(CLUSTER, &["a"]), QuicSettings::default());
    assert!(matches!(started, Err(TransportError::NotAMember { .. })));
}

#[tokio::test]
async fn nobody_at_the_address_is_a_timeout_within_a_bound() {
    let authority = create_authority(CLUSTER).unwrap();
    let a = bind(identity(&authority, CLUSTER, "a"), members(CLUSTER, &["a", "b"]));
    let silent = UdpSocket::bind(anywhere()).unwrap();
    let address = silent.local_addr().unwrap();
    let begun = Instant::now();
    let error = step(a.connect(region(2), address)).await.unwrap_err();
    assert_eq!(error, TransportError::TimedOut { address });
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert_eq!(
        step(a.connect(region(9), address)).await.err(),
        Some(TransportError::UnknownPeer { peer: region(9) })
    );
}

#[tokio::test]
async fn garbage_and_half_open_handshakes_do_not_disturb_links() {
    let authority = create_authority(CLUSTER).unwrap();
    let names = ["a", "b"];
    let a = bind(identity(&authority, CLUSTER, "a"), members(CLUSTER, &names));
    let b = bind(identity(&authority, CLUSTER, "b"), members(CLUSTER, &names));
    let (near, far) = join(&a, &b, 2).await;
    let hostile = UdpSocket::bind(anywhere()).unwrap();
    let mut state = 1u64;
    for length in (0..1_400).step_by(3) {
        let mut packet = vec![0u8; length];
        for byte in &mut packet {
            // A linear congruential generator: any bytes will do, but the same ones each time.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        if let Some(first) = packet.first_mut() {
            // Long header, version 1: looks like the beginning of a handshake.
            *first |= if length % 2 == 0 { 0xc0 } else { 0 };
        }
        if length > 5 {
            packet[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        hostile.send_to(&packet, b.local_address()).unwrap();
    }
    // A client of the wrong protocol, which begins a real handshake.
    let client = tombolo_transport::ClientEndpoint::new(&authority.cert_pem, 1_000).unwrap();
    let error = step(client.connect(b.local_address(), Default::default())).await.unwrap_err();
    assert!(matches!(error, TransportError::RefusedByPeer { .. } | TransportError::Lost { .. }), "{error}");
    near.send(Channel::Control, vec![Frame::new(1, &b"still here"[..])]).await.unwrap();
    assert_eq!(step(far.recv(Channel::Control)).await.unwrap().body, "still here");
    join(&a, &b, 2).await;
}

#[tokio::test]
async fn a_reload_counts_for_new_handshakes_and_leaves_links_alone() {
    let (before, after) = (create_authority(CLUSTER).unwrap(), create_authority(CLUSTER).unwrap());
    let names = ["a", "b"];
    let a = bind(identity(&before, CLUSTER, "a"), members(CLUSTER, &names));
    let b = bind(identity(&before, CLUSTER, "b"), members(CLUSTER, &names));
    let (near, far) = join(&a, &b, 2).await;
    b.reload(identity(&after, CLUSTER, "b"), members(CLUSTER, &names)).unwrap();
    let error = refused(&a, &b).await;
    assert!(matches!(error, TransportError::Refused { refusal: Refusal::Chain { .. }, .. }), "{error}");
    a.reload(identity(&after, CLUSTER, "a"), members(CLUSTER, &names)).unwrap();
    join(&a, &b, 2).await;
    join(&b, &a, 1).await;
    near.send(Channel::Lane(0), vec![Frame::new(1, &b"old link"[..])]).await.unwrap();
    assert_eq!(step(far.recv(Channel::Lane(0))).await.unwrap().body, "old link");
    let other = b.reload(identity(&after, CLUSTER, "a"), members(CLUSTER, &names));
    assert_eq!(other, Err(TransportError::OtherIdentity { expected: "b".into(), seen: "a".into() }));
}

#[tokio::test]
async fn members_that_leave_are_refused_from_the_next_handshake_on() {
    let authority = create_authority(CLUSTER).unwrap();
    let a = bind(identity(&authority, CLUSTER, "a"), members(CLUSTER, &["a", "b"]));
    let b = bind(identity(&authority, CLUSTER, "b"), members(CLUSTER, &["a", "b"]));
    join(&a, &b, 2).await;
    b.reload(identity(&authority, CLUSTER, "b"), Members::new(CLUSTER, [(region(2), "b".into())])).unwrap();
    let error = refused(&a, &b).await;
    assert!(matches!(error, TransportError::RefusedByPeer { .. }), "{error}");
}

#[tokio::test]
async fn a_silent_peer_is_noticed_and_an_idle_one_is_kept() {
    let authority = create_authority(CLUSTER).unwrap();
    let names = ["a", "b"];
    let a = bind(identity(&authority, CLUSTER, "a"), members(CLUSTER, &names));
    let b = bind(identity(&authority, CLUSTER, "b"), members(CLUSTER, &names));
    let relay = Relay::between(b.local_address());
    let (near, far) = step(async { tokio::join!(a.connect(region(2), relay.address()), b.accept()) }).await;
    let (near, far) = (near.unwrap(), far.unwrap());
    // Idle for longer than the idle timeout: keep-alives hold the link.
    assert!(timeout(Duration::from_secs(3), near.closed()).await.is_err());
    relay.cut();
    let begun = Instant::now();
    let (here, there) = step(async { tokio::join!(near.closed(), far.closed()) }).await;
    assert_eq!((here, there), (LinkError::TimedOut, LinkError::TimedOut));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_raises_the_mtu_and_the_window_stays_below_its_ceiling() {
    let authority = create_authority(CLUSTER).unwrap();
    let names = ["a", "b"];
    let a = bind(identity(&authority, CLUSTER, "a"), members(CLUSTER, &names));
    let b = bind(identity(&authority, CLUSTER, "b"), members(CLUSTER, &names));
    let (near, far) = join(&a, &b, 2).await;
    let frame = Frame::new(1, vec![7; 1_000_000]);
    for _ in 0..100 {
        let (sent, seen) =
            tokio::join!(near.send(Channel::Lane(0), vec![frame.clone()]), far.recv(Channel::Lane(0)));
        sent.unwrap();
        assert_eq!(seen.as_ref(), Ok(&frame));
        assert!(near.stats().congestion_window_bytes <= 12_000_000, "{:?}", near.stats());
    }
    assert!((4_000..=6_500).contains(&near.stats().mtu_bytes), "{:?}", near.stats());
    assert!(near.rtt() < Duration::from_secs(1));
}

/// Passes datagrams between one client and a server until it is cut.
struct Relay {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    fn between(server: SocketAddr) -> Self {
        let outer = UdpSocket::bind(anywhere()).unwrap();
        let address = outer.local_addr().unwrap();
        outer.set_nonblocking(true).unwrap();
        let outer = tokio::net::UdpSocket::from_std(outer).unwrap();
        let task = tokio::spawn(async move {
            let inner = tokio::net::UdpSocket::bind(anywhere()).await.unwrap();
            let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
            let mut client = None;
            loop {
                tokio::select! {
                    Ok((length, from)) = outer.recv_from(&mut there) => {
                        client = Some(from);
                        inner.send_to(&there[..length], server).await.unwrap();
                    }
                    Ok((length, _)) = inner.recv_from(&mut back) => {
                        if let Some(client) = client {
                            outer.send_to(&back[..length], client).await.unwrap();
                        }
                    }
                }
            }
        });
        Self { address, task }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn cut(&self) {
        self.task.abort();
    }
}
