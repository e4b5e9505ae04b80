//! The one form of a result, from any simulator or robot: an [`EpisodeRecord`].
//!
//! A file of records holds one JSON object per line (JSON Lines). Simulators outside of this project write the same
//! form:
//!
//! ```json
//! {"suite": "libero", "task": "SCENE3", "seed": 7, "outcome": "succeeded", "steps": 212}
//! {"suite": "libero_10", "task": "S8", "seed": 8, "steps": 9, "outcome": {"failed": {"reason": "drop", "step": 9}}}
//! ```

use std::fmt::Write;
use std::fs;
use std::path::Path;

use robomamba_policy::{LatencyHistogram, Outcome, Played};
use serde::{Deserialize, Serialize};

use crate::EvalError;

/// How one episode went. Unknown keys of a record are ignored when it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpisodeRecord {
    /// Collection of tasks, for example `tabletop` or `libero_10`.
    pub suite: String,
    /// Task within the suite.
    pub task: String,
    /// Seed of the initial conditions.
    pub seed: u64,
    /// Number of earlier attempts at the same scene.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Number of control steps.
    pub steps: usize,
    /// Fraction of the task that was done, in `[0, 1]`; absent where the suite does not define it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f32>,
    /// Instruction at the first step.
    #[serde(default)]
    pub instruction: String,
    /// Time from observation to actions; absent where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
}

fn is_zero(attempt: &u64) -> bool {
    *attempt == 0
}

impl EpisodeRecord {
    /// Whether the task was accomplished.
    pub fn is_success(&self) -> bool {
        self.outcome.is_success()
    }
}

impl From<&Played> for EpisodeRecord {
    fn from(played: &Played) -> Self {
        Self {
            suite: played.episode.suite.to_string(),
            task: played.episode.task.to_string(),
            seed: played.episode.seed,
            attempt: played.episode.attempt,
            outcome: played.outcome.clone(),
            steps: played.steps,
            progress: Some(played.progress),
            instruction: played.episode.instruction.to_string(),
            latency: Some(Latency::of(&played.latency)),
        }
    }
}

/// Percentiles of the control latency in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the steps are faster.
    pub p50_ms: f64,
    /// 95 % of the steps are faster.
    pub p95_ms: f64,
    /// 99 % of the steps are faster.
    pub p99_ms: f64,
    /// The slowest step.
    pub max_ms: f64,
}

impl Latency {
    /// The percentiles of `histogram`.
    pub fn of(histogram: &LatencyHistogram) -> Self {
        Self {
            p50_ms: histogram.percentile_ms(50.0),
            p95_ms: histogram.percentile_ms(95.0),
            p99_ms: histogram.percentile_ms(99.0),
            max_ms: histogram.max_ms(),
        }
    }
}

/// Records as JSON Lines.
pub fn to_json_lines(records: &[EpisodeRecord]) -> String {
    records.iter().fold(String::new(), |mut lines, record| {
        // A record holds nothing that JSON cannot express.
        let _ = writeln!(lines, "{}", serde_json::to_string(record).unwrap_or_default());
        lines
    })
}

/// Reads a file of records. Blank lines are skipped.
///
/// # Errors
/// When the file cannot be read or has no record, and names the line that is none.
pub fn read_records(path: &Path) -> Result<Vec<EpisodeRecord>, EvalError> {
    let text = fs::read_to_string(path).map_err(|source| EvalError::Read { path: path.into(), source })?;
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|source| EvalError::Record { path: path.into(), line: index + 1, source })
    };
    let records: Vec<EpisodeRecord> = lines.map(parse).collect::<Result<_, _>>()?;
    if records.is_empty() { Err(EvalError::Empty { path: path.into() }) } else { Ok(records) }
}
