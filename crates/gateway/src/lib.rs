//! The doors: HTTP, RESP and QUIC for clients. They parse and print; the region behind them is a [`Service`].

pub mod service;
pub mod status;
