//! The door for SDK clients, both sides: [`ClientListener`] in the daemon, [`ClientEndpoint`] in the SDK.
//!
//! The region shows its certificate, the client none: it proves itself with a token in its first frame, which is the
//! layer above. Each connection carries streams of frames in both directions, opened by the client.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use quinn::{ClientConfig, ConnectError, Connection, Endpoint, Incoming, ServerConfig, VarInt};
use rustls::RootCertStore;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tombolo_causality::ClusterId;

use crate::endpoint::{CODE_CLOSED, admit, close, ended, listen, not_connected, open};
use crate::settings::{self, ACCEPTED_LINKS_MAX, ALPN_CLIENT, FAREWELL_MAX, FRAME_BYTES_MAX, HANDSHAKE_MAX};
use crate::tls::{self, Demand};
use crate::{CertificateName, FrameReader, FrameWriter, Identity, LinkError, Refusal, TransportError, pki};

/// What the client door can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorSettings {
    /// The limit of a frame's body, both ways.
    pub frame_bytes_max: usize,
    /// Connections at once, handshakes included; more are not answered.
    pub connections_max: usize,
    /// Streams at once per connection.
    pub streams_max: u32,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self { frame_bytes_max: FRAME_BYTES_MAX, connections_max: 1_024, streams_max: 16 }
    }
}

/// The region's side of the door.
#[derive(Debug)]
pub struct ClientListener {
    endpoint: Endpoint,
    address: SocketAddr,
    settings: DoorSettings,
    name: Mutex<CertificateName>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<ClientConnection>>,
}

impl ClientListener {
    /// Listens on `address` (UDP) with the region's certificate. Needs a tokio runtime.
    ///
    /// Errors: [`TransportError::Bind`], [`TransportError::Tls`].
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        settings: DoorSettings,
    ) -> Result<Self, TransportError> {
        let endpoint = listen(address, identity, ALPN_CLIENT, server(identity, settings)?)?;
        let bound = |e: std::io::Error| TransportError::Bind { address, detail: e.to_string() };
        let address = endpoint.local_addr().map_err(bound)?;
        let (connections, accepted) = mpsc::channel(ACCEPTED_LINKS_MAX);
        tokio::spawn(keep_door(endpoint.clone(), settings, connections));
        let name = Mutex::new(identity.name().clone());
        Ok(Self { endpoint, address, settings, name, accepted: tokio::sync::Mutex::new(accepted) })
    }

    /// The next connection. A bad handshake is logged and skipped. Safe to cancel.
    ///
    /// Errors: [`TransportError::Closed`] only.
    pub async fn accept(&self) -> Result<ClientConnection, TransportError> {
        self.accepted.lock().await.recv().await.ok_or(TransportError::Closed)
    }

    /// Where clients reach it.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Shows another certificate in all handshakes from here on. Connections that stand are left alone.
    ///
    /// Errors: [`TransportError::OtherIdentity`], [`TransportError::Tls`]; then everything stays as it was.
    pub fn reload(&self, identity: &Identity) -> Result<(), TransportError> {
        let name = self.name.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *name != *identity.name() {
            return Err(TransportError::OtherIdentity {
                expected: name.to_string(),
                seen: identity.name().to_string(),
            });
        }
        self.endpoint.set_server_config(Some(server(identity, self.settings)?));
        Ok(())
    }

    /// Closes all connections and takes no more; takes at most a second.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(CODE_CLOSED), b"the region shuts down");
        if timeout(FAREWELL_MAX, self.endpoint.wait_idle()).await.is_err() {
            tracing::debug!("some clients have not confirmed the farewell in time");
        }
    }
}

impl Drop for ClientListener {
    fn drop(&mut self) {
        // The door's task holds the endpoint too and ends with it.
        self.endpoint.close(VarInt::from_u32(CODE_CLOSED), b"the listener was dropped");
    }
}

fn server(identity: &Identity, settings: DoorSettings) -> Result<ServerConfig, TransportError> {
    let crypto = tls::server(identity, Demand::Nothing, ALPN_CLIENT)?;
    Ok(settings::server(crypto, settings::door(settings.streams_max)))
}

async fn keep_door(endpoint: Endpoint, settings: DoorSettings, connections: mpsc::Sender<ClientConnection>) {
    let permits = Arc::new(Semaphore::new(settings.connections_max));
    while let Some(incoming) = endpoint.accept().await {
        let remote = incoming.remote_address();
        let Some((incoming, permit)) = admit(incoming, &permits, settings.connections_max) else { continue };
        let connections = connections.clone();
        tokio::spawn(async move {
            let welcomed = async {
                let connection = handshake(incoming).await?;
                let connection = ClientConnection {
                    connection,
                    frame_bytes_max: settings.frame_bytes_max,
                    _permit: permit,
                };
                // Without a reader the connection is dropped, which closes it.
                let _ = connections.send(connection).await;
                Ok::<(), LinkError>(())
            };
            match timeout(HANDSHAKE_MAX, welcomed).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%remote, %error, "no connection with who connected"),
                Err(_) => tracing::debug!(%remote, "no connection with who connected: not done in time"),
            }
        });
    }
}

async fn handshake(incoming: Incoming) -> Result<Connection, LinkError> {
    incoming.accept().map_err(ended)?.await.map_err(ended)
}

/// A client, as its region sees it. Closes when dropped.
#[derive(Debug)]
pub struct ClientConnection {
    connection: Connection,
    frame_bytes_max: usize,
    _permit: OwnedSemaphorePermit,
}

impl ClientConnection {
    /// The next stream that the client has opened and written to. Safe to cancel.
    ///
    /// Errors: the connection is over.
    pub async fn accept_stream(&self) -> Result<(FrameWriter, FrameReader), LinkError> {
        let (send, recv) = self.connection.accept_bi().await.map_err(ended)?;
        Ok((FrameWriter::new(send, self.frame_bytes_max), FrameReader::new(recv, self.frame_bytes_max)))
    }

    /// Where the client is.
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Closes at once; `reason` (up to 256 bytes) is told to the client.
    pub fn close(&self, reason: &str) {
        close(&self.connection, CODE_CLOSED, reason);
    }

    /// Waits for the end of the connection and says why it ended.
    pub async fn closed(&self) -> LinkError {
        ended(self.connection.closed().await)
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        // Streams handed out hold the connection too and would outlive the permit.
        close(&self.connection, CODE_CLOSED, "the region has dropped the connection");
    }
}

/// Whom a client wants to reach. `None` leaves it to the cluster's CA, which vouches for every region.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// The cluster.
    pub cluster: Option<ClusterId>,
    /// The region's name.
    pub region: Option<String>,
}

impl Expected {
    fn judge(&self, name: &CertificateName) -> Result<(), Refusal> {
        if let Some(expected) = self.cluster
            && expected != name.cluster
        {
            return Err(Refusal::OtherCluster { expected, seen: name.cluster });
        }
        if let Some(expected) = &self.region
            && *expected != name.region
        {
            return Err(Refusal::WrongRegion { expected: expected.clone(), seen: name.region.clone() });
        }
        Ok(())
    }
}

/// The client's side of the door: one socket for connections to any number of regions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientEndpoint {
    endpoint: Endpoint,
    roots: Arc<RootCertStore>,
    authority_cluster: Option<ClusterId>,
    frame_bytes_max: usize,
}

impl ClientEndpoint {
    /// Trusts the regions of the cluster whose CA this is. Needs a tokio runtime.
    ///
    /// Errors: [`TransportError::Pki`], [`TransportError::Bind`].
    pub fn new(ca_pem: &str, frame_bytes_max: usize) -> Result<Self, TransportError> {
        let what = "the CA certificate";
        let roots = Arc::new(pki::roots(what, pki::certificates(what, ca_pem.as_bytes())?)?);
        // One socket for both families where the system has IPv6.
        let endpoint = open((Ipv6Addr::UNSPECIFIED, 0).into(), None)
            .or_else(|_| open((Ipv4Addr::UNSPECIFIED, 0).into(), None))?;
        let authority_cluster = pki::authority_cluster(ca_pem)?;
        Ok(Self { endpoint, roots, authority_cluster, frame_bytes_max })
    }

    /// Connects to a region. Safe to cancel.
    ///
    /// Errors: [`TransportError::Refused`] if who answers is not expected; [`TransportError::TimedOut`] and
    /// [`TransportError::Lost`]: try again or elsewhere.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expected: Expected,
    ) -> Result<RegionConnection, TransportError> {
        let expected = Expected { cluster: expected.cluster.or(self.authority_cluster), ..expected };
        let judge = Box::new(move |name: &CertificateName| expected.judge(name));
        let (crypto, refusal) = tls::client(self.roots.clone(), None, judge, ALPN_CLIENT)?;
        let mut config = ClientConfig::new(crypto);
        config.transport_config(settings::client());
        let connecting = self.endpoint.connect_with(config, address, tls::SERVER_NAME);
        let connecting = connecting.map_err(|error| match error {
            ConnectError::EndpointStopping => TransportError::Closed,
            other => TransportError::Address { address, detail: other.to_string() },
        })?;
        let connected = timeout(HANDSHAKE_MAX, connecting).await;
        let connection = connected
            .map_err(|_| TransportError::TimedOut { address })?
            .map_err(|error| not_connected(address, refusal.get(), ended(error)))?;
        let name =
            tls::peer_name(&connection).map_err(|refusal| TransportError::Refused { address, refusal })?;
        Ok(RegionConnection { connection, name, frame_bytes_max: self.frame_bytes_max })
    }

    /// Closes all connections; takes at most a second.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(CODE_CLOSED), b"the client has ended");
        if timeout(FAREWELL_MAX, self.endpoint.wait_idle()).await.is_err() {
            tracing::debug!("some regions have not confirmed the farewell in time");
        }
    }
}

/// A region, as its client sees it. Cheap to clone; closes with its last handle and stream.
#[derive(Debug, Clone)]
pub struct RegionConnection {
    connection: Connection,
    name: CertificateName,
    frame_bytes_max: usize,
}

impl RegionConnection {
    /// Opens a stream. The region sees it with its first frame.
    ///
    /// Errors: the connection is over. It waits while the region's limit of streams is reached.
    pub async fn open_stream(&self) -> Result<(FrameWriter, FrameReader), LinkError> {
        let (send, recv) = self.connection.open_bi().await.map_err(ended)?;
        Ok((FrameWriter::new(send, self.frame_bytes_max), FrameReader::new(recv, self.frame_bytes_max)))
    }

    /// Cluster and region, by the certificate.
    pub fn name(&self) -> &CertificateName {
        &self.name
    }

    /// Where the region is.
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// The smoothed round trip time.
    pub fn rtt(&self) -> std::time::Duration {
        self.connection.rtt()
    }

    /// Closes at once; `reason` (up to 256 bytes) is told to the region.
    pub fn close(&self, reason: &str) {
        close(&self.connection, CODE_CLOSED, reason);
    }

    /// Waits for the end of the connection and says why it ended.
    pub async fn closed(&self) -> LinkError {
        ended(self.connection.closed().await)
    }
}
