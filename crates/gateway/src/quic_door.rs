//! The QUIC door: rkyv frames of the SDK, many requests at once on a stream, answers as they come.
//!
//! Writes reach the region in the order they stand in on their stream; how a request is answered is decided in
//! `quic_door/answer.rs`, here is only who waits for what. The kind byte of a frame carries nothing: an answer has that
//! of its request. Start at [`serve_quic`].

mod answer;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::task::JoinSet;
use tokio::task::coop::unconstrained;
use tokio::time::{sleep, timeout};
use tombolo_codec::decode_request;
use tombolo_transport::{ClientConnection, ClientListener, Frame, FrameReader, FrameWriter};

use self::answer::Desk;
use crate::connections::{self, GRACE, Stop};
use crate::{DoorStats, Service};

/// Requests under way on one stream; beyond it nothing more is read from it.
const IN_FLIGHT_MAX: usize = 256;
/// Answers that are ready together are sent together, up to about this much.
const FLUSH_BYTES: usize = 1024 * 1024;
/// How long a connection may stay without having said who it is.
const AUTHENTICATE_MAX: Duration = Duration::from_secs(10);
/// How long the client has to confirm the last answers.
const FINISH_MAX: Duration = Duration::from_secs(1);

type Pending = Pin<Box<dyn Future<Output = Frame> + Send>>;

/// Serves the door until `shutdown` is done or the listener is closed; then what is under way gets a few seconds.
pub async fn serve_quic<S: Service>(
    listener: Arc<ClientListener>,
    service: S,
    stats: Arc<DoorStats>,
    shutdown: impl Future<Output = ()>,
) {
    let (shut, stopped) = connections::stop();
    let mut open = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = open.join_next(), if !open.is_empty() => {}
            accepted = listener.accept() => {
                let Ok(connection) = accepted else { break };
                let desk = Arc::new(Desk::new(service.clone(), stats.clone()));
                open.spawn(serve_connection(connection, desk, stopped.clone()));
            }
        }
    }
    shut.send_replace(true);
    let all_ended = async { while open.join_next().await.is_some() {} };
    if timeout(GRACE, all_ended).await.is_err() {
        open.shutdown().await;
    }
    listener.close().await;
}

async fn serve_connection<S: Service>(connection: ClientConnection, desk: Arc<Desk<S>>, mut stop: Stop) {
    let _connected = desk.stats.connected();
    let mut streams: JoinSet<Result<(), String>> = JoinSet::new();
    let mut patience = pin!(sleep(AUTHENTICATE_MAX));
    let mut is_patient = true;
    let reason = loop {
        tokio::select! {
            biased;
            () = stop.requested() => break None,
            Some(ended) = streams.join_next(), if !streams.is_empty() => {
                if let Ok(Err(reason)) = ended {
                    break Some(reason);
                }
            }
            () = &mut patience, if is_patient => {
                if !desk.is_authenticated() {
                    break Some("no credential came in time".to_owned());
                }
                is_patient = false;
            }
            stream = connection.accept_stream() => match stream {
                Ok((writer, reader)) => {
                    streams.spawn(serve_stream(writer, reader, desk.clone(), stop.clone()));
                }
                Err(error) => {
                    tracing::debug!(remote = %connection.remote_address(), %error, "a client has gone");
                    return;
                }
            },
        }
    };
    match reason {
        Some(reason) => {
            tracing::debug!(remote = %connection.remote_address(), %reason, "a client's connection is closed");
            connection.close(&reason);
        }
        // The streams have seen it too, and end with their last answers.
        None => while streams.join_next().await.is_some() {},
    }
}

/// Errors: why the whole connection cannot go on.
async fn serve_stream<S: Service>(
    mut writer: FrameWriter,
    mut reader: FrameReader,
    desk: Arc<Desk<S>>,
    mut stop: Stop,
) -> Result<(), String> {
    let mut in_flight: FuturesUnordered<Pending> = FuturesUnordered::new();
    let mut outgoing = Outgoing::default();
    let mut is_reading = true;
    while is_reading || !in_flight.is_empty() {
        tokio::select! {
            biased;
            () = stop.requested(), if is_reading => is_reading = false,
            Some(answer) = in_flight.next(), if !in_flight.is_empty() => outgoing.push(answer),
            frame = reader.next(), if is_reading && in_flight.len() < IN_FLIGHT_MAX => {
                match frame.map_err(|error| error.to_string())? {
                    Some(frame) => begin(&desk, frame, &mut in_flight, &mut outgoing).await?,
                    None => is_reading = false,
                }
            }
        }
        // What is ready by now goes out with the same flush; further requests are handed over before it.
        while outgoing.bytes < FLUSH_BYTES {
            if let Some(Some(answer)) = in_flight.next().now_or_never() {
                outgoing.push(answer);
            } else if is_reading && in_flight.len() < IN_FLIGHT_MAX {
                match reader.next().now_or_never() {
                    Some(Ok(Some(frame))) => begin(&desk, frame, &mut in_flight, &mut outgoing).await?,
                    Some(Ok(None)) => is_reading = false,
                    Some(Err(error)) => return Err(error.to_string()),
                    None => break,
                }
            } else {
                break;
            }
        }
        if !outgoing.frames.is_empty() {
            let frames = outgoing.take();
            if let Err(error) = writer.send(&frames).await {
                tracing::debug!(%error, "a client does not take its answers");
                return Ok(());
            }
        }
    }
    // A client that has gone does not confirm, and need not.
    let _ = timeout(FINISH_MAX, writer.finish()).await;
    Ok(())
}

#[derive(Default)]
struct Outgoing {
    frames: Vec<Frame>,
    bytes: usize,
}

impl Outgoing {
    fn push(&mut self, frame: Frame) {
        self.bytes += frame.body.len();
        self.frames.push(frame);
    }

    fn take(&mut self) -> Vec<Frame> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }
}

/// Starts on a request, and polls it once: that hands a write over before the next request is looked at.
///
/// Tokio's budget of a task must not count in that poll: once it is spent every channel says to wait, and a request
/// would be handed over after those behind it.
async fn begin<S: Service>(
    desk: &Arc<Desk<S>>,
    frame: Frame,
    in_flight: &mut FuturesUnordered<Pending>,
    outgoing: &mut Outgoing,
) -> Result<(), String> {
    desk.stats.count_request();
    let (id, request) = decode_request(&frame.body).map_err(|reject| {
        desk.stats.count_reject(reject.code);
        reject.text
    })?;
    let mut answer: Pending = Box::pin(desk.clone().answer(frame.kind, id, request));
    let mut first_poll = unconstrained(&mut answer);
    match poll_fn(|context| Poll::Ready(Pin::new(&mut first_poll).poll(context))).await {
        Poll::Ready(answer) => outgoing.push(answer),
        Poll::Pending => in_flight.push(answer),
    }
    Ok(())
}
