//! As many values as fit into the fewest bytes: what a decoder holds must follow what it was given here too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::{Bytes, BytesMut};
use tombolo_causality::{Seq, ShardId, Time};
use tombolo_codec::checkpoint::{CellContent, CellState, ConditionalState, SessionState, SlotState};
use tombolo_codec::{
    AwaitScope, Checkpoint, ClientAnswer, ClientRequest, Entries, Kind, LEAVES_COUNT, LeafAsk, PeerMessage,
    ReadValue, Section, Token, WireOp, WireVerb, decode_answer, decode_peer, decode_request, limits,
};
use tombolo_fuzz::{seeds, within_allowance, within_peer_allowance};
use tombolo_gateway::read_ops;
use tombolo_gateway::resp::{ARGS_MAX, RequestParser, encode_request};

#[test]
fn requests_full_of_nothing_are_read_within_their_allowance() {
    let count = limits::REQUEST_OPS_MAX;
    let ops = |verb: WireVerb| WireOp { key: Vec::new(), verb };
    let write = |verb| ClientRequest::Write {
        session: None,
        retry: false,
        after: Time(0),
        ops: vec![ops(verb); count],
    };
    for request in [
        write(WireVerb::Add(1)),
        write(WireVerb::Delete { kind: None, stamp: None }),
        write(WireVerb::Set { value: Vec::new(), expires_at: None, stamp: None }),
        ClientRequest::Read { keys: vec![Vec::new(); 100_000], after: None, timeout_ms: 0 },
        ClientRequest::Await {
            token: String::new(),
            scope: AwaitScope::Named(vec![String::new(); 100_000]),
            timeout_ms: 0,
        },
    ] {
        let bytes = request.clone().encode(1);
        assert_eq!(within_allowance(bytes.len(), || decode_request(&bytes)), Ok((1, request)));
    }
}

#[test]
fn answers_and_messages_full_of_nothing_are_read_within_their_allowance() {
    let answer = ClientAnswer::Values(vec![ReadValue::Absent; 100_000]);
    let bytes = answer.clone().encode(1);
    assert_eq!(within_allowance(bytes.len(), || decode_answer(&bytes)), Ok((1, answer)));
    for message in [
        PeerMessage::Acks { epoch: seeds::log().epoch, applied: vec![seeds::position(1, 1); 100_000] },
        PeerMessage::Heartbeat { clock: Time(1), ends: vec![(ShardId(1), Seq(1)); 100_000], revision: 1 },
    ] {
        let bytes = message.encode();
        assert_eq!(within_peer_allowance(bytes.len(), || decode_peer(&bytes)), Ok(message));
    }
}

fn entries_message(entries: Entries) -> PeerMessage {
    let (unknown, rest, sent) = ((0..10_000).collect(), vec![9; 256], vec![5; 256]);
    let section = Section::Counters;
    PeerMessage::Entries { shard: ShardId(1), cut: 3, section, entries, unknown, rest, sent }
}

fn counter(slots_count: usize) -> CellState {
    let log = seeds::log();
    let slot = SlotState { region: log.region, epoch: log.epoch, positive: 0, negative: 0 };
    let content = CellContent::Counter { generation: None, slots: vec![slot; slots_count] };
    CellState { tenant: 0, kind: Kind::Counter, key: Vec::new(), content }
}

/// Parts of a state are packed: few bytes stand for much.
#[test]
fn parts_of_a_state_full_of_nothing_are_read_within_their_allowance() {
    let cut = |leaves: &[usize]| PeerMessage::Cut {
        shard: ShardId(1),
        cut: 3,
        head: Checkpoint::default(),
        sums: Some(seeds::sums(leaves)),
    };
    let asks = |known_count| {
        let ask = |leaf| LeafAsk { leaf, known: vec![0; known_count] };
        let leaves = (0..LEAVES_COUNT as u16).map(ask).collect();
        PeerMessage::EntriesAsk { shard: ShardId(1), cut: 3, section: Section::Sessions, leaves }
    };
    let cells = |slots_count| {
        entries_message(Entries {
            cells: vec![counter(slots_count); limits::ENTRIES_CELLS_MAX],
            ..Entries::default()
        })
    };
    let Entries { sessions, conditionals, .. } = seeds::entries();
    let session = SessionState { numbers: Vec::new(), mark: 0, ..sessions[0].clone() };
    let conditional = ConditionalState { number: 0, adds: Vec::new(), ..conditionals[0].clone() };
    let all_leaves: Vec<usize> = (0..LEAVES_COUNT).collect();
    for message in [
        cut(&[]),
        cut(&[9]),
        cut(&all_leaves),
        asks(0),
        asks(1),
        asks(9),
        cells(0),
        cells(1),
        cells(2),
        entries_message(Entries { cells: vec![counter(100_000)], ..Entries::default() }),
        entries_message(Entries { sessions: vec![session; 50_000], ..Entries::default() }),
        entries_message(Entries { conditionals: vec![conditional; 50_000], ..Entries::default() }),
        entries_message(seeds::entries()),
    ] {
        let bytes = message.encode();
        assert!(within_peer_allowance(bytes.len(), || decode_peer(&bytes)) == Ok(message));
    }
    // More cells than one message holds are refused before there is room for them.
    let cells = vec![counter(0); 1_000_000];
    let bytes = entries_message(Entries { cells, ..Entries::default() }).encode();
    let refused = within_allowance(0, || decode_peer(&bytes)).unwrap_err();
    assert!(refused.to_string().contains("more than one message holds"), "{refused}");
}

/// An archive in which a thousand keys are one stretch of bytes would cost a thousand times its length to read.
#[test]
fn keys_that_share_their_bytes_are_refused() {
    let long = vec![b'k'; 64 * 1_024];
    let (length, shared_count) = (u32::try_from(long.len()).unwrap().to_le_bytes(), 1_000);
    let mut keys = vec![long];
    keys.resize(1 + shared_count, Vec::new());
    let mut bytes = ClientRequest::Read { keys, after: None, timeout_ms: 0 }.encode(1);
    assert!(decode_request(&bytes).is_ok());
    // A key is a relative pointer and a length, and they stand in a row.
    let length_at = bytes.windows(4).position(|window| window == length).unwrap();
    let first_at = length_at - 4;
    let offset = i32::from_le_bytes(*bytes[first_at..].first_chunk().unwrap());
    assert!(bytes[first_at.checked_add_signed(offset as isize).unwrap()..].starts_with(b"kkkk"));
    for nth in 1..=shared_count {
        let at = first_at + 8 * nth;
        let offset = offset - i32::try_from(8 * nth).unwrap();
        bytes[at..at + 4].copy_from_slice(&offset.to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&length);
    }
    assert!(within_allowance(bytes.len(), || decode_request(&bytes)).is_err());
}

#[test]
fn resp_requests_full_of_nothing_are_read_within_their_allowance() {
    let mut array = BytesMut::new();
    encode_request(&vec![Bytes::new(); ARGS_MAX], &mut array);
    let line = |word: &[u8], count| BytesMut::from(&[word.repeat(count), b"\n".to_vec()].concat()[..]);
    for input in [array, line(b"\"\" ", ARGS_MAX), line(b"a ", ARGS_MAX)] {
        let read = || RequestParser::new().next(&mut input.clone());
        let args = within_allowance(input.len(), read).unwrap().unwrap();
        assert_eq!(args.len(), ARGS_MAX);
    }
    let input = line(b"a ", 32_000);
    assert!(within_allowance(input.len(), || RequestParser::new().next(&mut input.clone())).is_err());
}

#[test]
fn ops_in_json_full_of_nothing_are_read_within_their_allowance() {
    for op in [
        r#"{"op":"add","key":"","delta":"0"}"#,
        r#"{"op":"delete","key":""}"#,
        r#"{"op":"set","key":"","value":""}"#,
    ] {
        let body = format!("{{\"ops\":[{}]}}", vec![op; limits::REQUEST_OPS_MAX].join(","));
        let read = within_allowance(body.len(), || read_ops(body.as_bytes(), || 7)).unwrap();
        assert_eq!(read.len(), limits::REQUEST_OPS_MAX);
    }
    // Nesting costs a stack, not memory: it is refused long before.
    let deep = "[".repeat(limits::REQUEST_BYTES_MAX);
    for open in [format!("{{\"ops\":{deep}"), format!("{{\"ops\":[{{\"op\":\"add\",\"expires_in_ms\":{deep}")]
    {
        assert!(within_allowance(open.len(), || read_ops(open.as_bytes(), || 7)).is_err());
    }
}

#[test]
fn the_longest_tokens_are_read_within_their_allowance() {
    let positions = (0..1_024).map(|shard| seeds::position(shard, 1)).collect();
    let text = Token { positions, time: Time(1) }.encode(&seeds::KEY);
    assert_eq!(
        within_allowance(text.len(), || Token::decode(&text, &seeds::KEY)).unwrap().positions.len(),
        1_024
    );
    let too_long = "A".repeat(limits::REQUEST_BYTES_MAX);
    assert!(within_allowance(0, || Token::peek(&too_long)).is_err());
}
