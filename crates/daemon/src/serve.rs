//! A region's daemon from start to stop: files, recovery, shards, peers, doors, signals.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tombolo_causality::{Epoch, Router, ShardId};
use tombolo_codec::{Membership, Standing, limits};
use tombolo_gateway::service::Identity;
use tombolo_gateway::{DoorStats, serve_http, serve_quic, serve_resp};
use tombolo_replica as replica;
use tombolo_transport as transport;
use tombolo_transport::{ClientListener, DoorSettings, Link, QuicSettings, QuicTransport, Transport};
use tombolo_wal::{Committer, CommitterSettings, DiskError, FileDisk, Manifest, WalError, WalSettings};

use crate::checkpoints;
use crate::clock::{Clock, draw};
use crate::config::{ClusterConfig, ConfigError, Durability, RegionConfig};
use crate::findings::Findings;
use crate::joining::{self, Joining};
use crate::losses::{self, Loss};
use crate::members::{Members, open_members, saver};
use crate::mesh::{Mailboxes, Mesh, Own, introduce};
use crate::metrics::Metrics;
use crate::node::{Outlets, Shards};
use crate::recovery::{Recovered, recover, redo_journals};
use crate::service::{Region, Shared};
use crate::shard::{COMMANDS_MAX, EVENTS_MAX, ShardHandle, ShardTask};
use crate::skew::Skew;
use crate::storage::Storage;

/// How long the links to all peers have for the goodbye when the daemon stops.
const GOODBYES_WITHIN: Duration = Duration::from_millis(1_500);

/// How the daemon writes its log to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// What `tombolo serve` is told.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The cluster directory.
    pub cluster: PathBuf,
    /// Which region to run.
    pub region: String,
    /// In place of the data directory in the region's file.
    pub data: Option<PathBuf>,
    /// In place of the durability in the region's file.
    pub durability: Option<String>,
    /// Where to reach a region, in place of what it advertises: name and `HOST:PORT`.
    pub peer_overrides: Vec<(String, String)>,
    /// The log.
    pub log: LogFormat,
}

/// Why a daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The cluster's files have problems.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<ConfigError>),
    /// An option contradicts the files.
    #[error("{0}")]
    Option(String),
    /// Certificates or keys cannot be used.
    #[error("{0}")]
    Pki(#[from] transport::PkiError),
    /// Another process uses the data directory.
    #[error("data directory {}: {cause}; stop the other process first", .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// What the lock said.
        cause: DiskError,
    },
    /// The data directory belongs to another cluster or region.
    #[error("data directory {}: {cause}; nothing in it was changed", .dir.display())]
    WrongDirectory {
        /// The directory.
        dir: PathBuf,
        /// What was found.
        cause: WalError,
    },
    /// The disk does not do what it must.
    #[error("data directory {}: {cause}", .dir.display())]
    Storage {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        cause: WalError,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (`listen.{door}` of region {region}): {cause}")]
    Listen {
        /// Which door.
        door: &'static str,
        /// Whose.
        region: String,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        cause: String,
    },
    /// A task died of a broken invariant; where panics abort, the process is gone instead.
    #[error(
        "a part of the daemon died and it cannot go on: {0}; what was answered is on disk, start it again"
    )]
    TaskDied(String),
    /// The system gives no signal handler.
    #[error("signals: {0}")]
    Signals(std::io::Error),
}

impl ServeError {
    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Option(_) | Self::Pki(_) => 10,
            Self::InUse { .. } => 11,
            Self::WrongDirectory { .. } => 12,
            Self::Storage { .. } => 13,
            Self::Listen { .. } | Self::TaskDied(_) | Self::Signals(_) => 1,
        }
    }
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TOMBOLO_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,quinn=warn,quinn_proto=error"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second daemon in one process (tests) keeps the first one's log.
    let _ = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
}

/// Runs a region's daemon until it is told to stop by SIGTERM or SIGINT.
///
/// Errors: [`ServeError`], each with its exit code; nothing is left half-started.
pub async fn run(options: ServeOptions) -> Result<(), ServeError> {
    start_log(options.log);
    let config = ClusterConfig::load(&options.cluster).map_err(ServeError::Config)?;
    let own = settle(&config, &options)?;
    let identity = transport::Identity::load(&config.authority, &own.certificate, &own.key)?;
    Daemon::start(config, own, identity, &options.peer_overrides).await?.until_stopped().await
}

/// The region's file with the options on top.
fn settle(config: &ClusterConfig, options: &ServeOptions) -> Result<RegionConfig, ServeError> {
    let known = || config.regions.iter().map(|region| region.name.as_str()).collect::<Vec<_>>().join(", ");
    let unknown =
        |name: &str| ServeError::Option(format!("no region is called `{name}`; there are {}", known()));
    let mut own = config.region(&options.region).ok_or_else(|| unknown(&options.region))?.clone();
    if let Some(dir) = &options.data {
        own.storage.dir.clone_from(dir);
    }
    if let Some(name) = &options.durability {
        own.storage.durability = Durability::from_name(name).ok_or_else(|| {
            ServeError::Option(format!("`{name}` is not a durability: sync, interval or async"))
        })?;
    }
    for (name, _) in &options.peer_overrides {
        config.region(name).ok_or_else(|| unknown(name))?;
    }
    Ok(own)
}

struct Daemon {
    config: ClusterConfig,
    own: RegionConfig,
    region: Region,
    peers: Arc<QuicTransport>,
    clients: ClientListener,
    http: TcpListener,
    resp: TcpListener,
    tasks: JoinSet<()>,
    /// One task per peer: apart from the others, because these end with a goodbye.
    links: JoinSet<()>,
    stop: watch::Sender<bool>,
}

struct Sockets {
    peers: QuicTransport,
    clients: ClientListener,
    http: TcpListener,
    resp: TcpListener,
}

async fn bind(
    own: &RegionConfig,
    identity: &transport::Identity,
    members: transport::Members,
) -> Result<Sockets, ServeError> {
    let failed = |door: &'static str, address: SocketAddr, cause: String| {
        let region = own.name.clone();
        ServeError::Listen { door, region, address, cause }
    };
    let listen = &own.listen;
    let tcp = async |door, address| {
        TcpListener::bind(address).await.map_err(|error| failed(door, address, error.to_string()))
    };
    let (http, resp) = (tcp("http", listen.http).await?, tcp("resp", listen.resp).await?);
    let settings = QuicSettings { frame_bytes_max: limits::FRAME_BYTES_MAX, ..QuicSettings::default() };
    let peers = QuicTransport::bind(listen.peer, identity.clone(), members, settings)
        .map_err(|error| failed("peer", listen.peer, error.to_string()))?;
    let settings = DoorSettings {
        frame_bytes_max: limits::REQUEST_BYTES_MAX + 1_024,
        connections_max: own.limits.connections_max,
        ..DoorSettings::default()
    };
    let clients = ClientListener::bind(listen.quic, identity, settings)
        .map_err(|error| failed("quic", listen.quic, error.to_string()))?;
    Ok(Sockets { peers, clients, http, resp })
}

fn storage_error(dir: &std::path::Path, cause: WalError) -> ServeError {
    let dir = dir.to_owned();
    match cause {
        WalError::Disk(cause @ DiskError::Locked { .. }) => ServeError::InUse { dir, cause },
        cause if cause.is_wrong_directory() => ServeError::WrongDirectory { dir, cause },
        cause => ServeError::Storage { dir, cause },
    }
}

/// All regions that ever were, as the transport names them: a removed one is told that it was.
fn known_to_transport(cluster: tombolo_causality::ClusterId, document: &Membership) -> transport::Members {
    let names = document.entries().iter().map(|entry| (entry.region, entry.name.clone()));
    transport::Members::new(cluster, names)
}

/// What a data directory holds.
struct Opened {
    disk: FileDisk,
    wal: WalSettings,
    members: Membership,
    shards: Vec<Recovered>,
    /// Whether it began without data and does not yet hold what others do.
    is_joining: bool,
}

/// Opens the data directory and recovers every shard. Blocks.
fn open_data(
    config: &ClusterConfig,
    own: &RegionConfig,
    epoch: Epoch,
    findings: &Arc<Findings>,
) -> Result<Opened, WalError> {
    let disk = FileDisk::open(&own.storage.dir)?;
    let is_new = Manifest::read(&disk)?.is_none();
    let is_joining = joining::begin(&own.storage.dir, is_new)?;
    Manifest { cluster: config.cluster, region: own.id, shards_count: config.shards }.claim(&disk)?;
    let mut wal = WalSettings::new(config.cluster, own.id);
    wal.segment_bytes = own.storage.segment_bytes;
    // What the commit journals hold goes back to the logs before anybody reads these.
    let redone = redo_journals(&disk, wal, findings)?;
    let schema = Arc::new(config.schema.clone());
    let members = open_members(&disk, config, own)?;
    let shards = (0..config.shards).map(|shard| {
        let options = replica::Options {
            cluster: config.cluster,
            shard: ShardId(shard),
            region: own.id,
            epoch,
            roster: members.roster(own.id),
            durability: match own.storage.durability {
                Durability::Sync => replica::Durability::Sync,
                Durability::Interval | Durability::Async => replica::Durability::Relaxed,
            },
            schema: schema.clone(),
            drift_ms_max: own.max_drift_ms,
            session_numbers_max: own.session_numbers_max,
            window_ms: own.window_seconds.saturating_mul(1_000),
            peer_limits: replica::PeerLimits::default(),
        };
        recover(&disk, wal, options, findings)
    });
    let mut shards = shards.collect::<Result<Vec<Recovered>, _>>()?;
    if let Some(shard) = shards.first_mut() {
        shard.quarantined.extend(redone);
    }
    if is_joining {
        shards.iter_mut().for_each(|shard| shard.replica.begin_joining());
    }
    Ok(Opened { disk, wal, members, shards, is_joining })
}

impl Daemon {
    async fn start(
        config: ClusterConfig,
        own: RegionConfig,
        identity: transport::Identity,
        peer_overrides: &[(String, String)],
    ) -> Result<Self, ServeError> {
        let started = Instant::now();
        let epoch = Epoch(draw());
        let (metrics, findings) = (Arc::new(Metrics::new()), Arc::new(Findings::default()));
        let Opened { disk, wal, members, shards: recovered, is_joining } = {
            let (config, own, findings) = (config.clone(), own.clone(), findings.clone());
            let dir = own.storage.dir.clone();
            let opened =
                tokio::task::spawn_blocking(move || open_data(&config, &own, epoch, &findings)).await;
            opened.expect("recovery does not panic").map_err(|cause| storage_error(&dir, cause))?
        };
        let batches_count: u64 = recovered.iter().map(|shard| shard.batches_count).sum();
        let (installs, to_install) = mpsc::unbounded_channel();
        let Sockets { peers, clients, http, resp } =
            bind(&own, &identity, known_to_transport(config.cluster, &members)).await?;
        let peers = Arc::new(peers);
        let outlets = Arc::new(Outlets::new(
            (own.id, epoch),
            config.shards,
            metrics.clone(),
            findings.clone(),
            installs,
        ));
        let mut disk_senders = Vec::new();
        let mut disk_receivers = Vec::new();
        for _ in &recovered {
            let (sender, receiver) = mpsc::unbounded_channel();
            disk_senders.push(sender);
            disk_receivers.push(receiver);
        }
        let quarantined = recovered.iter().flat_map(|shard| shard.quarantined.iter().cloned()).collect();
        let losses: Vec<Loss> = recovered.iter().flat_map(|shard| shard.losses.iter().copied()).collect();
        let storage = Arc::new(Storage::new(disk_senders, metrics.clone(), findings.clone(), quarantined));
        let (replicas, stores): (Vec<_>, Vec<_>) =
            recovered.into_iter().map(|shard| (shard.replica, shard.store)).unzip();
        let durability = match own.storage.durability {
            Durability::Sync => tombolo_wal::Durability::Sync,
            Durability::Interval => {
                tombolo_wal::Durability::Interval(Duration::from_millis(own.storage.flush_interval_ms))
            }
            Durability::Async => tombolo_wal::Durability::Async,
        };
        let (cluster, transport) = (config.cluster, peers.clone());
        let members = Members::new(own.id, members, saver(disk.clone(), cluster), move |document| {
            if let Err(error) = transport.set_members(known_to_transport(cluster, document)) {
                tracing::error!("the transport does not take the new members: {error}");
            }
        });
        let events = storage.clone();
        let committer =
            Committer::start(disk, stores, CommitterSettings::new(wal, durability), move |event| {
                events.note(event);
            });
        storage.set_committer(committer.map_err(|cause| storage_error(&own.storage.dir, cause))?);

        let mut tasks = JoinSet::new();
        let mut handles = Vec::new();
        let clock = Clock::new();
        for (index, (replica, disk_events)) in replicas.into_iter().zip(disk_receivers).enumerate() {
            let shard = ShardId(u16::try_from(index).expect("at most 1,024 shards"));
            let (commands, command_inbox) = mpsc::channel(COMMANDS_MAX);
            let (events, event_inbox) = mpsc::channel(EVENTS_MAX);
            let handle = ShardHandle::new(commands, events);
            let task = ShardTask::new(shard, replica, clock, &handle, outlets.clone(), storage.clone());
            handles.push(handle);
            tasks.spawn(task.run(disk_events, event_inbox, command_inbox));
        }
        let shards = Shards::new(handles);
        let skew = Arc::new(Skew::new(own.max_drift_ms));
        let own_name = Own { cluster: config.cluster, region: own.id, epoch, shards_count: config.shards };
        let mesh = Arc::new(Mesh::new(own_name, shards.clone(), outlets.clone(), skew, members));
        if mesh.members.standing() == Standing::Removed {
            mesh.say_removed();
        }
        let region = Region::new(Shared {
            identity: Identity {
                cluster: config.cluster,
                region: own.id,
                name: own.name.clone(),
                epoch,
                shards_count: config.shards,
                durability: own.storage.durability.name(),
                regions: mesh.members.names().into_values().collect(),
                window_seconds: own.window_seconds,
                session_numbers_max: own.session_numbers_max,
                connections_max: own.limits.connections_max,
            },
            limits: own.limits.clone(),
            seal_key: config.seal_key.clone(),
            auth: own.listen.auth,
            tenants: config.tenants.iter().map(|tenant| (tenant.id, tenant.token.clone())).collect(),
            admin_token: config.admin_token.clone(),
            router: Router::new(config.shards).expect("the shard count was checked with the files"),
            shards,
            outlets,
            mesh,
            storage,
            max_drift_ms: own.max_drift_ms,
            checkpoints: DashMap::default(),
            checkpointing: tokio::sync::Mutex::new(()),
            wal_retention_bytes: own.storage.wal_retention_bytes,
            pruned: checkpoints::Pruned::default(),
            joining: Joining::new(&own.storage.dir, is_joining),
            is_ready: AtomicBool::new(false),
            waiters_count: AtomicUsize::new(0),
            doors: OnceLock::new(),
        });
        let recovery_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(region = own.name, %epoch, batches_count, recovery_ms, "recovered");
        let stop = watch::Sender::new(false);
        tasks.spawn(checkpoints::install_all(region.clone(), to_install, stop.subscribe()));
        tasks.spawn(joining::watch(region.clone(), stop.subscribe()));
        if !losses.is_empty() {
            tasks.spawn(losses::watch(region.clone(), losses, stop.subscribe()));
        }
        let links = JoinSet::new();
        let mut daemon = Self { config, own, region, peers, clients, http, resp, tasks, links, stop };
        daemon.connect(peer_overrides);
        Ok(daemon)
    }

    /// Starts one task per peer and one that hands out what dials in.
    fn connect(&mut self, peer_overrides: &[(String, String)]) {
        let mailboxes: Arc<Mailboxes<_>> = Arc::default();
        let declared = self.config.regions.iter().map(|peer| (peer.name.clone(), peer.advertise.clone()));
        let files: BTreeMap<String, String> = declared.chain(peer_overrides.iter().cloned()).collect();
        // What this machine's files say of the way to a region comes before what that says of itself.
        let address = move |entry: &tombolo_codec::MemberEntry| {
            files.get(&entry.name).unwrap_or(&entry.advertise).clone()
        };
        let mesh = self.region.shared().mesh.clone();
        let (peers, stop) = (self.peers.clone(), self.stop.subscribe());
        self.links.spawn(mesh.keep_all(peers.clone(), address, mailboxes.clone(), stop));
        self.tasks.spawn(async move {
            let mut introductions = JoinSet::new();
            while let Ok(link) = peers.accept().await {
                let mailbox = mailboxes.get(&link.peer()).map(|mailbox| mailbox.clone());
                if let Some(mailbox) = mailbox {
                    introductions.spawn(introduce(link, mailbox));
                }
                while introductions.try_join_next().is_some() {}
            }
        });
    }

    /// Runs until a signal or `stop` ends it, or the death of a task.
    async fn until_stopped(self) -> Result<(), ServeError> {
        let Self { config, own, region, peers, clients, http, resp, mut tasks, mut links, stop } = self;
        let shared_stats = || Arc::new(DoorStats::new());
        let doors = vec![("http", shared_stats()), ("resp", shared_stats()), ("quic", shared_stats())];
        let stats = |index: usize| doors[index].1.clone();
        let stopped = || {
            let mut stop = stop.subscribe();
            async move { drop(stop.wait_for(|stop| *stop).await) }
        };
        let clients = Arc::new(clients);
        let mut open_doors = JoinSet::new();
        open_doors.spawn(serve_http(http, region.clone(), stats(0), stopped()));
        open_doors.spawn(serve_resp(resp, region.clone(), stats(1), stopped()));
        open_doors.spawn(serve_quic(clients.clone(), region.clone(), stats(2), stopped()));
        assert!(region.shared().doors.set(doors).is_ok(), "the doors open once");
        if own.storage.checkpoint_interval_seconds > 0 {
            let every = Duration::from_secs(own.storage.checkpoint_interval_seconds);
            tasks.spawn(checkpoints::keep(region.clone(), every, stop.subscribe()));
        }
        let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(ServeError::Signals)?;
        region.shared().is_ready.store(true, Ordering::Release);
        let listen = &own.listen;
        tracing::info!(http = %listen.http, resp = %listen.resp, quic = %listen.quic, peer = %listen.peer, "ready");
        // Nobody may be listening: then there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        let mut asked = stop.subscribe();
        let died = loop {
            let ended = tokio::select! {
                _ = terminate.recv() => break None,
                _ = interrupt.recv() => break None,
                _ = asked.wait_for(|stop| *stop) => break None,
                _ = hangup.recv() => {
                    reload(&config, &own, &region.shared().mesh.members, &peers, &clients);
                    continue;
                }
                Some(ended) = tasks.join_next() => ended,
                Some(ended) = links.join_next() => ended,
                Some(ended) = open_doors.join_next() => ended,
            };
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the daemon died");
                break Some(ServeError::TaskDied(error.to_string()));
            }
        };
        tracing::info!("stopping");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        region.shared().is_ready.store(false, Ordering::Release);
        stop.send_replace(true);
        while open_doors.join_next().await.is_some() {}
        clients.close().await;
        // A peer that hears the goodbye knows at once that this region is gone.
        let all_said = async { while links.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYES_WITHIN, all_said).await.is_err() {
            tracing::debug!("some peers have not taken the goodbye in time");
        }
        links.shutdown().await;
        peers.close().await;
        let storage = region.shared().storage.clone();
        let _ = tokio::task::spawn_blocking(move || storage.shutdown()).await;
        tasks.shutdown().await;
        tracing::info!("stopped");
        died.map_or(Ok(()), Err)
    }
}

/// Takes new certificates over for new connections; those that stand go on.
fn reload(
    config: &ClusterConfig,
    own: &RegionConfig,
    members: &Members,
    peers: &QuicTransport,
    clients: &ClientListener,
) {
    let members = known_to_transport(config.cluster, &members.document());
    let outcome = transport::Identity::load(&config.authority, &own.certificate, &own.key)
        .map_err(|error| error.to_string())
        .and_then(|identity| {
            clients.reload(&identity).map_err(|error| error.to_string())?;
            peers.reload(identity, members).map_err(|error| error.to_string())
        });
    match outcome {
        Ok(()) => tracing::info!("certificates reloaded"),
        Err(error) => tracing::error!("certificates were not reloaded, the old ones stay: {error}"),
    }
}

#[cfg(test)]
mod tests;
