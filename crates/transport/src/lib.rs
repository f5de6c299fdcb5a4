//! Carries opaque frames between regions, and between clients and a region.
//!
//! The crate knows what a frame is (a kind and a body with a length limit), who sent it (a region, by its
//! certificate, R7) and in which order (per channel). It never looks into a body and knows nothing of batches.
//!
//! - [`Transport`] and [`Link`]: the seam to the daemon; start in `link.rs`.
//! - [`QuicTransport`]: the real thing, one mutually authenticated QUIC connection per pair of regions.
//! - [`Hub`]: the same traits inside one process, with partitions on demand, for tests.
//! - [`ClientListener`] and [`ClientEndpoint`]: the door for SDK clients, both sides of it.
//! - [`Authority`] and [`Identity`]: the cluster's own CA and the certificates it issues.
//!
//! Every number of the QUIC set-up stands in `settings.rs` with its reason.

mod authority;
mod bbr;
mod client;
mod endpoint;
mod frame;
mod gathering;
mod identity;
mod in_process;
mod link;
mod pki;
mod quic;
mod quic_link;
mod settings;
mod streams;
mod tls;

pub use authority::{Authority, Issued, create_authority};
pub use client::{
    ClientConnection, ClientEndpoint, ClientListener, DoorSettings, Expected, RegionConnection,
};
pub use frame::{Frame, FrameDecoder, FrameError, encode_frames};
pub use identity::{CertificateName, Members, NameError, Refusal, region_name_is_valid};
pub use in_process::{Hub, InProcess, InProcessLink};
pub use link::{Channel, LANES_MAX, Link, LinkError, Transport, TransportError};
pub use pki::{Identity, PkiError, authority_cluster, certificate_name};
pub use quic::{QuicSettings, QuicTransport};
pub use quic_link::{LinkStats, QuicLink};
pub use settings::{ALPN_CLIENT, ALPN_PEER, Congestion, FRAME_BYTES_MAX, Tuning};
pub use streams::{FrameReader, FrameWriter};
