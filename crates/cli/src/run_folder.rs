//! Output that appears whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A folder that gets its name when it is complete; dropped before that, it leaves nothing.
pub struct RunFolder {
    target: PathBuf,
    partial: PathBuf,
}

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
        let partial = beside(target)?;
        fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
        Ok(Self { target: target.into(), partial })
    }

    /// Where files go until the folder is complete.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Writes one file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_synced(&self.partial.join(name), bytes)
    }

    /// Gives the folder its name and returns it.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn commit(self) -> Result<PathBuf> {
        let context = || format!("cannot rename {} to {}", self.partial.display(), self.target.display());
        fs::rename(&self.partial, &self.target).with_context(context)?;
        Ok(self.target.clone())
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // After a commit there is nothing left under this name.
        let _ = fs::remove_dir_all(&self.partial);
    }
}

/// Replaces the file `path` by `bytes` in one step.
///
/// # Errors
/// When it cannot be written; an old file stays as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = beside(path)?;
    let written = write_synced(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display())));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// A hidden name in the same folder, so that renaming stays within one file system.
fn beside(target: &Path) -> Result<PathBuf> {
    let name = target.file_name().with_context(|| format!("{} has no name", target.display()))?;
    Ok(target.with_file_name(format!(".{}.{}.partial", name.to_string_lossy(), std::process::id())))
}
