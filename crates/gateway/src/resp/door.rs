//! The RESP connection loop: bytes in, bytes out, both bounded. What a request means is not known here.
//!
//! All whole requests in the input are run before the socket is asked again; while much output waits to be taken, no
//! more input is. Start at [`serve_resp`].

use std::future::{Future, pending};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::client::Client;
use super::request::RequestParser;
use crate::connections::{self, Stop};
use crate::{DoorStats, Service};

/// While more output than this is not taken by the client, no more input is read or run.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// Room made for one read from the socket.
const READ_BYTES: usize = 64 * 1024;
/// A buffer that one long request or reply made larger than this is given back once it is empty.
const KEPT_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// How long a client that is told goodbye has to take its last replies.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// How much of what such a client still sends is read away.
const DRAINED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How much is read ahead while a request waits, to notice that the client has gone.
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// A client that closed its side may still read: what it waits for gets so long.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(1);
/// Beyond the connections a door holds; the words are those of Redis.
const FULL: &[u8] = b"-ERR max number of clients reached\r\n";

/// Serves the door until `shutdown` is done; then what is under way gets a few seconds.
pub async fn serve_resp<S: Service>(
    listener: TcpListener,
    service: S,
    stats: Arc<DoorStats>,
    shutdown: impl Future<Output = ()>,
) {
    let ids = AtomicI64::new(1);
    let connections_max = service.identity().connections_max;
    connections::accept_all(listener, connections_max, stats.clone(), FULL, shutdown, |stream, stop| {
        let (service, stats) = (service.clone(), stats.clone());
        let id = ids.fetch_add(1, Ordering::Relaxed);
        async move {
            let Ok(remote) = stream.peer_addr() else { return };
            let client = Client::new(service, stats, id, remote);
            if let Err(error) = converse(stream, client, stop).await {
                tracing::debug!(%remote, %error, "a RESP connection ended early");
            }
        }
    })
    .await;
}

async fn converse<S: Service>(
    mut stream: TcpStream,
    mut client: Client<S>,
    mut stop: Stop,
) -> io::Result<()> {
    let (mut source, mut sink) = stream.split();
    let mut input = BytesMut::new();
    let mut parser = RequestParser::new();
    loop {
        run_all(&mut client, &mut parser, &mut input, &mut source, &mut sink).await?;
        if client.is_closing {
            farewell(&mut client, &mut sink).await?;
            return drain(&mut source, &mut input).await;
        }
        shrink(&mut input);
        shrink(&mut client.replies.out);
        // A long argument is read in few steps, but memory follows what has arrived.
        let room = READ_BYTES.max(parser.bytes_missing(&input).min(input.len()));
        input.reserve(room);
        let output_bytes = client.replies.out.len();
        tokio::select! {
            () = stop.requested() => return farewell(&mut client, &mut sink).await,
            written = sink.write_buf(&mut client.replies.out), if output_bytes > 0 => {
                written?;
            }
            read = source.read_buf(&mut input), if output_bytes <= OUTPUT_BYTES_MAX => {
                if read? == 0 {
                    return farewell(&mut client, &mut sink).await;
                }
            }
        }
    }
}

/// Runs every whole request in the input.
async fn run_all<S: Service>(
    client: &mut Client<S>,
    parser: &mut RequestParser,
    input: &mut BytesMut,
    source: &mut ReadHalf<'_>,
    sink: &mut WriteHalf<'_>,
) -> io::Result<()> {
    let mut runs_sent = client.runs_count;
    while !client.is_closing {
        match parser.next(input) {
            Ok(Some(args)) if Client::<S>::may_wait_long(&args) => {
                let is_gone = tokio::select! {
                    biased;
                    () = client.take(args) => false,
                    () = gone(source, input) => true,
                };
                client.is_closing |= is_gone;
            }
            Ok(Some(args)) => client.take(args).await,
            Ok(None) => {
                client.settle().await;
                return Ok(());
            }
            Err(error) => {
                client.settle().await;
                client.break_off(&error);
            }
        }
        if client.runs_count != runs_sent {
            runs_sent = client.runs_count;
            send_now(client, sink)?;
        }
        while client.replies.out.len() > OUTPUT_BYTES_MAX {
            sink.write_buf(&mut client.replies.out).await?;
        }
    }
    Ok(())
}

/// Waits until the client has closed its side, and a little longer. Safe to cancel: what it sends meanwhile is kept.
async fn gone(source: &mut ReadHalf<'_>, input: &mut BytesMut) {
    loop {
        if input.len() >= AHEAD_BYTES_MAX {
            return pending().await;
        }
        input.reserve(READ_BYTES);
        match source.read_buf(input).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    sleep(HALF_CLOSED_MAX).await;
}

/// Sends what the socket takes at once.
fn send_now<S>(client: &mut Client<S>, sink: &WriteHalf<'_>) -> io::Result<()> {
    use bytes::Buf;
    while !client.replies.out.is_empty() {
        match sink.try_write(&client.replies.out) {
            Ok(sent) => client.replies.out.advance(sent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn farewell<S>(client: &mut Client<S>, sink: &mut WriteHalf<'_>) -> io::Result<()> {
    let last = async {
        sink.write_all_buf(&mut client.replies.out).await?;
        sink.shutdown().await
    };
    timeout(FAREWELL_MAX, last).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads away what the client still sends: closing with unread input would reset the connection, and the client might
/// lose the last reply, which says what was wrong.
async fn drain(source: &mut ReadHalf<'_>, input: &mut BytesMut) -> io::Result<()> {
    let all = async {
        let mut drained_bytes = 0;
        while drained_bytes < DRAINED_BYTES_MAX {
            input.clear();
            input.reserve(READ_BYTES);
            match source.read_buf(input).await? {
                0 => break,
                bytes => drained_bytes += bytes,
            }
        }
        Ok(())
    };
    timeout(FAREWELL_MAX, all).await.unwrap_or(Ok(()))
}

fn shrink(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > KEPT_BUFFER_BYTES_MAX {
        *buffer = BytesMut::new();
    }
}
