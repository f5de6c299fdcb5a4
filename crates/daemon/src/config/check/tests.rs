use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use insta::assert_snapshot;

use super::check_at;
use crate::config::{ConfigError, InitOptions, check, init};

fn cluster(regions: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let regions = regions.iter().map(|name| (*name).to_owned()).collect();
    init(InitOptions { dir: dir.path().to_owned(), regions, base_port: 7400, shards: None, dev: true })
        .unwrap();
    dir
}

fn text(dir: &Path, errors: &[ConfigError]) -> String {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n").replace(dir.to_str().unwrap(), "DIR")
}

fn copy(dir: &Path, from: &str, to: &str) {
    fs::copy(dir.join(from), dir.join(to)).unwrap();
}

#[test]
fn a_certificate_is_warned_about_a_month_before_it_expires() {
    let dir = cluster(&["a"]);
    let now = SystemTime::now();
    let days = |days: u64| now + Duration::from_secs(days * 86_400);
    assert_eq!(check_at(dir.path(), days(699)).unwrap().warnings, []);
    let warnings = check_at(dir.path(), days(709)).unwrap().warnings;
    assert_snapshot!(text(dir.path(), &warnings), @r#"pki/a.pem:1:1: the certificate of region `a` expires in 20 days; remove it and its key and run `tombolo init`, then send SIGHUP to the region"#);
}

#[test]
fn a_certificate_of_another_region_or_cluster_is_an_error() {
    let dir = cluster(&["a", "b"]);
    copy(dir.path(), "pki/a.pem", "pki/b.pem");
    copy(dir.path(), "pki/a.key", "pki/b.key");
    assert_snapshot!(text(dir.path(), &check(dir.path()).unwrap_err()), @r#"pki/b.pem:1:1: the certificate is that of region `a`, not of `b`"#);
    let other = cluster(&["a", "b"]);
    for file in ["ca.pem", "a.pem", "a.key", "b.pem", "b.key"] {
        fs::copy(other.path().join("pki").join(file), dir.path().join("pki").join(file)).unwrap();
    }
    let errors = check(dir.path()).unwrap_err();
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| error.message.starts_with("the certificate is of cluster ")));
}

#[test]
fn a_certificate_that_does_not_fit_its_key_or_its_authority_is_an_error() {
    let dir = cluster(&["a", "b"]);
    copy(dir.path(), "pki/a.key", "pki/b.key");
    fs::write(dir.path().join("pki/a.pem"), "nothing").unwrap();
    assert_snapshot!(text(dir.path(), &check(dir.path()).unwrap_err()), @r#"
    pki/a.pem:1:1: DIR/pki/a.pem holds no usable PEM certificate: no certificate inside
    pki/b.pem:1:1: the key in DIR/pki/b.key does not belong to the certificate in DIR/pki/b.pem
    "#);
}

#[test]
fn a_missing_certificate_is_an_error_and_a_key_of_another_machine_a_warning() {
    let dir = cluster(&["a", "b"]);
    fs::remove_file(dir.path().join("pki/b.key")).unwrap();
    assert_snapshot!(text(dir.path(), &check(dir.path()).unwrap().warnings), @r#"pki/b.key:1:1: the key of region `b` does not exist; that is right unless this machine serves it"#);
    fs::remove_file(dir.path().join("pki/a.key")).unwrap();
    fs::remove_file(dir.path().join("pki/b.pem")).unwrap();
    assert_snapshot!(text(dir.path(), &check(dir.path()).unwrap_err()), @r#"
    pki/a.key:1:1: the key of region `a` does not exist; `tombolo init` makes what is missing
    pki/b.pem:1:1: the certificate of region `b` does not exist; `tombolo init` makes what is missing
    "#);
}

#[test]
fn a_region_file_that_nobody_declares_is_a_warning() {
    let dir = cluster(&["a"]);
    fs::write(dir.path().join("regions/old.toml"), "").unwrap();
    assert_snapshot!(text(dir.path(), &check(dir.path()).unwrap().warnings), @r#"regions/old.toml:1:1: region `old` is not declared; add a `[[region]]` to cluster.toml or remove the file"#);
}
