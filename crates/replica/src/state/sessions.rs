//! The session table of one shard: which numbers were logged, and up to where they are settled.
//!
//! State, not rules: who may log what is decided at admission. A number below the mark is covered; so is one in the
//! set (design.md §3.3).

use smallvec::SmallVec;
use tombolo_causality::{RegionId, SessionId, Time};
use tombolo_codec::PayloadDigest;
use tombolo_codec::checkpoint::{NumberState, SessionState};
use tombolo_codec::records::SessionOp;
use tombolo_mutants::{Mutant, is_planted};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::state::table::{Named, Table, Tree};

/// What is known of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Not logged.
    New,
    /// Logged, with this payload.
    Logged(PayloadDigest),
    /// Below the settled mark.
    Settled,
}

/// One session's numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Session {
    mark: u64,
    /// Ascending by number; numbers come nearly in order, so inserts are at the back.
    ///
    /// An idle session holds its last number alone, in place: most sessions are idle.
    numbers: SmallVec<[(u64, PayloadDigest); 1]>,
}

/// All sessions that logged anything in a shard.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    pub(crate) table: Table<SessionId, Session>,
}

fn hash(id: &SessionId, tag: u8, number: u64, digest: &[u8; 16]) -> u128 {
    let mut out = [0u8; 64];
    out[0] = tag;
    out[1..3].copy_from_slice(&id.home.get().to_le_bytes());
    out[3..19].copy_from_slice(&id.epoch.0.to_le_bytes());
    out[19..27].copy_from_slice(&id.opened.0.to_le_bytes());
    out[27..35].copy_from_slice(&id.random.to_le_bytes());
    out[35..43].copy_from_slice(&number.to_le_bytes());
    out[43..59].copy_from_slice(digest);
    xxh3_128(&out)
}

fn hash_mark(id: &SessionId, mark: u64) -> u128 {
    hash(id, 1, mark, &[0; 16])
}

fn hash_number(id: &SessionId, number: u64, digest: &PayloadDigest) -> u128 {
    hash(id, 2, number, &digest.0)
}

impl Named for SessionId {
    fn place(&self) -> u64 {
        let mut out = [0u8; 34];
        out[..2].copy_from_slice(&self.home.get().to_le_bytes());
        out[2..18].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[18..26].copy_from_slice(&self.opened.0.to_le_bytes());
        out[26..].copy_from_slice(&self.random.to_le_bytes());
        xxh3_64(&out)
    }
}

impl Session {
    /// Numbers at or above the mark.
    pub(crate) fn numbers_count(&self) -> usize {
        self.numbers.len()
    }
}

/// What a session adds to the digest.
pub(crate) fn hash_session(id: &SessionId, session: &Session) -> u128 {
    let numbers = session.numbers.iter();
    numbers.fold(hash_mark(id, session.mark), |sum, (number, digest)| {
        sum.wrapping_add(hash_number(id, *number, digest))
    })
}

/// What a session as checkpoints and peers have it adds to the digest.
pub(crate) fn hash_session_state(state: &SessionState) -> u128 {
    let numbers = state.numbers.iter();
    numbers.fold(hash_mark(&state.id, state.mark), |sum, it| {
        sum.wrapping_add(hash_number(&state.id, it.number, &it.digest))
    })
}

/// A session as checkpoints and peers have it.
pub(crate) fn session_state(id: SessionId, session: &Session) -> SessionState {
    let numbers = session.numbers.iter().map(|&(number, digest)| NumberState { number, digest }).collect();
    SessionState { id, mark: session.mark, numbers }
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn digest(&self) -> u128 {
        self.table.tree().total()
    }

    pub(crate) fn get(&self, id: &SessionId) -> Option<&Session> {
        self.table.get(id.place(), |known| known == id)
    }

    pub(crate) fn known(&self, id: &SessionId, number: u64) -> Known {
        let Some(session) = self.get(id) else { return Known::New };
        if let Ok(at) = session.numbers.binary_search_by_key(&number, |&(known, _)| known) {
            return Known::Logged(session.numbers[at].1);
        }
        let is_settled = number < session.mark && !is_planted(Mutant::StaleNumberIsNew);
        if is_settled { Known::Settled } else { Known::New }
    }

    /// Whether a new number would be one too many, once the mark is raised to `settled`.
    ///
    /// The `numbers_max` numbers from the mark on are always taken, however many lie above them: if the lowest open
    /// number were refused, the mark could never rise again. So a session holds at most twice that many.
    pub(crate) fn is_full(&self, id: &SessionId, number: u64, settled: u64, numbers_max: usize) -> bool {
        let Some(session) = self.get(id) else { return false };
        let mark = settled.max(session.mark);
        let below = session.numbers.partition_point(|&(known, _)| known < mark);
        session.numbers.len() - below >= numbers_max && number >= mark.saturating_add(numbers_max as u64)
    }

    /// The session to be changed, made first if there is none; its place, and the digests.
    fn session(&mut self, id: SessionId) -> (u64, &mut Session, &mut Tree) {
        let place = id.place();
        let make = || (id, Session::default());
        let (session, is_new, tree) = self.table.entry(place, |known| *known == id, make);
        if is_new {
            tree.change(place, 0, hash_mark(&id, 0));
        }
        (place, session, tree)
    }

    pub(crate) fn log(&mut self, op: &SessionOp) {
        let (place, session, tree) = self.session(op.session);
        if op.number < session.mark {
            return;
        }
        let mut before = 0;
        match session.numbers.binary_search_by_key(&op.number, |&(known, _)| known) {
            Err(at) => session.numbers.insert(at, (op.number, op.digest)),
            // Only an authority logs, and no two are one at a time; should that ever fail, all regions still agree.
            Ok(at) if op.digest < session.numbers[at].1 => {
                let known = std::mem::replace(&mut session.numbers[at].1, op.digest);
                before = hash_number(&op.session, op.number, &known);
            }
            Ok(_) => return,
        }
        tree.change(place, before, hash_number(&op.session, op.number, &op.digest));
    }

    /// The lowest of a session's last `kept` numbers; 0 if it has no more than that.
    pub(crate) fn lowest_of_last(&self, id: &SessionId, kept: usize) -> u64 {
        let numbers = self.get(id).map(|session| &session.numbers);
        let at = numbers.and_then(|numbers| numbers.len().checked_sub(kept).filter(|&at| at > 0));
        numbers.zip(at).map_or(0, |(numbers, at)| numbers[at].0)
    }

    /// Whether a number is below the session's settled mark, or logged.
    pub(crate) fn is_covered(&self, id: &SessionId, number: u64) -> bool {
        self.known(id, number) != Known::New
    }

    /// Whether any session of a home was opened before a time. Cost: one pass over the sessions.
    pub(crate) fn has_any_before(&self, home: RegionId, before: Time) -> bool {
        self.table.iter().any(|(id, _)| id.home == home && id.opened < before)
    }

    /// Drops the sessions of a home opened before a time. Cost: one pass over the sessions.
    pub(crate) fn forget(&mut self, home: RegionId, before: Time) {
        self.table.drop_where(|id, session| {
            (id.home == home && id.opened < before).then(|| hash_session(id, session))
        });
    }

    /// Takes a session out.
    pub(crate) fn drop_session(&mut self, id: &SessionId) {
        if let Some((session, tree)) = self.table.remove(id) {
            tree.change(id.place(), hash_session(id, &session), 0);
        }
    }

    /// Raises a session's settled mark; numbers below it are forgotten, as they can only be stale.
    pub(crate) fn mark(&mut self, id: SessionId, mark: u64) {
        let (place, session, tree) = self.session(id);
        if mark <= session.mark {
            return;
        }
        tree.change(place, hash_mark(&id, session.mark), hash_mark(&id, mark));
        session.mark = mark;
        let below = session.numbers.partition_point(|&(number, _)| number < mark);
        for (number, digest) in session.numbers.drain(..below) {
            tree.change(place, hash_number(&id, number, &digest), 0);
        }
        if session.numbers.is_empty() {
            session.numbers = SmallVec::new();
        }
    }

    pub(crate) fn dump(&self) -> Vec<SessionState> {
        self.table.iter().map(|(&id, session)| session_state(id, session)).collect()
    }

    pub(crate) fn restore(states: &[SessionState]) -> Self {
        let mut out = Self::default();
        states.iter().for_each(|state| out.join(state));
        out
    }

    /// Lets another state of a session in: the greater mark, and the numbers of both that it does not settle.
    pub(crate) fn join(&mut self, state: &SessionState) {
        self.session(state.id);
        self.mark(state.id, state.mark);
        for &NumberState { number, digest } in &state.numbers {
            self.log(&SessionOp { session: state.id, number, digest });
        }
    }
}

#[cfg(test)]
mod tests;
