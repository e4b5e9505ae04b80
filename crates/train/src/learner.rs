//! One optimiser step: forward, losses, backward, update.

use std::collections::BTreeMap;
use std::sync::Arc;

use robomamba_policy::VectorSpec;
use serde::{Deserialize, Serialize};

use crate::modules::{Batch, PolicyModel, SequenceState};
use crate::ops::loss::{Pinball, Target, bce_with_logits, smooth_l1, smooth_pinball};
use crate::ops::mixture::mixture;
use crate::ops::{self};
use crate::optimiser::{OptimiserConfig, OptimiserState};
use crate::{Parameters, Result, TrainError};

/// How the losses are weighed against each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Transition of the action loss from quadratic to linear, in normalised units; 0 is the L1 loss.
    pub action_beta: f32,
    /// Which quantile of the labels a dimension of the action is drawn to, by its name; the median, 0.5, where none is named. Where
    /// two answers are about as likely, such as whether to close a gripper, another one says which mistake is cheaper.
    pub action_quantiles: BTreeMap<String, f32>,
    /// How large a mean error of a plan, in normalised units, still counts as its own, where the action head has several modes: a label belongs to
    /// the modes in proportion to `p exp(-error / temperature)`, `p` their probability. Answers that are nearer to each other than this become one.
    pub mode_temperature: f32,
    /// Weight of the success prediction.
    pub confidence: f32,
    /// Weight of the privileged state's prediction, which only training has; 0 leaves the head out.
    pub auxiliary: f32,
    /// Weight of the cross-entropy between the connector's attention and the places of the things that an instruction
    /// speaks of, where the data knows them; 0 does without.
    pub grounding: f32,
    /// Weight of what a linear layer on the patch tokens, which only training has, tells wrong of the things in the
    /// picture: kind, colour and place, where the data knows them; 0 does without.
    pub recognition: f32,
    /// Weight of the regression of the places that an instruction speaks of from the token of a frame alone, where the
    /// data knows them, so that the trunk need not remember what is to be seen; 0 does without.
    pub pointing: f32,
    /// Weight of the binary cross-entropies of the colours of these things, such as that of a lit lamp, from the token of a frame alone, where the data knows
    /// them; what hardly shows in a token no trunk can remember. 0 does without.
    pub naming: f32,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            action_beta: 0.02,
            action_quantiles: BTreeMap::new(),
            mode_temperature: 0.1,
            confidence: 0.05,
            auxiliary: 0.2,
            grounding: 0.0,
            recognition: 0.0,
            pointing: 0.0,
            naming: 0.0,
        }
    }
}

impl LossConfig {
    /// The quantile of each of the action's dimensions.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a name that the action does not have.
    pub(crate) fn quantiles(&self, action: &VectorSpec) -> Result<Arc<[f32]>> {
        if let Some(name) = self.action_quantiles.keys().find(|name| !action.names.contains(name)) {
            let expected = format!("dimensions of the action, which are {}", action.names.join(", "));
            return Err(TrainError::Setting { field: "loss.action_quantiles", expected, found: format!("`{name}`") });
        }
        Ok(action.names.iter().map(|name| self.action_quantiles.get(name).copied().unwrap_or(0.5)).collect())
    }
}

/// What the model should have said: targets and weights of every element, which sum to one per loss (or
/// to zero where a batch holds nothing of the kind).
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    /// Normalised actions, `[rows, chunk_size * action_dim]`.
    pub actions: Target,
    /// Success of the episode, `[rows]`.
    pub confidence: Target,
    /// Normalised privileged state, `[rows, n_auxiliary]`.
    pub auxiliary: Target,
    /// Places in `[-1, 1]` of the picture, `[n_frame, n_pointing]`.
    pub pointing: Target,
    /// Whether a named thing has a colour, `[n_frame, n_naming]`.
    pub naming: Target,
}

/// Losses of one step, as logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// The weighted sum that is minimised.
    pub total: f32,
    /// Action loss.
    pub action: f32,
    /// Binary cross-entropy of the success prediction.
    pub confidence: f32,
    /// Loss of the privileged state's prediction.
    pub auxiliary: f32,
    /// Cross-entropy of the connector's attention.
    #[serde(default)]
    pub grounding: f32,
    /// What the patch tokens tell wrong.
    #[serde(default)]
    pub recognition: f32,
    /// Loss of the named places' regression.
    #[serde(default)]
    pub pointing: f32,
    /// Binary cross-entropy of the named things' colours.
    #[serde(default)]
    pub naming: f32,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f32,
}

impl Losses {
    /// Combines two sets of losses one by one.
    pub(crate) fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self {
            total: f(self.total, other.total),
            action: f(self.action, other.action),
            confidence: f(self.confidence, other.confidence),
            auxiliary: f(self.auxiliary, other.auxiliary),
            grounding: f(self.grounding, other.grounding),
            recognition: f(self.recognition, other.recognition),
            pointing: f(self.pointing, other.pointing),
            naming: f(self.naming, other.naming),
            gradient_norm: f(self.gradient_norm, other.gradient_norm),
        }
    }
}

/// The model in training with its optimiser.
#[derive(Debug)]
pub(crate) struct Learner {
    model: PolicyModel,
    loss: LossConfig,
    /// Of each dimension of the action.
    quantiles: Arc<[f32]>,
    optimiser: OptimiserConfig,
    /// Present weights.
    pub parameters: Parameters,
    /// Moments and averaged weights.
    pub state: OptimiserState,
}

impl Learner {
    /// # Errors
    /// [`TrainError::Setting`] when `loss` speaks of dimensions that the action does not have.
    pub(crate) fn new(
        model: PolicyModel,
        parameters: Parameters,
        loss: LossConfig,
        optimiser: OptimiserConfig,
    ) -> Result<Self> {
        let state = OptimiserState::new(&parameters);
        let quantiles = loss.quantiles(model.action())?;
        Ok(Self { model, loss, quantiles, optimiser, parameters, state })
    }

    /// Learns from one batch and returns the losses before the update, with the state of each episode after it.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] when the loss is not finite; nothing is updated then.
    pub(crate) fn step(
        &mut self,
        batch: Batch,
        labels: &Labels,
        initial: &[Option<SequenceState>],
        learning_rate: f64,
    ) -> Result<(Losses, Vec<SequenceState>)> {
        // As a task of the pool, or every product would put this thread to sleep and wake it again.
        rayon::scope(|_| {
            let (mut losses, gradients, last) = self.gradients(batch, labels, initial)?;
            let norm = self.optimiser.step(&mut self.parameters, &mut self.state, &gradients, learning_rate);
            losses.gradient_norm = norm as f32;
            Ok((losses, last))
        })
    }

    /// Losses, the gradient of every parameter in order, and the state of each episode after the batch.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] when the loss is not finite.
    pub(crate) fn gradients(
        &mut self,
        batch: Batch,
        labels: &Labels,
        initial: &[Option<SequenceState>],
    ) -> Result<(Losses, Vec<Vec<f32>>, Vec<SequenceState>)> {
        let leaves = self.parameters.lend(self.model.precision());
        let outputs = self.model.forward(&leaves, batch, initial);
        let quantiles = Arc::clone(&self.quantiles);
        let actions = ops::input(&outputs.actions);
        let (target, pinball) = (labels.actions.clone(), Pinball { beta: self.loss.action_beta, quantiles });
        let action = match &outputs.modes {
            None => smooth_pinball(actions, target, pinball),
            Some(modes) => mixture(actions, ops::input(modes), target, pinball, self.loss.mode_temperature),
        };
        let confidence = bce_with_logits(ops::input(&outputs.confidence), labels.confidence.clone());
        let auxiliary = outputs.auxiliary.map(|x| smooth_l1(ops::input(&x), labels.auxiliary.clone(), AUXILIARY_BETA));
        let pointing = outputs.pointing.map(|x| smooth_l1(ops::input(&x), labels.pointing.clone(), POINTING_BETA));
        let naming = outputs.naming.map(|x| bce_with_logits(ops::input(&x), labels.naming.clone()));
        let read = |loss: &burn::tensor::Tensor<1>| ops::values(loss.clone())[0];
        let mut losses = Losses {
            action: read(&action),
            confidence: read(&confidence),
            auxiliary: auxiliary.as_ref().map_or(0.0, read),
            grounding: outputs.grounding.as_ref().map_or(0.0, read),
            recognition: outputs.recognition.as_ref().map_or(0.0, read),
            pointing: pointing.as_ref().map_or(0.0, read),
            naming: naming.as_ref().map_or(0.0, read),
            ..Losses::default()
        };
        let mut total = action + confidence * self.loss.confidence;
        if let Some(auxiliary) = auxiliary {
            total = total + auxiliary * self.loss.auxiliary;
        }
        if let Some(grounding) = outputs.grounding {
            total = total + grounding * self.loss.grounding;
        }
        if let Some(recognition) = outputs.recognition {
            total = total + recognition * self.loss.recognition;
        }
        if let Some(pointing) = pointing {
            total = total + pointing * self.loss.pointing;
        }
        if let Some(naming) = naming {
            total = total + naming * self.loss.naming;
        }
        losses.total = read(&total);
        if !losses.total.is_finite() {
            let (step, learning_rate) = (self.state.step, self.optimiser.learning_rate);
            return Err(TrainError::Diverged { step, loss: losses.total, learning_rate });
        }
        let gradients = leaves.gradients(total.backward());
        Ok((losses, gradients, outputs.last))
    }
}

/// Transition of the pointing loss from quadratic to linear: two hundredths of a picture's width.
const POINTING_BETA: f32 = 0.04;

/// Transition of the auxiliary loss from quadratic to linear, in standard deviations: wide, because much of the privileged
/// state is zeros and ones, and what is linear in their error draws to the likelier value until the other is more likely
/// than not, so that a faint memory of it would be of no use.
const AUXILIARY_BETA: f32 = 1.0;
