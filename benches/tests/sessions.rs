//! What a session that nobody uses costs a region in memory, counted by the allocator.

use std::hint::black_box;

use tombolo_benches::{options, region};
use tombolo_causality::{Epoch, SessionId, Time};
use tombolo_codec::checkpoint::{NumberState, SessionState};
use tombolo_codec::{Checkpoint, PayloadDigest};
use tombolo_replica::{Now, Replica};

const SESSIONS: u32 = 1_000_000;
const BYTES_MAX: f64 = 256.0;

/// A shard with idle sessions: each is settled up to its last request, and `open_count` numbers stand from there on.
fn checkpoint(open_count: u64) -> Checkpoint {
    let number = |number| NumberState { number, digest: PayloadDigest([number as u8; 16]) };
    let session = |random: u32| SessionState {
        id: SessionId { home: region(1), epoch: Epoch(1), opened: Time(1), random: u64::from(random) },
        mark: 9,
        numbers: (9..9 + open_count).map(number).collect(),
    };
    Checkpoint { sessions: (0..SESSIONS).map(session).collect(), ..Checkpoint::default() }
}

/// What the allocator handed out and did not get back, per session, in bytes.
fn bytes_per_session(checkpoint: &Checkpoint) -> f64 {
    let mut replica = None;
    let used = allocation_counter::measure(|| {
        replica = Some(black_box(Replica::open(options(region(1), vec![region(1)]), Some(checkpoint))));
    });
    let report = replica.expect("a measured closure runs").report(Now::default());
    assert_eq!(report.sessions_count, SESSIONS as usize);
    used.bytes_current as f64 / f64::from(SESSIONS)
}

#[test]
#[allow(clippy::print_stdout, reason = "the figure is what the test is for")]
fn a_million_idle_sessions_take_at_most_256_bytes_each() {
    let bytes = bytes_per_session(&checkpoint(1));
    println!("{bytes:.0} bytes per idle session");
    assert!(bytes <= BYTES_MAX, "{bytes:.0} bytes per idle session");
}

#[test]
fn sessions_that_keep_eight_numbers_are_seen_to_take_more() {
    let bytes = bytes_per_session(&checkpoint(8));
    assert!(bytes > BYTES_MAX, "{bytes:.0} bytes per session");
}
