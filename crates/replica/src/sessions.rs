//! The session table of one shard: which numbers were logged, and up to where they are settled.
//!
//! State, not rules: who may log what is decided at admission. A number below the mark is covered; so is one in the
//! set (design.md §3.3).

use hashbrown::HashMap;
use smallvec::SmallVec;
use tombolo_causality::{RegionId, SessionId, Time};
use tombolo_codec::PayloadDigest;
use tombolo_codec::checkpoint::{NumberState, SessionState};
use tombolo_codec::records::SessionOp;
use tombolo_mutants::{Mutant, is_planted};
use xxhash_rust::xxh3::xxh3_128;

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

#[derive(Debug, Default)]
struct Session {
    mark: u64,
    /// Ascending by number; numbers come nearly in order, so inserts are at the back.
    ///
    /// An idle session holds its last number alone, in place: most sessions are idle.
    numbers: SmallVec<[(u64, PayloadDigest); 1]>,
}

/// All sessions that logged anything in a shard.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    sessions: HashMap<SessionId, Session, foldhash::fast::FixedState>,
    digest: u128,
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

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn digest(&self) -> u128 {
        self.digest
    }

    pub(crate) fn known(&self, id: &SessionId, number: u64) -> Known {
        let Some(session) = self.sessions.get(id) else { return Known::New };
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
        let Some(session) = self.sessions.get(id) else { return false };
        let mark = settled.max(session.mark);
        let below = session.numbers.partition_point(|&(known, _)| known < mark);
        session.numbers.len() - below >= numbers_max && number >= mark.saturating_add(numbers_max as u64)
    }

    fn session(&mut self, id: SessionId) -> &mut Session {
        let digest = &mut self.digest;
        self.sessions.entry(id).or_insert_with(|| {
            *digest = digest.wrapping_add(hash_mark(&id, 0));
            Session::default()
        })
    }

    pub(crate) fn log(&mut self, op: &SessionOp) {
        let session = self.session(op.session);
        if op.number < session.mark {
            return;
        }
        match session.numbers.binary_search_by_key(&op.number, |&(known, _)| known) {
            Err(at) => session.numbers.insert(at, (op.number, op.digest)),
            // Only an authority logs, and no two are one at a time; should that ever fail, all regions still agree.
            Ok(at) if op.digest < session.numbers[at].1 => {
                let known = std::mem::replace(&mut session.numbers[at].1, op.digest);
                self.digest = self.digest.wrapping_sub(hash_number(&op.session, op.number, &known));
            }
            Ok(_) => return,
        }
        self.digest = self.digest.wrapping_add(hash_number(&op.session, op.number, &op.digest));
    }

    /// The lowest of a session's last `kept` numbers; 0 if it has no more than that.
    pub(crate) fn lowest_of_last(&self, id: &SessionId, kept: usize) -> u64 {
        let numbers = self.sessions.get(id).map(|session| &session.numbers);
        let at = numbers.and_then(|numbers| numbers.len().checked_sub(kept).filter(|&at| at > 0));
        numbers.zip(at).map_or(0, |(numbers, at)| numbers[at].0)
    }

    /// Whether a number is below the session's settled mark, or logged.
    pub(crate) fn is_covered(&self, id: &SessionId, number: u64) -> bool {
        self.known(id, number) != Known::New
    }

    /// Whether any session of a home was opened before a time. Cost: one pass over the sessions.
    pub(crate) fn has_any_before(&self, home: RegionId, before: Time) -> bool {
        self.sessions.keys().any(|id| id.home == home && id.opened < before)
    }

    /// Drops the sessions of a home opened before a time. Cost: one pass over the sessions.
    pub(crate) fn forget(&mut self, home: RegionId, before: Time) {
        let mut digest = self.digest;
        self.sessions.retain(|id, session| {
            let goes = id.home == home && id.opened < before;
            if goes {
                digest = digest.wrapping_sub(hash_mark(id, session.mark));
                for (number, payload) in &session.numbers {
                    digest = digest.wrapping_sub(hash_number(id, *number, payload));
                }
            }
            !goes
        });
        self.digest = digest;
    }

    /// Raises a session's settled mark; numbers below it are forgotten, as they can only be stale.
    pub(crate) fn mark(&mut self, id: SessionId, mark: u64) {
        let session = self.session(id);
        if mark <= session.mark {
            return;
        }
        let mut change = hash_mark(&id, mark).wrapping_sub(hash_mark(&id, session.mark));
        session.mark = mark;
        let below = session.numbers.partition_point(|&(number, _)| number < mark);
        for (number, digest) in session.numbers.drain(..below) {
            change = change.wrapping_sub(hash_number(&id, number, &digest));
        }
        if session.numbers.is_empty() {
            session.numbers = SmallVec::new();
        }
        self.digest = self.digest.wrapping_add(change);
    }

    pub(crate) fn dump(&self) -> Vec<SessionState> {
        let dump = |(&id, session): (&SessionId, &Session)| SessionState {
            id,
            mark: session.mark,
            numbers: session.numbers.iter().map(|&(number, digest)| NumberState { number, digest }).collect(),
        };
        self.sessions.iter().map(dump).collect()
    }

    pub(crate) fn restore(states: &[SessionState]) -> Self {
        let mut out = Self::default();
        for state in states {
            out.session(state.id);
            out.mark(state.id, state.mark);
            for &NumberState { number, digest } in &state.numbers {
                out.log(&SessionOp { session: state.id, number, digest });
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
