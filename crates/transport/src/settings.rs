//! The numbers of QUIC, each with its reason. It opens nothing.
//!
//! Reference path: 1 Gbit/s, 80 ms round trip, up to 0.1 % loss; bandwidth × delay is 10 MB (design.md §3.5).

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
};
use quinn_proto::RandomConnectionIdGenerator;

use crate::Identity;
use crate::bbr::CappedBbrConfig;
use crate::link::CHANNELS_COUNT;

/// The protocol between regions.
pub const ALPN_PEER: &[u8] = b"tombolo-peer/1";
/// The protocol between a client and a region.
pub const ALPN_CLIENT: &[u8] = b"tombolo-client/1";
/// The usual limit of a frame's body: a batch of 4 MiB and its header.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024 + 1024;

/// Above 2 × 1,024 × 1,200 bytes a stream can have more than 1,024 gaps, and quinn then ends the connection.
const STREAM_WINDOW_BYTES: u32 = 2_400_000;
/// Room for every channel's whole window: a lane that nobody reads never takes the credit of another channel. It is
/// also all the memory a peer can fill here.
const PEER_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * CHANNELS_COUNT as u32;
/// 1.2 × bandwidth × delay. Above it BBR fills the bottleneck's queue: a fifth of all bytes is sent twice. With a
/// receive window of this size in its stead, the lanes use up the credit whenever a loss holds one back: at 1 % loss 67
/// MB/s pass instead of 122, and every twentieth control frame takes 659 ms one way instead of 68.
const PEER_IN_FLIGHT_BYTES_MAX: u64 = 12_000_000;
/// What may wait here for a peer's acknowledgement: every channel's window and what the acknowledged part of a large
/// frame still holds.
const PEER_SEND_WINDOW_BYTES: u64 = PEER_WINDOW_BYTES as u64 + 8_000_000;
/// With quinn's 14 KiB the first MiB takes 684 ms at 80 ms round trip, with this 210.
const INITIAL_WINDOW_BYTES: u64 = 1024 * 1024;
/// Bounds the silence after a short cut: packets are tried again at this pace instead of quinn's doubling one.
const PEER_KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Four lost keep-alives. A peer's absence is an event for barriers and lag, so it must be known soon.
const PEER_IDLE_MAX: Duration = Duration::from_secs(2);
/// One control stream and 16 lanes, twice.
const PEER_STREAMS_MAX: u32 = 32;

/// A client is near: 1 Gbit/s at 20 ms is 2.5 MB, and there are many of them.
const CLIENT_WINDOW_BYTES: u32 = 3 * STREAM_WINDOW_BYTES;
/// The client keeps its connection alive; the region does not wake for idle clients.
const CLIENT_KEEP_ALIVE: Duration = Duration::from_millis(1_500);
/// Four lost keep-alives.
const CLIENT_IDLE_MAX: Duration = Duration::from_secs(6);

/// With ten GSO segments, 6,500 bytes is what fits a 64 KiB send. Larger ones are silently lost.
const MTU_BYTES_MAX: u16 = 6_500;
/// What every path carries; discovery raises it.
const MTU_BYTES_INITIAL: u16 = 1_200;
/// The kernel's usual ceiling. Less loses packets whenever the process is not scheduled for some milliseconds.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// A handshake is two round trips; at 300 ms and with a loss it still fits.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// What a farewell may take.
pub(crate) const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// Handshakes going on at once. Each costs two signatures and some 20 KiB; members are few, so this is a flood's bound.
pub(crate) const HANDSHAKES_MAX: usize = 64;
/// First packets that wait for a decision, and their bytes: quinn's own bounds are 65,536 and 100 MiB.
const INCOMING_MAX: usize = 1_024;
const INCOMING_BUFFER_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Under one reset key no id may come twice, or the token of an ended connection would end another one (RFC 9000
/// section 10.3.2): 96 random bits.
const CONNECTION_ID_BYTES: usize = 12;
/// A thousand resets a second: all clients of a region that was restarted learn of it within two of their packets. quinn's
/// own pace is fifty. A reset is smaller than the packet it answers.
const RESET_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// Links that are made and not yet accepted.
pub(crate) const ACCEPTED_LINKS_MAX: usize = 16;

/// How the sender finds its pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// BBR under a ceiling of twice what the path delivers in a round trip.
    CappedBbr,
    /// BBR as quinn has it.
    Bbr,
    /// CUBIC as quinn has it.
    Cubic,
}

/// What matters on a long path. The defaults are what `cargo bench --bench wan` found best over 80 to 200 ms and 0 to
/// 10 % loss; that is also what else the values are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// How the sender finds its pace.
    pub congestion: Congestion,
    /// What one channel may have on its way, in bytes.
    pub stream_window_bytes: u32,
    /// What all of them may, in bytes; only [`Congestion::CappedBbr`] keeps to it.
    pub in_flight_bytes_max: u64,
    /// What may be on its way before anything is known about the path, in bytes.
    pub initial_window_bytes: u64,
    /// The largest datagram that discovery tries, in bytes.
    pub mtu_bytes_max: u16,
    /// Whether the peer is asked to acknowledge less often than every second packet.
    pub has_rare_acks: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            congestion: Congestion::CappedBbr,
            stream_window_bytes: STREAM_WINDOW_BYTES,
            in_flight_bytes_max: PEER_IN_FLIGHT_BYTES_MAX,
            initial_window_bytes: INITIAL_WINDOW_BYTES,
            mtu_bytes_max: MTU_BYTES_MAX,
            has_rare_acks: false,
        }
    }
}

/// Between regions.
pub(crate) fn peer(tuning: &Tuning) -> Arc<TransportConfig> {
    let mut config = common(tuning, PEER_IDLE_MAX);
    config
        .receive_window(VarInt::from_u32(PEER_WINDOW_BYTES))
        .send_window(PEER_SEND_WINDOW_BYTES)
        .keep_alive_interval(Some(PEER_KEEP_ALIVE))
        .max_concurrent_uni_streams(VarInt::from_u32(PEER_STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(0));
    Arc::new(config)
}

/// A region towards its clients.
pub(crate) fn door(streams_max: u32) -> Arc<TransportConfig> {
    let mut config = common(&near(), CLIENT_IDLE_MAX);
    config
        .receive_window(VarInt::from_u32(CLIENT_WINDOW_BYTES))
        .send_window(2 * u64::from(CLIENT_WINDOW_BYTES))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(streams_max));
    Arc::new(config)
}

/// A client towards a region.
pub(crate) fn client() -> Arc<TransportConfig> {
    let mut config = common(&near(), CLIENT_IDLE_MAX);
    config
        .receive_window(VarInt::from_u32(CLIENT_WINDOW_BYTES))
        .send_window(2 * u64::from(CLIENT_WINDOW_BYTES))
        .keep_alive_interval(Some(CLIENT_KEEP_ALIVE))
        // The region opens no streams.
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(0));
    Arc::new(config)
}

/// Of clients and towards them.
fn near() -> Tuning {
    Tuning { in_flight_bytes_max: u64::from(CLIENT_WINDOW_BYTES), ..Tuning::default() }
}

fn controller(tuning: &Tuning) -> Arc<dyn ControllerFactory + Send + Sync> {
    let mut bbr = BbrConfig::default();
    bbr.initial_window(tuning.initial_window_bytes);
    let mut cubic = CubicConfig::default();
    cubic.initial_window(tuning.initial_window_bytes);
    match tuning.congestion {
        // CUBIC falls to 0.7 MB/s at 0.1 % loss on the reference path, BBR keeps 92.
        Congestion::CappedBbr => {
            let in_flight_bytes_max = tuning.in_flight_bytes_max;
            Arc::new(CappedBbrConfig { bbr: Arc::new(bbr), in_flight_bytes_max })
        }
        Congestion::Bbr => Arc::new(bbr),
        Congestion::Cubic => Arc::new(cubic),
    }
}

fn common(tuning: &Tuning, idle_max: Duration) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(tuning.mtu_bytes_max);
    let mut config = TransportConfig::default();
    config
        .congestion_controller_factory(controller(tuning))
        .ack_frequency_config(tuning.has_rare_acks.then(AckFrequencyConfig::default))
        .stream_receive_window(VarInt::from_u32(tuning.stream_window_bytes))
        .max_idle_timeout(Some(IdleTimeout::try_from(idle_max).expect("some seconds fit a varint")))
        .initial_mtu(MTU_BYTES_INITIAL)
        .min_mtu(MTU_BYTES_INITIAL)
        .mtu_discovery_config(Some(mtu))
        // Nothing here uses datagrams; without a buffer none can be sent to us.
        .datagram_receive_buffer_size(None);
    config
}

/// Of whoever listens.
pub(crate) fn server(crypto: Arc<QuicServerConfig>, transport: Arc<TransportConfig>) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(crypto);
    config
        .transport_config(transport)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size_total(INCOMING_BUFFER_BYTES_MAX);
    config
}

/// Of the socket of whoever dials only: quinn's defaults, but for what it may receive, which caps what the other side's
/// discovery finds.
pub(crate) fn endpoint() -> EndpointConfig {
    with_bounds(EndpointConfig::default())
}

/// Of the socket of whoever listens, as `identity`, for the protocol `alpn`.
///
/// Resets are signed with a key that outlives the process: who still speaks to the one before learns at once that its
/// connection is gone. Each protocol has a key of its own, because they are different sockets, and a token shown by one
/// must not end a connection of the other.
pub(crate) fn listening_endpoint(identity: &Identity, alpn: &[u8]) -> EndpointConfig {
    let key = identity.derived_key(&[b"tombolo stateless reset ", alpn].concat());
    let mut config = EndpointConfig::new(Arc::new(key));
    config
        // quinn's own generator tells a stranger's packet by a key that it draws at each start.
        .cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID_BYTES)))
        .min_reset_interval(RESET_INTERVAL_MIN);
    with_bounds(config)
}

fn with_bounds(mut config: EndpointConfig) -> EndpointConfig {
    config.max_udp_payload_size(MTU_BYTES_MAX).expect("the bound is above the least of QUIC");
    config
}
