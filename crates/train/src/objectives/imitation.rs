//! Imitation: the loss of the action chunks. Every run has it; the auxiliary objectives come beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_policy::VectorSpec;

use super::objective::{Collected, Sample};
use crate::modules::batch::Outputs;
use crate::ops::loss::{Pinball, Target, smooth_pinball};
use crate::ops::mixture::mixture;
use crate::ops::{self};
use crate::{Result, TrainError};

/// The loss between predicted and demonstrated action chunks.
#[derive(Clone, Debug)]
pub(crate) struct Imitation {
    /// Terms of single values.
    pub pinball: Pinball,
    /// Temperature of the mixture, where the action head has several modes.
    pub temperature: f32,
}

impl Imitation {
    /// The imitation error `[1]` against normalised chunks `[rows, chunk_size * action_dim]`.
    pub(crate) fn loss(&self, outputs: &Outputs, target: Target) -> Tensor<1> {
        let (chunks, pinball) = (ops::input(&outputs.chunks), self.pinball.clone());
        match &outputs.modes {
            None => smooth_pinball(chunks, target, pinball),
            Some(modes) => mixture([chunks, ops::input(modes)], target, pinball, self.temperature),
        }
    }
}

/// The quantile of each dimension of `action`: the median where `named` has none.
///
/// # Errors
/// [`TrainError::Setting`] for a name that the action does not have.
pub(crate) fn quantiles(named: &BTreeMap<String, f32>, action: &VectorSpec) -> Result<Arc<[f32]>> {
    if let Some(name) = named.keys().find(|name| !action.names.contains(name)) {
        let expected = format!("dimensions of the action, which are {}", action.names.join(", "));
        let found = format!("`{name}`");
        return Err(TrainError::Setting { field: "loss.action_quantiles".into(), expected, found });
    }
    Ok(action.names.iter().map(|name| named.get(name).copied().unwrap_or(0.5)).collect())
}

/// Normalised action chunks `[rows, chunk_size * action_dim]`. Actions past the end of the episode (`action_is_pad`)
/// have no weight, and neither have those that are no demonstration.
pub(crate) fn labels(sample: &Sample) -> Target {
    let (dim, chunk_size) = (sample.model.features.action.dim(), sample.model.action_head.chunk_size);
    let mut labels = Collected::default();
    for step in sample.steps() {
        let recorded = step.recorded;
        let actions = recorded.episode.action().unwrap_or_default();
        for ahead in step.step..step.step + chunk_size {
            let is_demonstrated = |step: usize| recorded.demonstration.get(step) == Some(&true);
            let at = ahead.min(recorded.len - 1) * dim;
            let mut action = actions[at..][..dim].to_vec();
            sample.stats.action.normalise(&mut action);
            let weight = if is_demonstrated(step.step) && is_demonstrated(ahead) { step.weight } else { 0.0 };
            labels.push(&action, weight);
        }
    }
    labels.finish()
}
