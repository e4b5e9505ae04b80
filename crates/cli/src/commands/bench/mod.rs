//! `bench`: what this machine can do, and how near to it every part of a control step comes.

mod limits;
mod steps;
mod trunks;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use robomamba_model::Preset;
use robomamba_runtime::Format;
use serde::Serialize;

use crate::machine::{Machine, Utc, peak_rss_mb};
use crate::output;
use crate::run_folder::write_atomically;
use limits::Limits;
use steps::StepTimes;
use trunks::{HistoryPoint, SequencePoint};

/// Options of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Model sizes; repeatable [default: tabletop, small, base]
    #[arg(long = "preset", value_name = "PRESET")]
    presets: Vec<Preset>,
    /// Formats of the matrices; repeatable [default: f32, bf16, int8]
    #[arg(long = "precision", value_name = "FORMAT")]
    formats: Vec<Format>,
    /// Control steps that are timed per model
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: u32,
    /// Threads of the main measurement; variants with one thread come beside it
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Fewer repetitions and shorter histories: a minute in all
    #[arg(long)]
    quick: bool,
    /// Write every figure to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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
    peak_rss_mb: Option<f64>,
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
    let effort = Effort {
        steps: if args.quick { 20 } else { args.steps as usize },
        threads: args.threads.into(),
        history_max: if args.quick { 1_000 } else { 100_000 },
        sequence_max: if args.quick { 100 } else { 10_000 },
    };
    let or = |chosen: Vec<Preset>, all: &[Preset]| if chosen.is_empty() { all.to_vec() } else { chosen };
    let presets = or(args.presets, &[Preset::Tabletop, Preset::Small, Preset::Base]);
    let formats = if args.formats.is_empty() { Format::ALL.to_vec() } else { args.formats };
    let machine = Machine::this();
    output::print(&machine)?;

    let limits = limits::measure(effort.threads)?;
    output::print(limits::table(&limits))?;

    let mut times = Vec::new();
    for &preset in &presets {
        times.extend(steps::measure(preset, &formats, effort)?);
    }
    output::print(steps::table(&times))?;

    let trunk = if args.quick { Preset::Small } else { Preset::Base };
    let trunk = if presets.contains(&trunk) { trunk } else { presets[0] };
    let history = trunks::history(trunk, &formats, effort)?;
    output::print(trunks::history_table(&history))?;
    let sequences = trunks::sequences(trunk, effort)?;
    output::print(trunks::sequence_table(&sequences))?;

    if let Some(path) = &args.json {
        let (main, variants): (Vec<_>, Vec<_>) =
            times.into_iter().partition(|time| time.cameras == 1 && time.threads == effort.threads);
        let mut step_ms = serde_json::Map::new();
        for time in main {
            let of_preset = step_ms.entry(time.preset.to_string()).or_insert_with(|| serde_json::json!({}));
            of_preset[time.precision.as_str()] = serde_json::to_value(&time)?;
        }
        let figures = Figures {
            machine,
            time: Utc::now().to_string(),
            limits,
            step_ms: step_ms.into(),
            step_ms_variants: variants,
            history,
            sequences,
            peak_rss_mb: peak_rss_mb(),
        };
        write_atomically(path, (serde_json::to_string_pretty(&figures)? + "\n").as_bytes())?;
    }
    Ok(())
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
