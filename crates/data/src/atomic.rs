//! Files appear under their name whole and on disk, or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{DataError, Result};

/// Writes a file through `fill` under a temporary name, syncs it and renames it to `path`.
///
/// # Errors
/// Whatever `fill` returns, or that the file cannot be written; then nothing is left behind.
pub(crate) fn write_file<T>(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<T>) -> Result<T> {
    let temporary = temporary_name(path);
    let result = write_and_rename(path, &temporary, fill);
    if result.is_err() {
        // The first error is the one to report; a leftover is overwritten by the next attempt.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write_and_rename<T>(
    path: &Path,
    temporary: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<T>,
) -> Result<T> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(DataError::write(path))?;
    }
    let mut writer = BufWriter::with_capacity(1 << 18, File::create(temporary).map_err(DataError::write(path))?);
    let value = fill(&mut writer)?;
    let file = writer.into_inner().map_err(|error| DataError::write(path)(error.into_error()))?;
    file.sync_all().map_err(DataError::write(path))?;
    fs::rename(temporary, path).map_err(DataError::write(path))?;
    sync_parent(path).map_err(DataError::write(path))?;
    Ok(value)
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// Makes a rename durable: the folder's own entry must reach the disk too.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
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

/// Tells a file that is not there from one that cannot be read.
pub(crate) fn missing_or_unreadable(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> DataError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => DataError::Missing { what, path },
        _ => DataError::Read { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_leftover() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_json(&path, &1).unwrap();
        let failed = write_file(&path, |writer| {
            writer.write_all(b"half").unwrap();
            Err::<(), _>(DataError::write(&path)(io::ErrorKind::StorageFull.into()))
        });
        assert!(failed.unwrap_err().to_string().contains("a.json"));
        assert_eq!(fs::read(&path).unwrap(), b"1");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
