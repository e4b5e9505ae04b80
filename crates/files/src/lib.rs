//! Files and folders that appear under their name whole and on disk, or not at all.
//!
//! Everything is written beside its destination as `.NAME.partial`, synced, and renamed. A crash leaves the old content
//! or the new one. The next attempt overwrites what a killed process left behind, so a destination has one writer at a
//! time. That rules out libraries with random temporary names: their leftovers accumulate.
//!
//! Replacing a folder takes one step on Linux and macOS. Elsewhere it takes several; a crash between them leaves the
//! older folder as `.NAME.old`, and the next attempt restores it.
//!
//! ```
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("figures.json");
//! robomamba_files::write(&path, b"{}")?;
//! assert_eq!(std::fs::read(&path)?, b"{}");
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]

use std::ffi::OsString;
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
/// was, and nothing is left beside it.
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

/// Makes `path` a symbolic link to the folder `destination` in one step, in place of an older link.
///
/// # Errors
/// When the system refuses; the older link stays unless only the last sync failed.
pub fn link_folder(path: &Path, destination: &Path) -> io::Result<()> {
    let partial = partial_name(path)?;
    // On Windows a link to a folder is removed as a folder. A leftover that stays makes the next step fail.
    let remove_partial = || fs::remove_file(&partial).or_else(|_| fs::remove_dir(&partial));
    let _ = remove_partial();
    #[cfg(unix)]
    std::os::unix::fs::symlink(destination, &partial)?;
    #[cfg(windows)]
    std::os::windows::fs::symlink_dir(destination, &partial)?;
    if let Err(error) = fs::rename(&partial, path) {
        let _ = remove_partial();
        return Err(error);
    }
    sync_parent(path)
}

/// A folder that is written beside its destination. Dropped before [`PartialFolder::publish`], it disappears.
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
        let old = beside(target, ".old")?;
        if old.exists() && !target.exists() {
            fs::rename(&old, target)?;
        }
        for leftover in [&partial, &old] {
            if leftover.exists() {
                fs::remove_dir_all(leftover)?;
            }
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

    /// Puts the folder in its place and removes an older one. The files in it must be synced; its folders are synced
    /// here.
    ///
    /// # Errors
    /// When the system refuses to sync or rename. The older folder stays unless only the last sync failed.
    pub fn publish(self) -> io::Result<()> {
        sync_folders(&self.partial)?;
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
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_folder(Path::new(".")),
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

/// Makes the entries of `dir` and of all folders in it survive a power failure. Links are not followed.
///
/// # Errors
/// When a folder cannot be read or synced.
pub fn sync_folders(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync_folder(dir)
}

/// Syncs the entries of a folder. Only Unix can open a folder; elsewhere nothing happens.
fn sync_folder(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

fn partial_name(target: &Path) -> io::Result<PathBuf> {
    beside(target, ".partial")
}

/// `.NAME` and `suffix` in the same folder, so that a rename stays within one file system.
fn beside(target: &Path, suffix: &str) -> io::Result<PathBuf> {
    let name = target.file_name().ok_or_else(|| io::Error::other("the path has no name"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(suffix);
    Ok(target.with_file_name(hidden))
}

fn put_in_place(partial: &Path, target: &Path) -> io::Result<()> {
    if !target.exists() {
        return fs::rename(partial, target);
    }
    if exchange(partial, target).is_ok() {
        return Ok(());
    }
    exchange_in_steps(partial, target)
}

/// Exchanges two folders where the system has no call for it. When the second step fails, the first is undone.
fn exchange_in_steps(partial: &Path, target: &Path) -> io::Result<()> {
    let old = beside(target, ".old")?;
    fs::rename(target, &old)?;
    if let Err(error) = fs::rename(partial, target) {
        let _ = fs::rename(&old, target);
        return Err(error);
    }
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

    #[test]
    fn without_an_exchange_a_failure_or_a_crash_between_the_steps_keeps_the_older_folder() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("folder");
        fs::create_dir_all(target.join("older")).unwrap();
        let partial = partial_name(&target).unwrap();
        assert!(exchange_in_steps(&partial, &target).is_err(), "there is nothing to put in its place");
        assert_eq!(names(&target), ["older"]);
        fs::create_dir_all(partial.join("newer")).unwrap();
        exchange_in_steps(&partial, &target).unwrap();
        assert_eq!((names(&target), names(&partial)), (vec!["newer".to_string()], vec!["older".to_string()]));

        // A crash after the first step.
        fs::rename(&target, dir.path().join(".folder.old")).unwrap();
        let next = PartialFolder::begin(&target).unwrap();
        assert_eq!((names(&target), names(next.path())), (vec!["newer".to_string()], vec![]));
        drop(next);
        assert_eq!(names(dir.path()), ["folder"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_replaced_in_one_step_and_over_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let last = dir.path().join("last");
        for name in ["000010", "000020"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            std::os::unix::fs::symlink("of a killed process", dir.path().join(".last.partial")).unwrap();
            link_folder(&last, Path::new(name)).unwrap();
            assert_eq!(fs::read_link(&last).unwrap(), Path::new(name));
            assert!(last.is_dir());
        }
        assert_eq!(names(dir.path()), ["000010", "000020", "last"]);
        fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(link_folder(&dir.path().join("folder"), Path::new("000010")).is_err(), "a folder is not replaced");
        assert_eq!(names(dir.path()), ["000010", "000020", "folder", "last"]);
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_text_stay_apart() {
        use std::os::unix::ffi::OsStrExt;
        let name = |byte| Path::new("/tmp").join(std::ffi::OsStr::from_bytes(&[b'a', byte]));
        assert_ne!(partial_name(&name(0xfe)).unwrap(), partial_name(&name(0xff)).unwrap());
    }
}
