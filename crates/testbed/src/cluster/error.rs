//! Why a cluster of daemons does not do what it should, with what the reader needs to see why.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use super::binary::BinaryError;
use super::ports::PortsError;
use crate::relay::RelayError;

/// Why a cluster does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No binary to run.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// No ports to listen on.
    #[error(transparent)]
    Ports(#[from] PortsError),
    /// The relay.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// `init` refused.
    #[error("`tombolo init` failed ({status}): {output}")]
    Init {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// A name that is not a region of this cluster.
    #[error("the cluster has no region `{0}`")]
    UnknownRegion(String),
    /// The region has no process.
    #[error("the daemon of `{0}` is not running")]
    NotRunning(String),
    /// The region has a process already.
    #[error("the daemon of `{0}` is running already")]
    Running(String),
    /// The daemon ended while it was awaited.
    #[error("the daemon of `{name}` ended ({status}); its log ends:\n{log}")]
    Ended {
        /// Which region.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The daemon did not do something in time.
    #[error("the daemon of `{name}` is not {what} after {waited:?} ({last}); its log ends:\n{log}")]
    Late {
        /// Which region.
        name: String,
        /// What was awaited.
        what: &'static str,
        /// How long.
        waited: Duration,
        /// What the last attempt showed.
        last: String,
        /// The end of its log.
        log: String,
    },
    /// The regions are still apart.
    #[error("regions are not equal after {waited:?}: {last}")]
    Apart {
        /// How long.
        waited: Duration,
        /// What the last look showed.
        last: String,
    },
    /// Equal version vectors with unequal digests: invariant C2 is broken.
    #[error("state is not a function of the version vector: {0}")]
    Diverged(String),
    /// An HTTP call gave no usable answer.
    #[error("GET {url}: {reason}")]
    Http {
        /// What was asked.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The operating system.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        error: io::Error,
    },
}

/// Says what was tried when the operating system refuses.
pub(super) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> ClusterError {
    let what = what.into();
    move |error| ClusterError::Io { what, error }
}
