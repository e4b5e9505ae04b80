//! `metrics.jsonl` and the loss curve.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::snapshot::io;
use crate::{Losses, Result};

/// One line of `metrics.jsonl`: means since the line before.
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

/// Appends to the log of a run.
#[derive(Debug)]
pub(crate) struct MetricsLog {
    path: PathBuf,
    lines: Vec<Metrics>,
}

impl MetricsLog {
    /// Opens the log in `out` and drops the lines after `step`, which are going to be written again.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn open(out: &Path, step: u64) -> Result<Self> {
        let path = out.join("metrics.jsonl");
        let text = if path.exists() { fs::read_to_string(&path).map_err(io(&path))? } else { String::new() };
        let known = text.lines().filter_map(|line| serde_json::from_str::<Metrics>(line).ok());
        let lines: Vec<Metrics> = known.filter(|metrics| metrics.step <= step).collect();
        let kept: String = lines.iter().map(json_line).collect();
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

fn json_line(metrics: &Metrics) -> String {
    serde_json::to_string(metrics).expect("numbers are JSON") + "\n"
}

/// Size of the picture and of its margin in pixels.
const SIZE: (f64, f64) = (840.0, 420.0);
const MARGIN: f64 = 56.0;

/// The losses over the steps on a logarithmic scale, as SVG.
fn curve(lines: &[Metrics]) -> String {
    type Read = fn(&Metrics) -> f32;
    let series: [(&str, &str, Read); 7] = [
        ("action", "#2166ac", |m| m.losses.action),
        ("confidence", "#b2182b", |m| m.losses.confidence),
        ("auxiliary", "#4d9221", |m| m.losses.auxiliary),
        ("grounding", "#e08214", |m| m.losses.grounding),
        ("recognition", "#7b3294", |m| m.losses.recognition),
        ("pointing", "#666666", |m| m.losses.pointing),
        ("naming", "#c51b7d", |m| m.losses.naming),
    ];
    let values = lines.iter().flat_map(|m| series.map(|(_, _, read)| f64::from(read(m)))).filter(|&v| v > 0.0);
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
    for (i, (name, colour, read)) in series.into_iter().enumerate() {
        let shown = lines.iter().filter(|m| read(m) > 0.0);
        let points: String = shown.map(|m| format!("{:.1},{:.1} ", x(m.step as f64), y(f64::from(read(m))))).collect();
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
