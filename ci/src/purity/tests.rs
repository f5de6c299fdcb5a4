//! Fixtures that break purity in every way the scan claims to see, and the look-alikes it must leave alone.

use std::collections::BTreeMap;

use super::*;

const NAME: &str = "tombolo-replica";

fn scan_files(purity: Purity, files: &[(&str, &str)]) -> Vec<String> {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let read: Reader<'_> = &|path| files.get(path.to_str()?).map(|text| (*text).to_owned());
    check_crate(NAME, purity, Path::new("src/lib.rs"), read).iter().map(Violation::to_string).collect()
}

fn scan(source: &str) -> Vec<String> {
    scan_files(Purity::Pure, &[("src/lib.rs", source)])
}

/// The places and names of what was found, without the advice.
fn names(found: &[String]) -> Vec<String> {
    found
        .iter()
        .map(|line| line.split(" (").next().unwrap().replace(" tombolo-replica may not use", ""))
        .collect()
}

#[test]
fn a_violation_says_where_what_why_and_what_instead() {
    let found = scan("use std::time::{Duration, Instant as Now};\nfn f(_: Duration) { Now::now(); }\n");
    assert_eq!(
        found,
        [
            "src/lib.rs:1:27: tombolo-replica may not use std::time::Instant (it reads the machine's clock); take the time \
          as an argument instead"
        ]
    );
}

#[test]
fn a_full_path_in_an_expression_a_type_and_a_bound_is_seen() {
    let found = scan(
        "fn f() -> bool { std::env::var(\"X\").is_ok() }\nstruct S { file: Option<::std::fs::File> }\n\
         fn g<T: std::os::fd::AsFd>(_: T) {}\nfn h() { <std::time::SystemTime>::now(); core::net::Ipv4Addr::LOCALHOST; }\n",
    );
    assert_eq!(
        names(&found),
        [
            "src/lib.rs:1:18: std::env::var",
            "src/lib.rs:2:27: std::fs::File",
            "src/lib.rs:3:9: std::os::fd::AsFd",
            "src/lib.rs:4:11: std::time::SystemTime",
            "src/lib.rs:4:42: std::net::Ipv4Addr::LOCALHOST",
        ]
    );
}

#[test]
fn a_hash_table_of_std_is_refused_and_a_fixed_one_is_not() {
    let found =
        scan("use std::collections::{BTreeMap, HashMap};\nfn f(_: BTreeMap<u8, HashMap<u8, u8>>) {}\n");
    assert_eq!(names(&found), ["src/lib.rs:1:34: std::collections::HashMap"]);
    let fixed = "use foldhash::fast::FixedState;\nuse hashbrown::HashMap;\ntype Map<V> = HashMap<u64, V, FixedState>;\n\
                 fn f() -> Map<u8> { HashMap::with_hasher(FixedState::default()) }\n";
    assert!(scan(fixed).is_empty());
}

#[test]
fn a_hashbrown_table_with_the_default_hasher_is_refused() {
    let found = scan(
        "use hashbrown::{HashMap, HashSet};\nfn f() -> HashMap<u8, u8> { HashMap::new() }\nfn g(_: &HashSet<u8>) {}\n\
         fn h(_: &hashbrown::HashSet<u8, foldhash::fast::RandomState>) {}\n",
    );
    assert_eq!(
        names(&found),
        [
            "src/lib.rs:2:11: hashbrown's default hasher",
            "src/lib.rs:2:29: hashbrown::HashMap::new",
            "src/lib.rs:3:10: hashbrown's default hasher",
            "src/lib.rs:4:33: foldhash::fast::RandomState",
        ]
    );
}

#[test]
fn a_renamed_module_is_followed_to_where_it_leads() {
    let found = scan(
        "use std::{self as s, time as t};\nextern crate std as base;\nmod inner {\n    use super::*;\n\
         \u{20}   fn f() { t::Instant::now(); base::process::exit(1); s::thread::yield_now(); }\n}\n\
         fn g() { use std::io; io::stdout(); }\nfn h() { io::stdout(); }\n",
    );
    assert_eq!(
        names(&found),
        [
            "src/lib.rs:5:14: std::time::Instant::now",
            "src/lib.rs:5:33: std::process::exit",
            "src/lib.rs:5:57: std::thread::yield_now",
            "src/lib.rs:7:23: std::io::stdout",
        ]
    );
}

#[test]
fn an_alias_is_followed_across_the_files_of_a_crate() {
    let found = scan_files(
        Purity::Pure,
        &[
            ("src/lib.rs", "mod clock;\nmod user;\n"),
            ("src/clock.rs", "pub(crate) use std::time as wall;\n"),
            (
                "src/user.rs",
                "use crate::clock::wall::SystemTime;\nfn f() { crate::clock::wall::Instant::now(); }\n",
            ),
        ],
    );
    assert_eq!(
        names(&found),
        ["src/user.rs:1:25: std::time::SystemTime", "src/user.rs:2:10: std::time::Instant::now"]
    );
}

#[test]
fn a_glob_that_brings_in_a_banned_name_is_refused() {
    let found =
        scan("use std::time::*;\nuse std::io::prelude::*;\nmod log { pub struct Log; }\nuse log::*;\n");
    assert_eq!(names(&found), ["src/lib.rs:1:16: std::time::*, which brings in std::time::Instant"]);
}

#[test]
fn macros_are_judged_by_name_and_by_what_they_hold() {
    let found = scan(
        "fn f(x: u8) { println!(\"{x}\"); assert!(x != 1 && std::env::args().count() > 0, \"{}\", dbg!(x)); }\n\
         thread_local! { static A: u8 = 1; }\nmacro_rules! m { () => { use std::{fmt, fs}; $crate::fs::x() } }\n\
         fn g() { std::eprintln!(); let _ = [1].map(|fs: u8| vec![fs; 2]); }\n",
    );
    assert_eq!(
        names(&found),
        [
            "src/lib.rs:1:15: println!",
            "src/lib.rs:1:50: std::env::args",
            "src/lib.rs:1:86: dbg!",
            "src/lib.rs:2:1: thread_local!",
            "src/lib.rs:3:41: std::fs",
            "src/lib.rs:4:10: std::eprintln",
        ]
    );
}

#[test]
fn locks_sockets_threads_chance_and_runtimes_are_refused() {
    let found = scan(
        "use std::sync::{Arc, Mutex, atomic::AtomicU64, mpsc::channel};\nuse std::net::UdpSocket;\n\
         fn f() { std::thread::spawn(|| ()); rand::random::<u8>(); getrandom::fill(&mut []); tokio::spawn(async {}); }\n\
         fn g() { uhlc::HLC::default(); uhlc::NTP64(1); uhlc::ID::rand(); }\n",
    );
    assert_eq!(
        names(&found),
        [
            "src/lib.rs:1:22: std::sync::Mutex",
            "src/lib.rs:1:54: std::sync::mpsc::channel",
            "src/lib.rs:2:15: std::net::UdpSocket",
            "src/lib.rs:3:10: std::thread::spawn",
            "src/lib.rs:3:37: rand::random",
            "src/lib.rs:3:59: getrandom::fill",
            "src/lib.rs:3:85: tokio::spawn",
            "src/lib.rs:4:10: uhlc::HLC::default",
            "src/lib.rs:4:48: uhlc::ID::rand",
        ]
    );
}

#[test]
fn test_code_may_do_all_of_it() {
    let source = "#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n    fn f() { std::env::var(\"X\"); println!(); }\n}\n\
                  #[cfg(all(test, unix))]\nuse std::fs;\n#[test]\nfn t() { std::thread::yield_now(); }\n\
                  struct S { #[cfg(test)] at: std::time::Instant }\nimpl S { #[cfg(test)] fn now() { std::time::Instant::now(); } }\n\
                  #[cfg(test)]\nmod laws;\n";
    let found = scan_files(
        Purity::Pure,
        &[("src/lib.rs", source), ("src/laws.rs", "use std::fs;\n"), ("src/forgotten.rs", "use std::fs;\n")],
    );
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn code_that_is_only_sometimes_test_code_is_judged() {
    let found = scan("#[cfg(not(test))]\nuse std::fs;\n#[cfg(any(test, feature = \"x\"))]\nuse std::env;\n");
    assert_eq!(names(&found), ["src/lib.rs:2:10: std::fs", "src/lib.rs:4:10: std::env"]);
}

#[test]
fn comments_strings_and_own_names_are_not_the_world() {
    let source = "//! Never uses std::fs or std::time::Instant::now().\n\
                  /// println!(\"{}\", std::env::var(\"HOME\"))\nfn f() -> &'static str { \"std::env::var\" /* HashMap */ }\n\
                  mod thread { pub fn env() {} }\nmod rand { pub fn random() {} }\n\
                  fn g(log: u8, fs: u8) -> u8 { thread::env(); rand::random(); self::rand::random(); log + fs }\n\
                  enum Wait { Instant, Mutex }\nfn h() -> Wait { Wait::Instant }\n\
                  struct HashMap;\nfn i(_: HashMap) { assert!(matches!(h(), Wait::Mutex)); }\n";
    let found = scan(source);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn nested_modules_in_files_of_every_form_are_reached() {
    let bad = "use std::fs;\n";
    let found = scan_files(
        Purity::Pure,
        &[
            ("src/lib.rs", "mod a;\nmod b { mod c; }\n#[path = \"odd/name.rs\"]\nmod d;\nmod missing;\n"),
            ("src/a/mod.rs", "mod x;\n"),
            ("src/a/x.rs", bad),
            ("src/b/c.rs", bad),
            ("src/odd/name.rs", bad),
        ],
    );
    assert_eq!(
        names(&found),
        [
            "src/a/x.rs:1:10: std::fs",
            "src/b/c.rs:1:10: std::fs",
            "src/missing.rs: cannot be read",
            "src/odd/name.rs:1:10: std::fs"
        ]
    );
}

#[test]
fn the_device_of_a_crate_may_touch_the_world_and_may_not_hand_it_on() {
    let files = [
        ("src/lib.rs", "mod file_disk;\nmod recovery;\n"),
        (
            "src/file_disk.rs",
            "pub(crate) use std::fs::File;\nfn f() { rustix::fs::fsync(); std::thread::yield_now(); }\n",
        ),
        ("src/recovery.rs", "use crate::file_disk::File;\nuse std::path::PathBuf;\nuse rustix::fs::fsync;\n"),
    ];
    let found = scan_files(Purity::PureExcept(&["file_disk.rs"]), &files);
    assert_eq!(
        names(&found),
        ["src/recovery.rs:1:23: std::fs::File", "src/recovery.rs:3:17: rustix::fs::fsync"]
    );
    let without_exception = scan_files(Purity::Pure, &files);
    assert!(
        without_exception.iter().any(|line| line.starts_with("src/file_disk.rs:1")),
        "{without_exception:#?}"
    );
    assert!(
        without_exception.iter().any(|line| line.contains("std::path::PathBuf")),
        "{without_exception:#?}"
    );
}

#[test]
fn a_file_that_is_not_rust_is_reported_not_skipped() {
    let found = scan("fn f( {\n");
    assert!(
        found.len() == 1 && found[0].starts_with("src/lib.rs:1:") && found[0].contains("is not Rust"),
        "{found:?}"
    );
}

#[test]
fn names_that_chase_each_other_end() {
    let found = scan(
        "use a::b;\nmod a { pub use super::b; pub use super::*; pub use crate::a::*; }\nfn f() { b::c(); }\n",
    );
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_crates_of_this_workspace_that_stand_below_the_line_are_pure() {
    let root = crate::root();
    let workspace = Workspace::open(&root).unwrap();
    let below = workspace
        .members
        .iter()
        .filter(|member| layers::layer(&member.name).is_some_and(|layer| layer.purity != Purity::Shell));
    assert_eq!(
        below.count(),
        7,
        "the crates below the line, the mutants, the model and the wal were not found"
    );
    let found: Vec<String> = check(&root, &workspace).iter().map(Violation::to_string).collect();
    assert!(found.is_empty(), "{found:#?}");
}
