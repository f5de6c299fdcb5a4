//! Import edges: reads each member's manifest and compares its dependencies with the table of layers.
//!
//! Never looks at source files (that is `purity`). Start at `check`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Spanned, Value};

use crate::layers::{self, Imports, LAYERS, Layer, PURE_REGISTRY, Purity, TEST_LIBRARIES};
use crate::violation::Violation;

type Dependencies = BTreeMap<Spanned<String>, Value>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Sections {
    dependencies: Dependencies,
    build_dependencies: Dependencies,
    dev_dependencies: Dependencies,
}

/// The sections stand here once more because `flatten` would lose the places of their keys.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Manifest {
    package: Package,
    #[serde(default)]
    dependencies: Dependencies,
    #[serde(default)]
    build_dependencies: Dependencies,
    #[serde(default)]
    dev_dependencies: Dependencies,
    #[serde(default)]
    target: BTreeMap<String, Sections>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
}

#[derive(Debug, Deserialize)]
struct RootManifest {
    workspace: RootWorkspace,
}

#[derive(Debug, Deserialize)]
struct RootWorkspace {
    members: Vec<String>,
    #[serde(default)]
    dependencies: BTreeMap<String, Value>,
}

/// The members of a workspace, each with the text of its manifest.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// In the order of their folders.
    pub(crate) members: Vec<Member>,
    /// `[workspace.dependencies]`, where members inherit from.
    inherited: BTreeMap<String, Value>,
}

/// One member of the workspace.
#[derive(Debug)]
pub(crate) struct Member {
    /// The package name.
    pub(crate) name: String,
    /// The folder, relative to the root, with `/`.
    pub(crate) folder: String,
    manifest_text: String,
}

impl Workspace {
    /// Reads the root manifest and the manifests of all members.
    ///
    /// Errors: a sentence naming the manifest that cannot be read.
    pub(crate) fn open(root: &Path) -> Result<Self, String> {
        let text = read(&root.join("Cargo.toml"))?;
        let manifest: RootManifest = toml::from_str(&text).map_err(|error| format!("Cargo.toml: {error}"))?;
        let mut members = Vec::new();
        for pattern in &manifest.workspace.members {
            for folder in expand(root, pattern)? {
                let manifest_text = read(&root.join(&folder).join("Cargo.toml"))?;
                members.push(Member::new(folder, manifest_text)?);
            }
        }
        members.sort_by(|a, b| a.folder.cmp(&b.folder));
        Ok(Self { members, inherited: manifest.workspace.dependencies })
    }

    /// A dependency's package name: keys may be renamed with `package = "…"`, here or where it is inherited from.
    fn package_of(&self, key: &str, value: &Value) -> String {
        let renamed = |value: &Value| value.get("package").and_then(Value::as_str).map(str::to_owned);
        let inherits = value.get("workspace").and_then(Value::as_bool).unwrap_or(false);
        let inherited = if inherits { self.inherited.get(key).and_then(renamed) } else { None };
        renamed(value).or(inherited).unwrap_or_else(|| key.to_owned())
    }
}

impl Member {
    fn new(folder: String, manifest_text: String) -> Result<Self, String> {
        let manifest: Manifest =
            toml::from_str(&manifest_text).map_err(|error| format!("{folder}/Cargo.toml: {error}"))?;
        Ok(Self { name: manifest.package.name, folder, manifest_text })
    }

    fn manifest_path(&self) -> String {
        format!("{}/Cargo.toml", self.folder)
    }
}

/// Compares every member with its row in the table, and the table with the members.
pub(crate) fn check(workspace: &Workspace) -> Vec<Violation> {
    let names: BTreeSet<&str> = workspace.members.iter().map(|member| member.name.as_str()).collect();
    let mut violations = Vec::new();
    for member in &workspace.members {
        match layers::layer(&member.name) {
            Some(layer) => violations.extend(check_member(workspace, &names, member, layer)),
            None => violations.push(Violation::of_file(
                member.manifest_path(),
                format!("{} has no row in the table of layers; add one to ci/src/layers.rs", member.name),
            )),
        }
    }
    for layer in LAYERS.iter().filter(|layer| !names.contains(layer.name)) {
        violations.push(Violation::of_file(
            "ci/src/layers.rs",
            format!("the row of {} has no crate in the workspace; remove the row", layer.name),
        ));
    }
    violations
}

fn check_member(
    workspace: &Workspace,
    names: &BTreeSet<&str>,
    member: &Member,
    layer: &Layer,
) -> Vec<Violation> {
    let manifest: Manifest =
        toml::from_str(&member.manifest_text).expect("parsed when the member was opened");
    let everywhere = Sections {
        dependencies: manifest.dependencies,
        build_dependencies: manifest.build_dependencies,
        dev_dependencies: manifest.dev_dependencies,
    };
    let mut violations = Vec::new();
    let mut judge = |dependencies: &Dependencies, rule: &dyn Fn(&str, bool) -> Option<String>| {
        for (key, value) in dependencies {
            let package = workspace.package_of(key.get_ref(), value);
            if let Some(text) = rule(&package, names.contains(package.as_str())) {
                let at = key.span().start;
                violations.push(Violation::at_offset(
                    member.manifest_path(),
                    &member.manifest_text,
                    at,
                    text,
                ));
            }
        }
    };
    for sections in std::iter::once(&everywhere).chain(manifest.target.values()) {
        judge(&sections.dependencies, &|package, is_member| judge_import(layer, package, is_member));
        judge(&sections.build_dependencies, &|package, is_member| judge_import(layer, package, is_member));
        judge(&sections.dev_dependencies, &|package, is_member| judge_test_import(layer, package, is_member));
    }
    violations
}

fn judge_import(layer: &Layer, package: &str, is_member: bool) -> Option<String> {
    let name = layer.name;
    if is_member {
        let Imports::Only(allowed) = layer.imports else { return None };
        return (!allowed.contains(&package)).then(|| {
            format!(
                "{name} may not depend on {package} (its row allows: {}); move the type to the lowest crate that \
                 gives it meaning, or pass it in from above",
                list(allowed)
            )
        });
    }
    let allowed = layer.registry?;
    (!allowed.contains(&package)).then(|| {
        format!(
            "{name} may not depend on {package} (from the registry it may take: {}); do this in a shell and hand \
             the result in",
            list(allowed)
        )
    })
}

fn judge_test_import(layer: &Layer, package: &str, is_member: bool) -> Option<String> {
    if layer.purity != Purity::Pure {
        return None;
    }
    let name = layer.name;
    if is_member {
        let is_pure = layers::layer(package).is_some_and(|other| other.purity == Purity::Pure);
        return (!is_pure).then(|| {
            format!("the tests of {name} may not depend on {package} (it is not pure); test the two together in tests/")
        });
    }
    let allowed = PURE_REGISTRY.contains(&package) || TEST_LIBRARIES.contains(&package);
    (!allowed).then(|| {
        format!(
            "the tests of {name} may not depend on {package} (besides what its code may use: {}); build the test's \
             input as a value, or test it in tests/",
            list(TEST_LIBRARIES)
        )
    })
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Folders of a member pattern: a plain folder, or `folder/*` for all of its children that have a manifest.
fn expand(root: &Path, pattern: &str) -> Result<Vec<String>, String> {
    let Some(parent) = pattern.strip_suffix("/*") else { return Ok(vec![pattern.to_owned()]) };
    let entries = fs::read_dir(root.join(parent)).map_err(|error| format!("{parent}: {error}"))?;
    let folders: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut names: Vec<String> = folders
        .map_err(|error| format!("{parent}: {error}"))?
        .into_iter()
        .filter(|folder| folder.join("Cargo.toml").is_file())
        .filter_map(|folder| Some(format!("{parent}/{}", folder.file_name()?.to_str()?)))
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests;
