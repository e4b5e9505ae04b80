//! Files and folders that appear under their name whole and on disk, or not at all.
//!
//! Everything is written beside its destination as `.NAME.partial`, synced, and renamed. A crash at any moment leaves
//! the old content or the new one. What a killed process left behind is overwritten by the next attempt, so a
//! destination has one writer at a time.
//!
//! ```
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("figures.json");
//! robomamba_files::write(&path, b"{}")?;
//! assert_eq!(std::fs::read(&path)?, b"{}");
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Size of the buffer between a writer and its file in bytes.
const BUFFER_BYTES: usize = 1 << 18;

/// Replaces the file `path` by `bytes` in one step.
///
/// # Errors
/// When it cannot be written; an older file stays as it was.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |error| error, |out| out.write_all(bytes))
}

/// Replaces the file `path` by what `fill` writes, in one step. Missing parent folders are created.
///
/// # Errors
/// Those of `fill`, and those of the system as `system` turns them into the caller's error. An older file stays as it
/// was and nothing is left beside it.
pub fn write_with<T, E>(
    path: &Path,
    system: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<T, E>,
) -> Result<T, E> {
    let partial = partial_name(path).map_err(&system)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(&system)?;
    }
    let written = write_synced(&partial, &system, fill).and_then(|value| {
        fs::rename(&partial, path).and_then(|()| sync_parent(path)).map_err(&system)?;
        Ok(value)
    });
    if written.is_err() {
        // The first error is the one to report; the next attempt overwrites a leftover.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Creates the file `path` inside of a [`PartialFolder`], where nobody looks for it yet, and syncs it.
///
/// # Errors
/// Those of `fill`, and those of the system as `system` turns them into the caller's error.
pub fn write_synced<T, E>(
    path: &Path,
    system: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<T, E>,
) -> Result<T, E> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, File::create(path).map_err(&system)?);
    let value = fill(&mut out)?;
    let file = out.into_inner().map_err(|error| system(error.into_error()))?;
    file.sync_all().map_err(system)?;
    Ok(value)
}

/// A folder that is being written beside its destination. Dropped before [`PartialFolder::publish`], it disappears.
#[derive(Debug)]
pub struct PartialFolder {
    target: PathBuf,
    partial: PathBuf,
}

impl PartialFolder {
    /// Starts the folder that will become `target`, and removes what an interrupted attempt left behind.
    ///
    /// # Errors
    /// When `target` is a file or has no name, or the folder cannot be created.
    pub fn begin(target: &Path) -> io::Result<Self> {
        if target.exists() && !target.is_dir() {
            return Err(io::Error::other("there is a file of this name"));
        }
        let partial = partial_name(target)?;
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        Ok(Self { target: target.into(), partial })
    }

    /// Where files go until the folder is complete.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// The name that the folder will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Puts the folder in its place; the files in it must be synced. An older folder is exchanged in the same step
    /// where the system can, and removed.
    ///
    /// # Errors
    /// When the system refuses; the older folder is still there then.
    pub fn publish(self) -> io::Result<()> {
        sync_folder(&self.partial)?;
        put_in_place(&self.partial, &self.target)?;
        sync_parent(&self.target)
    }
}

impl Drop for PartialFolder {
    /// Removes what was not published, or the older folder that was exchanged for the new one.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.partial);
    }
}

/// Makes a rename of `path` survive a power failure: the entry in its folder must reach the disk too.
///
/// # Errors
/// When the folder cannot be opened or synced.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_folder)
}

/// Syncs the entries of a folder. Only Unix can open a folder; elsewhere nothing happens.
fn sync_folder(dir: &Path) -> io::Result<()> {
    if cfg!(unix) && !dir.as_os_str().is_empty() { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// `.NAME.partial` in the same folder, so that a rename stays within one file system.
fn partial_name(target: &Path) -> io::Result<PathBuf> {
    let name = target.file_name().ok_or_else(|| io::Error::other("the path has no name"))?;
    Ok(target.with_file_name(format!(".{}.partial", name.to_string_lossy())))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_leftover() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write(&path, b"old").unwrap();
        let full = |out: &mut BufWriter<File>| {
            out.write_all(b"half")?;
            Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull))
        };
        assert_eq!(write_with(&path, |error| error, full).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a.json"]);
        fs::write(dir.path().join(".a.json.partial"), "of a killed process").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), names(dir.path())), (&b"new"[..], vec!["a.json".into()]));
    }

    #[test]
    fn folders_are_replaced_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("folder");
        for content in ["one", "two"] {
            let folder = PartialFolder::begin(&target).unwrap();
            write_synced(&folder.path().join(content), |error| error, |out| out.write_all(b"x")).unwrap();
            folder.publish().unwrap();
            assert_eq!(names(&target), [content], "nothing of the older folder is left");
        }
        let dropped = PartialFolder::begin(&target).unwrap();
        fs::write(dropped.path().join("three"), "x").unwrap();
        drop(dropped);
        assert_eq!((names(&target), names(dir.path())), (vec!["two".to_string()], vec!["folder".to_string()]));
        let file = dir.path().join("file");
        write(&file, b"x").unwrap();
        assert!(PartialFolder::begin(&file).unwrap_err().to_string().contains("a file of this name"));
        assert!(PartialFolder::begin(Path::new("/")).is_err());
    }
}
