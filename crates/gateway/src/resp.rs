//! The RESP door: any Redis client, in RESP2 and RESP3.
//!
//! What cannot be right in a store with many writers is refused with a sentence that says why, never half done. The
//! codec is public and pure: [`RequestParser`] takes bytes in, [`ReplyWriter`] puts bytes out. Behind it: `command.rs`
//! gives requests a meaning, `table.rs` lists them, `client.rs` runs them and keeps what a connection remembers,
//! `answer.rs` prints, `door.rs` waits.

mod answer;
mod client;
mod command;
mod door;
mod inline;
mod introspection;
mod reply;
mod request;
mod table;
mod transaction;
mod write_mark;

pub use door::serve_resp;
pub use reply::{Protocol, ReplyWriter};
pub use request::{ARGS_MAX, BULK_BYTES_MAX, ProtocolError, RequestParser, encode_request};
