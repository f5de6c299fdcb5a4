//! Who belongs to the cluster, as this node knows: learned from files, peers and operators, made durable, then acted on.
//!
//! One change at a time. Its order: durable → links → told to peers → told to the shards. What the document means is the
//! codec's; what a shard does with it is the replica's. Start at [`Mesh::change`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tombolo_causality::{ClusterId, RegionId};
use tombolo_codec::{
    MEMBERSHIP_BYTES_MAX, Membership, MembershipError, PeerMessage, Reject, RejectCode, Standing,
};
use tombolo_replica::{Input, Notice};
use tombolo_wal::{Disk, WalError, read_members, write_members};

use crate::config::{ClusterConfig, RegionConfig};
use crate::mesh::Mesh;

/// Time between two looks whether the shards go by a change.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Makes a document durable.
type Save = dyn Fn(&Membership) -> Result<(), WalError> + Send + Sync;
/// Tells the transport whom it may speak with.
type Admit = dyn Fn(&Membership) + Send + Sync;

/// The document and what is to be done when it changes.
pub(crate) struct Members {
    own: RegionId,
    /// Held while a change is made.
    changing: tokio::sync::Mutex<()>,
    latest: watch::Sender<Arc<Membership>>,
    /// The revision that all shards go by.
    applied: AtomicU64,
    save: Box<Save>,
    admit: Box<Admit>,
}

impl Members {
    pub(crate) fn new(
        own: RegionId,
        document: Membership,
        save: impl Fn(&Membership) -> Result<(), WalError> + Send + Sync + 'static,
        admit: impl Fn(&Membership) + Send + Sync + 'static,
    ) -> Self {
        let applied = AtomicU64::new(document.revision());
        let latest = watch::Sender::new(Arc::new(document));
        let (save, admit) = (Box::new(save), Box::new(admit));
        Self { own, changing: tokio::sync::Mutex::new(()), latest, applied, save, admit }
    }

    /// The document.
    pub(crate) fn document(&self) -> Arc<Membership> {
        self.latest.borrow().clone()
    }

    /// The document, and every later one.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Membership>> {
        self.latest.subscribe()
    }

    /// The revision that all shards of this node go by.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Where this region itself stands.
    pub(crate) fn standing(&self) -> Standing {
        self.document().get(self.own).map_or(Standing::Removed, |entry| entry.standing)
    }

    /// Whether this region and a peer have nothing to say to each other, as one of them was removed.
    pub(crate) fn is_apart(&self, peer: RegionId) -> bool {
        let document = self.document();
        !document.is_present(peer) || !document.is_present(self.own)
    }

    /// Every region that ever was, by name.
    pub(crate) fn names(&self) -> BTreeMap<RegionId, String> {
        let document = self.document();
        document.entries().iter().map(|entry| (entry.region, entry.name.clone())).collect()
    }

    /// A region's name.
    pub(crate) fn name(&self, region: RegionId) -> String {
        self.document().get(region).map_or_else(|| region.to_string(), |entry| entry.name.clone())
    }

    /// Members, this region included.
    pub(crate) fn present(&self) -> Vec<RegionId> {
        let document = self.document();
        let present = document.entries().iter().filter(|entry| entry.standing != Standing::Removed);
        present.map(|entry| entry.region).collect()
    }
}

/// The document that this node starts with: what it knew when it stopped, and what the cluster's files add to that.
///
/// Errors: the disk's; a file that is damaged or another cluster's.
pub(crate) fn open_members<D: Disk>(
    disk: &D,
    config: &ClusterConfig,
    own: &RegionConfig,
) -> Result<Membership, WalError> {
    let damaged = |what| WalError::Manifest { path: "members".to_owned(), what };
    let known = match read_members(disk, MEMBERSHIP_BYTES_MAX + 1)? {
        None => Membership::default(),
        Some(bytes) => Membership::decode(&bytes, config.cluster).map_err(|error| match error {
            MembershipError::Cluster { .. } => damaged("belongs to another cluster"),
            _ => damaged("is damaged; take it away, and peers tell what stood in it"),
        })?,
    };
    let mut document = known.clone();
    for region in &config.regions {
        if document.get(region.id).is_none() {
            let declared = [(region.id, region.name.clone(), region.advertise.clone())];
            document.join(&Membership::of(declared));
        }
    }
    document.move_to(own.id, &own.advertise);
    if document != known {
        write_members(disk, &document.encode(config.cluster))?;
    }
    Ok(document)
}

/// How documents of a node are made durable.
pub(crate) fn saver<D: Disk + Send + Sync + 'static>(
    disk: D,
    cluster: ClusterId,
) -> impl Fn(&Membership) -> Result<(), WalError> + Send + Sync {
    move |document| write_members(&disk, &document.encode(cluster))
}

fn not_saved(error: &WalError) -> Reject {
    let text = format!("the change could not be made durable here, and nothing was done: {error}");
    Reject::new(RejectCode::StorageFailed, text)
}

impl Mesh {
    /// Takes in what a peer knows.
    pub(crate) async fn learn(self: &Arc<Self>, news: Membership) {
        let learned = self.change(move |document| {
            document.join(&news);
            Ok(())
        });
        if let Err(reject) = learned.await {
            let notice = Notice { code: "members_not_saved", text: reject.text };
            self.outlets.findings.raise("members", &notice);
        }
    }

    /// Changes the document, and has everybody act on that; says whether there was anything to change.
    ///
    /// What was begun is brought to its end, also when the caller goes away.
    ///
    /// Errors: that of `make`, which then changed nothing; `storage_failed`.
    pub(crate) async fn change(
        self: &Arc<Self>,
        make: impl FnOnce(&mut Membership) -> Result<(), Reject> + Send + 'static,
    ) -> Result<bool, Reject> {
        let mesh = self.clone();
        let changed = tokio::spawn(async move { mesh.change_alone(make).await }).await;
        changed.unwrap_or_else(|_| Err(Reject::new(RejectCode::ShuttingDown, "the daemon is stopping")))
    }

    async fn change_alone(
        self: Arc<Self>,
        make: impl FnOnce(&mut Membership) -> Result<(), Reject>,
    ) -> Result<bool, Reject> {
        let members = &self.members;
        let _alone = members.changing.lock().await;
        let mut document = Membership::clone(&members.document());
        make(&mut document)?;
        if document == *members.document() {
            return Ok(false);
        }
        let document = Arc::new(document);
        let (mesh, saved) = (self.clone(), document.clone());
        let saved = tokio::task::spawn_blocking(move || (mesh.members.save)(&saved)).await;
        saved.expect("writing a file does not panic").map_err(|error| not_saved(&error))?;
        for entry in document.entries().iter().filter(|entry| entry.region != members.own) {
            self.add_peer(entry.region, &entry.name);
        }
        (members.admit)(&document);
        let was_in = members.document().is_present(members.own);
        members.latest.send_replace(document.clone());
        tracing::info!(revision = document.revision(), "members changed");
        if was_in && !document.is_present(members.own) {
            self.say_removed();
        }
        self.tell_peers(&PeerMessage::Members(Membership::clone(&document)));
        let roster = document.roster(members.own);
        self.shards.tell_all(|| Input::Members(roster.clone())).await;
        tokio::spawn(self.clone().note_applied(document));
        Ok(true)
    }

    /// Says that this region is out: what it holds grows old, and it takes no writes.
    pub(crate) fn say_removed(&self) {
        let text = "this region was removed from its cluster: it takes no writes, and what it holds grows old. It may \
                    return only as a new region";
        self.outlets.findings.raise("members", &Notice { code: "removed", text: text.to_owned() });
    }

    fn tell_peers(&self, message: &PeerMessage) {
        for peer in &self.outlets.peers {
            if let Some(queues) = peer.queues() {
                let _ = queues.control.send(message.clone());
            }
        }
    }

    /// Notes the revision once all shards go by it. A region that leaves has then answered all writes it ever will, and
    /// all of them are durable.
    async fn note_applied(self: Arc<Self>, document: Arc<tombolo_codec::Membership>) {
        let roster = document.roster(self.members.own);
        for shard in self.shards.ids() {
            loop {
                let roster = roster.clone();
                let look = move |replica: &tombolo_replica::Replica, _| {
                    *replica.roster() == roster && (roster.standing == Standing::Member || replica.is_idle())
                };
                match self.shards.inspect(shard, look).await {
                    Ok(true) => break,
                    // A later change is under way: that one is noted.
                    Ok(false) if self.members.document() != document => return,
                    Ok(false) => tokio::time::sleep(LOOK_EVERY).await,
                    Err(_) => return,
                }
            }
        }
        self.members.applied.fetch_max(document.revision(), Ordering::AcqRel);
        self.note_revision(self.own.region, self.members.applied());
    }
}
