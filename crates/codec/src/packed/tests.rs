use proptest::prelude::*;

use super::*;

fn region() -> impl Strategy<Value = RegionId> {
    (1u16..=1023).prop_map(|id| RegionId::new(id).expect("it is in range"))
}

fn log() -> impl Strategy<Value = Log> {
    (region(), prop_oneof![Just(1u128), any::<u128>()]).prop_map(|(region, epoch)| (region, Epoch(epoch)))
}

fn dot() -> impl Strategy<Value = Seal> {
    (log(), any::<u64>()).prop_map(|((region, epoch), end)| Seal { region, epoch, end: Seq(end) })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    let of = |(time, region, op)| Stamp { time: Time(time), region, op };
    (any::<u64>(), region(), any::<u128>()).prop_map(of)
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..20)
}

fn number() -> impl Strategy<Value = u128> {
    prop_oneof![0u128..300, any::<u128>()]
}

fn a_cell() -> impl Strategy<Value = CellState> {
    let slot = (log(), number(), number()).prop_map(|((region, epoch), positive, negative)| SlotState {
        region,
        epoch,
        positive,
        negative,
    });
    let counter = (proptest::option::of(stamp()), proptest::collection::vec(slot, 0..4))
        .prop_map(|(generation, slots)| CellContent::Counter { generation, slots });
    let time = proptest::option::of(any::<u64>().prop_map(Time));
    let register = (stamp(), proptest::option::of(key()), time, dot())
        .prop_map(|(stamp, value, expires_at, dot)| CellContent::Register { stamp, value, expires_at, dot });
    (any::<u32>(), key(), prop_oneof![counter, register]).prop_map(|(tenant, key, content)| {
        let kind = match content {
            CellContent::Counter { .. } => Kind::Counter,
            CellContent::Register { .. } => Kind::Register,
        };
        CellState { tenant, kind, key, content }
    })
}

fn an_id() -> impl Strategy<Value = SessionId> {
    (log(), any::<u64>(), any::<u64>()).prop_map(|((home, epoch), opened, random)| SessionId {
        home,
        epoch,
        opened: Time(opened),
        random,
    })
}

fn a_digest() -> impl Strategy<Value = PayloadDigest> {
    any::<[u8; 16]>().prop_map(PayloadDigest)
}

fn entries() -> impl Strategy<Value = Entries> {
    let a_number = (any::<u64>(), a_digest()).prop_map(|(number, digest)| NumberState { number, digest });
    let session = (an_id(), any::<u64>(), proptest::collection::vec(a_number, 0..4))
        .prop_map(|(id, mark, numbers)| SessionState { id, mark, numbers });
    let add = (any::<u32>(), key(), proptest::option::of(stamp()), any::<i64>())
        .prop_map(|(tenant, key, generation, delta)| ConditionalAdd { tenant, key, generation, delta });
    let adds = proptest::collection::vec(add, 0..3);
    let conditional =
        (an_id(), any::<u64>(), a_digest(), dot(), adds).prop_map(|(session, number, digest, dot, adds)| {
            ConditionalState { session, number, digest, dot, adds }
        });
    let cells = proptest::collection::vec(a_cell(), 0..6);
    let sessions = proptest::collection::vec(session, 0..4);
    let conditionals = proptest::collection::vec(conditional, 0..4);
    (cells, sessions, conditionals).prop_map(|(cells, sessions, conditionals)| Entries {
        cells,
        sessions,
        conditionals,
    })
}

proptest! {
    #[test]
    fn entries_unpack_to_what_they_were_and_no_part_of_them_does(entries in entries()) {
        let bytes = entries.packed();
        prop_assert_eq!(Entries::unpacked(&bytes), Ok(entries));
        for end in 0..bytes.len() {
            prop_assert!(Entries::unpacked(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = Entries::unpacked(&bytes);
        let _ = Vec::<LeafAsk>::unpacked(&bytes);
        let _ = Option::<Vec<LeafSums>>::unpacked(&bytes);
        let _ = Vec::<u32>::unpacked(&bytes);
    }

    #[test]
    fn questions_and_places_unpack_to_what_they_were(
        leaves in proptest::collection::btree_map(0u16..4_096, proptest::collection::vec(any::<u64>(), 0..4), 0..40),
        digest_bytes in 1u32..=8,
        places: std::collections::BTreeSet<u32>,
    ) {
        let low = |print: u64| print & (u64::MAX >> (64 - 8 * digest_bytes));
        let ask = |(leaf, known): (u16, Vec<u64>)| LeafAsk { leaf, known: known.into_iter().map(low).collect() };
        let asks: Vec<LeafAsk> = leaves.into_iter().map(ask).collect();
        prop_assert_eq!(Vec::<LeafAsk>::unpacked(&asks.packed()), Ok(asks));
        let places: Vec<u32> = places.into_iter().collect();
        prop_assert_eq!(Vec::<u32>::unpacked(&places.packed()), Ok(places));
    }

    #[test]
    fn sums_unpack_to_what_they_were_whether_many_or_few_are_zero(
        seed: u64,
        zeros_in_ten in 0u64..=10,
        digest_bytes in 1u32..=8,
    ) {
        let sum = |leaf: u64| {
            let drawn = leaf.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ seed;
            if drawn % 10 < zeros_in_ten { 0 } else { drawn & (u64::MAX >> (64 - 8 * digest_bytes)) }
        };
        let mut sums: Vec<u64> = (0..LEAVES_COUNT as u64).map(sum).collect();
        if sums.iter().all(|sum| *sum == 0) {
            sums.clear();
        }
        let of = |section| {
            let sums = if section == Section::Sessions { sums.clone() } else { Vec::new() };
            LeafSums { section, entries_count: 7, total: u128::MAX - 5, sums }
        };
        let all = Some(Section::ALL.map(of).to_vec());
        let bytes = all.packed();
        prop_assert!(bytes.len() <= 100 + LEAVES_COUNT * digest_bytes as usize);
        prop_assert_eq!(Option::<Vec<LeafSums>>::unpacked(&bytes), Ok(all));
    }
}

#[test]
fn a_cut_of_fewer_sections_or_more_is_refused() {
    // A count, a total, one byte for a digest, no sums.
    let section = [vec![7], vec![1; 16], vec![0x81, 0]].concat();
    let of = |count: usize| [vec![1], section.repeat(count)].concat();
    let read = Option::<Vec<LeafSums>>::unpacked(&of(4)).expect("four are all").expect("they are there");
    assert!(read.iter().map(|of| of.section).eq(Section::ALL));
    for count in [0, 1, 3, 5] {
        assert!(Option::<Vec<LeafSums>>::unpacked(&of(count)).is_err(), "{count} sections");
    }
}

#[test]
fn more_cells_or_leaves_than_a_message_holds_are_refused() {
    let cell = |content| CellState { tenant: 1, kind: Kind::Counter, key: Vec::new(), content };
    let cells = |count| {
        let content = CellContent::Counter { generation: None, slots: Vec::new() };
        Entries { cells: vec![cell(content); count], ..Entries::default() }.packed()
    };
    assert!(Entries::unpacked(&cells(ENTRIES_CELLS_MAX)).is_ok());
    let refused = Err(PackedError("more than one message holds"));
    assert_eq!(Entries::unpacked(&cells(ENTRIES_CELLS_MAX + 1)), refused);
    let mut asks = vec![1, 0x81, 0x20];
    asks.resize(3 + 2 * (LEAVES_COUNT + 1), 0);
    assert_eq!(Vec::<LeafAsk>::unpacked(&asks).err(), refused.err());
}

#[test]
fn bytes_that_were_counted_once_are_not_counted_again() {
    // No logs, three cells of four bytes each; the first one claims the bytes of the others for its slots.
    let mut bytes = vec![0, 3, 0, 1, 0, 1];
    bytes.resize(bytes.len() + 8, 0);
    assert_eq!(Entries::unpacked(&bytes), Err(PackedError("it ends early")));
}

#[test]
fn a_counter_and_a_register_take_few_bytes_beside_their_keys_and_values() {
    let region = RegionId::new(2).expect("it is in range");
    let cell = |kind, content| CellState { tenant: 1, kind, key: b"views:123456".to_vec(), content };
    let slot = SlotState { region, epoch: Epoch(1 << 99), positive: 3, negative: 0 };
    let counter = CellContent::Counter { generation: None, slots: vec![slot] };
    let bytes = |content| {
        let cells = vec![cell(Kind::Counter, content); 100];
        Entries { cells, ..Entries::default() }.packed().len() / 100
    };
    assert_eq!(bytes(counter), 12 + 7);
}

#[test]
fn leaves_that_do_not_ascend_and_regions_that_do_not_exist_are_refused() {
    // One digest byte, two leaves, each without digests; the second one beyond the last.
    assert!(Vec::<LeafAsk>::unpacked(&[1, 2, 0, 0, 0xff, 0x7f, 0]).is_err());
    assert!(Vec::<LeafAsk>::unpacked(&[1, 2, 0, 0, 0, 0]).is_ok());
    assert!(Vec::<LeafAsk>::unpacked(&[9, 0]).is_err());
    let mut bytes = vec![1, 0];
    bytes.extend([0; 16]);
    bytes.extend([0; 3]);
    assert!(Entries::unpacked(&bytes).is_err());
    bytes[1] = 1;
    assert!(Entries::unpacked(&bytes).is_ok());
}
