//! Normalisation statistics of vector features, and the maps between raw and normalised values.

use serde::{Deserialize, Serialize};

use crate::PolicyError;

/// How a vector feature is brought to the range that a network likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormMode {
    /// Leaves the values as they are.
    Identity,
    /// `(x - mean) / std`.
    MeanStd,
    /// Maps `[min, max]` to `[-1, 1]`.
    #[default]
    MinMax,
}

/// Statistics of one vector feature over a data set, each `[dim]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorStats {
    /// How the feature is normalised.
    pub mode: NormMode,
    /// Smallest value of each dimension.
    pub min: Vec<f32>,
    /// Largest value of each dimension.
    pub max: Vec<f32>,
    /// Mean of each dimension.
    pub mean: Vec<f32>,
    /// Standard deviation of each dimension.
    pub std: Vec<f32>,
}

/// Below this spread a dimension counts as constant and is only shifted, never divided by.
const SPREAD_MIN: f32 = 1e-6;

impl VectorStats {
    /// Statistics that leave a feature of `dim` dimensions as it is.
    pub fn identity(dim: usize) -> Self {
        Self {
            mode: NormMode::Identity,
            min: vec![-1.0; dim],
            max: vec![1.0; dim],
            mean: vec![0.0; dim],
            std: vec![1.0; dim],
        }
    }

    /// Checks that every statistic is finite and has `dim` values.
    ///
    /// # Errors
    /// Names `feature` and the statistic that does not fit.
    pub fn check(&self, feature: &str, dim: usize) -> Result<(), PolicyError> {
        for (name, values) in [("min", &self.min), ("max", &self.max), ("mean", &self.mean), ("std", &self.std)] {
            if values.len() != dim || values.iter().any(|value| !value.is_finite()) {
                return Err(PolicyError::Normalisation {
                    feature: feature.into(),
                    reason: format!(
                        "`{name}` must hold {dim} finite values, found {values:?}; recompute the statistics"
                    ),
                });
            }
        }
        Ok(())
    }

    /// Shift and scale of dimension `i`: `normalised = (raw - shift) / scale`.
    pub fn shift_scale(&self, i: usize) -> (f32, f32) {
        let spread = |scale: f32| if scale.abs() < SPREAD_MIN { 1.0 } else { scale };
        match self.mode {
            NormMode::Identity => (0.0, 1.0),
            NormMode::MeanStd => (self.mean[i], spread(self.std[i])),
            NormMode::MinMax => ((self.max[i] + self.min[i]) / 2.0, spread((self.max[i] - self.min[i]) / 2.0)),
        }
    }

    /// Normalises `values` (any number of rows of `[dim]`) in place.
    pub fn normalise(&self, values: &mut [f32]) {
        for row in values.chunks_exact_mut(self.mean.len()) {
            for (i, value) in row.iter_mut().enumerate() {
                let (shift, scale) = self.shift_scale(i);
                *value = (*value - shift) / scale;
            }
        }
    }

    /// Undoes [`VectorStats::normalise`] in place.
    pub fn unnormalise(&self, values: &mut [f32]) {
        for row in values.chunks_exact_mut(self.mean.len()) {
            for (i, value) in row.iter_mut().enumerate() {
                let (shift, scale) = self.shift_scale(i);
                *value = *value * scale + shift;
            }
        }
    }
}

/// What a checkpoint needs to know of its training data: statistics of state and action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormStats {
    /// `observation.state`, `[state_dim]`.
    pub state: VectorStats,
    /// `action`, `[action_dim]`.
    pub action: VectorStats,
}
