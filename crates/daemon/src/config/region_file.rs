//! `regions/<name>.toml` as it is written: typed and placed.
//!
//! It looks at no other file. Start at [`RegionFile::read`].

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tombolo_causality::RegionId;

use super::cluster_file::narrow;
use super::document::{Section, Source};
use super::error::{Placed, Problems};
use super::keys::REGION;
use super::{Auth, Durability, LimitsConfig, StorageConfig};

/// The contents of a region's file. What is none was missing or wrong, and reported.
#[derive(Debug)]
pub(super) struct RegionFile {
    pub(super) name: String,
    pub(super) id: Option<Placed<RegionId>>,
    pub(super) advertise: Option<Placed<Address>>,
    pub(super) listeners: Vec<Listener>,
    pub(super) auth: Option<Placed<Auth>>,
    /// Its directory is relative to the cluster's.
    pub(super) storage: Option<StorageConfig>,
    pub(super) dir: Option<Placed<PathBuf>>,
    pub(super) max_drift_ms: Option<u64>,
    pub(super) session_numbers_max: Option<usize>,
    pub(super) window_seconds: Option<Placed<u64>>,
    pub(super) limits: Option<LimitsConfig>,
}

/// `HOST:PORT` as others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) text: String,
    /// In lower case, without brackets.
    pub(super) host: String,
}

/// One of the doors.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) door: &'static str,
    pub(super) transport: &'static str,
    pub(super) address: Placed<SocketAddr>,
}

/// The doors by key and the protocol below them.
const DOORS: [(&str, &str); 4] = [("http", "TCP"), ("resp", "TCP"), ("quic", "UDP"), ("peer", "UDP")];

impl RegionFile {
    /// Where the file of a region stands in the cluster directory.
    pub(super) fn path(name: &str) -> PathBuf {
        Path::new("regions").join(format!("{name}.toml"))
    }

    /// Reads the text of the file of region `name`; none if it is not TOML.
    pub(super) fn read(name: &str, text: &str, problems: &mut Problems) -> Option<Self> {
        let file = Self::path(name);
        let source = Source { file: &file, text };
        let table = source.parse(problems)?;
        let top = Section::top(source, &REGION, &table, problems);
        check_name(&top, name, problems);
        let listen = top.section("listen", problems);
        let section = top.section("storage", problems);
        let dir =
            section.text("dir", problems).map(|dir| dir.with(dir.value.replace("{region}", name).into()));
        Some(Self {
            name: name.to_owned(),
            id: region_id(&top, problems),
            advertise: advertise(&top, problems),
            listeners: DOORS
                .iter()
                .filter_map(|&(door, transport)| listener(&listen, door, transport, problems))
                .collect(),
            auth: listen.text("auth", problems).map(|auth| {
                let parsed = if auth.value == "none" { Auth::None } else { Auth::Token };
                auth.with(parsed)
            }),
            storage: storage(&section, dir.as_ref(), problems),
            dir,
            max_drift_ms: top.number("max_drift_ms", problems).map(|number| number.value),
            session_numbers_max: count(&top, "session_numbers_max", problems),
            window_seconds: top.number("window_seconds", problems),
            limits: limits(&top.section("limits", problems), problems),
        })
    }

    /// The address of a door.
    pub(super) fn listener(&self, door: &str) -> Option<SocketAddr> {
        self.listeners.iter().find(|listener| listener.door == door).map(|listener| listener.address.value)
    }
}

fn check_name(top: &Section<'_>, name: &str, problems: &mut Problems) {
    if let Some(given) = top.text("name", problems)
        && given.value != name
    {
        problems.add_with_hint(
            &given.place,
            format!("this is the file of region `{name}`, `name` says `{}`", given.value),
            "a region is named by its file; drop the key or rename the file",
        );
    }
}

fn region_id(top: &Section<'_>, problems: &mut Problems) -> Option<Placed<RegionId>> {
    let id = top.number("id", problems)?;
    let region =
        RegionId::new(narrow(id.value)).expect("the bounds in the table of keys are those of a region id");
    Some(id.with(region))
}

fn advertise(top: &Section<'_>, problems: &mut Problems) -> Option<Placed<Address>> {
    let text = top.text("advertise", problems)?;
    match parse_address(&text.value) {
        Ok(address) => Some(text.with(address)),
        Err(reason) => {
            let hint = "it is HOST:PORT, such as eu-west.example.org:7403";
            problems.add_with_hint(
                &text.place,
                format!("`advertise` cannot be `{}`: {reason}", text.value),
                hint,
            );
            None
        }
    }
}

/// Why a text is not where other regions reach one.
pub(crate) fn check_address(text: &str) -> Result<(), &'static str> {
    parse_address(text).map(drop)
}

fn parse_address(text: &str) -> Result<Address, &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("there is no port")?;
    match port.parse::<u16>() {
        Ok(0) => return Err("port 0 cannot be reached"),
        Ok(_) if port.bytes().all(|byte| byte.is_ascii_digit()) => {}
        _ => return Err("the port is no number in 1..=65535"),
    }
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => {
            inner.parse::<Ipv6Addr>().map_err(|_| "the brackets hold no IPv6 address")?;
            inner.to_ascii_lowercase()
        }
        None => {
            check_host(host)?;
            host.to_ascii_lowercase()
        }
    };
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        return Err("nobody can reach the unspecified address");
    }
    Ok(Address { text: text.to_owned(), host })
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if host.contains(':') {
        return Err("an IPv6 address needs brackets");
    }
    if host.len() > 253 || !host.trim_end_matches('.').split('.').all(is_label) {
        return Err("the host is neither a name nor an address");
    }
    Ok(())
}

fn listener(
    listen: &Section<'_>,
    door: &'static str,
    transport: &'static str,
    problems: &mut Problems,
) -> Option<Listener> {
    let text = listen.text(door, problems)?;
    match text.value.parse() {
        Ok(address) => Some(Listener { door, transport, address: text.with(address) }),
        Err(_) => {
            let hint = "it is IP:PORT, such as 127.0.0.1:7400, or 0.0.0.0:7400 for all interfaces";
            problems.add_with_hint(&text.place, format!("`{door}` cannot listen on `{}`", text.value), hint);
            None
        }
    }
}

fn storage(
    section: &Section<'_>,
    dir: Option<&Placed<PathBuf>>,
    problems: &mut Problems,
) -> Option<StorageConfig> {
    let durability = section.text("durability", problems);
    let mut number = |name: &str| section.number(name, problems);
    let flush_interval_ms = number("flush_interval_ms");
    let segment = number("segment_bytes");
    let retention = number("wal_retention_bytes");
    let checkpoint_interval_seconds = number("checkpoint_interval_seconds");
    Some(StorageConfig {
        dir: dir?.value.clone(),
        durability: Durability::from_name(&durability?.value)?,
        flush_interval_ms: flush_interval_ms?.value,
        segment_bytes: segment?.value,
        wal_retention_bytes: retention?.value,
        checkpoint_interval_seconds: checkpoint_interval_seconds?.value,
    })
}

fn limits(section: &Section<'_>, problems: &mut Problems) -> Option<LimitsConfig> {
    let connections_max = count(section, "connections_max", problems);
    let request_ops_max = count(section, "request_ops_max", problems);
    let request_bytes_max = count(section, "request_bytes_max", problems);
    let value_bytes_max = count(section, "value_bytes_max", problems);
    let waiters_max = count(section, "waiters_max", problems);
    let await_ms_max = section.number("await_ms_max", problems);
    Some(LimitsConfig {
        connections_max: connections_max?,
        request_ops_max: request_ops_max?,
        request_bytes_max: request_bytes_max?,
        value_bytes_max: value_bytes_max?,
        waiters_max: waiters_max?,
        await_ms_max: await_ms_max?.value,
    })
}

fn count(section: &Section<'_>, name: &str, problems: &mut Problems) -> Option<usize> {
    section.number(name, problems).map(|number| narrow(number.value))
}
