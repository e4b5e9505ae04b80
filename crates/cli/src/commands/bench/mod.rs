//! `bench`: what this machine can do, and how near to it every part of a control step comes.

mod backbones;
mod goals;
mod limits;
mod measure;
mod peers;
mod report;
mod steps;
#[cfg(feature = "train")]
mod training;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use robomamba_model::Preset;
use robomamba_runtime::Format;
use serde::Serialize;

use robomamba_eval::{Machine, Table, Utc, peak_rss_mb};

use crate::machine;
use crate::output;
use crate::run_folder::write_atomically;
use backbones::{HistoryPoint, SequencePoint};
use goals::{Goals, Verdict};
use limits::Limits;
use measure::{Effort, TrainingTime};
use peers::Comparison;
use steps::StepTimes;

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Peak rates of the machine
    Limits,
    /// Whole control steps
    Steps,
    /// Steps of the backbones after long histories
    History,
    /// Whole sequences through the backbones
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
    /// Numbers of cameras; repeatable [default: 1 and 2, with --quick 1]
    #[arg(long = "cameras", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    cameras: Vec<u8>,
    /// Control steps that are timed per model
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: u32,
    /// Threads of the main measurement; variants with one thread come beside it
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// A minute in all: one camera, all threads, short histories, and few steps, whose percentiles say little
    #[arg(long)]
    quick: bool,
    /// Longest history and longest sequence of the backbones [default: 100000 and 10000, with --quick 100]
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    longest: Option<u32>,
    /// Measure only this; repeatable [default: everything]
    #[arg(long, value_name = "SECTION")]
    only: Vec<Section>,
    /// Comparisons with other engines, from `benchmarks/peers/compare.py`, for the tables and the JSON
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// Goals to be put beside what was measured, such as benchmarks/goals.json
    #[arg(long, value_name = "FILE")]
    goals: Option<PathBuf>,
    /// Write every figure to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with tables and plots to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The content of the JSON file.
#[derive(Serialize)]
struct Figures<'a> {
    machine: &'a Machine,
    time: String,
    /// By number of threads.
    limits: &'a [Limits],
    /// One camera, `threads` threads: preset, format, times.
    step_ms: serde_json::Value,
    /// Other numbers of cameras and threads.
    step_ms_variants: Vec<&'a StepTimes>,
    history: &'a [HistoryPoint],
    sequences: &'a [SequencePoint],
    training: &'a [TrainingTime],
    peers: &'a [Comparison],
    goals: Vec<Verdict>,
    peak_rss_mb: Option<f64>,
}

/// How much `args` ask for.
fn effort_of(args: &BenchArgs) -> Effort {
    let threads = args.threads.into();
    let longest = |default| args.longest.map_or(default, |longest| longest as usize);
    if args.quick {
        Effort {
            steps: 20,
            warm_up: 1,
            patience: Duration::from_millis(250),
            on_one_thread: false,
            threads,
            history_max: longest(100),
            sequence_max: longest(100),
        }
    } else {
        Effort {
            steps: args.steps as usize,
            warm_up: 10,
            patience: Duration::MAX,
            on_one_thread: true,
            threads,
            history_max: longest(100_000),
            sequence_max: longest(10_000),
        }
    }
}

/// Runs `bench`.
pub fn run(args: BenchArgs) -> Result<()> {
    let effort = effort_of(&args);
    let cameras: Vec<usize> = match (args.cameras.as_slice(), args.quick) {
        ([], true) => vec![1],
        ([], false) => vec![1, 2],
        (chosen, _) => chosen.iter().copied().map(usize::from).collect(),
    };
    let or = |chosen: &[Preset], all: &[Preset]| if chosen.is_empty() { all.to_vec() } else { chosen.to_vec() };
    let presets = or(&args.presets, &[Preset::Tabletop, Preset::Small, Preset::Base]);
    let formats = if args.formats.is_empty() { Format::ALL.to_vec() } else { args.formats.clone() };
    let backbone = if args.quick { Preset::Small } else { Preset::Base };
    let backbone = if presets.contains(&backbone) { backbone } else { presets[0] };
    let mut measured = Measured::new(effort.threads, backbone);
    measured.peers = args.peers.as_deref().map_or(Ok(Vec::new()), peers::read)?;
    measured.goals = args.goals.as_deref().map(Goals::load).transpose()?;
    output::print(&measured.machine)?;

    for section in
        Section::value_variants().iter().filter(|section| args.only.is_empty() || args.only.contains(section))
    {
        match section {
            Section::Limits => {
                measured.limits = limits::measure(effort.threads)?;
                print(&measured.limits, limits::table)?;
            }
            Section::Steps => {
                for &preset in &presets {
                    measured.steps.extend(steps::measure(preset, &formats, &cameras, effort)?);
                    measured.write(&args)?;
                }
                print(&measured.steps, steps::table)?;
            }
            Section::History => {
                measured.history = backbones::history(backbone, &formats, effort)?;
                print(&measured.history, backbones::history_table)?;
            }
            Section::Sequences => {
                measured.sequences = backbones::sequences(backbone, &formats, effort)?;
                print(&measured.sequences, backbones::sequence_table)?;
            }
            Section::Training => {
                measured.training = training(effort, args.quick)?;
                print(&measured.training, training_table)?;
            }
        }
        measured.write(&args)?;
    }
    print(&measured.peers, peers::table)?;
    print(&measured.verdicts(), goals::table)
}

/// What has been measured so far.
struct Measured {
    machine: Machine,
    /// Threads of the main measurement.
    threads: usize,
    /// Whose backbone `history` and `sequences` are of.
    backbone: Preset,
    limits: Vec<Limits>,
    steps: Vec<StepTimes>,
    history: Vec<HistoryPoint>,
    sequences: Vec<SequencePoint>,
    training: Vec<TrainingTime>,
    peers: Vec<Comparison>,
    goals: Option<Goals>,
}

impl Measured {
    fn new(threads: usize, backbone: Preset) -> Self {
        Self {
            machine: machine::this(),
            threads,
            backbone,
            limits: Vec::new(),
            steps: Vec::new(),
            history: Vec::new(),
            sequences: Vec::new(),
            training: Vec::new(),
            peers: Vec::new(),
            goals: None,
        }
    }

    /// How the goals turned out, if there are any.
    fn verdicts(&self) -> Vec<Verdict> {
        let Self { steps, history, sequences, .. } = self;
        let measured = goals::Measured { steps, backbone: self.backbone, history, sequences };
        self.goals.as_ref().map_or_else(Vec::new, |goals| goals.judge(&measured))
    }

    /// Writes the files that were asked for. It is done after every part, so that an interruption loses one part at
    /// most.
    fn write(&self, args: &BenchArgs) -> Result<()> {
        if let Some(path) = &args.report {
            write_atomically(path, self.page().as_bytes())?;
        }
        if let Some(path) = &args.json {
            write_atomically(path, (serde_json::to_string_pretty(&self.figures()?)? + "\n").as_bytes())?;
        }
        Ok(())
    }

    fn page(&self) -> String {
        let tables = [
            ("Goals", html(&self.verdicts(), goals::table)),
            ("Limits of the machine", html(&self.limits, limits::table)),
            ("A control step", html(&self.steps, steps::table)),
            ("In turn with other engines", html(&self.peers, peers::table)),
            ("Learning", html(&self.training, training_table)),
            ("Steps after long histories", html(&self.history, backbones::history_table)),
            ("Whole sequences", html(&self.sequences, backbones::sequence_table)),
        ];
        report::html(&self.machine, &tables, &self.history, &self.sequences)
    }

    fn figures(&self) -> Result<Figures<'_>> {
        let (step_ms, step_ms_variants) = by_preset(&self.steps, self.threads)?;
        Ok(Figures {
            machine: &self.machine,
            time: Utc::now().to_string(),
            limits: &self.limits,
            step_ms,
            step_ms_variants,
            history: &self.history,
            sequences: &self.sequences,
            training: &self.training,
            peers: &self.peers,
            goals: self.verdicts(),
            peak_rss_mb: peak_rss_mb(),
        })
    }
}

/// The main measurements, one camera on `threads` threads, by preset and format, and the others.
fn by_preset(times: &[StepTimes], threads: usize) -> Result<(serde_json::Value, Vec<&StepTimes>)> {
    let (main, variants): (Vec<_>, Vec<_>) =
        times.iter().partition(|time| time.cameras == 1 && time.threads == threads);
    let mut step_ms = serde_json::Map::new();
    for time in main {
        let of_preset = step_ms.entry(time.preset.to_string()).or_insert_with(|| serde_json::json!({}));
        of_preset[time.precision.as_str()] = serde_json::to_value(time)?;
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
