//! `bench`: what this machine can do, and how near to it every part of a control step comes.

mod claims;
mod limits;
mod peers;
mod report;
mod steps;
#[cfg(feature = "train")]
mod training;
mod trunks;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use robomamba_model::Preset;
use robomamba_runtime::Format;
use serde::Serialize;

use crate::machine::{Machine, Utc, peak_rss_mb};
use crate::output;
use crate::run_folder::write_atomically;
use crate::table::Table;
use claims::Claim;
use limits::Limits;
use peers::Comparison;
use steps::StepTimes;
use trunks::{HistoryPoint, SequencePoint};

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Peak rates of the machine
    Limits,
    /// Whole control steps
    Steps,
    /// Steps of the trunks after long histories
    History,
    /// Whole sequences through the trunks
    Sequences,
    /// Optimiser steps
    Training,
}

/// Options of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Model sizes; repeatable [default: tabletop, small, base]
    #[arg(long = "preset", value_name = "PRESET")]
    presets: Vec<Preset>,
    /// Formats of the matrices; repeatable [default: f32, bf16, int8]
    #[arg(long = "precision", value_name = "FORMAT")]
    formats: Vec<Format>,
    /// Numbers of cameras; repeatable [default: 1, 2]
    #[arg(long = "cameras", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    cameras: Vec<u8>,
    /// Control steps that are timed per model
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: u32,
    /// Threads of the main measurement; variants with one thread come beside it
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Fewer repetitions and shorter histories: a minute in all
    #[arg(long)]
    quick: bool,
    /// Longest history and longest sequence of the trunks [default: 100000 and 10000, with --quick 1000 and 100]
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    longest: Option<u32>,
    /// Measure only this; repeatable [default: everything]
    #[arg(long, value_name = "SECTION")]
    only: Vec<Section>,
    /// Comparisons with other engines, from `benchmarks/peers/compare.py`, for the tables and the JSON
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// Write every figure to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with tables and plots to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The content of the JSON file.
#[derive(Serialize)]
struct Figures {
    machine: Machine,
    time: String,
    /// By number of threads.
    limits: Vec<Limits>,
    /// One camera, `threads` threads: preset, format, times.
    step_ms: serde_json::Value,
    /// Other numbers of cameras and threads.
    step_ms_variants: Vec<StepTimes>,
    history: Vec<HistoryPoint>,
    sequences: Vec<SequencePoint>,
    training: Vec<TrainingTime>,
    peers: Vec<Comparison>,
    claims: Vec<Claim>,
    peak_rss_mb: Option<f64>,
}

/// Optimiser steps of one model.
#[derive(Clone, Debug, Serialize)]
struct TrainingTime {
    /// What learns, and from what.
    work: String,
    /// Numbers in which the products of its linear layers are computed.
    precision: String,
    /// Parameters that learn, in millions.
    parameters_m: f64,
    /// Median of a step, in milliseconds.
    ms: f64,
    /// Control steps that it learns from per second.
    steps_per_s: f64,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    steps: usize,
    threads: usize,
    /// Longest history of a trunk, and longest sequence.
    history_max: usize,
    sequence_max: usize,
}

/// Runs `bench`.
pub fn run(args: BenchArgs) -> Result<()> {
    let longest = |default| args.longest.map_or(default, |longest| longest as usize);
    let effort = Effort {
        steps: if args.quick { 20 } else { args.steps as usize },
        threads: args.threads.into(),
        history_max: longest(if args.quick { 1_000 } else { 100_000 }),
        sequence_max: longest(if args.quick { 100 } else { 10_000 }),
    };
    let cameras: Vec<usize> =
        if args.cameras.is_empty() { vec![1, 2] } else { args.cameras.into_iter().map(usize::from).collect() };
    let or = |chosen: Vec<Preset>, all: &[Preset]| if chosen.is_empty() { all.to_vec() } else { chosen };
    let presets = or(args.presets, &[Preset::Tabletop, Preset::Small, Preset::Base]);
    let formats = if args.formats.is_empty() { Format::ALL.to_vec() } else { args.formats };
    let wanted = |section| args.only.is_empty() || args.only.contains(&section);
    let peers = args.peers.as_deref().map_or(Ok(Vec::new()), peers::read)?;
    let machine = Machine::this();
    output::print(&machine)?;

    let limits = if wanted(Section::Limits) { limits::measure(effort.threads)? } else { Vec::new() };
    print(&limits, limits::table)?;

    let mut times = Vec::new();
    for &preset in presets.iter().filter(|_| wanted(Section::Steps)) {
        times.extend(steps::measure(preset, &formats, &cameras, effort)?);
    }
    print(&times, steps::table)?;

    let trunk = if args.quick { Preset::Small } else { Preset::Base };
    let trunk = if presets.contains(&trunk) { trunk } else { presets[0] };
    let history = if wanted(Section::History) { trunks::history(trunk, &formats, effort)? } else { Vec::new() };
    print(&history, trunks::history_table)?;
    let sequences = if wanted(Section::Sequences) { trunks::sequences(trunk, &formats, effort)? } else { Vec::new() };
    print(&sequences, trunks::sequence_table)?;
    let training = if wanted(Section::Training) { training(effort, args.quick)? } else { Vec::new() };
    print(&training, training_table)?;
    print(&peers, peers::table)?;
    let claims = claims::judge(&times, trunk, (&history, &sequences));
    print(&claims, claims::table)?;

    if let Some(path) = &args.report {
        let tables = [
            ("Promises", html(&claims, claims::table)),
            ("Limits of the machine", html(&limits, limits::table)),
            ("A control step", html(&times, steps::table)),
            ("In turn with other engines", html(&peers, peers::table)),
            ("Learning", html(&training, training_table)),
            ("Steps after long histories", html(&history, trunks::history_table)),
            ("Whole sequences", html(&sequences, trunks::sequence_table)),
        ];
        let page = report::html(&machine, &tables, &history, &sequences);
        write_atomically(path, page.as_bytes())?;
    }
    if let Some(path) = &args.json {
        let (step_ms, step_ms_variants) = by_preset(times, effort.threads)?;
        let figures = Figures {
            machine,
            time: Utc::now().to_string(),
            limits,
            step_ms,
            step_ms_variants,
            history,
            sequences,
            training,
            peers,
            claims,
            peak_rss_mb: peak_rss_mb(),
        };
        write_atomically(path, (serde_json::to_string_pretty(&figures)? + "\n").as_bytes())?;
    }
    Ok(())
}

/// The main measurements, one camera on `threads` threads, by preset and format, and the others.
fn by_preset(times: Vec<StepTimes>, threads: usize) -> Result<(serde_json::Value, Vec<StepTimes>)> {
    let (main, variants): (Vec<_>, Vec<_>) =
        times.into_iter().partition(|time| time.cameras == 1 && time.threads == threads);
    let mut step_ms = serde_json::Map::new();
    for time in main {
        let of_preset = step_ms.entry(time.preset.to_string()).or_insert_with(|| serde_json::json!({}));
        of_preset[time.precision.as_str()] = serde_json::to_value(&time)?;
    }
    Ok((step_ms.into(), variants))
}

/// The table of what was measured as HTML, if anything was.
fn html<T>(measured: &[T], table: impl Fn(&[T]) -> Table) -> Option<String> {
    (!measured.is_empty()).then(|| table(measured).html())
}

/// Prints the table of what was measured, if anything was.
fn print<T>(measured: &[T], table: impl Fn(&[T]) -> Table) -> Result<()> {
    if measured.is_empty() { Ok(()) } else { output::print(table(measured)) }
}

#[cfg(feature = "train")]
fn training(effort: Effort, quick: bool) -> Result<Vec<TrainingTime>> {
    training::measure(effort.threads, quick)
}

#[cfg(not(feature = "train"))]
fn training(_: Effort, _: bool) -> Result<Vec<TrainingTime>> {
    output::print("training: skipped, this binary was built without `--features train`")?;
    Ok(Vec::new())
}

fn training_table(times: &[TrainingTime]) -> Table {
    let mut table = Table::new(["optimiser step", "precision", "parameters", "ms", "steps/s"]);
    for time in times {
        let parameters = format!("{:.1} M", time.parameters_m);
        let (ms, steps) = (format!("{:.1}", time.ms), format!("{:.0}", time.steps_per_s));
        table.row([time.work.clone(), time.precision.clone(), parameters, ms, steps]);
    }
    table
}

/// The value below which `percent` of the sorted `values` lie.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn median(values: Vec<f64>) -> f64 {
    percentile(&sorted(values), 50.0)
}
