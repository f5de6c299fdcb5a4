//! The traits of `link.rs` inside one process: a [`Hub`] joins transports and can cut them apart.
//!
//! For tests: bounded channels instead of streams, a region's word instead of its certificate.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tombolo_causality::RegionId;

use crate::frame::check;
use crate::link::CHANNELS_COUNT;
use crate::settings::{ACCEPTED_LINKS_MAX, FAREWELL_MAX, HANDSHAKE_MAX};
use crate::{Channel, Frame, FrameError, Link, LinkError, Refusal, Transport, TransportError};

/// Frames under way per channel and direction.
const CHANNEL_FRAMES_MAX: usize = 16;

/// The network of a test.
#[derive(Debug, Clone, Default)]
pub struct Hub(Arc<Mutex<HubState>>);

#[derive(Debug, Default)]
struct HubState {
    doors: HashMap<SocketAddr, Door>,
    cuts: HashSet<(RegionId, RegionId)>,
    wires: Vec<Weak<Wire>>,
    doors_opened: u16,
}

#[derive(Debug, Clone)]
struct Door {
    region: RegionId,
    frame_bytes_max: usize,
    links: mpsc::Sender<InProcessLink>,
}

impl Hub {
    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a region into the network, under an address of its own.
    pub fn transport(&self, region: RegionId, frame_bytes_max: usize) -> InProcess {
        let (links, accepted) = mpsc::channel(ACCEPTED_LINKS_MAX);
        let mut state = self.state();
        state.doors_opened += 1;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, state.doors_opened));
        state.doors.insert(address, Door { region, frame_bytes_max, links });
        drop(state);
        let accepted = tokio::sync::Mutex::new(accepted);
        InProcess { hub: self.clone(), region, address, frame_bytes_max, accepted }
    }

    /// Cuts two regions apart: their links end as after an idle timeout, new ones time out.
    pub fn cut(&self, a: RegionId, b: RegionId) {
        let mut state = self.state();
        state.cuts.insert(pair(a, b));
        for wire in state.wires.iter().filter_map(Weak::upgrade) {
            if pair(wire.regions[0], wire.regions[1]) == pair(a, b) {
                wire.end(Ending::TimedOut);
            }
        }
    }

    /// Lets two regions reach each other again.
    pub fn heal(&self, a: RegionId, b: RegionId) {
        self.state().cuts.remove(&pair(a, b));
    }

    fn state(&self) -> MutexGuard<'_, HubState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pair(a: RegionId, b: RegionId) -> (RegionId, RegionId) {
    (a.min(b), a.max(b))
}

/// One region's transport in a [`Hub`].
#[derive(Debug)]
pub struct InProcess {
    hub: Hub,
    region: RegionId,
    address: SocketAddr,
    frame_bytes_max: usize,
    accepted: tokio::sync::Mutex<mpsc::Receiver<InProcessLink>>,
}

impl Transport for InProcess {
    type Link = InProcessLink;

    async fn connect(&self, peer: RegionId, address: SocketAddr) -> Result<InProcessLink, TransportError> {
        let (door, near, far) = {
            let mut state = self.hub.state();
            if !state.doors.contains_key(&self.address) {
                return Err(TransportError::Closed);
            }
            let door = state.doors.get(&address).cloned().ok_or(TransportError::TimedOut { address })?;
            if state.cuts.contains(&pair(self.region, door.region)) {
                return Err(TransportError::TimedOut { address });
            }
            if door.region != peer {
                let (expected, seen) = (peer.to_string(), door.region.to_string());
                return Err(TransportError::Refused {
                    address,
                    refusal: Refusal::WrongRegion { expected, seen },
                });
            }
            let limits = [self.frame_bytes_max, door.frame_bytes_max];
            let (near, far) = InProcessLink::ends([self.region, door.region], limits);
            state.wires.retain(|wire| wire.strong_count() > 0);
            state.wires.push(Arc::downgrade(&near.0.wire));
            (door, near, far)
        };
        let handed = tokio::time::timeout(HANDSHAKE_MAX, door.links.send(far)).await;
        handed
            .map_err(|_| TransportError::TimedOut { address })?
            .map_err(|_| TransportError::TimedOut { address })?;
        Ok(near)
    }

    async fn accept(&self) -> Result<InProcessLink, TransportError> {
        self.accepted.lock().await.recv().await.ok_or(TransportError::Closed)
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }

    async fn close(&self) {
        let mut state = self.hub.state();
        state.doors.remove(&self.address);
        for wire in state.wires.iter().filter_map(Weak::upgrade) {
            if let Some(side) = wire.regions.iter().position(|region| *region == self.region) {
                wire.end(Ending::ClosedBy { side, reason: "the region shuts down".into() });
            }
        }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.hub.state().doors.remove(&self.address);
    }
}

/// What both ends of a link share.
#[derive(Debug)]
struct Wire {
    regions: [RegionId; 2],
    ending: watch::Sender<Option<Ending>>,
}

#[derive(Debug, Clone)]
enum Ending {
    ClosedBy { side: usize, reason: String },
    Broke { side: usize, error: LinkError },
    TimedOut,
}

impl Wire {
    fn end(&self, ending: Ending) {
        self.ending.send_if_modified(|now| {
            let first = now.is_none();
            now.get_or_insert(ending);
            first
        });
    }
}

/// One end of a connection in a [`Hub`].
#[derive(Clone)]
pub struct InProcessLink(Arc<End>);

struct End {
    wire: Arc<Wire>,
    side: usize,
    frame_bytes_max: usize,
    outgoing: Vec<Mutex<Option<mpsc::Sender<Frame>>>>,
    incoming: Vec<tokio::sync::Mutex<mpsc::Receiver<Frame>>>,
}

impl fmt::Debug for InProcessLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessLink").field("peer", &self.peer()).finish_non_exhaustive()
    }
}

impl InProcessLink {
    fn ends(regions: [RegionId; 2], limits: [usize; 2]) -> (Self, Self) {
        let wire = Arc::new(Wire { regions, ending: watch::Sender::new(None) });
        let one_way = || (0..CHANNELS_COUNT).map(|_| mpsc::channel(CHANNEL_FRAMES_MAX)).unzip();
        let (there, at_far): (Vec<_>, Vec<_>) = one_way();
        let (back, at_near): (Vec<_>, Vec<_>) = one_way();
        let end = |side: usize, outgoing: Vec<mpsc::Sender<Frame>>, incoming: Vec<mpsc::Receiver<Frame>>| {
            Self(Arc::new(End {
                wire: wire.clone(),
                side,
                frame_bytes_max: limits[side],
                outgoing: outgoing.into_iter().map(|sender| Mutex::new(Some(sender))).collect(),
                incoming: incoming.into_iter().map(tokio::sync::Mutex::new).collect(),
            }))
        };
        (end(0, there, at_near), end(1, back, at_far))
    }
}

impl Link for InProcessLink {
    fn peer(&self) -> RegionId {
        self.0.wire.regions[1 - self.0.side]
    }

    async fn send(&self, channel: Channel, frames: Vec<Frame>) -> Result<(), LinkError> {
        let index = usize::from(channel.index()?);
        for frame in &frames {
            check(frame, self.0.frame_bytes_max)?;
        }
        let sender = self.0.outgoing[index].lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sender = sender.ok_or(LinkError::Closed)?;
        for frame in frames {
            tokio::select! {
                biased;
                error = self.0.over() => return Err(error),
                sent = sender.send(frame) => sent.map_err(|_| LinkError::Closed)?,
            }
        }
        Ok(())
    }

    async fn recv(&self, channel: Channel) -> Result<Frame, LinkError> {
        let index = usize::from(channel.index()?);
        let mut incoming = self.0.incoming[index].lock().await;
        let frame = tokio::select! {
            biased;
            error = self.0.over() => return Err(error),
            frame = incoming.recv() => frame.ok_or(LinkError::Ended)?,
        };
        if let Err(error @ FrameError::TooLarge { .. }) = check(&frame, self.0.frame_bytes_max) {
            let error = LinkError::from(error);
            self.0.wire.end(Ending::Broke { side: self.0.side, error: error.clone() });
            return Err(error);
        }
        Ok(frame)
    }

    async fn finish(&self) {
        let senders: Vec<_> = self.0.outgoing.iter().filter_map(End::take).collect();
        let empty = async {
            for sender in &senders {
                // All places are free again when the peer has taken the last frame.
                let _ = sender.reserve_many(CHANNEL_FRAMES_MAX).await;
            }
        };
        tokio::select! {
            biased;
            _ = self.0.over() => {}
            _ = tokio::time::timeout(FAREWELL_MAX, empty) => {}
        }
    }

    fn rtt(&self) -> Duration {
        Duration::ZERO
    }

    fn close(&self, reason: &str) {
        self.0.wire.end(Ending::ClosedBy { side: self.0.side, reason: reason.to_owned() });
    }

    async fn closed(&self) -> LinkError {
        self.0.over().await
    }
}

impl End {
    fn take(sender: &Mutex<Option<mpsc::Sender<Frame>>>) -> Option<mpsc::Sender<Frame>> {
        sender.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn over(&self) -> LinkError {
        let mut ending = self.wire.ending.subscribe();
        let ending = ending.wait_for(Option::is_some).await.map(|ending| ending.clone());
        match ending {
            Ok(Some(Ending::ClosedBy { side, .. })) if side == self.side => LinkError::Closed,
            Ok(Some(Ending::ClosedBy { reason, .. })) => LinkError::ClosedByPeer { reason },
            Ok(Some(Ending::Broke { side, error })) if side == self.side => error,
            Ok(Some(Ending::Broke { error, .. })) => LinkError::ClosedByPeer { reason: error.to_string() },
            Ok(Some(Ending::TimedOut)) => LinkError::TimedOut,
            Ok(None) | Err(_) => LinkError::Closed,
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.wire.end(Ending::ClosedBy { side: self.side, reason: "the link was dropped".into() });
    }
}
