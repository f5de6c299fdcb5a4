//! What stock clients ask a server about itself: `HELLO`, `INFO`, `CLIENT`, `COMMAND`, `CONFIG GET`, and small talk.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::client::Client;
use super::command::{Hello, Talk, is};
use super::table::{self, COMMANDS, Spec};
use super::{Protocol, ReplyWriter};
use crate::Service;

/// The Redis whose manners this door has: clients choose what they send by it.
const REDIS_VERSION: &str = "7.2.0";

impl<S: Service> Client<S> {
    pub(super) fn talk(&mut self, talk: &Talk) {
        match talk {
            Talk::Ok => self.replies.simple("OK"),
            Talk::Ping(None) => self.replies.simple("PONG"),
            Talk::Ping(Some(text)) | Talk::Echo(text) => self.replies.bulk(text),
            Talk::Time => self.time(),
            Talk::Info(sections) => {
                let info = self.info(sections);
                self.replies.verbatim(&info);
            }
            Talk::Client(args) => self.client(args),
            Talk::CommandTable(args) => self.command(args),
            Talk::ConfigGet(patterns) => self.config(patterns),
        }
    }

    pub(super) fn greet(&mut self, hello: Hello) {
        let protocol = match hello.version {
            None => self.replies.protocol,
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => {
                self.count_error(tombolo_codec::RejectCode::Malformed);
                return self.replies.error("NOPROTO", "unsupported protocol version");
            }
        };
        if let Some(token) = &hello.token
            && !self.authenticate(token)
        {
            return;
        }
        if !self.is_authenticated() {
            self.count_error(tombolo_codec::RejectCode::Unauthenticated);
            let text = "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                        <user> <pass> option can be used to authenticate the client and select the RESP protocol \
                        version at the same time";
            return self.replies.error("NOAUTH", text);
        }
        if let Some(name) = hello.name {
            self.who.name = name;
        }
        let replies = &mut self.replies;
        replies.protocol = protocol;
        replies.map(7);
        for (field, text) in [("server", "tombolo"), ("version", REDIS_VERSION)] {
            replies.bulk(field.as_bytes());
            replies.bulk(text.as_bytes());
        }
        replies.bulk(b"proto");
        replies.integer(if protocol == Protocol::Resp3 { 3 } else { 2 });
        replies.bulk(b"id");
        replies.integer(self.who.id);
        // Every region takes writes.
        for (field, text) in [("mode", "standalone"), ("role", "master")] {
            replies.bulk(field.as_bytes());
            replies.bulk(text.as_bytes());
        }
        replies.bulk(b"modules");
        replies.array(0);
    }

    fn time(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.replies.array(2);
        self.replies.bulk(now.as_secs().to_string().as_bytes());
        self.replies.bulk(now.subsec_micros().to_string().as_bytes());
    }

    fn info(&self, sections: &[Bytes]) -> String {
        let identity = self.service.identity();
        let all = [
            (
                "Server",
                format!(
                    "redis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\ntombolo_version:{}\r\n\
                     tombolo_cluster:{}\r\ntombolo_region:{}\r\nprocess_id:{}\r\nrun_id:{}\r\n",
                    env!("CARGO_PKG_VERSION"),
                    identity.cluster,
                    identity.name,
                    std::process::id(),
                    identity.epoch,
                ),
            ),
            ("Clients", format!("connected_clients:{}\r\n", self.stats.connections())),
            (
                "Persistence",
                format!(
                    "loading:{}\r\naof_enabled:1\r\ntombolo_durability:{}\r\n",
                    u8::from(!self.service.is_ready()),
                    identity.durability,
                ),
            ),
            (
                "Stats",
                format!(
                    "total_commands_processed:{}\r\ntotal_error_replies:{}\r\nrejected_connections:{}\r\n",
                    self.stats.requests(),
                    self.stats.rejects().map(|(_, count)| count).sum::<u64>(),
                    self.stats.connections_refused(),
                ),
            ),
            (
                "Replication",
                format!(
                    "role:master\r\nconnected_slaves:0\r\ntombolo_regions:{}\r\n",
                    identity.regions.join(",")
                ),
            ),
            ("Cluster", "cluster_enabled:0\r\n".to_owned()),
        ];
        let is_wanted = |name: &str| {
            let is_meant = |section: &Bytes| {
                is(section, name) || ["all", "default", "everything"].iter().any(|word| is(section, word))
            };
            sections.is_empty() || sections.iter().any(is_meant)
        };
        let wanted = all.iter().filter(|(name, _)| is_wanted(name));
        wanted.map(|(name, lines)| format!("# {name}\r\n{lines}")).collect::<Vec<_>>().join("\r\n")
    }

    fn client(&mut self, args: &[Bytes]) {
        let Some(verb) = args.first() else { return };
        if is(verb, "setname") {
            self.who.name = args[1].clone();
            self.replies.simple("OK");
        } else if is(verb, "getname") {
            if self.who.name.is_empty() {
                self.replies.null();
            } else {
                self.replies.bulk(&self.who.name);
            }
        } else if is(verb, "id") {
            self.replies.integer(self.who.id);
        } else if is(verb, "list") || is(verb, "info") {
            // A connection sees itself, and no other tenant's.
            let line = self.line();
            self.replies.verbatim(&line);
        } else {
            self.replies.simple("OK");
        }
    }

    fn line(&self) -> String {
        format!(
            "id={} addr={} name={} db=0 multi={} resp={}\n",
            self.who.id,
            self.who.remote,
            String::from_utf8_lossy(&self.who.name),
            if self.transaction.is_some() { 0 } else { -1 },
            if self.replies.protocol == Protocol::Resp3 { 3 } else { 2 },
        )
    }

    fn command(&mut self, args: &[Bytes]) {
        let replies = &mut self.replies;
        match args {
            [] => {
                replies.array(COMMANDS.len());
                COMMANDS.iter().for_each(|spec| describe(spec, replies));
            }
            [verb] if is(verb, "count") => replies.integer(COMMANDS.len() as i64),
            [verb, ..] if is(verb, "list") => {
                replies.array(COMMANDS.len());
                COMMANDS.iter().for_each(|spec| replies.bulk(spec.name.as_bytes()));
            }
            // redis-cli asks this for its hints, and goes without where there is none.
            [verb, ..] if is(verb, "docs") => replies.map(0),
            [verb] if is(verb, "info") => {
                replies.array(COMMANDS.len());
                COMMANDS.iter().for_each(|spec| describe(spec, replies));
            }
            [verb, names @ ..] if is(verb, "info") => {
                replies.array(names.len());
                for name in names {
                    match table::find(&String::from_utf8_lossy(name).to_ascii_lowercase()) {
                        Some(spec) => describe(spec, replies),
                        None => replies.null(),
                    }
                }
            }
            [verb, ..] => {
                let text = format!("unknown subcommand '{}'", verb.escape_ascii());
                self.malformed(&text);
            }
        }
    }

    fn config(&mut self, patterns: &[Bytes]) {
        let appendfsync = match self.service.identity().durability {
            "sync" => "always",
            "interval" => "everysec",
            _ => "no",
        };
        // Benchmarks print these; none of them can be set.
        let settings = [
            ("appendfsync", appendfsync),
            ("appendonly", "yes"),
            ("databases", "1"),
            ("maxmemory", "0"),
            ("maxmemory-policy", "noeviction"),
            ("proto-max-bulk-len", "327680"),
            ("save", ""),
            ("timeout", "0"),
        ];
        let is_asked = |name: &str| patterns.iter().any(|pattern| matches(pattern, name.as_bytes()));
        let asked: Vec<_> = settings.into_iter().filter(|(name, _)| is_asked(name)).collect();
        self.replies.map(asked.len());
        for (name, value) in asked {
            self.replies.bulk(name.as_bytes());
            self.replies.bulk(value.as_bytes());
        }
    }
}

/// An entry of `COMMAND`, with the ten fields of Redis 7: clients take each of them for granted.
fn describe(spec: &Spec, replies: &mut ReplyWriter) {
    let (first, last, step) = spec.keys;
    replies.array(10);
    replies.bulk(spec.name.as_bytes());
    replies.integer(spec.arity);
    replies.set(spec.flags.len());
    spec.flags.iter().for_each(|flag| replies.simple(flag));
    [first, last, step].into_iter().for_each(|number| replies.integer(number));
    // ACL categories, tips, key specifications, subcommands.
    replies.set(0);
    (0..3).for_each(|_| replies.array(0));
}

/// Whether a name fits a pattern of `*`, `?` and letters in any case.
///
/// Goes back to the last `*` only, so the time is bounded by the product of the lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&name[n]) => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    p = star_at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_globs() {
        for pattern in ["save", "SAVE", "*", "s*", "*e", "s?ve", "*a*", "**", "s*v*"] {
            assert!(matches(pattern.as_bytes(), b"save"), "{pattern}");
        }
        for pattern in ["", "sav", "saves", "a*", "*x*", "????e", "?"] {
            assert!(!matches(pattern.as_bytes(), b"save"), "{pattern}");
        }
    }
}
