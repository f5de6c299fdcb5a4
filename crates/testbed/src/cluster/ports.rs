//! Port ranges of clusters: ten ports per region, not taken by any other cluster on this machine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports from one region to the next, as `init` deals them.
const PORTS_PER_REGION: u16 = 10;
/// The first port tried.
const PORT_MIN: u16 = 10_000;
/// Beyond it systems deal out ports for outgoing connections (32,768 on Linux).
const PORT_END: u16 = 32_000;
/// Of each region's ten: what `init` gives away.
const HTTP: u16 = 0;
const RESP: u16 = 1;
const QUIC: u16 = 2;
const PEER: u16 = 3;
/// Of each region's ten: held by the test for as long as its cluster lives, so that no other takes the range.
const CLAIM: u16 = 9;

/// No free range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// The range asked for is in use, or there is none.
    #[error(
        "no free range of {PORTS_PER_REGION} ports for each of {0} regions between {PORT_MIN} and {PORT_END}"
    )]
    NoneFree(usize),
    /// The base port asked for leaves no room, or another cluster has it.
    #[error("ports from {0} on are in use or do not fit below 65536")]
    Taken(u16),
}

/// A range of ports held for one cluster.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    _claims: Vec<TcpListener>,
}

impl Ports {
    /// Finds and holds a free range for `regions_count` regions.
    ///
    /// Errors: [`PortsError::NoneFree`].
    pub fn claim(regions_count: usize) -> Result<Self, PortsError> {
        // Each process and each cluster begins elsewhere, or all would meet at the first free range.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let slots = (PORT_END - PORT_MIN) / PORTS_PER_REGION;
        let first =
            (std::process::id() as u16).wrapping_mul(97).wrapping_add(NEXT.fetch_add(7, Ordering::Relaxed));
        (0..slots)
            .map(|at| PORT_MIN + (first % slots + at) % slots * PORTS_PER_REGION)
            .filter(|base| usize::from(PORT_END - base) >= regions_count * usize::from(PORTS_PER_REGION))
            .find_map(|base| Self::claim_at(base, regions_count).ok())
            .ok_or(PortsError::NoneFree(regions_count))
    }

    /// Holds the range that begins at `base`.
    ///
    /// Errors: [`PortsError::Taken`].
    pub fn claim_at(base: u16, regions_count: usize) -> Result<Self, PortsError> {
        let taken = PortsError::Taken(base);
        if usize::from(base) + regions_count * usize::from(PORTS_PER_REGION) > 65_536 {
            return Err(taken);
        }
        let mut claims = Vec::with_capacity(regions_count);
        for region in 0..regions_count {
            let first = base + region as u16 * PORTS_PER_REGION;
            let local = |offset: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, first + offset));
            claims.push(TcpListener::bind(local(CLAIM)).map_err(|_| taken)?);
            for offset in [HTTP, RESP] {
                TcpListener::bind(local(offset)).map_err(|_| taken)?;
            }
            for offset in [QUIC, PEER] {
                UdpSocket::bind(local(offset)).map_err(|_| taken)?;
            }
        }
        Ok(Self { base, _claims: claims })
    }

    /// The first port, as `init --base-port` takes it.
    #[must_use]
    pub const fn base(&self) -> u16 {
        self.base
    }

    /// HTTP of the region at `index`.
    #[must_use]
    pub fn http(&self, index: usize) -> SocketAddr {
        self.address(index, HTTP)
    }

    /// RESP of the region at `index`.
    #[must_use]
    pub fn resp(&self, index: usize) -> SocketAddr {
        self.address(index, RESP)
    }

    /// QUIC for applications of the region at `index` (UDP).
    #[must_use]
    pub fn quic(&self, index: usize) -> SocketAddr {
        self.address(index, QUIC)
    }

    /// QUIC for other regions of the region at `index` (UDP).
    #[must_use]
    pub fn peer(&self, index: usize) -> SocketAddr {
        self.address(index, PEER)
    }

    fn address(&self, index: usize, offset: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.base + index as u16 * PORTS_PER_REGION + offset).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_dealt_as_init_does() {
        let ports = Ports::claim(3).unwrap();
        let base = ports.base();
        assert_eq!(ports.http(0).port(), base);
        assert_eq!((ports.resp(1).port(), ports.quic(1).port()), (base + 11, base + 12));
        assert_eq!(ports.peer(2).port(), base + 23);
        // What was probed is free again for the daemons.
        TcpListener::bind(ports.http(0)).unwrap();
        UdpSocket::bind(ports.peer(2)).unwrap();
    }

    #[test]
    fn a_held_range_is_not_given_twice_and_a_dropped_one_is_free() {
        let first = Ports::claim(2).unwrap();
        let base = first.base();
        assert_eq!(Ports::claim_at(base, 2).unwrap_err(), PortsError::Taken(base));
        // A range that overlaps by one region is taken too.
        assert!(Ports::claim_at(base + PORTS_PER_REGION, 1).is_err());
        drop(first);
        assert_eq!(Ports::claim_at(base, 2).unwrap().base(), base);
    }

    #[test]
    fn a_range_in_use_by_a_stranger_is_passed_over() {
        let base = Ports::claim(1).unwrap().base();
        let _stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, base + PEER)).unwrap();
        assert!(Ports::claim_at(base, 1).is_err());
    }

    #[test]
    fn clusters_side_by_side_get_ranges_of_their_own() {
        let ranges: Vec<_> = (0..20).map(|_| Ports::claim(3).unwrap()).collect();
        let mut bases: Vec<_> = ranges.iter().map(Ports::base).collect();
        bases.sort_unstable();
        assert!(bases.windows(2).all(|pair| pair[1] - pair[0] >= 30), "{bases:?}");
    }

    #[test]
    fn a_range_beyond_the_last_port_is_refused() {
        assert_eq!(Ports::claim_at(65_530, 1).unwrap_err(), PortsError::Taken(65_530));
        assert_eq!(Ports::claim(10_000).unwrap_err(), PortsError::NoneFree(10_000));
    }
}
