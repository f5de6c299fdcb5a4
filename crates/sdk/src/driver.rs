//! The task that owns the connection: waits in one place, changes the book in another.
//!
//! It decides nothing about requests, that is `book.rs`, nor where to connect, that is `regions.rs`. Start at
//! [`Driver::run`].

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tombolo_transport::{Frame, FrameReader, LinkError};

use crate::book::Book;
use crate::client::{Ask, Shared};
use crate::dial::{Attempts, Dialer, Link, PATIENT, REQUEST_KIND, URGENT};
use crate::error::SdkError;
use crate::lanes::{FromLane, Lanes};
use crate::regions::Regions;

/// How fine deadlines and pauses are.
const TICK: Duration = Duration::from_millis(10);
/// Answers taken in before the next look at everything else.
const ANSWERS_AT_ONCE: usize = 256;

pub(crate) struct Driver {
    shared: Arc<Shared>,
    asks: mpsc::Receiver<Ask>,
    /// Whether any handle is left.
    has_handles: bool,
    book: Book,
    dialer: Dialer,
    regions: Regions,
    /// A connection to an earlier region, and when it takes over whatever is under way.
    moving: Option<(usize, Link, Instant)>,
    end: watch::Sender<bool>,
    tick: Interval,
    /// When a connection was last tried: a region that breaks each one is not dialled faster than one that is away.
    dialled: Instant,
}

enum End {
    /// Closed, and nothing is left to do.
    Done,
    /// The connection is gone, or of no use.
    Lost(String),
    /// Nothing is under way, and an earlier region answers again.
    Moving,
}

enum Event {
    Answers(Vec<Frame>, Option<End>),
    Written(Result<(), LinkError>),
    Asked(Option<Ask>),
    Rung,
    Tick,
    Dialled(usize, Result<Box<Link>, SdkError>),
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        asks: mpsc::Receiver<Ask>,
        book: Book,
        dialer: Dialer,
        end: watch::Sender<bool>,
    ) -> Self {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let regions = Regions::new(dialer.regions_count(), shared.options.return_after);
        let dialled = Instant::now();
        Self { shared, asks, has_handles: true, book, dialer, regions, moving: None, end, tick, dialled }
    }

    pub(crate) async fn run(mut self, at: usize, link: Link) {
        let mut next = Some((at, link));
        while let Some((at, link)) = next.take() {
            self.regions.arrived(at, Instant::now());
            match Box::pin(self.serve(link)).await {
                End::Done => break,
                End::Moving => {}
                End::Lost(text) => {
                    tracing::debug!(address = self.dialer.address(at), %text, "connection lost");
                    self.book.link_down(text);
                }
            }
            next = match self.moving.take() {
                Some((at, link, _)) => Some((at, link)),
                None => Box::pin(self.redial()).await,
            };
        }
        self.dialer.close().await;
    }

    fn is_closing(&self) -> bool {
        !self.has_handles || self.shared.is_closed.load(Ordering::SeqCst)
    }

    /// Takes runs from the writers, and says whether all is done for good.
    fn collect(&mut self) -> bool {
        for buffer in self.shared.take_listed() {
            self.book.list(buffer);
        }
        self.book.collect(Instant::now());
        self.is_closing() && self.book.is_idle() && self.asks.is_empty()
    }

    fn take_ask(&mut self, ask: Option<Ask>) {
        let now = Instant::now();
        match ask {
            Some(ask) => self.book.accept(ask, now),
            None => self.has_handles = false,
        }
        while self.book.has_room()
            && let Ok(ask) = self.asks.try_recv()
        {
            self.book.accept(ask, now);
        }
    }

    async fn serve(&mut self, mut link: Link) -> End {
        if let Err(text) = self.shared.arrived(&link.welcome) {
            return End::Lost(text);
        }
        self.book.link_up(&link.welcome, Instant::now());
        let better = self.regions.better_ones();
        let mut better = better.map(|(start, order)| self.dialer.attempts(order, start, PATIENT));
        let mut is_writing = false;
        loop {
            if self.collect() {
                link.finish().await;
                return End::Done;
            }
            if let Some((_, _, until)) = &self.moving {
                if !self.book.has_writes_under_way() || *until <= Instant::now() {
                    tokio::spawn(link.finish());
                    return End::Moving;
                }
            } else if !is_writing {
                let bodies = self.book.take_outbox(Instant::now());
                if !bodies.is_empty() {
                    let frames: Vec<Frame> =
                        bodies.into_iter().map(|body| Frame::new(REQUEST_KIND, body)).collect();
                    match begin(&mut link, &frames).await {
                        Poll::Ready(Ok(())) => continue,
                        Poll::Ready(Err(error)) => return End::Lost(error.to_string()),
                        Poll::Pending => is_writing = true,
                    }
                }
            }
            for body in self.book.take_barriers(link.lanes.room(), Instant::now()) {
                link.lanes.send(body);
            }
            let event = tokio::select! {
                (frames, end) = answers(&mut link.reader) => Event::Answers(frames, end),
                first = link.lanes.next() => barriers(&mut link.lanes, first),
                written = link.writer.flush(), if is_writing => Event::Written(written),
                ask = self.asks.recv(), if self.has_handles && self.book.has_room() => Event::Asked(ask),
                () = self.shared.bell.notified() => Event::Rung,
                _ = self.tick.tick(), if !self.book.is_idle() => Event::Tick,
                (at, link) = attempted(&mut better), if self.moving.is_none() => {
                    Event::Dialled(at, link.map(Box::new))
                }
            };
            match event {
                Event::Answers(frames, end) => {
                    let now = Instant::now();
                    for frame in frames {
                        if let Err(text) = self.book.answer(&frame.body, now) {
                            return End::Lost(text);
                        }
                    }
                    if let Some(text) = self.book.take_farewell() {
                        return End::Lost(text);
                    }
                    if let Some(end) = end {
                        return end;
                    }
                }
                Event::Written(Ok(())) => is_writing = false,
                Event::Written(Err(error)) => return End::Lost(error.to_string()),
                Event::Asked(ask) => self.take_ask(ask),
                Event::Rung => {}
                Event::Tick => {
                    let now = Instant::now();
                    self.book.tick(now);
                    if self.book.is_silent(now) {
                        self.book.note_silence();
                        return End::Lost("the region has stopped answering".into());
                    }
                }
                Event::Dialled(at, Ok(earlier)) => {
                    self.moving = Some((at, *earlier, Instant::now() + self.shared.options.failover_after));
                }
                Event::Dialled(at, Err(error)) => {
                    tracing::debug!(address = self.dialer.address(at), %error, "still not back");
                }
            }
        }
    }

    /// A new connection, or none if nothing is left to do.
    async fn redial(&mut self) -> Option<(usize, Link)> {
        // At once, unless the last connection was made just before.
        let start = self.dialled + URGENT.first;
        let mut attempts = self.dialer.attempts(self.regions.next_ones(), start, URGENT);
        loop {
            if self.collect() {
                return None;
            }
            tokio::select! {
                (at, attempt) = attempts.next() => match attempt {
                    Ok(link) => {
                        self.dialled = Instant::now();
                        return Some((at, link));
                    }
                    Err(error) => self.book.link_down(error.to_string()),
                },
                ask = self.asks.recv(), if self.has_handles && self.book.has_room() => self.take_ask(ask),
                () = self.shared.bell.notified() => {}
                _ = self.tick.tick(), if !self.book.is_idle() => self.book.tick(Instant::now()),
            }
        }
    }
}

impl Drop for Driver {
    /// Also when the runtime ends before the client is closed: nobody shall wait for a driver that is gone.
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.shared.close_buffers();
        self.end.send_replace(true);
    }
}

/// What the next of these attempts came to; never, if there are none. Safe to cancel.
async fn attempted(attempts: &mut Option<Attempts>) -> (usize, Result<Link, SdkError>) {
    match attempts {
        Some(attempts) => attempts.next().await,
        None => pending().await,
    }
}

/// Hands frames to the stream. After this they are the stream's: what is not written at once follows with `flush`.
async fn begin(link: &mut Link, frames: &[Frame]) -> Poll<Result<(), LinkError>> {
    let mut sending = pin!(link.writer.send(frames));
    poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await
}

/// The answers that the lanes have.
fn barriers(lanes: &mut Lanes, first: FromLane) -> Event {
    let mut frames = Vec::new();
    let mut next = Some(first);
    while let Some(answer) = next {
        match answer {
            FromLane::Answer(_, frame) => frames.push(frame),
            FromLane::Lost(text) => return Event::Answers(frames, Some(End::Lost(text))),
        }
        next = lanes.try_next();
    }
    Event::Answers(frames, None)
}

/// At least one answer, and those that came with it. Safe to cancel.
async fn answers(reader: &mut FrameReader) -> (Vec<Frame>, Option<End>) {
    let mut frames = Vec::new();
    let mut next = reader.next().await;
    loop {
        match next {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, Some(End::Lost("the region ended the stream".into()))),
            Err(error) => return (frames, Some(End::Lost(error.to_string()))),
        }
        if frames.len() == ANSWERS_AT_ONCE {
            return (frames, None);
        }
        let mut more = pin!(reader.next());
        match poll_fn(|context| Poll::Ready(more.as_mut().poll(context))).await {
            Poll::Ready(result) => next = result,
            Poll::Pending => return (frames, None),
        }
    }
}
