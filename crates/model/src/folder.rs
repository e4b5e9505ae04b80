//! Folders that are written completely or not at all, and that detect a change of any byte.
//!
//! `manifest.json` lists length and SHA-256 of every file. Its content counts, not its spelling: the order of keys,
//! white space and the case of hexadecimal digits are free.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use robomamba_files::PartialFolder;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use crate::ModelError;

pub(crate) const MANIFEST: &str = "manifest.json";
const FORMAT_VERSION: u32 = 1;

/// What `manifest.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format_version: u32,
    #[serde(deserialize_with = "without_duplicates")]
    files: BTreeMap<String, Fingerprint>,
}

/// A list that names a file twice is refused: readers differ in which entry they believe.
fn without_duplicates<'de, D: Deserializer<'de>>(list: D) -> Result<BTreeMap<String, Fingerprint>, D::Error> {
    struct Files;

    impl<'de> Visitor<'de> for Files {
        type Value = BTreeMap<String, Fingerprint>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object with an entry per file")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut files = BTreeMap::new();
            while let Some((name, fingerprint)) = map.next_entry::<String, Fingerprint>()? {
                if files.insert(name.clone(), fingerprint).is_some() {
                    return Err(A::Error::custom(format_args!("the file `{name}` is listed twice")));
                }
            }
            Ok(files)
        }
    }

    list.deserialize_map(Files)
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fingerprint {
    bytes: u64,
    sha256: String,
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.sha256.eq_ignore_ascii_case(&other.sha256)
    }
}

impl Manifest {
    fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

/// Reads every listed file of `dir` once and compares it with the manifest.
///
/// Returns the names.
pub(crate) fn verify(dir: &Path, required: &[&str]) -> Result<Vec<String>, ModelError> {
    let (names, findings) = findings(dir, required)?;
    findings.into_iter().next().map_or(Ok(names), Err)
}

/// The listed files of `dir` and everything in which they differ from the manifest.
///
/// # Errors
/// When there is no manifest that can be read.
pub(crate) fn findings(dir: &Path, required: &[&str]) -> Result<(Vec<String>, Vec<ModelError>), ModelError> {
    let manifest = read_manifest(dir, required)?;
    let names: Vec<String> = manifest.files.keys().cloned().collect();
    let unlisted = required.iter().filter(|&&name| !manifest.files.contains_key(name));
    let unlisted = unlisted.map(|name| ModelError::Damaged {
        path: dir.join(MANIFEST),
        what: "list of files",
        expected: format!("complete with {name}"),
        found: names.join(", "),
    });
    let listed = format!("by {MANIFEST} {}", names.join(", "));
    let files = manifest.files.iter();
    let differing = files.filter_map(|(name, expected)| difference(&dir.join(name), expected, &listed).err());
    Ok((names.clone(), unlisted.into_iter().chain(differing).collect()))
}

fn difference(path: &Path, expected: &Fingerprint, listed: &str) -> Result<(), ModelError> {
    let path = || path.to_path_buf();
    let found_len = match fs::metadata(path()) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ModelError::MissingFile { path: path(), expected: listed.into() });
        }
        Err(source) => return Err(ModelError::Read { path: path(), source }),
    };
    let damaged = |what, expected: String, found: String| {
        Err(ModelError::Damaged { path: path(), what, expected: format!("{expected} by {MANIFEST}"), found })
    };
    if found_len != expected.bytes {
        return damaged("length in bytes", expected.bytes.to_string(), found_len.to_string());
    }
    let found = fingerprint(&path())?;
    if found != *expected {
        return damaged("SHA-256", expected.sha256.clone(), found.sha256);
    }
    Ok(())
}

/// Writes a manifest of the files `names` of `dir` as they are now.
///
/// Returns the names of files that differ from the older manifest, or that only one of the two manifests lists.
///
/// # Errors
/// When the older manifest has another format version, or a file cannot be read or written.
pub(crate) fn seal(dir: &Path, names: &[&str]) -> Result<Vec<String>, ModelError> {
    let before = match read_manifest(dir, names) {
        Ok(manifest) => manifest.files,
        // Sealing is the remedy for these two.
        Err(ModelError::MissingFile { .. } | ModelError::Damaged { .. }) => BTreeMap::new(),
        Err(other) => return Err(other),
    };
    let fingerprints = names.iter().map(|name| Ok((name.to_string(), fingerprint(&dir.join(name))?)));
    let files: BTreeMap<String, Fingerprint> = fingerprints.collect::<Result<_, ModelError>>()?;
    let all: BTreeSet<&String> = before.keys().chain(files.keys()).collect();
    let changed = all.into_iter().filter(|&name| before.get(name) != files.get(name)).cloned().collect();
    let path = dir.join(MANIFEST);
    let manifest = Manifest { format_version: FORMAT_VERSION, files };
    robomamba_files::write(&path, &manifest.to_json()).map_err(|source| ModelError::Write { path, source })?;
    Ok(changed)
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
    // A name with a separator would leave the folder.
    if let Some(name) = manifest.files.keys().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        return Err(damaged(format!("the file name {name:?}")));
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
    folder: PartialFolder,
    manifest: Manifest,
}

impl Staging {
    /// Starts the folder that will become `target`.
    pub(crate) fn begin(target: &Path) -> Result<Self, ModelError> {
        let folder =
            PartialFolder::begin(target).map_err(|source| ModelError::Write { path: target.into(), source })?;
        Ok(Self { folder, manifest: Manifest { format_version: FORMAT_VERSION, files: BTreeMap::new() } })
    }

    /// Writes the file `name` with `content` and syncs it.
    pub(crate) fn write(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), ModelError> {
        let fingerprint = write_hashed(&self.folder.path().join(name), content)
            .map_err(|source| ModelError::Write { path: self.folder.target().join(name), source })?;
        self.manifest.files.insert(name.into(), fingerprint);
        Ok(())
    }

    /// Adds the manifest and puts the folder in its place.
    pub(crate) fn publish(self) -> Result<(), ModelError> {
        let json = self.manifest.to_json();
        let path = self.folder.target().to_path_buf();
        write_hashed(&self.folder.path().join(MANIFEST), |out| out.write_all(&json))
            .and_then(|_| self.folder.publish())
            .map_err(|source| ModelError::Write { path, source })
    }
}

fn write_hashed(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Fingerprint> {
    robomamba_files::write_synced(
        path,
        |error| error,
        |file| {
            let mut out = Hashing { inner: file, hasher: Sha256::new(), bytes: 0 };
            content(&mut out)?;
            Ok(Fingerprint { bytes: out.bytes, sha256: hex::encode(out.hasher.finalize()) })
        },
    )
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
