//! The training loop.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rand::RngExt;
use rand_distr::{Distribution, Normal};
use robomamba_model::{BackboneConfig, Checkpoint, ModelConfig, TextTokenizer, Weights};
use robomamba_policy::NormStats;
use serde_json::{Map, Value};

use crate::assemble::{Assembler, Ready};
use crate::augment::AugmentConfig;
use crate::config::{BatchConfig, ScheduleConfig, TrainConfig};
use crate::corpus::Corpus;
use crate::encoding::{Encoder, Tokens};
use crate::learner::{Learner, Lesson};
use crate::metrics::{Metrics, MetricsLog};
use crate::modules::batch::SequenceState;
use crate::modules::policy::PolicyModel;
use crate::ops::Compute;
use crate::ops::mixer::BlockState;
use crate::sampler::{Cursor, SampledBatch, Sampler, seeded};
use crate::snapshot::{Checkpoints, Position, Snapshot, adopt_heads, io, restore};
use crate::start::RunStart;
use crate::{Losses, Parameters, Result, TrainError};

/// How a run is watched and when it stops early; none of this changes the result.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Minutes after which this process stops, with a checkpoint.
    pub max_minutes: Option<f64>,
    /// Stops the run at the next step when it is set, with a checkpoint.
    pub stop: Arc<AtomicBool>,
    /// Whether progress is shown.
    pub progress: Progress,
}

/// Whether progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// A live line on standard error.
    #[default]
    Live,
    /// Nothing.
    Silent,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// Folder of the last checkpoint.
    pub checkpoint: PathBuf,
    /// Optimiser steps taken since the beginning, interruptions included.
    pub step: u64,
    /// Whether the schedule is finished.
    pub finished: bool,
    /// The last line of the metrics, if one was written.
    pub metrics: Option<Metrics>,
}

/// Trains to the end of the schedule. A run in `config.out` continues from its last checkpoint.
///
/// # Errors
/// When data or configuration do not fit, a file cannot be written, or the loss diverges.
pub fn run(config: &TrainConfig, options: &RunOptions) -> Result<RunSummary> {
    config.check()?;
    let mut trainer = Trainer::new(config, options)?;
    trainer.train(options)
}

struct Trainer<'a> {
    config: &'a TrainConfig,
    assembler: Arc<Assembler>,
    sampler: Sampler,
    tokenizer: TextTokenizer,
    learner: Learner,
    checkpoints: Checkpoints,
    position: Position,
    carried: Vec<SequenceState>,
}

impl<'a> Trainer<'a> {
    fn new(config: &'a TrainConfig, options: &RunOptions) -> Result<Self> {
        let corpus = Corpus::load(&config.data, config.normalisation)?;
        let (weights, knowledge) = (*config.loss.weights(), corpus.knowledge());
        if let Some((name, weight, column)) = weights.first_unlabelled(&knowledge) {
            let expected = format!("0 for data without `observation.{column}.*`");
            return Err(TrainError::Setting { field: format!("loss.{name}"), expected, found: weight.to_string() });
        }
        let checkpoints = Checkpoints::of(&config.out);
        let last = checkpoints.last();
        let start = match &last {
            Some(last) => Start::resume(config, last, &corpus)?,
            None => Start::new(config, &corpus)?,
        };
        let mut parameters = Parameters::new(&start.model, &start.weights, &weights.heads(&knowledge))?;
        parameters.freeze(&config.frozen)?;
        if let Some(path) = &config.initial_checkpoint {
            adopt_heads(path, &mut parameters)?;
        }
        let resumed = last.map(|last| restore(&last, &mut parameters)).transpose()?;
        let frozen = parameters.encoders_are_frozen();
        let known = frozen.then(|| start.known_tokens(config, &corpus, options)).transpose()?;
        let policy = PolicyModel::new(&start.model, Compute { lanes: config.threads, precision: config.precision });
        let mut learner = Learner::new(policy, parameters, &config.loss, config.optimiser.clone())?;
        let mut position = Position { seed: config.seed, ..Position::default() };
        let mut carried = Vec::new();
        if let Some(resumed) = resumed {
            (position, learner.state, carried) = resumed;
        }
        let assembler = Assembler {
            tokens: corpus.tokenise(&start.tokenizer, start.model.text.max_position_embeddings)?,
            transforms: Assembler::transforms(&start.model)?,
            corpus: Arc::new(corpus),
            config: start.model,
            batch: config.batch.clone(),
            augment: config.augment.clone(),
            stats: start.stats,
            weights,
            knowledge,
            known,
            seed: position.seed,
        };
        Ok(Self {
            sampler: Sampler::new(&assembler.corpus, &config.batch, position.seed),
            assembler: Arc::new(assembler),
            tokenizer: start.tokenizer,
            config,
            learner,
            checkpoints,
            position,
            carried,
        })
    }

    fn train(&mut self, options: &RunOptions) -> Result<RunSummary> {
        std::fs::create_dir_all(&self.config.out).map_err(io(&self.config.out))?;
        let size = self.assembler.corpus.size();
        let start = RunStart::new(self.config, size, self.position.step);
        start.log();
        let mut log = MetricsLog::open(&self.config.out, start)?;
        let bar = progress_bar(options.progress, size);
        let started = Instant::now();
        let batches = Prefetch::start(Arc::clone(&self.assembler), self.sampler.clone(), self.position);
        let mut window = Window::default();
        let mut saved_at = u64::MAX;
        while !self.finished() && !out_of_time(options, started) {
            let (cursor, segments, ready) = batches.next()?;
            let start = Instant::now();
            let rate = self.config.schedule.learning_rate(self.position.step, self.position.elapsed_s);
            let rate = rate * self.config.optimiser.learning_rate;
            let (n_frame, n_step) = (ready.n_frame, ready.n_step);
            let losses = self.step(&segments, ready, rate)?;
            self.position.cursor = cursor;
            self.position.step += 1;
            self.position.elapsed_s += batches.waited_s() + start.elapsed().as_secs_f64();
            window.add(losses, (n_frame, n_step));
            self.show(&bar, &window);
            if self.position.step.is_multiple_of(self.config.output.log_every) {
                log.push(window.close(&self.position, rate))?;
            }
            if self.position.step.is_multiple_of(self.config.output.checkpoint_every) {
                self.save(&log)?;
                saved_at = self.position.step;
            }
        }
        if saved_at != self.position.step {
            self.save(&log)?;
        }
        bar.finish();
        Ok(RunSummary {
            checkpoint: self.config.out.join("checkpoints").join("last"),
            step: self.position.step,
            finished: self.finished(),
            metrics: log.last().copied(),
        })
    }

    fn finished(&self) -> bool {
        self.config.schedule.progress(self.position.step, self.position.elapsed_s) >= 1.0
    }

    /// Takes an optimiser step on one batch, with the states that its segments continue from.
    fn step(&mut self, segments: &SampledBatch, ready: Ready, rate: f64) -> Result<Losses> {
        let lesson = Lesson { batch: ready.batch, labels: ready.labels, initial: self.initial_states(segments) };
        let (losses, last) = self.learner.step(lesson, rate)?;
        self.carried = last;
        Ok(losses)
    }

    fn initial_states(&self, segments: &SampledBatch) -> Vec<Option<SequenceState>> {
        let mut rng = seeded(self.position.seed, &[4, self.position.step]);
        let BatchConfig { noise_probability, noise_std, .. } = self.config.batch;
        let states = segments.iter().map(|segment| match segment.continues {
            Some(place) => self.carried.get(place).cloned(),
            None if noise_probability > 0.0 && rng.random_bool(noise_probability) => {
                noise_state(&self.assembler.config, noise_std, &mut rng)
            }
            None => None,
        });
        states.collect()
    }

    fn save(&self, log: &MetricsLog) -> Result<()> {
        let (learner, assembler) = (&self.learner, &self.assembler);
        let mut averaged = learner.parameters.clone();
        averaged.list.iter_mut().zip(&learner.state.ema).for_each(|(p, ema)| p.values.clone_from(ema));
        let (config, stats) = (assembler.config.clone(), assembler.stats.clone());
        let mut policy = Checkpoint::new(averaged.to_weights()?, config, stats, self.tokenizer.clone());
        policy.train_config = Some(serde_json::to_string_pretty(self.config).expect("the configuration is JSON"));
        let snapshot = Snapshot {
            position: self.position,
            parameters: &learner.parameters,
            optimiser: &learner.state,
            carried: &self.carried,
        };
        self.checkpoints.save(&policy, &snapshot, self.config.output.keep)?;
        log.draw()
    }

    fn show(&self, bar: &ProgressBar, window: &Window) {
        let Position { step, elapsed_s, .. } = self.position;
        let done = self.config.schedule.progress(step, elapsed_s);
        let left_s = match &self.config.schedule {
            ScheduleConfig::Time { minutes, .. } => minutes * 60.0 - elapsed_s,
            ScheduleConfig::Steps { steps, .. } => elapsed_s / step as f64 * steps.saturating_sub(step) as f64,
        };
        let mean = window.mean();
        bar.set_position((done * 1000.0) as u64);
        let learnt = mean.objectives().filter(|(_, loss)| *loss > 0.0);
        let objectives: String = learnt.map(|(name, loss)| format!("{name} {loss:.3}  ")).collect();
        bar.set_message(format!(
            "step {step}  action {:.4}  {objectives}{:.0} frames/s  {} left",
            mean.action,
            window.rate(window.frames),
            indicatif::HumanDuration(Duration::from_secs_f64(left_s.max(0.0))),
        ));
    }
}

/// Refuses what has no effect once the tokens of frames are known: augmentation, and losses of the encoders.
fn check_known_tokens(config: &TrainConfig) -> Result<()> {
    let AugmentConfig { contrast, brightness, colour, shift_px } = config.augment;
    let augmentation = [
        ("augment.contrast", contrast),
        ("augment.brightness", brightness),
        ("augment.colour", colour),
        ("augment.shift_px", shift_px as f32),
    ];
    let mut changes = augmentation.into_iter().filter(|(_, value)| *value != 0.0);
    let change = changes.next().map(|(field, value)| (field.to_string(), value));
    let loss = config.loss.weights().first_of_encoders().map(|(name, weight)| (format!("loss.{name}"), weight));
    match change.or(loss) {
        None => Ok(()),
        Some((field, value)) => {
            let expected = "0 while vision, text and connector are frozen, as no picture is encoded twice".into();
            Err(TrainError::Setting { field, expected, found: value.to_string() })
        }
    }
}

/// What a run starts from.
struct Start {
    model: ModelConfig,
    weights: Weights,
    tokenizer: TextTokenizer,
    stats: NormStats,
}

impl Start {
    fn new(config: &TrainConfig, corpus: &Corpus) -> Result<Self> {
        if let Some(path) = &config.initial_checkpoint {
            return Self::from_checkpoint(path, corpus)?.adapted(config);
        }
        let model = config.model(corpus.features.clone())?;
        let tokenizer = match &config.tokenizer {
            Some(path) => {
                let json = std::fs::read(path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
                TextTokenizer::from_json(&json)?
            }
            None => TextTokenizer::train(corpus.instructions.iter().map(|text| &**text), model.text.vocab_size)?,
        };
        let weights = Weights::random(&model, config.seed);
        Ok(Self { model, weights, tokenizer, stats: corpus.stats.clone() })
    }

    /// The tokens of every data set under frozen encoders.
    fn known_tokens(&self, config: &TrainConfig, corpus: &Corpus, options: &RunOptions) -> Result<Vec<Tokens>> {
        check_known_tokens(config)?;
        let bar = match options.progress {
            Progress::Silent => ProgressBar::hidden(),
            Progress::Live => {
                let style = "{bar:30} {pos} of {len} episodes of {msg} encoded, {eta} left";
                ProgressBar::new(0)
                    .with_style(ProgressStyle::with_template(style).expect("the template is well formed"))
            }
        };
        let (weights, stats) = (self.weights.clone(), self.stats.clone());
        let checkpoint = Checkpoint::new(weights, self.model.clone(), stats, self.tokenizer.clone());
        let encoder = Encoder::new(&checkpoint, &config.tokens, (&options.stop, &bar))?;
        let tokens = encoder.encode(&config.data, corpus);
        bar.finish_and_clear();
        tokens
    }

    /// The same with new weights for a backbone of another kind, and for the end of the action head with another
    /// number of modes.
    fn adapted(mut self, config: &TrainConfig) -> Result<Self> {
        let model = config.adapted(self.model.clone());
        if model == self.model {
            return Ok(self);
        }
        model.check()?;
        let (backbone, modes) = (model.backbone != self.model.backbone, model.action_head != self.model.action_head);
        let is_new = |name: &str| {
            let of_modes = name.starts_with("head.action.fc3.") || name.starts_with("head.action.mode.");
            (backbone && name.starts_with("backbone.")) || (modes && of_modes)
        };
        let kept = self.weights.into_iter().filter(|(name, _)| !is_new(name));
        let new = Weights::random(&model, config.seed).into_iter().filter(|(name, _)| is_new(name));
        self.weights = kept.chain(new).collect();
        self.model = model;
        Ok(self)
    }

    /// Continues a run. Vocabulary and statistics are those of its start, even if the data has changed.
    fn resume(config: &TrainConfig, last: &Path, corpus: &Corpus) -> Result<Self> {
        let start = Self::from_checkpoint(&last.join("pretrained_model"), corpus)?;
        let wanted = config.model(corpus.features.clone())?;
        if config.initial_checkpoint.is_none() && start.model != wanted {
            let [found, wanted] = [&start.model, &wanted].map(|model| serde_json::to_value(model).unwrap_or_default());
            let difference = difference("model", &found, &wanted).unwrap_or_default();
            let reason = format!("{difference}; choose another `out` folder or the sizes that the run began with");
            return Err(TrainError::State { path: last.into(), reason });
        }
        Ok(start)
    }

    fn from_checkpoint(path: &Path, corpus: &Corpus) -> Result<Self> {
        let Checkpoint { config: model, weights, tokenizer, stats, .. } = Checkpoint::load(path)?;
        if model.features != corpus.features {
            let reason = format!(
                "it was trained for {:?}, the data has {:?}; use data of the same robot",
                model.features, corpus.features
            );
            return Err(TrainError::Data { path: path.into(), reason });
        }
        Ok(Self { model, weights, tokenizer, stats })
    }
}

/// Names the first value below `path` in which the model of a checkpoint differs from that of the configuration.
fn difference(path: &str, found: &Value, wanted: &Value) -> Option<String> {
    let (Value::Object(fields), Value::Object(others)) = (found, wanted) else {
        return (found != wanted)
            .then(|| format!("`{path}` is {found} in the checkpoint and {wanted} in the configuration"));
    };
    let keys: BTreeSet<&String> = fields.keys().chain(others.keys()).collect();
    let value = |fields: &Map<String, Value>, key: &str| fields.get(key).cloned().unwrap_or_default();
    keys.into_iter().find_map(|key| difference(&format!("{path}.{key}"), &value(fields, key), &value(others, key)))
}

/// A random state of one sequence; none for the Transformer.
fn noise_state(config: &ModelConfig, std: f32, rng: &mut rand_chacha::ChaCha8Rng) -> Option<SequenceState> {
    let BackboneConfig::Mamba(mamba) = &config.backbone else { return None };
    let normal = Normal::new(0.0, std).ok()?;
    let mut noise = |len: usize| (0..len).map(|_| normal.sample(rng)).collect::<Vec<f32>>();
    let (d_inner, d_state, d_conv) = (mamba.d_inner(), mamba.d_state, mamba.d_conv);
    let block = |_| BlockState { ssm: noise(d_inner * d_state), conv: vec![0.0; d_inner * (d_conv - 1)] };
    Some((0..mamba.n_layer).map(block).collect())
}

fn out_of_time(options: &RunOptions, started: Instant) -> bool {
    let over = |minutes: f64| started.elapsed().as_secs_f64() >= minutes * 60.0;
    options.stop.load(Ordering::Relaxed) || options.max_minutes.is_some_and(over)
}

fn progress_bar(progress: Progress, (episodes, frames): (usize, usize)) -> ProgressBar {
    if progress == Progress::Silent {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {msg}").expect("the template is well formed");
    let bar = ProgressBar::new(1000).with_style(style);
    bar.set_message(format!("{episodes} episodes, {frames} frames in memory"));
    bar
}

/// The cursor after a batch, its segments, and the batch.
type Item = (Cursor, SampledBatch, Ready);

/// Prefetches batches on a thread of its own.
struct Prefetch {
    items: Receiver<Result<Item>>,
    waited: Mutex<f64>,
}

impl Prefetch {
    /// Number of batches that are prefetched.
    const AHEAD: usize = 2;

    fn start(assembler: Arc<Assembler>, sampler: Sampler, from: Position) -> Self {
        let (sender, items) = sync_channel(Self::AHEAD);
        std::thread::spawn(move || Self::produce(&assembler, &sampler, from, &sender));
        Self { items, waited: Mutex::new(0.0) }
    }

    /// Runs until the receiver is dropped or an error is sent.
    fn produce(assembler: &Assembler, sampler: &Sampler, from: Position, sender: &SyncSender<Result<Item>>) {
        let (mut number, mut first) = (from.step, from.cursor.batch);
        for round in from.cursor.round.. {
            let batches = sampler.round(round);
            let count = batches.len();
            for (i, segments) in batches.into_iter().enumerate().skip(first) {
                let next =
                    if i + 1 == count { Cursor { round: round + 1, batch: 0 } } else { Cursor { round, batch: i + 1 } };
                let item = assembler.assemble(&segments, number).map(|ready| (next, segments, ready));
                let failed = item.is_err();
                if sender.send(item).is_err() || failed {
                    return;
                }
                number += 1;
            }
            first = 0;
        }
    }

    fn next(&self) -> Result<Item> {
        let start = Instant::now();
        let item = self.items.recv().expect("the thread only ends after an error or without a receiver");
        *self.waited.lock().expect("only this thread locks it") = start.elapsed().as_secs_f64();
        item
    }

    /// Seconds that the last call of [`Prefetch::next`] waited.
    fn waited_s(&self) -> f64 {
        *self.waited.lock().expect("only this thread locks it")
    }
}

/// Sums since the last line of the log.
struct Window {
    sum: Losses,
    count: u32,
    frames: usize,
    steps: usize,
    started: Instant,
}

impl Default for Window {
    fn default() -> Self {
        Self { sum: Losses::default(), count: 0, frames: 0, steps: 0, started: Instant::now() }
    }
}

impl Window {
    fn add(&mut self, losses: Losses, (frames, steps): (usize, usize)) {
        self.sum = self.sum.zip(losses, |a, b| a + b);
        self.count += 1;
        self.frames += frames;
        self.steps += steps;
    }

    fn mean(&self) -> Losses {
        let count = self.count.max(1) as f32;
        self.sum.zip(Losses::default(), |sum, _| sum / count)
    }

    fn rate(&self, count: usize) -> f64 {
        count as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    fn close(&mut self, position: &Position, learning_rate: f64) -> Metrics {
        let metrics = Metrics {
            step: position.step,
            losses: self.mean(),
            learning_rate,
            frames_per_s: self.rate(self.frames),
            steps_per_s: self.rate(self.steps),
            elapsed_s: position.elapsed_s,
        };
        *self = Self::default();
        metrics
    }
}
