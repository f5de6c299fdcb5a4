//! Real daemons under test: processes on loopback, a network that can be hurt, real input and what it must add up to.
//!
//! Shared by `tombolo demo`, `tombolo bench` and the acceptance tests. Never part of a daemon: nothing here is linked
//! into what serves. Start with [`cluster::TestCluster`], which stands a [`relay::Relay`] between its regions; then
//! [`flights::Flights`] for what to write and [`oracle::Oracle`] for what must come of it.

pub mod cluster;
pub mod flights;
pub mod machine;
pub mod oracle;
pub mod percentiles;
pub mod relay;
pub mod report;
