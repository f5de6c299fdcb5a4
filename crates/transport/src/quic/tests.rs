use tombolo_causality::ClusterId;

use super::*;
use crate::create_authority;
use crate::endpoint::open;

const CLUSTER: ClusterId = ClusterId(42);

fn credentials(name: &str) -> (Arc<Credentials>, QuicTransport) {
    let authority = create_authority(CLUSTER).unwrap();
    let issued = authority.issue_region(CLUSTER, name).unwrap();
    let identity = Identity::from_pem(&authority.cert_pem, &issued.cert_pem, &issued.key_pem).unwrap();
    let ids = (1..).map(|id| RegionId::new(id).unwrap());
    let members = Members::new(CLUSTER, ids.zip(["a".to_owned(), "b".to_owned()]));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let transport = QuicTransport::bind(address, identity, members, QuicSettings::default()).unwrap();
    (transport.credentials(), transport)
}

fn endpoint(credentials: &Credentials) -> Endpoint {
    open(SocketAddr::from(([127, 0, 0, 1], 0)), Some(credentials.server(&Tuning::default()).unwrap()))
        .unwrap()
}

/// What `greet` makes of an attempt of `a` that ends once `b` has seen its first packet.
async fn greeted(
    ends: impl FnOnce(tokio::task::JoinHandle<Result<QuicLink, TransportError>>),
) -> TransportError {
    let ((credentials, _b), (_, a)) = (credentials("b"), credentials("a"));
    let door = endpoint(&credentials);
    let address = door.local_addr().unwrap();
    let a = Arc::new(a);
    let dialling = a.clone();
    let attempt = tokio::spawn(async move { dialling.connect(RegionId::new(2).unwrap(), address).await });
    let incoming = door.accept().await.unwrap();
    ends(attempt);
    let outcome = timeout(HANDSHAKE_MAX, greet(incoming, &credentials, FRAME_BYTES_MAX)).await.unwrap();
    outcome.unwrap_err()
}

#[tokio::test]
async fn an_attempt_that_the_peer_gives_up_is_told_from_one_that_fails() {
    let error = greeted(|attempt| attempt.abort()).await;
    assert!(is_given_up(&error), "{error:?}");
    // Each of the two has an authority of its own.
    let error = greeted(drop).await;
    assert!(!is_given_up(&error), "{error:?}");
}
