//! The book of requests: numbers them, keeps them until they are answered, decides about retries.
//!
//! It waits for nothing and touches no socket: asks and answers in, bodies of frames out. Start at [`Book::accept`];
//! what follows a refusal stands in `book/refusals.rs`, what a new connection changes in `book/link.rs`.

mod link;
mod refusals;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tombolo_causality::{Epoch, RegionId, Stamp, Time};
use tombolo_codec::{ClientAnswer, ClientRequest, ReadValue, WireVerb, WriteDone, decode_answer, limits};

use crate::buffer::{Buffer, Run, weight};
use crate::client::{Ask, Awaited, Value};
use crate::entry::{Body, Entry, Place, Reply, State};
use crate::error::SdkError;
use crate::numbering::{Handle, Wire};
use crate::options::Options;
use crate::session::Written;
use crate::stamps::Stamps;
use crate::token::Token;

/// Requests that are not answered, barriers aside; above it no more are taken.
const ENTRIES_MAX: usize = 1_024;
/// Barriers that are not answered.
const BARRIERS_MAX: usize = 16_384;
/// Keys and values of them.
const BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// A session gets no new requests once half its window is over, or this.
const ROTATE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// What is encoded ahead of the stream.
const OUTBOX_BYTES_MAX: usize = 1_024 * 1_024;

pub(crate) struct Book {
    /// Where it may be sent, for people.
    addresses: String,
    regions_count: u32,
    deadline: Duration,
    failover_after: Duration,
    /// Connections in a row that were given up because their region stayed silent.
    silent_count: u32,
    drift_ms_max: u64,
    stamps: Option<Stamps>,
    /// Region and incarnation at the other end, while connected.
    link: Option<(RegionId, Epoch)>,
    /// What the connection last suffered from.
    trouble: String,
    /// Why the region at the other end is to be left for the next one.
    farewell: Option<String>,
    entries: BTreeMap<u64, Entry>,
    bytes: usize,
    /// How many of the entries are barriers.
    barriers_count: usize,
    next_id: u64,
    /// In the order of sending; what is no longer in the book is skipped.
    ready: VecDeque<u64>,
    /// Barriers, likewise.
    ready_barriers: VecDeque<u64>,
    handles: HashMap<u64, Handle>,
    wires: HashMap<u64, Wire>,
    next_wire: u64,
    /// Writers' buffers to take runs from.
    listed: Vec<Arc<Buffer>>,
    heard: Instant,
    /// Since when the longest unanswered request was sent, of those that are answered soon.
    waiting_since: Option<Instant>,
}

impl Book {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            addresses: options.addresses.join(", "),
            regions_count: u32::try_from(options.addresses.len()).unwrap_or(u32::MAX),
            deadline: options.deadline,
            failover_after: options.failover_after,
            silent_count: 0,
            drift_ms_max: options.drift_ms_max,
            stamps: None,
            link: None,
            trouble: String::new(),
            farewell: None,
            entries: BTreeMap::new(),
            bytes: 0,
            barriers_count: 0,
            next_id: 1,
            ready: VecDeque::new(),
            ready_barriers: VecDeque::new(),
            handles: HashMap::new(),
            wires: HashMap::new(),
            next_wire: 0,
            listed: Vec::new(),
            heard: Instant::now(),
            waiting_since: None,
        }
    }

    /// Whether it takes more asks.
    pub(crate) fn has_room(&self) -> bool {
        self.others_count() < ENTRIES_MAX && self.barriers_count < BARRIERS_MAX && self.bytes < BYTES_MAX
    }

    fn others_count(&self) -> usize {
        self.entries.len() - self.barriers_count
    }

    /// Whether nothing waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.listed.is_empty()
    }

    /// Takes a request of a handle.
    pub(crate) fn accept(&mut self, ask: Ask, now: Instant) {
        let deadline = now + self.deadline;
        let entry = match ask {
            Ask::Open { session, id, reply } => {
                self.sweep();
                let mut handle = Handle::new(session);
                handle.is_opening = true;
                self.handles.insert(id, handle);
                Entry::new(Body::Open, Reply::Open { handle: id, reply: Some(reply) }, 0, deadline)
            }
            Ask::Write { session, op, reply } => {
                let bytes = weight(&op);
                Entry::new(Body::Ops(vec![op]), Reply::One { session, reply }, bytes, deadline)
            }
            Ask::Read { keys, after, reply } => {
                let bytes = keys.iter().map(Vec::len).sum();
                Entry::new(Body::Read { keys, after }, Reply::Read(reply), bytes, deadline)
            }
            Ask::Await(ask) => Entry::from_await(ask),
        };
        self.enter(entry);
    }

    /// A writer has runs to send.
    pub(crate) fn list(&mut self, buffer: Arc<Buffer>) {
        self.listed.push(buffer);
    }

    /// Takes what the listed writers may send.
    pub(crate) fn collect(&mut self, now: Instant) {
        while self.others_count() < ENTRIES_MAX
            && let Some(buffer) = self.listed.pop()
        {
            for Run { shard, ops, bytes, opened } in buffer.take() {
                let reply = Reply::Run { buffer: buffer.clone(), shard, ops_count: ops.len() };
                // A run that waited for its turn has used up a part of its time, but gets one attempt.
                let deadline = (opened + self.deadline).max(now + self.deadline / 8);
                self.enter(Entry::new(Body::Ops(ops), reply, bytes, deadline));
            }
        }
    }

    fn enter(&mut self, entry: Entry) {
        let id = self.next_id;
        self.next_id += 1;
        if entry.is_barrier() {
            self.ready_barriers.push_back(id);
        } else {
            self.ready.push_back(id);
        }
        self.put(id, entry);
    }

    fn put(&mut self, id: u64, entry: Entry) {
        self.bytes += entry.bytes;
        self.barriers_count += usize::from(entry.is_barrier());
        self.entries.insert(id, entry);
    }

    fn pull(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.bytes -= entry.bytes;
        self.barriers_count -= usize::from(entry.is_barrier());
        Some(entry)
    }

    /// Handles that nobody holds leave the book with their sessions.
    fn sweep(&mut self) {
        self.handles.retain(|_, handle| {
            let is_held = handle.shared.strong_count() > 0;
            if !is_held && let Some(wire) = handle.current.and_then(|wire| self.wires.get_mut(&wire)) {
                wire.is_left = true;
            }
            is_held
        });
        self.wires.retain(|_, wire| !wire.is_over());
    }

    /// The bodies of the frames to send, up to a bound.
    pub(crate) fn take_outbox(&mut self, now: Instant) -> Vec<Bytes> {
        let mut bodies = Vec::new();
        let mut bytes = 0;
        while bytes < OUTBOX_BYTES_MAX
            && let Some(id) = self.ready.pop_front()
        {
            let Some(body) = self.depart(id, now) else { continue };
            bytes += body.len();
            bodies.push(body);
        }
        bodies
    }

    /// As [`Book::take_outbox`], of the barriers, so many.
    pub(crate) fn take_barriers(&mut self, count_max: usize, now: Instant) -> Vec<Bytes> {
        let mut bodies = Vec::new();
        while bodies.len() < count_max
            && let Some(id) = self.ready_barriers.pop_front()
        {
            bodies.extend(self.depart(id, now));
        }
        bodies
    }

    fn depart(&mut self, id: u64, now: Instant) -> Option<Bytes> {
        let mut entry = self.entries.remove(&id)?;
        let body = self.encode(id, &mut entry, now);
        if body.is_some() {
            entry.state = State::Sent(now);
            entry.attempts += 1;
        }
        self.entries.insert(id, entry);
        body
    }

    fn encode(&mut self, id: u64, entry: &mut Entry, now: Instant) -> Option<Bytes> {
        let left_ms = |until: Instant| {
            let left = until.saturating_duration_since(now).as_millis();
            u64::try_from(left).unwrap_or(u64::MAX).min(limits::AWAIT_MS_MAX)
        };
        let request = match &entry.body {
            Body::Open => ClientRequest::OpenSession,
            Body::Read { keys, after } => ClientRequest::Read {
                keys: keys.clone(),
                after: after.clone(),
                // Less than its own time, so that the region's answer comes before that is over.
                timeout_ms: left_ms(entry.deadline) / 10 * 9,
            },
            Body::Await { token, scope, until } => ClientRequest::Await {
                token: token.clone(),
                scope: scope.on_the_wire(),
                timeout_ms: left_ms(*until),
            },
            Body::Ops(_) | Body::Encoded(_) => return self.encode_write(id, entry, now),
        };
        Some(request.encode(id).into())
    }

    fn encode_write(&mut self, id: u64, entry: &mut Entry, now: Instant) -> Option<Bytes> {
        let place = match entry.place {
            Some(place) => place,
            None => self.place(id, entry, now)?,
        };
        entry.place = Some(place);
        let wire = self.wires.get(&place.wire).expect("a session stays while one of its numbers is open");
        let mut ops = match std::mem::replace(&mut entry.body, Body::Open) {
            Body::Ops(ops) => ops,
            body => {
                entry.body = body;
                entry.ops()
            }
        };
        let stamps = self.stamps.as_mut().expect("the clock is set by the first welcome");
        for op in &mut ops {
            if let WireVerb::Set { stamp, .. } | WireVerb::Delete { stamp, .. } = &mut op.verb {
                stamp.get_or_insert_with(|| stamps.draw(wire.home, Time::ZERO, now));
            }
        }
        let request = ClientRequest::Write {
            session: Some((wire.id.clone(), place.number, wire.settled())),
            retry: entry.is_retry || entry.attempts > 0,
            after: stamps.latest(),
            ops,
        };
        let body = Bytes::from(request.encode(id));
        entry.body = Body::Encoded(body.clone());
        Some(body)
    }

    /// A number in the session of the entry's handle; none if it has to wait for one.
    fn place(&mut self, id: u64, entry: &Entry, now: Instant) -> Option<Place> {
        let session = entry.session().expect("a write has a session");
        let handle = self.handles.entry(session.id).or_insert_with(|| Handle::new(Arc::downgrade(session)));
        let fresh = |wire: &u64| self.wires.get(wire).is_some_and(|wire| wire.is_fresh(now));
        let Some(current) = handle.current.filter(fresh) else {
            if let Some(wire) = handle.current.take().and_then(|wire| self.wires.get_mut(&wire)) {
                wire.is_left = true;
            }
            handle.waiting.push_back(id);
            if !std::mem::replace(&mut handle.is_opening, true) {
                let reply = Reply::Open { handle: session.id, reply: None };
                self.enter(Entry::new(Body::Open, reply, 0, now + self.deadline));
            }
            return None;
        };
        let wire = self.wires.get_mut(&current).expect("a handle's session is in the book");
        match wire.draw() {
            Some(number) => Some(Place { wire: current, number }),
            None => {
                wire.blocked.push_back(id);
                None
            }
        }
    }

    /// Lets a number go: its authority answered it, or its caller was told that nobody knows.
    fn release(&mut self, place: Option<Place>) {
        self.let_go(place, false);
    }

    fn let_go(&mut self, place: Option<Place>, is_conditional: bool) {
        let Some(place) = place else { return };
        let Some(wire) = self.wires.get_mut(&place.wire) else { return };
        if is_conditional {
            wire.answered_conditionally(place.number);
        } else {
            wire.close(place.number);
        }
        // Back to the front, in their order: they have waited longest.
        while let Some(id) = wire.blocked.pop_back() {
            self.ready.push_front(id);
        }
        if wire.is_over() {
            self.wires.remove(&place.wire);
        }
    }

    /// Takes an answer.
    ///
    /// Errors: what is wrong with it; the connection is of no more use then.
    pub(crate) fn answer(&mut self, body: &[u8], now: Instant) -> Result<(), String> {
        self.heard = now;
        let (id, answer) = decode_answer(body).map_err(|reject| reject.to_string())?;
        // What was given up is not waited for.
        let Some(entry) = self.pull(id) else { return Ok(()) };
        if matches!(answer, ClientAnswer::Written(_) | ClientAnswer::Values(_)) {
            self.silent_count = 0;
        }
        match (answer, entry.reply) {
            (ClientAnswer::Rejected(reject), reply) => {
                self.refused(id, Entry { reply, ..entry }, reject, now);
            }
            (ClientAnswer::Written(done), Reply::One { session, reply }) => {
                let WriteDone { replayed, conditional, .. } = done;
                let written = self.written(&done, now).map(|(token, stamp)| {
                    session.reached(&token);
                    Written { token, replayed, conditional, stamp }
                });
                // A caller that is gone has stopped waiting.
                drop(reply.send(written));
                self.let_go(entry.place, conditional);
            }
            (ClientAnswer::Written(done), reply @ Reply::Run { .. }) => {
                let entry = Entry { reply, ..entry };
                let (place, is_conditional) = (entry.place, done.conditional);
                let more = match self.written(&done, now) {
                    Ok((token, _)) => entry.accept_run(token, is_conditional),
                    Err(error) => entry.fail(error),
                };
                self.listed.extend(more);
                self.let_go(place, is_conditional);
            }
            (ClientAnswer::Session { id, numbers_max, window_seconds }, Reply::Open { handle, reply }) => {
                let half = Duration::from_secs(window_seconds) / 2;
                self.opened(handle, id, numbers_max, now + half.min(ROTATE_MAX));
                if let Some(reply) = reply {
                    drop(reply.send(Ok(())));
                }
            }
            (ClientAnswer::Values(values), Reply::Read(reply)) => {
                let values = values.into_iter().map(|value| self.value(value, now)).collect();
                drop(reply.send(Ok(values)));
            }
            (ClientAnswer::Awaited { reached, waited_us, laggards }, Reply::Await(reply)) => {
                let waited = Duration::from_micros(waited_us);
                drop(reply.send(Ok(Awaited { reached, waited, laggards })));
            }
            (_, reply) => {
                // Put back: another connection may answer it.
                self.put(id, Entry { reply, ..entry });
                return Err("an answer of another kind than its request".into());
            }
        }
        Ok(())
    }

    /// Errors: [`SdkError::Unknown`] for a token that cannot be read: nobody could wait for this write.
    fn written(&mut self, done: &WriteDone, now: Instant) -> Result<(Token, Option<Stamp>), SdkError> {
        let stamps = self.stamps.as_mut().expect("the clock is set by the first welcome");
        done.stamps.iter().flatten().for_each(|stamp| stamps.see(stamp.time, now));
        let unreadable =
            |error| SdkError::Unknown { text: format!("acknowledged with an odd token: {error}") };
        let token = done.token.parse().map_err(unreadable)?;
        Ok((token, done.stamps.iter().flatten().next().copied()))
    }

    fn value(&mut self, value: ReadValue, now: Instant) -> Value {
        match value {
            ReadValue::Absent => Value::Absent,
            ReadValue::Counter(value) => Value::Counter(value),
            ReadValue::Register { value, stamp } => {
                let stamps = self.stamps.as_mut().expect("the clock is set by the first welcome");
                stamps.see(stamp.time, now);
                Value::Register { value: value.into(), stamp }
            }
        }
    }

    fn opened(&mut self, handle: u64, id: String, numbers_max: u32, rotate_at: Instant) {
        let Some(home) = self.link else { return };
        self.wires.retain(|_, wire| !wire.is_over());
        let Some(handle) = self.handles.get_mut(&handle) else { return };
        let wire = self.next_wire;
        self.next_wire += 1;
        self.wires.insert(wire, Wire::new(id, numbers_max, home, rotate_at));
        handle.current = Some(wire);
        handle.is_opening = false;
        self.ready.extend(handle.waiting.drain(..));
    }

    /// Wakes what has rested, gives up what is out of time.
    pub(crate) fn tick(&mut self, now: Instant) {
        let mut over = Vec::new();
        let mut waiting_since: Option<Instant> = None;
        for (&id, entry) in &mut self.entries {
            if entry.deadline <= now {
                over.push(id);
                continue;
            }
            match entry.state {
                State::Resting(until) if until <= now => {
                    entry.state = State::Ready;
                    let ready = if entry.is_barrier() { &mut self.ready_barriers } else { &mut self.ready };
                    ready.push_back(id);
                }
                State::Sent(since) if entry.is_answered_soon() => {
                    waiting_since = Some(waiting_since.map_or(since, |known| known.min(since)));
                }
                _ => {}
            }
        }
        self.waiting_since = waiting_since;
        let (addresses, trouble) = (self.addresses.clone(), self.trouble.clone());
        let trouble = self.link.is_none().then_some(trouble);
        for id in over {
            let Some(entry) = self.pull(id) else { continue };
            self.end(entry, |entry| entry.give_up(&addresses, trouble.as_deref()));
        }
    }
}

#[cfg(test)]
mod tests;
