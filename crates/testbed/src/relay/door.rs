//! The relay's sockets: a door per directed pair, a socket per flow that came through it, and the tasks that read them.
//!
//! Decides nothing about a datagram's fate: that is [`super::link`]. Start with [`run_door`].

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep_until;

use super::link::{Burst, Link};

/// Socket buffers asked for; the system may give less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Largest UDP payload over IPv4: the bound of one send, however many datagrams it holds.
const SEND_BYTES_MAX: usize = 65_507;

/// Datagrams a burst may hold: what receivers make room for.
const SEGMENTS_MAX: usize = 64;

/// Room for one read of coalesced datagrams.
const RECEIVE_BYTES_MAX: usize = 1 << 16;

/// Flows one door keeps; a caller that dials from ever new ports takes the place of the longest silent one.
const FLOWS_MAX: usize = 64;

/// A socket with the burst features of the system.
pub(super) struct BurstSocket {
    io: UdpSocket,
    state: UdpSocketState,
}

impl BurstSocket {
    /// Binds a free loopback port of the same family as `like`. Needs a runtime's context.
    pub(super) fn open(like: SocketAddr) -> io::Result<Self> {
        let local: SocketAddr = match like {
            SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
        };
        let socket = socket2::Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        // Best effort: a refusal leaves the system's default, and the bursts' overflow shows as loss.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        socket.bind(&local.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { io: UdpSocket::from_std(socket.into())?, state })
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Sends a burst in as few calls as the system allows; false if any part was refused.
    ///
    /// Never waits: a full send buffer drops, as a network card would.
    fn send(&self, destination: SocketAddr, burst: Burst<'_>) -> bool {
        let count = burst.datagrams_count();
        let fitting = (SEND_BYTES_MAX / burst.datagram_bytes.max(1)).max(1);
        let mut sent = 0;
        while sent < count {
            // Read each time: the count falls to 1 where the system turns out to lack the feature.
            let step = self.state.max_gso_segments().clamp(1, fitting);
            let part = burst.part(sent, (sent + step).min(count));
            let transmit = Transmit {
                destination,
                ecn: part.ecn,
                contents: part.bytes,
                segment_size: (part.bytes.len() > part.datagram_bytes).then_some(part.datagram_bytes),
                src_ip: None,
            };
            if self.state.try_send(UdpSockRef::from(&self.io), &transmit).is_err() {
                return false;
            }
            sent += step;
        }
        true
    }
}

/// Where a datagram leaves the relay.
#[derive(Clone)]
pub(super) struct Exit {
    socket: Arc<BurstSocket>,
    destination: SocketAddr,
}

fn send(exit: &Exit, burst: Burst<'_>) -> bool {
    exit.socket.send(exit.destination, burst)
}

/// A link and the wake-up of the task that lets its held datagrams go.
pub(super) struct SharedLink {
    link: Mutex<Link<Exit>>,
    is_earlier: Notify,
}

impl SharedLink {
    pub(super) fn new(link: Link<Exit>) -> Self {
        Self { link: Mutex::new(link), is_earlier: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Link<Exit>> {
        // A panic elsewhere while it was held leaves counters at worst off by one burst.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, now: Instant, exit: &Exit, burst: Burst<'_>) {
        let mut link = self.lock();
        let before = link.next_due();
        link.offer(now, exit, burst, &mut send);
        let is_earlier = match (before, link.next_due()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(before), Some(after)) => after < before,
        };
        drop(link);
        if is_earlier {
            self.is_earlier.notify_one();
        }
    }
}

/// Lets go what a link holds, when it is due, for as long as the relay runs.
pub(super) async fn run_link(shared: Arc<SharedLink>) {
    loop {
        let (has_more, next) = {
            let mut link = shared.lock();
            (link.release(Instant::now(), &mut send), link.next_due())
        };
        match next {
            Some(_) if has_more => tokio::task::yield_now().await,
            Some(due) => tokio::select! {
                biased;
                () = sleep_until(due.into()) => {}
                () = shared.is_earlier.notified() => {}
            },
            None => shared.is_earlier.notified().await,
        }
    }
}

/// The buffers all readers of a relay share: reading and passing on is one step without a wait inside.
pub(super) struct Buffers {
    bytes: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
    joined: Vec<u8>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; RECEIVE_BYTES_MAX * BATCH_SIZE],
            metas: [RecvMeta::default(); BATCH_SIZE],
            joined: Vec::with_capacity(SEND_BYTES_MAX),
        }
    }

    /// Reads what is there and gives each burst with its sender to `take`.
    fn receive(&mut self, socket: &BurstSocket, mut take: impl FnMut(SocketAddr, Burst<'_>)) {
        let Self { bytes, metas, joined } = self;
        let mut chunks = bytes.chunks_exact_mut(RECEIVE_BYTES_MAX);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("one chunk per slice")));
        let received = socket.io.try_io(Interest::READABLE, || {
            socket.state.recv(UdpSockRef::from(&socket.io), &mut slices, metas)
        });
        // An error here is "nothing to read" or an ICMP notice about an earlier send: both end by reading again.
        let count = received.unwrap_or(0);
        let mut at = 0;
        while at < count {
            let joint = joint_count(&metas[at..count]);
            let meta = metas[at];
            let bytes = if joint == 1 {
                &slices[at][..meta.len]
            } else {
                joined.clear();
                (at..at + joint).for_each(|at| joined.extend_from_slice(&slices[at][..metas[at].len]));
                &joined[..]
            };
            take(meta.addr, Burst { bytes, datagram_bytes: meta.stride.max(1), ecn: meta.ecn });
            at += joint;
        }
    }
}

/// How many reads from the first on make one burst: a copy costs far less than a system call per datagram.
fn joint_count(metas: &[RecvMeta]) -> usize {
    let first = metas[0];
    let is_full = |meta: &RecvMeta| meta.stride > 0 && meta.len.is_multiple_of(meta.stride);
    let (mut count, mut bytes) = (1, first.len);
    while let Some(next) = metas.get(count) {
        let is_like = next.addr == first.addr && next.ecn == first.ecn && next.stride > 0;
        let fits = bytes + next.len <= SEND_BYTES_MAX.min(first.stride * SEGMENTS_MAX);
        // Only the last datagram of a burst may be shorter than the others.
        let continues =
            next.stride == first.stride || (next.stride < first.stride && next.len == next.stride);
        if !(is_full(&metas[count - 1])
            && metas[count - 1].stride == first.stride
            && is_like
            && fits
            && continues)
        {
            break;
        }
        bytes += next.len;
        count += 1;
    }
    count
}

/// "`to` as seen by `from`": what a door stands for.
pub(super) struct Door {
    pub(super) socket: Arc<BurstSocket>,
    /// The real address behind the door.
    pub(super) target: SocketAddr,
    pub(super) forth: Arc<SharedLink>,
    pub(super) back: Arc<SharedLink>,
    pub(super) buffers: Arc<Mutex<Buffers>>,
}

struct Flow {
    exit: Exit,
    reader: AbortHandle,
    last_used: Instant,
}

/// Reads a door for as long as the relay runs; each caller gets a socket of its own towards the target, so that
/// answers find their way back.
pub(super) async fn run_door(door: Arc<Door>) {
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    while door.socket.io.readable().await.is_ok() {
        let mut buffers = door.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        buffers.receive(&door.socket, |from, burst| {
            if let Some(exit) = flow_exit(&mut flows, &door, from, now) {
                door.forth.offer(now, &exit, burst);
            } else {
                door.forth.lock().refuse(burst);
            }
        });
    }
}

/// The exit of the flow from `from`, made if it is new; none if the system gives no socket.
fn flow_exit(
    flows: &mut HashMap<SocketAddr, Flow>,
    door: &Arc<Door>,
    from: SocketAddr,
    now: Instant,
) -> Option<Exit> {
    if let Some(flow) = flows.get_mut(&from) {
        flow.last_used = now;
        return Some(flow.exit.clone());
    }
    if flows.len() >= FLOWS_MAX {
        let silent = flows.iter().min_by_key(|(_, flow)| flow.last_used).map(|(from, _)| *from)?;
        flows.remove(&silent)?.reader.abort();
    }
    let socket = Arc::new(BurstSocket::open(door.target).ok()?);
    let reader = tokio::spawn(run_flow(door.clone(), socket.clone(), from)).abort_handle();
    let exit = Exit { socket, destination: door.target };
    flows.insert(from, Flow { exit: exit.clone(), reader, last_used: now });
    Some(exit)
}

/// Reads a flow's socket and brings the target's answers back to `caller` through the door.
async fn run_flow(door: Arc<Door>, socket: Arc<BurstSocket>, caller: SocketAddr) {
    let exit = Exit { socket: door.socket.clone(), destination: caller };
    while socket.io.readable().await.is_ok() {
        let mut buffers = door.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        buffers.receive(&socket, |from, burst| {
            if from == door.target {
                door.back.offer(now, &exit, burst);
            }
        });
    }
}
