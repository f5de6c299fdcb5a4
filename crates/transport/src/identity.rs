//! Who a certificate speaks for, and whether that is a member.
//!
//! A region is named by the single URI of its certificate, `spiffe://<cluster id>/region/<name>`. This file reads and
//! judges that name; the chain to the cluster's CA is checked in `tls.rs`. Start at [`Members::admit`].

use std::fmt;

use tombolo_causality::{ClusterId, RegionId};

const SCHEME: &str = "spiffe://";
const REGION_PATH: &str = "/region/";
/// As long as a DNS label.
const NAME_BYTES_MAX: usize = 63;

/// What a region's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateName {
    /// The cluster.
    pub cluster: ClusterId,
    /// The region's name.
    pub region: String,
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{REGION_PATH}{}", self.cluster, self.region)
    }
}

impl CertificateName {
    /// Reads `spiffe://<32 hex digits>/region/<name>`.
    ///
    /// Errors: [`NameError::Malformed`].
    pub fn parse(uri: &str) -> Result<Self, NameError> {
        let malformed = || NameError::Malformed { uri: uri.chars().take(200).collect() };
        let rest = uri.strip_prefix(SCHEME).ok_or_else(malformed)?;
        let (cluster, region) = rest.split_once(REGION_PATH).ok_or_else(malformed)?;
        let cluster = cluster.parse().map_err(|_| malformed())?;
        if !region_name_is_valid(region) {
            return Err(malformed());
        }
        Ok(Self { cluster, region: region.to_owned() })
    }
}

/// The URI of a cluster's own CA.
pub(crate) fn authority_uri(cluster: ClusterId) -> String {
    format!("{SCHEME}{cluster}")
}

/// The cluster in the URI of a CA.
pub(crate) fn parse_authority_uri(uri: &str) -> Option<ClusterId> {
    uri.strip_prefix(SCHEME)?.parse().ok()
}

/// Whether a text may name a region: 1 to 63 of `a-z`, `0-9`, `-`, not starting or ending with `-`.
pub fn region_name_is_valid(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Why a certificate names no region.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not an X.509 certificate.
    #[error("the certificate cannot be read: {detail}")]
    Unreadable {
        /// What the parser said.
        detail: String,
    },
    /// None or several URIs.
    #[error(
        "the certificate must carry exactly one URI (spiffe://<cluster id>/region/<name>), it carries {seen:?}"
    )]
    NotOneUri {
        /// All URIs it carries.
        seen: Vec<String>,
    },
    /// Another form of URI.
    #[error("`{uri}` is not spiffe://<cluster id>/region/<name>")]
    Malformed {
        /// What it carries.
        uri: String,
    },
}

/// Why the other side is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It showed no certificate.
    #[error("it showed no certificate")]
    NoCertificate,
    /// Its certificate was not issued by the cluster's CA, or has expired, or the handshake is not signed by it.
    #[error("its certificate does not hold against this cluster's CA: {detail}")]
    Chain {
        /// What the verifier said.
        detail: String,
    },
    /// Its certificate names no region.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It belongs to another cluster.
    #[error("it is of cluster {seen}, expected {expected}")]
    OtherCluster {
        /// This side's cluster.
        expected: ClusterId,
        /// The cluster in its certificate.
        seen: ClusterId,
    },
    /// Its name is none of the members'.
    #[error("its certificate names region `{seen}`, members are {members:?}")]
    UnknownRegion {
        /// The name in its certificate.
        seen: String,
        /// All names known.
        members: Vec<String>,
    },
    /// Another region than the one that was dialled.
    #[error("it is region `{seen}`, expected `{expected}`")]
    WrongRegion {
        /// Who was dialled.
        expected: String,
        /// Who answered.
        seen: String,
    },
    /// It is this region itself: two nodes with one certificate, or an address that leads back.
    #[error("it is region `{name}` like this node itself")]
    OwnRegion {
        /// The name of both.
        name: String,
    },
}

/// The regions of a cluster by name: what turns a certificate into a [`RegionId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    cluster: ClusterId,
    regions: Vec<(RegionId, String)>,
}

impl Members {
    /// The members of `cluster`.
    pub fn new(cluster: ClusterId, regions: impl IntoIterator<Item = (RegionId, String)>) -> Self {
        Self { cluster, regions: regions.into_iter().collect() }
    }

    /// The cluster they form.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The name of a member.
    pub fn name(&self, region: RegionId) -> Option<&str> {
        self.regions.iter().find(|(id, _)| *id == region).map(|(_, name)| name.as_str())
    }

    /// The member that a certificate speaks for (R7).
    ///
    /// Errors: [`Refusal::OtherCluster`], [`Refusal::UnknownRegion`].
    pub fn admit(&self, name: &CertificateName) -> Result<RegionId, Refusal> {
        if name.cluster != self.cluster {
            return Err(Refusal::OtherCluster { expected: self.cluster, seen: name.cluster });
        }
        let found = self.regions.iter().find(|(_, member)| *member == name.region);
        found.map(|(id, _)| *id).ok_or_else(|| Refusal::UnknownRegion {
            seen: name.region.clone(),
            members: self.regions.iter().map(|(_, member)| member.clone()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_name_prints_and_parses_alike() {
        let name = CertificateName { cluster: ClusterId(0xab), region: "eu-west".into() };
        assert_eq!(name.to_string(), "spiffe://000000000000000000000000000000ab/region/eu-west");
        assert_eq!(CertificateName::parse(&name.to_string()), Ok(name));
    }

    #[test]
    fn other_uris_name_no_region() {
        let cluster = ClusterId(1);
        for uri in [
            String::new(),
            "https://example.org/region/a".into(),
            "spiffe://12/region/a".into(),
            format!("spiffe://{cluster}"),
            format!("spiffe://{cluster}/region/"),
            format!("spiffe://{cluster}/region/A"),
            format!("spiffe://{cluster}/region/a/b"),
            format!("spiffe://{cluster}/region/-a"),
            format!("spiffe://{cluster}/node/a"),
        ] {
            assert_eq!(CertificateName::parse(&uri), Err(NameError::Malformed { uri: uri.clone() }));
        }
    }
}
