//! Configuration files that extend others.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::{Result, TrainError};

/// Key that names the file which a configuration extends.
const EXTENDS: &str = "extends";

/// The table in the file `path`, on top of those that it extends.
///
/// `extends = "common.toml"` names a file relative to the one that holds the key. Tables are merged key by key, and the
/// file's own keys win; arrays are replaced as a whole. The result has no key `extends`.
///
/// # Errors
/// When a file is missing or no TOML, or when files extend each other in a circle.
pub(crate) fn resolve(path: &Path) -> Result<Table> {
    resolve_below(path, &mut Vec::new())
}

/// `above` holds the files that led to this one.
fn resolve_below(path: &Path, above: &mut Vec<PathBuf>) -> Result<Table> {
    let refuse = |reason: String| TrainError::ConfigFile { path: path.into(), reason };
    let text = std::fs::read_to_string(path).map_err(|source| match above.last() {
        None => TrainError::Read { path: path.into(), source },
        Some(by) => refuse(format!("cannot be read: {source}; `{EXTENDS}` in {} names it", by.display())),
    })?;
    let mut own: Table = text.parse().map_err(|error: toml::de::Error| refuse(error.to_string()))?;
    let base = match own.remove(EXTENDS) {
        None => return Ok(own),
        Some(Value::String(base)) => path.with_file_name(base),
        Some(other) => return Err(refuse(format!("`{EXTENDS}` must be the path of a file, found {other}"))),
    };
    above.push(path.into());
    let same = |other: &PathBuf| other.canonicalize().ok() == base.canonicalize().ok() && base.exists();
    if let Some(first) = above.iter().position(same) {
        let circle = above[first..].iter().chain([&base]).map(|path| path.display().to_string()).collect::<Vec<_>>();
        return Err(refuse(format!("files extend each other in a circle: {}", circle.join(" -> "))));
    }
    let mut table = resolve_below(&base, above)?;
    merge(&mut table, own);
    Ok(table)
}

/// Overwrites the entries of `table` by those of `own`, tables within tables key by key.
fn merge(table: &mut Table, own: Table) {
    for (key, value) in own {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(own)) => merge(below, own),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}
