//! Checks that need more than one file, or more than one key of a file.
//!
//! They read values, never files. Start at [`check_regions`].

use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use super::Auth;
use super::cluster_file::{ClusterFile, DeclaredRegion};
use super::error::{Placed, Problems};
use super::region_file::{Listener, RegionFile};

/// Checks the regions' files against `cluster.toml` and against each other.
pub(super) fn check_regions(cluster: &ClusterFile, regions: &[RegionFile], problems: &mut Problems) {
    for (index, region) in regions.iter().enumerate() {
        check_auth(region, problems);
        check_own_ports(region, problems);
        if let Some(declared) = cluster.regions.iter().find(|declared| declared.name.value == region.name) {
            check_declared_id(declared, region, problems);
        }
        for earlier in &regions[..index] {
            check_pair(earlier, region, problems);
        }
    }
    if let Some(first) = regions.first() {
        for other in &regions[1..] {
            check_window(first, other, problems);
        }
    }
}

fn check_declared_id(declared: &DeclaredRegion, region: &RegionFile, problems: &mut Problems) {
    if let (Some(declared), Some(id)) = (&declared.id, &region.id)
        && declared.value != u64::from(id.value.get())
    {
        let file = RegionFile::path(&region.name);
        let message = format!("`id` is {} here and {} in {}", declared.value, id.value, file.display());
        problems.add_with_hint(
            &declared.place,
            message,
            "the id in the region's file is the one that counts",
        );
    }
}

/// Without credentials only what runs on the same machine may come in.
fn check_auth(region: &RegionFile, problems: &mut Problems) {
    let Some(auth) = region.auth.as_ref().filter(|auth| auth.value == Auth::None) else { return };
    let open = region.listeners.iter().find(|listener| !listener.address.value.ip().is_loopback());
    if let Some(Listener { door, address, .. }) = open {
        problems.add_with_hint(
            &auth.place,
            format!("`auth = \"none\"` lets everybody in through `{door}` at {}", address.value),
            "set `auth = \"token\"`, or listen on 127.0.0.1 only",
        );
    }
}

fn check_own_ports(region: &RegionFile, problems: &mut Problems) {
    for (index, later) in region.listeners.iter().enumerate() {
        if let Some(earlier) = region.listeners[..index].iter().find(|earlier| clash(earlier, later)) {
            let message =
                format!("`{}` cannot listen on {}, `{}` does", later.door, later.address.value, earlier.door);
            problems.add(&later.address.place, message);
        }
    }
}

fn check_pair(earlier: &RegionFile, later: &RegionFile, problems: &mut Problems) {
    if let (Some(first), Some(second)) = (&earlier.id, &later.id)
        && first.value == second.value
    {
        let message = format!("id {} is region `{}`'s already", second.value, earlier.name);
        problems.add_with_hint(&second.place, message, "an id belongs to one region for ever");
    }
    if let (Some(first), Some(second)) = (&earlier.advertise, &later.advertise)
        && first.value.text.eq_ignore_ascii_case(&second.value.text)
    {
        let message = format!("region `{}` is reached at {} already", earlier.name, second.value.text);
        problems.add(&second.place, message);
    }
    if let (Some(first), Some(second)) = (&earlier.dir, &later.dir)
        && tidy(&first.value) == tidy(&second.value)
    {
        let message =
            format!("`{}` is region `{}`'s directory already", second.value.display(), earlier.name);
        problems.add(&second.place, message);
    }
    for listener in &later.listeners {
        let taken = earlier.listeners.iter().find(|other| {
            clash(other, listener) && (are_on_one_host(earlier, later) || is_one_interface(other, listener))
        });
        if let Some(taken) = taken {
            let message = format!(
                "`{}` cannot listen on {}: `{}` of region `{}` does, on the same host",
                listener.door, listener.address.value, taken.door, earlier.name
            );
            problems.add(&listener.address.place, message);
        }
    }
}

/// Retries are recognised for as long as all regions agree how long that is.
fn check_window(first: &RegionFile, other: &RegionFile, problems: &mut Problems) {
    let (Some(expected), Some(Placed { value, place })) = (&first.window_seconds, &other.window_seconds)
    else {
        return;
    };
    if *value != expected.value {
        let message =
            format!("`window_seconds` is {value} here and {} in region `{}`", expected.value, first.name);
        problems.add_with_hint(place, message, "it must be the same in all regions");
    }
}

/// Two sockets of one host that cannot both be bound.
fn clash(a: &Listener, b: &Listener) -> bool {
    let (first, second): (SocketAddr, SocketAddr) = (a.address.value, b.address.value);
    let overlap = first.ip() == second.ip() || first.ip().is_unspecified() || second.ip().is_unspecified();
    // Port 0 is another one each time.
    a.transport == b.transport && first.port() == second.port() && first.port() != 0 && overlap
}

/// Regions on different machines often listen alike; where they are reached tells them apart.
fn are_on_one_host(a: &RegionFile, b: &RegionFile) -> bool {
    match (&a.advertise, &b.advertise) {
        (Some(a), Some(b)) => host_key(&a.value.host) == host_key(&b.value.host),
        _ => false,
    }
}

fn host_key(host: &str) -> &str {
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => "localhost",
        _ => host.trim_end_matches('.'),
    }
}

/// An address of a real interface belongs to one machine.
fn is_one_interface(a: &Listener, b: &Listener) -> bool {
    let ip = a.address.value.ip();
    ip == b.address.value.ip() && !ip.is_unspecified() && !ip.is_loopback()
}

/// A path without `.` and with `x/..` folded, so that two spellings compare equal.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if tidied.file_name().is_some() => drop(tidied.pop()),
            other => tidied.push(other),
        }
    }
    tidied
}
