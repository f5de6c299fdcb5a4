//! The control stream of one connection: hellos and their answers, acks, members and heartbeats.
//!
//! What concerns one shard goes to it as it is; batches travel elsewhere (`lane.rs`). Start at [`Conversation::run`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tombolo_causality::{Epoch, Seq, ShardId, VersionVector};
use tombolo_codec::{Hello, PEER_VERSION, PeerMessage, Position, decode_peer};
use tombolo_replica::{Input, Link as LinkId, Notice};
use tombolo_transport::{Channel, Frame, Link};

use super::{Ended, KIND_MESSAGE, Mesh};
use crate::clock::wall;
use crate::node::{Description, PeerOutlet, Shards};

/// Time between heartbeats, so that lag and skew are right when idle.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(250);
/// Least time between two acks: what is applied meanwhile goes into one frame.
const ACK_EVERY: Duration = Duration::from_millis(1);

/// What is said on the control stream of one connection.
pub(super) struct Conversation<'a, L> {
    pub(super) mesh: &'a Arc<Mesh>,
    pub(super) link: L,
    pub(super) id: LinkId,
    pub(super) control: mpsc::UnboundedSender<PeerMessage>,
    pub(super) described: mpsc::UnboundedReceiver<Description>,
    pub(super) described_parts: BTreeMap<ShardId, Description>,
    pub(super) peer_epoch: Option<Epoch>,
    /// Whether the peer has answered this side's hello.
    pub(super) is_answered: &'a AtomicBool,
}

impl<L: Link> Conversation<'_, L> {
    pub(super) async fn run(mut self, first: Option<Frame>) -> Ended {
        if let Some(frame) = first
            && let Err(ended) = self.take(frame).await
        {
            return ended;
        }
        let deadline = tokio::time::sleep(self.mesh.hello_within);
        tokio::pin!(deadline);
        loop {
            let had_hello = self.peer_epoch.is_some();
            let result = tokio::select! {
                biased;
                frame = self.link.recv(Channel::Control) => match frame {
                    Ok(frame) => self.take(frame).await,
                    Err(error) => Err(error.into()),
                },
                Some(part) = self.described.recv() => {
                    self.describe(part);
                    Ok(())
                }
                () = &mut deadline, if !self.is_answered.load(Ordering::Relaxed) => {
                    let what = if had_hello { "did not answer the hello in time" } else { "did not say hello in time" };
                    Err(Ended::Protocol(what.to_owned()))
                }
            };
            if let Err(ended) = result {
                return ended;
            }
            if !had_hello && self.peer_epoch.is_some() {
                deadline.as_mut().reset(Instant::now() + self.mesh.hello_within);
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Ended> {
        if frame.kind != KIND_MESSAGE {
            return Err(Ended::Protocol(format!(
                "sent a frame of kind {} on the control stream",
                frame.kind
            )));
        }
        let message = decode_peer(&frame.body).map_err(|error| Ended::Protocol(error.to_string()))?;
        let (peer, link, shards) = (self.link.peer(), self.id, &self.mesh.shards);
        match message {
            PeerMessage::Hello(hello) => self.hello(hello).await?,
            PeerMessage::Acks { epoch, applied } => {
                if Some(epoch) == self.peer_epoch {
                    for (shard, positions) in by_shard(applied) {
                        shards.tell(shard, Input::Acked { from: peer, link, positions }).await;
                    }
                }
            }
            PeerMessage::Members(members) => {
                if self.mesh.apart(peer).is_none() {
                    self.mesh.learn(members).await;
                }
                if let Some(why) = self.mesh.apart(peer) {
                    return Err(Ended::Removed(why));
                }
            }
            PeerMessage::Heartbeat { clock, ends, revision } => {
                self.mesh.note_revision(peer, revision);
                self.mesh.link_state(peer).send_modify(|state| {
                    state.rtt = self.link.rtt();
                    // Before the hello nobody knows whose ends they are.
                    if let Some(epoch) = self.peer_epoch {
                        state.epoch = Some(epoch);
                        state.revision = revision;
                        state.ends = Arc::new(ends);
                    }
                });
                if let Some(is_ahead) = self.mesh.skew.heard(peer, clock, wall(), self.link.rtt()) {
                    shards.tell_all(|| Input::ClockAhead { is_ahead }).await;
                }
            }
            PeerMessage::Goodbye => return Err(Ended::Protocol("says goodbye".to_owned())),
            other => {
                if let Some((shard, input)) = Input::said(peer, link, other) {
                    shards.tell(shard, input).await;
                }
            }
        }
        Ok(())
    }

    async fn hello(&mut self, hello: Hello) -> Result<(), Ended> {
        let (peer, link) = (self.link.peer(), self.id);
        let place = format!("region {peer}");
        if let Err(ended) = self.mesh.check(peer, &hello) {
            let notice = Notice { code: "hello_refused", text: ended.to_string() };
            self.mesh.outlets.findings.raise(&place, &notice);
            let refused = (hello.version != PEER_VERSION).then_some(hello.version);
            self.mesh.link_state(peer).send_modify(|state| state.refused_version = refused);
            return Err(ended);
        }
        if self.mesh.apart(peer).is_none() {
            self.mesh.learn(hello.members).await;
        }
        if let Some(why) = self.mesh.apart(peer) {
            return Err(Ended::Removed(why));
        }
        let shards = &self.mesh.shards;
        match hello.answers {
            // From here on frames of an earlier connection are dropped and acks of an earlier epoch void.
            None => {
                self.peer_epoch = Some(hello.epoch);
                shards.tell_all(|| Input::PeerUp { peer, epoch: hello.epoch, link }).await;
            }
            Some(epoch) if epoch == self.mesh.own.epoch && self.peer_epoch == Some(hello.epoch) => {
                self.is_answered.store(true, Ordering::Relaxed);
                self.mesh.outlets.findings.clear("hello_refused", &place);
                self.mesh.link_state(peer).send_modify(|state| state.refused_version = None);
                let mut received = vectors(shards, hello.received);
                let mut applied = vectors(shards, hello.applied);
                for shard in shards.ids() {
                    let received = received.remove(&shard).unwrap_or_default();
                    let applied = applied.remove(&shard).unwrap_or_default();
                    shards.tell(shard, Input::PeerAnswer { peer, link, received, applied }).await;
                }
            }
            Some(_) => return Err(Ended::Protocol("answered a hello that was not asked".to_owned())),
        }
        Ok(())
    }

    /// Answers the peer's hello once every shard has said what it holds.
    fn describe(&mut self, part: Description) {
        self.described_parts.insert(part.shard, part);
        let Some(peer_epoch) = self.peer_epoch else { return };
        if self.described_parts.len() < usize::from(self.mesh.shards.len()) {
            return;
        }
        let mut hello = self.mesh.hello();
        hello.answers = Some(peer_epoch);
        for (shard, part) in std::mem::take(&mut self.described_parts) {
            let position = |(log, seq)| Position { log, seq };
            hello.received.extend(part.received.logs(shard).map(position));
            hello.applied.extend(part.applied.logs(shard).map(position));
        }
        let _ = self.control.send(PeerMessage::Hello(hello));
    }
}

fn by_shard(positions: Vec<Position>) -> BTreeMap<ShardId, Vec<Position>> {
    let mut shards: BTreeMap<ShardId, Vec<Position>> = BTreeMap::new();
    for position in positions {
        shards.entry(position.log.shard).or_default().push(position);
    }
    shards
}

fn vectors(shards: &Shards, positions: Vec<Position>) -> BTreeMap<ShardId, VersionVector> {
    let mut vectors: BTreeMap<ShardId, VersionVector> = BTreeMap::new();
    for Position { log, seq } in positions {
        if shards.get(log.shard).is_some() && seq > Seq::ZERO {
            vectors.entry(log.shard).or_default().raise(log.region, log.epoch, seq);
        }
    }
    vectors
}

/// Writes what is to be said, and acks no more often than every [`ACK_EVERY`]; ends after a goodbye.
pub(super) async fn send<L: Link>(
    link: L,
    mut queue: mpsc::UnboundedReceiver<PeerMessage>,
    outlet: Arc<PeerOutlet>,
    epoch: Epoch,
) -> Ended {
    let mut next_ack = Instant::now();
    loop {
        let acks = async {
            tokio::time::sleep_until(next_ack).await;
            outlet.acks.take().await
        };
        let message = tokio::select! {
            biased;
            message = queue.recv() => match message {
                Some(message) => message,
                None => return std::future::pending().await,
            },
            applied = acks => {
                next_ack = Instant::now() + ACK_EVERY;
                PeerMessage::Acks { epoch, applied }
            }
        };
        let mut is_last = matches!(message, PeerMessage::Goodbye);
        let mut frames = vec![Frame::new(KIND_MESSAGE, message.encode())];
        while let Ok(message) = queue.try_recv() {
            is_last |= matches!(message, PeerMessage::Goodbye);
            frames.push(Frame::new(KIND_MESSAGE, message.encode()));
        }
        if let Err(error) = link.send(Channel::Control, frames).await {
            return error.into();
        }
        if is_last {
            return Ended::Stopping;
        }
    }
}

/// Says every [`HEARTBEAT_EVERY`] how things stand here.
pub(super) async fn heartbeat(mesh: Arc<Mesh>, control: mpsc::UnboundedSender<PeerMessage>) -> Ended {
    let mut ticks = tokio::time::interval(HEARTBEAT_EVERY);
    loop {
        ticks.tick().await;
        let (revision, ends) = (mesh.members.applied(), mesh.outlets.own_ends());
        let message = PeerMessage::Heartbeat { clock: wall(), ends, revision };
        if control.send(message).is_err() {
            return std::future::pending().await;
        }
    }
}
