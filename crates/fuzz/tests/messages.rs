//! What regions say to each other, hellos among it, and what clients and regions say over QUIC.

use std::fmt::Debug;

use tombolo_codec::{ClientAnswer, ClientRequest, PeerMessage, decode_answer, decode_peer, decode_request};
use tombolo_fuzz::{drive, seeds, within_allowance, within_peer_allowance};

/// A format: its decoder, and its encoder as seeds are made with it.
struct Format<T, E> {
    decode: fn(&[u8]) -> Result<T, E>,
    encode: fn(&T) -> Vec<u8>,
    /// Whether it is what regions say to each other.
    is_of_peers: bool,
}

impl<T: PartialEq + Debug, E: PartialEq + Debug> Format<T, E> {
    /// An archive may lay the same value out in several ways, so what was accepted is compared by value: encoded and
    /// decoded it is itself.
    fn take(&self, bytes: &[u8]) -> bool {
        let decode = || (self.decode)(bytes);
        let decoded = if self.is_of_peers {
            within_peer_allowance(bytes.len(), decode)
        } else {
            within_allowance(bytes.len(), decode)
        };
        let Ok(value) = decoded else { return false };
        assert_eq!((self.decode)(&(self.encode)(&value)), Ok(value));
        true
    }

    /// What the product itself encodes comes back as the same bytes.
    fn seeds(&self, values: impl IntoIterator<Item = T>) -> Vec<Vec<u8>> {
        let encoded: Vec<Vec<u8>> = values.into_iter().map(|value| (self.encode)(&value)).collect();
        for bytes in &encoded {
            let value = (self.decode)(bytes).expect("a seed decodes");
            assert_eq!(&(self.encode)(&value), bytes);
        }
        encoded
    }
}

#[test]
fn messages_between_regions_are_read_or_refused() {
    let format = Format { decode: decode_peer, encode: PeerMessage::encode, is_of_peers: true };
    let seeds = format.seeds(seeds::peer_messages());
    drive(&seeds, |bytes, _| format.take(bytes)).got_inside();
}

#[test]
fn hellos_are_read_or_refused() {
    let format = Format { decode: decode_peer, encode: PeerMessage::encode, is_of_peers: true };
    let is_hello = |message: &PeerMessage| matches!(message, PeerMessage::Hello(_));
    let seeds = format.seeds(seeds::peer_messages().into_iter().filter(is_hello));
    drive(&seeds, |bytes, _| format.take(bytes)).got_inside();
}

#[test]
fn requests_of_clients_are_read_or_refused() {
    let encode = |(id, request): &(u64, ClientRequest)| request.clone().encode(*id);
    let format = Format { decode: decode_request, encode, is_of_peers: false };
    let seeds = format.seeds(seeds::requests().into_iter().map(|request| (42, request)));
    drive(&seeds, |bytes, _| format.take(bytes)).got_inside();
}

#[test]
fn answers_of_regions_are_read_or_refused() {
    let encode = |(id, answer): &(u64, ClientAnswer)| answer.clone().encode(*id);
    let format = Format { decode: decode_answer, encode, is_of_peers: false };
    let seeds = format.seeds(seeds::answers().into_iter().map(|answer| (42, answer)));
    drive(&seeds, |bytes, _| format.take(bytes)).got_inside();
}
