//! S2: another payload under a used number is refused, never run as new.

use std::collections::BTreeSet;

use crate::checks::Checked;
use crate::clients::Fate;
use crate::world::World;

/// Requests whose number other ops took, after every copy of theirs was gone.
#[derive(Default)]
pub(crate) struct Forged(BTreeSet<usize>);

impl Forged {
    pub(crate) fn is_forged(&self, request: usize) -> bool {
        self.0.contains(&request)
    }
}

impl World {
    pub(crate) fn check_forged(
        &mut self,
        request: usize,
        fate: Fate,
        node: usize,
        is_conditional: bool,
    ) -> Checked {
        // A home that does not know its own past yet takes a number conditionally: it cannot tell, and it never counts.
        if fate == Fate::Kept && !is_conditional {
            let session = self.clients.requests[request].session;
            return Err(format!("S2: other ops under {session:?} were answered yes in region {}", node + 1));
        }
        self.checks.s2.0.insert(request);
        Ok(())
    }
}
