//! One task per peer: a connection whenever one can be had, a hello on it, then batches, acks and heartbeats.
//!
//! The smaller region id dials; a new authenticated connection replaces the old one. After a loss of contact a fresh
//! attempt starts every [`ATTEMPT_EVERY`], beside those still under way: a kept connection would come back as late as
//! the cut was long. A peer that refuses, or is refused, is left alone for a while: `mesh/pace.rs`.

mod control;
mod lane;
mod pace;
mod pack;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tombolo_causality::{ClusterId, Epoch, RegionId, Seq, ShardId};
use tombolo_codec::{Hello, MemberEntry, Membership, PEER_VERSION, PeerMessage};
use tombolo_replica::{Input, Link as LinkId};
use tombolo_transport::{Channel, Frame, LANES_MAX, Link, LinkError, Transport};

use self::control::Conversation;
use self::pace::{End, Pace};
use crate::clock::wall;
use crate::members::Members;
use crate::metrics::PeerLabel;
use crate::node::{LinkQueues, Outlets, PeerOutlet, Shards};
use crate::skew::Skew;

/// Time between two attempts to reach a peer.
const ATTEMPT_EVERY: Duration = Duration::from_millis(250);
/// Time between two attempts to reach a region that was removed.
const ATTEMPT_OF_REMOVED_EVERY: Duration = Duration::from_secs(5);
/// Attempts under way at once: as many as start before the oldest gives up, so that one is always fresh.
const ATTEMPTS_MAX: usize = 12;
/// How long a goodbye has to leave, behind what waits before it.
const GOODBYE_WITHIN: Duration = Duration::from_millis(400);
/// How long the peer may take from connecting to its hello, and to answer ours.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// Connections of a peer that wait to replace the present one.
const INCOMING_MAX: usize = 4;

/// Kinds of frames between regions.
const KIND_MESSAGE: u8 = 1;
const KIND_BATCH: u8 = 2;

/// A connection that a peer made, and the first frame on its control stream.
pub(crate) type Incoming<L> = (L, Frame);

/// Where the connections that each peer makes are taken to its task.
pub(crate) type Mailboxes<L> = DashMap<RegionId, mpsc::Sender<Incoming<L>>, foldhash::fast::FixedState>;

/// Hands an accepted connection to its peer's task once the peer speaks on it.
pub(crate) async fn introduce<L: Link>(link: L, mailbox: mpsc::Sender<Incoming<L>>) {
    if let Ok(Ok(frame)) = tokio::time::timeout(HELLO_WITHIN, link.recv(Channel::Control)).await {
        // The daemon is stopping if nobody takes it.
        let _ = mailbox.send((link, frame)).await;
    }
}

/// What this node is to its peers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own {
    pub(crate) cluster: ClusterId,
    pub(crate) region: RegionId,
    pub(crate) epoch: Epoch,
    pub(crate) shards_count: u16,
}

/// The state of a connection, for status.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerLink {
    pub(crate) is_up: bool,
    pub(crate) rtt: Duration,
    pub(crate) connects: u64,
    /// When contact was lost, as milliseconds since the Unix epoch.
    pub(crate) lost_unix_ms: Option<u64>,
    /// In which incarnation it last spoke.
    pub(crate) epoch: Option<Epoch>,
    /// The revision that it last said its shards go by.
    pub(crate) revision: u64,
    /// How far it last said its own log of each shard is durable there.
    pub(crate) ends: Arc<Vec<(ShardId, Seq)>>,
    /// Version of the protocol that it speaks, if that is why there is no connection.
    pub(crate) refused_version: Option<u16>,
}

/// Where the tasks' shared parts are.
pub(crate) struct Mesh {
    pub(crate) own: Own,
    pub(crate) shards: Shards,
    pub(crate) outlets: Arc<Outlets>,
    pub(crate) skew: Arc<Skew>,
    pub(crate) members: Members,
    links: RwLock<BTreeMap<RegionId, Arc<watch::Sender<PeerLink>>>>,
    /// The membership revision that each region has applied, this one included, as it last said.
    pub(crate) revisions: watch::Sender<BTreeMap<RegionId, u64>>,
    next_link: AtomicU64,
    hello_within: Duration,
}

/// Why a connection is not kept.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the peer {0}")]
    Protocol(String),
    #[error("the peer {0}")]
    Refused(String),
    #[error("{0}")]
    Removed(&'static str),
    #[error("this daemon is stopping")]
    Stopping,
}

impl Mesh {
    pub(crate) fn new(
        own: Own,
        shards: Shards,
        outlets: Arc<Outlets>,
        skew: Arc<Skew>,
        members: Members,
    ) -> Self {
        let (links, next_link) = (RwLock::default(), AtomicU64::new(1));
        let revisions = watch::Sender::new(BTreeMap::from([(own.region, members.applied())]));
        let hello_within = HELLO_WITHIN;
        let mesh = Self { own, shards, outlets, skew, members, links, revisions, next_link, hello_within };
        for (region, name) in mesh.members.names().into_iter().filter(|(region, _)| *region != own.region) {
            mesh.add_peer(region, &name);
        }
        mesh
    }

    /// Makes room for a peer's link, if there is none yet.
    pub(crate) fn add_peer(&self, region: RegionId, name: &str) {
        self.outlets.add_peer(region, name);
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.entry(region).or_insert_with(|| {
            let lost_unix_ms = Some(wall().unix_ms());
            Arc::new(watch::Sender::new(PeerLink { lost_unix_ms, ..PeerLink::default() }))
        });
    }

    fn link_state(&self, peer: RegionId) -> Arc<watch::Sender<PeerLink>> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(&peer).expect("every peer has a link, up or not").clone()
    }

    /// The state of the link to a peer.
    pub(crate) fn link(&self, peer: RegionId) -> Option<PeerLink> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(&peer).map(|link| link.borrow().clone())
    }

    /// The links to all members.
    pub(crate) fn links(&self) -> Vec<(RegionId, PeerLink)> {
        let present = self.members.present();
        present.into_iter().filter_map(|region| Some((region, self.link(region)?))).collect()
    }

    /// Keeps a connection to every region, those added later too. A removed one is told that it was.
    pub(crate) async fn keep_all<T: Transport>(
        self: Arc<Self>,
        transport: Arc<T>,
        address: impl Fn(&MemberEntry) -> String,
        mailboxes: Arc<Mailboxes<T::Link>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut changes = self.members.watch();
        let mut links = JoinSet::new();
        let mut is_open = true;
        while is_open {
            let document = changes.borrow_and_update().clone();
            for entry in document.entries().iter().filter(|entry| entry.region != self.own.region) {
                if !mailboxes.contains_key(&entry.region) {
                    let (mailbox, incoming) = mpsc::channel(INCOMING_MAX);
                    mailboxes.insert(entry.region, mailbox);
                    let (transport, address) = (transport.clone(), address(entry));
                    links.spawn(self.clone().keep(transport, entry.region, address, incoming, stop.clone()));
                }
            }
            let ended = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {
                    is_open = false;
                    None
                }
                changed = changes.changed() => {
                    is_open = changed.is_ok();
                    None
                }
                Some(ended) = links.join_next() => Some(ended),
            };
            if let Some(Err(error)) = ended {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        while links.join_next().await.is_some() {}
    }

    /// Keeps a connection to one peer until `stop` says so. `incoming` gives the peer's own connections, each with the
    /// first frame on its control stream: who dials makes several attempts and speaks on one of them only.
    pub(crate) async fn keep<T: Transport>(
        self: Arc<Self>,
        transport: Arc<T>,
        peer: RegionId,
        address: String,
        mut incoming: mpsc::Receiver<Incoming<T::Link>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let outlet = self.outlets.peer(peer).expect("every peer has an outlet");
        let mut next: Option<Incoming<T::Link>> = None;
        let mut pace = Pace::new();
        loop {
            let (link, first) = match next.take() {
                Some((link, first)) => (link, Some(first)),
                None => tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return,
                    link = incoming.recv() => match link {
                        Some((link, first)) => (link, Some(first)),
                        None => return,
                    },
                    link = dial(transport.clone(), peer, address.clone(), pace.not_before(), || self.attempt_every(peer)),
                        if self.own.region < peer => (link, None),
                },
            };
            let id = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
            self.link_state(peer).send_modify(|state| {
                state.is_up = true;
                state.connects += 1;
                state.rtt = link.rtt();
                state.lost_unix_ms = None;
            });
            self.outlets.metrics.reconnects.get_or_create(&PeerLabel { region: outlet.name.clone() }).inc();
            let (began, is_answered) = (Instant::now(), AtomicBool::new(false));
            let run = self.run_link(link.clone(), first, id, &outlet, &is_answered, &mut stop);
            let ended = tokio::select! {
                ended = run => ended,
                Some(newer) = incoming.recv() => {
                    next = Some(newer);
                    Ended::Protocol("connected anew".to_owned())
                }
            };
            outlet.set_queues(None);
            self.link_state(peer).send_modify(|state| {
                state.is_up = false;
                state.lost_unix_ms = Some(wall().unix_ms());
            });
            self.shards.tell_all(|| Input::PeerDown { peer, link: id }).await;
            if let Ended::Stopping = ended {
                link.finish().await;
                link.close("the daemon stops");
                return;
            }
            let end = match &ended {
                _ if is_answered.into_inner() => End::Answered,
                Ended::Refused(_) | Ended::Removed(_) => End::Refused,
                Ended::Link(LinkError::ClosedByPeer { .. } | LinkError::RefusedByPeer { .. }) => {
                    End::RefusedByPeer
                }
                _ => End::Lost,
            };
            if pace.ended(end, began, Instant::now(), &ended.to_string()) {
                tracing::info!(peer = outlet.name, "link ended: {ended}");
            } else {
                tracing::debug!(peer = outlet.name, "link ended as the one before: {ended}");
            }
            link.close(&ended.to_string());
        }
    }

    /// How often a peer is dialled: a removed one now and then, so that it learns that it was; and so are all by a
    /// removed region, as it may be the only one that knows.
    fn attempt_every(&self, peer: RegionId) -> Duration {
        if self.members.is_apart(peer) { ATTEMPT_OF_REMOVED_EVERY } else { ATTEMPT_EVERY }
    }

    async fn run_link<L: Link>(
        self: &Arc<Self>,
        link: L,
        first: Option<Frame>,
        id: LinkId,
        outlet: &Arc<PeerOutlet>,
        is_answered: &AtomicBool,
        stop: &mut watch::Receiver<bool>,
    ) -> Ended {
        let mut tasks: JoinSet<Ended> = JoinSet::new();
        let (control, control_queue) = mpsc::unbounded_channel();
        let (descriptions, described) = mpsc::unbounded_channel();
        let hang_up = Arc::new(tokio::sync::Notify::new());
        let mut lanes = Vec::new();
        for lane in 0..LANES_MAX {
            let (queue, batches) = mpsc::unbounded_channel();
            lanes.push(queue);
            tasks.spawn(lane::send(link.clone(), lane, batches));
            let (shards, outlet) = (self.shards.clone(), outlet.clone());
            tasks.spawn(lane::receive(link.clone(), lane, id, self.own.cluster, shards, outlet));
        }
        outlet.set_queues(Some(Arc::new(LinkQueues {
            link: id,
            lanes,
            control: control.clone(),
            descriptions,
            hang_up: hang_up.clone(),
        })));
        let _ = control.send(PeerMessage::Hello(self.hello()));
        tasks.spawn(control::send(link.clone(), control_queue, outlet.clone(), self.own.epoch));
        tasks.spawn(control::heartbeat(self.clone(), control.clone()));
        let goodbye = control.clone();
        let conversation = Conversation {
            mesh: self,
            link: link.clone(),
            id,
            control,
            described,
            described_parts: BTreeMap::new(),
            peer_epoch: None,
            is_answered,
        };
        let ended = tokio::select! {
            ended = conversation.run(first) => ended,
            Some(ended) = tasks.join_next() => ended.unwrap_or_else(|error| Ended::Protocol(error.to_string())),
            () = hang_up.notified() => match self.apart(link.peer()) {
                Some(why) => Ended::Removed(why),
                None => {
                Ended::Protocol("may have been succeeded, says another region; its next hello tells".to_owned())
                }
            },
            () = async { drop(stop.wait_for(|stop| *stop).await) } => {
                Ended::Stopping
            }
        };
        if let Ended::Removed(_) = &ended {
            // Whoever was removed learns it from this, and why the link ends.
            let document = Membership::clone(&self.members.document());
            let _ = goodbye.send(PeerMessage::Members(document));
        }
        if let Ended::Stopping | Ended::Removed(_) = &ended {
            let _ = goodbye.send(PeerMessage::Goodbye);
            // The sender of the control stream ends once it is written; other ends do not matter any more.
            let said = async {
                while let Some(ended) = tasks.join_next().await {
                    if let Ok(Ended::Stopping) = ended {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(GOODBYE_WITHIN, said).await;
        }
        ended
    }

    /// Why this region and a peer have nothing more to say to each other, if so.
    fn apart(&self, peer: RegionId) -> Option<&'static str> {
        let document = self.members.document();
        if !document.is_present(self.own.region) {
            Some("this region was removed from the cluster")
        } else if !document.is_present(peer) {
            Some("the peer was removed from the cluster")
        } else {
            None
        }
    }

    /// A region has applied a membership revision.
    pub(crate) fn note_revision(&self, region: RegionId, revision: u64) {
        self.revisions.send_if_modified(|known| known.insert(region, revision) != Some(revision));
    }

    fn hello(&self) -> Hello {
        let Own { cluster, region, epoch, shards_count } = self.own;
        Hello {
            cluster,
            region,
            epoch,
            version: PEER_VERSION,
            shards_count,
            members: Membership::clone(&self.members.document()),
            answers: None,
            received: Vec::new(),
            applied: Vec::new(),
            clock: wall(),
        }
    }

    fn check(&self, peer: RegionId, hello: &Hello) -> Result<(), Ended> {
        let own = &self.own;
        let wrong = if hello.cluster != own.cluster {
            format!("belongs to cluster {}, this is {}", hello.cluster, own.cluster)
        } else if hello.region != peer {
            format!("says it is region {}, its certificate says {peer}", hello.region)
        } else if hello.version != PEER_VERSION {
            format!("speaks version {} of the protocol, this daemon {PEER_VERSION}", hello.version)
        } else if hello.shards_count != own.shards_count {
            format!("has {} shards, this daemon {}", hello.shards_count, own.shards_count)
        } else if hello.epoch == own.epoch {
            "claims this daemon's own epoch".to_owned()
        } else {
            return Ok(());
        };
        Err(Ended::Refused(wrong))
    }
}

/// Dials from `not_before` on until someone answers who is the peer.
async fn dial<T: Transport>(
    transport: Arc<T>,
    peer: RegionId,
    address: String,
    not_before: Instant,
    attempt_every: impl Fn() -> Duration,
) -> T::Link {
    tokio::time::sleep_until(not_before).await;
    let mut attempts: JoinSet<Option<T::Link>> = JoinSet::new();
    let mut next = Instant::now();
    loop {
        tokio::select! {
            biased;
            Some(ended) = attempts.join_next() => {
                if let Ok(Some(link)) = ended {
                    return link;
                }
            }
            () = tokio::time::sleep_until(next), if attempts.len() < ATTEMPTS_MAX => {
                next = Instant::now() + attempt_every();
                let (transport, address) = (transport.clone(), address.clone());
                attempts.spawn(async move {
                    let Ok(mut found) = tokio::net::lookup_host(&address).await else {
                        tracing::debug!(address, "the peer's address does not resolve");
                        return None;
                    };
                    let found = found.next()?;
                    match transport.connect(peer, found).await {
                        Ok(link) => Some(link),
                        Err(error) => {
                            tracing::debug!(%peer, "not reached: {error}");
                            None
                        }
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
