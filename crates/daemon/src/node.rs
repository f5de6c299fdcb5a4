//! What the tasks of one daemon share: where shards and links are reached, what is counted, what was found.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};
use tombolo_causality::{Epoch, RegionId, Seq, ShardId, VersionVector};
use tombolo_codec::{Batch, PeerMessage};
use tombolo_replica::{Effect, Input, Link, Now, Replica, Ticket};

use crate::acks::AckBoard;
use crate::checkpoints::Keeping;
use crate::findings::Findings;
use crate::metrics::{Metrics, PeerLabel};
use crate::shard::{Command, ShardHandle};

/// A shard's part of an answer to a hello.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) shard: ShardId,
    pub(crate) received: VersionVector,
    pub(crate) applied: VersionVector,
}

/// What travels on a lane.
#[derive(Debug)]
pub(crate) enum Bulk {
    Batch(Batch),
    /// A part of a state.
    Message(Box<PeerMessage>),
}

/// Where a live connection takes what is to be sent.
///
/// The queues have no bound of their own: batches are bounded by the shards' windows, messages by their nature (one a
/// log and change of plan).
pub(crate) struct LinkQueues {
    pub(crate) link: Link,
    pub(crate) lanes: Vec<mpsc::UnboundedSender<Bulk>>,
    pub(crate) control: mpsc::UnboundedSender<PeerMessage>,
    pub(crate) descriptions: mpsc::UnboundedSender<Description>,
    /// Ends the connection; the next one begins with a hello.
    pub(crate) hang_up: Arc<tokio::sync::Notify>,
}

/// A peer as the shards' tasks see it.
pub(crate) struct PeerOutlet {
    pub(crate) name: String,
    pub(crate) acks: AckBoard,
    pub(crate) queues: std::sync::RwLock<Option<Arc<LinkQueues>>>,
    batches: prometheus_client::metrics::counter::Counter,
    bytes: prometheus_client::metrics::counter::Counter,
    signals: prometheus_client::metrics::counter::Counter,
    entries: prometheus_client::metrics::counter::Counter,
    entries_bytes: prometheus_client::metrics::counter::Counter,
    age: prometheus_client::metrics::histogram::Histogram,
}

/// Where shards' effects go.
pub(crate) struct Outlets {
    pub(crate) peers: DashMap<RegionId, Arc<PeerOutlet>, foldhash::fast::FixedState>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) findings: Arc<Findings>,
    pub(crate) whole_count: AtomicU64,
    /// What a shard wants to be made durable before it stands there.
    pub(crate) installs: mpsc::UnboundedSender<(ShardId, Keeping)>,
    /// Through which batch this region's own log is durable, by shard.
    own_ends: Box<[AtomicU64]>,
    own: (RegionId, Epoch),
    tickets: AtomicU64,
}

impl Outlets {
    pub(crate) fn new(
        own: (RegionId, Epoch),
        shards_count: u16,
        metrics: Arc<Metrics>,
        findings: Arc<Findings>,
        installs: mpsc::UnboundedSender<(ShardId, Keeping)>,
    ) -> Self {
        Self {
            peers: DashMap::default(),
            metrics,
            findings,
            whole_count: AtomicU64::new(0),
            installs,
            own_ends: (0..shards_count).map(|_| AtomicU64::new(0)).collect(),
            own,
            tickets: AtomicU64::new(1),
        }
    }

    /// Makes a way to a peer, if there is none yet.
    pub(crate) fn add_peer(&self, region: RegionId, name: &str) {
        self.peers.entry(region).or_insert_with(|| {
            let label = PeerLabel { region: name.to_owned() };
            Arc::new(PeerOutlet {
                acks: AckBoard::default(),
                queues: std::sync::RwLock::new(None),
                batches: self.metrics.batches_shipped.get_or_create(&label).clone(),
                bytes: self.metrics.bytes_shipped.get_or_create(&label).clone(),
                signals: self.metrics.signals_applied.get_or_create(&label).clone(),
                entries: self.metrics.entries_fetched.get_or_create(&label).clone(),
                entries_bytes: self.metrics.entries_bytes_fetched.get_or_create(&label).clone(),
                age: self.metrics.apply_age_seconds.get_or_create(&label).clone(),
                name: name.to_owned(),
            })
        });
    }

    /// Through which batch this region's own logs are durable: what the others should come to hold.
    pub(crate) fn own_ends(&self) -> Vec<(ShardId, Seq)> {
        let ends = self.own_ends.iter().map(|end| Seq(end.load(Ordering::Relaxed)));
        (0..).map(ShardId).zip(ends).collect()
    }

    /// A ticket that no one else has.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn peer(&self, region: RegionId) -> Option<Arc<PeerOutlet>> {
        self.peers.get(&region).map(|peer| peer.clone())
    }

    fn queues(&self, region: RegionId, link: Link) -> Option<(Arc<PeerOutlet>, Arc<LinkQueues>)> {
        let peer = self.peer(region)?;
        let queues = peer.queues().filter(|queues| queues.link == link)?;
        Some((peer, queues))
    }

    /// Runs an effect that neither answers a caller nor touches the disk.
    ///
    /// What goes to a connection that is no more is dropped: the next one begins with a hello.
    pub(crate) fn run(&self, shard: ShardId, effect: Effect) {
        match effect {
            Effect::Ship { peer, link, batch } => {
                if let Some((peer, queues)) = self.queues(peer, link) {
                    peer.batches.inc();
                    peer.bytes.inc_by(batch.bytes().len() as u64);
                    let lane = usize::from(shard.0) % queues.lanes.len();
                    let _ = queues.lanes[lane].send(Bulk::Batch(batch));
                }
            }
            Effect::Send { peer, link, message } => {
                if let Some((_, queues)) = self.queues(peer, link) {
                    if let Some(shard) = message.lane() {
                        let lane = usize::from(shard.0) % queues.lanes.len();
                        let _ = queues.lanes[lane].send(Bulk::Message(Box::new(message)));
                    } else {
                        let _ = queues.control.send(message);
                    }
                }
            }
            Effect::Disconnect { peer, link } => {
                if let Some((_, queues)) = self.queues(peer, link) {
                    queues.hang_up.notify_one();
                }
            }
            Effect::Describe { peer, link, received, applied } => {
                if let Some((_, queues)) = self.queues(peer, link) {
                    let _ = queues.descriptions.send(Description { shard, received, applied });
                }
            }
            Effect::Ack(position) => {
                let end = self.own_ends.get(usize::from(position.log.shard.0));
                if let Some(end) = end.filter(|_| (position.log.region, position.log.epoch) == self.own) {
                    end.store(position.seq.0, Ordering::Relaxed);
                }
                for peer in &self.peers {
                    peer.acks.note(position);
                }
            }
            Effect::Applied { region, ops_count, age_ms } => {
                if let Some(peer) = self.peer(region) {
                    peer.signals.inc_by(u64::from(ops_count));
                    peer.age.observe(age_ms / 1_000.0);
                }
            }
            Effect::BecameWhole => {
                self.whole_count.fetch_add(1, Ordering::Relaxed);
            }
            Effect::Notice(notice) => self.findings.raise(&format!("shard {shard}"), &notice),
            Effect::Append(_)
            | Effect::Answer { .. }
            | Effect::Reached { .. }
            | Effect::Voided { .. }
            | Effect::Load { .. }
            | Effect::Install(_)
            | Effect::Mend(_)
            | Effect::Proceed => unreachable!("the shard's own task runs these"),
        }
    }
}

impl PeerOutlet {
    /// Counts what came of the peer's state.
    pub(crate) fn count_entries(&self, message: &PeerMessage, bytes: usize) {
        if let PeerMessage::Entries { entries, .. } = message {
            let count = entries.cells.len() + entries.sessions.len() + entries.conditionals.len();
            self.entries.inc_by(count as u64);
            self.entries_bytes.inc_by(bytes as u64);
        }
    }

    pub(crate) fn queues(&self) -> Option<Arc<LinkQueues>> {
        self.queues.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(crate) fn set_queues(&self, queues: Option<Arc<LinkQueues>>) {
        *self.queues.write().unwrap_or_else(std::sync::PoisonError::into_inner) = queues;
    }
}

/// All shards of the node.
#[derive(Clone)]
pub(crate) struct Shards(Arc<[ShardHandle]>);

/// The shard's task has ended: the daemon is stopping.
#[derive(Debug)]
pub(crate) struct Stopped;

impl Shards {
    pub(crate) fn new(handles: Vec<ShardHandle>) -> Self {
        Self(handles.into())
    }

    pub(crate) fn len(&self) -> u16 {
        u16::try_from(self.0.len()).expect("at most 1,024 shards")
    }

    /// The shard, if there is one of this number: peers may name any.
    pub(crate) fn get(&self, shard: ShardId) -> Option<&ShardHandle> {
        self.0.get(usize::from(shard.0))
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.len()).map(ShardId)
    }

    pub(crate) async fn tell(&self, shard: ShardId, input: Input) {
        if let Some(handle) = self.get(shard) {
            // The daemon is stopping if nobody listens.
            let _ = handle.events.send(input).await;
        }
    }

    pub(crate) async fn tell_all(&self, make: impl Fn() -> Input) {
        for shard in self.ids() {
            self.tell(shard, make()).await;
        }
    }

    pub(crate) async fn ask(&self, shard: ShardId, command: Command) -> Result<(), Stopped> {
        let handle = self.get(shard).ok_or(Stopped)?;
        handle.commands.send(command).await.map_err(|_| Stopped)
    }

    /// Runs `change` in the shard's task and gives what came of it.
    pub(crate) async fn alter<T: Send + 'static>(
        &self,
        shard: ShardId,
        change: impl FnOnce(&mut Replica) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let change = move |replica: &mut Replica, _: Now| drop(reply.send(change(replica)));
        self.ask(shard, Command::Inspect(Box::new(change))).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Runs `look` in the shard's task and gives what it saw.
    pub(crate) async fn inspect<T: Send + 'static>(
        &self,
        shard: ShardId,
        look: impl FnOnce(&Replica, Now) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let look = move |replica: &mut Replica, now: Now| drop(reply.send(look(replica, now)));
        self.ask(shard, Command::Inspect(Box::new(look))).await?;
        answer.await.map_err(|_| Stopped)
    }
}
