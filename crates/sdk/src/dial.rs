//! Makes connections: resolves, connects, proves who it is. It knows nothing of requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tombolo_codec::decode_answer;
use tombolo_codec::{ClientAnswer, ClientRequest, limits};
use tombolo_transport::{
    ClientEndpoint, Expected, Frame, FrameReader, FrameWriter, RegionConnection, TransportError,
};

use crate::error::SdkError;
use crate::lanes::Lanes;
use crate::options::Options;

/// The kind of a request's frame.
pub(crate) const REQUEST_KIND: u8 = 1;
/// A fresh attempt each: a kept one comes back up to as late as the cut was long.
pub(crate) const ATTEMPT_EVERY: Duration = Duration::from_millis(250);
/// Attempts going on at once.
pub(crate) const ATTEMPTS_MAX: usize = 8;
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

    /// Where it connects.
    pub(crate) fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// The first connection: what an operator has to mend is told at once.
    pub(crate) async fn first(&self, deadline: Duration) -> Result<Link, SdkError> {
        let mut last = SdkError::Unreachable { address: self.address().into(), text: "no answer".into() };
        let mut attempts = JoinSet::new();
        let mut next = interval(ATTEMPT_EVERY);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = sleep(deadline);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Err(last),
                _ = next.tick(), if attempts.len() < ATTEMPTS_MAX => {
                    attempts.spawn(self.clone().dial());
                }
                Some(attempt) = attempts.join_next() => match attempt {
                    Ok(Ok(link)) => return Ok(link),
                    Ok(Err(error @ (SdkError::Rejected(_) | SdkError::Setup { .. }))) => return Err(error),
                    Ok(Err(error)) => last = error,
                    Err(panic) => last = SdkError::Unknown { text: panic.to_string() },
                },
            }
        }
    }

    /// One attempt.
    pub(crate) async fn dial(self) -> Result<Link, SdkError> {
        let unreachable = |text: String| SdkError::Unreachable { address: self.address().into(), text };
        match timeout(ATTEMPT_MAX, self.attempt()).await {
            Ok(done) => done,
            Err(_) => Err(unreachable("it did not answer in time".into())),
        }
    }

    async fn attempt(&self) -> Result<Link, SdkError> {
        let unreachable = |text: String| SdkError::Unreachable { address: self.address().into(), text };
        let mut found = lookup_host(self.address()).await.map_err(|error| unreachable(error.to_string()))?;
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
