//! Writes replies, in RESP2 or RESP3. Pure: it only appends to a buffer.

use bytes::{BufMut, BytesMut};
use tombolo_codec::{Applied, Reject};

/// Which RESP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// What every connection begins with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// Replies on their way out, in order.
///
/// An array or map is opened with the number of what is in it; whoever opens it writes that many.
#[derive(Debug, Default)]
pub struct ReplyWriter {
    /// What is not yet sent.
    pub out: BytesMut,
    /// How nulls, maps and verbatim text are written from here on.
    pub protocol: Protocol,
}

impl ReplyWriter {
    /// Empty, RESP2.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A status such as `OK`; it must not hold CR or LF.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text);
    }

    /// An error: one upper-case word and a sentence.
    pub fn error(&mut self, word: &str, text: &str) {
        self.out.put_u8(b'-');
        self.out.put_slice(word.as_bytes());
        self.out.put_u8(b' ');
        // The sentence may quote what a client sent; a line break in it would end the error early.
        self.out.extend(text.bytes().map(|byte| if byte == b'\r' || byte == b'\n' { b' ' } else { byte }));
        self.out.put_slice(b"\r\n");
    }

    /// A refusal: its code's word, its sentence, and what was applied unless nothing was.
    pub fn reject(&mut self, reject: &Reject) {
        if reject.applied == Applied::No {
            self.error(reject.code.resp(), &reject.text);
        } else {
            let text = format!("{} (applied: {})", reject.text, reject.applied.name());
            self.error(reject.code.resp(), &text);
        }
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        self.line(b':', &value.to_string());
    }

    /// Bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.length(b'$', bytes.len());
        self.out.put_slice(bytes);
        self.out.put_slice(b"\r\n");
    }

    /// No value.
    pub fn null(&mut self) {
        self.out.put_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// Text for people.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.length(b'=', text.len() + 4);
                self.out.put_slice(b"txt:");
                self.out.put_slice(text.as_bytes());
                self.out.put_slice(b"\r\n");
            }
        }
    }

    /// Opens an array of `count` replies.
    pub fn array(&mut self, count: usize) {
        self.length(b'*', count);
    }

    /// Opens a map of `count` pairs; in RESP2 that is an array of twice as many.
    pub fn map(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.length(b'*', count * 2),
            Protocol::Resp3 => self.length(b'%', count),
        }
    }

    /// Opens a set of `count` replies; in RESP2 that is an array.
    pub fn set(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.length(b'*', count),
            Protocol::Resp3 => self.length(b'~', count),
        }
    }

    fn length(&mut self, kind: u8, length: usize) {
        self.line(kind, &length.to_string());
    }

    fn line(&mut self, kind: u8, text: &str) {
        self.out.put_u8(kind);
        self.out.put_slice(text.as_bytes());
        self.out.put_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_codec::RejectCode;

    fn written(protocol: Protocol, write: impl FnOnce(&mut ReplyWriter)) -> String {
        let mut replies = ReplyWriter { protocol, ..ReplyWriter::new() };
        write(&mut replies);
        String::from_utf8(replies.out.to_vec()).unwrap()
    }

    #[test]
    fn nulls_maps_sets_and_texts_differ_between_the_protocols() {
        let write = |replies: &mut ReplyWriter| {
            replies.map(1);
            replies.null();
            replies.set(1);
            replies.verbatim("a");
        };
        assert_eq!(written(Protocol::Resp2, write), "*2\r\n$-1\r\n*1\r\n$1\r\na\r\n");
        assert_eq!(written(Protocol::Resp3, write), "%1\r\n_\r\n~1\r\n=5\r\ntxt:a\r\n");
    }

    #[test]
    fn an_error_stays_on_one_line_whatever_it_quotes() {
        let text = written(Protocol::Resp2, |replies| replies.error("ERR", "bad\r\n+OK\r\n"));
        assert_eq!(text, "-ERR bad  +OK  \r\n");
    }

    #[test]
    fn an_unknown_outcome_is_said() {
        let reject = Reject::new(RejectCode::TimedOut, "late").unknown();
        assert_eq!(written(Protocol::Resp2, |r| r.reject(&reject)), "-TRYAGAIN late (applied: unknown)\r\n");
    }
}
