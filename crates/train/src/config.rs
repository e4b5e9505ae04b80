//! The configuration file of a training run.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use robomamba_model::{BackboneConfig, ModelConfig, Preset};
use robomamba_policy::{FeatureSpec, NormMode};
use robomamba_runtime::Format;
use serde::{Deserialize, Serialize};

use crate::augment::AugmentConfig;
use crate::corpus::DataConfig;
use crate::losses::LossConfig;
use crate::optimiser::OptimiserConfig;
use crate::{Precision, Result, TrainError, extends};

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
    /// The backbone; the Transformer has the width, depth and parameter count of the preset's Mamba.
    #[serde(default)]
    pub backbone: Backbone,
    /// Modes of the action head, see [`robomamba_model::ActionHeadConfig`]; by default those of `initial_checkpoint`,
    /// or 1.
    #[serde(default)]
    pub n_mode: Option<usize>,
    /// Checkpoint folder with the weights, statistics and tokenizer that the run starts from, for fine-tuning. If the
    /// training state lies beside the policy, the heads of auxiliary objectives continue too. A backbone of another
    /// kind than `backbone` starts anew, and so does the end of the action head for another number of modes than
    /// `n_mode`.
    #[serde(default)]
    pub initial_checkpoint: Option<PathBuf>,
    /// Parts that keep their weights, by the names of their parameters: `vision`, `text`, `connector`, `backbone`,
    /// `head.action` and so on. With `vision`, `text` and `connector` frozen, every step of the data is encoded only
    /// once, before the run; see `tokens`.
    #[serde(default)]
    pub frozen: Vec<String>,
    /// How steps are encoded where `vision`, `text` and `connector` are frozen.
    #[serde(default)]
    pub tokens: TokenConfig,
    /// Path of a `tokenizer.json`; without it a vocabulary is built from the instructions of the data.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// How state and action are normalised.
    #[serde(default)]
    pub normalisation: NormMode,
    /// Threads of the vision encoder; results do not depend on it.
    #[serde(default = "two")]
    pub threads: usize,
    /// Number format of the products of linear layers.
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
    /// What a run writes, and how often.
    #[serde(default)]
    pub output: OutputConfig,
}

/// How frozen encoders and connector turn every control step of the data into its token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenConfig {
    /// Number format of the encoders: `f32`, `bf16` or `int8`, as in the runtime. In int8 encoding takes about half of
    /// the time. A policy that will run in int8 is then trained on the tokens that it will see.
    #[serde(with = "format_name")]
    pub format: Format,
    /// Folder that keeps the tokens for later runs with the same data and weights; without one every run encodes again.
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

/// Kind of the backbone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backbone {
    /// Mamba-1.
    #[default]
    Mamba,
    /// The baseline.
    Transformer,
}

/// Size of a batch: whole episodes until one of the budgets is spent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Distinct frames, which is what a batch costs.
    pub max_frames: usize,
    /// Steps, repeated frames included.
    pub max_steps: usize,
    /// Largest number of steps of a segment. Longer episodes are cut; their segments follow each other in consecutive
    /// batches, and the state is carried over.
    pub max_seq_len: usize,
    /// Weight of a step whose frame repeats the previous one, relative to 1 for the others: waiting teaches little.
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
    /// Finished fraction of the run after `step` steps and `elapsed_s` seconds of training.
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

/// What a run writes, and how often.
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
    /// Reads and checks a file, with the files that it extends: `extends = "common.toml"` names one relative to it,
    /// whose tables are merged with those of the file, key by key. The file's own keys win.
    ///
    /// # Errors
    /// Names the key that is unknown, missing or makes no sense.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_changed(path, |_| Ok(()))
    }

    /// The same, with changes to the table before it is checked.
    ///
    /// # Errors
    /// Those of [`TrainConfig::load`], and of `change` in its own type.
    pub fn load_changed<E: From<TrainError>>(
        path: &Path,
        change: impl FnOnce(&mut toml::Table) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut table = extends::resolve(path)?;
        change(&mut table)?;
        let refuse = |error: toml::de::Error| TrainError::ConfigFile { path: path.into(), reason: error.to_string() };
        let config: Self = toml::Value::Table(table).try_into().map_err(refuse)?;
        config.check()?;
        Ok(config)
    }

    /// Checks the values.
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
        let weights = loss.weights().iter().map(|(name, weight)| (format!("loss.{name}"), weight));
        for (field, found) in std::iter::once(("loss.action_beta".to_string(), loss.action_beta)).chain(weights) {
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
        model.backbone = self.backbone_like(model.backbone);
        model.action_head.n_mode = self.n_mode.unwrap_or(1);
        model.check()?;
        Ok(model)
    }

    /// The configured kind of backbone: `mamba`, or the Transformer of its size.
    fn backbone_like(&self, mamba: BackboneConfig) -> BackboneConfig {
        match self.backbone {
            Backbone::Mamba => mamba,
            Backbone::Transformer => {
                let context_len = self.batch.max_seq_len.max(1024);
                BackboneConfig::Transformer(mamba.to_transformer(context_len))
            }
        }
    }

    /// This model with the configured kind of backbone and number of modes. A new Transformer has the size of the old
    /// Mamba, a new Mamba that of the preset.
    pub(crate) fn adapted(&self, mut model: ModelConfig) -> ModelConfig {
        model.action_head.n_mode = self.n_mode.unwrap_or(model.action_head.n_mode);
        match (&model.backbone, self.backbone) {
            (BackboneConfig::Mamba(_), Backbone::Mamba) | (BackboneConfig::Transformer(_), Backbone::Transformer) => {}
            (BackboneConfig::Mamba(_), Backbone::Transformer) => model.backbone = self.backbone_like(model.backbone),
            (BackboneConfig::Transformer(_), Backbone::Mamba) => {
                model.backbone = self.preset.config(model.features.clone()).backbone;
            }
        }
        model
    }
}

fn check(field: impl Into<String>, holds: bool, expected: &str, found: impl Display) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(TrainError::Setting { field: field.into(), expected: expected.into(), found: found.to_string() })
}
