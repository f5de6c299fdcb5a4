//! The doors: HTTP, RESP and QUIC for clients. They parse and print; the region behind them is a [`Service`].
//!
//! A door never decides what a write means: it turns bytes into one [`Op`](tombolo_codec::Op) type, takes every
//! request down the one path of `admission.rs`, and prints the answer or the [`Reject`](tombolo_codec::Reject). Start
//! with [`service`], then `admission.rs`, then the door in question: `http.rs`, `resp.rs`, `quic_door.rs`. What a door
//! has served is counted in its [`DoorStats`].

mod admission;
mod connections;
mod http;
mod quic_door;
pub mod reconciliation;
pub mod regions;
pub mod resp;
pub mod service;
mod stats;
pub mod status;

pub use http::{http_router, read_ops, serve_http};
pub use quic_door::serve_quic;
pub use resp::serve_resp;
pub use service::Service;
pub use stats::DoorStats;
