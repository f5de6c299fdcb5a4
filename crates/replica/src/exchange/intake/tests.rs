//! Order and forks of received batches.

use tombolo_causality::{ClusterId, Epoch, ShardId, Time};
use tombolo_codec::batch::Place;
use tombolo_codec::{Digest, RecordsBuilder};

use super::*;

const SHARD: ShardId = ShardId(0);

fn name() -> LogName {
    (RegionId::new(2).unwrap(), Epoch(1))
}

/// Batches of one log; two with another `clock` differ in every byte string.
fn chain(count: u64, clock: u64) -> Vec<Batch> {
    let mut previous = Digest::ZERO;
    (1..=count)
        .map(|seq| {
            let place = Place {
                cluster: ClusterId(1),
                log: crate::state::logs::log_id(SHARD, name()),
                seq: Seq(seq),
                ops_before: 0,
                clock: Time(clock),
                durable_through: Seq::ZERO,
                previous,
            };
            let batch = Batch::close(place, &RecordsBuilder::new());
            previous = batch.header().digest;
            batch
        })
        .collect()
}

#[test]
fn only_the_next_batch_is_taken_in_and_only_a_durable_one_given_out() {
    let (mut intake, logs, chain) = (Intake::default(), Logs::default(), chain(3, 1));
    assert_eq!(intake.receive(&chain[1], &logs), Receipt::Gap { expected: Seq(1) });
    assert_eq!(intake.receive(&chain[0], &logs), Receipt::Next);
    assert_eq!(intake.receive(&chain[0], &logs), Receipt::Duplicate);
    assert_eq!(intake.receive(&chain[1], &logs), Receipt::Next);
    assert_eq!(intake.receive(&chain[0], &logs), Receipt::Duplicate);
    assert!(intake.next(name()).is_none());
    intake.set_durable(name(), Seq(1));
    assert_eq!(intake.next(name()).map(|batch| batch.header().seq), Some(Seq(1)));
    intake.pop(name());
    assert!(intake.next(name()).is_none());
}

#[test]
fn a_fork_halts_the_log_at_the_same_seq_and_at_the_next() {
    for (first, second) in [(0, 0), (0, 1)] {
        let (mut intake, logs) = (Intake::default(), Logs::default());
        assert_eq!(intake.receive(&chain(1, 1)[first], &logs), Receipt::Next);
        assert!(matches!(intake.receive(&chain(2, 2)[second], &logs), Receipt::Fork(_)));
        assert_eq!(intake.receive(&chain(2, 1)[1], &logs), Receipt::Refused);
        assert_eq!(intake.halted().count(), 1);
    }
}
