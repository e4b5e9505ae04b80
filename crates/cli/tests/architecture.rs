//! Holds ARCHITECTURE.md against what cargo says the workspace is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// The code of a file without comments and without its unit tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("readable source");
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code: Vec<&str> = lines.take_while(|line| line.trim() != "mod tests {").collect();
    code.join("\n")
}

/// The file below `source` that the longest beginning of a module path names, without the crate's root.
fn file_of(source: &Path, path: &[&str]) -> Option<PathBuf> {
    (1..=path.len()).rev().find_map(|len| {
        let module: PathBuf = source.join(path[..len].iter().collect::<PathBuf>());
        let files = [module.with_extension("rs"), module.join("mod.rs")];
        files.into_iter().find(|file| file.is_file())
    })
}

/// The module paths behind `crate::` in `code`, those of a list in braces one by one.
fn paths(code: &str) -> Vec<Vec<String>> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let split = |path: &str| path.split("::").map(str::trim).map(str::to_string).collect::<Vec<_>>();
    let after = code.split("crate::").skip(1);
    let lists = after.flat_map(|after| match after.strip_prefix('{') {
        Some(list) => list.split('}').next().unwrap_or_default().split(',').map(str::trim).collect::<Vec<_>>(),
        None => vec![after.split(|c| !is_path(c)).next().unwrap_or_default()],
    });
    lists.map(split).collect()
}

/// The file of every name that the crate's root exports from a module of its own.
fn exports(source: &Path) -> BTreeMap<String, PathBuf> {
    let root = source.join("lib.rs");
    let code = if root.is_file() { code(&root) } else { String::new() };
    let statements = code.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next()?.split_once("::"));
    let named = statements.flat_map(|(module, names)| {
        let file = file_of(source, &[module.trim()]);
        let names = names.trim_matches(['{', '}', '\n', ' ']).split(',').map(|name| name.trim().to_string());
        names.filter_map(move |name| Some((name, file.clone()?))).collect::<Vec<_>>()
    });
    named.collect()
}

/// Which files of a crate use which. What is used by a name of the crate's root counts for the file that has it.
fn uses(source: &Path) -> BTreeMap<PathBuf, Vec<PathBuf>> {
    let exports = exports(source);
    let (mut folders, mut uses) = (vec![source.to_path_buf()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let code = code(&path);
                let used = paths(&code).into_iter().filter_map(|used| {
                    let names: Vec<&str> = used.iter().map(String::as_str).collect();
                    let exported = || exports.get(*names.first()?).cloned();
                    file_of(source, &names).or_else(exported).filter(|file| *file != path)
                });
                uses.insert(path.clone(), used.collect());
            }
        }
    }
    uses
}

/// A file that can be reached from itself, with the way.
fn circle(uses: &BTreeMap<PathBuf, Vec<PathBuf>>) -> Option<Vec<PathBuf>> {
    let way_back = |start: &PathBuf| {
        let (mut ways, mut seen) = (vec![vec![start.clone()]], Vec::new());
        while let Some(way) = ways.pop() {
            for next in uses.get(way.last()?).into_iter().flatten() {
                let longer = [way.clone(), vec![next.clone()]].concat();
                if next == start {
                    return Some(longer);
                }
                if !seen.contains(next) {
                    seen.push(next.clone());
                    ways.push(longer);
                }
            }
        }
        None
    };
    uses.keys().find_map(way_back)
}

#[test]
fn no_files_of_a_crate_use_each_other_in_a_circle() {
    for name in real_edges().into_keys() {
        let uses = uses(&workspace_root().join("crates").join(&name).join("src"));
        assert!(uses.values().map(Vec::len).sum::<usize>() > 0 || uses.len() < 4, "{name}: no uses were found");
        assert_eq!(circle(&uses), None, "crate `{name}`");
    }
    let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    let uses = [("a", files(&["b"])), ("b", files(&["c", "d"])), ("c", files(&["a"]))];
    let uses = uses.map(|(file, used)| (PathBuf::from(file), used)).into();
    assert_eq!(circle(&uses), Some(files(&["a", "b", "c", "a"])));
}
