//! `metrics.jsonl` and the loss curve.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::snapshot::io;
use crate::start::RunStart;
use crate::{Losses, Result, objectives};

/// A line of `metrics.jsonl` with steps: means since the one before. Lines `{"run": ..}` are headers, see [`RunStart`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Optimiser steps taken.
    pub step: u64,
    /// Losses and gradient norm.
    #[serde(flatten)]
    pub losses: Losses,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Distinct frames per second.
    pub frames_per_s: f64,
    /// Steps of episodes per second.
    pub steps_per_s: f64,
    /// Seconds of training, interruptions not counted.
    pub elapsed_s: f64,
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Start { run: RunStart },
    Step(Metrics),
}

impl Line {
    /// Whether it precedes the steps after `step`, which are going to be written again with a header of their own.
    fn is_kept(&self, step: u64) -> bool {
        match self {
            Self::Start { run } => run.from_step < step,
            Self::Step(metrics) => metrics.step <= step,
        }
    }
}

/// Appends to the log of a run.
#[derive(Debug)]
pub(crate) struct MetricsLog {
    path: PathBuf,
    lines: Vec<Metrics>,
}

impl MetricsLog {
    /// Opens the log in `out` at the header `start`. Drops what was written after its step.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn open(out: &Path, start: RunStart) -> Result<Self> {
        let path = out.join("metrics.jsonl");
        let text = if path.exists() { fs::read_to_string(&path).map_err(io(&path))? } else { String::new() };
        let known = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let mut all: Vec<Line> = known.filter(|line| line.is_kept(start.from_step)).collect();
        all.push(Line::Start { run: start });
        let kept: String = all.iter().map(json_line).collect();
        let step = |line| if let Line::Step(metrics) = line { Some(metrics) } else { None };
        let lines = all.into_iter().filter_map(step).collect();
        robomamba_files::write(&path, kept.as_bytes()).map_err(io(&path))?;
        Ok(Self { path, lines })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn push(&mut self, metrics: Metrics) -> Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.path).map_err(io(&self.path))?;
        file.write_all(json_line(&metrics).as_bytes()).map_err(io(&self.path))?;
        self.lines.push(metrics);
        Ok(())
    }

    /// Writes the loss curve, `loss.svg`, beside the log.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn draw(&self) -> Result<()> {
        let path = self.path.with_file_name("loss.svg");
        fs::write(&path, curve(&self.lines)).map_err(io(&path))
    }

    /// The last line.
    pub(crate) fn last(&self) -> Option<&Metrics> {
        self.lines.last()
    }
}

fn json_line(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("numbers and texts are JSON") + "\n"
}

/// Size of the picture and of its margin in pixels.
const SIZE: (f64, f64) = (840.0, 420.0);
const MARGIN: f64 = 56.0;

/// One curve of the plot.
struct Series {
    name: &'static str,
    colour: &'static str,
}

impl Series {
    fn read(&self, metrics: &Metrics) -> f32 {
        metrics.losses.objective(self.name).unwrap_or(metrics.losses.action)
    }
}

/// The losses over the steps on a logarithmic scale, as SVG.
fn curve(lines: &[Metrics]) -> String {
    let series: Vec<Series> = std::iter::once(Series { name: "action", colour: "#2166ac" })
        .chain(objectives::names().zip(objectives::colours()).map(|(name, colour)| Series { name, colour }))
        .collect();
    let values = lines.iter().flat_map(|m| series.iter().map(|s| f64::from(s.read(m)))).filter(|&v| v > 0.0);
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    let (low, high) = if low < high { (low.log10().floor(), high.log10().ceil()) } else { (-1.0, 0.0) };
    let last = lines.last().map_or(1, |m| m.step).max(1) as f64;
    let x = |step: f64| MARGIN + step / last * (SIZE.0 - 2.0 * MARGIN);
    let y = |v: f64| SIZE.1 - MARGIN - (v.log10() - low) / (high - low) * (SIZE.1 - 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        SIZE.0, SIZE.1
    );
    for decade in low as i32..=high as i32 {
        let at = y(10f64.powi(decade));
        svg += &format!(
            "<path d=\"M{MARGIN} {at:.1}H{}\" stroke=\"#ddd\"/><text x=\"8\" y=\"{:.1}\">1e{decade}</text>\n",
            SIZE.0 - MARGIN,
            at + 4.0
        );
    }
    for tick in 0..=5 {
        let step = last * f64::from(tick) / 5.0;
        svg += &format!("<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{step:.0}</text>\n", x(step), SIZE.1 - 34.0);
    }
    for (i, series) in series.iter().enumerate() {
        let Series { name, colour } = series;
        let shown = lines.iter().map(|m| (m.step, series.read(m))).filter(|&(_, value)| value > 0.0);
        let points: String = shown.map(|(step, v)| format!("{:.1},{:.1} ", x(step as f64), y(f64::from(v)))).collect();
        svg += &format!("<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\" points=\"{points}\"/>\n");
        let at = MARGIN + 110.0 * i as f64;
        svg += &format!("<text x=\"{at}\" y=\"30\" fill=\"{colour}\">{name} loss</text>\n");
    }
    svg + &format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">optimiser step</text>\n</svg>\n",
        SIZE.0 / 2.0,
        SIZE.1 - 14.0
    )
}
