//! The table against manifests that break it, and against this workspace, which does not.

use super::*;

/// A workspace of one member under test beside every other crate of the table, empty.
fn workspace_with(name: &str, manifest: &str) -> Workspace {
    let members = LAYERS
        .iter()
        .map(|layer| {
            let text = if layer.name == name {
                format!("[package]\nname = \"{name}\"\n{manifest}")
            } else {
                format!("[package]\nname = \"{}\"\n", layer.name)
            };
            Member::new(layer.name.to_owned(), text).unwrap()
        })
        .collect();
    let inherited = toml::from_str("wal = { package = \"tombolo-wal\", path = \"crates/wal\" }").unwrap();
    Workspace { members, inherited }
}

fn found(name: &str, manifest: &str) -> Vec<String> {
    check(&workspace_with(name, manifest)).iter().map(Violation::to_string).collect()
}

#[test]
fn an_edge_that_points_up_is_named_with_its_place() {
    let found = found("tombolo-codec", "[dependencies]\nbytes = \"1\"\ntombolo-wal.workspace = true\n");
    assert_eq!(
        found,
        [
            "tombolo-codec/Cargo.toml:5:1: tombolo-codec may not depend on tombolo-wal (its row allows: tombolo-causality, \
          tombolo-crdt); move the type to the lowest crate that gives it meaning, or pass it in from above"
        ]
    );
}

#[test]
fn an_edge_of_the_table_is_accepted() {
    assert!(
        found("tombolo-codec", "[dependencies]\ntombolo-crdt.workspace = true\nrkyv = \"0.8\"\n").is_empty()
    );
    assert!(
        found("tombolo-tests", "[dependencies]\ntombolo-daemon.workspace = true\nreqwest = \"0\"\n")
            .is_empty()
    );
}

#[test]
fn a_renamed_dependency_is_judged_by_its_package() {
    let here = found("tombolo-crdt", "[dependencies]\nbytes = { package = \"tombolo-wal\", path = \"x\" }\n");
    let inherited = found("tombolo-crdt", "[dependencies]\nwal.workspace = true\n");
    assert!(here.len() == 1 && here[0].contains("may not depend on tombolo-wal"), "{here:?}");
    assert!(inherited.len() == 1 && inherited[0].contains("may not depend on tombolo-wal"), "{inherited:?}");
}

#[test]
fn build_and_target_dependencies_count_as_dependencies() {
    let build = found("tombolo-sdk", "[build-dependencies]\ntombolo-replica.workspace = true\n");
    let target =
        found("tombolo-sdk", "[target.'cfg(unix)'.dependencies]\ntombolo-replica.workspace = true\n");
    assert_eq!((build.len(), target.len()), (1, 1), "{build:?} {target:?}");
}

#[test]
fn a_pure_crate_takes_only_listed_crates_from_the_registry() {
    let pure = found("tombolo-replica", "[dependencies]\ntokio = \"1\"\nrustix = \"1\"\nblake3 = \"1\"\n");
    assert_eq!(pure.len(), 2, "{pure:?}");
    assert!(pure[1].contains("tombolo-replica may not depend on tokio"), "{pure:?}");
    assert!(found("tombolo-wal", "[dependencies]\nrustix = \"1\"\n").is_empty());
    assert!(found("tombolo-gateway", "[dependencies]\ntokio = \"1\"\n").is_empty());
}

#[test]
fn tests_of_a_pure_crate_stay_pure() {
    let accepted = "[dev-dependencies]\nproptest = \"1\"\ninsta = \"1\"\nblake3 = \"1\"\ntombolo-replica.workspace = true\n";
    assert!(found("tombolo-crdt", accepted).is_empty());
    let refused =
        found("tombolo-crdt", "[dev-dependencies]\ntempfile = \"3\"\ntombolo-wal.workspace = true\n");
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(found("tombolo-wal", "[dev-dependencies]\ntempfile = \"3\"\n").is_empty());
}

#[test]
fn a_crate_without_a_row_and_a_row_without_a_crate_are_both_reported() {
    let mut workspace = workspace_with("ci", "");
    workspace.members.retain(|member| member.name != "tombolo-sdk");
    let stranger = Member::new("crates/helpers".into(), "[package]\nname = \"helpers\"\n".into()).unwrap();
    workspace.members.push(stranger);
    let found: Vec<String> = check(&workspace).iter().map(Violation::to_string).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("crates/helpers/Cargo.toml: helpers has no row"), "{found:?}");
    assert!(found[1].contains("the row of tombolo-sdk has no crate"), "{found:?}");
}

#[test]
fn imports_in_the_table_only_point_down() {
    for (position, layer) in LAYERS.iter().enumerate() {
        let Imports::Only(imports) = layer.imports else { continue };
        for import in imports {
            let below = LAYERS[..position].iter().any(|other| other.name == *import);
            assert!(below, "{} imports {import}, which does not stand below it", layer.name);
        }
    }
}

#[test]
fn every_manifest_of_this_workspace_obeys_the_table() {
    let workspace = Workspace::open(&crate::root()).unwrap();
    assert!(workspace.members.len() >= LAYERS.len(), "the members were not found");
    let found = check(&workspace);
    assert!(found.is_empty(), "{found:#?}");
}
