//! Streams for barriers: a region reads a bounded number of requests ahead per stream, and barriers wait long; on the
//! stream of the writes they would hold those up.
//!
//! Each lane is a task that owns one stream. Lanes open as barriers need them. They end with the connection.

use bytes::Bytes;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tombolo_transport::{Frame, LinkError, RegionConnection};

use crate::dial::REQUEST_KIND;

/// Below the number of streams that a region allows a connection.
const LANES_MAX: usize = 8;
/// A lane with fewer barriers than this takes another one before a new lane is opened.
const LOAD_GOOD: usize = 64;
/// What a region reads ahead on one stream; more on a lane would wait behind them.
const LOAD_MAX: usize = 256;

/// What comes back from the lanes.
pub(crate) enum FromLane {
    Answer(usize, Frame),
    Lost(String),
}

struct Lane {
    requests: mpsc::Sender<Bytes>,
    /// Barriers sent and not answered.
    load: usize,
}

pub(crate) struct Lanes {
    connection: RegionConnection,
    lanes: Vec<Lane>,
    answered: mpsc::Sender<FromLane>,
    answers: mpsc::Receiver<FromLane>,
    tasks: JoinSet<()>,
}

impl Lanes {
    pub(crate) fn new(connection: RegionConnection) -> Self {
        let (answered, answers) = mpsc::channel(LOAD_MAX);
        Self { connection, lanes: Vec::new(), answered, answers, tasks: JoinSet::new() }
    }

    /// How many barriers may be sent.
    pub(crate) fn room(&self) -> usize {
        LANES_MAX * LOAD_MAX - self.lanes.iter().map(|lane| lane.load).sum::<usize>()
    }

    /// Sends one, within [`Lanes::room`].
    pub(crate) fn send(&mut self, body: Bytes) {
        let at = match self.lanes.iter().position(|lane| lane.load < LOAD_GOOD) {
            Some(at) => at,
            None if self.lanes.len() < LANES_MAX => self.open(),
            None => {
                let loads = self.lanes.iter().enumerate();
                loads.min_by_key(|(_, lane)| lane.load).map(|(at, _)| at).expect("lanes were opened")
            }
        };
        let lane = &mut self.lanes[at];
        lane.load += 1;
        // The channel holds a whole load. A lane that has ended has said so, and the connection with it.
        let _ = lane.requests.try_send(body);
    }

    fn open(&mut self) -> usize {
        let (requests, inbox) = mpsc::channel(LOAD_MAX);
        let at = self.lanes.len();
        self.lanes.push(Lane { requests, load: 0 });
        let (connection, answered) = (self.connection.clone(), self.answered.clone());
        self.tasks.spawn(async move {
            let Err(error) = carry(connection, inbox, at, &answered).await else { return };
            // A driver that is gone does not want to know.
            let _ = answered.send(FromLane::Lost(error.to_string())).await;
        });
        at
    }

    /// The next answer. Safe to cancel.
    pub(crate) async fn next(&mut self) -> FromLane {
        let next = self.answers.recv().await.expect("this side holds a sender");
        self.note(next)
    }

    /// An answer that is there already.
    pub(crate) fn try_next(&mut self) -> Option<FromLane> {
        let next = self.answers.try_recv().ok()?;
        Some(self.note(next))
    }

    fn note(&mut self, next: FromLane) -> FromLane {
        if let FromLane::Answer(at, _) = next {
            self.lanes[at].load -= 1;
        }
        next
    }
}

async fn carry(
    connection: RegionConnection,
    mut inbox: mpsc::Receiver<Bytes>,
    at: usize,
    answered: &mpsc::Sender<FromLane>,
) -> Result<(), LinkError> {
    let (mut writer, mut reader) = connection.open_stream().await?;
    let mut is_writing = false;
    loop {
        tokio::select! {
            body = inbox.recv(), if !is_writing => {
                let Some(body) = body else { return Ok(()) };
                let mut frames = vec![Frame::new(REQUEST_KIND, body)];
                while let Ok(body) = inbox.try_recv() {
                    frames.push(Frame::new(REQUEST_KIND, body));
                }
                // Polled once, the frames are the stream's; the rest follows with `flush`.
                let mut sending = pin!(writer.send(&frames));
                match poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await {
                    Poll::Ready(sent) => sent?,
                    Poll::Pending => is_writing = true,
                }
            }
            flushed = writer.flush(), if is_writing => {
                flushed?;
                is_writing = false;
            }
            frame = reader.next() => {
                let frame = frame?.ok_or(LinkError::Ended)?;
                if answered.send(FromLane::Answer(at, frame)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
