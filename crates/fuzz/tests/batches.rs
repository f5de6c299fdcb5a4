//! Batches: bytes that were damaged, and bytes whose digest a broken or hostile writer made right.

use std::collections::BTreeMap;

use bytes::Bytes;
use tombolo_causality::SessionId;
use tombolo_codec::batch::{HEADER_BYTES, Place};
use tombolo_codec::{Batch, Digest, Records, RecordsBuilder};
use tombolo_fuzz::{drive, seeds, within_allowance};

/// Where the header holds the payload's length, twice, and where its digest begins.
const LENGTHS_AT: [usize; 2] = [60, 104];
const DIGEST_AT: usize = 144;

fn bytes_of(batches: &[Batch]) -> Vec<Vec<u8>> {
    batches.iter().map(|batch| batch.bytes().to_vec()).collect()
}

fn verify(bytes: &[u8]) -> Option<Batch> {
    let bytes = Bytes::copy_from_slice(bytes);
    within_allowance(bytes.len(), || Batch::verify(bytes, seeds::CLUSTER).ok())
}

/// Every record, put into a new batch in the same place.
fn again(batch: &Batch) -> Batch {
    let (records, header) = (batch.records(), batch.header());
    let place = Place {
        cluster: header.cluster,
        log: header.log,
        seq: header.seq,
        ops_before: 0,
        clock: header.clock,
        durable_through: header.durable_through,
        previous: header.previous,
    };
    Batch::close(place, &rebuilt(records))
}

fn rebuilt(records: Records<'_>) -> RecordsBuilder {
    let mut builder = RecordsBuilder::new();
    for add in records.adds() {
        for (amount, sign) in [(add.positive, 1), (add.negative, -1)] {
            // A row may hold more than one add can say.
            let add_of = |amount: u64| i64::try_from(amount).expect("half of a u64 fits") * sign;
            builder.add(add.cell, add.generation, add_of(amount / 2));
            builder.add(add.cell, add.generation, add_of(amount / 2));
            builder.add(add.cell, add.generation, add_of(amount % 2));
        }
    }
    records.writes().for_each(|write| builder.write(write));
    records.ops().for_each(|op| builder.op(op));
    records.marks().for_each(|(session, mark)| builder.mark(session, mark));
    records.conditionals().for_each(|conditional| builder.conditional(&conditional));
    records.seals().for_each(|seal| builder.seal(seal));
    records.expires().for_each(|expire| builder.expire(expire));
    records.stables().for_each(|stable| builder.stable(stable));
    builder
}

/// What a batch says, however its rows are laid out: those of one cell under one generation add up, of the marks of one
/// session the greatest counts.
#[derive(Debug, PartialEq)]
struct Meaning {
    adds: BTreeMap<String, (u128, u128)>,
    marks: BTreeMap<SessionId, u64>,
    others: String,
}

impl Meaning {
    fn of(batch: &Batch) -> Self {
        let (records, mut adds, mut marks) = (batch.records(), BTreeMap::new(), BTreeMap::new());
        for add in records.adds() {
            let sums: &mut (u128, u128) =
                adds.entry(format!("{:?} {:?}", add.cell, add.generation)).or_default();
            sums.0 += u128::from(add.positive);
            sums.1 += u128::from(add.negative);
        }
        for (session, mark) in records.marks() {
            let greatest: &mut u64 = marks.entry(session).or_default();
            *greatest = mark.max(*greatest);
        }
        let lists = (
            records.writes().collect::<Vec<_>>(),
            records.ops().collect::<Vec<_>>(),
            records.conditionals().collect::<Vec<_>>(),
            records.seals().collect::<Vec<_>>(),
            records.expires().collect::<Vec<_>>(),
            records.stables().collect::<Vec<_>>(),
        );
        Self { adds, marks, others: format!("{lists:?}") }
    }
}

/// Makes length and digest right for what stands there.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() < HEADER_BYTES {
        return bytes;
    }
    let payload_bytes = u32::try_from(bytes.len() - HEADER_BYTES).expect("seeds are small");
    for at in LENGTHS_AT {
        bytes[at..at + 4].copy_from_slice(&payload_bytes.to_le_bytes());
    }
    let digest = Digest::of(&[&bytes[..DIGEST_AT], &bytes[HEADER_BYTES..]]);
    bytes[DIGEST_AT..HEADER_BYTES].copy_from_slice(&digest.0);
    bytes
}

#[test]
fn no_damage_to_a_batch_goes_unseen() {
    let seeds = bytes_of(&seeds::batches());
    drive(&seeds, |bytes, _| {
        let Some(batch) = verify(bytes) else { return false };
        assert!(seeds.iter().any(|seed| seed == bytes), "{:?} passes for a batch", batch.header());
        assert_eq!(&batch.bytes()[..], bytes);
        true
    });
}

#[test]
fn a_payload_behind_a_right_digest_is_read_whole_or_refused() {
    let seeds = bytes_of(&seeds::batches());
    // Headers are the other test's: edits that hit one leave the payload as it is.
    let payloads: Vec<Vec<u8>> = seeds.iter().map(|seed| seed[HEADER_BYTES..].to_vec()).collect();
    drive(&payloads, |payload, _| {
        let bytes = resealed([&seeds[0][..HEADER_BYTES], payload].concat());
        let Some(batch) = verify(&bytes) else { return false };
        let again = verify(again(&batch).bytes()).expect("what was read can be written");
        assert_eq!(Meaning::of(&again), Meaning::of(&batch));
        true
    })
    .got_inside();
}

#[test]
fn seeds_are_read_and_written_as_the_same_bytes() {
    for batch in seeds::batches() {
        assert_eq!(resealed(batch.bytes().to_vec()), batch.bytes().to_vec());
        let again = again(&batch);
        assert_eq!(again.bytes()[HEADER_BYTES..], batch.bytes()[HEADER_BYTES..]);
    }
}
