//! `check`, `compute_stats` and `Summary` on sound and on damaged data sets.

mod common;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{fixture, length, record_all};
use robomamba_data::{Dataset, Severity, Summary, check, compute_stats};

#[test]
fn a_recording_is_sound_and_every_episode_is_visited() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("set");
    record_all(&root, 4).unwrap();
    let visited = AtomicUsize::new(0);
    let report = check(&root, &|| {
        visited.fetch_add(1, Ordering::Relaxed);
    });
    let frames = (0..4).map(length).sum();
    assert!(report.findings.is_empty(), "{report}");
    assert_eq!((report.episodes, report.frames, report.images, report.checksums), (4, frames, frames, 5));
    assert_eq!(visited.into_inner(), 4);

    let set = Dataset::open(&root).unwrap();
    let computed = compute_stats(&set, &|| {}).unwrap();
    for (name, stats) in computed.iter() {
        for ((stat, computed), (_, declared)) in stats.entries().zip(set.stats().get(name).unwrap().entries()) {
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * a.abs().max(1.0);
            assert!(computed.iter().zip(declared).all(close), "{name} {stat}: {computed:?} {declared:?}");
        }
    }
    let summary = Summary::of(&set);
    assert_eq!((summary.episodes, summary.successes, summary.tasks.len()), (4, Some(2), 2));
    assert_eq!((summary.tasks[0].episodes, summary.tasks[0].successes), (3, Some(2)));
    assert!(summary.to_string().contains("push the red block"), "{summary}");
}

#[test]
fn what_lerobot_wrote_is_sound() {
    for kind in ["image", "video"] {
        let report = check(fixture(kind), &|| {});
        assert!(report.is_ok(), "{kind}: {report}");
        assert_eq!((report.episodes, report.frames, report.images), (3, 120, 240));
    }
}

/// Every byte of every file is covered by a checksum.
#[test]
fn any_flipped_bit_of_a_recording_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("set");
    record_all(&root, 2).unwrap();
    let files = [
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "data/chunk-000/file-000.parquet",
    ];
    for file in files {
        let path = root.join(file);
        let good = fs::read(&path).unwrap();
        for position in (0..good.len()).step_by(good.len() / 12 + 1) {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(&path, &bad).unwrap();
            let report = check(&root, &|| {});
            assert!(!report.is_ok(), "{file} byte {position}: {report}");
            assert!(report.findings[0].message.contains(file), "{report}");
        }
        fs::write(&path, &good).unwrap();
    }
    fs::write(root.join("notes.txt"), "mine").unwrap();
    let report = check(&root, &|| {});
    assert!(report.is_ok() && report.findings[0].severity == Severity::Warning, "{report}");
    fs::remove_file(root.join(files[4])).unwrap();
    let report = check(&root, &|| {});
    assert!(!report.is_ok() && report.to_string().contains("file-000.parquet is missing"), "{report}");
}

#[test]
fn wrong_statistics_and_times_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("set");
    let cases = [
        (
            "meta/stats.json",
            r#""min": [
            -"#,
            r#""min": [
            -9"#,
            "`action` has min[",
        ),
        ("meta/info.json", r#""fps": 20"#, r#""fps": 21"#, "frame 1: `timestamp` must be"),
    ];
    for (file, from, to, expected) in cases {
        record_all(&root, 2).unwrap();
        fs::remove_file(root.join("meta/recording.json")).unwrap();
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(root.join(file), text.replace(from, to)).unwrap();
        let report = check(&root, &|| {});
        assert!(!report.is_ok() && report.to_string().contains(expected), "{report}");
        fs::remove_dir_all(&root).unwrap();
    }
}
