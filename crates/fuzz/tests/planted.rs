//! The checks themselves: decoders with planted bugs, which the same edits must bring to light.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tombolo_fuzz::{ALLOWED_FACTOR, PEER_ALLOWED_BYTES, drive, within_allowance, within_peer_allowance};

/// `length u32, bytes`, three times over.
fn seeds() -> Vec<Vec<u8>> {
    vec![[&b"\x03\0\0\0abc"[..], b"\0\0\0\0", b"\x02\0\0\0de"].concat()]
}

fn split(rest: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = rest.split_first_chunk()?;
    Some((u32::from_le_bytes(*head) as usize, rest))
}

/// Makes room for what a length claims before it has looked whether it is there.
fn trusts_a_length(mut rest: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (length, behind) = split(rest)?;
        // Room is made in full, but no page of it is touched.
        let mut item = Vec::with_capacity(length.min(1 << 30));
        item.extend_from_slice(behind.get(..length)?);
        items.push(item);
        rest = &behind[length..];
    }
    Some(items)
}

/// Slices by a length it has not checked.
fn slices_unchecked(mut rest: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (length, behind) = split(rest)?;
        items.push(behind[..length].to_vec());
        rest = &behind[length..];
    }
    Some(items)
}

/// What the edits bring to light.
fn found(decode: fn(&[u8]) -> Option<Vec<Vec<u8>>>) -> String {
    let seeds = seeds();
    let fuzz = || {
        drive(&seeds, |bytes, _| within_allowance(bytes.len(), || decode(bytes)).is_some());
    };
    let panic = catch_unwind(AssertUnwindSafe(fuzz)).expect_err("the planted bug goes unseen");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

#[test]
fn a_decoder_that_trusts_a_length_is_caught_by_what_it_allocates() {
    let found = found(trusts_a_length);
    assert!(found.contains("made the decoder hold"), "{found}");
}

#[test]
fn a_decoder_that_slices_by_a_length_is_caught_by_its_panic() {
    let found = found(slices_unchecked);
    assert!(!found.contains("made the decoder hold"), "{found}");
}

#[test]
fn a_decode_within_its_allowance_passes_and_gives_what_it_read() {
    assert_eq!(within_allowance(17, || trusts_a_length(&seeds()[0])).map(|items| items.len()), Some(3));
}

#[test]
fn a_message_between_regions_that_takes_one_byte_too_many_is_caught() {
    let most = (PEER_ALLOWED_BYTES + 17 * ALLOWED_FACTOR) as usize;
    let hold = |bytes| within_peer_allowance(17, || std::hint::black_box(vec![1u8; bytes]).len());
    assert_eq!(hold(most), most);
    assert!(catch_unwind(|| hold(most + 1)).is_err());
}
