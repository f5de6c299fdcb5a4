//! The client door, both sides of it.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::timeout;
use tombolo_causality::ClusterId;
use tombolo_transport::{
    Authority, CertificateName, ClientConnection, ClientEndpoint, ClientListener, DoorSettings, Expected,
    Frame, FrameError, Identity, LinkError, Refusal, RegionConnection, TransportError, create_authority,
};

const CLUSTER: ClusterId = ClusterId(42);
const LIMIT: usize = 100_000;
const STEP_MAX: Duration = Duration::from_secs(10);

fn identity(authority: &Authority, name: &str) -> Identity {
    let issued = authority.issue_region(CLUSTER, name).unwrap();
    Identity::from_pem(&authority.cert_pem, &issued.cert_pem, &issued.key_pem).unwrap()
}

fn listen(authority: &Authority, settings: DoorSettings) -> ClientListener {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    ClientListener::bind(anywhere, &identity(authority, "eu-west"), settings).unwrap()
}

fn settings() -> DoorSettings {
    DoorSettings { frame_bytes_max: LIMIT, ..DoorSettings::default() }
}

async fn step<T>(future: impl Future<Output = T>) -> T {
    timeout(STEP_MAX, future).await.expect("the step is done in time")
}

async fn join(client: &ClientEndpoint, door: &ClientListener) -> (RegionConnection, ClientConnection) {
    let connect = client.connect(door.local_address(), Expected::default());
    let (near, far) = step(async { tokio::join!(connect, door.accept()) }).await;
    (near.unwrap(), far.unwrap())
}

#[tokio::test]
async fn frames_go_both_ways_on_several_streams() {
    let authority = create_authority(CLUSTER).unwrap();
    let door = listen(&authority, settings());
    let client = ClientEndpoint::new(&authority.cert_pem, LIMIT).unwrap();
    let (near, far) = join(&client, &door).await;
    assert_eq!(near.name(), &CertificateName { cluster: CLUSTER, region: "eu-west".into() });
    assert_eq!(near.remote_address().port(), door.local_address().port());
    for number in 0..3u8 {
        let (mut write, mut read) = step(near.open_stream()).await.unwrap();
        let asked = vec![Frame::new(number, vec![number; LIMIT]), Frame::new(9, &b""[..])];
        step(write.send(&asked)).await.unwrap();
        let (mut answer, mut question) = step(far.accept_stream()).await.unwrap();
        for frame in &asked {
            assert_eq!(step(question.next()).await, Ok(Some(frame.clone())));
        }
        step(answer.send(&[Frame::new(1, &b"yes"[..])])).await.unwrap();
        assert_eq!(step(read.next()).await.unwrap().unwrap().body, "yes");
        // An ended stream is an end, not an error.
        drop(write);
        assert_eq!(step(question.next()).await, Ok(None));
        drop(answer);
        assert_eq!(step(read.next()).await, Ok(None));
    }
}

#[tokio::test]
async fn reading_is_safe_to_cancel() {
    let authority = create_authority(CLUSTER).unwrap();
    let door = listen(&authority, settings());
    let client = ClientEndpoint::new(&authority.cert_pem, LIMIT).unwrap();
    let (near, far) = join(&client, &door).await;
    let (mut write, _read) = step(near.open_stream()).await.unwrap();
    step(write.send(&[Frame::new(0, &b"first"[..])])).await.unwrap();
    let (_answer, mut question) = step(far.accept_stream()).await.unwrap();
    assert!(step(question.next()).await.unwrap().is_some());
    let sending = tokio::spawn(async move {
        for number in 0..100u8 {
            write.send(&[Frame::new(number, vec![number; LIMIT])]).await.unwrap();
        }
        write
    });
    let mut seen = 0u8;
    while seen < 100 {
        // Dropped again and again in the middle of a frame.
        let Ok(frame) = timeout(Duration::from_micros(50), question.next()).await else { continue };
        assert_eq!(frame, Ok(Some(Frame::new(seen, vec![seen; LIMIT]))));
        seen += 1;
    }
    step(sending).await.unwrap();
}

#[tokio::test]
async fn a_region_that_is_not_expected_is_refused() {
    let authority = create_authority(CLUSTER).unwrap();
    let door = listen(&authority, settings());
    let address = door.local_address();
    let client = ClientEndpoint::new(&authority.cert_pem, LIMIT).unwrap();
    let refusal = |expected: Expected| async {
        match step(client.connect(address, expected)).await {
            Err(TransportError::Refused { refusal, .. }) => refusal,
            other => panic!("{other:?}"),
        }
    };
    let other_cluster = Expected { cluster: Some(ClusterId(1)), region: None };
    assert_eq!(refusal(other_cluster).await, Refusal::OtherCluster { expected: ClusterId(1), seen: CLUSTER });
    let other_region = Expected { cluster: None, region: Some("us-east".into()) };
    let wrong = Refusal::WrongRegion { expected: "us-east".into(), seen: "eu-west".into() };
    assert_eq!(refusal(other_region).await, wrong);
    let foreign = ClientEndpoint::new(&create_authority(CLUSTER).unwrap().cert_pem, LIMIT).unwrap();
    let error = step(foreign.connect(address, Expected::default())).await.unwrap_err();
    assert!(matches!(error, TransportError::Refused { refusal: Refusal::Chain { .. }, .. }), "{error}");
    let right = Expected { cluster: Some(CLUSTER), region: Some("eu-west".into()) };
    step(client.connect(address, right)).await.unwrap();
}

#[tokio::test]
async fn a_frame_above_the_limit_is_refused_on_either_side() {
    let authority = create_authority(CLUSTER).unwrap();
    let door = listen(&authority, settings());
    let careless = ClientEndpoint::new(&authority.cert_pem, 2 * LIMIT).unwrap();
    let (near, far) = join(&careless, &door).await;
    let (mut write, _read) = step(near.open_stream()).await.unwrap();
    step(write.send(&[Frame::new(0, vec![0; LIMIT + 1])])).await.unwrap();
    let (mut answer, mut question) = step(far.accept_stream()).await.unwrap();
    let refused = LinkError::Frame(FrameError::TooLarge { body_bytes: LIMIT + 1, body_bytes_max: LIMIT });
    assert_eq!(step(question.next()).await, Err(refused.clone()));
    assert_eq!(step(answer.send(&[Frame::new(0, vec![0; LIMIT + 1])])).await, Err(refused));
}

#[tokio::test]
async fn connections_above_the_limit_wait_until_one_has_gone() {
    let authority = create_authority(CLUSTER).unwrap();
    let door = listen(&authority, DoorSettings { connections_max: 2, ..settings() });
    let client = ClientEndpoint::new(&authority.cert_pem, LIMIT).unwrap();
    let first = join(&client, &door).await;
    let _second = join(&client, &door).await;
    let third = client.connect(door.local_address(), Expected::default());
    assert!(timeout(Duration::from_millis(500), third).await.is_err());
    drop(first);
    join(&client, &door).await;
}

#[tokio::test]
async fn a_close_is_seen_by_the_other_side() {
    let authority = create_authority(CLUSTER).unwrap();
    let door = listen(&authority, settings());
    let client = ClientEndpoint::new(&authority.cert_pem, LIMIT).unwrap();
    let (near, far) = join(&client, &door).await;
    far.close("token expired");
    assert_eq!(step(near.closed()).await, LinkError::ClosedByPeer { reason: "token expired".into() });
    let (near, far) = join(&client, &door).await;
    step(door.close()).await;
    let told = LinkError::ClosedByPeer { reason: "the region shuts down".into() };
    assert_eq!(step(near.closed()).await, told);
    assert_eq!(step(far.closed()).await, LinkError::Closed);
    assert_eq!(step(door.accept()).await.map(|_| ()), Err(TransportError::Closed));
}

#[tokio::test]
async fn a_reloaded_certificate_is_shown_to_new_clients() {
    let authority = create_authority(CLUSTER).unwrap();
    let door = listen(&authority, settings());
    let renewed = create_authority(CLUSTER).unwrap();
    door.reload(&identity(&renewed, "eu-west")).unwrap();
    let client = ClientEndpoint::new(&renewed.cert_pem, LIMIT).unwrap();
    join(&client, &door).await;
    assert!(matches!(door.reload(&identity(&renewed, "us-east")), Err(TransportError::OtherIdentity { .. })));
}

/// A client whose region is killed and comes back on the same port with the identity that `next` gives: why its
/// connection has ended, if it ends within half a second of its next packet.
fn killed_and_back(next: impl FnOnce(Identity, &Authority) -> Identity) -> Option<LinkError> {
    let authority = create_authority(CLUSTER).unwrap();
    let first = identity(&authority, "eu-west");
    let bind = |address: SocketAddr, identity: &Identity| ClientListener::bind(address, identity, settings());
    let (region, near_side) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let door = {
        let _context = region.enter();
        bind(SocketAddr::from(([127, 0, 0, 1], 0)), &first).unwrap()
    };
    let address = door.local_address();
    let (client, near, far, mut write) = near_side.block_on(async {
        let client = ClientEndpoint::new(&authority.cert_pem, LIMIT).unwrap();
        let (near, far) = join(&client, &door).await;
        let (mut write, _) = step(near.open_stream()).await.unwrap();
        step(write.send(&[Frame::new(0, &b"before"[..])])).await.unwrap();
        step(far.accept_stream()).await.unwrap();
        (client, near, far, write)
    });
    // Its tasks end where they stand, as with signal 9: what it would say in closing has nobody left to send it.
    region.shutdown_timeout(STEP_MAX);
    drop((door, far));
    let identity = next(first, &authority);
    let ended = near_side.block_on(async {
        let _door = bind(address, &identity).expect("the port is free again");
        // Fails where a packet that was on its way already has had its answer.
        let _ = write.send(&[Frame::new(0, &b"after"[..])]).await;
        timeout(Duration::from_millis(500), near.closed()).await.ok()
    });
    drop((client, near));
    ended
}

#[test]
fn a_client_of_a_region_that_was_killed_learns_it_with_its_next_packet() {
    let ended = killed_and_back(|identity, _| identity);
    assert_eq!(ended, Some(LinkError::Lost { detail: "reset by peer".into() }));
}

#[test]
fn who_has_not_the_regions_key_cannot_end_its_connections() {
    assert_eq!(killed_and_back(|_, authority| identity(authority, "eu-west")), None);
}
