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

/// Paths of the files that fit `pattern`, `*` and an ending, sorted: those under version control, or where git does not
/// answer, as in an unpacked archive, all but what builds and runs leave.
pub fn tracked(pattern: &str) -> Vec<String> {
    let output = Command::new("git").args(["ls-files", pattern]).current_dir(root()).output();
    let listed =
        output.ok().filter(|output| output.status.success()).and_then(|out| String::from_utf8(out.stdout).ok());
    let listed: Vec<String> = listed.unwrap_or_default().lines().map(str::to_string).collect();
    let all = if listed.is_empty() { walked(pattern.trim_start_matches('*')) } else { listed };
    let mut paths: Vec<String> = all.into_iter().filter(|path| root().join(path).exists()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no file fits {pattern}");
    paths
}

fn walked(ending: &str) -> Vec<String> {
    let (mut folders, mut paths) = (vec![root().to_path_buf()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let is_output = name == "target" || folder == root() && ["runs", "data"].contains(&&*name);
            if path.is_dir() && !name.starts_with('.') && !is_output {
                folders.push(path);
            } else if name.ends_with(ending) && !path.is_dir() {
                let relative = path.strip_prefix(root()).expect("below the root");
                paths.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    paths
}
