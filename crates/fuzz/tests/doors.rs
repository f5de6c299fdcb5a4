//! What strangers may say without any key: RESP and the JSON of `POST /v1/ops`.

use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use serde_json::{Value, json};
use tombolo_codec::{Kind, Op, StampSource, Verb};
use tombolo_fuzz::{drive, seeds, within_allowance};
use tombolo_gateway::read_ops;
use tombolo_gateway::resp::{ProtocolError, RequestParser, encode_request};

type Requests = (Vec<Vec<Bytes>>, Result<(), ProtocolError>);

/// The requests of a connection whose bytes arrive in pieces, and whether it may go on.
fn requests(bytes: &[u8], step: usize) -> Requests {
    let (mut parser, mut input, mut requests) = (RequestParser::new(), BytesMut::new(), Vec::new());
    for chunk in bytes.chunks(step) {
        input.extend_from_slice(chunk);
        loop {
            match parser.next(&mut input) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => return (requests, Err(error)),
            }
        }
    }
    (requests, Ok(()))
}

fn encoded(requests: &[Vec<Bytes>]) -> Vec<u8> {
    let mut out = BytesMut::new();
    requests.iter().for_each(|request| encode_request(request, &mut out));
    out.to_vec()
}

#[test]
fn a_connection_gives_the_same_requests_however_it_is_cut() {
    let mut seeds: Vec<Vec<u8>> = seeds::resp_requests().chunks(2).map(encoded).collect();
    for seed in &seeds {
        let (read, end) = requests(seed, seed.len());
        assert_eq!((encoded(&read), end), (seed.clone(), Ok(())));
    }
    seeds.push(b"PING\r\nSET k \"a \\x41 b\" \r\n'q' 'it\\'s'\n".to_vec());
    drive(&seeds, |bytes, step| {
        let whole = within_allowance(bytes.len(), || requests(bytes, bytes.len().max(1)));
        let cut = within_allowance(bytes.len(), || requests(bytes, step));
        assert_eq!(cut, whole);
        let again = encoded(&whole.0);
        let is_accepted = !whole.0.is_empty();
        assert_eq!(requests(&again, again.len().max(1)), (whole.0, Ok(())));
        is_accepted
    })
    .got_inside();
}

fn ops(body: &[u8]) -> Option<Vec<Op>> {
    read_ops(body, || 7).ok()
}

/// Ops as `POST /v1/ops` takes them; none if a key is no text, which JSON cannot say.
fn body(ops: &[Op]) -> Option<Vec<u8>> {
    let stamp = |stamp: StampSource| match stamp {
        StampSource::Fixed(stamp) => Value::from(stamp.to_string()),
        StampSource::Here(_) => Value::Null,
    };
    let kind = |kind: Option<Kind>| kind.map_or(Value::Null, |kind| kind.name().into());
    let op = |op: &Op| {
        let key = std::str::from_utf8(&op.key).ok()?;
        Some(match &op.verb {
            Verb::Add { delta } => json!({"op": "add", "key": key, "delta": delta.to_string()}),
            Verb::Set { value, stamp: at, .. } => {
                json!({"op": "set", "key": key, "value_base64": BASE64.encode(value), "stamp": stamp(*at)})
            }
            Verb::Delete { kind: of, stamp: at } => {
                json!({"op": "delete", "key": key, "kind": kind(*of), "stamp": stamp(*at)})
            }
        })
    };
    let ops: Option<Vec<Value>> = ops.iter().map(op).collect();
    Some(json!({"ops": ops?}).to_string().into_bytes())
}

#[test]
fn ops_in_json_are_read_or_refused() {
    let all: Vec<Op> = seeds::wire_ops().into_iter().map(|op| op.into_op(&mut || 7)).collect();
    let mut seeds: Vec<Vec<u8>> = all.chunks(2).filter_map(body).collect();
    for seed in &seeds {
        assert_eq!(ops(seed).and_then(|ops| body(&ops)).as_ref(), Some(seed));
    }
    seeds.push(
        br#"{"session":{"id":"s","number":7},"retry":true,"ops":[{"op":"set","key":"k\u0041","value":"v"}]}"#
            .to_vec(),
    );
    drive(&seeds, |bytes, _| {
        let Some(read) = within_allowance(bytes.len(), || ops(bytes)) else { return false };
        let again = body(&read).expect("a key of JSON is text");
        assert_eq!(ops(&again), Some(read));
        true
    })
    .got_inside();
}
