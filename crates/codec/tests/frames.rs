//! Frames from a stranger: whatever the bytes, a decoder gives a value or a typed refusal.

mod sample;

use proptest::collection::vec;
use proptest::prelude::*;
use sample::stamp;
use tombolo_causality::Time;
use tombolo_codec::{
    ClientAnswer, ClientRequest, Reject, RejectCode, WireOp, WireVerb, decode_answer, decode_peer,
    decode_request, limits,
};

fn write() -> Vec<u8> {
    let set = WireVerb::Set { value: b"v".to_vec(), expires_at: None, stamp: Some(stamp(5)) };
    let ops = vec![
        WireOp { key: b"a".to_vec(), verb: set },
        WireOp { key: b"b".to_vec(), verb: WireVerb::Delete { kind: None, stamp: Some(stamp(6)) } },
    ];
    ClientRequest::Write { session: Some(("s".into(), 1, 1)), retry: false, after: Time(0), ops }.encode(7)
}

fn answer() -> Vec<u8> {
    let mut reject = Reject::new(RejectCode::StampBehind, "behind");
    reject.stamp_needed = Some(stamp(5));
    ClientAnswer::Rejected(reject).encode(7)
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = decode_request(&bytes);
        let _ = decode_answer(&bytes);
        let _ = decode_peer(&bytes);
    }

    #[test]
    fn a_frame_with_other_bytes_inside_never_makes_a_decoder_panic(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for whole in [write(), answer()] {
            let mut bytes = whole.clone();
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            let _ = decode_request(&bytes);
            let _ = decode_answer(&bytes);
            let _ = decode_peer(&bytes);
        }
    }
}

/// An archive is read from its end, so a cut one may read as something else; frames have their length outside.
#[test]
fn a_frame_cut_at_any_length_never_reads_as_what_it_was() {
    let whole = decode_request(&write()).unwrap();
    for end in 0..write().len() {
        assert_ne!(decode_request(&write()[..end]), Ok(whole.clone()), "cut at {end}");
    }
    let whole = decode_answer(&answer()).unwrap();
    for end in 0..answer().len() {
        assert_ne!(decode_answer(&answer()[..end]), Ok(whole.clone()), "cut at {end}");
    }
    assert_eq!(decode_request(&[]).unwrap_err().code, RejectCode::Malformed);
    assert_eq!(decode_answer(&[]).unwrap_err().code, RejectCode::Malformed);
}

#[test]
fn a_request_above_the_limit_is_refused_unread() {
    let bytes = vec![0; limits::REQUEST_BYTES_MAX + 1];
    assert_eq!(decode_request(&bytes).unwrap_err().code, RejectCode::TooLarge);
}

/// A stamp of no region, once logged, would make a batch that every region refuses.
#[test]
fn a_stamp_of_no_region_is_refused_before_it_can_be_logged() {
    for (good, decode) in [
        (write(), (|bytes: &[u8]| decode_request(bytes).map(drop)) as fn(&[u8]) -> Result<(), Reject>),
        (answer(), |bytes| decode_answer(bytes).map(drop)),
    ] {
        let needle = [&2u16.to_le_bytes()[..], &stamp(5).op.to_le_bytes()].concat();
        let at = good.windows(needle.len()).position(|bytes| bytes == needle).unwrap();
        assert_eq!(decode(&good), Ok(()));
        for region in [0u16, 1_024] {
            let mut bytes = good.clone();
            bytes[at..at + 2].copy_from_slice(&region.to_le_bytes());
            assert_eq!(decode(&bytes).unwrap_err().code, RejectCode::Malformed, "region {region}");
        }
    }
}
