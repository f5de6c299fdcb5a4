//! A RESP connection as a stock client has it: bytes on a socket. Waits at most ten seconds for an answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`.
    Simple(String),
    /// `-ERR …`.
    Error(String),
    /// `:5`.
    Integer(i64),
    /// A bulk string; none where there is nothing.
    Bulk(Option<String>),
    /// An array, set or push, or a map as its keys and values in turn.
    Array(Vec<Reply>),
}

/// A connection.
pub struct Resp {
    stream: BufReader<TcpStream>,
}

impl Resp {
    /// Connects.
    ///
    /// Panics: if nobody listens.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the RESP door listens");
        let bound = Some(Duration::from_secs(10));
        stream
            .set_read_timeout(bound)
            .and_then(|()| stream.set_write_timeout(bound))
            .expect("a bound on waits");
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes as they are.
    ///
    /// Panics: if the door has closed the connection.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("the door takes bytes");
    }

    /// Sends commands without waiting: a pipeline.
    ///
    /// Panics: if the door has closed the connection.
    pub fn send(&mut self, commands: &[&[&str]]) {
        let mut bytes = Vec::new();
        for command in commands {
            bytes.extend(format!("*{}\r\n", command.len()).bytes());
            for word in *command {
                bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
            }
        }
        self.send_raw(&bytes);
    }

    /// Sends one command and reads its answer.
    ///
    /// Panics: if none comes.
    pub fn call(&mut self, command: &[&str]) -> Reply {
        self.send(&[command]);
        self.read().expect("an answer")
    }

    /// Reads one answer; none once the door has closed the connection.
    ///
    /// Panics: if bytes come that are no RESP.
    pub fn read(&mut self) -> Option<Reply> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            result => result.expect("an answer in time"),
        };
        let text = line.strip_suffix("\r\n").expect("a line ends in CRLF");
        let (kind, rest) = text.split_at(1);
        let count = || rest.parse::<i64>().unwrap_or_else(|_| panic!("a length, not {text:?}"));
        Some(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(count()),
            "_" => Reply::Bulk(None),
            "#" | "," | "(" => Reply::Simple(rest.to_owned()),
            "$" | "=" => self.bulk(count()),
            "*" | "~" | ">" => self.array(count()),
            "%" => self.array(2 * count()),
            _ => panic!("no RESP: {text:?}"),
        })
    }

    fn bulk(&mut self, length: i64) -> Reply {
        let Ok(length) = usize::try_from(length) else { return Reply::Bulk(None) };
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).expect("a whole string");
        bytes.truncate(length);
        Reply::Bulk(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn array(&mut self, count: i64) -> Reply {
        Reply::Array((0..count.max(0)).map(|_| self.read().expect("a whole array")).collect())
    }
}

impl Reply {
    /// The text of an error.
    ///
    /// Panics: if it is none.
    #[must_use]
    pub fn error(&self) -> &str {
        match self {
            Self::Error(text) => text,
            other => panic!("an error was expected, not {other:?}"),
        }
    }
}
