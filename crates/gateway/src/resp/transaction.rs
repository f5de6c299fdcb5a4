//! `MULTI … EXEC`: requests are queued, and run at `EXEC`: all writes in one request, then all reads in another.
//!
//! So all writes are admitted or none, and a read in a transaction sees the state after all of its writes, wherever it
//! stands among them. Writes to several shards are not seen as one by other clients.

use tombolo_codec::{Applied, Reject, RejectCode, limits};

use super::client::Client;
use super::command::{Command, Read, Write};
use crate::Service;

/// What was queued since `MULTI`.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Set by a request that could not be queued; `EXEC` is refused then.
    pub(super) is_broken: bool,
    commands: Vec<Command>,
    ops_count: usize,
    keys_count: usize,
    bytes: usize,
}

impl Transaction {
    /// Errors: `too_large`.
    fn push(&mut self, command: Command, bytes: usize) -> Result<(), Reject> {
        match &command {
            Command::Write(write) => self.ops_count += write.ops_count(),
            Command::Read(read) => self.keys_count += read.keys().len(),
            _ => {}
        }
        self.bytes += bytes;
        self.commands.push(command);
        let is_within = self.commands.len() <= limits::REQUEST_OPS_MAX
            && self.ops_count <= limits::REQUEST_OPS_MAX
            && self.keys_count <= limits::READ_KEYS_MAX
            && self.bytes <= limits::REQUEST_BYTES_MAX;
        if is_within {
            return Ok(());
        }
        // What is queued can no longer run: it need not be held.
        self.commands = Vec::new();
        let (ops, bytes) = (limits::REQUEST_OPS_MAX, limits::REQUEST_BYTES_MAX);
        let text = format!("a transaction holds at most {ops} requests of {bytes} bytes together");
        Err(Reject::new(RejectCode::TooLarge, text))
    }

    fn writes(&self) -> impl Iterator<Item = &Write> {
        self.commands.iter().filter_map(|command| match command {
            Command::Write(write) => Some(write),
            _ => None,
        })
    }

    fn reads(&self) -> impl Iterator<Item = &Read> {
        self.commands.iter().filter_map(|command| match command {
            Command::Read(read) => Some(read),
            _ => None,
        })
    }
}

impl<S: Service> Client<S> {
    /// A request while a transaction is open.
    pub(super) async fn queue(&mut self, command: Command, bytes: usize) {
        match command {
            Command::Exec => return self.exec().await,
            Command::Reset => return self.reset(),
            Command::Quit => return self.quit(),
            Command::Discard => {
                self.transaction = None;
                return self.replies.simple("OK");
            }
            _ => {}
        }
        let Some(transaction) = &mut self.transaction else { return };
        let queued = match command {
            Command::Write(_) | Command::Read(_) | Command::Talk(_) if transaction.is_broken => Ok(()),
            Command::Write(_) | Command::Read(_) | Command::Talk(_) => transaction.push(command, bytes),
            Command::Multi => Err(Reject::new(RejectCode::Malformed, "MULTI calls can not be nested")),
            _ => Err(Reject::new(RejectCode::Malformed, "Command not allowed inside a transaction")),
        };
        match queued {
            Ok(()) => self.replies.simple("QUEUED"),
            Err(reject) => {
                transaction.is_broken = true;
                self.reject(&reject);
            }
        }
    }

    async fn exec(&mut self) {
        let Some(transaction) = self.transaction.take() else { return };
        self.runs_count += 1;
        if transaction.is_broken {
            self.count_error(RejectCode::Malformed);
            return self.replies.error("EXECABORT", "Transaction discarded because of previous errors.");
        }
        let mut written = Vec::new().into_iter();
        if transaction.ops_count > 0 {
            match self.hand_over(transaction.writes()).await {
                Ok(values) => written = values,
                Err(reject) => return self.abort(&reject),
            }
        }
        let mut values = Ok(Vec::new().into_iter());
        if transaction.keys_count > 0 {
            values = self.read_values(transaction.reads()).await;
        }
        self.replies.array(transaction.commands.len());
        for command in &transaction.commands {
            match (command, &mut values) {
                (Command::Write(write), _) => self.reply_to_write(write, &mut written),
                (Command::Read(read), Ok(values)) => self.reply_to_read(read, values),
                (Command::Read(_), Err(reject)) => {
                    let reject = reject.clone();
                    self.reject(&reject);
                }
                (Command::Talk(talk), _) => self.talk(talk),
                _ => unreachable!("only reads, writes and talk are queued"),
            }
        }
    }

    /// None of the writes was admitted; or it is not known, and then the reply must not say "discarded".
    fn abort(&mut self, reject: &Reject) {
        if reject.applied != Applied::No {
            return self.reject(reject);
        }
        self.count_error(reject.code);
        let text =
            format!("Transaction discarded, nothing was applied: {} {}", reject.code.resp(), reject.text);
        self.replies.error("EXECABORT", &text);
    }
}
