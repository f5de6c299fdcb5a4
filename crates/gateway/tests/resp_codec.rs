//! The RESP codec against any bytes, and against any cut of the stream.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use tombolo_gateway::resp::{ARGS_MAX, BULK_BYTES_MAX, ProtocolError, RequestParser, encode_request};

/// Feeds `chunks` one by one; gives the requests, and the error that ended it.
fn parsed<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<Bytes>>, Option<ProtocolError>) {
    let (mut parser, mut input, mut requests) = (RequestParser::new(), BytesMut::new(), Vec::new());
    for chunk in chunks {
        input.extend_from_slice(chunk);
        loop {
            match parser.next(&mut input) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fn parse_whole(bytes: &[u8]) -> (Vec<Vec<Bytes>>, Option<ProtocolError>) {
    parsed(std::iter::once(bytes))
}

/// Bytes that look enough like RESP to reach all of the parser.
fn resp_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"*".to_vec()),
        Just(b"$".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"-1".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"'\\x4".to_vec()),
        Just(b" ".to_vec()),
        (0u64..20).prop_map(|n| n.to_string().into_bytes()),
        any::<u64>().prop_map(|n| n.to_string().into_bytes()),
        vec(any::<u8>(), 0..12),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn any_bytes_give_the_same_however_the_stream_is_cut(bytes in resp_like(), step in 1usize..9) {
        prop_assert_eq!(parse_whole(&bytes), parsed(bytes.chunks(step)));
    }

    #[test]
    fn a_request_parses_to_what_it_was(requests in vec(vec(vec(any::<u8>(), 0..40), 1..6), 0..6), step in 1usize..50) {
        let mut bytes = BytesMut::new();
        requests.iter().for_each(|request| encode_request(request, &mut bytes));
        let expected: Vec<Vec<Bytes>> =
            requests.into_iter().map(|request| request.into_iter().map(Bytes::from).collect()).collect();
        prop_assert_eq!(parsed(bytes.chunks(step)), (expected, None));
    }
}

#[test]
fn inline_and_empty_requests_are_taken_as_redis_takes_them() {
    let (requests, error) = parse_whole(b"\r\n*0\r\n*-1\r\nPING\r\nset k \"a b\"\n");
    assert_eq!(error, None);
    assert_eq!(requests, [vec![&b"PING"[..]], vec![&b"set"[..], b"k", b"a b"]]);
}

#[test]
fn lengths_above_their_limits_are_refused_at_their_line() {
    let cases = [
        (format!("*{}\r\n", ARGS_MAX + 1), ProtocolError::MultibulkLength),
        (format!("*{}\r\n", u64::MAX), ProtocolError::MultibulkLength),
        ("*x\r\n".into(), ProtocolError::MultibulkLength),
        ("*+1\r\n".into(), ProtocolError::MultibulkLength),
        (format!("*{}", "1".repeat(40)), ProtocolError::MultibulkLength),
        (format!("*1\r\n${}\r\n", BULK_BYTES_MAX + 1), ProtocolError::BulkLength),
        ("*1\r\n$-1\r\n".into(), ProtocolError::BulkLength),
        ("*1\r\n$\r\n".into(), ProtocolError::BulkLength),
        ("*1\r\n:1\r\n".into(), ProtocolError::ExpectedBulk(b':')),
        ("*1\r\n$1\r\nabc".into(), ProtocolError::BulkEnd),
        ("x".repeat(64 * 1024 + 1), ProtocolError::InlineTooLong),
        ("get \"a\n".into(), ProtocolError::UnbalancedQuotes),
    ];
    for (bytes, expected) in cases {
        let shown: String = bytes.chars().take(30).collect();
        assert_eq!(parse_whole(bytes.as_bytes()), (Vec::new(), Some(expected)), "{shown}");
    }
}

#[test]
fn arguments_that_are_too_long_together_are_refused() {
    let mut bytes = BytesMut::new();
    encode_request(&vec![vec![b'x'; BULK_BYTES_MAX]; 14], &mut bytes);
    assert_eq!(parse_whole(&bytes), (Vec::new(), Some(ProtocolError::RequestTooLong)));
    let mut bytes = BytesMut::new();
    encode_request(&vec![vec![b'x'; BULK_BYTES_MAX]; 12], &mut bytes);
    assert_eq!(parse_whole(&bytes).0.len(), 1);
}
