//! BBR with a ceiling on the bytes in flight.
//!
//! quinn's BBR lets its window grow to gigabytes, and something has to hold it. If the receive window of the connection
//! does, a few lanes that nobody reads use that window up and silence the control channel with them; and on a path ten
//! times slower than the reference most of what is sent is lost. The ceiling here is twice what the path was seen to
//! deliver in a round trip, and never above a fixed bound; the receive window stays wide enough for every channel at
//! once. It never raises the window above BBR's own.
//!
//! Through a relay with 80 ms round trip, a queue of 80 ms and 0.1 % loss, 16 lanes: 12.2 of 12.5 MB/s pass and 0.6 % of
//! the packets are lost; with the fixed bound of 12 MB alone 64 % are.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{BbrConfig, Controller, ControllerFactory};
use quinn_proto::RttEstimator;

/// Rounds for which the best delivery rate counts: as long as BBR's own filter.
const ROUNDS_COUNT: usize = 10;
/// A round is not shorter: on a path of microseconds, acknowledgements come in lumps.
const ROUND_MIN: Duration = Duration::from_millis(5);
/// Like BBR's own gain: one product of rate and delay on the way, one for acknowledgements that come late and for
/// growth, which so doubles per round trip.
const GAIN: u64 = 2;

/// Enough to learn of a path that has become faster, whatever the last rounds were like.
const IN_FLIGHT_BYTES_MIN: u64 = 64 * 1024;

/// Makes [`CappedBbr`]s.
#[derive(Debug)]
pub(crate) struct CappedBbrConfig {
    pub(crate) bbr: Arc<BbrConfig>,
    pub(crate) in_flight_bytes_max: u64,
}

impl ControllerFactory for CappedBbrConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = self.bbr.clone().build(now, current_mtu);
        let delivery = Delivery::new(now, self.in_flight_bytes_max, inner.initial_window());
        Box::new(CappedBbr { inner, delivery })
    }
}

struct CappedBbr {
    inner: Box<dyn Controller>,
    delivery: Delivery,
}

/// What the path delivers, by acknowledgements.
#[derive(Debug, Clone)]
struct Delivery {
    in_flight_bytes_max: u64,
    /// The ceiling as long as nothing is known about the path.
    initial_bytes: u64,
    round_began: Instant,
    round_bytes: u64,
    /// Bytes per second of the last rounds.
    rates: [u64; ROUNDS_COUNT],
    next: usize,
    rtt_min: Duration,
}

impl Delivery {
    fn new(now: Instant, in_flight_bytes_max: u64, initial_bytes: u64) -> Self {
        Self {
            in_flight_bytes_max,
            initial_bytes,
            round_began: now,
            round_bytes: 0,
            rates: [0; ROUNDS_COUNT],
            next: 0,
            rtt_min: Duration::ZERO,
        }
    }

    fn acked(&mut self, now: Instant, bytes: u64, app_limited: bool, rtt_min: Duration) {
        self.round_bytes += bytes;
        self.rtt_min = rtt_min;
        let took = now.saturating_duration_since(self.round_began);
        if took < rtt_min.max(ROUND_MIN) {
            return;
        }
        let rate = u64::try_from(u128::from(self.round_bytes) * 1_000_000 / took.as_micros().max(1));
        let rate = rate.unwrap_or(u64::MAX);
        (self.round_began, self.round_bytes) = (now, 0);
        // Who had little to send has learnt nothing about the path, unless it was more than expected.
        if !app_limited || self.bytes_in_flight(rate) > self.ceiling() {
            self.rates[self.next] = rate;
            self.next = (self.next + 1) % ROUNDS_COUNT;
        }
    }

    fn bytes_in_flight(&self, rate: u64) -> u64 {
        let round = self.rtt_min.max(ROUND_MIN).as_micros();
        u64::try_from(u128::from(rate) * round * u128::from(GAIN) / 1_000_000).unwrap_or(u64::MAX)
    }

    fn ceiling(&self) -> u64 {
        let bytes = match self.rates.iter().copied().max() {
            None | Some(0) => self.initial_bytes,
            Some(rate) => self.bytes_in_flight(rate).max(IN_FLIGHT_BYTES_MIN),
        };
        bytes.min(self.in_flight_bytes_max)
    }
}

impl Controller for CappedBbr {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.delivery.acked(now, bytes, app_limited, rtt.min());
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window().min(self.delivery.ceiling())
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), delivery: self.delivery.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window().min(self.delivery.in_flight_bytes_max)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(80);
    const MAX: u64 = 12_000_000;
    const INITIAL: u64 = 1_000_000;

    /// The ceiling after so many rounds, each acknowledging so many bytes.
    fn ceiling_after(
        delivery: &mut Delivery,
        began: &mut Instant,
        rounds: usize,
        bytes: u64,
        app_limited: bool,
    ) -> u64 {
        for _ in 0..rounds {
            *began += RTT;
            delivery.acked(*began, bytes, app_limited, RTT);
        }
        delivery.ceiling()
    }

    #[test]
    fn the_ceiling_is_twice_what_a_round_trip_delivers_within_its_bounds() {
        let mut now = Instant::now();
        let mut delivery = Delivery::new(now, MAX, INITIAL);
        assert_eq!(delivery.ceiling(), INITIAL);
        assert_eq!(ceiling_after(&mut delivery, &mut now, 1, 2_000_000, false), 4_000_000);
        assert_eq!(ceiling_after(&mut delivery, &mut now, 1, 50_000_000, false), MAX);
        assert_eq!(ceiling_after(&mut delivery, &mut now, ROUNDS_COUNT, 2_000_000, false), 4_000_000);
        assert_eq!(ceiling_after(&mut delivery, &mut now, ROUNDS_COUNT, 10, false), IN_FLIGHT_BYTES_MIN);
    }

    #[test]
    fn idle_rounds_leave_the_ceiling_where_it_was() {
        let mut now = Instant::now();
        let mut delivery = Delivery::new(now, MAX, INITIAL);
        assert_eq!(ceiling_after(&mut delivery, &mut now, 100, 10, true), INITIAL);
        assert_eq!(ceiling_after(&mut delivery, &mut now, 1, 2_000_000, true), 4_000_000);
        assert_eq!(ceiling_after(&mut delivery, &mut now, 100, 10, true), 4_000_000);
    }
}
