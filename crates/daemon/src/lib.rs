//! tombolo-daemon

pub mod config;
