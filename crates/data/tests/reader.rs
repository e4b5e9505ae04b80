//! Reading what LeRobot 0.6.1 wrote: every value, both cameras, both kinds of storage; and damaged copies of it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use common::{fixture, golden};
use robomamba_data::{DataError, Dataset, FeatureStats, decode_png};
use robomamba_policy::Image;
use serde_json::Value;
use sha2::{Digest, Sha256};

const CAMERAS: [&str; 2] = ["observation.images.top", "observation.images.wrist"];

fn golden_values() -> Value {
    serde_json::from_slice(&fs::read(golden("fixture.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn sha256(image: &Image) -> String {
    Sha256::digest(image.data()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_value_of_both_fixtures_is_right() {
    let golden = golden_values();
    for kind in ["image", "video"] {
        let set = Dataset::open(fixture(kind)).unwrap();
        assert_eq!((set.len(), set.frames(), set.fps()), (3, 120, 20));
        assert_eq!(set.tasks().collect::<Vec<_>>(), ["push the red block", "reach the zone"]);
        assert_eq!(set.robot().unwrap().action.names, ["dx", "dy", "grip"]);
        for (episode, golden) in set.iter().map(Result::unwrap).zip(golden["episodes"].as_array().unwrap()) {
            assert_eq!(episode.len(), 30 + 10 * episode.index());
            assert_eq!(
                &*episode.tasks()[0],
                ["push the red block", "push the red block", "reach the zone"][episode.index()]
            );
            assert_eq!((episode.success(), set.episodes()[episode.index()].success), (Some(true), Some(true)));
            let columns = golden["columns"].as_object().unwrap();
            assert_eq!(episode.names().count(), columns.len());
            for (name, values) in columns {
                // All columns are exact in float32; serde_json reads float64 with an error in the last place.
                let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect::<Vec<_>>();
                assert_eq!(
                    narrow(episode.column(name).unwrap().to_f64().unwrap()),
                    narrow(numbers(values)),
                    "{kind} {name}"
                );
            }
        }
    }
}

#[test]
fn every_image_is_right() {
    let golden = golden_values();
    for episode in Dataset::open(fixture("image")).unwrap().load().unwrap() {
        for camera in CAMERAS {
            let hashes = golden["episodes"][episode.index()]["images"][camera].as_array().unwrap();
            let images = episode.camera(camera).unwrap().images().map(|image| sha256(&image.unwrap()));
            assert_eq!(
                images.collect::<Vec<_>>(),
                hashes.iter().map(|hash| hash.as_str().unwrap()).collect::<Vec<_>>()
            );
        }
    }
}

/// Largest and mean absolute difference.
fn difference(a: &[u8], b: &[u8]) -> (u8, f64) {
    let each = || a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    (each().max().unwrap(), each().map(f64::from).sum::<f64>() / a.len() as f64)
}

#[test]
fn video_frames_equal_those_of_ffmpeg_and_resemble_the_images() {
    let golden = decode_png(&fs::read(golden("video.png")).unwrap(), "video.png").unwrap();
    let videos: Vec<_> = Dataset::open(fixture("video")).unwrap().load().unwrap();
    let images: Vec<_> = Dataset::open(fixture("image")).unwrap().load().unwrap();
    let place = |index: usize| {
        if index < 30 {
            (0, index)
        } else if index < 70 {
            (1, index - 30)
        } else {
            (2, index - 70)
        }
    };
    for (side, camera) in CAMERAS.into_iter().enumerate() {
        for (row, index) in [0, 1, 29, 30, 53, 69, 70, 119].into_iter().enumerate() {
            let (episode, frame) = place(index);
            let ours = videos[episode].camera(camera).unwrap().decode(frame).unwrap();
            let tile = |column: usize| -> Vec<u8> {
                let line = |line: usize| &golden.data()[((row * 96 + line) * 384 + column * 96) * 3..][..96 * 3];
                (0..96).flat_map(line).copied().collect()
            };
            for (converter, column, limit) in [("swscale", side, 4), ("the formula", side + 2, 1)] {
                let (max, mean) = difference(ours.data(), &tile(column));
                assert!(
                    max <= limit && mean < 0.2,
                    "{camera} frame {index}: {max}, on average {mean:.3} from {converter}"
                );
            }
            let png = images[episode].camera(camera).unwrap().decode(frame).unwrap();
            let (_, mean) = difference(ours.data(), png.data());
            assert!(mean < 2.0, "{camera} frame {index}: differs from the image by {mean:.3} on average");
        }
        for episode in &videos {
            let camera = episode.camera(camera).unwrap();
            for (frame, image) in camera.images().enumerate() {
                assert_eq!(image.unwrap(), camera.decode(frame).unwrap(), "in order and by itself");
            }
        }
    }
}

#[test]
fn our_statistics_are_exact_and_upstreams_are_read() {
    let golden = golden_values();
    let set = Dataset::open(fixture("image")).unwrap();
    let upstream = set.episode_stats().unwrap();
    for episode in set.load().unwrap() {
        for name in episode.names() {
            let column = episode.column(name).unwrap();
            let ours = FeatureStats::of_vectors(&column.to_f64().unwrap(), column.dim());
            let theirs = upstream[episode.index()].get(name).unwrap();
            assert_eq!((ours.layout, ours.count), (theirs.layout, theirs.count), "{name}");
            for ((stat, ours), (_, theirs)) in ours.entries().zip(theirs.entries()) {
                let exact = golden["episodes"][episode.index()]["stats"][name].get(stat).map(numbers);
                for (d, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                    // Upstream sums in float32, and takes the std from a difference of large sums.
                    let tolerance = if stat == "std" { 5e-4 } else { 2e-5 * theirs.abs().max(1.0) };
                    assert!((ours - theirs).abs() <= tolerance, "{name} {stat}: {ours} {theirs}");
                    if let Some(exact) = &exact {
                        assert!((ours - exact[d]).abs() <= 1e-12 * exact[d].abs().max(1.0), "{name} {stat}");
                    }
                }
            }
        }
    }
    let parts: Vec<&FeatureStats> = upstream.iter().map(|stats| stats.get("observation.state").unwrap()).collect();
    let whole = FeatureStats::aggregate(&parts).unwrap();
    for ((stat, ours), (_, theirs)) in whole.entries().zip(set.stats().get("observation.state").unwrap().entries()) {
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert!((ours - theirs).abs() <= 1e-9 * theirs.abs().max(1.0), "{stat}: {ours} {theirs}");
        }
    }
}

/// A copy of a fixture to damage.
fn copy(kind: &str) -> (tempfile::TempDir, PathBuf) {
    fn walk(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                walk(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("set");
    walk(&fixture(kind), &root);
    (folder, root)
}

/// Opens a data set and decodes all of it.
fn read_all(root: &Path) -> Result<(), DataError> {
    for episode in Dataset::open(root)?.iter() {
        for camera in episode?.cameras() {
            camera.images().try_for_each(|image| image.map(drop))?;
        }
    }
    Ok(())
}

const FILES: [&str; 6] = [
    "meta/info.json",
    "meta/stats.json",
    "meta/tasks.parquet",
    "meta/episodes/chunk-000/file-000.parquet",
    "data/chunk-000/file-000.parquet",
    "videos/observation.images.wrist/chunk-000/file-000.mp4",
];

#[test]
fn a_missing_or_truncated_file_is_named() {
    for file in FILES {
        let (_folder, root) = copy("video");
        let bytes = fs::read(root.join(file)).unwrap();
        fs::remove_file(root.join(file)).unwrap();
        let error = read_all(&root).unwrap_err();
        assert!(matches!(error, DataError::Missing { .. }), "{file}: {error:?}");
        assert!(error.to_string().contains(file), "{error}");
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            fs::write(root.join(file), &bytes[..length]).unwrap();
            let error = read_all(&root).expect_err(file).to_string();
            assert!(error.contains(file), "{length} bytes: {error}");
        }
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let files =
        [("image", FILES[4]), ("video", FILES[4]), ("video", FILES[5]), ("video", FILES[3]), ("video", FILES[2])];
    thread::scope(|scope| {
        for (kind, file) in files {
            scope.spawn(move || flip_bytes(kind, file));
        }
    });
}

/// Reads copies of a fixture; each has another flipped byte of `file`.
fn flip_bytes(kind: &str, file: &str) {
    let (_folder, root) = copy(kind);
    let good = fs::read(root.join(file)).unwrap();
    for position in (0..good.len()).step_by(good.len() / 50 + 1) {
        let mut bad = good.clone();
        bad[position] ^= 0x55;
        fs::write(root.join(file), &bad).unwrap();
        // Without checksums in the format a flipped bit can go unnoticed; it must not do harm.
        let _ = read_all(&root);
    }
}

#[test]
fn contradictions_are_named() {
    let cases = [
        (r#""fps": 20,"#, r#""fps": 0,"#, "`fps` must be a positive whole number, found 0"),
        (
            r#""total_frames": 120"#,
            r#""total_frames": 121"#,
            "expected `total_frames` 120 (frames in all episodes), found 121",
        ),
        (
            r#""codebase_version": "v3.0""#,
            r#""codebase_version": "v2.1""#,
            "convert with LeRobot's convert_dataset_v21_to_v30",
        ),
        (
            r#""dtype": "bool""#,
            r#""dtype": "float32""#,
            "column `next.success` must be float32 by meta/info.json, found Boolean",
        ),
        (r#""next.success": {"#, r#""next.failure": {"#, "column `next.failure` must be there (bool)"),
        ("data/chunk-", "../chunk-", "expected a path template inside the data set"),
        (
            "                96,\n                96,\n                3",
            "                64,\n                96,\n                3",
            "must be 64x96",
        ),
    ];
    for (from, to, expected) in cases {
        let (_folder, root) = copy("image");
        let path = root.join("meta/info.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replace(from, to)).unwrap();
        let error = read_all(&root).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_does_not_exist_is_named() {
    let set = Dataset::open(fixture("image")).unwrap();
    let episode = set.episode(0).unwrap();
    let errors = [
        (set.episode(3).unwrap_err(), "episode 3 does not exist; the data set has 3 episodes"),
        (
            episode.camera("front").unwrap_err(),
            "the cameras are [`observation.images.top`, `observation.images.wrist`]",
        ),
        (
            episode.column("reward").unwrap_err(),
            "feature `reward` must be a feature other than a camera; there are `observation.state`",
        ),
        (episode.f32("next.success").unwrap_err(), "`next.success` must be float32"),
        (episode.cameras()[0].decode(30).unwrap_err(), "frame 30 does not exist; the episode has 30 frames"),
        (Dataset::open("/nonexistent").unwrap_err(), "/nonexistent/meta/info.json is missing (the header"),
    ];
    for (error, expected) in errors {
        assert!(error.to_string().contains(expected), "{error}");
    }
}
