//! Damaged, truncated, foreign and lying bytes are refused with the error that says what is wrong.

mod sample;

use bytes::Bytes;
use sample::{CLUSTER, SHARD, batch, batch_bytes, checkpoint};
use tombolo_causality::{ClusterId, ShardId};
use tombolo_codec::batch::{HEADER_BYTES, VERSION};
use tombolo_codec::{Batch, BatchError, Checkpoint, CheckpointError, Header, HeaderError, limits};

/// The sample with other bytes at a place of its header, the digest left as it was.
fn altered(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut out = batch_bytes().to_vec();
    out[at..at + bytes.len()].copy_from_slice(bytes);
    out
}

fn refusal(bytes: Vec<u8>) -> BatchError {
    Batch::verify(Bytes::from(bytes), CLUSTER).expect_err("altered bytes are no batch")
}

#[test]
fn the_sample_itself_is_accepted() {
    let verified = Batch::verify(batch_bytes(), CLUSTER).unwrap();
    assert_eq!(verified.header(), batch().header());
    assert_eq!(verified.bytes(), batch().bytes());
}

#[test]
fn every_flipped_bit_of_a_batch_is_noticed() {
    let whole = batch_bytes();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1 << bit;
            assert!(Batch::verify(Bytes::from(bytes), CLUSTER).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn a_batch_cut_at_any_length_is_refused() {
    let whole = batch_bytes();
    for end in 0..whole.len() {
        let expected = if end < HEADER_BYTES {
            BatchError::Header(HeaderError::Short(end))
        } else {
            BatchError::Length { expected: whole.len(), found: end }
        };
        assert_eq!(refusal(whole[..end].to_vec()), expected);
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    assert_eq!(refusal(longer), BatchError::Length { expected: whole.len(), found: whole.len() + 1 });
}

#[test]
fn each_header_field_out_of_range_is_named() {
    let field = |field, value| BatchError::Header(HeaderError::Field { field, value });
    assert_eq!(refusal(altered(0, b"TMBX")), BatchError::Header(HeaderError::Magic));
    for version in [0, 1, VERSION + 1, u16::MAX] {
        assert_eq!(
            refusal(altered(4, &version.to_le_bytes())),
            BatchError::Header(HeaderError::Version(version))
        );
    }
    assert_eq!(refusal(altered(6, &[1, 0])), field("flags", 1));
    assert_eq!(refusal(altered(26, &0u16.to_le_bytes())), field("region", 0));
    assert_eq!(refusal(altered(26, &1_024u16.to_le_bytes())), field("region", 1_024));
    assert_eq!(refusal(altered(28, &175u32.to_le_bytes())), field("header bytes", 175));
    assert_eq!(refusal(altered(48, &0u64.to_le_bytes())), field("seq", 0));
    assert_eq!(refusal(altered(96, &42u64.to_le_bytes())), field("durable-through", 42));
    assert_eq!(refusal(altered(108, &[1, 0, 0, 0])), field("reserved", 1));
    let payload_bytes = u64::from(batch().header().payload_bytes);
    assert_eq!(refusal(altered(104, &[0; 4])), field("payload bytes", payload_bytes));
}

/// The header alone refuses it: nothing that reads a payload gets to see the claim.
#[test]
fn a_header_that_claims_four_gibibytes_is_refused_before_any_of_them_is_asked_for() {
    for claimed in [u32::MAX, limits::BATCH_PAYLOAD_BYTES_MAX as u32 + 1] {
        let mut bytes = altered(60, &claimed.to_le_bytes());
        bytes[104..108].copy_from_slice(&claimed.to_le_bytes());
        let expected = HeaderError::Field { field: "payload bytes", value: u64::from(claimed) };
        assert_eq!(Header::parse(&bytes[..HEADER_BYTES]), Err(expected));
    }
    let mut bytes = altered(60, &(limits::BATCH_PAYLOAD_BYTES_MAX as u32).to_le_bytes());
    bytes[104..108].copy_from_slice(&(limits::BATCH_PAYLOAD_BYTES_MAX as u32).to_le_bytes());
    assert!(Header::parse(&bytes[..HEADER_BYTES]).is_ok());
}

#[test]
fn a_right_digest_over_a_payload_that_does_not_read_is_refused() {
    let reseal = |payload: &[u8]| {
        let mut bytes = batch_bytes()[..HEADER_BYTES].to_vec();
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        bytes[60..64].copy_from_slice(&length);
        bytes[104..108].copy_from_slice(&length);
        let digest = tombolo_codec::Digest::of(&[&bytes[..144], payload]);
        bytes[144..].copy_from_slice(&digest.0);
        bytes.extend_from_slice(payload);
        bytes
    };
    let payload = &batch_bytes()[HEADER_BYTES..];
    assert!(Batch::verify(Bytes::from(reseal(payload)), CLUSTER).is_ok());
    assert!(matches!(refusal(reseal(&[])), BatchError::Records(_)));
    assert!(matches!(refusal(reseal(&[0xff; 400])), BatchError::Records(_)));
    assert!(matches!(refusal(reseal(&payload[..payload.len() - 1])), BatchError::Records(_)));
    // A writer gone wrong must not bring its readers down: whatever passes the check can be read to the end.
    for at in 0..payload.len() {
        for bit in 0..8 {
            let mut broken = payload.to_vec();
            broken[at] ^= 1 << bit;
            let Ok(batch) = Batch::verify(Bytes::from(reseal(&broken)), CLUSTER) else { continue };
            let records = batch.records();
            records.adds().for_each(drop);
            records.writes().for_each(drop);
            records.ops().for_each(drop);
            records.marks().for_each(drop);
            records.conditionals().for_each(drop);
            records.seals().for_each(drop);
            records.expires().for_each(drop);
            records.stables().for_each(drop);
        }
    }
}

#[test]
fn a_batch_of_another_cluster_is_refused_as_such() {
    let other = ClusterId(1);
    assert_eq!(
        Batch::verify(batch_bytes(), other).unwrap_err(),
        BatchError::Cluster { expected: other, found: CLUSTER }
    );
}

#[test]
fn every_flipped_bit_of_a_checkpoint_is_noticed() {
    let whole = checkpoint().encode(CLUSTER, SHARD).unwrap();
    assert_eq!(Checkpoint::decode(&whole, CLUSTER, SHARD), Ok(checkpoint()));
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            assert!(Checkpoint::decode(&bytes, CLUSTER, SHARD).is_err(), "byte {at}, bit {bit}");
        }
    }
    for end in 0..whole.len() {
        assert!(Checkpoint::decode(&whole[..end], CLUSTER, SHARD).is_err(), "cut at {end}");
    }
}

#[test]
fn a_checkpoint_of_another_cluster_shard_or_version_is_refused_as_such() {
    let bytes = checkpoint().encode(CLUSTER, SHARD).unwrap();
    assert_eq!(
        Checkpoint::decode(&bytes, ClusterId(1), SHARD),
        Err(CheckpointError::Cluster { expected: ClusterId(1), found: CLUSTER })
    );
    assert_eq!(
        Checkpoint::decode(&bytes, CLUSTER, ShardId(8)),
        Err(CheckpointError::Shard { expected: ShardId(8), found: SHARD })
    );
    let mut newer = bytes;
    newer[4] = 9;
    assert_eq!(Checkpoint::decode(&newer, CLUSTER, SHARD), Err(CheckpointError::Version(9)));
    assert_eq!(Checkpoint::decode(b"", CLUSTER, SHARD), Err(CheckpointError::Magic));
}
