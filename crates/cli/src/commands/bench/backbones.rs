//! The recurrent backbone against a Transformer of the same size: steps after long histories, and whole sequences.

use std::time::Instant;

use anyhow::{Context, Result};
use robomamba_kernels::{Kernels, Threads, limits};
use robomamba_model::{BackboneConfig, Preset, Weights};
use robomamba_runtime::{Backbone, Format, State, Workspace};
use serde::Serialize;

use super::measure::{Effort, median, percentile};
use super::steps;
use crate::interrupt;
use crate::progress::Progress;
use robomamba_eval::{Table, rss_bytes};

/// Histories at which steps are timed.
const HISTORIES: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
/// The longest history of the Transformer: its cache holds no more.
const CONTEXT: usize = 10_000;
/// The longest history that the Transformer recomputes: the cost is quadratic.
const RECOMPUTED_MAX: usize = 1_000;
/// Steps whose median is taken.
const REPEATS: usize = 101;
/// The same after long histories of the recurrent backbone, where a difference of 2 % is to be seen, ..
const REPEATS_LONG: usize = 1_001;
/// Histories of this length and more count as long.
const LONG: usize = 1_000;
/// History from which on memory is watched.
const WARM: usize = 100;

/// Steps of one backbone after `history` steps.
#[derive(Clone, Debug, Serialize)]
pub struct HistoryPoint {
    pub backbone: &'static str,
    pub precision: String,
    pub history: usize,
    /// Median of a step, in milliseconds; the Transformer's with its cache.
    pub step_ms: f64,
    /// That time as a multiple of a step after a history of one, taken in turn with it.
    pub to_first: f64,
    /// Bytes of the matrices, which a step reads once.
    pub matrix_bytes: usize,
    /// The Transformer without a cache: the whole history again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recomputed_ms: Option<f64>,
    /// What is carried from step to step, in bytes.
    pub state_bytes: usize,
    /// At the first history of the recurrent backbone: how long it takes to read as many bytes as the matrices have, in
    /// turn with further steps, and the median of such a step as a multiple of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
    /// How much more memory the process holds than when the recurrent backbone was warm, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_growth: Option<i64>,
}

/// What memory allows.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reading {
    /// Median time to read the bytes of the matrices, in milliseconds.
    pub ms: f64,
    /// Median of the ratios of a step and the reading after it.
    pub step: f64,
}

/// A whole sequence at once.
#[derive(Clone, Debug, Serialize)]
pub struct SequencePoint {
    pub backbone: &'static str,
    pub precision: String,
    pub tokens: usize,
    pub ms: f64,
}

/// The two backbones of a preset with random weights, on a pool of threads.
struct Bench {
    pool: rayon::ThreadPool,
    kernels: Kernels,
    weights: [(&'static str, BackboneConfig, Weights); 2],
}

impl Bench {
    /// Backbones for sequences of at most `longest` steps.
    fn new(preset: Preset, threads: usize, longest: usize) -> Result<Self> {
        let mut model = preset.config(steps::robot(preset, 1));
        // The encoders have no part in this.
        (model.vision.num_hidden_layers, model.text.num_hidden_layers) = (1, 1);
        let mamba = model.backbone.clone();
        let transformer = BackboneConfig::Transformer(mamba.to_transformer(longest));
        let mut weights = |config: &BackboneConfig| {
            model.backbone = config.clone();
            Weights::random(&model, 1)
        };
        let weights =
            [("mamba", mamba.clone(), weights(&mamba)), ("transformer", transformer.clone(), weights(&transformer))];
        let kernels = Kernels::detect().with_threads(if threads == 1 { Threads::One } else { Threads::Rayon });
        Ok(Self { pool: rayon::ThreadPoolBuilder::new().num_threads(threads).build()?, kernels, weights })
    }
}

fn tokens(count: usize, width: usize) -> Vec<f32> {
    (0..count * width).map(|i| (i as f32 * 0.37).sin()).collect()
}

/// Steps of both backbones in every format after histories of growing length.
pub fn history(preset: Preset, formats: &[Format], effort: Effort) -> Result<Vec<HistoryPoint>> {
    let bench = Bench::new(preset, effort.threads, effort.history_max.min(CONTEXT) + REPEATS)?;
    let total: usize = bench.weights.iter().map(|(kind, ..)| histories_of(kind, effort).max().unwrap_or(0)).sum();
    let progress = Progress::start("bench of histories", total * formats.len(), "steps");
    let mut points = Vec::new();
    for &(kind, ref config, ref weights) in &bench.weights {
        for &format in formats {
            let backbone = Backbone::new(format, config, weights, "backbone")?;
            let subject = Subject { kind, format, backbone: &backbone, kernels: bench.kernels };
            let of = bench.pool.install(|| subject.histories(effort, &progress));
            points.extend(of.with_context(|| format!("{kind} in {format}"))?);
        }
    }
    progress.finish();
    Ok(points)
}

/// The histories after which a backbone is timed.
fn histories_of(kind: &str, effort: Effort) -> impl Iterator<Item = usize> {
    let longest = if kind == "mamba" { effort.history_max } else { effort.history_max.min(CONTEXT) };
    HISTORIES.into_iter().filter(move |&history| history <= longest)
}

/// A backbone whose steps are timed.
struct Subject<'a> {
    kind: &'static str,
    format: Format,
    backbone: &'a Backbone,
    kernels: Kernels,
}

impl Subject<'_> {
    fn histories(&self, effort: Effort, progress: &Progress) -> Result<Vec<HistoryPoint>> {
        let Self { kind, format, backbone, kernels } = *self;
        let width = backbone.d_model();
        let is_mamba = matches!(backbone, Backbone::Mamba(_));
        let (x, mut hidden) = (tokens(1, width), vec![0.0; width]);
        let mut workspace = Workspace::new(kernels);
        let mut state = backbone.zeros();
        let (mut first, mut warm) = (None, None);
        let (mut done, mut points) = (0, Vec::with_capacity(HISTORIES.len()));
        // Written once before memory is watched, so that it does not grow by them.
        let [mut times, mut times_first] = [(); 2].map(|()| vec![f64::MAX; REPEATS_LONG]);
        for history in histories_of(kind, effort) {
            while done < history {
                interrupt::check()?;
                let count = advance(backbone, &mut state, history - done, &mut workspace)?;
                done += count;
                progress.advance_by(count, format!("{kind} in {format}, {done} steps"));
            }
            // What the first measurements take in memory is there from the third on.
            let resident = rss_bytes().filter(|_| is_mamba && history >= WARM);
            let resident_growth = resident.map(|bytes| bytes - *warm.get_or_insert(bytes));
            let repeats = if is_mamba && history >= LONG { REPEATS_LONG } else { REPEATS };
            let mut step_time = |state: &mut State| -> Result<f64> {
                let start = Instant::now();
                backbone.step(&x, state, &mut hidden, &mut workspace)?;
                Ok(start.elapsed().as_secs_f64() * 1e3)
            };
            let (mut going, first) = (state.clone(), &*first.get_or_insert_with(|| state.clone()));
            times.clear();
            times_first.clear();
            let mut young = first.clone();
            for repeat in 0..repeats {
                // The first backbone's history stays short.
                if repeat % REPEATS == 0 {
                    young = first.clone();
                }
                times.push(step_time(&mut going)?);
                times_first.push(step_time(&mut young)?);
            }
            let step_ms = median_in_place(&mut times);
            let is_first = is_mamba && points.is_empty();
            let reading =
                is_first.then(|| reading(kernels, backbone.matrix_bytes(), || step_time(&mut going))).transpose()?;
            let recomputed = !is_mamba && history <= RECOMPUTED_MAX;
            points.push(HistoryPoint {
                backbone: kind,
                precision: format.to_string(),
                history,
                step_ms,
                to_first: step_ms / median_in_place(&mut times_first),
                matrix_bytes: backbone.matrix_bytes(),
                recomputed_ms: recomputed.then(|| sequence_ms(backbone, history, &mut workspace)).transpose()?,
                state_bytes: state.bytes(),
                reading,
                resident_growth,
            });
        }
        Ok(points)
    }
}

/// The median without memory of its own.
fn median_in_place(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    percentile(values, 50.0)
}

/// Reads as many `bytes` as a step does, in turn with steps whose time `step_ms` returns.
fn reading(kernels: Kernels, bytes: usize, mut step_ms: impl FnMut() -> Result<f64>) -> Result<Reading> {
    let data = vec![1.0; bytes / size_of::<f32>()];
    let (mut times, mut ratios) = (Vec::with_capacity(REPEATS), Vec::with_capacity(REPEATS));
    for _ in 0..REPEATS {
        let step = step_ms()?;
        let start = Instant::now();
        limits::read(kernels, &data);
        let ms = start.elapsed().as_secs_f64() * 1e3;
        times.push(ms);
        ratios.push(step / ms);
    }
    Ok(Reading { ms: median(times), step: median(ratios) })
}

/// Advances by some of the `missing` steps: Mamba step by step, as it runs; the Transformer, whose cache is the
/// same either way, by a piece of sequence. Returns how many.
fn advance(backbone: &Backbone, state: &mut State, missing: usize, workspace: &mut Workspace) -> Result<usize> {
    let width = backbone.d_model();
    let count = missing.min(256);
    let x = tokens(count, width);
    let mut hidden = vec![0.0; x.len()];
    match backbone {
        Backbone::Mamba(_) => {
            for (x, hidden) in x.chunks_exact(width).zip(hidden.chunks_exact_mut(width)) {
                backbone.step(x, state, hidden, workspace)?;
            }
        }
        Backbone::Transformer(_) => backbone.forward(&x, state, &mut hidden, workspace)?,
    }
    Ok(count)
}

/// Median time of a whole sequence from nothing, in milliseconds.
fn sequence_ms(backbone: &Backbone, count: usize, workspace: &mut Workspace) -> Result<f64> {
    let x = tokens(count, backbone.d_model());
    let mut hidden = vec![0.0; x.len()];
    let mut times = Vec::new();
    for _ in 0..if count > 1_000 { 1 } else { 5 } {
        interrupt::check()?;
        let mut state = backbone.zeros();
        let start = Instant::now();
        backbone.forward(&x, &mut state, &mut hidden, workspace)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(times))
}

/// Sequences of growing length through both backbones in every format.
pub fn sequences(preset: Preset, formats: &[Format], effort: Effort) -> Result<Vec<SequencePoint>> {
    let bench = Bench::new(preset, effort.threads, effort.sequence_max)?;
    let lengths = || [100, 512, 1_000, 10_000].into_iter().filter(|&tokens| tokens <= effort.sequence_max);
    let total = bench.weights.len() * formats.len() * lengths().sum::<usize>();
    let progress = Progress::start("bench of sequences", total, "tokens");
    let mut points = Vec::new();
    for &(kind, ref config, ref weights) in &bench.weights {
        for &format in formats {
            let backbone = Backbone::new(format, config, weights, "backbone")?;
            for tokens in lengths() {
                let mut workspace = Workspace::new(bench.kernels);
                let ms = bench.pool.install(|| sequence_ms(&backbone, tokens, &mut workspace))?;
                points.push(SequencePoint { backbone: kind, precision: format.to_string(), tokens, ms });
                progress.advance_by(tokens, format!("{kind} in {format}, {tokens} tokens: {ms:.0} ms"));
            }
        }
    }
    progress.finish();
    Ok(points)
}

pub fn history_table(points: &[HistoryPoint]) -> Table {
    let mut table = Table::new([
        "step of the backbone",
        "precision",
        "history",
        "ms",
        "of the first",
        "recomputed ms",
        "carried bytes",
        "memory grew",
    ]);
    for point in points {
        table.row([
            point.backbone.to_string(),
            point.precision.clone(),
            point.history.to_string(),
            format!("{:.3}", point.step_ms),
            format!("{:.3}", point.to_first),
            point.recomputed_ms.map_or_else(String::new, |ms| format!("{ms:.1}")),
            point.state_bytes.to_string(),
            point.resident_growth.map_or_else(String::new, |bytes| format!("{bytes} bytes")),
        ]);
    }
    table
}

pub fn sequence_table(points: &[SequencePoint]) -> Table {
    let mut table = Table::new(["sequence", "precision", "tokens", "ms", "us per token"]);
    for point in points {
        let per_token = format!("{:.1}", point.ms * 1e3 / point.tokens as f64);
        let (tokens, ms) = (point.tokens.to_string(), format!("{:.1}", point.ms));
        table.row([point.backbone.to_string(), point.precision.clone(), tokens, ms, per_token]);
    }
    table
}
