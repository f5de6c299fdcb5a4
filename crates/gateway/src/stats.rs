//! What a door has served: counters that only grow, and how many connections it has. It prints nothing itself.

use std::sync::atomic::{AtomicU64, Ordering};

use tombolo_codec::RejectCode;

const CODES_COUNT: usize = RejectCode::ALL.len();

/// Counts of one door, shared by its connections.
///
/// The door counts, the daemon prints; a reading is exact for each number, not across them.
#[derive(Debug, Default)]
pub struct DoorStats {
    requests: AtomicU64,
    connections: AtomicU64,
    connections_refused: AtomicU64,
    rejects: [AtomicU64; CODES_COUNT],
}

impl DoorStats {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests taken in, answered or not.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections turned away because the door was full.
    #[must_use]
    pub fn connections_refused(&self) -> u64 {
        self.connections_refused.load(Ordering::Relaxed)
    }

    /// How many requests were refused, for every code there is.
    pub fn rejects(&self) -> impl Iterator<Item = (RejectCode, u64)> + '_ {
        RejectCode::ALL.iter().zip(&self.rejects).map(|(&code, count)| (code, count.load(Ordering::Relaxed)))
    }

    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_reject(&self, code: RejectCode) {
        // `ALL` lists the codes in the order of their declaration.
        self.rejects[code as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_refused_connection(&self) {
        self.connections_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn connected(self: &std::sync::Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(self.clone())
    }
}

/// A connection, as long as it is counted.
#[derive(Debug)]
pub(crate) struct Connected(std::sync::Arc<DoorStats>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reject_is_counted_under_its_own_code() {
        for &code in RejectCode::ALL {
            let stats = DoorStats::new();
            stats.count_reject(code);
            let counted: Vec<_> = stats.rejects().filter(|(_, count)| *count > 0).collect();
            assert_eq!(counted, [(code, 1)]);
        }
    }
}
