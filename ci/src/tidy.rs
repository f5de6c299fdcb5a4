//! The shape of the repository: its top level, its lock file, names that belong to one machine, a doc per crate.
//!
//! Reads tracked files only; knows nothing of Rust. Start at `top_level`.

use serde::Deserialize;

use crate::tracked::Tracked;
use crate::violation::Violation;

const REQUIRED: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "ci",
    "crates",
    "regions",
    "rust-toolchain.toml",
    "tests",
];
const OPTIONAL: &[&str] = &["docs"];

/// Packages the lock file may hold: each is code that someone must trust and keep up to date.
pub(crate) const PACKAGES_MAX: usize = 350;

/// The one source of packages.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

// Written in pieces, so that this file does not hold what it looks for.
const MACHINE_PATHS: &[&str] = &[
    concat!("/", "work/"),
    concat!("/", "root/"),
    concat!("/", "home/"),
    concat!("/", "Users/"),
    concat!("/", "tmp/"),
    concat!("C:", "\\"),
];
const REGISTRY_SETTINGS: &[&str] = &[
    concat!("sparse", "+http"),
    concat!("replace", "-with"),
    concat!("[", "source."),
    concat!("[", "registries"),
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("arti", "factory"),
    concat!("proxy.", "golang.org"),
    concat!("pypi.", "org"),
    concat!("registry.", "npmjs.org"),
];

/// The top level holds what design.md §4 names, dot files, and nothing else.
pub(crate) fn top_level(tracked: &Tracked) -> Vec<Violation> {
    let entries = tracked.top_level();
    let unknown = entries
        .iter()
        .filter(|entry| !entry.starts_with('.') && !REQUIRED.contains(entry) && !OPTIONAL.contains(entry))
        .map(|entry| {
            Violation::of_file(*entry, "does not belong to the top level; put it into the folder it is about")
        });
    let missing = REQUIRED
        .iter()
        .filter(|required| !entries.contains(required))
        .map(|required| Violation::of_file(*required, "is missing, or git does not track it"));
    unknown.chain(missing).collect()
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    source: Option<String>,
}

/// The lock file is small enough to be read, and every package comes from the public registry.
pub(crate) fn lock(text: &str) -> Vec<Violation> {
    let lock: Lock = match toml::from_str(text) {
        Ok(lock) => lock,
        Err(error) => return vec![Violation::of_file("Cargo.lock", error.to_string())],
    };
    let mut violations = Vec::new();
    let count = lock.package.len();
    if count > PACKAGES_MAX {
        let text =
            format!("holds {count} packages, {PACKAGES_MAX} are allowed; drop a dependency or a feature");
        violations.push(Violation::of_file("Cargo.lock", text));
    }
    for package in lock.package {
        if let Some(source) = package.source.filter(|source| source != REGISTRY) {
            let text = format!("{} comes from {source}; depend on a published version", package.name);
            violations.push(Violation::of_file("Cargo.lock", text));
        }
    }
    violations
}

/// No file names a folder of one machine or a registry's host: a clone must build anywhere.
pub(crate) fn machine_names(path: &str, text: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        for name in MACHINE_PATHS.iter().filter(|name| begins_a_path(line, name)) {
            let at = line_start + line.find(name).unwrap_or(0);
            let message =
                format!("names a place of one machine ({name}…); use a relative path or a variable");
            violations.push(Violation::at_offset(path, text, at, message));
        }
        for name in REGISTRY_SETTINGS.iter().filter(|name| line.contains(*name)) {
            let at = line_start + line.find(name).unwrap_or(0);
            let message = format!("names a registry ({name}…); leave that to the machine's own settings");
            violations.push(Violation::at_offset(path, text, at, message));
        }
        line_start += line.len();
    }
    violations
}

/// Whether `name` stands in the line as the beginning of an absolute path, not as the middle of a longer one.
fn begins_a_path(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|character| character.is_alphanumeric() || "._-/*}>~".contains(character))
    })
}

/// Every crate opens with a page on what it is: a README, or `//!` at the top of its root.
pub(crate) fn crate_docs(tracked: &Tracked) -> Vec<Violation> {
    let folders = tracked.paths.iter().filter_map(|path| path.strip_suffix("/Cargo.toml"));
    folders
        .filter(|folder| folder.starts_with("crates/"))
        .filter(|folder| {
            let has_readme = tracked.paths.contains(&format!("{folder}/README.md"));
            let opens_with_doc = |root: &str| {
                tracked.text(&format!("{folder}/src/{root}")).is_some_and(|text| text.starts_with("//!"))
            };
            !has_readme && !opens_with_doc("lib.rs") && !opens_with_doc("main.rs")
        })
        .map(|folder| {
            Violation::of_file(
                folder,
                "has neither a README.md nor `//!` in src/lib.rs or src/main.rs; say what it is",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_one_machine_is_found_and_a_place_inside_the_project_is_not() {
        let text = format!("ok\nlet p = \"{}main\";\n", MACHINE_PATHS[0]);
        let found = machine_names("a.rs", &text);
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().starts_with("a.rs:2:10: names a place of one machine"), "{}", found[0]);
        assert!(machine_names("a.md", "see docs/work/plan.md, $DIR/tmp/x and http://host/home\n").is_empty());
    }

    #[test]
    fn a_registry_of_ones_own_is_found() {
        let text = format!("[net]\n{} = \"mirror\"\n", REGISTRY_SETTINGS[1]);
        assert_eq!(machine_names(".cargo/config.toml", &text).len(), 1);
    }

    #[test]
    fn a_lock_file_over_its_bound_and_a_package_from_elsewhere_are_reported() {
        let package = format!("[[package]]\nname = \"x\"\nversion = \"1.0.0\"\nsource = \"{REGISTRY}\"\n");
        assert!(lock(&package.repeat(PACKAGES_MAX)).is_empty());
        assert_eq!(lock(&package.repeat(PACKAGES_MAX + 1)).len(), 1);
        assert_eq!(lock(&package.replace("registry+", "git+")).len(), 1);
        assert_eq!(lock("[[package").len(), 1);
    }

    #[test]
    fn no_tracked_file_of_this_repository_names_a_machine() {
        let tracked = Tracked::open(&crate::root()).unwrap();
        assert!(
            tracked.paths.iter().any(|path| path == "ci/src/tidy.rs"),
            "the tracked files were not found"
        );
        let of_file = |path: &String| tracked.text(path).map(|text| machine_names(path, &text));
        let found: Vec<Violation> = tracked.paths.iter().filter_map(of_file).flatten().collect();
        assert!(found.is_empty(), "{found:#?}");
    }
}
