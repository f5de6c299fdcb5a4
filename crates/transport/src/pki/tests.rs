use std::fs::{Permissions, set_permissions, write};

use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ED25519, SanType};
use tempfile::TempDir;

use super::*;
use crate::authority::{DAY_S, REGION_DAYS, params};
use crate::{Authority, Issued, create_authority};

const CLUSTER: ClusterId = ClusterId(7);

struct Files {
    dir: TempDir,
}

impl Files {
    fn new(authority: &Authority, issued: &Issued) -> Self {
        let files = Self { dir: TempDir::new().unwrap() };
        write(files.path("ca.pem"), &authority.cert_pem).unwrap();
        write(files.path("region.pem"), &issued.cert_pem).unwrap();
        write(files.path("region.key"), &issued.key_pem).unwrap();
        files.mode(0o600);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mode(&self, mode: u32) {
        set_permissions(self.path("region.key"), Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self) -> Result<Identity, PkiError> {
        Identity::load(&self.path("ca.pem"), &self.path("region.pem"), &self.path("region.key"))
    }
}

fn fresh() -> (Authority, Issued, Files) {
    let authority = create_authority(CLUSTER).unwrap();
    let issued = authority.issue_region(CLUSTER, "eu-west").unwrap();
    let files = Files::new(&authority, &issued);
    (authority, issued, files)
}

/// A certificate of this CA with dates and names at will.
fn odd(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Issued {
    let issuer =
        Issuer::from_ca_cert_pem(&authority.cert_pem, KeyPair::from_pem(&authority.key_pem).unwrap())
            .unwrap();
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let uri = CertificateName { cluster: CLUSTER, region: "eu-west".into() }.to_string();
    let mut params = params("odd", uri, 1).unwrap();
    change(&mut params);
    Issued { cert_pem: params.signed_by(&key, &issuer).unwrap().pem(), key_pem: key.serialize_pem() }
}

#[test]
fn an_issued_identity_loads_and_names_its_region() {
    let (authority, _, files) = fresh();
    let identity = files.load().unwrap();
    assert_eq!(identity.name(), &CertificateName { cluster: CLUSTER, region: "eu-west".into() });
    let days = (identity.not_after_unix_s() - UnixTime::now().as_secs() as i64) / DAY_S as i64;
    assert!((REGION_DAYS as i64 - 1..=REGION_DAYS as i64).contains(&days), "{days}");
    assert_eq!(authority_cluster(&authority.cert_pem), Ok(Some(CLUSTER)));
}

#[test]
fn an_authority_taken_up_again_issues_certificates_that_hold() {
    let (authority, _, _) = fresh();
    let again = Authority::from_pem(&authority.cert_pem, &authority.key_pem).unwrap();
    let issued = again.issue_region(CLUSTER, "us-east").unwrap();
    let identity = Identity::from_pem(&authority.cert_pem, &issued.cert_pem, &issued.key_pem).unwrap();
    assert_eq!(identity.name().region, "us-east");
    let foreign = create_authority(CLUSTER).unwrap();
    assert!(matches!(
        Authority::from_pem(&authority.cert_pem, &foreign.key_pem),
        Err(PkiError::KeyMismatch { .. })
    ));
}

#[test]
fn an_authority_issues_for_its_own_cluster_and_for_names_alone() {
    let (authority, _, _) = fresh();
    assert_eq!(
        authority.issue_region(ClusterId(8), "eu-west").err(),
        Some(PkiError::OtherCluster { expected: ClusterId(8), seen: CLUSTER })
    );
    assert!(matches!(authority.issue_region(CLUSTER, "EU west"), Err(PkiError::RegionName { .. })));
}

#[test]
fn a_key_that_everybody_may_read_is_refused_with_the_remedy() {
    let (_, _, files) = fresh();
    files.mode(0o644);
    let error = files.load().unwrap_err();
    assert_eq!(error, PkiError::KeyExposed { path: files.path("region.key"), mode: 0o644 });
    assert!(error.to_string().contains("chmod 600"), "{error}");
    files.mode(0o640);
    assert!(files.load().is_ok());
}

#[test]
fn a_missing_or_wrong_file_is_named() {
    let (_, issued, files) = fresh();
    write(files.path("region.pem"), "no certificate").unwrap();
    assert!(files.load().unwrap_err().to_string().contains("region.pem"));
    write(files.path("region.pem"), &issued.key_pem).unwrap();
    assert!(matches!(files.load(), Err(PkiError::Pem { expected: "certificate", .. })));
    write(files.path("region.pem"), &issued.cert_pem).unwrap();
    write(files.path("region.key"), &issued.cert_pem).unwrap();
    assert!(matches!(files.load(), Err(PkiError::Pem { expected: "private key", .. })));
    write(files.path("region.key"), vec![b'x'; PEM_BYTES_MAX as usize + 1]).unwrap();
    assert_eq!(files.load().unwrap_err(), PkiError::TooLarge { path: files.path("region.key") });
    std::fs::remove_file(files.path("ca.pem")).unwrap();
    let error = files.load().unwrap_err();
    assert!(matches!(&error, PkiError::Read { path, .. } if *path == files.path("ca.pem")), "{error}");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (authority, _, files) = fresh();
    let other = authority.issue_region(CLUSTER, "eu-west").unwrap();
    write(files.path("region.key"), &other.key_pem).unwrap();
    assert!(matches!(files.load(), Err(PkiError::KeyMismatch { .. })));
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (_, _, files) = fresh();
    write(files.path("ca.pem"), create_authority(CLUSTER).unwrap().cert_pem).unwrap();
    assert!(matches!(files.load(), Err(PkiError::NotIssued { .. })));
}

#[test]
fn an_expired_or_future_certificate_is_refused() {
    let authority = create_authority(CLUSTER).unwrap();
    let expired = odd(&authority, |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
    let error = Files::new(&authority, &expired).load().unwrap_err();
    assert!(matches!(&error, PkiError::Expired { not_after, .. } if not_after.contains("2001")), "{error}");
    let future = odd(&authority, |params| {
        params.not_before = rcgen::date_time_ymd(2999, 1, 1);
        params.not_after = rcgen::date_time_ymd(3000, 1, 1);
    });
    let error = Files::new(&authority, &future).load().unwrap_err();
    assert!(matches!(error, PkiError::NotYetValid { .. }), "{error}");
}

#[test]
fn a_certificate_without_exactly_one_uri_is_refused() {
    let authority = create_authority(CLUSTER).unwrap();
    let none = odd(&authority, |params| params.subject_alt_names.clear());
    let two = odd(&authority, |params| {
        params.subject_alt_names.push(SanType::URI("https://example.org".try_into().unwrap()));
    });
    for (issued, uris_count) in [(none, 0), (two, 2)] {
        let error = Files::new(&authority, &issued).load().unwrap_err();
        let PkiError::Name { error: NameError::NotOneUri { seen }, .. } = error else { panic!("{error}") };
        assert_eq!(seen.len(), uris_count);
    }
    let host_too = odd(&authority, |params| {
        params.subject_alt_names.push(SanType::DnsName("eu.example.org".try_into().unwrap()));
    });
    assert_eq!(Files::new(&authority, &host_too).load().unwrap().name().region, "eu-west");
}

#[test]
fn secrets_are_not_printed() {
    let (authority, issued, files) = fresh();
    let printed = format!("{authority:?}{issued:?}{:?}", files.load().unwrap());
    assert!(!printed.contains("PRIVATE"), "{printed}");
}
