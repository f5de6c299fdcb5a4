//! BBR with a ceiling on the bytes in flight.
//!
//! quinn's BBR lets its window grow to gigabytes, and something has to hold it. If the receive window of the connection
//! does, a few lanes that nobody reads use that window up and silence the control channel with them; and on a path ten
//! times slower than the reference most of what is sent is lost. The ceiling here is twice what the path was seen to
//! deliver in a round trip, and never above a fixed bound; the receive window stays wide enough for every channel at
//! once.
//!
//! A round trip is the least of the last seconds, not of the connection's life: a path may become longer under a
//! connection that stands. BBR keeps the least it ever saw, with which its window on a path that became much longer is
//! four packets; there the ceiling alone counts, with a pause every ten seconds in which queues drain. There is a floor
//! under both. Otherwise the window is never above BBR's own.
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

/// For how long the least round trip counts, at least; twice as long at most. BBR lets queues drain every ten seconds, so
/// that within this time the path is seen without most of them.
const RTT_BUCKET: Duration = Duration::from_secs(10);
/// A path that became this much longer is believed at once: a queue of this connection's own making at most doubles the
/// round trip, because no more than [`GAIN`] products of rate and delay are on the way.
const LONGER_FACTOR: u32 = 3;
/// At once means: all answers of this time, and so many at least, came this late.
const LONGER_PERIOD: Duration = Duration::from_millis(500);
const LONGER_ANSWERS_COUNT: u32 = 8;
/// From this factor on BBR, which keeps the least round trip that it ever saw, is not followed any more.
const STALE_FACTOR: u32 = 2;
/// How long queues are let drain in its stead, a round trip aside: as long as BBR does.
const DRAIN: Duration = Duration::from_millis(200);

/// The window is never below, whatever the last rounds were like: 1.7 MB/s at 150 ms round trip.
///
/// BBR would go down to four packets, 26 kB, whenever it looks for the least round trip, which it does at the first load
/// after a cut. That is 170 kB/s at 150 ms, below what regions write, and after ten such rounds the ceiling would
/// believe it. This much instead shows within some rounds what the path can do. It stays small beside what a connection
/// sends first, so that a path too thin for it loses no more of it than it did then.
const IN_FLIGHT_BYTES_MIN: u64 = 256 * 1024;

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
    round_trip: RoundTrip,
    /// Whether the path is so much longer than it once was that BBR's window means nothing.
    is_longer: bool,
    drain_until: Option<Instant>,
}

/// The least round trip of the last seconds, in two buckets.
#[derive(Debug, Clone)]
struct RoundTrip {
    bucket_began: Instant,
    least: Option<Duration>,
    /// Of the bucket before.
    least_before: Option<Duration>,
    recent: Recent,
}

/// The least of the last few answers.
#[derive(Debug, Clone, Copy)]
struct Recent {
    began: Instant,
    answers_count: u32,
    least: Duration,
}

impl Recent {
    const fn new(began: Instant) -> Self {
        Self { began, answers_count: 0, least: Duration::MAX }
    }
}

impl RoundTrip {
    const fn new(now: Instant) -> Self {
        Self { bucket_began: now, least: None, least_before: None, recent: Recent::new(now) }
    }

    /// Takes a sample in; true where a bucket begins with it.
    fn seen(&mut self, now: Instant, sample: Duration) -> bool {
        let age = now.saturating_duration_since(self.bucket_began);
        let begins = age >= RTT_BUCKET;
        if begins {
            self.least_before = self.least.take().filter(|_| age < 2 * RTT_BUCKET);
            self.bucket_began = now;
        }
        self.least = Some(self.least.map_or(sample, |least| least.min(sample)));
        let recent = &mut self.recent;
        recent.least = recent.least.min(sample);
        recent.answers_count += 1;
        let period = now.saturating_duration_since(recent.began);
        if period >= LONGER_PERIOD && recent.answers_count >= LONGER_ANSWERS_COUNT {
            let recently = std::mem::replace(recent, Recent::new(now)).least;
            if recently > LONGER_FACTOR * self.least().max(ROUND_MIN) {
                (self.least, self.least_before) = (Some(recently), None);
            }
        }
        begins
    }

    fn least(&self) -> Duration {
        self.least.into_iter().chain(self.least_before).min().unwrap_or_default()
    }
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
            round_trip: RoundTrip::new(now),
            is_longer: false,
            drain_until: None,
        }
    }

    /// `rtt_ever` is the least of the connection's life, which is what BBR goes by.
    fn acked(&mut self, now: Instant, bytes: u64, app_limited: bool, rtt: Duration, rtt_ever: Duration) {
        self.round_bytes += bytes;
        let bucket_begins = self.round_trip.seen(now, rtt);
        let least = self.round_trip.least();
        self.is_longer = least > STALE_FACTOR * rtt_ever.max(ROUND_MIN);
        if bucket_begins && self.is_longer {
            self.drain_until = Some(now + DRAIN + least);
        }
        self.drain_until = self.drain_until.filter(|until| now < *until && self.is_longer);
        let took = now.saturating_duration_since(self.round_began);
        if took < self.round_trip.least().max(ROUND_MIN) {
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
        let round = self.round_trip.least().max(ROUND_MIN).as_micros();
        u64::try_from(u128::from(rate) * round * u128::from(GAIN) / 1_000_000).unwrap_or(u64::MAX)
    }

    fn ceiling(&self) -> u64 {
        let bytes = match self.rates.iter().copied().max() {
            None | Some(0) => self.initial_bytes,
            Some(rate) => self.bytes_in_flight(rate).max(IN_FLIGHT_BYTES_MIN),
        };
        bytes.min(self.in_flight_bytes_max)
    }

    fn floor(&self) -> u64 {
        IN_FLIGHT_BYTES_MIN.min(self.in_flight_bytes_max)
    }

    /// What BBR is told is on the way, given the window that it wants.
    ///
    /// Its look for the least round trip ends once no more is on the way than it wants. What the floor puts there beyond
    /// that would keep it looking, and the window at the floor, for as long as there is enough to send: of twenty links
    /// over 150 ms with 4.4 MB/s to send, three carried 1.8 from a cut of 0.4 s on.
    fn told_in_flight(&self, in_flight: u64, wanted_bytes: u64) -> u64 {
        if in_flight <= self.floor() { in_flight.min(wanted_bytes) } else { in_flight }
    }

    /// The window, given the one that BBR wants.
    fn window(&self, wanted_bytes: u64) -> u64 {
        let floor = self.floor();
        match (self.is_longer, self.drain_until) {
            (false, _) => wanted_bytes.min(self.ceiling()).max(floor),
            (true, None) => self.ceiling().max(floor),
            (true, Some(_)) => floor,
        }
    }
}

impl Controller for CappedBbr {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        // The sample itself may hold the time that the other side waited with its acknowledgement, the smoothed value
        // follows a queue that drains with a delay: the lesser of the two is nearer to the path's own.
        let sample = now.saturating_duration_since(sent).min(rtt.get());
        self.delivery.acked(now, bytes, app_limited, sample, rtt.min());
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        let in_flight = self.delivery.told_in_flight(in_flight, self.inner.window());
        self.inner.on_end_acks(now, in_flight, app_limited, largest_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.delivery.window(self.inner.window())
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
        rounds_of(RTT, delivery, began, rounds, bytes, app_limited);
        delivery.ceiling()
    }

    fn rounds_of(
        rtt: Duration,
        delivery: &mut Delivery,
        began: &mut Instant,
        rounds: usize,
        bytes: u64,
        app_limited: bool,
    ) {
        for _ in 0..rounds {
            *began += rtt;
            delivery.acked(*began, bytes, app_limited, rtt, rtt.min(RTT));
        }
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

    /// What BBR wants once it has mistaken the path.
    const FOUR_PACKETS: u64 = 26_000;

    /// Fills the window of a path that delivers 2 MB in a round trip of [`RTT`]; BBR remembers a lesser one.
    fn fill(delivery: &mut Delivery, now: &mut Instant, rtt_ever: Duration) -> u64 {
        let window = delivery.window(FOUR_PACKETS);
        for _ in 0..LONGER_ANSWERS_COUNT {
            *now += RTT / LONGER_ANSWERS_COUNT;
            let bytes = window.min(2_000_000) / u64::from(LONGER_ANSWERS_COUNT);
            delivery.acked(*now, bytes, false, RTT, rtt_ever);
        }
        window
    }

    #[test]
    fn on_a_path_that_became_longer_the_window_is_soon_what_that_path_holds() {
        let mut now = Instant::now();
        let mut delivery = Delivery::new(now, MAX, INITIAL);
        let short = Duration::from_millis(1);
        for _ in 0..3_000 {
            now += short;
            delivery.acked(now, 1_000, false, short, short);
        }
        let longer = now;
        while delivery.window(FOUR_PACKETS) < 3_900_000 {
            assert!(fill(&mut delivery, &mut now, short) >= IN_FLIGHT_BYTES_MIN);
            assert!(now < longer + Duration::from_secs(3), "{delivery:?}");
        }
        // It stays there, but for the pauses in which queues drain: once per bucket.
        let (mut rounds, mut drained) = (0, 0);
        while now < longer + 4 * RTT_BUCKET {
            rounds += 1;
            let window = fill(&mut delivery, &mut now, short);
            assert!(window <= 4_100_000, "{window}");
            drained += usize::from(window == IN_FLIGHT_BYTES_MIN);
        }
        assert!((8..=rounds / 20).contains(&drained), "{drained} of {rounds}");
    }

    #[test]
    fn a_queue_does_not_pass_for_a_longer_path() {
        let mut now = Instant::now();
        let mut delivery = Delivery::new(now, MAX, INITIAL);
        assert_eq!(ceiling_after(&mut delivery, &mut now, ROUNDS_COUNT, 2_000_000, false), 4_000_000);
        for _ in 0..LONGER_ANSWERS_COUNT {
            now += 2 * RTT;
            delivery.acked(now, 4_000_000, false, 2 * RTT, RTT);
            assert!(!delivery.is_longer);
            assert_eq!(delivery.ceiling(), 4_000_000);
        }
    }

    #[test]
    fn one_slow_answer_does_not_make_the_path_longer() {
        let mut now = Instant::now();
        let mut delivery = Delivery::new(now, MAX, INITIAL);
        for _ in 0..200 {
            rounds_of(RTT, &mut delivery, &mut now, 1, 10, true);
            rounds_of(10 * RTT, &mut delivery, &mut now, 1, 10, true);
            assert_eq!(delivery.round_trip.least(), RTT);
        }
        // Who was silent for long knows nothing of the path any more but its last answer.
        now += 3 * RTT_BUCKET;
        rounds_of(10 * RTT, &mut delivery, &mut now, 1, 10, true);
        assert_eq!(delivery.round_trip.least(), 10 * RTT);
    }

    #[test]
    fn bbr_is_told_of_no_more_on_the_way_than_it_wants_where_the_floor_alone_puts_it_there() {
        let delivery = Delivery::new(Instant::now(), MAX, INITIAL);
        assert_eq!(delivery.told_in_flight(IN_FLIGHT_BYTES_MIN, FOUR_PACKETS), FOUR_PACKETS);
        assert_eq!(delivery.told_in_flight(10_000, FOUR_PACKETS), 10_000);
        assert_eq!(delivery.told_in_flight(IN_FLIGHT_BYTES_MIN, MAX), IN_FLIGHT_BYTES_MIN);
        // What is above the floor was sent before: BBR waits until it is through.
        assert_eq!(delivery.told_in_flight(IN_FLIGHT_BYTES_MIN + 1, FOUR_PACKETS), IN_FLIGHT_BYTES_MIN + 1);
    }

    #[test]
    fn the_window_is_bbrs_own_between_the_floor_and_the_ceiling() {
        let mut now = Instant::now();
        let mut delivery = Delivery::new(now, MAX, INITIAL);
        assert_eq!(ceiling_after(&mut delivery, &mut now, 1, 2_000_000, false), 4_000_000);
        assert_eq!(delivery.window(FOUR_PACKETS), IN_FLIGHT_BYTES_MIN);
        assert_eq!(delivery.window(3_000_000), 3_000_000);
        assert_eq!(delivery.window(5_000_000), 4_000_000);
        let small = Delivery::new(now, 100_000, INITIAL);
        assert_eq!((small.window(FOUR_PACKETS), small.window(MAX)), (100_000, 100_000));
    }
}
