//! Mending single entries that were found damaged: in a durable checkpoint first, then here.
//!
//! An entry is replaced only while it is still what was found to be wrong; whatever a write has changed since is left
//! alone. Which entries are wrong is `verify.rs`'s to find. Start with [`Mending::mend`].

use std::collections::BTreeMap;

use tombolo_codec::{Checkpoint, Entries};

use crate::verify::entry::{EntryName, EntryState};

/// What is wrong, and what is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fix {
    pub(crate) was: Option<EntryState>,
    pub(crate) right: Option<EntryState>,
}

/// Entries to be put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mending {
    pub(crate) fixes: BTreeMap<EntryName, Fix>,
}

impl Mending {
    /// Puts the entries right in this shard's own checkpoint; says how many.
    pub fn mend(&self, checkpoint: &mut Checkpoint) -> usize {
        let mut count = 0;
        let entries = Entries {
            cells: std::mem::take(&mut checkpoint.cells),
            sessions: std::mem::take(&mut checkpoint.sessions),
            conditionals: std::mem::take(&mut checkpoint.conditionals),
        };
        let mut out = Entries::default();
        let mut lacking: BTreeMap<&EntryName, &Fix> = self.fixes.iter().collect();
        for state in EntryState::all(entries) {
            let name = state.name();
            lacking.remove(&name);
            match self.fixes.get(&name) {
                Some(fix) if fix.was.as_ref() == Some(&state) => {
                    count += 1;
                    if let Some(right) = fix.right.clone() {
                        right.put(&mut out);
                    }
                }
                _ => state.put(&mut out),
            }
        }
        for fix in lacking.into_values().filter(|fix| fix.was.is_none()) {
            if let Some(right) = fix.right.clone() {
                count += 1;
                right.put(&mut out);
            }
        }
        checkpoint.cells = out.cells;
        checkpoint.sessions = out.sessions;
        checkpoint.conditionals = out.conditionals;
        count
    }
}
