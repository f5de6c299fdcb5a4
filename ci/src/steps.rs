//! The steps of a check: runs all of them, also after one has failed, and ends with a summary of durations.
//!
//! Decides no rule itself. Start at `check`; `run` is what `.ci/run` calls.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::edges::{self, Workspace};
use crate::tracked::Tracked;
use crate::violation::Violation;
use crate::{purity, readme, tidy};

/// The steps done so far, with how each went.
struct Report<'a> {
    root: &'a Path,
    lines: Vec<(&'static str, bool, Duration)>,
}

/// What a step found: its violations, or why it could not look.
type Found = Result<Vec<Violation>, String>;

impl<'a> Report<'a> {
    fn new(root: &'a Path) -> Self {
        Self { root, lines: Vec::new() }
    }

    fn step(&mut self, name: &'static str, work: impl FnOnce(&Path) -> bool) {
        println!("== {name}");
        let begun = Instant::now();
        let is_ok = work(self.root);
        let took = begun.elapsed();
        println!("== {name}: {} in {:.1} s\n", if is_ok { "ok" } else { "FAILED" }, took.as_secs_f64());
        self.lines.push((name, is_ok, took));
    }

    fn look(&mut self, name: &'static str, work: impl FnOnce(&Path) -> Found) {
        self.step(name, |root| show(work(root)));
    }

    fn cargo(&mut self, name: &'static str, words: &[&str], variables: &[(&str, &str)]) {
        self.step(name, |root| cargo(root, words, variables));
    }

    /// Prints the summary; true if every step was green.
    fn finish(self) -> bool {
        for (name, is_ok, took) in &self.lines {
            println!("{:6} {:>8.1} s  {name}", if *is_ok { "ok" } else { "FAILED" }, took.as_secs_f64());
        }
        let failed = self.lines.iter().filter(|(_, is_ok, _)| !is_ok).count();
        match failed {
            0 => println!("all {} steps are green", self.lines.len()),
            _ => println!("{failed} of {} steps FAILED", self.lines.len()),
        }
        failed == 0
    }
}

/// The table of layers against manifests and sources; true if nothing breaks it.
pub(crate) fn layers(root: &Path) -> bool {
    let is_ok = show(broken_layers(root));
    if is_ok {
        println!("layers: every manifest and source file keeps to ci/src/layers.rs");
    }
    is_ok
}

/// Everything CI demands of the code but the tests.
pub(crate) fn check(root: &Path) -> bool {
    let mut report = Report::new(root);
    check_into(&mut report);
    report.finish()
}

/// `check`, then the tests as the README says to run them, then the planted bugs, each over few seeds.
pub(crate) fn run(root: &Path) -> bool {
    let mut report = Report::new(root);
    check_into(&mut report);
    report.step("tests", |root| {
        let text =
            std::fs::read_to_string(root.join("README.md")).map_err(|error| format!("README.md: {error}"));
        match text.and_then(|text| readme::test_command(&text)) {
            Ok(command) => {
                let words: Vec<&str> = command[1..].iter().map(String::as_str).collect();
                cargo(root, &words, &[])
            }
            Err(reason) => show(Err(reason)),
        }
    });
    report.cargo("simulator, 2,000 seeds", &SEEDS, &[]);
    report.step("mutants", |root| mutants(root, Length::Short));
    report.finish()
}

/// Seeds of the simulator that every change runs.
const SEEDS: [&str; 10] =
    ["run", "--locked", "--profile", "mutants", "--package", "tombolo-sim", "--", "run", "--seeds", "2000"];

/// The long searches, about an hour and a half on two cores: more seeds than any change runs, other ones each night
/// (`TOMBOLO_NIGHT` is the number of the first, a million apart are strangers), every rare event met, deeper searches
/// of the model and of the decoders, and the long scenarios on real processes.
pub(crate) fn nightly(root: &Path) -> bool {
    let night = std::env::var("TOMBOLO_NIGHT").unwrap_or_else(|_| "1000000".to_owned());
    let mut report = Report::new(root);
    let sim = [
        "run",
        "--locked",
        "--profile",
        "mutants",
        "--package",
        "tombolo-sim",
        "--",
        "run",
        "--all-rare",
        "--keep-going",
    ];
    let seeds = [&sim[..], &["--seeds", "30000", "--from", &night]].concat();
    report.cargo("simulator", &seeds, &[]);
    report.step("mutants", |root| mutants(root, Length::Long));
    let model = ["test", "--locked", "--package", "tombolo-model"];
    report.cargo("model", &model, &[("TOMBOLO_MODEL_SECONDS", "120")]);
    let fuzz = ["test", "--locked", "--package", "tombolo-fuzz"];
    report.cargo("fuzzing", &fuzz, &[("TOMBOLO_FUZZ_SECONDS", "60")]);
    report.cargo("binary", &["build", "--locked", "--package", "tombolo"], &[]);
    let failover = ["test", "--locked", "--package", "tombolo-tests", "--test", "failover"];
    report.cargo("failover, 30 rounds", &failover, &[("TOMBOLO_FAILOVER_ROUNDS", "30")]);
    report.finish()
}

/// Plants every bug of `crates/mutants` in the simulator; true if a checker notices each, and none without any.
pub(crate) fn mutants(root: &Path, length: Length) -> bool {
    // Of their own: the flag would have every other build begin anew.
    let target = root.join("target/mutants");
    let Some(target) = target.to_str() else { return show(Err("the path is not UTF-8".into())) };
    let mut words = vec!["run", "--locked", "--profile", "mutants", "-p", "tombolo-sim", "--", "mutants"];
    if length == Length::Short {
        words.extend(["--ranges", "1"]);
    }
    cargo(root, &words, &[("RUSTFLAGS", "--cfg tombolo_mutants"), ("CARGO_TARGET_DIR", target)])
}

/// How thoroughly the planted bugs are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// One range of seeds each, a minute in all.
    Short,
    /// Five ranges each, as in the night.
    Long,
}

/// Repairs what tools can repair.
pub(crate) fn fix(root: &Path) -> bool {
    let mut report = Report::new(root);
    let clippy = ["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"];
    report.cargo("clippy --fix", &clippy, &[]);
    // Last: what clippy rewrites is not formatted.
    report.cargo("rustfmt", &["fmt", "--all"], &[]);
    report.finish()
}

fn check_into(report: &mut Report<'_>) {
    report.cargo("rustfmt", &["fmt", "--all", "--", "--check"], &[]);
    report.look("layers", broken_layers);
    report.look("top level", |root| Tracked::open(root).map(|tracked| tidy::top_level(&tracked)));
    report.look("lock file", |root| {
        let text = std::fs::read_to_string(root.join("Cargo.lock"))
            .map_err(|error| format!("Cargo.lock: {error}"))?;
        Ok(tidy::lock(&text))
    });
    report.look("machine names", |root| {
        let tracked = Tracked::open(root)?;
        let of_file = |path: &String| tracked.text(path).map(|text| tidy::machine_names(path, &text));
        Ok(tracked.paths.iter().filter_map(of_file).flatten().collect())
    });
    report.look("crate docs", |root| Tracked::open(root).map(|tracked| tidy::crate_docs(&tracked)));
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    report.cargo("clippy", &clippy, &[]);
    let docs = ["doc", "--locked", "--workspace", "--no-deps"];
    report.cargo("docs", &docs, &[("RUSTDOCFLAGS", "-D warnings")]);
}

fn broken_layers(root: &Path) -> Found {
    let workspace = Workspace::open(root)?;
    let mut found = edges::check(&workspace);
    found.extend(purity::check(root, &workspace));
    Ok(found)
}

/// Prints what was found; true if it is nothing.
fn show(found: Found) -> bool {
    match found {
        Ok(violations) => {
            violations.iter().for_each(|violation| println!("{violation}"));
            violations.is_empty()
        }
        Err(reason) => {
            println!("{reason}");
            false
        }
    }
}

/// Runs cargo with its output streamed; true if it exits 0.
fn cargo(root: &Path, words: &[&str], variables: &[(&str, &str)]) -> bool {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    println!("$ cargo {}", words.join(" "));
    let status = Command::new(program).args(words).envs(variables.iter().copied()).current_dir(root).status();
    match status {
        Ok(status) => status.success(),
        Err(error) => {
            println!("cargo does not start: {error}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_stops_no_other_and_fails_the_whole() {
        let mut report = Report::new(Path::new("."));
        let mut seen = 0;
        report.look("red", |_| Err("cannot look".into()));
        report.look("also red", |_| Ok(vec![Violation::of_file("a", "b")]));
        report.look("green", |_| {
            seen += 1;
            Ok(Vec::new())
        });
        assert_eq!(report.lines.iter().map(|(_, is_ok, _)| *is_ok).collect::<Vec<_>>(), [false, false, true]);
        assert!(!report.finish());
        assert_eq!(seen, 1);
    }

    #[test]
    fn a_report_of_green_steps_is_green() {
        let mut report = Report::new(Path::new("."));
        report.look("green", |_| Ok(Vec::new()));
        assert!(report.finish());
    }
}
