//! A recording of this crate in foreign readers: pandas and Hugging Face `datasets`, called as LeRobot calls them.
//! LeRobot itself reads it where it is installed; `ROBOMAMBA_LEROBOT_PYTHON` names its interpreter.

mod common;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{image, length, record_all, state};
use robomamba_policy::Image;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const EPISODES: usize = 4;
const PACKAGES: [&str; 3] = ["datasets==4.1.1", "pandas", "pillow"];

/// A Python with the readers: the one named by the environment, or a virtual environment below the target folder.
fn python() -> Result<PathBuf, String> {
    if let Some(python) = std::env::var_os("ROBOMAMBA_LEROBOT_PYTHON") {
        return Ok(python.into());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign-readers");
    let python = folder.join("bin/python");
    let imports = || run(Command::new(&python).args(["-c", "import datasets, pandas, PIL"]));
    if imports().is_err() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
        imports()?;
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}", message.trim()))
}

fn sha256(image: &Image) -> String {
    Sha256::digest(image.data()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn expected_frame(episode: usize, frame: usize) -> Value {
    json!({
        "task": common::TASKS[episode % 3],
        "state": state(episode, frame).map(f64::from),
        "success": episode.is_multiple_of(2) && frame + 1 == length(episode),
        "images": {"observation.images.top": sha256(&image(episode, frame))},
    })
}

#[test]
fn other_readers_open_what_we_record() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => {
            return writeln!(std::io::stderr(), "skipped: no Python with pandas and datasets ({why})")
                .unwrap_or_default();
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("set");
    record_all(&root, EPISODES).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/read.py");
    let cache = folder.path().join("cache");
    let printed = run(Command::new(&python).arg(script).arg(&root).arg(&cache).env("HF_HOME", &cache)).unwrap();
    let found: Value = serde_json::from_str(printed.lines().last().unwrap_or_default()).unwrap();

    let frames: usize = (0..EPISODES).map(length).sum();
    assert_eq!((&found["episodes"], &found["frames"]), (&json!(EPISODES), &json!(frames)));
    assert_eq!(found["tasks"], json!({"push the red block": 0, "reach the zone": 1}));
    assert_eq!(found["lengths"], json!((0..EPISODES).map(length).collect::<Vec<_>>()));
    assert_eq!(found["shapes"]["observation.images.top"], json!([24, 32, 3]));
    assert_eq!(found["shapes"]["observation.state"], json!([3]));
    assert_eq!(found["shapes"]["next.success"], json!([]));
    for shapes in ["stats_shapes", "episode_stats_shapes"] {
        assert_eq!(found[shapes]["observation.images.top"], json!([3, 1, 1]), "{shapes}");
        assert_eq!(found[shapes]["action"], json!([2]), "{shapes}");
        assert_eq!(found[shapes]["task_index"], json!([1]), "{shapes}");
    }
    let ends = (0..EPISODES).flat_map(|episode| [0, length(episode) - 1].map(|frame| expected_frame(episode, frame)));
    assert_eq!(found["first_and_last"], ends.collect::<Value>());

    let lerobot = &found["lerobot"];
    if let Some(why) = lerobot["skipped"].as_str() {
        return writeln!(std::io::stderr(), "skipped: LeRobot's own reader ({why})").unwrap_or_default();
    }
    assert_eq!(
        (&lerobot["episodes"], &lerobot["frames"], &lerobot["fps"]),
        (&json!(EPISODES), &json!(frames), &json!(20))
    );
    // Item 5 is the first frame of the second episode.
    assert_eq!((length(0), &lerobot["timestamp"], &lerobot["task"]), (5, &json!(0.0), &json!("reach the zone")));
    assert_eq!(lerobot["state"], json!(state(1, 0).map(f64::from)));
    assert_eq!(lerobot["image"], json!(sha256(&image(1, 0))));
    assert_eq!(lerobot["stats"].as_array().map(Vec::len), Some(11));
}
