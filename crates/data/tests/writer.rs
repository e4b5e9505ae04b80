//! Recording: round trip, resuming, refusals.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{FPS, config, image, length, record, record_all, state};
use rayon::prelude::*;
use robomamba_data::{DataError, Dataset, DatasetWriter, Frame, Value};
use robomamba_policy::{Image, NormMode};

/// Every file below a folder with its bytes.
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
fn what_was_recorded_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("set");
    record_all(&root, 5).unwrap();
    let set = Dataset::open(&root).unwrap();
    assert_eq!((set.len(), set.fps(), set.frames()), (5, FPS, (0..5).map(length).sum()));
    assert_eq!(set.tasks().collect::<Vec<_>>(), ["push the red block", "reach the zone"]);
    for (index, episode) in set.load().unwrap().iter().enumerate() {
        assert_eq!(episode.len(), length(index));
        assert_eq!(episode.success(), Some(index % 2 == 0));
        assert_eq!(set.episodes()[index].success, Some(index % 2 == 0));
        let camera = episode.camera("observation.images.top").unwrap();
        for frame in 0..episode.len() {
            assert_eq!(camera.decode(frame).unwrap(), image(index, frame));
            assert_eq!(camera.repeats_previous(frame), frame > 0 && frame % 2 == 1);
            assert_eq!(episode.state().unwrap()[frame * 3..][..3], state(index, frame));
            assert_eq!(episode.bool("is_demonstration").unwrap()[frame], frame % 3 == 0);
            let observation = episode.observation(frame).unwrap();
            assert_eq!(observation.timestamp_ns, frame as u64 * 50_000_000);
            set.robot().unwrap().check(&observation).unwrap();
        }
    }
    let norm = set.norm_stats(NormMode::MinMax).unwrap();
    norm.action.check("action", 2).unwrap();
    assert_eq!(norm.state.max[0], 4.0 / 3.0);
}

#[test]
fn an_interrupted_recording_continues_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, resumed) = (folder.path().join("whole"), folder.path().join("resumed"));
    record_all(&whole, 6).unwrap();

    let first = DatasetWriter::create(&resumed, config(6)).unwrap();
    [4usize, 1].par_iter().for_each(|&episode| record(&first, episode, None).unwrap());
    record(&first, 2, Some(3)).unwrap();
    drop(first);
    // What a killed process leaves: a half-written file and a half-built data set.
    let partial = folder.path().join("resumed.partial");
    fs::write(partial.join(".episode-000003.partial"), b"PAR1 half").unwrap();
    fs::create_dir_all(partial.join("dataset/data")).unwrap();
    fs::write(partial.join("dataset/data/half"), b"half").unwrap();

    let second = DatasetWriter::create(&resumed, config(6)).unwrap();
    assert_eq!(second.pending(), [0, 2, 3, 5]);
    second.pending().par_iter().for_each(|&episode| record(&second, episode, None).unwrap());
    second.finalize().unwrap();

    assert_eq!(contents(&whole), contents(&resumed));
    assert!(!partial.exists());
}

#[test]
fn a_finished_or_foreign_folder_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("set");
    record_all(&root, 2).unwrap();
    let before = contents(&root);
    // Killed after the rename, before the working folder was removed.
    fs::create_dir(folder.path().join("set.partial")).unwrap();
    assert!(matches!(DatasetWriter::create(&root, config(2)), Err(DataError::AlreadyComplete { .. })));
    assert!(!folder.path().join("set.partial").exists());
    assert!(matches!(DatasetWriter::create(&root, config(3)), Err(DataError::Occupied { .. })));
    assert_eq!(contents(&root), before);

    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    DatasetWriter::create(&foreign, config(1)).unwrap();
    fs::write(foreign.join("notes.txt"), "mine").unwrap();
    assert!(matches!(DatasetWriter::create(&foreign, config(1)), Err(DataError::Occupied { .. })));
}

#[test]
fn another_recording_or_process_cannot_mix_in() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("set");
    let writer = DatasetWriter::create(&root, config(2)).unwrap();
    assert!(matches!(DatasetWriter::create(&root, config(2)), Err(DataError::Locked { .. })));
    record(&writer, 0, None).unwrap();
    assert!(writer.episode(0).unwrap_err().to_string().contains("episode 0 is recorded already"));
    assert!(writer.episode(2).unwrap_err().to_string().contains("episode 2 does not exist"));
    let unfinished = writer.finalize().unwrap_err().to_string();
    assert!(unfinished.contains("1 of 2 episodes are not recorded yet (the first is 1)"), "{unfinished}");
    let mut other = config(2);
    other.recipe = serde_json::json!({"seed": 8});
    let error = DatasetWriter::create(&root, other).unwrap_err().to_string();
    assert!(error.contains(r#"`recipe` {"seed":7} there, {"seed":8} here"#), "{error}");
}

#[test]
fn frames_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let writer = DatasetWriter::create(folder.path().join("set"), config(1)).unwrap();
    let (good, small) = (image(0, 0), Image::black(24, 31));
    let values = |top, state, action| {
        [
            ("observation.images.top", top),
            ("observation.state", state),
            ("observation.environment_state", Value::F32(&[0.0, 0.0])),
            ("action", action),
            ("next.success", Value::Bool(false)),
            ("is_demonstration", Value::Bool(true)),
        ]
    };
    let (top, state, action) = (Value::Image(&good), Value::F32(&[0.0; 3]), Value::F32(&[0.0; 2]));
    let cases = [
        (
            values(Value::Image(&small), state, action),
            "`observation.images.top` must be image [24, 32, 3], found image [24, 31, 3]",
        ),
        (values(top, Value::F32(&[0.0; 2]), action), "`observation.state` must be float32 [3], found float32 [2]"),
        (
            values(top, Value::F32(&[0.0, f32::NAN, 0.0]), action),
            "`observation.state` must be finite, found NaN at index 1",
        ),
        (values(top, state, Value::Int(&[0, 0])), "`action` must be float32 [2], found int64 [2]"),
    ];
    for (values, expected) in &cases {
        let error = writer.episode(0).unwrap().add_frame(&Frame { task: "go", values }).unwrap_err().to_string();
        assert_eq!(error, format!("frame 0 of episode 0: {expected}"));
    }
    let all = values(top, state, action);
    let missing = writer.episode(0).unwrap().add_frame(&Frame { task: "go", values: &all[..5] }).unwrap_err();
    assert!(missing.to_string().ends_with("`is_demonstration` must be bool [1], found nothing"), "{missing}");
    let empty = writer.episode(0).unwrap().add_frame(&Frame { task: " ", values: &all }).unwrap_err();
    assert!(empty.to_string().contains("`task` must be an instruction"), "{empty}");
    let unknown = [("reward", Value::Bool(true))];
    let unknown = writer.episode(0).unwrap().add_frame(&Frame { task: "go", values: &unknown }).unwrap_err();
    assert!(unknown.to_string().contains("`reward` must be one of"), "{unknown}");
    assert!(writer.episode(0).unwrap().save().unwrap_err().to_string().contains("no frame"));
}
