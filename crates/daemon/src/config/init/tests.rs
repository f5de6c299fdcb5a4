use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use crate::config::{Auth, ClusterConfig, FileState, InitError, InitOptions, InitReport, check, init};

fn options(dir: &Path, regions: &[&str]) -> InitOptions {
    let regions = regions.iter().map(|name| (*name).to_owned()).collect();
    InitOptions { dir: dir.to_owned(), regions, base_port: 7400, shards: None, dev: false }
}

fn with_state(report: &InitReport, state: FileState) -> Vec<PathBuf> {
    report.files.iter().filter(|(_, seen)| *seen == state).map(|(file, _)| file.clone()).collect()
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files.push((path.clone(), fs::read(path).unwrap())) }
        }
    }
    files.sort();
    files
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_init_writes_is_loaded_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let report = init(options(dir.path(), &[])).unwrap();
    assert_eq!(report.regions, ["eu-west", "us-east", "ap-south"]);
    assert!(report.files.iter().all(|(_, state)| *state == FileState::Created));
    let checked = check(dir.path()).unwrap();
    assert_eq!(checked.warnings, []);
    let config = checked.config;
    assert_eq!(config.cluster, report.cluster);
    let ids: Vec<_> = config.regions.iter().map(|region| region.id.get()).collect();
    assert_eq!(ids, [1, 2, 3]);
    let south = config.region("ap-south").unwrap();
    let ports =
        [south.listen.http, south.listen.resp, south.listen.quic, south.listen.peer].map(|at| at.port());
    assert_eq!(ports, [7420, 7421, 7422, 7423]);
    assert_eq!(south.advertise, "127.0.0.1:7423");
    assert!(config.regions.iter().all(|region| region.listen.auth == Auth::Token));
    assert_ne!(config.admin_token.expose(), config.tenants[0].token.expose());
}

#[test]
fn dev_needs_no_credentials() {
    let dir = tempfile::tempdir().unwrap();
    init(InitOptions { dev: true, ..options(dir.path(), &["a"]) }).unwrap();
    let config = check(dir.path()).unwrap().config;
    assert_eq!(config.regions[0].listen.auth, Auth::None);
    assert!(config.regions[0].listen.peer.ip().is_loopback());
}

#[test]
fn secrets_are_readable_by_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    init(options(dir.path(), &["a"])).unwrap();
    for file in ["admin.token", "default.token", "pki/seal.key", "pki/ca.key", "pki/a.key"] {
        assert_eq!(mode(&dir.path().join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&dir.path().join("pki")), 0o700);
}

#[test]
fn a_second_run_keeps_every_file_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let first = init(options(dir.path(), &["a", "b"])).unwrap();
    let before = contents(dir.path());
    for again in [&["b", "a"][..], &[]] {
        let second = init(InitOptions { dev: true, base_port: 9000, ..options(dir.path(), again) }).unwrap();
        assert_eq!(second.cluster, first.cluster);
        assert_eq!(with_state(&second, FileState::Kept).len(), first.files.len());
        assert_eq!(second.files.len(), first.files.len());
    }
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn the_number_of_shards_is_chosen_once() {
    let dir = tempfile::tempdir().unwrap();
    let with = |shards| InitOptions { shards, ..options(dir.path(), &["a"]) };
    for shards in [0, 1025] {
        let error = init(with(Some(shards))).unwrap_err();
        assert!(matches!(error, InitError::Shards(seen) if seen == shards), "{error}");
    }
    assert!(contents(dir.path()).is_empty());
    init(with(Some(1024))).unwrap();
    assert_eq!(check(dir.path()).unwrap().config.shards, 1024);
    let before = contents(dir.path());
    for same in [None, Some(1024)] {
        init(with(same)).unwrap();
    }
    assert_snapshot!(init(with(Some(16))).unwrap_err(), @"cluster.toml has shards = 1024, not 16; the number is fixed for the life of the cluster, because it decides which log each key is in; leave --shards out to keep it");
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn a_lost_certificate_is_issued_again_by_the_same_authority() {
    let dir = tempfile::tempdir().unwrap();
    init(options(dir.path(), &["a", "b"])).unwrap();
    let authority = fs::read(dir.path().join("pki/ca.pem")).unwrap();
    let key = fs::read(dir.path().join("pki/a.key")).unwrap();
    fs::remove_file(dir.path().join("pki/a.pem")).unwrap();
    assert!(check(dir.path()).is_err());
    let report = init(options(dir.path(), &[])).unwrap();
    assert_eq!(with_state(&report, FileState::Created), [Path::new("pki/a.key"), Path::new("pki/a.pem")]);
    assert_eq!(with_state(&report, FileState::SetAside), [Path::new("pki/a.key.old")]);
    assert_eq!(fs::read(dir.path().join("pki/ca.pem")).unwrap(), authority);
    assert_eq!(fs::read(dir.path().join("pki/a.key.old")).unwrap(), key);
    assert_eq!(check(dir.path()).unwrap().warnings, []);
}

#[test]
fn a_lost_cluster_file_comes_back_with_the_id_of_its_authority() {
    let dir = tempfile::tempdir().unwrap();
    let first = init(options(dir.path(), &["a", "b"])).unwrap();
    fs::remove_file(dir.path().join("cluster.toml")).unwrap();
    let second = init(options(dir.path(), &[])).unwrap();
    assert_eq!((second.cluster, &second.regions), (first.cluster, &first.regions));
    assert_eq!(with_state(&second, FileState::Created), [Path::new("cluster.toml")]);
    assert!(check(dir.path()).is_ok());
}

#[test]
fn a_lost_region_file_comes_back_with_its_id_and_ports() {
    let dir = tempfile::tempdir().unwrap();
    init(options(dir.path(), &["a", "b", "c"])).unwrap();
    let before = contents(dir.path());
    fs::remove_file(dir.path().join("regions/b.toml")).unwrap();
    init(options(dir.path(), &[])).unwrap();
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn a_region_added_by_hand_gets_a_free_id_free_ports_and_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    init(options(dir.path(), &["a", "b", "c"])).unwrap();
    let file = dir.path().join("cluster.toml");
    // In the first place, whose id and ports are those of `a`.
    let text =
        fs::read_to_string(&file).unwrap().replace("name = \"a\"", "name = \"d\"\n[[region]]\nname = \"a\"");
    fs::write(&file, text).unwrap();
    init(options(dir.path(), &[])).unwrap();
    let config = check(dir.path()).unwrap().config;
    let added = config.region("d").unwrap();
    assert_eq!((added.id.get(), added.listen.http.port()), (4, 7430));
}

#[test]
fn other_regions_than_those_declared_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    init(options(dir.path(), &["a", "b"])).unwrap();
    let before = contents(dir.path());
    let error = init(options(dir.path(), &["a", "c"])).unwrap_err();
    assert_snapshot!(error, @r#"cluster.toml declares `a`, `b`, not `a`, `c`; leave --regions out to fill in what is missing, and add a region by a [[region]] in cluster.toml"#);
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn what_cannot_be_made_is_refused_before_any_file() {
    let dir = tempfile::tempdir().unwrap();
    let refuse = |regions: &[&str], base_port| {
        let error = init(InitOptions { base_port, ..options(dir.path(), regions) }).unwrap_err();
        assert_eq!(contents(dir.path()), []);
        error.to_string()
    };
    assert_snapshot!(refuse(&["EU"], 7400), @r#"`EU` cannot name a region: a name is 1 to 32 of a-z, 0-9 and -, a letter first, no - at the end"#);
    assert_snapshot!(refuse(&["seal"], 7400), @r#"`seal` cannot name a region: pki/seal.* belongs to the cluster"#);
    assert_snapshot!(refuse(&["a", "a"], 7400), @r#"region `a` is named twice"#);
    assert_snapshot!(refuse(&["a", "b"], 65_530), @r#"no room for 2 region(s) from port 65530 on: ports step by 10 up to 65535, ids end at 1023"#);
    assert_snapshot!(refuse(&["a"], 0), @r#"no room for 1 region(s) from port 0 on: ports step by 10 up to 65535, ids end at 1023"#);
    for name in ["", "1a", "a-", "a_b", "a/b", "../a", &"a".repeat(33)] {
        assert!(matches!(init(options(dir.path(), &[name])), Err(InitError::Name(_))), "{name}");
    }
}

#[test]
fn a_lost_authority_is_not_replaced_behind_the_back_of_what_it_issued() {
    let dir = tempfile::tempdir().unwrap();
    init(options(dir.path(), &["a"])).unwrap();
    fs::rename(dir.path().join("pki/ca.pem"), dir.path().join("pki/lost.pem")).unwrap();
    assert_snapshot!(init(options(dir.path(), &[])).unwrap_err(), @r#"pki/ca.pem is missing while pki/a.pem is there: put it back, or, to begin with a new CA, delete pki/a.pem and all certificates of regions"#);
    fs::rename(dir.path().join("pki/lost.pem"), dir.path().join("pki/ca.pem")).unwrap();
    fs::remove_file(dir.path().join("pki/ca.key")).unwrap();
    // Nothing is to be issued: the key may be in a safe.
    assert!(init(options(dir.path(), &[])).is_ok());
    fs::remove_file(dir.path().join("pki/a.pem")).unwrap();
    assert_snapshot!(init(options(dir.path(), &[])).unwrap_err(), @r#"pki/a.pem cannot be issued: the CA's key pki/ca.key is not on this machine"#);
}

#[test]
fn files_that_are_wrong_are_reported_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    init(options(dir.path(), &["a"])).unwrap();
    fs::write(dir.path().join("regions/a.toml"), "id = 0\n").unwrap();
    let before = contents(dir.path());
    assert_snapshot!(init(options(dir.path(), &[])).unwrap_err(), @r#"
    regions/a.toml:1:1: `advertise` is missing; it takes HOST:PORT
    regions/a.toml:1:1: section `[listen]` is missing; it holds `http`, `resp`, `quic`, `peer`, `auth`
    regions/a.toml:1:6: `id` is 0, outside 1..=1023
    "#);
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn the_texts_say_what_an_operator_asks_first() {
    let dir = tempfile::tempdir().unwrap();
    let report = init(options(dir.path(), &["eu-west"])).unwrap();
    let text = fs::read_to_string(dir.path().join("cluster.toml")).unwrap();
    assert_snapshot!(text.replace(&report.cluster.to_string(), &"0".repeat(32)), @r#"
    # A Tombolo cluster. `tombolo config explain` lists every key, `tombolo check` checks all files.

    cluster = "00000000000000000000000000000000"  # random, for ever: in every certificate and log
    shards = 16      # partitions of the keys, fixed for the life of the cluster
    revision = 1     # raise it with every change of the regions and signals below

    # Each region has its own file, regions/<name>.toml.
    [[region]]
    name = "eu-west"

    # What keys are, by name; the first match wins. Keys that match nothing become what their first write makes them.
    # [[counter]]
    # match = "views:*"
    #
    # [[register]]
    # match = "profile:*"

    [[tenant]]
    name = "default"
    id = 1
    token = "file:default.token"    # file:PATH or env:NAME, never the token itself

    [secrets]
    seal_key = "file:pki/seal.key"  # the same on all machines
    admin_token = "file:admin.token"
    "#);
    assert_snapshot!(fs::read_to_string(dir.path().join("regions/eu-west.toml")).unwrap(), @r#"
    # Region eu-west. `tombolo config explain` lists every key with its default.

    id = 1                          # 1..=1023, for ever; never that of a removed region
    advertise = "127.0.0.1:7403"    # where peers reach it (UDP); set it to this machine's name

    [listen]
    # 127.0.0.1 serves this machine only; 0.0.0.0 serves all its networks.
    http = "127.0.0.1:7400"
    resp = "127.0.0.1:7401"
    quic = "127.0.0.1:7402"         # SDK
    peer = "127.0.0.1:7403"         # other regions, mTLS
    auth = "token"                  # "none" is allowed on loopback only

    [storage]
    dir = "data/eu-west"
    "#);
    assert_snapshot!(report.next_commands(Path::new("cluster")).join("\n"), @r#"
    tombolo check --cluster cluster
    tombolo serve --cluster cluster --region eu-west
    "#);
    assert!(ClusterConfig::load(dir.path()).is_ok());
}
