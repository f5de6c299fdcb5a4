//! The frame: a kind and a body, behind its length.
//!
//! On the wire: u32 little endian length of (kind + body), u8 kind, body. Pure: bytes in, frames out. It never waits
//! and never looks into a body. Start at [`Frame`].

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before the kind.
const LENGTH_BYTES: usize = 4;
/// Length and kind.
const HEADER_BYTES: usize = LENGTH_BYTES + 1;
/// Bodies up to here are copied beside their header: one chunk for a run of small frames costs less than two each.
const COPIED_BODY_BYTES_MAX: usize = 2 * 1024;
/// The buffer of an unfinished frame grows by at least this much.
const GROWTH_BYTES: usize = 64 * 1024;

/// One message of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is; the meaning belongs to the layer above.
    pub kind: u8,
    /// The body, opaque here.
    pub body: Bytes,
}

impl Frame {
    /// A frame of this kind.
    pub fn new(kind: u8, body: impl Into<Bytes>) -> Self {
        Self { kind, body: body.into() }
    }
}

/// Why bytes are not a frame, or a frame may not be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A body above the limit; nothing was allocated for it and nothing of it was sent.
    #[error("a frame body of {body_bytes} bytes is above the limit of {body_bytes_max}")]
    TooLarge {
        /// What the header says, or what was to be sent.
        body_bytes: usize,
        /// The limit of this side.
        body_bytes_max: usize,
    },
    /// A length of zero: even an empty body has a kind.
    #[error("a frame of length 0 has no kind")]
    Empty,
    /// The stream ended inside a frame.
    #[error("the stream ended {missing_bytes_min} or more bytes before the end of a frame")]
    Torn {
        /// At least so many bytes are missing.
        missing_bytes_min: usize,
    },
}

/// Refuses a body above the limit.
///
/// Errors: [`FrameError::TooLarge`].
pub(crate) fn check(frame: &Frame, body_bytes_max: usize) -> Result<(), FrameError> {
    let body_bytes = frame.body.len();
    if body_bytes > body_bytes_max {
        return Err(FrameError::TooLarge { body_bytes, body_bytes_max });
    }
    Ok(())
}

/// The chunks that carry `frames`: small frames together, large bodies as they are, without a copy.
///
/// Errors: [`FrameError::TooLarge`] for any of them; then none is encoded.
pub fn encode_frames(frames: &[Frame], body_bytes_max: usize) -> Result<Vec<Bytes>, FrameError> {
    let mut copied_bytes = 0;
    for frame in frames {
        check(frame, body_bytes_max)?;
        let body_bytes = frame.body.len();
        copied_bytes += HEADER_BYTES + if body_bytes <= COPIED_BODY_BYTES_MAX { body_bytes } else { 0 };
    }
    let mut chunks = Vec::new();
    let mut run = BytesMut::with_capacity(copied_bytes);
    for frame in frames {
        let length = u32::try_from(frame.body.len() + 1).expect("the limit of a frame fits u32");
        run.put_u32_le(length);
        run.put_u8(frame.kind);
        if frame.body.len() <= COPIED_BODY_BYTES_MAX {
            run.extend_from_slice(&frame.body);
        } else {
            chunks.push(run.split().freeze());
            chunks.push(frame.body.clone());
        }
    }
    if !run.is_empty() {
        chunks.push(run.freeze());
    }
    Ok(chunks)
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    body_bytes_max: usize,
}

impl FrameDecoder {
    /// At the beginning of a stream whose bodies are no longer than this.
    #[must_use]
    pub fn new(body_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), body_bytes_max }
    }

    /// Takes bytes in.
    ///
    /// Memory follows what has arrived, never what a header claims.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.buffer.capacity() - self.buffer.len() < chunk.len() {
            let claimed = self.missing().unwrap_or(chunk.len());
            self.buffer.reserve(claimed.min(self.buffer.len().max(GROWTH_BYTES)).max(chunk.len()));
        }
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole frame, `None` if more bytes are needed.
    ///
    /// Errors: [`FrameError::TooLarge`] and [`FrameError::Empty`]; the stream cannot be read further.
    #[expect(clippy::should_implement_trait, reason = "it may fail, and go on")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(length) = self.length() else { return Ok(None) };
        if length == 0 {
            return Err(FrameError::Empty);
        }
        let body_bytes = length - 1;
        if body_bytes > self.body_bytes_max {
            return Err(FrameError::TooLarge { body_bytes, body_bytes_max: self.body_bytes_max });
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let kind = self.buffer.get_u8();
        let body = self.buffer.split_to(body_bytes).freeze();
        Ok(Some(Frame { kind, body }))
    }

    /// Checks that the stream ended between two frames.
    ///
    /// Errors: [`FrameError::Torn`].
    pub fn end(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        Err(FrameError::Torn {
            missing_bytes_min: self.missing().unwrap_or_else(|| LENGTH_BYTES - self.buffer.len()),
        })
    }

    fn length(&self) -> Option<usize> {
        let (head, _) = self.buffer.split_first_chunk::<LENGTH_BYTES>()?;
        Some(u32::from_le_bytes(*head) as usize)
    }

    fn missing(&self) -> Option<usize> {
        Some((LENGTH_BYTES + self.length()?).saturating_sub(self.buffer.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100_000;

    fn bytes_of(frames: &[Frame]) -> Vec<u8> {
        encode_frames(frames, LIMIT).unwrap().concat()
    }

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let frames = [
            Frame::new(1, Bytes::new()),
            Frame::new(2, vec![7; 3]),
            Frame::new(3, vec![8; LIMIT]),
            Frame::new(255, vec![9; COPIED_BODY_BYTES_MAX + 1]),
        ];
        let bytes = bytes_of(&frames);
        for step in [1, 2, 5, 1_199, 70_000, bytes.len()] {
            let mut decoder = FrameDecoder::new(LIMIT);
            let mut seen = Vec::new();
            for chunk in bytes.chunks(step) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames, "cut every {step} bytes");
            assert_eq!(decoder.end(), Ok(()));
        }
    }

    #[test]
    fn the_bytes_on_the_wire_are_length_kind_body() {
        assert_eq!(bytes_of(&[Frame::new(9, &b"ab"[..])]), [3, 0, 0, 0, 9, b'a', b'b']);
    }

    #[test]
    fn small_frames_share_a_chunk_and_large_bodies_are_not_copied() {
        let large = Bytes::from(vec![1; COPIED_BODY_BYTES_MAX + 1]);
        let frames = [Frame::new(1, &b"x"[..]), Frame::new(2, &b"y"[..]), Frame::new(3, large.clone())];
        let chunks = encode_frames(&frames, LIMIT).unwrap();
        assert_eq!(chunks.len(), 2);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_memory_is_taken() {
        let mut decoder = FrameDecoder::new(LIMIT);
        decoder.push(&u32::MAX.to_le_bytes());
        let refused = FrameError::TooLarge { body_bytes: u32::MAX as usize - 1, body_bytes_max: LIMIT };
        assert_eq!(decoder.next(), Err(refused));
        assert!(decoder.buffer.capacity() <= 2 * GROWTH_BYTES);
        let frame = Frame::new(0, vec![0; LIMIT + 1]);
        let refused = FrameError::TooLarge { body_bytes: LIMIT + 1, body_bytes_max: LIMIT };
        assert_eq!(encode_frames(&[frame], LIMIT), Err(refused));
    }

    #[test]
    fn a_claimed_length_takes_no_memory_until_its_bytes_arrive() {
        let mut decoder = FrameDecoder::new(1 << 30);
        decoder.push(&(1u32 << 30).to_le_bytes());
        decoder.push(&[0; 10]);
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.buffer.capacity() <= 2 * GROWTH_BYTES);
    }

    #[test]
    fn a_length_of_zero_and_a_torn_end_are_typed() {
        let mut decoder = FrameDecoder::new(LIMIT);
        decoder.push(&[0; 4]);
        assert_eq!(decoder.next(), Err(FrameError::Empty));
        let mut decoder = FrameDecoder::new(LIMIT);
        decoder.push(&[3, 0, 0, 0, 9]);
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.end(), Err(FrameError::Torn { missing_bytes_min: 2 }));
        let mut decoder = FrameDecoder::new(LIMIT);
        decoder.push(&[3, 0]);
        assert_eq!(decoder.end(), Err(FrameError::Torn { missing_bytes_min: 2 }));
    }
}
