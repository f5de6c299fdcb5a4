//! Accepts TCP connections for a door: so many at once, and all of them ended when the door shuts.
//!
//! It never reads or writes a connection, but for the one line that tells a caller the door is full. Start at
//! [`accept_all`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::DoorStats;

/// How long open connections have for what they are doing when the door shuts.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// A caller that is gone without a word is noticed after this and a few probes: idle connections are never closed.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// After a failed accept (no file descriptors are left): a tight loop would only make it worse.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Tells a connection that the door shuts.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Waits until the door shuts. Safe to cancel.
    pub(crate) async fn requested(&mut self) {
        // A sender that is gone means the same.
        let _ = self.0.wait_for(|is_stopping| *is_stopping).await;
    }
}

/// A [`Stop`] and what sets it off.
pub(crate) fn stop() -> (watch::Sender<bool>, Stop) {
    let (sender, receiver) = watch::channel(false);
    (sender, Stop(receiver))
}

/// Runs `handle` for each connection, up to `connections_max` at once, until `shutdown` is done and all have ended, or the grace has.
///
/// `full` is what a caller beyond the limit is told.
pub(crate) async fn accept_all<H, F>(
    listener: TcpListener,
    connections_max: usize,
    stats: Arc<DoorStats>,
    full: &'static [u8],
    shutdown: impl Future<Output = ()>,
    handle: H,
) where
    H: Fn(TcpStream, Stop) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let (shut, stopped) = stop();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                note(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        if connections.len() >= connections_max {
            stats.count_refused_connection();
            // Best effort: whoever does not get the line sees the connection closed.
            let _ = stream.try_write(full);
            continue;
        }
        prepare(&stream);
        let connected = stats.connected();
        let handled = handle(stream, stopped.clone());
        connections.spawn(async move {
            handled.await;
            drop(connected);
        });
    }
    drop(listener);
    shut.send_replace(true);
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    };
    if timeout(GRACE, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

fn prepare(stream: &TcpStream) {
    // Replies are flushed whole; waiting to merge them with later ones only costs time.
    let no_delay = stream.set_nodelay(true);
    let keepalive = SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    if let Err(error) = no_delay.and(keepalive) {
        tracing::debug!(%error, "a socket option could not be set");
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}
