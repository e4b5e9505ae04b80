//! One optimiser step: forward, losses, backward, update.

use burn::tensor::Tensor;

use crate::losses::{LossConfig, Losses};
use crate::modules::batch::{Batch, Outputs, SequenceState};
use crate::modules::policy::PolicyModel;
use crate::objectives::imitation::{Imitation, quantiles};
use crate::objectives::{PerObjective, Terms};
use crate::ops::loss::{Pinball, Target};
use crate::ops::{self};
use crate::optimiser::{OptimiserConfig, OptimiserState};
use crate::parameters::Scope;
use crate::{Parameters, Result, TrainError};

/// The labels of one batch.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    /// Normalised action chunks, `[rows, chunk_size * action_dim]`.
    pub actions: Target,
    /// Losses of the auxiliary objectives with their labels.
    pub terms: Terms,
}

/// A batch with its labels and the states that its episodes start from (zeros where absent).
#[derive(Clone, Debug)]
pub(crate) struct Lesson {
    /// Inputs.
    pub batch: Batch,
    /// Labels.
    pub labels: Labels,
    /// State of each episode.
    pub initial: Vec<Option<SequenceState>>,
}

/// The result of a forward and a backward pass.
pub(crate) struct Pass {
    /// Losses.
    pub losses: Losses,
    /// The gradient of every parameter, in order.
    pub gradients: Vec<Vec<f32>>,
    /// State of each episode after the batch.
    pub last: Vec<SequenceState>,
}

/// The model in training with its optimiser.
#[derive(Debug)]
pub(crate) struct Learner {
    model: PolicyModel,
    imitation: Imitation,
    weights: PerObjective,
    optimiser: OptimiserConfig,
    /// Present weights.
    pub parameters: Parameters,
    /// Moments and averaged weights.
    pub state: OptimiserState,
}

impl Learner {
    /// # Errors
    /// [`TrainError::Setting`] when `loss` names dimensions that the action does not have.
    pub(crate) fn new(
        model: PolicyModel,
        parameters: Parameters,
        loss: &LossConfig,
        optimiser: OptimiserConfig,
    ) -> Result<Self> {
        let state = OptimiserState::new(&parameters);
        let quantiles = quantiles(&loss.action_quantiles, model.action())?;
        let pinball = Pinball { beta: loss.action_beta, quantiles };
        let imitation = Imitation { pinball, temperature: loss.mode_temperature };
        Ok(Self { model, imitation, weights: *loss.weights(), optimiser, parameters, state })
    }

    /// Takes one optimiser step. Returns the losses before it, and the state of each episode after the batch.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] when the loss is not finite; nothing is updated then.
    pub(crate) fn step(&mut self, lesson: Lesson, learning_rate: f64) -> Result<(Losses, Vec<SequenceState>)> {
        // As a task of the pool, or every product would put this thread to sleep and wake it again.
        rayon::scope(|_| {
            let Pass { mut losses, gradients, last } = self.gradients(lesson)?;
            let norm = self.optimiser.step(&mut self.parameters, &mut self.state, &gradients, learning_rate);
            losses.gradient_norm = norm as f32;
            Ok((losses, last))
        })
    }

    /// Runs a batch forward and backward.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] when the loss is not finite.
    pub(crate) fn gradients(&mut self, lesson: Lesson) -> Result<Pass> {
        let Lesson { batch, labels, initial } = lesson;
        let leaves = self.parameters.lend(self.model.precision());
        let outputs = self.model.forward(&leaves, batch, &initial);
        let objective = WeightedSum { imitation: &self.imitation, weights: &self.weights };
        let (total, losses) = objective.of(&outputs, labels, &leaves.root());
        if !losses.total.is_finite() {
            let (step, learning_rate) = (self.state.step, self.optimiser.learning_rate);
            return Err(TrainError::Diverged { step, loss: losses.total, learning_rate });
        }
        let gradients = leaves.gradients(total.backward());
        Ok(Pass { losses, gradients, last: outputs.last })
    }
}

/// The loss that is minimised.
struct WeightedSum<'a> {
    imitation: &'a Imitation,
    weights: &'a PerObjective,
}

impl WeightedSum<'_> {
    /// The imitation loss plus the weighted auxiliary losses, `[1]`, and each of them.
    fn of(&self, outputs: &Outputs, labels: Labels, parameters: &Scope) -> (Tensor<1>, Losses) {
        let read = |loss: &Tensor<1>| ops::values(loss.clone())[0];
        let mut total = self.imitation.loss(outputs, labels.actions);
        let mut losses = Losses::new(read(&total));
        for (place, term) in labels.terms.iter() {
            let Some(loss) = term.loss(&outputs.taps, parameters) else { continue };
            losses.set_objective(place, read(&loss));
            total = total + loss * self.weights.at(place);
        }
        losses.total = read(&total);
        (total, losses)
    }
}
