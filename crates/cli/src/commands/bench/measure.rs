//! How much is measured, and the order statistics of the results.

use std::time::Duration;

use serde::Serialize;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    pub steps: usize,
    /// Steps before the clock starts: caches, page tables and clock rates settle.
    pub warm_up: usize,
    /// Time for the steps of one model, after which a few are enough.
    pub patience: Duration,
    /// Whether one camera is measured on one thread as well.
    pub on_one_thread: bool,
    pub threads: usize,
    /// Longest history of a backbone, in control steps.
    pub history_max: usize,
    /// Longest sequence through a backbone, in control steps.
    pub sequence_max: usize,
}

/// Optimiser steps of one model.
#[derive(Clone, Debug, Serialize)]
pub struct TrainingTime {
    /// What learns, and from what.
    pub work: String,
    /// Numbers in which the products of its linear layers are computed.
    pub precision: String,
    /// Parameters that learn, in millions.
    pub parameters_m: f64,
    /// Median of a step, in milliseconds.
    pub ms: f64,
    /// Control steps that it learns from per second.
    pub steps_per_s: f64,
}

/// The value below which `percent` of the sorted `values` lie.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// The values in ascending order.
pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The 50th percentile.
pub fn median(values: Vec<f64>) -> f64 {
    percentile(&sorted(values), 50.0)
}
