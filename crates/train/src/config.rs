//! The configuration file of a training run.

use std::path::{Path, PathBuf};

use robomamba_data::DataError;
use robomamba_model::{BackboneConfig, ModelConfig, Preset};
use robomamba_policy::{FeatureSpec, NormMode};
use robomamba_runtime::Format;
use serde::{Deserialize, Serialize};

use crate::{LossConfig, OptimiserConfig, Precision, Result, TrainError};

/// Everything that decides what a run learns; the file is TOML with these names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Folder of the run: checkpoints, metrics, loss curve. Relative paths start at the working directory.
    pub out: PathBuf,
    /// Seed of the initial weights and of the order of the data.
    #[serde(default)]
    pub seed: u64,
    /// Sizes of the model.
    pub preset: Preset,
    /// Sizes that differ from the preset's, by the names of [`ModelConfig`]: `[model.vision] image_size = 128`. What
    /// follows from a size follows, see [`ModelConfig::with_sizes`].
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub model: serde_json::Map<String, serde_json::Value>,
    /// The trunk; the Transformer has the width, depth and parameter count of the preset's Mamba.
    #[serde(default)]
    pub backbone: Backbone,
    /// Plans among which the action head chooses, see [`robomamba_model::ActionHeadConfig`]; by default as many as `initial_checkpoint` has, or one.
    #[serde(default)]
    pub n_mode: Option<usize>,
    /// Checkpoint folder whose weights, statistics and tokenizer the run starts from, for fine-tuning. The heads that
    /// only training has continue too, where the training state lies beside the policy. Where it has a trunk of another kind than
    /// `backbone` or another number of modes than `n_mode`, the trunk or the end of the action head starts anew.
    #[serde(default)]
    pub initial_checkpoint: Option<PathBuf>,
    /// Parts that keep the weights they start from, by the names of their parameters: `vision`, `text`, `connector`,
    /// `backbone`, `head.action`, .. What lies before the first trained part costs only its forward pass; with `vision`,
    /// `text` and `connector` frozen every step of the data is encoded once, before the run; see `tokens`.
    #[serde(default)]
    pub frozen: Vec<String>,
    /// How tokens are made where `vision`, `text` and `connector` are frozen.
    #[serde(default)]
    pub tokens: TokenConfig,
    /// `tokenizer.json` to use; without it a vocabulary is built from the instructions of the data.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// How state and action are normalised.
    #[serde(default)]
    pub normalisation: NormMode,
    /// Threads of the vision encoder; results do not depend on it.
    #[serde(default = "two")]
    pub threads: usize,
    /// Numbers in which the products of linear layers are computed.
    #[serde(default)]
    pub precision: Precision,
    /// The data sets, usually one per task family.
    pub data: Vec<DataConfig>,
    /// What goes into a batch.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Weights of the losses.
    #[serde(default)]
    pub loss: LossConfig,
    /// The optimiser.
    #[serde(default)]
    pub optimiser: OptimiserConfig,
    /// How long to train, and the learning rate on the way.
    pub schedule: ScheduleConfig,
    /// Random changes of the images.
    #[serde(default)]
    pub augment: AugmentConfig,
    /// What is written, how often.
    #[serde(default)]
    pub output: OutputConfig,
}

/// How frozen encoders and connector turn every control step of the data into its token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenConfig {
    /// Numbers in which the encoders compute: `f32`, `bf16` or `int8`, as in the runtime. In int8 it takes about half of the time, and a
    /// policy that will run in int8 learns from what it will see.
    #[serde(with = "format_name")]
    pub format: Format,
    /// Folder that keeps the tokens for the next run with the same data and the same weights; without one every run makes them anew.
    pub dir: Option<PathBuf>,
}

/// A format by its name.
mod format_name {
    use robomamba_runtime::Format;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(format: &Format, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(format)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Format, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn two() -> usize {
    2
}

/// The trunk of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backbone {
    /// Mamba-1.
    #[default]
    Mamba,
    /// The baseline.
    Transformer,
}

/// One data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folder of a LeRobotDataset v3.
    pub path: PathBuf,
    /// Share of the encoded frames, relative to the other data sets.
    #[serde(default = "one")]
    pub weight: f64,
    /// Draw random windows of so many steps, each from a zero state, instead of whole episodes. A batch then
    /// sees many more scenes for the same frames; for tasks whose present image tells what to do.
    #[serde(default)]
    pub window: Option<usize>,
}

impl DataConfig {
    /// Says of which data set an error is.
    pub(crate) fn error(&self) -> impl FnOnce(DataError) -> TrainError {
        let path = self.path.clone();
        move |source| TrainError::Dataset { path, source }
    }
}

fn one() -> f64 {
    1.0
}

/// What goes into a batch: whole episodes until one of the budgets is spent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Distinct frames, which is what a batch costs.
    pub max_frames: usize,
    /// Steps, repeated frames included.
    pub max_steps: usize,
    /// Longer episodes are cut into segments of so many steps, which follow each other in consecutive
    /// batches with the state carried over.
    pub max_seq_len: usize,
    /// Weight of a step whose frame repeats the previous one, against 1 for the others: waiting teaches little.
    pub repeat_weight: f32,
    /// Probability that an episode starts from a random state instead of zeros.
    pub noise_probability: f64,
    /// Standard deviation of that state.
    pub noise_std: f32,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            max_frames: 640,
            max_steps: 4096,
            max_seq_len: 640,
            repeat_weight: 0.3,
            noise_probability: 0.0,
            noise_std: 0.1,
        }
    }
}

/// How long to train. The learning rate rises linearly over the warm-up, then falls with a cosine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleConfig {
    /// A number of optimiser steps: reproducible to the bit.
    Steps {
        /// Optimiser steps in all.
        steps: u64,
        /// Steps of the warm-up.
        #[serde(default = "warmup")]
        warmup: u64,
        /// Last learning rate as a fraction of the peak.
        #[serde(default = "floor")]
        floor: f64,
    },
    /// An amount of training time, interruptions not counted.
    Time {
        /// Minutes in all.
        minutes: f64,
        /// Steps of the warm-up.
        #[serde(default = "warmup")]
        warmup: u64,
        /// Last learning rate as a fraction of the peak.
        #[serde(default = "floor")]
        floor: f64,
    },
}

fn warmup() -> u64 {
    200
}

fn floor() -> f64 {
    0.02
}

impl ScheduleConfig {
    /// How much of the run is done, in `[0, 1]`, after `step` steps and `elapsed_s` seconds of training.
    pub fn progress(&self, step: u64, elapsed_s: f64) -> f64 {
        match self {
            Self::Steps { steps, .. } => (step as f64 / *steps as f64).min(1.0),
            Self::Time { minutes, .. } => (elapsed_s / (minutes * 60.0)).min(1.0),
        }
    }

    /// Learning rate of step `step` (from 0) as a fraction of the peak.
    pub fn learning_rate(&self, step: u64, elapsed_s: f64) -> f64 {
        let (Self::Steps { warmup, floor, .. } | Self::Time { warmup, floor, .. }) = *self;
        let rise = if warmup == 0 { 1.0 } else { ((step + 1) as f64 / warmup as f64).min(1.0) };
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * self.progress(step, elapsed_s)).cos());
        rise * (floor + (1.0 - floor) * cosine)
    }
}

/// Random changes of the images, the same for all frames of an episode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Largest relative change of contrast.
    pub contrast: f32,
    /// Largest change of brightness, as a fraction of the full range.
    pub brightness: f32,
    /// Largest relative change of each colour channel.
    pub colour: f32,
    /// Largest shift in pixels, edges repeated.
    pub shift_px: usize,
}

/// What is written, how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputConfig {
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Checkpoints that are kept, the newest ones; 0 keeps all.
    pub keep: usize,
    /// Steps between lines of `metrics.jsonl`, which hold the mean since the last.
    pub log_every: u64,
}

impl Default for OutputConfig {
    fn default() -> Self {
        Self { checkpoint_every: 500, keep: 3, log_every: 10 }
    }
}

impl TrainConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Names the key that is unknown, missing or makes no sense.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| TrainError::Read { path: path.into(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|error| TrainError::ConfigFile { path: path.into(), reason: error.to_string() })?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// Names the first setting that makes no sense.
    pub fn check(&self) -> Result<()> {
        let batch = &self.batch;
        let at_least_one = [
            ("data", self.data.len()),
            ("threads", self.threads),
            ("n_mode", self.n_mode.unwrap_or(1)),
            ("batch.max_frames", batch.max_frames),
            ("batch.max_steps", batch.max_steps),
            ("batch.max_seq_len", batch.max_seq_len),
            ("output.log_every", self.output.log_every as usize),
            ("output.checkpoint_every", self.output.checkpoint_every as usize),
        ];
        for (field, found) in at_least_one {
            check(field, found >= 1, "at least 1", found)?;
        }
        for data in &self.data {
            check("data.weight", data.weight > 0.0 && data.weight.is_finite(), "positive", data.weight)?;
            check("data.window", data.window != Some(0), "at least 1", 0)?;
        }
        let unit =
            [("batch.noise_probability", batch.noise_probability), ("optimiser.ema_decay", self.optimiser.ema_decay)];
        for (field, found) in unit {
            check(field, (0.0..=1.0).contains(&found), "in [0, 1]", found)?;
        }
        let loss = &self.loss;
        let weights = [
            ("loss.action_beta", loss.action_beta),
            ("loss.confidence", loss.confidence),
            ("loss.auxiliary", loss.auxiliary),
            ("loss.grounding", loss.grounding),
            ("loss.recognition", loss.recognition),
            ("loss.pointing", loss.pointing),
            ("loss.naming", loss.naming),
        ];
        for (field, found) in weights {
            check(field, found >= 0.0 && found.is_finite(), "at least 0", found)?;
        }
        let sizes = self.model.keys().cloned().collect::<Vec<_>>().join(", ");
        let is_free = self.initial_checkpoint.is_none() || self.model.is_empty();
        check("model", is_free, "absent where `initial_checkpoint` decides the sizes", sizes)?;
        for &quantile in loss.action_quantiles.values() {
            check("loss.action_quantiles", quantile > 0.0 && quantile < 1.0, "between 0 and 1", quantile)?;
        }
        let temperature = loss.mode_temperature;
        check("loss.mode_temperature", temperature > 0.0 && temperature.is_finite(), "positive", temperature)?;
        let rate = self.optimiser.learning_rate;
        check("optimiser.learning_rate", rate > 0.0 && rate.is_finite(), "positive", rate)?;
        match &self.schedule {
            ScheduleConfig::Steps { steps, .. } => check("schedule.steps", *steps >= 1, "at least 1", steps),
            ScheduleConfig::Time { minutes, .. } => {
                check("schedule.minutes", *minutes > 0.0 && minutes.is_finite(), "positive", minutes)
            }
        }
    }

    /// The model for a robot with these features.
    ///
    /// # Errors
    /// When the sizes of `model` do not exist or make no model.
    pub fn model(&self, features: FeatureSpec) -> Result<ModelConfig> {
        let mut model = self.preset.config(features).with_sizes(&self.model)?;
        model.backbone = self.trunk(model.backbone);
        model.action_head.n_mode = self.n_mode.unwrap_or(1);
        model.check()?;
        Ok(model)
    }

    /// A trunk of the kind that is asked for: the preset's `mamba`, or the Transformer of its size.
    fn trunk(&self, mamba: BackboneConfig) -> BackboneConfig {
        match self.backbone {
            Backbone::Mamba => mamba,
            Backbone::Transformer => {
                let context_len = self.batch.max_seq_len.max(1024);
                BackboneConfig::Transformer(mamba.to_transformer(context_len))
            }
        }
    }

    /// `model` with a trunk of the kind that is asked for: its own, or else a new one of its size (for a Mamba, of the preset's); and with the number
    /// of modes that is asked for, if any is.
    pub(crate) fn adapted(&self, mut model: ModelConfig) -> ModelConfig {
        model.action_head.n_mode = self.n_mode.unwrap_or(model.action_head.n_mode);
        match (&model.backbone, self.backbone) {
            (BackboneConfig::Mamba(_), Backbone::Mamba) | (BackboneConfig::Transformer(_), Backbone::Transformer) => {}
            (BackboneConfig::Mamba(_), Backbone::Transformer) => model.backbone = self.trunk(model.backbone),
            (BackboneConfig::Transformer(_), Backbone::Mamba) => {
                model.backbone = self.preset.config(model.features.clone()).backbone;
            }
        }
        model
    }
}

fn check(field: &'static str, holds: bool, expected: &str, found: impl std::fmt::Display) -> Result<()> {
    if holds { Ok(()) } else { Err(TrainError::Setting { field, expected: expected.into(), found: found.to_string() }) }
}
