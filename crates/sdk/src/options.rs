//! What a client can be told: whom to trust, which regions to use in which order, and the bounds it keeps.

use std::time::Duration;

use tombolo_codec::limits;

/// How a [`Client`](crate::Client) connects and what it may hold.
#[derive(Clone)]
pub struct Options {
    pub(crate) authority_pem: String,
    /// In the order of preference.
    pub(crate) addresses: Vec<String>,
    pub(crate) token: String,
    pub(crate) deadline: Duration,
    pub(crate) connect_deadline: Duration,
    pub(crate) failover_after: Duration,
    pub(crate) return_after: Duration,
    pub(crate) drift_ms_max: u64,
    pub(crate) writer: WriterOptions,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterOptions {
    /// Ops that are buffered or in flight.
    pub(crate) ops_max: usize,
    /// Their keys and values.
    pub(crate) bytes_max: usize,
    /// Ops of one request.
    pub(crate) run_ops_max: usize,
    /// Keys and values of one request.
    pub(crate) run_bytes_max: usize,
    /// Requests in flight for a shard; above that the buffer grows.
    pub(crate) runs_in_flight_max: usize,
}

impl Options {
    /// To connect to `address` (`host:port` of a region's client door) and trust the cluster whose CA this is.
    #[must_use]
    pub fn new(authority_pem: impl Into<String>, address: impl Into<String>) -> Self {
        Self {
            authority_pem: authority_pem.into(),
            addresses: vec![address.into()],
            token: String::new(),
            deadline: Duration::from_secs(60),
            connect_deadline: Duration::from_secs(10),
            failover_after: Duration::from_millis(1_500),
            return_after: Duration::from_secs(5),
            drift_ms_max: 500,
            writer: WriterOptions {
                ops_max: 32_768,
                bytes_max: 8 * 1_024 * 1_024,
                run_ops_max: 1_024,
                run_bytes_max: 256 * 1_024,
                runs_in_flight_max: 2,
            },
        }
    }

    /// One more region of the same cluster, for when those named before do not answer.
    #[must_use]
    pub fn fallback(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// The bearer token; without one the region must listen with `auth = "none"`.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// For how long a request is tried, in whatever regions, before its caller is told what is known: that nothing of
    /// it was applied, or that its outcome is unknown. 60 s by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// For how long [`Client::connect`](crate::Client::connect) tries. 10 s by default.
    #[must_use]
    pub fn connect_deadline(mut self, deadline: Duration) -> Self {
        self.connect_deadline = deadline;
        self
    }

    /// After how long without any answer, while some are due, the client goes on at the next region, or over a new
    /// connection if there is one only. 1.5 s by default: well above a sync of the disk. Where every region was that
    /// slow in turn, the client becomes more patient.
    #[must_use]
    pub fn failover_after(mut self, silence: Duration) -> Self {
        self.failover_after = silence;
        self
    }

    /// How long the client stays where it went before it tries an earlier region again. 5 s by default; twice as long
    /// each time that region fails soon after a return, up to five minutes.
    #[must_use]
    pub fn return_after(mut self, pause: Duration) -> Self {
        self.return_after = pause;
        self
    }

    /// What a [`Writer`](crate::Writer) may hold, buffered and in flight, before it makes its caller wait. 32,768 ops
    /// and 8 MiB of keys and values by default.
    #[must_use]
    pub fn writer_room(mut self, ops_max: usize, bytes_max: usize) -> Self {
        self.writer.ops_max = ops_max.max(1);
        self.writer.bytes_max = bytes_max.max(1);
        self
    }

    /// The longest request a [`Writer`](crate::Writer) makes. 1,024 ops and 256 KiB by default.
    #[must_use]
    pub fn writer_run(mut self, ops_max: usize, bytes_max: usize) -> Self {
        self.writer.run_ops_max = ops_max.clamp(1, limits::REQUEST_OPS_MAX);
        self.writer.run_bytes_max = bytes_max.clamp(1, limits::REQUEST_BYTES_MAX / 4);
        self
    }

    /// How many requests a [`Writer`](crate::Writer) keeps in flight for one shard. 2 by default: one is being
    /// synced in the region while the other one travels.
    #[must_use]
    pub fn writer_runs_in_flight(mut self, runs_max: usize) -> Self {
        self.writer.runs_in_flight_max = runs_max.max(1);
        self
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
