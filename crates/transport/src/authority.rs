//! The cluster's own CA and the certificates it issues: made by `init`, Ed25519 throughout.
//!
//! It never writes a file. Start at [`create_authority`].

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType,
};
use tombolo_causality::ClusterId;

use crate::identity::authority_uri;
use crate::pki::{authority_cluster, certificates, certified, private_key};
use crate::{CertificateName, PkiError, region_name_is_valid};

pub(crate) const DAY_S: u64 = 24 * 60 * 60;
/// A cluster outlives its machines; its CA is replaced by hand.
const AUTHORITY_DAYS: u64 = 10 * 365;
/// Long enough to survive a forgotten year, short enough that renewal is practised.
pub(crate) const REGION_DAYS: u64 = 2 * 365;
/// Certificates hold from an hour ago: the regions' clocks differ, and the first handshake follows at once.
const BACKDATED_S: u64 = 60 * 60;

/// A cluster's CA with its key.
#[derive(Clone)]
pub struct Authority {
    /// The certificate, for every node and client.
    pub cert_pem: String,
    /// The secret key, for whoever issues certificates.
    pub key_pem: String,
}

/// A certificate and its key, as issued.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its secret key.
    pub key_pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// Makes the CA of a cluster; it holds for ten years.
///
/// Errors: [`PkiError::Make`].
pub fn create_authority(cluster: ClusterId) -> Result<Authority, PkiError> {
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(make)?;
    let mut params = params(&format!("Tombolo cluster {cluster}"), authority_uri(cluster), AUTHORITY_DAYS)?;
    // It signs regions and nothing else that signs.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(make)?;
    Ok(Authority { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

impl Authority {
    /// Takes up a CA made earlier.
    ///
    /// Errors: [`PkiError::Pem`], [`PkiError::KeyMismatch`].
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let certificates = certificates("the CA certificate", cert_pem.as_bytes())?;
        let key = private_key("the CA key", key_pem.as_bytes())?;
        certified(certificates, key, "the CA certificate", "the CA key")?;
        Ok(Self { cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned() })
    }

    /// Issues the certificate of a region; it holds for two years, for both ends of a link and for the client door.
    ///
    /// Errors: [`PkiError::RegionName`], [`PkiError::OtherCluster`], [`PkiError::Make`].
    pub fn issue_region(&self, cluster: ClusterId, name: &str) -> Result<Issued, PkiError> {
        if !region_name_is_valid(name) {
            return Err(PkiError::RegionName { name: name.chars().take(100).collect() });
        }
        if let Some(seen) = authority_cluster(&self.cert_pem)?
            && seen != cluster
        {
            return Err(PkiError::OtherCluster { expected: cluster, seen });
        }
        self.issue(name, CertificateName { cluster, region: name.to_owned() }.to_string())
    }

    fn issue(&self, common_name: &str, uri: String) -> Result<Issued, PkiError> {
        let authority_key = KeyPair::from_pem(&self.key_pem).map_err(make)?;
        let issuer = Issuer::from_ca_cert_pem(&self.cert_pem, authority_key).map_err(make)?;
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(make)?;
        let mut params = params(common_name, uri, REGION_DAYS)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer).map_err(make)?;
        Ok(Issued { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

pub(crate) fn params(common_name: &str, uri: String, days: u64) -> Result<CertificateParams, PkiError> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(now_s.saturating_sub(BACKDATED_S));
    params.not_after = epoch + Duration::from_secs(now_s + days * DAY_S);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(make)?)];
    Ok(params)
}

fn make(error: rcgen::Error) -> PkiError {
    PkiError::Make { detail: error.to_string() }
}
