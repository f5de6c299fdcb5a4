//! The lag of every region, asked of the regions themselves while the replay runs, and what it came to per phase.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::Phase;
use crate::client::Status;
use crate::regions::Doors;

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How far the worst peer was behind one region's writes.
///
/// Units: seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Lag {
    /// Greatest before the cut.
    pub(super) before: f64,
    /// Greatest from the cut until everything written by its end was everywhere.
    pub(super) during: f64,
    /// At the last look after that, while all still wrote; none if the replay was over by then.
    pub(super) after: Option<f64>,
    /// At the last look of all.
    #[serde(skip)]
    pub(super) latest: f64,
}

impl Lag {
    fn look(&mut self, phase: Phase, status: &Status) {
        self.latest = status.peers.iter().map(|peer| peer.lag_seconds).fold(0.0, f64::max);
        match phase {
            Phase::Before => self.before = self.before.max(self.latest),
            Phase::Cut | Phase::Healing => self.during = self.during.max(self.latest),
            Phase::Healed | Phase::Over => self.after = Some(self.latest),
        }
    }
}

/// What was seen so far, shared with whoever shows it.
#[derive(Clone)]
pub(super) struct Lags {
    seen: Arc<Mutex<Vec<Lag>>>,
}

impl Lags {
    pub(super) fn new(count: usize) -> Self {
        Self { seen: Arc::new(Mutex::new(vec![Lag::default(); count])) }
    }

    /// Per region, in order.
    pub(super) fn seen(&self) -> Vec<Lag> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks until the replay is over. A region that does not answer is not looked at.
    pub(super) async fn watch(self, doors: Doors, phase: watch::Receiver<Phase>) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while *phase.borrow() != Phase::Over {
            looks.tick().await;
            // What is answered during a change of phase may belong to either.
            let before = *phase.borrow();
            let Ok(statuses) = doors.statuses().await else { continue };
            if before != *phase.borrow() {
                continue;
            }
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.iter_mut().zip(&statuses).for_each(|(lag, status)| lag.look(before, status));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Peer;

    #[test]
    fn the_worst_peer_counts_and_after_the_cut_the_last_look() {
        let status = |lags: &[f64]| Status {
            peers: lags.iter().map(|&lag_seconds| Peer { lag_seconds, ..Peer::default() }).collect(),
            ..Status::default()
        };
        let mut lag = Lag::default();
        lag.look(Phase::Before, &status(&[0.1, 0.05]));
        lag.look(Phase::Cut, &status(&[0.1, 2.5]));
        lag.look(Phase::Healing, &status(&[1.0, 0.2]));
        assert_eq!(lag.after, None);
        lag.look(Phase::Healed, &status(&[0.9, 0.02]));
        lag.look(Phase::Healed, &status(&[0.04, 0.02]));
        assert_eq!(lag, Lag { before: 0.1, during: 2.5, after: Some(0.04), latest: 0.04 });
    }
}
