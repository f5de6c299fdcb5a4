//! Every key of the files: its kind, bounds, default and meaning. The readers and `config explain` use this one table.
//!
//! Holds data only; `document.rs` reads by it. A key that no reader asks for must not stand here. Start at
//! [`CLUSTER`] and [`REGION`].

use tombolo_causality::RegionId;
use tombolo_codec::limits;

/// The keys that may stand together in one section.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) value: Value,
    pub(super) absent: Absent,
    what: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    /// An integer within bounds, both included.
    Number { min: u64, max: u64, unit: &'static str },
    /// Text; the form is for people.
    Text { form: &'static str },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `[name]`.
    Section(&'static Shape),
    /// `[[name]]`, any number of times.
    Sections(&'static Shape),
}

/// What holds where a key does not stand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Absent {
    /// It must stand.
    Refused,
    /// Nothing.
    Nothing,
    /// This number.
    Number(u64),
    /// This text; `{region}` stands for the region's name.
    Text(&'static str),
}

impl Shape {
    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// All names.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }

    /// Sections directly below, with their names.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&'static str, &'static Shape)> {
        self.keys.iter().filter_map(|key| match key.value {
            Value::Section(shape) | Value::Sections(shape) => Some((key.name, shape)),
            _ => None,
        })
    }
}

const fn key(name: &'static str, value: Value, absent: Absent, what: &'static str) -> Key {
    Key { name, value, absent, what }
}

const fn number(
    name: &'static str,
    (min, max): (u64, u64),
    default: u64,
    unit: &'static str,
    what: &'static str,
) -> Key {
    assert!(min <= default && default <= max, "a default lies within its bounds");
    key(name, Value::Number { min, max, unit }, Absent::Number(default), what)
}

const fn text(name: &'static str, form: &'static str, absent: Absent, what: &'static str) -> Key {
    key(name, Value::Text { form }, absent, what)
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const IDS: Value = Value::Number { min: 1, max: RegionId::MAX as u64, unit: "" };
const REFERENCE: &str = "file:PATH or env:NAME";

/// `cluster.toml`.
#[rustfmt::skip]
pub(super) static CLUSTER: Shape = Shape { keys: &[
    text("cluster", "32 hex digits", Absent::Refused, "the cluster's id, in every certificate, log and handshake"),
    number("shards", (1, 1024), 16, "", "partitions of the keys; fixed for the life of the cluster"),
    number("revision", (1, u64::MAX >> 1), 1, "", "raised with every change of the declared regions and signals"),
    key("region", Value::Sections(&CLUSTER_REGION), Absent::Refused, "a region; the rest is in regions/<name>.toml"),
    key("counter", Value::Sections(&RULE), Absent::Nothing, "keys that are counters"),
    key("register", Value::Sections(&RULE), Absent::Nothing, "keys that are registers"),
    key("tenant", Value::Sections(&TENANT), Absent::Nothing, "an isolation namespace and its credential"),
    key("pki", Value::Section(&PKI), Absent::Nothing, "certificates; paths are relative to the cluster directory"),
    key("secrets", Value::Section(&SECRETS), Absent::Nothing, "references to secrets, never the secrets"),
]};

#[rustfmt::skip]
static CLUSTER_REGION: Shape = Shape { keys: &[
    text("name", "a-z, 0-9 and -", Absent::Refused, "names regions/<name>.toml and the certificate"),
    key("id", IDS, Absent::Nothing, "if it stands here too, it must be the one in regions/<name>.toml"),
]};

#[rustfmt::skip]
static RULE: Shape = Shape { keys: &[
    text("match", "KEY or PREFIX*", Absent::Refused, "which keys; of all [[counter]] and [[register]] the first match wins"),
]};

#[rustfmt::skip]
static TENANT: Shape = Shape { keys: &[
    text("name", "a-z, 0-9 and -", Absent::Refused, "as AUTH takes it"),
    key("id", Value::Number { min: 1, max: u32::MAX as u64, unit: "" }, Absent::Refused, "for ever: keys are hashed with it"),
    text("token", REFERENCE, Absent::Refused, "its bearer token"),
]};

#[rustfmt::skip]
static PKI: Shape = Shape { keys: &[
    text("authority", "path", Absent::Text("pki/ca.pem"), "the CA's certificate, on every machine"),
    text("authority_key", "path", Absent::Text("pki/ca.key"), "the CA's key, only where certificates are issued"),
    text("certificate", "path with {region}", Absent::Text("pki/{region}.pem"), "a region's certificate"),
    text("key", "path with {region}", Absent::Text("pki/{region}.key"), "its key, only on that region's machine"),
]};

#[rustfmt::skip]
static SECRETS: Shape = Shape { keys: &[
    text("seal_key", REFERENCE, Absent::Text("file:pki/seal.key"), "64 hex digits; seals tokens and session ids"),
    text("admin_token", REFERENCE, Absent::Text("file:admin.token"), "opens /v1/admin"),
]};

/// `regions/<name>.toml`.
#[rustfmt::skip]
pub(super) static REGION: Shape = Shape { keys: &[
    key("id", IDS, Absent::Refused, "the region's id, for ever; never one of a removed region"),
    text("name", "a-z, 0-9 and -", Absent::Nothing, "if it stands here too, it must be the file's"),
    text("advertise", "HOST:PORT", Absent::Refused, "where the other regions reach it (UDP)"),
    number("max_drift_ms", (1, 3_600_000), 500, "ms", "how far a stamp may be ahead of the clock"),
    number("session_numbers_max", (1, limits::SESSION_NUMBERS_MAX as u64), limits::SESSION_NUMBERS_MAX as u64, "",
        "numbers a session may hold above its settled mark, per shard"),
    number("window_seconds", (1, 30 * 86_400), 86_400, "s", "how long a retry is recognised; the same in all regions"),
    key("listen", Value::Section(&LISTEN), Absent::Refused, "where it listens"),
    key("storage", Value::Section(&STORAGE), Absent::Nothing, "how it stores"),
    key("limits", Value::Section(&LIMITS), Absent::Nothing, "what its doors take"),
]};

#[rustfmt::skip]
static LISTEN: Shape = Shape { keys: &[
    text("http", "IP:PORT", Absent::Refused, "HTTP/JSON (TCP)"),
    text("resp", "IP:PORT", Absent::Refused, "RESP2 and RESP3 (TCP)"),
    text("quic", "IP:PORT", Absent::Refused, "the SDK (UDP)"),
    text("peer", "IP:PORT", Absent::Refused, "other regions, mutually authenticated (UDP)"),
    key("auth", Value::Choice(&["token", "none"]), Absent::Text("token"), "whether clients need a token; none only on loopback"),
]};

#[rustfmt::skip]
static STORAGE: Shape = Shape { keys: &[
    text("dir", "path", Absent::Text("data/{region}"), "the data directory, relative to the cluster directory"),
    key("durability", Value::Choice(&["sync", "interval", "async"]), Absent::Text("sync"), "when a write is answered"),
    number("flush_interval_ms", (1, 60_000), 5, "ms", "longest time until the disk follows, with durability = interval"),
    number("segment_bytes", (64 * KIB, 4 * GIB), 16 * MIB, "bytes", "size of a segment file of the log; one batch may be larger"),
    number("wal_retention_bytes", (0, 1 << 50), 4 * GIB, "bytes",
        "how much of the log is kept for regions that are away, over all shards; who lacks more takes the difference. \
         One segment of each log stays"),
    number("checkpoint_interval_seconds", (0, 86_400), 60, "s", "time between checkpoints; 0 for none"),
]};

#[rustfmt::skip]
static LIMITS: Shape = Shape { keys: &[
    number("connections_max", (1, 65_536), 4_096, "", "client connections at each door"),
    number("request_ops_max", (1, limits::REQUEST_OPS_MAX as u64), limits::REQUEST_OPS_MAX as u64, "", "ops in one request"),
    number("request_bytes_max", (1_024, limits::REQUEST_BYTES_MAX as u64), limits::REQUEST_BYTES_MAX as u64, "bytes", "one request"),
    number("value_bytes_max", (1, limits::VALUE_BYTES_MAX as u64), limits::VALUE_BYTES_MAX as u64, "bytes", "one register value"),
    number("waiters_max", (1, limits::WAITERS_MAX as u64), limits::WAITERS_MAX as u64, "", "waiters on barriers"),
    number("await_ms_max", (1, limits::AWAIT_MS_MAX), limits::AWAIT_MS_MAX, "ms", "the longest wait a client may ask for"),
]};

/// A key as `config explain` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedKey {
    /// `cluster.toml` or `regions/<name>.toml`.
    pub file: &'static str,
    /// With its section: `storage.durability`, `[[tenant]] token`.
    pub key: String,
    /// What holds where it does not stand: `required`, `-`, or the value with its unit.
    pub default: String,
    /// What it takes: bounds, words, or a form.
    pub takes: String,
    /// What it means.
    pub what: &'static str,
}

/// Every key there is, in the order of the files.
#[must_use]
pub fn explain() -> Vec<ExplainedKey> {
    let mut keys = Vec::new();
    collect("cluster.toml", "", &CLUSTER, &mut keys);
    collect("regions/<name>.toml", "", &REGION, &mut keys);
    keys
}

fn collect(file: &'static str, prefix: &str, shape: &'static Shape, keys: &mut Vec<ExplainedKey>) {
    for key in shape.keys {
        match key.value {
            Value::Section(inner) => collect(file, &format!("{}.", key.name), inner, keys),
            Value::Sections(inner) => collect(file, &format!("[[{}]] ", key.name), inner, keys),
            _ => keys.push(explained(file, prefix, key)),
        }
    }
}

fn explained(file: &'static str, prefix: &str, key: &Key) -> ExplainedKey {
    let unit = match key.value {
        Value::Number { unit, .. } if !unit.is_empty() => format!(" {unit}"),
        _ => String::new(),
    };
    let default = match key.absent {
        Absent::Refused => "required".to_owned(),
        Absent::Nothing => "-".to_owned(),
        Absent::Number(number) => format!("{number}{unit}"),
        Absent::Text(text) => text.to_owned(),
    };
    let takes = match key.value {
        Value::Number { min, max, .. } => format!("{min}..={max}"),
        Value::Text { form } => form.to_owned(),
        Value::Choice(words) => words.join(" | "),
        Value::Section(_) | Value::Sections(_) => unreachable!("sections are walked, not explained"),
    };
    ExplainedKey { file, key: format!("{prefix}{}", key.name), default, takes, what: key.what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_explained_once() {
        let mut keys: Vec<_> = explain().into_iter().map(|key| (key.file, key.key)).collect();
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert!(keys.contains(&("regions/<name>.toml", "storage.durability".to_owned())));
        assert!(keys.contains(&("cluster.toml", "[[tenant]] token".to_owned())));
    }

    #[test]
    fn text_defaults_of_choices_are_among_their_words() {
        for (_, shape) in [&CLUSTER, &REGION].into_iter().flat_map(|file| file.sections()) {
            for key in shape.keys {
                if let (Value::Choice(words), Absent::Text(default)) = (key.value, key.absent) {
                    assert!(words.contains(&default), "{}", key.name);
                }
            }
        }
    }
}
