//! JSON and other files of a data set, written whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{DataError, Result};

/// Writes a file through `fill` under a temporary name, syncs it and renames it to `path`.
///
/// # Errors
/// Those of `fill`, and when the file cannot be written; nothing is left behind then.
pub(crate) fn write_file<T>(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<T>) -> Result<T> {
    robomamba_files::write_with(path, DataError::write(path), fill)
}

/// Writes JSON as upstream does: indented by four spaces, no newline at the end.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    value.serialize(&mut serializer).map_err(|source| DataError::Json { path: path.into(), source })?;
    write_file(path, |writer| writer.write_all(&text).map_err(DataError::write(path)))
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T> {
    let text = fs::read(path).map_err(missing_or_unreadable(path, what))?;
    serde_json::from_slice(&text).map_err(|source| DataError::Json { path: path.into(), source })
}

/// Distinguishes an absent file from an unreadable one.
pub(crate) fn missing_or_unreadable(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> DataError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => DataError::Missing { what, path },
        _ => DataError::Read { path, source },
    }
}
