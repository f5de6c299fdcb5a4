use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use insta::assert_snapshot;
use tombolo_codec::Kind;

use crate::config::{Auth, ClusterConfig, ConfigError, Durability, InitOptions, init};

const CLUSTER: &str = r#"cluster = "00112233445566778899aabbccddeeff"
[[region]]
name = "eu-west"
[[region]]
name = "us-east"
[[tenant]]
name = "default"
id = 1
token = "file:default.token"
"#;

const EU_WEST: &str = r#"id = 1
advertise = "127.0.0.1:7403"
[listen]
http = "127.0.0.1:7400"
resp = "127.0.0.1:7401"
quic = "127.0.0.1:7402"
peer = "127.0.0.1:7403"
[storage]
dir = "data/eu-west"
"#;

const US_EAST: &str = r#"id = 2
advertise = "127.0.0.1:7413"
[listen]
http = "127.0.0.1:7410"
resp = "127.0.0.1:7411"
quic = "127.0.0.1:7412"
peer = "127.0.0.1:7413"
[storage]
dir = "data/us-east"
"#;

/// A cluster of two regions that is right until a test changes it.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let regions = vec!["eu-west".into(), "us-east".into()];
        init(InitOptions { dir: dir.path().to_owned(), regions, base_port: 7400, shards: None, dev: false })
            .unwrap();
        let fixture = Self(dir);
        fixture.write("cluster.toml", CLUSTER);
        fixture.write("regions/eu-west.toml", EU_WEST);
        fixture.write("regions/us-east.toml", US_EAST);
        fixture
    }

    fn with(self, file: &str, from: &str, to: &str) -> Self {
        let text = fs::read_to_string(self.path().join(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        self.write(file, &text.replacen(from, to, 1));
        self
    }

    fn with_end(self, file: &str, end: &str) -> Self {
        let text = fs::read_to_string(self.path().join(file)).unwrap();
        self.write(file, &format!("{text}{end}"));
        self
    }

    fn eu(self, from: &str, to: &str) -> Self {
        self.with("regions/eu-west.toml", from, to)
    }

    fn us(self, from: &str, to: &str) -> Self {
        self.with("regions/us-east.toml", from, to)
    }

    fn cluster(self, from: &str, to: &str) -> Self {
        self.with("cluster.toml", from, to)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path().join(file), text).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn load(&self) -> Result<ClusterConfig, Vec<ConfigError>> {
        ClusterConfig::load_with(self.path(), &|_| None)
    }

    fn errors(&self) -> String {
        let errors = self.load().expect_err("the files are wrong");
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        lines.join("\n").replace(self.path().to_str().unwrap(), "DIR")
    }
}

#[test]
fn the_least_that_a_cluster_needs_is_read_with_all_defaults() {
    let fixture = Fixture::new();
    let config = fixture.load().unwrap();
    assert_eq!(config.cluster.to_string(), "00112233445566778899aabbccddeeff");
    assert_eq!((config.shards, config.revision, config.regions.len()), (16, 1, 2));
    let region = config.region("eu-west").unwrap();
    assert_eq!((region.id.get(), region.advertise.as_str()), (1, "127.0.0.1:7403"));
    assert_eq!(region.listen.quic.to_string(), "127.0.0.1:7402");
    assert_eq!(region.listen.auth, Auth::Token);
    assert_eq!(region.storage.dir, fixture.path().join("data/eu-west"));
    assert_eq!(region.storage.durability, Durability::Sync);
    assert_eq!((region.storage.flush_interval_ms, region.storage.checkpoint_interval_seconds), (5, 60));
    assert_eq!(region.storage.wal_retention_bytes, 4 << 30);
    assert_eq!((region.max_drift_ms, region.session_numbers_max, region.window_seconds), (500, 1024, 86_400));
    assert_eq!(region.key, fixture.path().join("pki/eu-west.key"));
    assert_eq!((config.tenants[0].name.as_str(), config.tenants[0].id.0), ("default", 1));
}

#[test]
fn every_optional_key_is_read_from_its_section() {
    let fixture = Fixture::new()
        .eu("[listen]", "max_drift_ms = 250\nsession_numbers_max = 64\nwindow_seconds = 3_600\n[listen]")
        .us("[listen]", "window_seconds = 0xE10\n[listen]")
        .with_end(
            "regions/eu-west.toml",
            "durability = \"interval\"\nflush_interval_ms = 20\n\
             segment_bytes = 33_554_432\nwal_retention_bytes = 1_073_741_824\ncheckpoint_interval_seconds = 0\n\
             [limits]\nconnections_max = 10\nrequest_ops_max = 11\nrequest_bytes_max = 2048\nvalue_bytes_max = 12\n\
             waiters_max = 13\nawait_ms_max = 14\n",
        );
    let config = fixture.load().unwrap();
    let region = config.region("eu-west").unwrap();
    assert_eq!((region.max_drift_ms, region.session_numbers_max, region.window_seconds), (250, 64, 3_600));
    let storage = &region.storage;
    assert_eq!((storage.durability, storage.flush_interval_ms), (Durability::Interval, 20));
    assert_eq!((storage.segment_bytes, storage.checkpoint_interval_seconds), (32 << 20, 0));
    assert_eq!(storage.wal_retention_bytes, 1 << 30);
    let limits = &region.limits;
    assert_eq!((limits.connections_max, limits.request_ops_max, limits.request_bytes_max), (10, 11, 2048));
    assert_eq!((limits.value_bytes_max, limits.waiters_max, limits.await_ms_max), (12, 13, 14));
}

#[test]
fn the_first_matching_rule_of_the_file_wins_over_both_kinds() {
    let rules = "[[register]]\nmatch = \"views:last\"\n[[counter]]\nmatch = \"views:*\"\n";
    let config = Fixture::new().with_end("cluster.toml", rules).load().unwrap();
    assert_eq!(config.schema.kind_of(b"views:last"), Some(Kind::Register));
    assert_eq!(config.schema.kind_of(b"views:1"), Some(Kind::Counter));
}

#[test]
fn unknown_keys_are_errors_with_the_nearest_valid_key() {
    let fixture = Fixture::new()
        .with_end("regions/eu-west.toml", "durabilty = \"sync\"\nmax_drift_ms = 5\ncolour = 1\n")
        .us("[storage]", "durability = \"sync\"\n[storge]")
        .cluster("token =", "tokn =");
    assert_snapshot!(fixture.errors(), @r#"
    cluster.toml:6:1: `token` is missing in section `tenant`; it takes file:PATH or env:NAME
    cluster.toml:9:1: unknown key `tokn`; did you mean `token`?
    regions/eu-west.toml:10:1: unknown key `durabilty`; did you mean `durability`?
    regions/eu-west.toml:11:1: unknown key `max_drift_ms`; `max_drift_ms` stands at the top of the file, before the first section
    regions/eu-west.toml:12:1: unknown key `colour`; valid here: `dir`, `durability`, `flush_interval_ms`, `segment_bytes`, `wal_retention_bytes`, `checkpoint_interval_seconds`
    regions/us-east.toml:8:1: unknown key `durability`; `durability` belongs into section `storage`
    regions/us-east.toml:9:2: unknown key `storge`; did you mean `storage`?
    "#);
}

#[test]
fn values_out_of_bounds_or_of_another_type_are_errors_at_the_value() {
    let fixture = Fixture::new()
        .eu("id = 1", "id = 2000")
        .us("id = 2", "id = -3")
        .eu("http = \"127.0.0.1:7400\"", "http = 7400")
        .us(
            "dir = \"data/us-east\"",
            "durability = \"asink\"\nsegment_bytes = \"64M\"\nflush_interval_ms = 0.5",
        )
        .cluster("[[region]]", "shards = 1025\nrevision = 0\nsecrets = 5\n[[region]]");
    assert_snapshot!(fixture.errors(), @r#"
    cluster.toml:2:10: `shards` is 1025, outside 1..=1024
    cluster.toml:3:12: `revision` is 0, outside 1..=9223372036854775807
    cluster.toml:4:11: `secrets` must be a section `[secrets]`, not an integer
    regions/eu-west.toml:1:6: `id` is 2000, outside 1..=1023
    regions/eu-west.toml:4:8: `http` must be a string, not an integer
    regions/us-east.toml:1:6: `id` is -3, outside 1..=1023
    regions/us-east.toml:9:14: `durability` cannot be `asink`; it is one of `sync`, `interval`, `async`
    regions/us-east.toml:10:17: `segment_bytes` must be an integer, not a string
    regions/us-east.toml:11:21: `flush_interval_ms` must be an integer, not a float
    "#);
}

#[test]
fn missing_keys_and_sections_are_named() {
    let fixture = Fixture::new().eu("id = 1\n", "").us("resp = \"127.0.0.1:7411\"\n", "");
    fixture.write("cluster.toml", &CLUSTER.replace("cluster = ", "# ").replace("id = 1\n", ""));
    assert_snapshot!(fixture.errors(), @r#"
    cluster.toml:1:1: `cluster` is missing; it takes 32 hex digits
    cluster.toml:6:1: `id` is missing in section `tenant`; it takes 1..=4294967295
    regions/eu-west.toml:1:1: `id` is missing; it takes 1..=1023
    regions/us-east.toml:3:1: `resp` is missing in section `listen`; it takes IP:PORT
    "#);
    fixture.write("regions/eu-west.toml", "id = 1\nadvertise = \"a:1\"\n");
    fixture.write("regions/us-east.toml", US_EAST);
    fixture.write("cluster.toml", "cluster = \"xyz\"\n");
    assert_snapshot!(fixture.errors(), @r#"
    cluster.toml:1:1: there must be at least one `[[region]]`
    cluster.toml:1:11: `cluster` must be 32 hexadecimal digits
    "#);
}

#[test]
fn text_that_is_not_toml_is_one_error_per_line() {
    let fixture = Fixture::new().eu("id = 1", "id = = 1").us("[listen]", "[listen");
    assert_snapshot!(fixture.errors(), @r#"
    regions/eu-west.toml:1:6: extra `=`, expected nothing
    regions/us-east.toml:3:8: unclosed table, expected `]`
    "#);
}

#[test]
fn a_directory_without_files_says_what_makes_them() {
    let dir = tempfile::tempdir().unwrap();
    let errors = ClusterConfig::load(dir.path()).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_snapshot!(errors[0].to_string().replace(dir.path().to_str().unwrap(), "DIR"), @r#"cluster.toml:1:1: the file does not exist; `tombolo init --dir DIR` makes a cluster"#);
}

#[test]
fn a_region_without_a_file_is_an_error_at_its_declaration() {
    let fixture = Fixture::new();
    fs::rename(fixture.path().join("regions/us-east.toml"), fixture.path().join("regions/us-eats.toml"))
        .unwrap();
    fs::remove_file(fixture.path().join("regions/eu-west.toml")).unwrap();
    assert_snapshot!(fixture.errors(), @r#"
    cluster.toml:3:8: region `eu-west` has no file, regions/eu-west.toml does not exist; `tombolo init` makes what is missing
    cluster.toml:5:8: region `us-east` has no file, regions/us-east.toml does not exist; did you mean `us-eats`? It has a file and is not declared
    "#);
}

#[test]
fn names_that_cannot_be_used_and_names_used_twice_are_errors() {
    let fixture = Fixture::new().with_end(
        "cluster.toml",
        "[[region]]\nname = \"EU_West\"\n[[region]]\nname = \"eu-west\"\n[[region]]\nname = \"ca\"\n\
         [[tenant]]\nname = \"default\"\nid = 1\ntoken = \"file:admin.token\"\n\
         [[counter]]\nmatch = \"a*b\"\n",
    );
    assert_snapshot!(fixture.errors(), @r#"
    cluster.toml:11:8: `EU_West` cannot name a region; a name is 1 to 32 of a-z, 0-9 and -, a letter first, no - at the end
    cluster.toml:13:8: region `eu-west` stands on line 3 already
    cluster.toml:15:8: `ca` cannot name a region: pki/ca.* belongs to the cluster
    cluster.toml:17:8: tenant `default` stands on line 7 already
    cluster.toml:18:6: id 1 is tenant `default`'s already
    cluster.toml:19:9: tenant `default` has the same token as the admin
    cluster.toml:21:9: pattern `a*b`: only one `*`, at the end, is allowed
    "#);
}

#[test]
fn ids_names_and_directories_belong_to_one_region() {
    let fixture = Fixture::new()
        .us("id = 2", "id = 1\nname = \"us-west\"")
        .us("dir = \"data/us-east\"", "dir = \"./data/x/../eu-west\"")
        .us("advertise = \"127.0.0.1:7413\"", "advertise = \"127.0.0.1:7403\"")
        .cluster("name = \"eu-west\"", "name = \"eu-west\"\nid = 7");
    assert_snapshot!(fixture.errors(), @r#"
    cluster.toml:4:6: `id` is 7 here and 1 in regions/eu-west.toml; the id in the region's file is the one that counts
    regions/us-east.toml:1:6: id 1 is region `eu-west`'s already; an id belongs to one region for ever
    regions/us-east.toml:2:8: this is the file of region `us-east`, `name` says `us-west`; a region is named by its file; drop the key or rename the file
    regions/us-east.toml:3:13: region `eu-west` is reached at 127.0.0.1:7403 already
    regions/us-east.toml:10:7: `./data/x/../eu-west` is region `eu-west`'s directory already
    "#);
}

#[test]
fn two_doors_on_one_port_are_an_error_within_a_region_and_on_one_host() {
    let fixture = Fixture::new()
        .eu("resp = \"127.0.0.1:7401\"", "resp = \"0.0.0.0:7400\"")
        .us("quic = \"127.0.0.1:7412\"", "quic = \"127.0.0.1:7402\"");
    assert_snapshot!(fixture.errors(), @r#"
    regions/eu-west.toml:5:8: `resp` cannot listen on 0.0.0.0:7400, `http` does
    regions/us-east.toml:6:8: `quic` cannot listen on 127.0.0.1:7402: `quic` of region `eu-west` does, on the same host
    "#);
}

#[test]
fn regions_on_different_hosts_may_listen_alike_and_tcp_and_udp_may_share_a_number() {
    let alike = EU_WEST.replace("127.0.0.1:74", "0.0.0.0:74").replace("7402", "7400");
    let fixture = Fixture::new();
    fixture.write(
        "regions/eu-west.toml",
        &alike.replace("advertise = \"0.0.0.0:7403\"", "advertise = \"eu.example.org:7403\""),
    );
    fixture.write(
        "regions/us-east.toml",
        &alike
            .replace("advertise = \"0.0.0.0:7403\"", "advertise = \"[2001:db8::1]:7403\"")
            .replace("id = 1", "id = 2")
            .replace("data/eu-west", "data/us-east"),
    );
    assert!(fixture.load().is_ok());
    // The same interface in both files is the same machine, whatever names it has.
    let text = fs::read_to_string(fixture.path().join("regions/eu-west.toml")).unwrap();
    fixture.write("regions/eu-west.toml", &text.replace("http = \"0.0.0.0", "http = \"10.0.0.7"));
    let fixture = fixture.us("http = \"0.0.0.0", "http = \"10.0.0.7");
    assert_snapshot!(fixture.errors(), @r#"regions/us-east.toml:4:8: `http` cannot listen on 10.0.0.7:7400: `http` of region `eu-west` does, on the same host"#);
}

#[test]
fn addresses_that_cannot_be_reached_or_bound_are_errors() {
    for (advertise, reason) in [
        ("localhost", "there is no port"),
        ("localhost:0", "port 0 cannot be reached"),
        ("localhost:+7", "the port is no number in 1..=65535"),
        ("localhost:65536", "the port is no number in 1..=65535"),
        ("::1:7403", "an IPv6 address needs brackets"),
        ("[::g]:7403", "the brackets hold no IPv6 address"),
        ("0.0.0.0:7403", "nobody can reach the unspecified address"),
        ("[::]:7403", "nobody can reach the unspecified address"),
        ("http://eu-west:7403", "an IPv6 address needs brackets"),
        ("eu west:7403", "the host is neither a name nor an address"),
        (":7403", "the host is neither a name nor an address"),
    ] {
        let fixture =
            Fixture::new().eu("advertise = \"127.0.0.1:7403\"", &format!("advertise = \"{advertise}\""));
        let expected = format!("`advertise` cannot be `{advertise}`: {reason}; it is HOST:PORT");
        let errors = fixture.errors();
        assert!(errors.contains(&expected), "{errors}");
    }
    let fixture = Fixture::new().eu("\"127.0.0.1:7400\"", "\"localhost:7400\"");
    assert_snapshot!(fixture.errors(), @r#"regions/eu-west.toml:4:8: `http` cannot listen on `localhost:7400`; it is IP:PORT, such as 127.0.0.1:7400, or 0.0.0.0:7400 for all interfaces"#);
}

#[test]
fn open_doors_are_refused_beyond_loopback() {
    let dev = Fixture::new().eu("[storage]", "auth = \"none\"\n[storage]");
    assert_eq!(dev.load().unwrap().regions[0].listen.auth, Auth::None);
    let fixture = dev.eu("quic = \"127.0.0.1", "quic = \"0.0.0.0");
    assert_snapshot!(fixture.errors(), @r#"regions/eu-west.toml:8:8: `auth = "none"` lets everybody in through `quic` at 0.0.0.0:7402; set `auth = "token"`, or listen on 127.0.0.1 only"#);
}

#[test]
fn the_window_is_the_same_in_all_regions() {
    let fixture = Fixture::new().us("[listen]", "window_seconds = 60\n[listen]");
    assert_snapshot!(fixture.errors(), @r#"regions/us-east.toml:3:18: `window_seconds` is 60 here and 86400 in region `eu-west`; it must be the same in all regions"#);
}

#[test]
fn a_secret_inside_a_file_is_refused_and_not_repeated() {
    let fixture = Fixture::new()
        .cluster("token = \"file:default.token\"", "token = \"hunter2\"")
        .with_end("cluster.toml", "[secrets]\nadmin_token = \"env:\"\n");
    let errors = fixture.errors();
    assert!(!errors.contains("hunter2"));
    assert_snapshot!(errors, @r#"
    cluster.toml:9:9: `token` must be a reference, a secret never stands in this file; put the secret into a file and write `token = "file:PATH"`, or `"env:NAME"`
    cluster.toml:11:15: `admin_token` must be a reference, a secret never stands in this file; put the secret into a file and write `admin_token = "file:PATH"`, or `"env:NAME"`
    "#);
}

#[test]
fn a_key_or_token_that_everybody_may_read_is_refused() {
    let fixture = Fixture::new();
    for file in ["admin.token", "default.token", "pki/seal.key", "pki/ca.key", "pki/us-east.key"] {
        fs::set_permissions(fixture.path().join(file), Permissions::from_mode(0o644)).unwrap();
    }
    assert_snapshot!(fixture.errors(), @r#"
    cluster.toml:1:1: `DIR/admin.token` is open to everybody on this machine (mode 0644); run: chmod 600 DIR/admin.token
    cluster.toml:1:1: `DIR/pki/ca.key` is open to everybody on this machine (mode 0644); run: chmod 600 DIR/pki/ca.key
    cluster.toml:1:1: `DIR/pki/seal.key` is open to everybody on this machine (mode 0644); run: chmod 600 DIR/pki/seal.key
    cluster.toml:5:8: `DIR/pki/us-east.key` is open to everybody on this machine (mode 0644); run: chmod 600 DIR/pki/us-east.key
    cluster.toml:9:9: `DIR/default.token` is open to everybody on this machine (mode 0644); run: chmod 600 DIR/default.token
    "#);
    for file in ["admin.token", "default.token", "pki/seal.key", "pki/ca.key", "pki/us-east.key"] {
        fs::set_permissions(fixture.path().join(file), Permissions::from_mode(0o640)).unwrap();
    }
    assert!(fixture.load().is_ok());
}

#[test]
fn missing_and_unusable_secrets_are_named() {
    let fixture = Fixture::new().with_end("cluster.toml", "[secrets]\nadmin_token = \"env:TOMBOLO_ADMIN\"\n");
    fixture.write("pki/seal.key", "abcd\n");
    fixture.write("default.token", "two words\n");
    fs::remove_file(fixture.path().join("pki/ca.pem")).unwrap();
    assert_snapshot!(fixture.errors(), @r#"
    cluster.toml:1:1: the CA's certificate `pki/ca.pem` does not exist; `tombolo init` makes what is missing
    cluster.toml:9:9: `default.token` must hold one word of printable ASCII characters
    cluster.toml:10:1: the seal key must be 64 hexadecimal digits
    cluster.toml:11:15: the environment variable `TOMBOLO_ADMIN` is not set
    "#);
    let present = |name: &str| (name == "TOMBOLO_ADMIN").then(|| "  from-the-environment\n".to_owned());
    let errors = ClusterConfig::load_with(fixture.path(), &present).unwrap_err();
    assert!(!errors.iter().any(|error| error.message.contains("TOMBOLO_ADMIN")));
}

#[test]
fn one_token_cannot_belong_to_two() {
    let fixture = Fixture::new()
        .with_end("cluster.toml", "[[tenant]]\nname = \"other\"\nid = 2\ntoken = \"file:default.token\"\n");
    assert_snapshot!(fixture.errors(), @r#"cluster.toml:13:9: tenant `other` has the same token as tenant `default`"#);
}

#[test]
fn certificate_paths_must_differ_by_region() {
    let fixture = Fixture::new().with_end("cluster.toml", "[pki]\nkey = \"pki/all.key\"\n");
    assert_snapshot!(fixture.errors(), @r#"cluster.toml:11:7: `key` must be another file for each region; put {region} where the region's name belongs"#);
}

#[test]
fn secrets_do_not_print() {
    let config = Fixture::new().load().unwrap();
    let token = config.tenants[0].token.expose().to_owned();
    assert!(config.tenants[0].token.matches(&token));
    assert!(!config.tenants[0].token.matches(config.admin_token.expose()));
    let printed = format!("{config:?}");
    assert!(!printed.contains(&token) && !printed.contains(config.admin_token.expose()));
}
