//! A link over one QUIC connection: a one-way stream per channel and direction, opened at first use.
//!
//! The first byte of a stream names its channel (0 control, 1 + n lane n). A channel's frames wait in its own stream,
//! under QUIC's own flow control: there is no queue here in which one channel could stand before another.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::Connection;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tombolo_causality::RegionId;

use crate::endpoint::{CODE_CLOSED, CODE_PROTOCOL, close, ended};
use crate::frame::check;
use crate::link::CHANNELS_COUNT;
use crate::settings::FAREWELL_MAX;
use crate::{Channel, Frame, FrameReader, FrameWriter, Link, LinkError};

/// A connection to one region.
#[derive(Clone)]
pub struct QuicLink(Arc<Inner>);

struct Inner {
    connection: Connection,
    peer: RegionId,
    frame_bytes_max: usize,
    /// What this side found wrong with the peer; tells more than "closed here".
    fault: Arc<OnceLock<LinkError>>,
    outgoing: [Mutex<Option<FrameWriter>>; CHANNELS_COUNT],
    incoming: [Mutex<Incoming>; CHANNELS_COUNT],
}

struct Incoming {
    /// Gives the channel's stream once the peer has opened it.
    opened: mpsc::Receiver<FrameReader>,
    reader: Option<FrameReader>,
}

/// What a link's connection reports about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkStats {
    /// Smoothed round trip time.
    pub rtt: Duration,
    /// Bytes sent in UDP payloads.
    pub sent_bytes: u64,
    /// Bytes received in UDP payloads.
    pub received_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets found lost.
    pub lost_packets: u64,
    /// Bytes that may be in flight.
    pub congestion_window_bytes: u64,
    /// The path's datagram size as discovered.
    pub mtu_bytes: u16,
}

impl fmt::Debug for QuicLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicLink").field("peer", &self.0.peer).finish_non_exhaustive()
    }
}

impl QuicLink {
    /// Puts a link on a connection whose peer is already verified.
    pub(crate) fn new(connection: Connection, peer: RegionId, frame_bytes_max: usize) -> Self {
        let mut slots = Vec::with_capacity(CHANNELS_COUNT);
        let incoming = std::array::from_fn(|_| {
            let (slot, opened) = mpsc::channel(1);
            slots.push(slot);
            Mutex::new(Incoming { opened, reader: None })
        });
        let fault = Arc::new(OnceLock::new());
        let router = Router { connection: connection.clone(), frame_bytes_max, fault: fault.clone() };
        tokio::spawn(router.run(slots));
        let outgoing = std::array::from_fn(|_| Mutex::new(None));
        Self(Arc::new(Inner { connection, peer, frame_bytes_max, fault, outgoing, incoming }))
    }

    /// Tells the peer that it is accepted, by opening the control channel.
    pub(crate) async fn welcome(&self) -> Result<(), LinkError> {
        self.send(Channel::Control, Vec::new()).await
    }

    /// Waits until the peer has opened the control channel: only then has it accepted this side.
    ///
    /// In TLS 1.3 the dialling side's handshake is complete before the other has seen its certificate.
    pub(crate) async fn welcomed(&self) -> Result<(), LinkError> {
        let mut incoming = self.0.incoming[0].lock().await;
        incoming.wait_open().await.ok_or_else(|| self.0.why())
    }

    /// Counters of the connection, for metrics.
    pub fn stats(&self) -> LinkStats {
        let stats = self.0.connection.stats();
        LinkStats {
            rtt: stats.path.rtt,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            congestion_window_bytes: stats.path.cwnd,
            mtu_bytes: stats.path.current_mtu,
        }
    }
}

impl Link for QuicLink {
    fn peer(&self) -> RegionId {
        self.0.peer
    }

    async fn send(&self, channel: Channel, frames: Vec<Frame>) -> Result<(), LinkError> {
        let index = channel.index()?;
        for frame in &frames {
            check(frame, self.0.frame_bytes_max)?;
        }
        let mut writer = self.0.outgoing[usize::from(index)].lock().await;
        if writer.is_none() {
            let stream = self.0.connection.open_uni().await.map_err(|error| self.0.why_or(ended(error)))?;
            let mut opened = FrameWriter::new(stream, self.0.frame_bytes_max);
            opened.prefix(index);
            if channel == Channel::Control {
                // Beside 16 full lanes the control channel still goes first out of this machine.
                opened.prioritise();
            }
            *writer = Some(opened);
        }
        let writer = writer.as_mut().expect("opened just above");
        writer.send(&frames).await.map_err(|error| self.0.why_or(error))
    }

    async fn recv(&self, channel: Channel) -> Result<Frame, LinkError> {
        let index = channel.index()?;
        let mut incoming = self.0.incoming[usize::from(index)].lock().await;
        if incoming.wait_open().await.is_none() {
            drop(incoming);
            return Err(self.0.over().await);
        }
        let reader = incoming.reader.as_mut().expect("open");
        match reader.next().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(LinkError::Ended),
            Err(error @ LinkError::Frame(_)) => {
                fail(&self.0.connection, &self.0.fault, error.clone());
                Err(error)
            }
            Err(error) => Err(self.0.why_or(error)),
        }
    }

    async fn finish(&self) {
        let finish_all = async {
            let mut channels = JoinSet::new();
            for index in 0..CHANNELS_COUNT {
                let inner = self.0.clone();
                channels.spawn(async move {
                    let mut writer = inner.outgoing[index].lock().await;
                    if let Some(writer) = writer.as_mut()
                        && let Err(error) = writer.finish().await
                    {
                        tracing::debug!(peer = %inner.peer, index, %error, "a channel ended before it was finished");
                    }
                });
            }
            while channels.join_next().await.is_some() {}
        };
        if timeout(FAREWELL_MAX, finish_all).await.is_err() {
            tracing::debug!(peer = %self.0.peer, "the peer has not confirmed the last frames in time");
        }
    }

    fn rtt(&self) -> Duration {
        self.0.connection.rtt()
    }

    fn close(&self, reason: &str) {
        close(&self.0.connection, CODE_CLOSED, reason);
    }

    async fn closed(&self) -> LinkError {
        self.0.over().await
    }
}

impl Inner {
    async fn over(&self) -> LinkError {
        let error = self.connection.closed().await;
        self.why_or(ended(error))
    }

    fn why(&self) -> LinkError {
        self.why_or(self.connection.close_reason().map_or(LinkError::Closed, ended))
    }

    fn why_or(&self, error: LinkError) -> LinkError {
        match error {
            LinkError::Closed => self.fault.get().cloned().unwrap_or(LinkError::Closed),
            other => other,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The router holds the connection too and would keep it open.
        close(&self.connection, CODE_CLOSED, "the link was dropped");
    }
}

impl Incoming {
    async fn wait_open(&mut self) -> Option<()> {
        if self.reader.is_none() {
            self.reader = Some(self.opened.recv().await?);
        }
        Some(())
    }
}

fn fail(connection: &Connection, fault: &OnceLock<LinkError>, error: LinkError) {
    let reason = error.to_string();
    let _ = fault.set(error);
    close(connection, CODE_PROTOCOL, &reason);
}

/// Brings the peer's streams to their channels. It ends with the connection.
struct Router {
    connection: Connection,
    frame_bytes_max: usize,
    fault: Arc<OnceLock<LinkError>>,
}

impl Router {
    async fn run(self, slots: Vec<mpsc::Sender<FrameReader>>) {
        let mut slots: Vec<_> = slots.into_iter().map(Some).collect();
        // Streams are accepted in the order of their numbers, but their first bytes come in any order. At most as many
        // wait here as the peer may open.
        let mut unnamed = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                accepted = self.connection.accept_uni() => {
                    let Ok(stream) = accepted else { return };
                    let mut reader = FrameReader::new(stream, self.frame_bytes_max);
                    unnamed.spawn(async move { (reader.first_byte().await, reader) });
                }
                Some(named) = unnamed.join_next() => {
                    let Ok((Ok(Some(index)), reader)) = named else { continue };
                    if let Err(error) = place(&mut slots, index, reader) {
                        fail(&self.connection, &self.fault, error);
                        return;
                    }
                }
            }
        }
    }
}

fn place(
    slots: &mut [Option<mpsc::Sender<FrameReader>>],
    index: u8,
    reader: FrameReader,
) -> Result<(), LinkError> {
    let channel = Channel::from_index(index).ok_or(LinkError::UnknownChannel { index })?;
    let slot = slots[usize::from(index)].take().ok_or(LinkError::ChannelTwice { channel })?;
    // Fails only if the link is gone already.
    let _ = slot.try_send(reader);
    Ok(())
}

#[cfg(test)]
mod tests;
