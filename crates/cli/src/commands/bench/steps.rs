//! Whole control steps with random weights, every step with a new picture.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use robomamba_model::{Checkpoint, Preset, TextTokenizer};
use robomamba_policy::{ActionChunk, CameraSpec, FeatureSpec, Image, Observation, Policy, VectorSpec};
use robomamba_runtime::{Format, Model, RuntimeOptions, Session, StepTimings};
use serde::Serialize;

use super::measure::{Effort, median, percentile, sorted};
use crate::interrupt;
use crate::progress::Progress;
use robomamba_eval::Table;

/// Steps that are timed at least, whatever the patience.
const STEPS_MIN: usize = 3;

/// Times of one model.
#[derive(Clone, Debug, Serialize)]
pub struct StepTimes {
    pub preset: Preset,
    pub precision: String,
    pub cameras: usize,
    pub threads: usize,
    pub steps: usize,
    /// Of the whole step, in milliseconds.
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub parts: Parts,
}

/// Medians of the parts, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Parts {
    pub preprocess: f64,
    pub vision: f64,
    pub connector: f64,
    pub backbone: f64,
    pub heads: f64,
}

/// A robot with square cameras of the size that the preset's vision encoder takes.
pub fn robot(preset: Preset, cameras: usize) -> FeatureSpec {
    let mut features = FeatureSpec {
        cameras: Vec::new(),
        state: VectorSpec::new(["x_m", "y_m", "z_m", "yaw_rad", "opening"]),
        action: VectorSpec::new(["dx", "dy", "dz", "dyaw", "grip"]),
        fps: 20,
    };
    let size = preset.config(features.clone()).vision.image_size;
    let camera = |i| CameraSpec { name: format!("observation.images.camera{i}"), height: size, width: size };
    features.cameras = (0..cameras).map(camera).collect();
    features
}

/// A checkpoint with random weights.
///
/// # Errors
/// None that is to be expected.
pub fn checkpoint(preset: Preset, cameras: usize) -> Result<Checkpoint> {
    let tokenizer = TextTokenizer::characters()?;
    let mut config = preset.config(robot(preset, cameras));
    config.text.vocab_size = config.text.vocab_size.max(tokenizer.vocab_size());
    Ok(Checkpoint::random(config, tokenizer, 1)?)
}

/// All formats of a preset: with one camera on one thread and on several, with more cameras on several.
pub fn measure(preset: Preset, formats: &[Format], cameras: &[usize], effort: Effort) -> Result<Vec<StepTimes>> {
    let counts = |cameras| {
        let mut counts =
            if cameras == 1 && effort.on_one_thread { vec![effort.threads, 1] } else { vec![effort.threads] };
        counts.dedup();
        counts
    };
    let total =
        cameras.iter().map(|&cameras| formats.len() * counts(cameras).len() * (effort.warm_up + effort.steps)).sum();
    let progress = Progress::start(&format!("bench of {preset}"), total, "steps");
    let mut times = Vec::new();
    for &cameras in cameras {
        let checkpoint = checkpoint(preset, cameras)?;
        for &format in formats {
            let model = Arc::new(Model::from_checkpoint(format, &checkpoint)?);
            for threads in counts(cameras) {
                let case = Case { model: &model, preset, format, threads };
                times.push(case.time(effort, &progress)?);
            }
        }
    }
    progress.finish();
    Ok(times)
}

/// What is timed.
struct Case<'a> {
    model: &'a Arc<Model>,
    preset: Preset,
    format: Format,
    threads: usize,
}

impl Case<'_> {
    fn time(&self, effort: Effort, progress: &Progress) -> Result<StepTimes> {
        let Self { model, preset, format, threads } = *self;
        let options = RuntimeOptions { threads: NonZeroUsize::new(threads), ..RuntimeOptions::default() };
        let mut session = Session::new(Arc::clone(model), &options)?;
        let mut observation = blank(session.features());
        let mut chunk = ActionChunk::default();
        let mut timings = Vec::with_capacity(effort.warm_up + effort.steps);
        let start = Instant::now();
        for step in 0..effort.warm_up + effort.steps {
            interrupt::check()?;
            for (i, (_, image)) in observation.images.iter_mut().enumerate() {
                image.data_mut()[step % 97 + i] ^= 0xff;
            }
            session.act(&observation, &mut chunk)?;
            timings.push(session.timings());
            progress
                .advance(format!("{format}, {threads} threads, {:.1} ms", session.timings().total_ns() as f64 / 1e6));
            if step >= effort.warm_up + STEPS_MIN - 1 && start.elapsed() > effort.patience {
                break;
            }
        }
        let timings = timings.split_off(effort.warm_up);
        let part = |read: fn(&StepTimings) -> u64| median(timings.iter().map(|t| read(t) as f64 / 1e6).collect());
        let totals = sorted(timings.iter().map(|t| t.total_ns() as f64 / 1e6).collect());
        Ok(StepTimes {
            preset,
            precision: format.to_string(),
            cameras: observation.images.len(),
            threads,
            steps: timings.len(),
            p50: percentile(&totals, 50.0),
            p95: percentile(&totals, 95.0),
            p99: percentile(&totals, 99.0),
            parts: Parts {
                preprocess: part(|t| t.preprocess_ns),
                vision: part(|t| t.vision_ns),
                connector: part(|t| t.connector_ns),
                backbone: part(|t| t.backbone_ns),
                heads: part(|t| t.heads_ns),
            },
        })
    }
}

fn blank(features: &FeatureSpec) -> Observation {
    let images = features.cameras.iter().map(|camera| {
        let mut image = Image::black(camera.height, camera.width);
        image.data_mut().iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 37 % 251) as u8);
        (camera.name.as_str().into(), image)
    });
    Observation {
        images: images.collect(),
        state: vec![0.1; features.state.dim()],
        instruction: "pick up the red block and place it in the blue zone".into(),
        timestamp_ns: 0,
    }
}

pub fn table(times: &[StepTimes]) -> Table {
    let mut table = Table::new([
        "control step",
        "precision",
        "cameras",
        "threads",
        "p50 ms",
        "p95",
        "p99",
        "Hz",
        "vision",
        "connector",
        "backbone",
        "heads",
    ]);
    for time in times {
        let ms = |value: f64| format!("{value:.2}");
        table.row([
            time.preset.to_string(),
            time.precision.clone(),
            time.cameras.to_string(),
            time.threads.to_string(),
            ms(time.p50),
            ms(time.p95),
            ms(time.p99),
            format!("{:.0}", 1e3 / time.p50),
            ms(time.parts.vision),
            ms(time.parts.connector),
            ms(time.parts.backbone),
            ms(time.parts.heads),
        ]);
    }
    table
}
