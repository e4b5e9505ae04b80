//! Folders that are written completely or not at all, and that know when a byte of them has changed.
//!
//! `manifest.json` lists length and SHA-256 of every file. A folder is written beside its destination as
//! `.<name>.partial`, synced, and put in place by one rename; where the system can, an older folder is
//! exchanged in the same step, so that a crash at any moment leaves the old one or the new one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ModelError;

pub(crate) const MANIFEST: &str = "manifest.json";
const FORMAT_VERSION: u32 = 1;

/// What `manifest.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format_version: u32,
    files: BTreeMap<String, Fingerprint>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fingerprint {
    bytes: u64,
    sha256: String,
}

impl Manifest {
    fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

/// Reads every listed file of `dir` once and compares it with the manifest; returns the names.
pub(crate) fn verify(dir: &Path, required: &[&str]) -> Result<Vec<String>, ModelError> {
    let manifest = read_manifest(dir, required)?;
    let listed = format!("by {MANIFEST} {}", manifest.files.keys().cloned().collect::<Vec<_>>().join(", "));
    let missing = |name: &str| ModelError::MissingFile { path: dir.join(name), expected: listed.clone() };
    if let Some(name) = required.iter().find(|&&name| !manifest.files.contains_key(name)) {
        return Err(ModelError::Damaged {
            path: dir.join(MANIFEST),
            what: "list of files",
            expected: format!("complete with {name}"),
            found: manifest.files.into_keys().collect::<Vec<_>>().join(", "),
        });
    }
    for (name, expected) in &manifest.files {
        let path = dir.join(name);
        let found_len = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(name)),
            Err(source) => return Err(ModelError::Read { path, source }),
        };
        let damaged = |what, expected: String, found: String| ModelError::Damaged {
            path: path.clone(),
            what,
            expected: format!("{expected} by {MANIFEST}"),
            found,
        };
        if found_len != expected.bytes {
            return Err(damaged("length in bytes", expected.bytes.to_string(), found_len.to_string()));
        }
        let found = fingerprint(&path)?;
        if found != *expected {
            return Err(damaged("SHA-256", expected.sha256.clone(), found.sha256));
        }
    }
    Ok(manifest.files.into_keys().collect())
}

fn read_manifest(dir: &Path, required: &[&str]) -> Result<Manifest, ModelError> {
    let path = dir.join(MANIFEST);
    let json = match fs::read(&path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => {
            let expected = format!("{}, {MANIFEST}", required.join(", "));
            return Err(ModelError::MissingFile { path, expected });
        }
        Err(source) => return Err(ModelError::Read { path, source }),
    };
    let damaged = |found: String| ModelError::Damaged {
        path: path.clone(),
        what: "content",
        expected: "the list of files and their SHA-256".into(),
        found,
    };
    let manifest: Manifest = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    if manifest.format_version != FORMAT_VERSION {
        return Err(ModelError::FormatVersion { path, expected: FORMAT_VERSION, found: manifest.format_version });
    }
    // A name with a separator would reach outside of the folder.
    if let Some(name) = manifest.files.keys().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        return Err(damaged(format!("the file name {name:?}")));
    }
    // All that a flipped bit can do without breaking the JSON is change an entry, which the files then
    // contradict, or its spelling.
    if manifest.to_json() != json {
        return Err(damaged("another spelling of the same list".into()));
    }
    Ok(manifest)
}

fn fingerprint(path: &Path) -> Result<Fingerprint, ModelError> {
    let read = |source| ModelError::Read { path: path.into(), source };
    let mut file = File::open(path).map_err(read)?;
    let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let n = file.read(&mut buffer).map_err(read)?;
        if n == 0 {
            return Ok(Fingerprint { bytes, sha256: hex::encode(hasher.finalize()) });
        }
        hasher.update(&buffer[..n]);
        bytes += n as u64;
    }
}

/// A folder that is being written. Dropped before [`Staging::publish`], it disappears.
pub(crate) struct Staging {
    target: PathBuf,
    partial: PathBuf,
    manifest: Manifest,
}

impl Staging {
    /// Starts the folder that will become `target`.
    pub(crate) fn begin(target: &Path) -> Result<Self, ModelError> {
        let write = |source| ModelError::Write { path: target.into(), source };
        let name = target.file_name().ok_or_else(|| write(io::Error::other("the path names no folder")))?;
        if target.exists() && !target.is_dir() {
            return Err(write(io::Error::other("there is a file of this name")));
        }
        let partial = target.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        // What an interrupted run left behind.
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(write)?;
        }
        fs::create_dir_all(&partial).map_err(write)?;
        let manifest = Manifest { format_version: FORMAT_VERSION, files: BTreeMap::new() };
        Ok(Self { target: target.into(), partial, manifest })
    }

    /// Writes the file `name` with `content` and syncs it.
    pub(crate) fn write(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), ModelError> {
        let fingerprint = write_synced(&self.partial.join(name), content)
            .map_err(|source| ModelError::Write { path: self.target.join(name), source })?;
        self.manifest.files.insert(name.into(), fingerprint);
        Ok(())
    }

    /// Adds the manifest and puts the folder in its place.
    pub(crate) fn publish(self) -> Result<(), ModelError> {
        let json = self.manifest.to_json();
        write_synced(&self.partial.join(MANIFEST), |out| out.write_all(&json))
            .and_then(|_| sync_dir(&self.partial))
            .and_then(|()| put_in_place(&self.partial, &self.target))
            .and_then(|()| self.target.parent().map_or(Ok(()), sync_dir))
            .map_err(|source| ModelError::Write { path: self.target.clone(), source })
    }
}

impl Drop for Staging {
    /// Removes what was not published, or the older folder that was exchanged for the new one.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.partial);
    }
}

fn write_synced(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Fingerprint> {
    let mut out = Hashing { inner: BufWriter::new(File::create_new(path)?), hasher: Sha256::new(), bytes: 0 };
    content(&mut out)?;
    let file = out.inner.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(Fingerprint { bytes: out.bytes, sha256: hex::encode(out.hasher.finalize()) })
}

/// Counts and hashes what passes through.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(data)?;
        self.hasher.update(&data[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Makes a rename in `dir` survive a power failure. Only Unix can open a folder to sync it.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) && !dir.as_os_str().is_empty() { File::open(dir)?.sync_all() } else { Ok(()) }
}

fn put_in_place(partial: &Path, target: &Path) -> io::Result<()> {
    if !target.exists() {
        return fs::rename(partial, target);
    }
    if exchange(partial, target).is_ok() {
        return Ok(());
    }
    let old = partial.with_extension("old");
    fs::rename(target, &old)?;
    fs::rename(partial, target)?;
    fs::rename(&old, partial)
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
