//! The clients: one session with numbered ops, plain adds, deletes and register writes with stamps fixed once.

use super::log::{DELETES, OPS, WRITES};

/// What the clients know and have fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Client {
    /// Numbers that were sent, one bit each.
    pub sent: u8,
    /// Numbers that may be settled: answered by the authority, or given up.
    pub settled: u8,
    /// Numbers given up without any answer.
    pub given_up: u8,
    /// Numbers answered by anyone.
    pub answered: u8,
    /// Plain adds made.
    pub adds: u8,
    /// The generation that each delete opens; 0 before it is first sent.
    pub deletes: [u8; DELETES],
    /// The stamp of each register write; 0 before it is first sent.
    pub stamps: [u8; WRITES],
    /// For each register write, the one its writer saw, plus 1.
    pub saw: [u8; WRITES],
    /// Register writes first sent after the window of all others had passed.
    pub young: u8,
}

impl Client {
    /// The settled mark: all numbers below it are settled.
    #[must_use]
    pub fn mark(&self) -> u8 {
        (self.settled.trailing_ones() as u8).min(OPS as u8)
    }
}
