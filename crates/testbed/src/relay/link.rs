//! One direction of a path between two regions: what it drops, holds back, repeats, and when it lets go.
//!
//! Owns no socket and reads no clock: bursts and instants come in, datagrams to send go out through a closure.
//! Start with [`LinkConditions`], then [`Link::offer`] and [`Link::release`].

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use quinn_udp::EcnCodepoint;

/// How much later than its turn a datagram chosen for reordering leaves.
pub const REORDER_HOLD: Duration = Duration::from_millis(3);

/// Bytes a link may carry in flight (delayed, not queued) before it drops: 1 Gbit/s for half a second.
const FLIGHT_BYTES_MAX: usize = 64 << 20;

/// Trains let go in one turn, so that one link cannot starve the others of the thread.
const RELEASE_TRAINS_MAX: usize = 256;

/// What a link does to datagrams.
///
/// The default does nothing at all: datagrams pass at once and in order.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkConditions {
    /// One-way delay.
    pub delay: Duration,
    /// Greatest extra delay, drawn uniformly per burst; it never changes the order.
    pub jitter: Duration,
    /// Probability that a datagram is lost, 0 to 1.
    pub loss: f64,
    /// Probability that a datagram is delivered twice, 0 to 1.
    pub duplication: f64,
    /// Probability that a datagram leaves [`REORDER_HOLD`] after its turn, past the bottleneck, 0 to 1.
    pub reorder: f64,
    /// Rate of the bottleneck; `None` for none.
    pub bytes_per_second: Option<u64>,
    /// Bytes that may wait for the bottleneck; what does not fit is dropped at the tail.
    pub queue_bytes_max: usize,
}

impl Default for LinkConditions {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            reorder: 0.0,
            bytes_per_second: None,
            queue_bytes_max: 16 << 20,
        }
    }
}

impl LinkConditions {
    /// A clean link with a one-way delay.
    #[must_use]
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }
}

/// What a link has done since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStats {
    /// Datagrams handed on, copies included.
    pub datagrams: u64,
    /// Payload bytes handed on, copies included.
    pub bytes: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Datagrams held back past their turn.
    pub reordered: u64,
    /// Datagrams dropped because the link was cut, those in flight at that moment included.
    pub dropped_cut: u64,
    /// Datagrams dropped by chance.
    pub dropped_loss: u64,
    /// Datagrams dropped because a queue was full.
    pub dropped_queue: u64,
    /// Datagrams the operating system would not take.
    pub dropped_send: u64,
}

impl LinkStats {
    /// All datagrams that came in and never went out.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped_cut + self.dropped_loss + self.dropped_queue + self.dropped_send
    }
}

/// Consecutive datagrams of one size (the last may be shorter), as one read of a socket gives them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst<'a> {
    pub(crate) bytes: &'a [u8],
    /// Size of each datagram but the last.
    pub(crate) datagram_bytes: usize,
    pub(crate) ecn: Option<EcnCodepoint>,
}

impl<'a> Burst<'a> {
    /// Number of datagrams; an empty datagram is one too.
    pub(crate) fn datagrams_count(&self) -> usize {
        self.bytes.len().div_ceil(self.datagram_bytes.max(1)).max(1)
    }

    /// The datagrams `from..to` as a burst of their own.
    pub(crate) fn part(&self, from: usize, to: usize) -> Self {
        let end = self.bytes.len();
        let (from, to) = (from * self.datagram_bytes, to * self.datagram_bytes);
        Self { bytes: &self.bytes[from.min(end)..to.min(end)], ..*self }
    }
}

/// A burst that waits, with where it is to go.
struct Held<E> {
    due: Instant,
    number: u64,
    is_in_order: bool,
    exit: E,
    bytes: Box<[u8]>,
    datagram_bytes: usize,
    ecn: Option<EcnCodepoint>,
}

impl<E> Held<E> {
    fn burst(&self) -> Burst<'_> {
        Burst { bytes: &self.bytes, datagram_bytes: self.datagram_bytes, ecn: self.ecn }
    }
}

impl<E> PartialEq for Held<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<E> Eq for Held<E> {}
impl<E> PartialOrd for Held<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
/// The earliest is the greatest, as `BinaryHeap` gives the greatest first.
impl<E> Ord for Held<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

/// One direction between two regions; `E` says where a datagram leaves.
pub(crate) struct Link<E> {
    conditions: LinkConditions,
    is_cut: bool,
    chance: Chance,
    held: BinaryHeap<Held<E>>,
    held_bytes: usize,
    held_in_order: usize,
    /// When the bottleneck has sent all it was given.
    busy_until: Instant,
    /// When the last datagram that keeps its turn leaves.
    last_due: Instant,
    next_number: u64,
    stats: LinkStats,
}

impl<E: Clone> Link<E> {
    pub(crate) fn new(conditions: LinkConditions, seed: u64, now: Instant) -> Self {
        Self {
            conditions,
            is_cut: false,
            chance: Chance(seed),
            held: BinaryHeap::new(),
            held_bytes: 0,
            held_in_order: 0,
            busy_until: now,
            last_due: now,
            next_number: 0,
            stats: LinkStats::default(),
        }
    }

    pub(crate) const fn stats(&self) -> LinkStats {
        self.stats
    }

    pub(crate) const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// What is in flight keeps the instant it was given.
    pub(crate) fn set_conditions(&mut self, conditions: LinkConditions) {
        self.conditions = conditions;
    }

    /// From here on nothing passes, and what is in flight is lost, as in a cable that breaks.
    pub(crate) fn cut(&mut self, now: Instant) {
        self.is_cut = true;
        for held in self.held.drain() {
            self.stats.dropped_cut += held.burst().datagrams_count() as u64;
        }
        (self.held_bytes, self.held_in_order) = (0, 0);
        (self.busy_until, self.last_due) = (now, now);
    }

    /// Counts a burst that found no way out of the relay.
    pub(crate) fn refuse(&mut self, burst: Burst<'_>) {
        self.stats.dropped_send += burst.datagrams_count() as u64;
    }

    pub(crate) fn heal(&mut self) {
        self.is_cut = false;
    }

    /// When [`Self::release`] has something to do next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.held.peek().map(|held| held.due)
    }

    /// Takes a burst in; what may pass at once is given to `send`, which says whether it was taken.
    pub(crate) fn offer(
        &mut self,
        now: Instant,
        exit: &E,
        burst: Burst<'_>,
        send: &mut impl FnMut(&E, Burst<'_>) -> bool,
    ) {
        let count = burst.datagrams_count();
        if self.is_cut {
            self.stats.dropped_cut += count as u64;
            return;
        }
        let LinkConditions { loss, duplication, reorder, .. } = self.conditions;
        if loss <= 0.0 && duplication <= 0.0 && reorder <= 0.0 {
            self.pass(now, exit, burst, send);
            return;
        }
        // Datagrams nothing happens to stay together: a burst sent whole costs a tenth of its parts.
        let mut run_start = 0;
        for at in 0..count {
            let is_lost = self.chance.hits(loss);
            let is_late = !is_lost && self.chance.hits(reorder);
            let is_repeated = !is_lost && self.chance.hits(duplication);
            if is_lost || is_late {
                self.pass_run(now, exit, burst, run_start..at, send);
                run_start = at + 1;
            } else if is_repeated {
                self.pass_run(now, exit, burst, run_start..at + 1, send);
                run_start = at + 1;
            }
            let datagram = burst.part(at, at + 1);
            if is_lost {
                self.stats.dropped_loss += 1;
            }
            if is_late {
                self.stats.reordered += 1;
                let due = (now + self.conditions.delay).max(self.last_due) + REORDER_HOLD;
                self.hold(due, false, exit, datagram);
            }
            if is_repeated {
                self.stats.duplicated += 1;
                self.pass(now, exit, datagram, send);
            }
        }
        self.pass_run(now, exit, burst, run_start..count, send);
    }

    /// Hands on what is due; true if more is due already.
    pub(crate) fn release(&mut self, now: Instant, send: &mut impl FnMut(&E, Burst<'_>) -> bool) -> bool {
        for _ in 0..RELEASE_TRAINS_MAX {
            if self.next_due().is_none_or(|due| due > now) {
                return false;
            }
            let held = self.held.pop().expect("peeked above");
            self.held_bytes -= held.bytes.len();
            self.held_in_order -= usize::from(held.is_in_order);
            self.hand_on(&held.exit, held.burst(), send);
        }
        self.next_due().is_some_and(|due| due <= now)
    }

    fn pass_run(
        &mut self,
        now: Instant,
        exit: &E,
        burst: Burst<'_>,
        run: std::ops::Range<usize>,
        send: &mut impl FnMut(&E, Burst<'_>) -> bool,
    ) {
        if !run.is_empty() {
            self.pass(now, exit, burst.part(run.start, run.end), send);
        }
    }

    /// Lets a burst through the bottleneck, in pieces of about a millisecond of it.
    fn pass(
        &mut self,
        now: Instant,
        exit: &E,
        burst: Burst<'_>,
        send: &mut impl FnMut(&E, Burst<'_>) -> bool,
    ) {
        let Some(rate) = self.conditions.bytes_per_second.map(|rate| rate.max(1)) else {
            self.carry(now, now, exit, burst, send);
            return;
        };
        let piece_bytes = usize::try_from(rate / 1_000).unwrap_or(usize::MAX);
        let piece = (piece_bytes / burst.datagram_bytes.max(1)).max(1);
        let count = burst.datagrams_count();
        for from in (0..count).step_by(piece) {
            let part = burst.part(from, from.saturating_add(piece).min(count));
            let start = self.busy_until.max(now);
            let waiting_bytes = (start - now).as_secs_f64() * rate as f64;
            if waiting_bytes + part.bytes.len() as f64 > self.conditions.queue_bytes_max as f64 {
                self.stats.dropped_queue += part.datagrams_count() as u64;
                continue;
            }
            self.busy_until = start + Duration::from_secs_f64(part.bytes.len() as f64 / rate as f64);
            self.carry(now, self.busy_until, exit, part, send);
        }
    }

    /// Carries a burst that enters at `entry` to the other end.
    fn carry(
        &mut self,
        now: Instant,
        entry: Instant,
        exit: &E,
        burst: Burst<'_>,
        send: &mut impl FnMut(&E, Burst<'_>) -> bool,
    ) {
        let jitter =
            self.conditions.jitter.mul_f64(self.chance.fraction_if(!self.conditions.jitter.is_zero()));
        let due = (entry + self.conditions.delay + jitter).max(self.last_due);
        self.last_due = due;
        if due <= now && self.held_in_order == 0 {
            self.hand_on(exit, burst, send);
        } else {
            self.hold(due, true, exit, burst);
        }
    }

    fn hold(&mut self, due: Instant, is_in_order: bool, exit: &E, burst: Burst<'_>) {
        if self.held_bytes + burst.bytes.len() > FLIGHT_BYTES_MAX + self.conditions.queue_bytes_max {
            self.stats.dropped_queue += burst.datagrams_count() as u64;
            return;
        }
        self.held_bytes += burst.bytes.len();
        self.held_in_order += usize::from(is_in_order);
        let number = self.next_number;
        self.next_number += 1;
        self.held.push(Held {
            due,
            number,
            is_in_order,
            exit: exit.clone(),
            bytes: burst.bytes.into(),
            datagram_bytes: burst.datagram_bytes,
            ecn: burst.ecn,
        });
    }

    fn hand_on(&mut self, exit: &E, burst: Burst<'_>, send: &mut impl FnMut(&E, Burst<'_>) -> bool) {
        let count = burst.datagrams_count() as u64;
        if send(exit, burst) {
            self.stats.datagrams += count;
            self.stats.bytes += burst.bytes.len() as u64;
        } else {
            self.stats.dropped_send += count;
        }
    }
}

/// Seeded chance (splitmix64): the same seed and the same datagrams give the same fates.
struct Chance(u64);

impl Chance {
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn fraction_if(&mut self, is_needed: bool) -> f64 {
        if is_needed { self.fraction() } else { 0.0 }
    }

    fn hits(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.fraction() < probability
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
