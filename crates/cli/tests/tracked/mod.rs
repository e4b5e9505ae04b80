//! The files of the repository.

use std::path::Path;
use std::process::Command;

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The content of a text file.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Paths of the files under version control that fit `pattern`, sorted; those that were just removed are left out.
pub fn tracked(pattern: &str) -> Vec<String> {
    let output = Command::new("git").args(["ls-files", pattern]).current_dir(root()).output().expect("git runs");
    let list = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let mut paths: Vec<String> = list.lines().map(str::to_string).filter(|path| root().join(path).exists()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no file fits {pattern}; the tests run in a checkout");
    paths
}
