//! The seam between the daemon and whatever carries its frames: [`Transport`] makes [`Link`]s to other regions.
//!
//! Nothing here opens a socket. Every implementation passes the same suite, `tests/conformance.rs`.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tombolo_causality::RegionId;

use crate::{Frame, FrameError, PkiError, Refusal};

/// Lanes of a link.
pub const LANES_MAX: u8 = 16;
/// The control channel and all lanes.
pub(crate) const CHANNELS_COUNT: usize = LANES_MAX as usize + 1;

/// An ordered stream of frames inside a link. Channels never wait for one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Hello, acks, heartbeats, digests: small, never behind bulk.
    Control,
    /// Logs. A log keeps to its lane; 0..[`LANES_MAX`].
    Lane(u8),
}

impl Channel {
    /// The place in an array of [`CHANNELS_COUNT`], also the first byte of the channel's stream.
    ///
    /// Errors: [`LinkError::LaneOutOfRange`].
    pub(crate) fn index(self) -> Result<u8, LinkError> {
        match self {
            Self::Control => Ok(0),
            Self::Lane(lane) if lane < LANES_MAX => Ok(lane + 1),
            Self::Lane(lane) => Err(LinkError::LaneOutOfRange { lane }),
        }
    }

    pub(crate) fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::Control),
            index if usize::from(index) < CHANNELS_COUNT => Some(Self::Lane(index - 1)),
            _ => None,
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::Lane(lane) => write!(f, "lane {lane}"),
        }
    }
}

/// Makes links to other regions and takes theirs.
pub trait Transport: Send + Sync + 'static {
    /// The handle of one connection.
    type Link: Link;

    /// Dials `address` and returns once both sides have accepted each other. Safe to cancel.
    ///
    /// Errors: [`TransportError::Refused`] if who answers is not `peer`; [`TransportError::RefusedByPeer`] if the peer
    /// does not take us (both need an operator); [`TransportError::TimedOut`] and [`TransportError::Lost`] otherwise:
    /// try again.
    fn connect(
        &self,
        peer: RegionId,
        address: SocketAddr,
    ) -> impl Future<Output = Result<Self::Link, TransportError>> + Send;

    /// The next authenticated incoming link. A bad handshake is logged and skipped. Safe to cancel.
    ///
    /// Errors: [`TransportError::Closed`] only.
    fn accept(&self) -> impl Future<Output = Result<Self::Link, TransportError>> + Send;

    /// Where other regions reach this transport.
    fn local_address(&self) -> SocketAddr;

    /// Closes all links and takes no more. Tells the peers; takes at most a second.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// A connection to one region. Cheap to clone; the connection closes with its last handle.
pub trait Link: Clone + fmt::Debug + Send + Sync + 'static {
    /// Who is at the other end: by its certificate, never by a claim (R7).
    fn peer(&self) -> RegionId;

    /// Writes frames to a channel, in order, and waits while the peer does not take them.
    ///
    /// If the future is dropped, the frames not yet written follow with the next call on this channel: a frame is never
    /// torn. One task per channel, or the order between tasks is not defined.
    ///
    /// Errors: [`LinkError::Frame`] for a frame above the limit, [`LinkError::LaneOutOfRange`]: nothing was sent, the
    /// link lives on. All others: the link is over.
    fn send(
        &self,
        channel: Channel,
        frames: Vec<Frame>,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// The next frame of a channel. Safe to cancel; one task per channel.
    ///
    /// A channel that nobody reads holds up its own sender and no other channel.
    ///
    /// Errors: [`LinkError::Ended`] when the peer has finished the channel; all others: the link is over.
    fn recv(&self, channel: Channel) -> impl Future<Output = Result<Frame, LinkError>> + Send;

    /// Ends all outgoing channels and waits, at most a second, until the peer has what was sent.
    fn finish(&self) -> impl Future<Output = ()> + Send;

    /// The smoothed round trip time.
    fn rtt(&self) -> Duration;

    /// Closes the link at once; `reason` (up to 256 bytes) is told to the peer.
    fn close(&self, reason: &str);

    /// Waits for the end of the link and says why it ended.
    fn closed(&self) -> impl Future<Output = LinkError> + Send;
}

/// Why a link does not carry a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A frame that breaks the format or the limit. On receiving, the link is closed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A lane above the last.
    #[error("lane {lane} is outside 0..{LANES_MAX}")]
    LaneOutOfRange {
        /// What was asked for.
        lane: u8,
    },
    /// The peer opened a stream whose first byte names no channel.
    #[error("the peer opened a stream for channel {index}, known are 0..={LANES_MAX}")]
    UnknownChannel {
        /// The stream's first byte.
        index: u8,
    },
    /// The peer opened a second stream for a channel.
    #[error("the peer opened {channel} twice")]
    ChannelTwice {
        /// Which one.
        channel: Channel,
    },
    /// The peer has ended this channel in good order.
    #[error("the peer has ended the channel")]
    Ended,
    /// This side closed the link.
    #[error("closed here")]
    Closed,
    /// The peer closed the link and said why.
    #[error("closed by the peer: {reason}")]
    ClosedByPeer {
        /// The peer's words.
        reason: String,
    },
    /// The peer does not accept this side: its certificate, name or cluster.
    #[error("refused by the peer: {reason}")]
    RefusedByPeer {
        /// The peer's words.
        reason: String,
    },
    /// Nothing was heard from the peer for the idle timeout.
    #[error("nothing heard from the peer, timed out")]
    TimedOut,
    /// The connection broke in another way.
    #[error("connection lost: {detail}")]
    Lost {
        /// What the connection said.
        detail: String,
    },
}

/// Why a transport gives no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The socket could not be opened.
    #[error("cannot listen on {address}: {detail}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        detail: String,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The identity cannot be used for TLS.
    #[error("TLS cannot be set up: {detail}")]
    Tls {
        /// What the TLS library said.
        detail: String,
    },
    /// This side's certificate names no member.
    #[error(
        "the own certificate names region `{name}` of cluster {cluster}, which is no member here: {refusal}"
    )]
    NotAMember {
        /// The cluster in the certificate.
        cluster: String,
        /// The region in the certificate.
        name: String,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// A reload that would make this node another region.
    #[error("the new certificate names region `{seen}`, this node is `{expected}`")]
    OtherIdentity {
        /// The region of this node.
        expected: String,
        /// The region in the new certificate.
        seen: String,
    },
    /// The peer to dial is no member.
    #[error("region {peer} is no member")]
    UnknownPeer {
        /// Who was to be dialled.
        peer: RegionId,
    },
    /// The address cannot be dialled from this socket.
    #[error("cannot dial {address}: {detail}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        detail: String,
    },
    /// This side does not accept who answered.
    #[error("{address} refused: {refusal}")]
    Refused {
        /// Who answered.
        address: SocketAddr,
        /// Why it was refused.
        refusal: Refusal,
    },
    /// The peer does not accept this side.
    #[error("{address} refused this region: {reason}")]
    RefusedByPeer {
        /// Who answered.
        address: SocketAddr,
        /// The peer's words.
        reason: String,
    },
    /// No answer in time.
    #[error("{address} did not answer in time")]
    TimedOut {
        /// Who was dialled.
        address: SocketAddr,
    },
    /// The connection ended while it was being made.
    #[error("{address}: {error}")]
    Lost {
        /// Who was dialled.
        address: SocketAddr,
        /// Why it ended.
        error: LinkError,
    },
    /// The transport is closed.
    #[error("the transport is closed")]
    Closed,
}
