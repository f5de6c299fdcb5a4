//! Frames on a stream, however it is cut.

use tombolo_codec::PeerMessage;
use tombolo_fuzz::{drive, seeds, within_allowance};
use tombolo_transport::{Frame, FrameDecoder, FrameError, encode_frames};

const BODY_BYTES_MAX: usize = 8 * 1_024;

/// The frames of a stream that arrives in pieces, and how it ended.
fn frames(bytes: &[u8], step: usize) -> (Vec<Frame>, Result<(), FrameError>) {
    let (mut decoder, mut frames) = (FrameDecoder::new(BODY_BYTES_MAX), Vec::new());
    for chunk in bytes.chunks(step) {
        decoder.push(chunk);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, decoder.end())
}

#[test]
fn a_stream_gives_the_same_frames_however_it_is_cut_and_they_are_its_bytes() {
    let frame = |message: PeerMessage| Frame::new(1, message.encode());
    let mut all: Vec<Frame> = seeds::peer_messages().into_iter().map(frame).collect();
    all.extend(seeds::batches().iter().map(|batch| Frame::new(2, batch.bytes().clone())));
    let encoded = |frames: &[Frame]| encode_frames(frames, BODY_BYTES_MAX).map(|chunks| chunks.concat());
    let seeds: Vec<Vec<u8>> = all.chunks(3).map(|some| encoded(some).expect("seeds are short")).collect();
    for seed in &seeds {
        assert_eq!(frames(seed, seed.len()).1, Ok(()));
    }
    drive(&seeds, |bytes, step| {
        let (whole, end) = within_allowance(bytes.len(), || frames(bytes, bytes.len().max(1)));
        let written = encoded(&whole).expect("what was read is short enough");
        assert!(bytes.starts_with(&written));
        assert!(end.is_err() || written == bytes);
        let (cut, cut_end) = within_allowance(bytes.len(), || frames(bytes, step));
        let is_accepted = !whole.is_empty();
        assert_eq!((cut, cut_end), (whole, end));
        is_accepted
    })
    .got_inside();
}
