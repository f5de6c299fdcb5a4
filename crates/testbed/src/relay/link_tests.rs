//! Links alone: instants are arithmetic, so the bounds are exact.

use super::*;

/// What left the link: (burst's bytes, size of its datagrams).
type Out = Vec<(Vec<u8>, usize)>;

fn taker(out: &mut Out) -> impl FnMut(&(), Burst<'_>) -> bool {
    |(), burst| {
        out.push((burst.bytes.to_vec(), burst.datagram_bytes));
        true
    }
}

fn burst(bytes: &[u8], datagram_bytes: usize) -> Burst<'_> {
    Burst { bytes, datagram_bytes, ecn: None }
}

/// The datagrams of all bursts, one by one.
fn datagrams(out: &Out) -> Vec<Vec<u8>> {
    out.iter().flat_map(|(bytes, size)| bytes.chunks(*size).map(<[u8]>::to_vec)).collect()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Offers `count` datagrams of four bytes that hold their number, in bursts of 10, and releases them all.
fn run_numbered(conditions: LinkConditions, seed: u64, count: u32) -> (Vec<u32>, LinkStats) {
    let start = Instant::now();
    let mut link = Link::new(conditions, seed, start);
    let mut out = Out::new();
    for first in (0..count).step_by(10) {
        let now = start + Duration::from_micros(u64::from(first) * 100);
        let bytes: Vec<u8> = (first..first + 10).flat_map(u32::to_le_bytes).collect();
        link.offer(now, &(), burst(&bytes, 4), &mut taker(&mut out));
        while link.release(now, &mut taker(&mut out)) {}
    }
    while link.release(start + Duration::from_secs(3_600), &mut taker(&mut out)) {}
    let numbers = datagrams(&out).iter().map(|d| u32::from_le_bytes(d[..].try_into().unwrap())).collect();
    (numbers, link.stats())
}

#[test]
fn a_link_without_conditions_passes_a_burst_whole_and_at_once() {
    let now = Instant::now();
    let mut link = Link::new(LinkConditions::default(), 1, now);
    let mut out = Out::new();
    link.offer(now, &(), burst(&[7; 2_500], 1_000), &mut taker(&mut out));
    assert_eq!(out, vec![(vec![7; 2_500], 1_000)]);
    assert_eq!(link.stats(), LinkStats { datagrams: 3, bytes: 2_500, ..LinkStats::default() });
    assert_eq!(link.next_due(), None);
}

#[test]
fn a_delayed_burst_leaves_at_its_instant_and_not_before() {
    let now = Instant::now();
    let mut link = Link::new(LinkConditions::delayed(ms(40)), 1, now);
    let mut out = Out::new();
    link.offer(now, &(), burst(b"abc", 3), &mut taker(&mut out));
    assert_eq!(link.next_due(), Some(now + ms(40)));
    link.release(now + ms(39), &mut taker(&mut out));
    assert!(out.is_empty());
    link.release(now + ms(40), &mut taker(&mut out));
    assert_eq!(datagrams(&out), [b"abc"]);
}

#[test]
fn a_shorter_delay_does_not_let_later_datagrams_overtake() {
    let now = Instant::now();
    let mut link = Link::new(LinkConditions::delayed(ms(40)), 1, now);
    let mut out = Out::new();
    link.offer(now, &(), burst(b"a", 1), &mut taker(&mut out));
    link.set_conditions(LinkConditions::default());
    link.offer(now, &(), burst(b"b", 1), &mut taker(&mut out));
    assert!(out.is_empty());
    link.release(now + ms(40), &mut taker(&mut out));
    assert_eq!(datagrams(&out), [b"a", b"b"]);
}

#[test]
fn jitter_moves_instants_and_keeps_the_order() {
    let conditions = LinkConditions { jitter: ms(20), ..LinkConditions::delayed(ms(10)) };
    let (numbers, _) = run_numbered(conditions.clone(), 3, 1_000);
    assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
    let now = Instant::now();
    let mut dues = Vec::new();
    for seed in 0..50 {
        let mut link = Link::new(conditions.clone(), seed, now);
        link.offer(now, &(), burst(b"a", 1), &mut |(), _| true);
        dues.push(link.next_due().unwrap() - now);
    }
    assert!(dues.iter().all(|due| (ms(10)..=ms(30)).contains(due)));
    assert!(dues.iter().max().unwrap().saturating_sub(*dues.iter().min().unwrap()) > ms(10));
}

#[test]
fn loss_and_duplication_keep_their_rates_and_their_seed() {
    let conditions = LinkConditions { loss: 0.1, duplication: 0.05, ..LinkConditions::default() };
    let (numbers, stats) = run_numbered(conditions.clone(), 11, 100_000);
    assert!((9_500..10_500).contains(&stats.dropped_loss), "{stats:?}");
    assert!((4_200..4_800).contains(&stats.duplicated), "{stats:?}");
    assert_eq!(numbers.len() as u64, 100_000 - stats.dropped_loss + stats.duplicated);
    assert_eq!(stats.datagrams, numbers.len() as u64);
    assert!(numbers.is_sorted(), "copies stand beside their originals");
    assert_eq!(run_numbered(conditions.clone(), 11, 100_000).0, numbers);
    assert_ne!(run_numbered(conditions, 12, 100_000).0, numbers);
}

#[test]
fn reordering_moves_some_datagrams_and_loses_none() {
    let conditions = LinkConditions { reorder: 0.02, ..LinkConditions::default() };
    let (mut numbers, stats) = run_numbered(conditions, 5, 10_000);
    assert!((150..250).contains(&stats.reordered), "{stats:?}");
    assert!(!numbers.is_sorted());
    numbers.sort_unstable();
    assert_eq!(numbers, (0..10_000).collect::<Vec<_>>());
}

#[test]
fn a_bottleneck_spreads_a_burst_over_its_time() {
    let now = Instant::now();
    let conditions = LinkConditions { bytes_per_second: Some(1_000_000), ..LinkConditions::default() };
    let mut link = Link::new(conditions, 1, now);
    let mut out = Out::new();
    link.offer(now, &(), burst(&[1; 100_000], 1_000), &mut taker(&mut out));
    while link.release(now + ms(50), &mut taker(&mut out)) {}
    assert_eq!(datagrams(&out).len(), 50);
    while link.release(now + ms(100), &mut taker(&mut out)) {}
    assert_eq!(datagrams(&out).len(), 100);
}

#[test]
fn a_full_queue_drops_at_the_tail() {
    let now = Instant::now();
    let conditions = LinkConditions {
        bytes_per_second: Some(1_000_000),
        queue_bytes_max: 20_000,
        ..LinkConditions::default()
    };
    let mut link = Link::new(conditions, 1, now);
    let mut out = Out::new();
    let bytes: Vec<u8> = (0..100_u8).flat_map(|n| [n; 1_000]).collect();
    link.offer(now, &(), burst(&bytes, 1_000), &mut taker(&mut out));
    while link.release(now + ms(1_000), &mut taker(&mut out)) {}
    assert_eq!(link.stats().dropped_queue, 80);
    assert_eq!(datagrams(&out).iter().map(|d| d[0]).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
}

#[test]
fn what_is_in_flight_is_bounded() {
    let now = Instant::now();
    let mut link = Link::new(LinkConditions::delayed(ms(1_000)), 1, now);
    let bytes = vec![0; 64_000];
    for _ in 0..2_000 {
        link.offer(now, &(), burst(&bytes, 1_000), &mut |(), _| true);
    }
    assert!(link.held_bytes <= FLIGHT_BYTES_MAX + (16 << 20));
    assert!(link.stats().dropped_queue > 0);
}

#[test]
fn a_cut_loses_what_is_in_flight_and_a_heal_lets_the_next_pass() {
    let now = Instant::now();
    let mut link = Link::new(LinkConditions::delayed(ms(40)), 1, now);
    let mut out = Out::new();
    link.offer(now, &(), burst(b"aabb", 2), &mut taker(&mut out));
    link.cut(now + ms(1));
    link.offer(now + ms(2), &(), burst(b"c", 1), &mut taker(&mut out));
    link.heal();
    link.offer(now + ms(3), &(), burst(b"d", 1), &mut taker(&mut out));
    while link.release(now + ms(100), &mut taker(&mut out)) {}
    assert_eq!(datagrams(&out), [b"d"]);
    assert_eq!(link.stats().dropped_cut, 3);
    assert_eq!(link.held_bytes, 0);
}

#[test]
fn an_empty_datagram_is_one_datagram() {
    let now = Instant::now();
    let mut link = Link::new(LinkConditions { loss: 0.5, ..LinkConditions::default() }, 1, now);
    let mut passed = 0;
    for _ in 0..1_000 {
        link.offer(now, &(), burst(b"", 1), &mut |(), _| {
            passed += 1;
            true
        });
    }
    assert_eq!(passed + link.stats().dropped_loss, 1_000);
    assert!((400..600).contains(&passed));
}
