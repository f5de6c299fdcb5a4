//! The Rust SDK: writes and reads signals in the nearest region, each write counted once, and goes on in another region
//! when that one fails.
//!
//! ```no_run
//! use std::time::Duration;
//! use tombolo_sdk::{Client, Options, Scope, SdkError};
//!
//! # async fn example(authority_pem: String) -> Result<(), SdkError> {
//! // The nearest region, and where to go when it does not answer.
//! let options = Options::new(authority_pem, "127.0.0.1:7402").fallback("127.0.0.1:7412").token("…");
//! let client = Client::connect(options).await?;
//! let session = client.session().await?;
//!
//! // Returns once it is durable in the region.
//! let written = session.counter("views:1").incr(5).await?;
//! session.register("profile:1").set("Ada").await?;
//! // Sees all that this session wrote.
//! assert_eq!(session.counter("views:1").get().await?, 5);
//!
//! // Many ops: batched by shard, pipelined, with back-pressure.
//! let mut writer = session.writer();
//! for flight in 0..10_000 {
//!     writer.add(format!("delay:{}", flight % 100), 1).await?;
//! }
//! let report = writer.flush().await?;
//! assert_eq!(report.accepted, 10_000);
//!
//! // Durable and visible in every region, or who is late and why.
//! let awaited = client.wait(&written.token, Scope::All, Duration::from_secs(5)).await?;
//! for laggard in awaited.laggards {
//!     println!("{} is {} ops behind: {}", laggard.region, laggard.behind_ops, laggard.reason);
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! What may be retried is retried here: a request that was not answered is sent again under its session, number and
//! stamps, if need be in another region, so it counts once; an error is final and says what took effect
//! ([`SdkError::applied`]). Do not wrap calls in retries of your own: a call made again is a new request.
//!
//! After a failover ([`Options::failover_after`]) new requests go to a new session of the new region, and only what is
//! unknown goes there under its old name. A region logs such adds on condition that the old one did not
//! ([`Written::conditional`]): a yes that counts once, wherever else the add was logged. Tokens hold in every region: a
//! read with one waits until the region has caught up.
//!
//! The code: handles ([`Client`], [`Session`], [`Writer`]) pass requests to one task, `driver.rs`, which owns the
//! connection; what to send, when, and under which number is decided in `book.rs`, where in `regions.rs`; both wait for
//! nothing.

mod book;
mod buffer;
mod client;
mod dial;
mod driver;
mod entry;
mod error;
mod jitter;
mod lanes;
mod numbering;
mod options;
mod regions;
mod session;
mod stamps;
mod token;
mod writer;

pub use client::{Awaited, Client, Scope, Value};
pub use error::SdkError;
pub use options::Options;
pub use session::{Counter, Register, Session, Written};
pub use token::Token;
pub use tombolo_causality::Stamp;
pub use tombolo_codec::{Applied, Kind, Laggard, Reject, RejectCode};
pub use writer::{FlushReport, NAMED_MAX, Writer};
