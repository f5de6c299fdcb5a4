//! The transport between regions: one UDP socket, mutual TLS, links to whoever is a member.
//!
//! It dials when told to and takes what comes; who dials whom and when again is the daemon's matter. Start at
//! [`QuicTransport::bind`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use quinn::{ClientConfig, ConnectError, Endpoint, Incoming, ServerConfig, VarInt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tombolo_causality::RegionId;

use crate::endpoint::{CODE_CLOSED, CODE_REFUSED, admit, close, ended, listen, not_connected};
use crate::settings::{
    self, ACCEPTED_LINKS_MAX, ALPN_PEER, FAREWELL_MAX, FRAME_BYTES_MAX, HANDSHAKE_MAX, HANDSHAKES_MAX, Tuning,
};
use crate::tls::{self, Demand};
use crate::{CertificateName, Identity, LinkError, Members, QuicLink, Refusal, Transport, TransportError};

/// What a peer transport can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuicSettings {
    /// The limit of a frame's body, both ways.
    pub frame_bytes_max: usize,
    /// What matters on a long path.
    pub tuning: Tuning,
}

impl Default for QuicSettings {
    fn default() -> Self {
        Self { frame_bytes_max: FRAME_BYTES_MAX, tuning: Tuning::default() }
    }
}

/// Links between regions over QUIC.
#[derive(Debug)]
pub struct QuicTransport {
    endpoint: Endpoint,
    address: SocketAddr,
    settings: QuicSettings,
    credentials: Arc<Mutex<Arc<Credentials>>>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<QuicLink>>,
}

/// Who this node is and whom it takes; replaced as a whole.
#[derive(Debug)]
struct Credentials {
    identity: Identity,
    members: Members,
    own: RegionId,
}

impl Credentials {
    fn new(identity: Identity, members: Members) -> Result<Self, TransportError> {
        let own = members.admit(identity.name()).map_err(|refusal| TransportError::NotAMember {
            cluster: identity.name().cluster.to_string(),
            name: identity.name().region.clone(),
            refusal,
        })?;
        Ok(Self { identity, members, own })
    }

    fn admit(&self, name: &CertificateName) -> Result<RegionId, Refusal> {
        let region = self.members.admit(name)?;
        if region == self.own {
            return Err(Refusal::OwnRegion { name: name.region.clone() });
        }
        Ok(region)
    }

    fn server(&self, tuning: &Tuning) -> Result<ServerConfig, TransportError> {
        let crypto = tls::server(&self.identity, Demand::Certificate, ALPN_PEER)?;
        Ok(settings::server(crypto, settings::peer(tuning)))
    }
}

impl QuicTransport {
    /// Listens on `address` (UDP) as the region that `identity` names. Needs a tokio runtime.
    ///
    /// Errors: [`TransportError::NotAMember`], [`TransportError::Bind`], [`TransportError::Tls`].
    pub fn bind(
        address: SocketAddr,
        identity: Identity,
        members: Members,
        settings: QuicSettings,
    ) -> Result<Self, TransportError> {
        let credentials = Credentials::new(identity, members)?;
        let server = credentials.server(&settings.tuning)?;
        let endpoint = listen(address, &credentials.identity, ALPN_PEER, server)?;
        let bound = |e: std::io::Error| TransportError::Bind { address, detail: e.to_string() };
        let address = endpoint.local_addr().map_err(bound)?;
        let credentials = Arc::new(Mutex::new(Arc::new(credentials)));
        let (links, accepted) = mpsc::channel(ACCEPTED_LINKS_MAX);
        let doorkeeper = Doorkeeper {
            endpoint: endpoint.clone(),
            credentials: credentials.clone(),
            frame_bytes_max: settings.frame_bytes_max,
            links,
        };
        tokio::spawn(doorkeeper.run());
        Ok(Self { endpoint, address, settings, credentials, accepted: tokio::sync::Mutex::new(accepted) })
    }

    /// Uses other certificates or members for all handshakes from here on. Links that stand are left alone.
    ///
    /// Errors: [`TransportError::OtherIdentity`], [`TransportError::NotAMember`], [`TransportError::Tls`]; then
    /// everything stays as it was.
    pub fn reload(&self, identity: Identity, members: Members) -> Result<(), TransportError> {
        let before = self.credentials();
        let credentials = Credentials::new(identity, members)?;
        if credentials.own != before.own {
            return Err(TransportError::OtherIdentity {
                expected: before.identity.name().region.clone(),
                seen: credentials.identity.name().region.clone(),
            });
        }
        let server = credentials.server(&self.settings.tuning)?;
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
        self.endpoint.set_server_config(Some(server));
        Ok(())
    }

    /// Takes other members over for new connections; those that stand go on.
    ///
    /// Errors: as [`Self::reload`].
    pub fn set_members(&self, members: Members) -> Result<(), TransportError> {
        self.reload(self.credentials().identity.clone(), members)
    }

    fn credentials(&self) -> Arc<Credentials> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn dial(&self, peer: RegionId, address: SocketAddr) -> Result<QuicLink, TransportError> {
        let credentials = self.credentials();
        let expected = credentials.members.name(peer).ok_or(TransportError::UnknownPeer { peer })?.to_owned();
        let judged = credentials.clone();
        let judge = Box::new(move |name: &CertificateName| {
            if judged.members.admit(name)? != peer {
                return Err(Refusal::WrongRegion { expected: expected.clone(), seen: name.region.clone() });
            }
            judged.admit(name).map(|_| ())
        });
        let identity = &credentials.identity;
        let (crypto, refusal) = tls::client(identity.roots.clone(), Some(identity), judge, ALPN_PEER)?;
        let mut config = ClientConfig::new(crypto);
        config.transport_config(settings::peer(&self.settings.tuning));
        let connecting = self.endpoint.connect_with(config, address, tls::SERVER_NAME);
        let connecting = connecting.map_err(|error| match error {
            ConnectError::EndpointStopping => TransportError::Closed,
            other => TransportError::Address { address, detail: other.to_string() },
        })?;
        let failed = |error| not_connected(address, refusal.get(), error);
        let connection = connecting.await.map_err(|error| failed(ended(error)))?;
        let link = QuicLink::new(connection, peer, self.settings.frame_bytes_max);
        link.welcomed().await.map_err(failed)?;
        Ok(link)
    }
}

impl Transport for QuicTransport {
    type Link = QuicLink;

    async fn connect(&self, peer: RegionId, address: SocketAddr) -> Result<QuicLink, TransportError> {
        let dialled = timeout(HANDSHAKE_MAX, Box::pin(self.dial(peer, address))).await;
        dialled.map_err(|_| TransportError::TimedOut { address })?
    }

    async fn accept(&self) -> Result<QuicLink, TransportError> {
        self.accepted.lock().await.recv().await.ok_or(TransportError::Closed)
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }

    async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(CODE_CLOSED), b"the region shuts down");
        if timeout(FAREWELL_MAX, self.endpoint.wait_idle()).await.is_err() {
            tracing::debug!("some peers have not confirmed the farewell in time");
        }
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        // The doorkeeper holds the endpoint too and ends with it.
        self.endpoint.close(VarInt::from_u32(CODE_CLOSED), b"the transport was dropped");
    }
}

/// Takes handshakes in, many at a time, and hands over what comes out of them.
struct Doorkeeper {
    endpoint: Endpoint,
    credentials: Arc<Mutex<Arc<Credentials>>>,
    frame_bytes_max: usize,
    links: mpsc::Sender<QuicLink>,
}

impl Doorkeeper {
    async fn run(self) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        while let Some(incoming) = self.endpoint.accept().await {
            let remote = incoming.remote_address();
            let Some((incoming, permit)) = admit(incoming, &handshakes, HANDSHAKES_MAX) else { continue };
            let credentials = self.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (links, frame_bytes_max) = (self.links.clone(), self.frame_bytes_max);
            tokio::spawn(async move {
                let _permit = permit;
                let greeted = async {
                    let link = greet(incoming, &credentials, frame_bytes_max).await?;
                    // Without a reader the link is dropped, which closes it.
                    let _ = links.send(link).await;
                    Ok::<(), TransportError>(())
                };
                match timeout(HANDSHAKE_MAX, greeted).await {
                    Ok(Ok(())) => {}
                    // Who dials makes several attempts and drops all but the first that stands.
                    Ok(Err(error)) if is_given_up(&error) => {
                        tracing::debug!(%remote, %error, "who connected gave the attempt up");
                    }
                    Ok(Err(error)) => tracing::warn!(%remote, %error, "no link with who connected"),
                    Err(_) => tracing::warn!(%remote, "no link with who connected: not done in time"),
                }
            });
        }
    }
}

/// Whether the peer itself ended the attempt, in good order.
const fn is_given_up(error: &TransportError) -> bool {
    matches!(error, TransportError::Lost { error: LinkError::ClosedByPeer { .. }, .. })
}

async fn greet(
    incoming: Incoming,
    credentials: &Credentials,
    frame_bytes_max: usize,
) -> Result<QuicLink, TransportError> {
    let address = incoming.remote_address();
    let lost = |error: LinkError| not_connected(address, None, error);
    let connecting = incoming.accept().map_err(|error| lost(ended(error)))?;
    let connection = connecting.await.map_err(|error| lost(ended(error)))?;
    let peer = match tls::peer_name(&connection).and_then(|name| credentials.admit(&name)) {
        Ok(peer) => peer,
        Err(refusal) => {
            close(&connection, CODE_REFUSED, &refusal.to_string());
            return Err(TransportError::Refused { address, refusal });
        }
    };
    let link = QuicLink::new(connection, peer, frame_bytes_max);
    link.welcome().await.map_err(lost)?;
    Ok(link)
}

#[cfg(test)]
mod tests;
