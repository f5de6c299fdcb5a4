//! Prints what the region answered, as the reply that each command has in Redis.

use std::vec::IntoIter;

use tombolo_codec::{Applied, ReadValue, Reject, RejectCode};

use super::client::Client;
use super::command::{Read, Write};
use crate::Service;

impl<S: Service> Client<S> {
    /// Takes one value for each of its ops.
    pub(super) fn reply_to_write(&mut self, write: &Write, values: &mut IntoIter<Option<i128>>) {
        match write {
            Write::Set { .. } => {
                values.next();
                self.replies.simple("OK");
            }
            Write::Delete { keys } => {
                let deleted: i128 = values.by_ref().take(keys.len()).flatten().sum();
                self.replies.integer(i64::try_from(deleted).expect("a request deletes few keys"));
            }
            Write::Add { .. } => match values.next().flatten() {
                Some(value) => match i64::try_from(value) {
                    Ok(value) => self.replies.integer(value),
                    Err(_) => self.overflow(value),
                },
                None => {
                    self.replies.error("ERR", "counted, but its value is not known; GET it (applied: yes)")
                }
            },
        }
    }

    fn overflow(&mut self, value: i128) {
        let text = format!("the counter is at {value}, outside of 64 bits; GET shows all its digits");
        let mut reject = Reject::new(RejectCode::Overflow, text);
        reject.applied = Applied::Yes;
        self.reject(&reject);
    }

    /// Takes one value for each of its keys.
    pub(super) fn reply_to_read(&mut self, read: &Read, values: &mut IntoIter<ReadValue>) {
        match read {
            Read::Get(_) => self.reply_value(values.next()),
            Read::GetMany(keys) => {
                self.replies.array(keys.len());
                keys.iter().for_each(|_| self.reply_value(values.next()));
            }
            Read::Exists(keys) => {
                let present = values.by_ref().take(keys.len()).filter(|value| *value != ReadValue::Absent);
                self.replies.integer(present.count() as i64);
            }
            // Redis keeps counters in strings, and its clients expect that.
            Read::Type(_) => match values.next() {
                None | Some(ReadValue::Absent) => self.replies.simple("none"),
                Some(_) => self.replies.simple("string"),
            },
            Read::Length(_) => {
                let length = match values.next() {
                    None | Some(ReadValue::Absent) => 0,
                    Some(ReadValue::Counter(value)) => value.to_string().len(),
                    Some(ReadValue::Register { value, .. }) => value.len(),
                };
                self.replies.integer(length as i64);
            }
        }
    }

    fn reply_value(&mut self, value: Option<ReadValue>) {
        match value {
            None | Some(ReadValue::Absent) => self.replies.null(),
            Some(ReadValue::Counter(value)) => self.replies.bulk(value.to_string().as_bytes()),
            Some(ReadValue::Register { value, .. }) => self.replies.bulk(&value),
        }
    }
}
