//! A small deterministic recording, the same for every test.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};

use robomamba_data::{DType, DatasetWriter, Feature, Features, Frame, Result, Value, WriterConfig};
use robomamba_policy::Image;

pub const FPS: u32 = 20;
pub const TASKS: [&str; 3] = ["push the red block", "reach the zone", "push the red block"];

pub fn fixture(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lerobot_v3").join(kind)
}

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

pub fn config(episodes: usize) -> WriterConfig {
    let features = Features::default()
        .with("observation.images.top", Feature::image(24, 32))
        .with("observation.state", Feature::vector(["x_m", "y_m", "grip"]))
        .with("observation.environment_state", Feature::vector(["block_x_m", "block_y_m"]))
        .with("action", Feature::vector(["dx", "dy"]))
        .with("next.success", Feature::scalar(DType::Bool))
        .with("is_demonstration", Feature::scalar(DType::Bool));
    WriterConfig { features, fps: FPS, robot_type: "tabletop".into(), episodes, recipe: serde_json::json!({"seed": 7}) }
}

pub fn length(episode: usize) -> usize {
    5 + 3 * episode
}

pub fn image(episode: usize, frame: usize) -> Image {
    let mut image = Image::black(24, 32);
    // Every second frame repeats the one before, as a robot at rest would see it.
    for (i, byte) in image.data_mut().iter_mut().enumerate() {
        *byte = ((i / 3 % 5) * 40 + episode * 7 + frame / 2 * 11) as u8;
    }
    image
}

pub fn state(episode: usize, frame: usize) -> [f32; 3] {
    [episode as f32 / 3.0, frame as f32 / 7.0, (frame % 2) as f32]
}

/// Records one episode; with `stop_before` the process would have died before that frame.
pub fn record(writer: &DatasetWriter, episode: usize, stop_before: Option<usize>) -> Result<()> {
    let mut out = writer.episode(episode)?;
    for frame in 0..length(episode) {
        if stop_before == Some(frame) {
            return Ok(());
        }
        let last = frame + 1 == length(episode);
        out.add_frame(&Frame {
            task: TASKS[episode % 3],
            values: &[
                ("observation.images.top", Value::Image(&image(episode, frame))),
                ("observation.state", Value::F32(&state(episode, frame))),
                ("observation.environment_state", Value::F32(&[0.5, -0.25])),
                ("action", Value::F32(&[(frame as f32).sin(), (frame as f32).cos()])),
                ("next.success", Value::Bool(last && episode.is_multiple_of(2))),
                ("is_demonstration", Value::Bool(frame.is_multiple_of(3))),
            ],
        })?;
    }
    out.save()
}

pub fn record_all(target: &Path, episodes: usize) -> Result<()> {
    let writer = DatasetWriter::create(target, config(episodes))?;
    for episode in writer.pending() {
        record(&writer, episode, None)?;
    }
    writer.finalize()
}
