//! Layout, and that no flipped bit passes.

use super::*;

fn stamp() -> Stamp {
    Stamp { cluster: ClusterId(0x0dd), generation: 7, salt: [0x5a; 16] }
}

fn group() -> Vec<u8> {
    let entries =
        [Entry { first: Seq(1), offset: 64, bytes: 5 }, Entry { first: Seq(41), offset: 4_096, bytes: 3 }];
    let mut out = vec![9; 7];
    encode_group(
        &mut out,
        &stamp(),
        3,
        &entries,
        &[Bytes::from_static(b"alpha"), Bytes::from_static(b"bee")],
    );
    out
}

fn dump(bytes: &[u8]) -> String {
    let rows = bytes.chunks(16).enumerate().map(|(row, bytes)| {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{} {}", row * 16, hex.join(" "))
    });
    rows.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_layout_of_version_1_stays_as_it_is() {
    insta::assert_snapshot!(dump(&stamp().encode()), @r"
    0 54 4d 4a 46 01 00 00 00 dd 00 00 00 00 00 00 00
    16 00 00 00 00 00 00 00 00 07 00 00 00 00 00 00 00
    32 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a
    48 1a 6d 69 7b 75 99 f1 33 df 67 34 1d cb 84 ac 85
    ");
    insta::assert_snapshot!(dump(&group()), @r"
    0 54 4d 4a 47 01 00 00 00 07 00 00 00 00 00 00 00
    16 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a 5a
    32 03 00 00 00 00 00 00 00 02 00 00 00 08 00 00 00
    48 81 b0 76 4e bc b1 76 f3 8e e4 e1 06 af 5b 3c 4e
    64 f5 25 68 46 2b be 7f 05 62 2b 72 4f e4 fd f4 45
    80 01 00 00 00 00 00 00 00 40 00 00 00 00 00 00 00
    96 05 00 00 00 00 00 00 00 29 00 00 00 00 00 00 00
    112 00 10 00 00 00 00 00 00 03 00 00 00 00 00 00 00
    128 61 6c 70 68 61 62 65 65
    ");
}

#[test]
fn stamps_and_groups_read_back_and_any_flipped_bit_is_noticed() {
    let bytes = stamp().encode();
    assert_eq!(Stamp::parse(&bytes), FoundStamp::Stamp(stamp()));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Stamp::parse(&flipped), FoundStamp::Nothing, "bit {bit}");
    }
    let bytes = group();
    let read = Group::parse(&bytes).unwrap();
    assert!(read.is_of(&stamp()) && !read.is_of(&stamp().next(&Digest::ZERO)));
    assert_eq!((read.number, read.bytes), (3, bytes.len() as u64));
    let entries: Vec<_> = read.entries().map(|(entry, batch)| (entry.first, entry.offset, batch)).collect();
    assert_eq!(entries, [(Seq(1), 64, &b"alpha"[..]), (Seq(41), 4_096, &b"bee"[..])]);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Group::parse(&flipped).is_none(), "bit {bit}");
    }
    for short in 0..bytes.len() {
        assert!(Group::parse(&bytes[..short]).is_none(), "{short} bytes");
    }
}

#[test]
fn a_stamp_of_a_later_version_is_told_from_damage() {
    let mut bytes = stamp().encode();
    bytes[4] = 2;
    let digest = Digest::of(&[&bytes[..48]]);
    bytes[48..].copy_from_slice(&digest.0[..16]);
    assert_eq!(Stamp::parse(&bytes), FoundStamp::Version(2));
}
