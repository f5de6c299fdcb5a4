//! What both doors do alike: open the UDP socket, take handshakes in within bounds, and name why a connection ended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, Incoming, ServerConfig, TransportErrorCode, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::gathering::GatheringRuntime;
use crate::settings::{self, SOCKET_BUFFER_BYTES};
use crate::{Identity, LinkError, Refusal, TransportError};

/// Closed in good order.
pub(crate) const CODE_CLOSED: u32 = 0;
/// Who connects is not accepted.
pub(crate) const CODE_REFUSED: u32 = 1;
/// The other side broke the protocol.
pub(crate) const CODE_PROTOCOL: u32 = 2;
/// A reason travels in one packet.
const REASON_BYTES_MAX: usize = 256;
/// QUIC's codes for a TLS alert (RFC 9001 section 4.8).
const TLS_ALERT_CODES: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

/// Opens a socket with large buffers and puts QUIC on it.
///
/// Errors: [`TransportError::Bind`].
pub(crate) fn open(address: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint, TransportError> {
    open_with(address, settings::endpoint(), server)
}

/// The same for whoever listens as `identity`, for the protocol `alpn`.
///
/// Errors: [`TransportError::Bind`].
pub(crate) fn listen(
    address: SocketAddr,
    identity: &Identity,
    alpn: &[u8],
    server: ServerConfig,
) -> Result<Endpoint, TransportError> {
    open_with(address, settings::listening_endpoint(identity, alpn), Some(server))
}

fn open_with(
    address: SocketAddr,
    config: EndpointConfig,
    server: Option<ServerConfig>,
) -> Result<Endpoint, TransportError> {
    let bound = |error: io::Error| TransportError::Bind { address, detail: error.to_string() };
    let socket = socket(address).map_err(bound)?;
    Endpoint::new(config, server, socket, Arc::new(GatheringRuntime)).map_err(bound)
}

fn socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6()
        && let Err(error) = socket.set_only_v6(false)
    {
        tracing::debug!(%error, "the socket serves IPv6 alone");
    }
    // The kernel may grant less; the link then works, with more loss under load.
    let sizes = socket
        .set_recv_buffer_size(SOCKET_BUFFER_BYTES)
        .and_then(|()| socket.set_send_buffer_size(SOCKET_BUFFER_BYTES));
    if let Err(error) = sizes {
        tracing::debug!(%error, wanted_bytes = SOCKET_BUFFER_BYTES, "the socket keeps its default buffers");
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Decides whether a first packet becomes a handshake.
///
/// Beyond half of the permits a sender must first show that its address is its own; without a permit it is left to
/// retransmit.
pub(crate) fn admit(
    incoming: Incoming,
    handshakes: &Arc<Semaphore>,
    handshakes_max: usize,
) -> Option<(Incoming, OwnedSemaphorePermit)> {
    let crowded = handshakes.available_permits() <= handshakes_max / 2;
    if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
        if let Err(error) = incoming.retry() {
            tracing::debug!(%error, "a first packet could not be answered with a retry");
        }
        return None;
    }
    match handshakes.clone().try_acquire_owned() {
        Ok(permit) => Some((incoming, permit)),
        Err(_) => {
            incoming.ignore();
            None
        }
    }
}

/// Closes with a reason that fits a packet.
pub(crate) fn close(connection: &Connection, code: u32, reason: &str) {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    connection.close(VarInt::from_u32(code), &reason.as_bytes()[..end]);
}

/// Why a connection ended, in this crate's words.
pub(crate) fn ended(error: ConnectionError) -> LinkError {
    let words =
        |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(REASON_BYTES_MAX)]).into_owned();
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let reason = words(&close.reason);
            if close.error_code == VarInt::from_u32(CODE_REFUSED) {
                LinkError::RefusedByPeer { reason }
            } else {
                LinkError::ClosedByPeer { reason }
            }
        }
        ConnectionError::ConnectionClosed(close)
            if TLS_ALERT_CODES.contains(&u64::from(close.error_code)) =>
        {
            LinkError::RefusedByPeer { reason: format!("{}: {}", close.error_code, words(&close.reason)) }
        }
        // What an application says in closing is left out while the handshake is not done (RFC 9000 section 10.2.3).
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::APPLICATION_ERROR =>
        {
            LinkError::ClosedByPeer { reason: "before the handshake was done".to_owned() }
        }
        ConnectionError::TimedOut => LinkError::TimedOut,
        ConnectionError::LocallyClosed => LinkError::Closed,
        other => LinkError::Lost { detail: other.to_string() },
    }
}

/// What a failed attempt to connect means, given what the verifier said about who answered.
pub(crate) fn not_connected(
    address: SocketAddr,
    refusal: Option<&Refusal>,
    error: LinkError,
) -> TransportError {
    if let Some(refusal) = refusal {
        return TransportError::Refused { address, refusal: refusal.clone() };
    }
    match error {
        LinkError::TimedOut => TransportError::TimedOut { address },
        LinkError::RefusedByPeer { reason } => TransportError::RefusedByPeer { address, reason },
        LinkError::Closed => TransportError::Closed,
        error => TransportError::Lost { address, error },
    }
}
