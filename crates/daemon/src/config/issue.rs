//! The certificates of a cluster: makes its CA, and issues those of regions that lack one.
//!
//! It never replaces a CA: what it issued would be worthless. Start at [`issue_missing`].

use std::path::Path;

use tombolo_causality::ClusterId;
use tombolo_transport::{Authority, PkiError, authority_cluster, create_authority};

use super::cluster_file::{ClusterFile, PkiPaths};
use super::init::{InitError, Writer};

/// Where the CA stands unless `cluster.toml` says otherwise.
const AUTHORITY_DEFAULT: &str = "pki/ca.pem";

/// The cluster that the CA in a directory without `cluster.toml` speaks for.
pub(super) fn cluster_of_authority(dir: &Path) -> Result<Option<ClusterId>, InitError> {
    let path = dir.join(AUTHORITY_DEFAULT);
    if !path.exists() {
        return Ok(None);
    }
    Ok(authority_cluster(&read(&path)?)?)
}

/// Makes the CA if there is none, and a certificate with its key for each region that has not both.
pub(super) fn issue_missing(
    id: ClusterId,
    cluster: &ClusterFile,
    files: &mut Writer,
) -> Result<(), InitError> {
    let pki = &cluster.pki;
    let names: Vec<&str> = cluster.regions.iter().map(|region| region.name.value.as_str()).collect();
    let has_certificate = files.keep(&pki.authority);
    // The CA's key may be kept elsewhere as long as nothing is to be issued.
    let has_key = files.keep(&pki.authority_key);
    if has_certificate
        && let Some(seen) = authority_cluster(&read(&files.dir.join(&pki.authority))?)?
        && seen != id
    {
        return Err(PkiError::OtherCluster { expected: id, seen }.into());
    }
    if !has_certificate {
        make_authority(id, pki, &names, has_key, files)?;
    }
    let mut authority = None;
    for name in names {
        let (certificate, key) = (pki.certificate(name), pki.key(name));
        if files.exists(&certificate) && files.exists(&key) {
            files.keep(&certificate);
            files.keep(&key);
            continue;
        }
        let authority = match &authority {
            Some(authority) => authority,
            None => authority.insert(open_authority(pki, &certificate, files)?),
        };
        let issued = authority.issue_region(id, name)?;
        for half in [&certificate, &key] {
            if files.exists(half) {
                files.set_aside(half)?;
            }
        }
        files.write(&key, 0o600, &issued.key_pem)?;
        files.write(&certificate, 0o644, &issued.cert_pem)?;
    }
    Ok(())
}

fn make_authority(
    id: ClusterId,
    pki: &PkiPaths,
    names: &[&str],
    has_key: bool,
    files: &mut Writer,
) -> Result<(), InitError> {
    let issued = names.iter().map(|name| pki.certificate(name)).find(|file| files.exists(file));
    if let Some(present) = issued.or_else(|| has_key.then(|| pki.authority_key.clone())) {
        return Err(InitError::HalfAuthority {
            present: present.display().to_string(),
            missing: pki.authority.display().to_string(),
        });
    }
    let authority = create_authority(id)?;
    files.write(&pki.authority_key, 0o600, &authority.key_pem)?;
    files.write(&pki.authority, 0o644, &authority.cert_pem)
}

fn open_authority(pki: &PkiPaths, wanted: &Path, files: &Writer) -> Result<Authority, InitError> {
    if !files.exists(&pki.authority_key) {
        return Err(InitError::NoAuthorityKey {
            wanted: wanted.display().to_string(),
            missing: pki.authority_key.display().to_string(),
        });
    }
    let certificate = read(&files.dir.join(&pki.authority))?;
    let key = read(&files.dir.join(&pki.authority_key))?;
    Ok(Authority::from_pem(&certificate, &key)?)
}

fn read(path: &Path) -> Result<String, InitError> {
    std::fs::read_to_string(path).map_err(|source| InitError::File { path: path.to_owned(), source })
}
