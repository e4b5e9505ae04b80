//! Goals from a file beside what was measured.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use robomamba_eval::Table;
use robomamba_model::Preset;
use serde::{Deserialize, Serialize};

use super::backbones::{HistoryPoint, SequencePoint};
use super::steps::StepTimes;

/// What a project aims at; `benchmarks/goals.json` holds ours.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goals {
    /// Rates of whole control steps, 99 of 100 steps within the period.
    #[serde(default)]
    control_rate: Vec<ControlRate>,
    /// How much slower a step of Mamba may be after the longest history.
    flat: Option<Flat>,
    /// How a whole sequence may grow.
    linear: Option<Linear>,
    /// Times of a backbone of one size; those of a small one need not come from memory at all.
    of_preset: Option<OfPreset>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlRate {
    preset: Preset,
    precision: String,
    hz: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flat {
    slower_at_most: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Linear {
    tokens: usize,
    against: usize,
    times_at_most: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfPreset {
    preset: Preset,
    /// A step against reading its matrices once.
    reading_times_at_most: f64,
    sequences: Vec<Sequence>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sequence {
    tokens: usize,
    ms: f64,
}

/// A goal and how it turned out on this machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// What is aimed at.
    pub goal: String,
    /// By how much, in words.
    pub wanted: String,
    /// What was measured.
    pub measured: String,
    /// Whether it is met.
    pub is_met: bool,
}

/// Everything that goals speak of.
pub struct Measured<'a> {
    pub steps: &'a [StepTimes],
    /// Size of the backbones of `history` and `sequences`.
    pub backbone: Preset,
    pub history: &'a [HistoryPoint],
    pub sequences: &'a [SequencePoint],
}

impl Goals {
    /// Reads a file of goals.
    ///
    /// # Errors
    /// When it cannot be read, or has keys of another name.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no file of goals", path.display()))
    }

    /// Judges every goal for which something was measured.
    pub fn judge(&self, measured: &Measured) -> Vec<Verdict> {
        let rates = self.control_rate.iter().filter_map(|goal| goal.judge(measured.steps));
        let flat = self.flat.as_ref().and_then(|goal| goal.judge(measured.history));
        let linear = self.linear.as_ref().and_then(|goal| goal.judge(measured.sequences));
        let of_preset = self.of_preset.iter().filter(|goal| goal.preset == measured.backbone);
        let of_preset = of_preset.flat_map(|goal| goal.judge(measured));
        rates.chain(flat).chain(linear).chain(of_preset).collect()
    }
}

impl ControlRate {
    fn judge(&self, steps: &[StepTimes]) -> Option<Verdict> {
        let of_preset = steps.iter().filter(|step| step.preset == self.preset && step.precision == self.precision);
        let step = of_preset.filter(|step| step.cameras == 1).max_by_key(|step| step.threads)?;
        let period_ms = 1e3 / self.hz;
        Some(Verdict {
            goal: format!("control rate of `{}`, {}, {} threads", self.preset, self.precision, step.threads),
            wanted: format!("{:.0} Hz, 99 of 100 steps within {period_ms:.1} ms", self.hz),
            measured: format!("{:.0} Hz, p99 {:.1} ms", 1e3 / step.p50, step.p99),
            is_met: step.p99 <= period_ms,
        })
    }
}

impl Flat {
    /// Compares a Mamba step after the longest history with a first step, in the format with the largest difference.
    fn judge(&self, history: &[HistoryPoint]) -> Option<Verdict> {
        let mamba = || history.iter().filter(|point| point.backbone == "mamba");
        let longest = mamba().map(|point| point.history).max().filter(|&longest| longest > 1)?;
        let last = || mamba().filter(|point| point.history == longest);
        let largest = last().map(|point| point.to_first - 1.0).max_by(f64::total_cmp)?;
        let bytes = |history| mamba().find(|point| point.history == history).map(|point| point.state_bytes);
        let same_state = bytes(1) == bytes(longest);
        let state = if same_state { "the same state" } else { "another size of state" };
        let growth = last().filter_map(|point| point.resident_growth).max();
        let grown = growth.map_or_else(String::new, |bytes| format!(", {bytes} bytes more memory"));
        let percent = 100.0 * self.slower_at_most;
        Some(Verdict {
            goal: format!("cost and memory after {longest} steps"),
            wanted: format!("within {percent:.0} % of the first step, the same state, no more memory"),
            measured: format!("{:+.1} %, {state}{grown}", 100.0 * largest),
            is_met: largest <= self.slower_at_most && same_state && growth.is_none_or(|bytes| bytes <= 0),
        })
    }
}

impl Linear {
    fn judge(&self, sequences: &[SequencePoint]) -> Option<Verdict> {
        let (long, short) = (in_f32(sequences, self.tokens)?, in_f32(sequences, self.against)?);
        let ratio = long.ms / short.ms;
        Some(Verdict {
            goal: "time grows linearly with the sequence".into(),
            wanted: format!("{} tokens at most {} times as long as {}", self.tokens, self.times_at_most, self.against),
            measured: format!("{ratio:.1} times"),
            is_met: ratio <= self.times_at_most,
        })
    }
}

impl OfPreset {
    fn judge(&self, measured: &Measured) -> Vec<Verdict> {
        let readings = measured.history.iter().filter_map(|point| self.reading(point));
        let sequences = self.sequences.iter().filter_map(|goal| {
            let point = in_f32(measured.sequences, goal.tokens)?;
            Some(Verdict {
                goal: format!("{} steps at once through the backbone, f32", goal.tokens),
                wanted: format!("{:.0} ms", goal.ms),
                measured: format!("{:.0} ms", point.ms),
                is_met: point.ms <= goal.ms,
            })
        });
        readings.chain(sequences).collect()
    }

    fn reading(&self, point: &HistoryPoint) -> Option<Verdict> {
        let reading = point.reading?;
        Some(Verdict {
            goal: format!("a step of the backbone, {}", point.precision),
            wanted: format!("{} times reading its matrices once, {:.2} ms", self.reading_times_at_most, reading.ms),
            measured: format!("{:.2} ms, {:.2} times", point.step_ms, reading.step),
            is_met: reading.step <= self.reading_times_at_most,
        })
    }
}

/// A sequence through Mamba in f32.
fn in_f32(sequences: &[SequencePoint], tokens: usize) -> Option<&SequencePoint> {
    sequences.iter().find(|point| point.backbone == "mamba" && point.precision == "f32" && point.tokens == tokens)
}

/// All verdicts.
pub fn table(verdicts: &[Verdict]) -> Table {
    let mut table = Table::new(["goal", "wanted", "measured", "met"]);
    for verdict in verdicts {
        let met = if verdict.is_met { "yes" } else { "no" };
        table.row([verdict.goal.clone(), verdict.wanted.clone(), verdict.measured.clone(), met.into()]);
    }
    table
}
