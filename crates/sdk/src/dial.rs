//! Makes connections: resolves, connects, proves who it is. It knows nothing of requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tombolo_codec::decode_answer;
use tombolo_codec::{ClientAnswer, ClientRequest, limits};
use tombolo_transport::{
    ClientEndpoint, Expected, Frame, FrameReader, FrameWriter, RegionConnection, TransportError,
};

use crate::error::SdkError;
use crate::jitter::jittered;
use crate::lanes::Lanes;
use crate::options::Options;

/// The kind of a request's frame.
pub(crate) const REQUEST_KIND: u8 = 1;
/// Pauses between attempts. Each is a fresh one: a kept one comes back up to as late as the cut was long.
pub(crate) struct Pace {
    pub(crate) first: Duration,
    /// They double with each round through the regions, up to this.
    pub(crate) longest: Duration,
}
/// While there is no connection.
pub(crate) const URGENT: Pace =
    Pace { first: Duration::from_millis(250), longest: Duration::from_millis(1_000) };
/// While another region answers.
pub(crate) const PATIENT: Pace = Pace { first: Duration::from_secs(1), longest: Duration::from_secs(30) };
/// Attempts going on at once.
const ATTEMPTS_MAX: usize = 8;
/// Handshake and welcome.
const ATTEMPT_MAX: Duration = Duration::from_secs(4);
/// A frame's body: a request or answer with its envelope.
const FRAME_BYTES_MAX: usize = limits::REQUEST_BYTES_MAX + 64 * 1_024;
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// A connection on which the region has said welcome.
pub(crate) struct Link {
    pub(crate) writer: FrameWriter,
    pub(crate) reader: FrameReader,
    pub(crate) welcome: ClientAnswer,
    pub(crate) lanes: Lanes,
    connection: RegionConnection,
}

impl Link {
    /// Waits, for a bounded time, until the region has all that was sent, and closes.
    pub(crate) async fn finish(mut self) {
        if timeout(FAREWELL_MAX, self.writer.finish()).await.is_err() {
            tracing::debug!("the region has not confirmed the end of the stream in time");
        }
        self.connection.close("the client has ended");
    }
}

/// Knows where to connect and how.
#[derive(Clone)]
pub(crate) struct Dialer {
    endpoint: ClientEndpoint,
    addresses: Arc<[String]>,
    token: Arc<str>,
}

impl Dialer {
    pub(crate) fn new(options: &Options) -> Result<Self, SdkError> {
        let endpoint = ClientEndpoint::new(&options.authority_pem, FRAME_BYTES_MAX)
            .map_err(|error| SdkError::Setup { text: error.to_string() })?;
        let (addresses, token) = (options.addresses.as_slice().into(), options.token.as_str().into());
        Ok(Self { endpoint, addresses, token })
    }

    /// How many regions it knows.
    pub(crate) fn regions_count(&self) -> usize {
        self.addresses.len()
    }

    /// Where it connects to a region.
    pub(crate) fn address(&self, at: usize) -> &str {
        &self.addresses[at]
    }

    /// Attempts to reach one of these regions, in turn, from `start` on.
    pub(crate) fn attempts(&self, order: Vec<usize>, start: Instant, pace: Pace) -> Attempts {
        Attempts { dialer: self.clone(), order, pace, count: 0, next: start, going: JoinSet::new() }
    }

    /// The first connection: to the preferred region, unless that fails or takes longer than `head_start`. What an
    /// operator has to mend is told at once.
    pub(crate) async fn first(
        &self,
        deadline: Duration,
        head_start: Duration,
    ) -> Result<(usize, Link), SdkError> {
        let mut last = SdkError::Unreachable { address: self.address(0).into(), text: "no answer".into() };
        let start = Instant::now();
        let end = start + deadline;
        let is_alone = self.regions_count() == 1;
        let mut until = if is_alone { end } else { end.min(start + head_start) };
        let mut attempts = self.attempts(vec![0], start, URGENT);
        loop {
            match timeout_at(until, attempts.next()).await {
                Ok((at, Ok(link))) => return Ok((at, link)),
                Ok((_, Err(error @ (SdkError::Rejected(_) | SdkError::Setup { .. })))) => return Err(error),
                Ok((_, Err(error))) => last = error,
                Err(_) if until == end => return Err(last),
                Err(_) => {}
            }
            if until < end {
                until = end;
                attempts = self.attempts((0..self.regions_count()).collect(), Instant::now(), URGENT);
            }
        }
    }

    /// One attempt.
    async fn dial(self, at: usize) -> Result<Link, SdkError> {
        let unreachable = |text: String| SdkError::Unreachable { address: self.address(at).into(), text };
        match timeout(ATTEMPT_MAX, self.attempt(at)).await {
            Ok(done) => done,
            Err(_) => Err(unreachable("it did not answer in time".into())),
        }
    }

    async fn attempt(&self, at: usize) -> Result<Link, SdkError> {
        let unreachable = |text: String| SdkError::Unreachable { address: self.address(at).into(), text };
        let mut found =
            lookup_host(self.address(at)).await.map_err(|error| unreachable(error.to_string()))?;
        let address = found.next().ok_or_else(|| unreachable("the name has no address".into()))?;
        let connection =
            self.endpoint.connect(address, Expected::default()).await.map_err(|error| match error {
                TransportError::Refused { .. } => SdkError::Setup { text: error.to_string() },
                error => unreachable(error.to_string()),
            })?;
        let (mut writer, mut reader) =
            connection.open_stream().await.map_err(|error| unreachable(error.to_string()))?;
        let hello = ClientRequest::Authenticate { token: self.token.to_string() }.encode(0);
        writer.send(&[Frame::new(REQUEST_KIND, hello)]).await.map_err(|e| unreachable(e.to_string()))?;
        let frame = reader.next().await.map_err(|error| unreachable(error.to_string()))?;
        let frame = frame.ok_or_else(|| unreachable("the region ended the stream".into()))?;
        let (_, welcome) = decode_answer(&frame.body)?;
        match welcome {
            ClientAnswer::Welcome { .. } => {
                Ok(Link { writer, reader, welcome, lanes: Lanes::new(connection.clone()), connection })
            }
            ClientAnswer::Rejected(reject) if crate::error::is_retryable(&reject) => {
                Err(unreachable(reject.to_string()))
            }
            ClientAnswer::Rejected(reject) => Err(SdkError::Rejected(reject)),
            _ => Err(unreachable("it answered something else than a welcome".into())),
        }
    }

    /// Closes the socket; takes at most a second.
    pub(crate) async fn close(&self) {
        self.endpoint.close().await;
    }
}

/// Attempts at connections, to several regions in turn. Ends those that go on when it is dropped.
pub(crate) struct Attempts {
    dialer: Dialer,
    order: Vec<usize>,
    pace: Pace,
    count: usize,
    next: Instant,
    going: JoinSet<(usize, Result<Link, SdkError>)>,
}

impl Attempts {
    /// What the next attempt came to, and the region. Safe to cancel.
    pub(crate) async fn next(&mut self) -> (usize, Result<Link, SdkError>) {
        loop {
            tokio::select! {
                () = sleep_until(self.next), if self.going.len() < ATTEMPTS_MAX => self.begin(),
                Some(attempt) = self.going.join_next() => {
                    let (at, result) = attempt.unwrap_or_else(|panic| {
                        (self.order[0], Err(SdkError::Unknown { text: panic.to_string() }))
                    });
                    if result.is_err() && self.count < self.order.len() {
                        // A region that refuses at once makes room for the next one at once.
                        self.next = Instant::now();
                    }
                    return (at, result);
                }
            }
        }
    }

    fn begin(&mut self) {
        let at = self.order[self.count % self.order.len()];
        self.going.spawn({
            let dialer = self.dialer.clone();
            async move { (at, dialer.dial(at).await) }
        });
        let rounds = (self.count / self.order.len()).min(8);
        let pause = self.pace.first.saturating_mul(1 << rounds).min(self.pace.longest);
        self.count += 1;
        self.next = Instant::now() + jittered(pause);
    }
}
