//! Frames on a QUIC stream: [`FrameWriter`] and [`FrameReader`], used by links and by the client door alike.

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, WriteError};

use crate::endpoint::ended;
use crate::frame::{FrameDecoder, encode_frames};
use crate::{Frame, LinkError};

/// Chunks taken from a stream at once.
const CHUNKS_PER_READ: usize = 16;

/// The sending end of a stream of frames. It finishes the stream when dropped.
#[derive(Debug)]
pub struct FrameWriter {
    stream: SendStream,
    body_bytes_max: usize,
    /// What a dropped `send` left unwritten.
    pending: Vec<Bytes>,
}

impl FrameWriter {
    pub(crate) fn new(stream: SendStream, body_bytes_max: usize) -> Self {
        Self { stream, body_bytes_max, pending: Vec::new() }
    }

    /// Puts one byte before all frames.
    pub(crate) fn prefix(&mut self, byte: u8) {
        self.pending.push(Bytes::copy_from_slice(&[byte]));
    }

    /// Writes frames in order and waits while the other side does not take them.
    ///
    /// If the future is dropped, what is not yet written stays here and goes out with the next call: a frame is never
    /// torn. Memory is bounded by one call's frames.
    ///
    /// Errors: [`LinkError::Frame`] for a frame above the limit, nothing is sent then; others: the stream is over.
    pub async fn send(&mut self, frames: &[Frame]) -> Result<(), LinkError> {
        self.flush().await?;
        self.pending = encode_frames(frames, self.body_bytes_max)?;
        self.flush().await
    }

    /// Writes what a dropped `send` left.
    ///
    /// Errors: the stream is over.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        let mut written = 0;
        while written < self.pending.len() {
            // A written chunk is left empty, so starting over after a dropped future writes nothing twice.
            written += match self.stream.write_chunks(&mut self.pending[written..]).await {
                Ok(progress) => progress.chunks,
                Err(error) => return Err(write_error(error)),
            };
        }
        self.pending.clear();
        Ok(())
    }

    /// Ends the stream and waits until the other side has everything. Bound it with a timeout.
    ///
    /// Errors: the stream was over before.
    pub async fn finish(&mut self) -> Result<(), LinkError> {
        self.flush().await?;
        if self.stream.finish().is_err() {
            return Err(LinkError::Closed);
        }
        match self.stream.stopped().await {
            Ok(_) => Ok(()),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(ended(error)),
            Err(error) => Err(LinkError::Lost { detail: error.to_string() }),
        }
    }

    pub(crate) fn prioritise(&self) {
        // Fails only on a stream that is over; its next write says so.
        let _ = self.stream.set_priority(1);
    }
}

fn write_error(error: WriteError) -> LinkError {
    match error {
        WriteError::ConnectionLost(error) => ended(error),
        WriteError::Stopped(_) => {
            LinkError::ClosedByPeer { reason: "the peer reads this stream no more".into() }
        }
        WriteError::ClosedStream => LinkError::Closed,
        other => LinkError::Lost { detail: other.to_string() },
    }
}

/// The receiving end of a stream of frames.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    decoder: FrameDecoder,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, body_bytes_max: usize) -> Self {
        Self { stream, decoder: FrameDecoder::new(body_bytes_max) }
    }

    /// The next frame, `None` when the other side has ended the stream between two frames. Safe to cancel.
    ///
    /// Errors: [`LinkError::Frame`] for bytes that are no frame or above the limit; others: the stream is over.
    pub async fn next(&mut self) -> Result<Option<Frame>, LinkError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(Some(frame));
            }
            let mut chunks = [const { Bytes::new() }; CHUNKS_PER_READ];
            match self.stream.read_chunks(&mut chunks).await {
                Ok(Some(count)) => chunks[..count].iter().for_each(|chunk| self.decoder.push(chunk)),
                Ok(None) => {
                    self.decoder.end()?;
                    return Ok(None);
                }
                Err(error) => return Err(read_error(error)),
            }
        }
    }

    /// The first byte of the stream, before any frame; `None` if the stream ends without one.
    pub(crate) async fn first_byte(&mut self) -> Result<Option<u8>, LinkError> {
        let mut byte = [0];
        match self.stream.read(&mut byte).await {
            Ok(Some(_)) => Ok(Some(byte[0])),
            Ok(None) => Ok(None),
            Err(error) => Err(read_error(error)),
        }
    }
}

fn read_error(error: ReadError) -> LinkError {
    match error {
        ReadError::ConnectionLost(error) => ended(error),
        ReadError::Reset(_) => LinkError::ClosedByPeer { reason: "the peer has reset this stream".into() },
        other => LinkError::Lost { detail: other.to_string() },
    }
}
