//! W5: after a failed sync nothing of that log is acked on the strength of a later one.

use std::collections::BTreeSet;

use tombolo_causality::{LogId, Seq};

use crate::checks::Checked;

/// Which process's which log.
type Place = (usize, u64, LogId);

#[derive(Default)]
pub(crate) struct FailedLogs(BTreeSet<Place>);

impl FailedLogs {
    pub(crate) fn failed(&mut self, place: Place) {
        self.0.insert(place);
    }

    pub(crate) fn durable(&self, place: Place, through: Seq) -> Checked {
        if self.0.contains(&place) {
            return Err(format!(
                "W5: region {} calls {:?} durable through {through} after a failure",
                place.0 + 1,
                place.2
            ));
        }
        Ok(())
    }
}
