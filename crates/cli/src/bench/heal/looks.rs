//! [`Looks`]: what the regions say of each other after a heal, and since when it has been well.
//!
//! A region that falls back is not well until it is well again. Asks nobody: statuses come in as values.

use std::time::Duration;

use crate::client::{Peer, Status};

/// Lag below this is low.
///
/// Units: seconds.
pub(super) const LAG_LOW: f64 = 2.0;

/// Since when the regions have been well.
#[derive(Debug, Default)]
pub(super) struct Looks {
    reconnected: Option<Duration>,
    lag_is_low: Option<Duration>,
}

impl Looks {
    /// Takes one look at all regions, `elapsed` after the heal; gives since when they have been connected, and their
    /// lag low, once both is so.
    pub(super) fn take(&mut self, elapsed: Duration, statuses: &[Status]) -> Option<(Duration, Duration)> {
        let since = |since: Option<Duration>, is_well: bool| is_well.then(|| since.unwrap_or(elapsed));
        self.reconnected = since(self.reconnected, pairs(statuses).all(|(_, peer)| is_connected(peer)));
        self.lag_is_low = since(self.lag_is_low, pairs(statuses).all(|(_, peer)| is_low(peer)));
        self.reconnected.zip(self.lag_is_low)
    }
}

/// The greatest lag of any pair, in seconds.
pub(super) fn lag_max(statuses: &[Status]) -> f64 {
    pairs(statuses).map(|(_, peer)| peer.lag_seconds).fold(0.0, f64::max)
}

/// A pair that is not well, in words.
pub(super) fn open_pair(statuses: &[Status]) -> Option<String> {
    let (from, peer) = pairs(statuses).find(|(_, peer)| !is_connected(peer) || !is_low(peer))?;
    Some(format!("{from} says {} is {}, {:.1} s behind", peer.region, peer.state, peer.lag_seconds))
}

fn pairs(statuses: &[Status]) -> impl Iterator<Item = (&str, &Peer)> {
    statuses.iter().flat_map(|status| status.peers.iter().map(|peer| (status.region.as_str(), peer)))
}

fn is_connected(peer: &Peer) -> bool {
    peer.state != "unreachable"
}

fn is_low(peer: &Peer) -> bool {
    is_connected(peer) && peer.lag_seconds < LAG_LOW
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(state: &str, lag_seconds: f64) -> Vec<Status> {
        let peer = |region: &str, state: &str, lag_seconds| Peer {
            region: region.into(),
            state: state.into(),
            lag_seconds,
            ..Peer::default()
        };
        let of =
            |region: &str, peer| Status { region: region.into(), peers: vec![peer], ..Status::default() };
        vec![of("a", peer("b", "ok", 0.1)), of("b", peer("a", state, lag_seconds))]
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn each_is_counted_from_the_first_look_that_found_it_well() {
        let mut looks = Looks::default();
        assert_eq!(looks.take(ms(10), &statuses("unreachable", 9.0)), None);
        assert_eq!(looks.take(ms(20), &statuses("catching_up", 9.0)), None);
        assert_eq!(looks.take(ms(30), &statuses("ok", 1.9)), Some((ms(20), ms(30))));
    }

    #[test]
    fn a_region_that_falls_back_is_counted_anew() {
        let mut looks = Looks::default();
        assert_eq!(looks.take(ms(10), &statuses("ok", 2.1)), None);
        assert_eq!(looks.take(ms(20), &statuses("unreachable", 0.1)), None);
        assert_eq!(looks.take(ms(30), &statuses("ok", 0.1)), Some((ms(30), ms(30))));
    }

    #[test]
    fn a_heal_that_never_comes_stays_open_and_is_named() {
        let (mut looks, never) = (Looks::default(), statuses("unreachable", 12.34));
        assert!((1..100).all(|n| looks.take(ms(n), &never).is_none()));
        assert_eq!(open_pair(&never).unwrap(), "b says a is unreachable, 12.3 s behind");
        assert_eq!((lag_max(&never), open_pair(&statuses("ok", 0.0))), (12.34, None));
    }
}
