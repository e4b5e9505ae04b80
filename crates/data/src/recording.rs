//! `meta/recording.json`: how a data set of ours was made, and checksums of its files.
//!
//! LeRobot ignores this file. An interrupted recording continues only with the settings in it, and
//! [`check`](crate::check()) finds every flipped bit by its checksums.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::atomic::{read_json, write_json};
use crate::features::Features;
use crate::{DataError, Result, layout};

/// Settings of a recording, and afterwards the checksums of all its files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// This crate and its version.
    pub writer: String,
    /// Kind of robot.
    pub robot_type: String,
    /// Frames per second.
    pub fps: u32,
    /// Number of episodes.
    pub episodes: usize,
    /// Features without those that the format adds.
    pub features: Features,
    /// What else determines the content (task family, seeds, versions), as the recorder states it.
    pub recipe: Value,
    /// All other files of the data set; empty while it is being recorded.
    #[serde(default)]
    pub files: Vec<FileDigest>,
}

/// Checksum of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Path inside the data set, with slashes.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl FileDigest {
    pub(crate) fn of(root: &Path, path: &str) -> Result<Self> {
        let full = root.join(path);
        let mut file = File::open(&full).map_err(DataError::read(&full))?;
        let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
        loop {
            let read = file.read(&mut buffer).map_err(DataError::read(&full))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            bytes += read as u64;
        }
        let sha256 = hex::encode(hasher.finalize());
        Ok(Self { path: path.into(), bytes, sha256 })
    }
}

impl Recording {
    pub(crate) fn load(root: &Path, path: &str) -> Result<Self> {
        read_json(&root.join(path), "settings of the recording")
    }

    pub(crate) fn save(&self, root: &Path, path: &str) -> Result<()> {
        write_json(&root.join(path), self)
    }

    /// What differs in the settings, for a message; None when they are equal.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let pair = |name: &str, a: String, b: String| (a != b).then(|| format!("`{name}` {a} there, {b} here"));
        let features = |recording: &Self| serde_json::to_string(&recording.features).unwrap_or_default();
        pair("writer", self.writer.clone(), other.writer.clone())
            .or_else(|| pair("robot_type", self.robot_type.clone(), other.robot_type.clone()))
            .or_else(|| pair("fps", self.fps.to_string(), other.fps.to_string()))
            .or_else(|| pair("episodes", self.episodes.to_string(), other.episodes.to_string()))
            .or_else(|| pair("features", features(self), features(other)))
            .or_else(|| pair("recipe", self.recipe.to_string(), other.recipe.to_string()))
    }

    /// Adds the checksums of all files below `root`.
    pub(crate) fn digest_files(&mut self, root: &Path) -> Result<()> {
        self.files = files_below(root)?
            .iter()
            .filter(|path| *path != layout::RECORDING)
            .map(|path| FileDigest::of(root, path))
            .collect::<Result<_>>()?;
        Ok(())
    }
}

/// SHA-256 in hexadecimal over the names and contents of all files below `root`.
///
/// Data sets that are equal to the byte have equal digests.
///
/// # Errors
/// When a file cannot be read.
pub fn digest(root: impl AsRef<Path>) -> Result<String> {
    let root = root.as_ref();
    let files: Vec<_> =
        files_below(root)?.into_par_iter().map(|path| FileDigest::of(root, &path)).collect::<Result<_>>()?;
    let mut hasher = Sha256::new();
    for FileDigest { path, bytes, sha256 } in &files {
        hasher.update(format!("{path}\n{bytes} {sha256}\n"));
    }
    Ok(hex::encode(hasher.finalize()))
}

/// Paths of all files below `root`, with slashes, sorted.
pub(crate) fn files_below(root: &Path) -> Result<Vec<String>> {
    let (mut folders, mut files) = (vec![PathBuf::new()], Vec::new());
    while let Some(folder) = folders.pop() {
        let full = root.join(&folder);
        for entry in fs::read_dir(&full).map_err(DataError::read(&full))? {
            let entry = entry.map_err(DataError::read(&full))?;
            let path = folder.join(entry.file_name());
            if entry.file_type().map_err(DataError::read(&full))?.is_dir() {
                folders.push(path);
            } else {
                let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
                files.push(parts.join("/"));
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_names_and_contents() {
        let folder = |files: &[(&str, &str)]| {
            let folder = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            digest(folder.path()).unwrap()
        };
        let first = folder(&[("data/a", "one"), ("meta/b", "two")]);
        assert_eq!(folder(&[("meta/b", "two"), ("data/a", "one")]), first);
        for other in [
            [("data/a", "one"), ("meta/b", "twp")],
            [("data/c", "one"), ("meta/b", "two")],
            [("data/a", "two"), ("meta/b", "one")],
            [("data/a", "onet"), ("meta/b", "wo")],
        ] {
            assert_ne!(folder(&other), first, "{other:?}");
        }
        assert!(digest(Path::new("/nowhere/at/all")).unwrap_err().to_string().contains("/nowhere/at/all"));
    }
}
