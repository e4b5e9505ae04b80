//! Holds ARCHITECTURE.md against what cargo says the workspace is.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::Value;

type Edges = BTreeMap<String, Vec<String>>;

fn workspace_root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The crate table: first column the crate in backquotes, last column what it depends on.
fn documented_edges() -> Edges {
    let text = std::fs::read_to_string(workspace_root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let dependencies = cells.last().expect("a row has cells");
        let mut names: Vec<String> =
            dependencies.split(',').map(|name| name.trim().to_owned()).filter(|name| name != "-").collect();
        names.sort();
        (cells[0].trim_matches('`').to_owned(), names)
    })
    .collect()
}

/// The normal and build dependencies between workspace members, development dependencies left out.
fn real_edges() -> Edges {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(workspace_root())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    packages.iter().map(|package| (short_name(&package["name"]), dependencies(package))).collect()
}

fn dependencies(package: &Value) -> Vec<String> {
    let list = package["dependencies"].as_array().expect("a list of dependencies");
    let ours = list.iter().filter(|dependency| dependency["kind"] != "dev" && !dependency["path"].is_null());
    let mut names: Vec<String> = ours.map(|dependency| short_name(&dependency["name"])).collect();
    names.sort();
    names
}

fn short_name(name: &Value) -> String {
    name.as_str().expect("a name").trim_start_matches("robomamba-").to_owned()
}

#[test]
fn the_crate_table_is_the_dependency_graph() {
    assert_eq!(documented_edges(), real_edges(), "left: ARCHITECTURE.md, right: cargo metadata");
}

#[test]
fn unsafe_code_is_forbidden_outside_kernels() {
    for name in real_edges().into_keys().filter(|name| name != "kernels") {
        let source = workspace_root().join("crates").join(&name).join("src");
        let root = [source.join("lib.rs"), source.join("main.rs")].into_iter().find(|path| path.exists());
        let text = std::fs::read_to_string(root.expect("a crate root")).expect("readable source");
        assert!(text.contains("#![forbid(unsafe_code)]"), "crate `{name}` does not forbid unsafe code");
    }
}
