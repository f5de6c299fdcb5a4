//! Cuts a stream of bytes into requests: arrays of bulk strings, and inline commands.
//!
//! Pure and incremental: it remembers what it has seen of an unfinished request, so that no byte is looked at twice
//! however the stream is cut. Lengths are checked before memory is taken. Start at [`RequestParser::next`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use memchr::memchr;
use tombolo_codec::limits;

use super::inline;

/// Most arguments of one request, its name included.
pub const ARGS_MAX: usize = 16_384;
/// The longest argument: above the longest value, so that a value just too long gets an answer and not a closed door.
pub const BULK_BYTES_MAX: usize = limits::VALUE_BYTES_MAX + 64 * 1_024;
/// The longest inline command, as in Redis.
const INLINE_BYTES_MAX: usize = 64 * 1_024;
/// The longest line that holds a length; a longer one is no number.
const LENGTH_LINE_BYTES_MAX: usize = 32;
/// Arguments that room is made for before they have arrived.
const ARGS_EXPECTED_MAX: usize = 16;

/// Bytes that are not RESP; the connection cannot be read further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProtocolError {
    /// An array length that is no number or above [`ARGS_MAX`].
    MultibulkLength,
    /// A bulk length that is no number or above [`BULK_BYTES_MAX`].
    BulkLength,
    /// Something else where a bulk string must begin.
    ExpectedBulk(u8),
    /// A bulk string that does not end with CR LF.
    BulkEnd,
    /// An inline command without an end, or of more than [`ARGS_MAX`] words.
    InlineTooLong,
    /// An inline command with a quote that is not closed.
    UnbalancedQuotes,
    /// Arguments that are too long together.
    RequestTooLong,
}

impl std::fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MultibulkLength => f.write_str("invalid multibulk length"),
            Self::BulkLength => f.write_str("invalid bulk length"),
            Self::ExpectedBulk(seen) => write!(f, "expected '$', got '{}'", seen.escape_ascii()),
            Self::BulkEnd => f.write_str("expected CR LF after a bulk string"),
            Self::InlineTooLong => f.write_str("too big inline request"),
            Self::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            Self::RequestTooLong => {
                write!(f, "too big request, the limit is {} bytes", limits::REQUEST_BYTES_MAX)
            }
        }
    }
}

impl std::error::Error for ProtocolError {}

/// What is known of the request at the head of the buffer.
#[derive(Debug, Default)]
enum Expecting {
    /// Its first line.
    #[default]
    Request,
    /// The length of its next argument.
    Length,
    /// The bytes of its next argument.
    Bulk(usize),
}

/// The state between two reads of a connection.
#[derive(Debug, Default)]
pub struct RequestParser {
    expecting: Expecting,
    args: Vec<Bytes>,
    args_left: usize,
    args_bytes: usize,
    /// How far the head of the buffer was searched for the end of a line.
    searched: usize,
}

impl RequestParser {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next whole request at the head of `input`, its name first; `None` if more bytes are needed.
    ///
    /// The arguments are slices of `input`, not copies. Empty requests are skipped, as in Redis. Between two calls
    /// `input` may only grow at its end.
    ///
    /// Errors: [`ProtocolError`]; answer it and close.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            match self.expecting {
                Expecting::Request if input.first().is_some_and(|first| *first != b'*') => {
                    let Some(line) = self.line(input, INLINE_BYTES_MAX, ProtocolError::InlineTooLong)? else {
                        return Ok(None);
                    };
                    let args = inline::split(&line)?;
                    if !args.is_empty() {
                        return Ok(Some(args));
                    }
                }
                Expecting::Request => {
                    let Some(count) = self.length(input, ProtocolError::MultibulkLength)? else {
                        return Ok(None);
                    };
                    self.begin(count)?;
                }
                Expecting::Length => {
                    if let Some(first) = input.first()
                        && *first != b'$'
                    {
                        return Err(ProtocolError::ExpectedBulk(*first));
                    }
                    let Some(length) = self.length(input, ProtocolError::BulkLength)? else {
                        return Ok(None);
                    };
                    self.expecting = Expecting::Bulk(self.check_bulk(length)?);
                }
                Expecting::Bulk(length) => {
                    if input.len() < length + 2 {
                        return Ok(None);
                    }
                    self.take_bulk(input, length)?;
                    if self.args_left == 0 {
                        self.expecting = Expecting::Request;
                        return Ok(Some(std::mem::take(&mut self.args)));
                    }
                }
            }
        }
    }

    /// How many more bytes the current argument needs beyond `input`; 0 where that is not known.
    #[must_use]
    pub fn bytes_missing(&self, input: &BytesMut) -> usize {
        match self.expecting {
            Expecting::Bulk(length) => (length + 2).saturating_sub(input.len()),
            _ => 0,
        }
    }

    fn begin(&mut self, count: i64) -> Result<(), ProtocolError> {
        if count <= 0 {
            return Ok(());
        }
        let count = usize::try_from(count).map_err(|_| ProtocolError::MultibulkLength)?;
        if count > ARGS_MAX {
            return Err(ProtocolError::MultibulkLength);
        }
        self.args = Vec::with_capacity(count.min(ARGS_EXPECTED_MAX));
        self.args_left = count;
        self.args_bytes = 0;
        self.expecting = Expecting::Length;
        Ok(())
    }

    fn check_bulk(&mut self, length: i64) -> Result<usize, ProtocolError> {
        let length = usize::try_from(length).map_err(|_| ProtocolError::BulkLength)?;
        if length > BULK_BYTES_MAX {
            return Err(ProtocolError::BulkLength);
        }
        self.args_bytes += length;
        if self.args_bytes > limits::REQUEST_BYTES_MAX {
            return Err(ProtocolError::RequestTooLong);
        }
        Ok(length)
    }

    fn take_bulk(&mut self, input: &mut BytesMut, length: usize) -> Result<(), ProtocolError> {
        if input[length..length + 2] != *b"\r\n" {
            return Err(ProtocolError::BulkEnd);
        }
        self.args.push(input.split_to(length).freeze());
        input.advance(2);
        self.args_left -= 1;
        self.expecting = Expecting::Length;
        Ok(())
    }

    /// The number in a line of one type byte and digits.
    fn length(&mut self, input: &mut BytesMut, error: ProtocolError) -> Result<Option<i64>, ProtocolError> {
        let Some(line) = self.line(input, LENGTH_LINE_BYTES_MAX, error.clone())? else { return Ok(None) };
        let digits = std::str::from_utf8(&line[1..]).map_err(|_| error.clone())?;
        if digits.starts_with('+') {
            return Err(error);
        }
        digits.parse().map(Some).map_err(|_| error)
    }

    /// The line at the head of the buffer, without its end.
    fn line(
        &mut self,
        input: &mut BytesMut,
        bytes_max: usize,
        too_long: ProtocolError,
    ) -> Result<Option<Bytes>, ProtocolError> {
        let Some(found) = memchr(b'\n', &input[self.searched..]) else {
            self.searched = input.len();
            return if input.len() > bytes_max { Err(too_long) } else { Ok(None) };
        };
        let end = self.searched + found;
        self.searched = 0;
        if end > bytes_max {
            return Err(too_long);
        }
        let mut line = input.split_to(end).freeze();
        input.advance(1);
        if line.last() == Some(&b'\r') {
            line.truncate(end - 1);
        }
        Ok(Some(line))
    }
}

/// A request as a client sends it: an array of bulk strings.
pub fn encode_request<A: AsRef<[u8]>>(args: &[A], out: &mut BytesMut) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.put_slice(arg);
        out.put_slice(b"\r\n");
    }
}
