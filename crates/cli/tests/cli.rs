//! The binary as a shell sees it: help, exit codes, what goes to stdout and what to stderr. No daemon runs here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Commands of which the help is pinned, with their parents.
const COMMANDS: &[&str] = &[
    "init",
    "serve",
    "check",
    "config explain",
    "status",
    "lag",
    "verify",
    "reconcile",
    "get",
    "incr",
    "decr",
    "set",
    "del",
    "await",
    "wal inspect",
    "bench heal",
    "explain",
    "completions",
    "man",
];

fn tombolo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
    // Nothing of the machine's own settings, and a terminal of known width.
    command.args(arguments).env_clear().env("COLUMNS", "100").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    tombolo(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {}", err(output)))
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An address at which nothing listens.
fn dead_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Makes a cluster; ports are only written, never opened.
fn init(dir: &Path) {
    let made = run(&["init", "--dir", path(dir), "--dev"]);
    assert_eq!(code(&made), 0, "{}", err(&made));
}

#[test]
fn every_command_has_help_with_examples() {
    let mut all = out(&run(&["--help"]));
    for name in COMMANDS {
        let arguments: Vec<&str> = name.split(' ').chain(["--help"]).collect();
        let help = run(&arguments);
        assert_eq!(code(&help), 0, "{name}");
        let text = out(&help);
        assert!(text.contains("Usage: tombolo") && text.contains("Examples:"), "{name}:\n{text}");
        all += &format!("\n==== tombolo {name}\n\n{text}");
    }
    insta::assert_snapshot!("help", all.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_command_that_is_listed_renders_its_help() {
    let help = out(&run(&["--help"]));
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A line that goes on with what the line before began is indented further.
    let names: Vec<&str> = listed
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.len() > COMMANDS.len(), "{names:?}");
    for name in names {
        assert_eq!(code(&run(&["help", name])), 0, "{name}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_exits_2_and_prints_no_data() {
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["get"],
        &["get", ""],
        &["incr", "k", "many"],
        &["await", "t", "--timeout", "soon"],
        &["await", "t", "--at-least", "2", "--regions", "a"],
        &["serve", "--cluster", "c", "--region", "r", "--peer-override", "nowhere"],
        &["serve", "--cluster", "c", "--region", "r", "--durability", "never"],
        &["bench", "heal", "--cut-seconds", "0"],
        &["bench", "heal", "--timeout-seconds", "601"],
        &["bench", "heal", "--assert-growth-mib", "nan"],
        &["get", "k"],
        &["get", "k", "--endpoint", "127.0.0.1:7400"],
        &["verify", "--endpoint", "http://127.0.0.1:7400"],
        &["decr", "k", "-9223372036854775808", "--endpoint", "http://127.0.0.1:7400"],
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{arguments:?}");
        assert!(!err(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_region_that_is_not_there_exits_3_with_a_next_step() {
    let endpoint = dead_endpoint();
    for arguments in
        [&["status"][..], &["lag"], &["get", "k"], &["incr", "k"], &["set", "k", "v"], &["await", "t"]]
    {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--endpoint", &endpoint]).collect();
        let output = run(&arguments);
        assert_eq!(code(&output), 3, "{arguments:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{arguments:?}");
        assert!(err(&output).contains("next: "), "{arguments:?}: {}", err(&output));
    }
}

#[test]
fn a_write_that_reached_nobody_says_so_in_json_too() {
    let output = run(&["incr", "k", "--endpoint", &dead_endpoint(), "-o", "json"]);
    assert_eq!(code(&output), 3);
    let error: Value = serde_json::from_str(&err(&output)).unwrap();
    assert_eq!(error["schema"], "tombolo.error/v1");
    assert_eq!(error["applied"], "no");
    assert_eq!(error["exit"], 3);
}

#[test]
fn a_cluster_that_init_made_passes_check_and_a_second_init_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let checked = run(&["check", "--cluster", path(dir.path()), "-o", "json"]);
    assert_eq!(code(&checked), 0, "{}", err(&checked));
    let report: Value = serde_json::from_str(&out(&checked)).unwrap();
    assert_eq!(report["schema"], "tombolo.check/v1");
    assert_eq!(report["valid"], true);
    assert_eq!(report["regions"], serde_json::json!(["eu-west", "us-east", "ap-south"]));

    let before = std::fs::read(dir.path().join("cluster.toml")).unwrap();
    let again = run(&["init", "--dir", path(dir.path()), "-o", "json"]);
    assert_eq!(code(&again), 0, "{}", err(&again));
    let report: Value = serde_json::from_str(&out(&again)).unwrap();
    let states: Vec<&str> =
        report["files"].as_array().unwrap().iter().map(|file| file["state"].as_str().unwrap()).collect();
    assert!(states.iter().all(|state| *state == "kept"), "{states:?}");
    assert_eq!(std::fs::read(dir.path().join("cluster.toml")).unwrap(), before);
}

#[test]
fn a_key_that_does_not_exist_fails_check_with_10_and_its_place() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let file = dir.path().join("regions/us-east.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("durabilty = \"sync\"\n{text}")).unwrap();
    let checked = run(&["check", "--cluster", path(dir.path())]);
    assert_eq!(code(&checked), 10, "{}", err(&checked));
    assert!(err(&checked).contains("regions/us-east.toml:1:1: "), "{}", err(&checked));
    // A client command that needs the files fails the same way.
    assert_eq!(code(&run(&["get", "k", "--cluster", path(dir.path())])), 10);
}

#[test]
fn a_region_that_is_not_declared_is_a_usage_error_that_names_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let output = run(&["get", "k", "--cluster", path(dir.path()), "--region", "mars"]);
    assert_eq!(code(&output), 2, "{}", err(&output));
    assert!(err(&output).contains("eu-west, us-east, ap-south"), "{}", err(&output));
}

#[test]
fn completions_are_a_script_and_know_the_commands() {
    let script = run(&["completions", "bash"]);
    assert_eq!(code(&script), 0);
    assert!(out(&script).contains("_tombolo()") && out(&script).contains("verify"));
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    assert_eq!(code(&run(&["man", path(&pages)])), 0);
    for page in ["tombolo.1", "tombolo-serve.1", "tombolo-wal-inspect.1"] {
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(".TH tombolo"), "{page}");
    }
}

#[test]
fn every_code_is_explained_and_an_unknown_one_exits_5() {
    let listed: Value = serde_json::from_str(&out(&run(&["explain", "-o", "json"]))).unwrap();
    let codes = listed["codes"].as_array().unwrap();
    assert!(codes.len() > 20, "{}", codes.len());
    let one = run(&["explain", "stamp_behind"]);
    assert!(out(&one).contains("applied  Nothing."), "{}", out(&one));
    assert!(out(&run(&["explain", "TRYAGAIN"])).contains("busy (RESP TRYAGAIN, HTTP 503)"));
    assert_eq!(code(&run(&["explain", "gremlins"])), 5);
}

#[test]
fn config_explain_shows_defaults_and_filters() {
    let output = run(&["config", "explain", "durability"]);
    assert_eq!(code(&output), 0);
    assert!(out(&output).contains("sync | interval | async"), "{}", out(&output));
    assert!(!out(&output).contains("segment_bytes"), "{}", out(&output));
}

#[test]
fn wal_inspect_of_a_directory_without_data_says_which_one_to_give() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nowhere");
    for dir in [dir.path(), &missing] {
        let output = run(&["wal", "inspect", path(dir)]);
        assert_eq!(code(&output), 5, "{}", err(&output));
        assert_eq!(out(&output), "");
        assert!(err(&output).contains(path(dir)) && err(&output).contains("storage.dir"), "{}", err(&output));
    }
    assert!(!missing.exists());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = tombolo(&["explain"]).stdout(writer).output().unwrap();
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(err(&output), "");
}
