//! What a demonstration measured; the content of its JSON.

use std::collections::BTreeMap;

use robomamba_sim::{EpisodeResult, Family};
use serde::Serialize;

use crate::interval::Rate;
use crate::machine::Machine;

/// One control step at 30 Hz, in milliseconds.
pub const DEADLINE_MS: f64 = 1000.0 / 30.0;

/// All figures of one demonstration.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Episodes and successes of every family.
    pub success: BTreeMap<Family, Rate>,
    /// 95 % Wilson interval of every family's success probability.
    pub success_interval: BTreeMap<Family, (f64, f64)>,
    /// Mean number of control steps of every family's episodes.
    pub mean_steps: BTreeMap<Family, f64>,
    /// Time from observation to action.
    pub latency_ms: Percentiles,
    /// Control steps per second that the policy alone sustains: the inverse of its mean latency.
    pub control_rate_hz: f64,
    /// Control steps per second of the whole loop, with simulation, rendering and logging.
    pub loop_rate_hz: f64,
    /// Control steps that took longer than [`Figures::deadline_ms`].
    pub deadline_misses: usize,
    /// Time that a control step may take.
    pub deadline_ms: f64,
    /// Control steps in all.
    pub steps: usize,
    /// Size of the policy's recurrent state.
    pub state_bytes: StateBytes,
    /// Most memory that the process occupied, in 10^6 bytes; null where the system does not tell.
    pub peak_rss_mb: Option<f64>,
    /// Where this was measured.
    pub machine: Machine,
    /// Folder of the checkpoint.
    pub checkpoint: String,
    /// Numbers in which its matrices were stored and multiplied.
    pub precision: String,
    /// Every episode.
    pub episodes: Vec<EpisodeResult>,
}

/// Percentiles of the control latency in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of the steps are faster.
    pub p50: f64,
    /// 95 % are faster.
    pub p95: f64,
    /// 99 % are faster.
    pub p99: f64,
    /// The slowest step.
    pub max: f64,
}

/// Size of the state in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StateBytes {
    /// After the first control step.
    pub first: usize,
    /// After the last one.
    pub last: usize,
}

/// Episodes and successes of every family.
pub fn success(episodes: &[EpisodeResult]) -> BTreeMap<Family, Rate> {
    let mut rates = BTreeMap::<Family, Rate>::new();
    for episode in episodes {
        rates.entry(episode.family).or_default().add(episode.success());
    }
    rates
}

/// Mean number of control steps of every family's episodes.
pub fn mean_steps(episodes: &[EpisodeResult]) -> BTreeMap<Family, f64> {
    let mut sums = BTreeMap::<Family, (usize, usize)>::new();
    for episode in episodes {
        let (steps, n) = sums.entry(episode.family).or_default();
        (*steps, *n) = (*steps + episode.steps, *n + 1);
    }
    sums.into_iter().map(|(family, (steps, n))| (family, steps as f64 / n as f64)).collect()
}

/// All families together.
pub fn overall(rates: &BTreeMap<Family, Rate>) -> Rate {
    rates.values().fold(Rate::default(), |sum, rate| Rate { n: sum.n + rate.n, k: sum.k + rate.k })
}
