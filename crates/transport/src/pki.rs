//! What a node shows and checks others against: its certificate, its key, the cluster's CA, loaded from files.
//!
//! It makes no certificates (`authority.rs` does) and writes no file. Start at [`Identity::load`].

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::hmac;
use rustls::RootCertStore;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tombolo_causality::ClusterId;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::parse_authority_uri;
use crate::tls::provider;
use crate::{CertificateName, NameError};

/// No PEM file of ours is near this.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// Why certificates cannot be made, loaded or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// A file that cannot be read.
    #[error("cannot read {}: {detail}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// A key that everybody on the machine may read.
    #[error("{} can be read by everybody (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file far larger than any certificate.
    #[error("{} has more than {PEM_BYTES_MAX} bytes, it is no PEM file of a certificate or key", path.display())]
    TooLarge {
        /// Which one.
        path: PathBuf,
    },
    /// Not the PEM that was expected.
    #[error("{what} holds no usable PEM {expected}: {detail}")]
    Pem {
        /// The file, or what the text was given as.
        what: String,
        /// "certificate" or "private key".
        expected: &'static str,
        /// What the parser said.
        detail: String,
    },
    /// A certificate that names no region.
    #[error("{what}: {error}")]
    Name {
        /// The file.
        what: String,
        /// What is wrong.
        error: NameError,
    },
    /// Past its end.
    #[error("{what} has expired on {not_after}")]
    Expired {
        /// The file.
        what: String,
        /// Its end.
        not_after: String,
    },
    /// Before its beginning; usually this machine's clock is wrong.
    #[error("{what} holds only from {not_before} on; is the clock right?")]
    NotYetValid {
        /// The file.
        what: String,
        /// Its beginning.
        not_before: String,
    },
    /// The key belongs to another certificate.
    #[error("the key in {key} does not belong to the certificate in {certificate}")]
    KeyMismatch {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
    },
    /// The certificate was issued by another CA.
    #[error("{certificate} was not issued by the CA in {authority}: {detail}")]
    NotIssued {
        /// The certificate's file.
        certificate: String,
        /// The CA's file.
        authority: String,
        /// What the verifier said.
        detail: String,
    },
    /// The CA is of another cluster than what was asked for.
    #[error("the CA is of cluster {seen}, expected {expected}")]
    OtherCluster {
        /// What was asked for.
        expected: ClusterId,
        /// What the CA says.
        seen: ClusterId,
    },
    /// A text that cannot name a region.
    #[error("`{name}` cannot name a region: 1 to 63 of a-z, 0-9 and -, not - at the ends")]
    RegionName {
        /// The text.
        name: String,
    },
    /// The system gave no key or no signature.
    #[error("cannot make a certificate: {detail}")]
    Make {
        /// What the library said.
        detail: String,
    },
}

/// A region's certificate, its key and the CA it is checked against: all a node needs to speak and to listen.
#[derive(Clone)]
pub struct Identity {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) roots: Arc<RootCertStore>,
    name: CertificateName,
    not_after_unix_s: i64,
    derivation: hmac::Key,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("name", &self.name.to_string()).finish_non_exhaustive()
    }
}

impl Identity {
    /// Loads the three PEM files of a region and checks that they fit together and hold today.
    ///
    /// Errors: one [`PkiError`] per thing that can be wrong, naming the file and, where there is one, the remedy.
    pub fn load(ca_path: &Path, cert_path: &Path, key_path: &Path) -> Result<Self, PkiError> {
        let ca = read(ca_path, Secrecy::Public)?;
        let cert = read(cert_path, Secrecy::Public)?;
        let key = read(key_path, Secrecy::Secret)?;
        let what = [ca_path, cert_path, key_path].map(|path| path.display().to_string());
        Self::assemble(&ca, &cert, &key, &what)
    }

    /// The same from PEM texts.
    ///
    /// Errors: as [`Identity::load`], but for files.
    pub fn from_pem(ca_pem: &str, cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let what = ["the CA certificate", "the region's certificate", "the region's key"].map(String::from);
        Self::assemble(ca_pem.as_bytes(), cert_pem.as_bytes(), key_pem.as_bytes(), &what)
    }

    fn assemble(ca: &[u8], cert: &[u8], key: &[u8], what: &[String; 3]) -> Result<Self, PkiError> {
        let [ca_name, cert_name, key_name] = what;
        let authorities = certificates(ca_name, ca)?;
        for authority in &authorities {
            check_dates(ca_name, authority)?;
        }
        let chain = certificates(cert_name, cert)?;
        let not_after_unix_s = check_dates(cert_name, &chain[0])?;
        let name =
            certificate_name(&chain[0]).map_err(|error| PkiError::Name { what: cert_name.clone(), error })?;
        let key = private_key(key_name, key)?;
        let derivation = hmac::Key::new(hmac::HMAC_SHA256, key.secret_der());
        let certified = certified(chain, key, cert_name, key_name)?;
        let roots = roots(ca_name, authorities)?;
        check_chain(&certified.cert, &roots).map_err(|error| PkiError::NotIssued {
            certificate: cert_name.clone(),
            authority: ca_name.clone(),
            detail: error.to_string(),
        })?;
        Ok(Self {
            certified: Arc::new(certified),
            roots: Arc::new(roots),
            name,
            not_after_unix_s,
            derivation,
        })
    }

    /// A key for one purpose: known to nobody without the private key, and the same after every start with it.
    pub(crate) fn derived_key(&self, purpose: &[u8]) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.derivation, purpose).as_ref())
    }

    /// Whom the certificate speaks for.
    pub fn name(&self) -> &CertificateName {
        &self.name
    }

    /// When the certificate expires, in seconds since 1970.
    pub fn not_after_unix_s(&self) -> i64 {
        self.not_after_unix_s
    }
}

/// Cluster and region of a certificate in DER.
///
/// Errors: [`NameError`]; the chain is not checked here.
pub fn certificate_name(certificate: &CertificateDer<'_>) -> Result<CertificateName, NameError> {
    let mut uris = uris(certificate)?;
    match (uris.pop(), uris.is_empty()) {
        (Some(uri), true) => CertificateName::parse(&uri),
        (last, _) => {
            uris.extend(last);
            Err(NameError::NotOneUri { seen: uris })
        }
    }
}

/// The cluster that a CA made by [`crate::create_authority`] names; `None` for a CA made elsewhere.
///
/// Errors: [`PkiError::Pem`].
pub fn authority_cluster(ca_pem: &str) -> Result<Option<ClusterId>, PkiError> {
    let what = "the CA certificate";
    let certificates = certificates(what, ca_pem.as_bytes())?;
    let uris = uris(&certificates[0]).map_err(|error| PkiError::Name { what: what.into(), error })?;
    Ok(uris.iter().find_map(|uri| parse_authority_uri(uri)))
}

fn uris(certificate: &CertificateDer<'_>) -> Result<Vec<String>, NameError> {
    let unreadable = |detail: String| NameError::Unreadable { detail };
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| unreadable(e.to_string()))?;
    let names = parsed.subject_alternative_name().map_err(|e| unreadable(e.to_string()))?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some(uri.chars().take(200).collect()),
        _ => None,
    };
    // A certificate with a thousand names must not become a log line with a thousand names.
    Ok(names.iter().filter_map(uri).take(8).collect())
}

enum Secrecy {
    Public,
    Secret,
}

fn read(path: &Path, secrecy: Secrecy) -> Result<Vec<u8>, PkiError> {
    let failed = |e: std::io::Error| PkiError::Read { path: path.to_owned(), detail: e.to_string() };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if matches!(secrecy, Secrecy::Secret) && mode & 0o007 != 0 {
        return Err(PkiError::KeyExposed { path: path.to_owned(), mode: mode & 0o7777 });
    }
    let mut bytes = Vec::new();
    file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(PkiError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

pub(crate) fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let wrong = |detail: String| PkiError::Pem { what: what.to_owned(), expected: "certificate", detail };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|e| wrong(e.to_string()))?;
    if found.is_empty() {
        return Err(wrong("no certificate inside".into()));
    }
    Ok(found)
}

pub(crate) fn private_key(what: &str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| PkiError::Pem {
        what: what.to_owned(),
        expected: "private key",
        detail: e.to_string(),
    })
}

pub(crate) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificate: &str,
    key_name: &str,
) -> Result<CertifiedKey, PkiError> {
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            PkiError::KeyMismatch { certificate: certificate.into(), key: key_name.into() }
        }
        other => PkiError::Pem { what: key_name.into(), expected: "private key", detail: other.to_string() },
    })
}

pub(crate) fn roots(
    what: &str,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|e| PkiError::Pem {
            what: what.to_owned(),
            expected: "certificate",
            detail: e.to_string(),
        })?;
    }
    Ok(roots)
}

fn check_chain(chain: &[CertificateDer<'_>], roots: &RootCertStore) -> Result<(), rustls::Error> {
    let parsed = ParsedCertificate::try_from(&chain[0])?;
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &parsed,
        roots,
        &chain[1..],
        UnixTime::now(),
        provider().signature_verification_algorithms.all,
    )
}

/// Gives the end of the certificate, in seconds since 1970.
fn check_dates(what: &str, certificate: &CertificateDer<'_>) -> Result<i64, PkiError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| PkiError::Pem {
        what: what.to_owned(),
        expected: "certificate",
        detail: e.to_string(),
    })?;
    let now_s = UnixTime::now().as_secs() as i64;
    let validity = parsed.validity();
    if now_s > validity.not_after.timestamp() {
        return Err(PkiError::Expired { what: what.into(), not_after: validity.not_after.to_string() });
    }
    if now_s < validity.not_before.timestamp() {
        return Err(PkiError::NotYetValid { what: what.into(), not_before: validity.not_before.to_string() });
    }
    Ok(validity.not_after.timestamp())
}

#[cfg(test)]
mod tests;
