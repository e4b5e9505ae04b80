//! The training loop.

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

use crate::assemble::{Assembler, Ready};
use crate::config::{AugmentConfig, BatchConfig, ScheduleConfig, TrainConfig};
use crate::corpus::Corpus;
use crate::encoding::{Encoder, Tokens};
use crate::learner::Learner;
use crate::metrics::{Metrics, MetricsLog};
use crate::modules::{PolicyModel, SequenceState};
use crate::ops::Compute;
use crate::ops::mixer::BlockState;
use crate::ops::recognition::CLASSES;
use crate::plan::{Cursor, PlannedBatch, Planner, seeded};
use crate::snapshot::{Checkpoints, Position, Snapshot, adopt_heads, io, restore};
use crate::{LossConfig, Losses, Parameters, Result, TrainError, TrainingHeads};

/// How a run is watched and when it stops early; none of this changes what is learnt.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Stop after so many minutes of this process, with a checkpoint.
    pub max_minutes: Option<f64>,
    /// Stop at the next step when somebody sets it, with a checkpoint.
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
    /// Whether the schedule is through.
    pub finished: bool,
    /// The last line of the metrics, if one was written.
    pub metrics: Option<Metrics>,
}

/// Trains until the schedule is through, or continues the run in `config.out` where its last checkpoint is.
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
    planner: Planner,
    tokenizer: TextTokenizer,
    learner: Learner,
    checkpoints: Checkpoints,
    position: Position,
    carried: Vec<SequenceState>,
}

impl<'a> Trainer<'a> {
    fn new(config: &'a TrainConfig, options: &RunOptions) -> Result<Self> {
        let corpus = Corpus::load(&config.data, config.normalisation)?;
        let loss = &config.loss;
        for (field, weight, known, column) in [
            ("loss.grounding", loss.grounding, corpus.is_grounded(), "grounding"),
            ("loss.pointing", loss.pointing, corpus.is_grounded(), "grounding"),
            ("loss.naming", loss.naming, corpus.is_grounded(), "grounding"),
            ("loss.naming", loss.naming, corpus.knows_things(), "things"),
            ("loss.recognition", loss.recognition, corpus.knows_things(), "things"),
        ] {
            if weight > 0.0 && !known {
                let expected = format!("0 for data without `observation.{column}.*`");
                return Err(TrainError::Setting { field, expected, found: weight.to_string() });
            }
        }
        let checkpoints = Checkpoints::of(&config.out);
        let last = checkpoints.last();
        let start = match &last {
            Some(last) => Start::resume(config, last, &corpus)?,
            None => Start::new(config, &corpus)?,
        };
        let n_auxiliary = if config.loss.auxiliary > 0.0 { corpus.n_environment() } else { 0 };
        let heads = TrainingHeads {
            n_auxiliary,
            recognition: config.loss.recognition > 0.0,
            n_pointing: if config.loss.pointing > 0.0 { corpus.n_pointing() } else { 0 },
            n_naming: if config.loss.naming > 0.0 { corpus.n_pointing() / 2 * CLASSES } else { 0 },
        };
        let mut parameters = Parameters::new(&start.model, &start.weights, heads)?;
        parameters.freeze(&config.frozen)?;
        if let Some(path) = &config.initial_checkpoint {
            adopt_heads(path, &mut parameters)?;
        }
        let resumed = last.map(|last| restore(&last, &mut parameters)).transpose()?;
        let frozen = parameters.encoders_are_frozen();
        let known = frozen.then(|| start.known_tokens(config, &corpus, options)).transpose()?;
        let policy =
            PolicyModel::new(&start.model, heads, Compute { lanes: config.threads, precision: config.precision });
        let mut learner = Learner::new(policy, parameters, config.loss.clone(), config.optimiser.clone())?;
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
            points: config.loss.grounding > 0.0,
            shows: config.loss.recognition > 0.0,
            n_pointing: heads.n_pointing,
            n_naming: heads.n_naming,
            known,
            seed: position.seed,
        };
        Ok(Self {
            planner: Planner::new(&assembler.corpus, &config.batch, position.seed),
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
        let mut log = MetricsLog::open(&self.config.out, self.position.step)?;
        let bar = progress_bar(options.progress, self.assembler.corpus.size());
        let started = Instant::now();
        let batches = Prefetch::start(Arc::clone(&self.assembler), self.planner.clone(), self.position);
        let mut window = Window::default();
        let mut saved_at = u64::MAX;
        while !self.finished() && !out_of_time(options, started) {
            let (cursor, plan, ready) = batches.next()?;
            let start = Instant::now();
            let rate = self.config.schedule.learning_rate(self.position.step, self.position.elapsed_s);
            let rate = rate * self.config.optimiser.learning_rate;
            let (n_frame, n_step) = (ready.n_frame, ready.n_step);
            let losses = self.step(&plan, ready, rate)?;
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

    /// Learns from one batch, with the states that its segments continue from.
    fn step(&mut self, plan: &PlannedBatch, ready: Ready, rate: f64) -> Result<Losses> {
        let initial = self.initial_states(plan);
        let (losses, last) = self.learner.step(ready.batch, &ready.labels, &initial, rate)?;
        self.carried = last;
        Ok(losses)
    }

    fn initial_states(&self, plan: &PlannedBatch) -> Vec<Option<SequenceState>> {
        let mut rng = seeded(self.position.seed, &[4, self.position.step]);
        let BatchConfig { noise_probability, noise_std, .. } = self.config.batch;
        let states = plan.iter().map(|segment| match segment.continues {
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
        bar.set_message(format!(
            "step {step}  action {:.4}  success {:.3}  auxiliary {:.3}  grounding {:.3}  recognition {:.3}  pointing {:.3}  naming {:.3}  {:.0} frames/s  {} left",
            mean.action,
            mean.confidence,
            mean.auxiliary,
            mean.grounding,
            mean.recognition,
            mean.pointing,
            mean.naming,
            window.rate(window.frames),
            indicatif::HumanDuration(Duration::from_secs_f64(left_s.max(0.0))),
        ));
    }
}

/// Refuses what has no effect once the tokens of frames are known: a changed picture, and losses of the encoders.
fn check_known_tokens(config: &TrainConfig) -> Result<()> {
    let AugmentConfig { contrast, brightness, colour, shift_px } = config.augment;
    let LossConfig { grounding, recognition, pointing, naming, .. } = config.loss;
    let settings = [
        ("augment.contrast", contrast),
        ("augment.brightness", brightness),
        ("augment.colour", colour),
        ("augment.shift_px", shift_px as f32),
        ("loss.grounding", grounding),
        ("loss.recognition", recognition),
        ("loss.pointing", pointing),
        ("loss.naming", naming),
    ];
    match settings.into_iter().find(|(_, value)| *value != 0.0) {
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

    /// The token of every step of the data.
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

    /// The same with new weights for the trunk where the configuration asks for another kind of it, and for the plans where it asks for another
    /// number of modes.
    fn adapted(mut self, config: &TrainConfig) -> Result<Self> {
        let model = config.adapted(self.model.clone());
        if model == self.model {
            return Ok(self);
        }
        model.check()?;
        let (trunk, modes) = (model.backbone != self.model.backbone, model.action_head != self.model.action_head);
        let is_new = |name: &str| {
            let plans = name.starts_with("head.action.fc3.") || name.starts_with("head.action.mode.");
            (trunk && name.starts_with("backbone.")) || (modes && plans)
        };
        let kept = self.weights.into_iter().filter(|(name, _)| !is_new(name));
        let new = Weights::random(&model, config.seed).into_iter().filter(|(name, _)| is_new(name));
        self.weights = kept.chain(new).collect();
        self.model = model;
        Ok(self)
    }

    /// The vocabulary and the statistics are those that the run began with, whatever the data is now.
    fn resume(config: &TrainConfig, last: &Path, corpus: &Corpus) -> Result<Self> {
        let start = Self::from_checkpoint(&last.join("pretrained_model"), corpus)?;
        if config.initial_checkpoint.is_none() && start.model != config.model(corpus.features.clone())? {
            let reason = "its model is not the one of the configuration; choose another `out` folder or the old model";
            return Err(TrainError::State { path: last.into(), reason: reason.into() });
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

/// A batch with its plan and the cursor after it.
type Item = (Cursor, PlannedBatch, Ready);

/// Assembles batches ahead on a thread of its own.
struct Prefetch {
    items: Receiver<Result<Item>>,
    waited: Mutex<f64>,
}

impl Prefetch {
    /// Batches that are ready beside the one being learnt from.
    const AHEAD: usize = 2;

    fn start(assembler: Arc<Assembler>, planner: Planner, from: Position) -> Self {
        let (sender, items) = sync_channel(Self::AHEAD);
        std::thread::spawn(move || Self::produce(&assembler, &planner, from, &sender));
        Self { items, waited: Mutex::new(0.0) }
    }

    /// Runs until the receiver is gone or an error was delivered.
    fn produce(assembler: &Assembler, planner: &Planner, from: Position, sender: &SyncSender<Result<Item>>) {
        let (mut number, mut first) = (from.step, from.cursor.batch);
        for round in from.cursor.round.. {
            let batches = planner.round(round);
            let count = batches.len();
            for (i, plan) in batches.into_iter().enumerate().skip(first) {
                let next =
                    if i + 1 == count { Cursor { round: round + 1, batch: 0 } } else { Cursor { round, batch: i + 1 } };
                let item = assembler.assemble(&plan, number).map(|ready| (next, plan, ready));
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

    /// Seconds that the last [`Prefetch::next`] waited.
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
