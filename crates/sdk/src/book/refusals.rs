//! What follows a refusal: a pause and the same request again, a new number, smaller runs, or the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tombolo_codec::{Applied, Reject, RejectCode, WireVerb};

use super::Book;
use crate::buffer::{Buffer, weight};
use crate::entry::{Body, Entry, Reply, State};
use crate::error::{is_about_an_op, is_decided_before_logging, is_farewell, is_retryable};

/// How often a request may get a new number: each time a stamp was behind, or its session had expired.
const RENUMBERED_MAX: u32 = 8;
/// Pauses before a refused request is sent again grow from here…
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// …to here, unless the refusal asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Book {
    pub(super) fn refused(&mut self, id: u64, mut entry: Entry, mut reject: Reject, now: Instant) {
        if !entry.is_lost && is_decided_before_logging(&reject) {
            // Of what it is told is a retry the region cannot know what others logged; here it is known that each
            // attempt was answered, and none was logged.
            reject.applied = Applied::No;
        }
        let is_fresh = entry.is_write() && !entry.is_lost && reject.applied == Applied::No;
        let may_renumber = is_fresh && entry.renumbered < RENUMBERED_MAX;
        if may_renumber && reject.code == RejectCode::StampBehind && self.restamp(&mut entry, &reject, now) {
            return self.renumber(id, entry);
        }
        if may_renumber && entry.attempts == 1 && reject.code == RejectCode::SessionExpired {
            self.leave_session(&entry);
            return self.renumber(id, entry);
        }
        if may_renumber && reject.code == RejectCode::SessionFull && self.is_of_left_session(&entry) {
            return self.renumber(id, entry);
        }
        let has_others = self.regions_count > 1;
        if has_others && is_farewell(&reject) && now < entry.deadline {
            entry.state = State::Resting(now);
            entry.is_lost |= reject.applied == Applied::Unknown;
            self.farewell = Some(reject.to_string());
            entry.last_reject = Some(reject);
            return self.put(id, entry);
        }
        if reject.code != RejectCode::NotYet && is_retryable(&reject) && now < entry.deadline {
            let asked = Duration::from_millis(reject.retry_after_ms.unwrap_or(0).into());
            let grown = PAUSE_MIN.saturating_mul(1 << entry.attempts.min(10)).min(PAUSE_MAX);
            entry.state = State::Resting(now + asked.max(grown));
            // A refusal that leaves the outcome open is no answer about what was applied.
            entry.is_lost |= reject.applied == Applied::Unknown;
            entry.last_reject = Some(reject);
            self.put(id, entry);
            return;
        }
        if let Reply::Run { ops_count: 2.., .. } = entry.reply
            && is_fresh
            && is_about_an_op(&reject)
        {
            return self.split(entry);
        }
        self.end(entry, |entry| entry.refuse(reject));
    }

    /// New stamps above the one that is needed, in the order of the ops.
    fn restamp(&mut self, entry: &mut Entry, reject: &Reject, now: Instant) -> bool {
        let (Some(needed), Some(place)) = (reject.stamp_needed, entry.place) else { return false };
        let (Some(wire), Some(stamps)) = (self.wires.get(&place.wire), self.stamps.as_mut()) else {
            return false;
        };
        let mut ops = entry.ops();
        let mut above = needed.time;
        for op in &mut ops {
            if let WireVerb::Set { stamp, .. } | WireVerb::Delete { stamp, .. } = &mut op.verb {
                let drawn = stamps.draw(wire.home, above, now);
                above = drawn.time;
                *stamp = Some(drawn);
            }
        }
        entry.body = Body::Ops(ops);
        true
    }

    fn is_of_left_session(&self, entry: &Entry) -> bool {
        entry.place.and_then(|place| self.wires.get(&place.wire)).is_some_and(|wire| wire.is_left)
    }

    fn leave_session(&mut self, entry: &Entry) {
        let Some(place) = entry.place else { return };
        let session = entry.session().expect("a write has a session");
        if let Some(handle) = self.handles.get_mut(&session.id)
            && handle.current == Some(place.wire)
        {
            handle.current = None;
            if let Some(wire) = self.wires.get_mut(&place.wire) {
                wire.is_left = true;
            }
        }
    }

    /// It was not applied: it goes out as a new request.
    fn renumber(&mut self, id: u64, mut entry: Entry) {
        let place = entry.place.take();
        entry.attempts = 0;
        entry.renumbered += 1;
        entry.state = State::Ready;
        self.put(id, entry);
        self.release(place);
        self.ready.push_back(id);
    }

    /// One op of a run is to blame: each half goes on by itself.
    ///
    /// As a retry: a later run may have written the same key with a later stamp, and it shall win.
    fn split(&mut self, entry: Entry) {
        let mut ops = entry.ops();
        let Reply::Run { buffer, shard, .. } = entry.reply else { return };
        let place = entry.place;
        let right = ops.split_off(ops.len() / 2);
        buffer.split(shard);
        for ops in [ops, right] {
            let bytes = ops.iter().map(weight).sum();
            let reply = Reply::Run { buffer: buffer.clone(), shard, ops_count: ops.len() };
            let mut half = Entry::new(Body::Ops(ops), reply, bytes, entry.deadline);
            half.is_retry = true;
            self.enter(half);
        }
        self.release(place);
    }

    /// Tells the caller, then lets the number go: never the other way round.
    pub(super) fn end(&mut self, entry: Entry, tell: impl FnOnce(Entry) -> Option<Arc<Buffer>>) {
        let place = entry.place;
        let opened_for = match &entry.reply {
            Reply::Open { handle, .. } => Some(*handle),
            _ => None,
        };
        self.listed.extend(tell(entry));
        self.release(place);
        if let Some(handle) = opened_for.and_then(|handle| self.handles.get_mut(&handle)) {
            // Those that wait for it ask anew, within their own deadlines.
            handle.is_opening = false;
            self.ready.extend(handle.waiting.drain(..));
        }
    }
}
