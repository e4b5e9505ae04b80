//! A recording that is killed for real, and one that runs out of disk.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::Duration;

use common::{config, record, record_all};
use robomamba_data::{Dataset, DatasetWriter, check};

const EPISODES: usize = 12;
/// Set in the process that is going to be killed: where it records.
const CHILD: &str = "ROBOMAMBA_TEST_RECORD_INTO";

/// Held by a test that starts processes. Between fork and exec, a new process holds the locks of all writers of other
/// tests, even after such a writer is gone.
static STARTS_PROCESSES: Mutex<()> = Mutex::new(());

/// Not a test of its own: what the killed process runs.
#[test]
fn child_records() {
    let Some(target) = std::env::var_os(CHILD) else { return };
    let writer = DatasetWriter::create(Path::new(&target), config(EPISODES)).unwrap();
    for episode in writer.pending() {
        record(&writer, episode, None).unwrap();
        sleep(Duration::from_millis(3));
    }
    writer.finalize().unwrap();
}

fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn killed_at_any_time_it_ends_in_the_same_bytes() {
    let _alone = STARTS_PROCESSES.lock();
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    record_all(&whole, EPISODES).unwrap();
    let target = folder.path().join("killed");
    let mut kills = 0;
    for attempt in 0u64.. {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_records", "--test-threads=1"])
            .env(CHILD, &target)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Later and later, so that every stage is met, and the last attempts may finish.
        sleep(Duration::from_millis(5 + 7 * attempt));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        if target.exists() {
            break;
        }
    }
    assert!(kills > 2, "the recording was over before it could be killed");
    assert_eq!(contents(&whole), contents(&target));
    assert!(check(&target, &|| {}).findings.is_empty());
}

/// A file system of a fixed size that is unmounted when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of_kib(kib: usize) -> Result<Self, String> {
        let disk = Self(tempfile::tempdir().map_err(|error| error.to_string())?);
        disk.mount(&format!("size={kib}k"))?;
        Ok(disk)
    }

    fn mount(&self, options: &str) -> Result<(), String> {
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(self.0.path()).output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_named_and_nothing_half_written_stays() {
    let _alone = STARTS_PROCESSES.lock();
    let mut full_at = Vec::new();
    // From a disk on which not even the settings fit to one that is full only while the data set is put together.
    for kib in (4..).step_by(12) {
        let disk = match Disk::of_kib(kib) {
            Ok(disk) => disk,
            Err(why) => {
                return writeln!(std::io::stderr(), "skipped: a small file system cannot be mounted ({why})")
                    .unwrap_or_default();
            }
        };
        let target = disk.0.path().join("set");
        let Err(error) = record_all(&target, EPISODES) else { break };
        let error = error.to_string();
        let partial = target.with_extension("partial").display().to_string();
        assert!(error.contains("No space left"), "{kib} KiB: {error}");
        assert!(error.starts_with(&format!("cannot write {partial}")), "{kib} KiB: {error}");
        assert!(!target.exists());
        let leftovers: Vec<_> = contents(disk.0.path()).into_keys().filter(|path| path.ends_with(".partial")).collect();
        assert!(leftovers.is_empty(), "{kib} KiB: {leftovers:?}");
        full_at.push(error[format!("cannot write {partial}").len()..].to_string());

        disk.mount("remount,size=20m").unwrap();
        record_all(&target, EPISODES).unwrap();
        assert!(check(&target, &|| {}).findings.is_empty());
        assert_eq!(Dataset::open(&target).unwrap().len(), EPISODES);
    }
    for stage in ["/episode-", "/dataset/"] {
        assert!(full_at.iter().any(|path| path.starts_with(stage)), "the disk was never full at {stage}: {full_at:?}");
    }
}
