//! The folder of a run, which appears when it is complete, and files that are replaced in one step.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use robomamba_files::PartialFolder;

/// A folder that gets its name when it is complete; dropped before that, it leaves nothing.
pub struct RunFolder(PartialFolder);

impl RunFolder {
    /// Prepares the folder `target`, which must not exist yet or be empty.
    ///
    /// # Errors
    /// When something is there, or a folder cannot be created.
    pub fn create(target: &Path) -> Result<Self> {
        let is_occupied = fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some()) || target.is_file();
        if is_occupied {
            bail!("{} already exists; choose another folder for --out", target.display());
        }
        Ok(Self(PartialFolder::begin(target).with_context(|| format!("cannot create {}", target.display()))?))
    }

    /// Where files go until the folder is complete.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes one file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_atomically(&self.path().join(name), bytes)
    }

    /// Gives the folder its name and returns it.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn commit(self) -> Result<PathBuf> {
        let target = self.0.target().to_path_buf();
        self.0.publish().with_context(|| format!("cannot write {}", target.display()))?;
        Ok(target)
    }
}

/// Replaces the file `path` by `bytes` in one step.
///
/// # Errors
/// When it cannot be written; an old file stays as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    robomamba_files::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
