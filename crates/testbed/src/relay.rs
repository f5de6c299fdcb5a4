//! A userspace UDP relay: the wide-area network of a test, standing between regions on loopback.
//!
//! For each directed pair (from, to) it opens a door that stands for `to` as seen by `from`. What comes in there is
//! forwarded to the real address of `to`, from a socket of its own per caller, so that answers come back through the
//! relay under the conditions of the reverse link. It keeps datagram boundaries and ECN marks, and never looks inside.
//! It runs on one thread of its own and moves whole bursts (GRO in, GSO out), because a core is half the machine.
//! Start with [`Relay::start`].

mod door;
mod link;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use self::door::{Buffers, BurstSocket, Door, SharedLink, run_door, run_link};
use self::link::Link;
pub use self::link::{LinkConditions, LinkStats, REORDER_HOLD};

/// The seed of [`Relay::start`].
const SEED: u64 = 0x746f_6d62_6f6c_6f21;

/// A region the relay knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayPeer {
    /// Its name.
    pub name: String,
    /// Where it really listens for its peers.
    pub address: SocketAddr,
}

/// Why a relay could not start or do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A name that is not among the peers.
    #[error("the relay has no peer named `{0}`")]
    UnknownPeer(String),
    /// A pair that is one region twice.
    #[error("`{0}` has no link to itself")]
    SamePeer(String),
    /// The same name given twice.
    #[error("two peers are named `{0}`")]
    RepeatedPeer(String),
    /// The system gave no socket or thread.
    #[error("the relay cannot start: {0}")]
    Io(#[from] io::Error),
}

/// The counters of one directed link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedLinkStats {
    /// Where datagrams come from.
    pub from: String,
    /// Where they go.
    pub to: String,
    /// What the link has done.
    pub stats: LinkStats,
}

/// A running relay; stops when dropped.
pub struct Relay {
    names: Vec<String>,
    /// Row by row: from, then to; the diagonal is `None`.
    doors: Vec<Option<SocketAddr>>,
    links: Vec<Option<Arc<SharedLink>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    thread_path: Option<std::path::PathBuf>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Relay {
    /// Starts a relay between all pairs of `peers`, every link under `conditions`.
    ///
    /// Errors: a repeated name; what the system refuses.
    pub fn start(peers: Vec<RelayPeer>, conditions: LinkConditions) -> Result<Self, RelayError> {
        Self::start_seeded(peers, conditions, SEED)
    }

    /// [`Self::start`] with a seed for loss, duplication, reordering and jitter.
    pub fn start_seeded(
        peers: Vec<RelayPeer>,
        conditions: LinkConditions,
        seed: u64,
    ) -> Result<Self, RelayError> {
        let mut names = HashSet::new();
        if let Some(repeated) = peers.iter().find(|peer| !names.insert(peer.name.as_str())) {
            return Err(RelayError::RepeatedPeer(repeated.name.clone()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let _context = runtime.enter();
        let (count, now) = (peers.len(), Instant::now());
        let links: Vec<_> = (0..count * count)
            .map(|at| {
                let seed = seed ^ (at as u64).wrapping_mul(0xd6e8_feb8_6659_fd93);
                (at / count != at % count)
                    .then(|| Arc::new(SharedLink::new(Link::new(conditions.clone(), seed, now))))
            })
            .collect();
        let buffers = Arc::new(Mutex::new(Buffers::new()));
        let mut doors = vec![None; count * count];
        for (at, forth) in links.iter().enumerate() {
            let (from, to) = (at / count.max(1), at % count.max(1));
            let (Some(forth), Some(back)) = (forth, &links[to * count + from]) else { continue };
            let socket = Arc::new(BurstSocket::open(peers[to].address)?);
            doors[at] = Some(socket.local_address()?);
            let (forth, back, buffers) = (forth.clone(), back.clone(), buffers.clone());
            runtime.spawn(run_link(forth.clone()));
            runtime.spawn(run_door(Arc::new(Door {
                socket,
                target: peers[to].address,
                forth,
                back,
                buffers,
            })));
        }
        drop(_context);
        let (stop, stopped) = oneshot::channel();
        let (thread, thread_path) = run(runtime, stopped)?;
        let names = peers.into_iter().map(|peer| peer.name).collect();
        Ok(Self { names, doors, links, stop: Some(stop), thread: Some(thread), thread_path })
    }

    /// Where `from` must dial to reach `to` through the relay.
    ///
    /// Errors: [`RelayError::UnknownPeer`], [`RelayError::SamePeer`].
    pub fn address(&self, from: &str, to: &str) -> Result<SocketAddr, RelayError> {
        let at = self.at(from, to)?;
        Ok(self.doors[at].expect("every pair off the diagonal has a door"))
    }

    /// Cuts both directions between two regions. Once this returns, nothing passes; what was in flight is lost.
    ///
    /// Errors: [`RelayError::UnknownPeer`], [`RelayError::SamePeer`].
    pub fn cut(&self, a: &str, b: &str) -> Result<(), RelayError> {
        self.cut_one_way(a, b)?;
        self.cut_one_way(b, a)
    }

    /// Cuts one direction; the other still passes.
    ///
    /// Errors: [`RelayError::UnknownPeer`], [`RelayError::SamePeer`].
    pub fn cut_one_way(&self, from: &str, to: &str) -> Result<(), RelayError> {
        self.link(from, to)?.lock().cut(Instant::now());
        Ok(())
    }

    /// Cuts a region off from all others, both ways.
    ///
    /// Errors: [`RelayError::UnknownPeer`].
    pub fn isolate(&self, name: &str) -> Result<(), RelayError> {
        self.index(name)?;
        self.names.iter().filter(|other| *other != name).try_for_each(|other| self.cut(name, other))
    }

    /// Heals both directions between two regions.
    ///
    /// Errors: [`RelayError::UnknownPeer`], [`RelayError::SamePeer`].
    pub fn heal(&self, a: &str, b: &str) -> Result<(), RelayError> {
        self.heal_one_way(a, b)?;
        self.heal_one_way(b, a)
    }

    /// Heals one direction.
    ///
    /// Errors: [`RelayError::UnknownPeer`], [`RelayError::SamePeer`].
    pub fn heal_one_way(&self, from: &str, to: &str) -> Result<(), RelayError> {
        self.link(from, to)?.lock().heal();
        Ok(())
    }

    /// Heals every link. Conditions other than the cut stay.
    pub fn heal_all(&self) {
        self.links.iter().flatten().for_each(|link| link.lock().heal());
    }

    /// Whether the direction is cut.
    ///
    /// Errors: [`RelayError::UnknownPeer`], [`RelayError::SamePeer`].
    pub fn is_cut(&self, from: &str, to: &str) -> Result<bool, RelayError> {
        Ok(self.link(from, to)?.lock().is_cut())
    }

    /// Gives one direction new conditions; what is in flight keeps the instant it was given.
    ///
    /// Errors: [`RelayError::UnknownPeer`], [`RelayError::SamePeer`].
    pub fn set(&self, from: &str, to: &str, conditions: LinkConditions) -> Result<(), RelayError> {
        self.link(from, to)?.lock().set_conditions(conditions);
        Ok(())
    }

    /// Gives every link new conditions.
    pub fn set_all(&self, conditions: &LinkConditions) {
        self.links.iter().flatten().for_each(|link| link.lock().set_conditions(conditions.clone()));
    }

    /// The counters of one direction.
    ///
    /// Errors: [`RelayError::UnknownPeer`], [`RelayError::SamePeer`].
    pub fn link_stats(&self, from: &str, to: &str) -> Result<LinkStats, RelayError> {
        Ok(self.link(from, to)?.lock().stats())
    }

    /// The counters of every link.
    #[must_use]
    pub fn stats(&self) -> Vec<NamedLinkStats> {
        let name = |at: usize| self.names[at].clone();
        let count = self.names.len();
        self.links
            .iter()
            .enumerate()
            .filter_map(|(at, link)| {
                let stats = link.as_ref()?.lock().stats();
                Some(NamedLinkStats { from: name(at / count), to: name(at % count), stats })
            })
            .collect()
    }

    /// Payload bytes handed on by all links: what was shipped between regions.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.links.iter().flatten().map(|link| link.lock().stats().bytes).sum()
    }

    /// CPU the relay's thread has used, so that a measurement can leave it out; none where the system does not say.
    ///
    /// Units: seconds.
    #[must_use]
    pub fn cpu_seconds(&self) -> Option<f64> {
        let text = std::fs::read_to_string(self.thread_path.as_ref()?.join("schedstat")).ok()?;
        let ns: u64 = text.split_whitespace().next()?.parse().ok()?;
        Some(ns as f64 / 1e9)
    }

    /// Stops the relay and waits for its thread; sockets are closed when this returns.
    pub fn stop(self) {
        drop(self);
    }

    fn index(&self, name: &str) -> Result<usize, RelayError> {
        let found = self.names.iter().position(|known| known == name);
        found.ok_or_else(|| RelayError::UnknownPeer(name.to_owned()))
    }

    fn at(&self, from: &str, to: &str) -> Result<usize, RelayError> {
        let (from_at, to_at) = (self.index(from)?, self.index(to)?);
        if from_at == to_at {
            return Err(RelayError::SamePeer(from.to_owned()));
        }
        Ok(from_at * self.names.len() + to_at)
    }

    fn link(&self, from: &str, to: &str) -> Result<&SharedLink, RelayError> {
        let at = self.at(from, to)?;
        Ok(self.links[at].as_deref().expect("every pair off the diagonal has a link"))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread waits for nothing but the signal just given.
            let _ = thread.join();
        }
    }
}

/// Runs the relay's tasks on a thread of their own; gives the thread and its place in `/proc`.
fn run(
    runtime: Runtime,
    stopped: oneshot::Receiver<()>,
) -> io::Result<(JoinHandle<()>, Option<std::path::PathBuf>)> {
    let (path, path_of_thread) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("relay".into()).spawn(move || {
        let own = std::fs::read_link("/proc/thread-self").ok();
        // The receiver waits for exactly this one message.
        let _ = path.send(own.map(|own| std::path::Path::new("/proc").join(own)));
        // Dropping the sender is the signal too: either way the wait is over.
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    })?;
    Ok((thread, path_of_thread.recv().ok().flatten()))
}
