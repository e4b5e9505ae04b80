//! Environment state: a linear layer on the backbone's output predicts the privileged state of the simulator.

use robomamba_model::Part;

use super::objective::{Collected, Objective, Sample, Stage, Term};
use crate::corpus::Knowledge;
use crate::modules::layers::linear;
use crate::ops::loss::{Target, smooth_l1};
use crate::ops::{self};
use crate::parameters::TrainingHead;

const NAME: &str = "auxiliary";

/// Transition from quadratic to linear, in standard deviations. Much of the privileged state is zeros and ones. A loss
/// that is linear in their error draws to the likelier value, which hides a faint memory.
const BETA: f32 = 1.0;

/// Smooth L1 loss of the privileged state.
pub(crate) struct Auxiliary;

impl Objective for Auxiliary {
    fn name(&self) -> &'static str {
        NAME
    }

    fn default_weight(&self) -> f32 {
        0.2
    }

    fn colour(&self) -> &'static str {
        "#4d9221"
    }

    fn stage(&self) -> Stage {
        Stage::Backbone
    }

    fn head(&self, knowledge: &Knowledge) -> Option<TrainingHead> {
        TrainingHead::new(NAME, Part::Heads, knowledge.n_environment)
    }

    fn term(&self, sample: &Sample) -> Option<Term> {
        let stats = sample.environment?;
        let n = sample.knowledge.n_environment;
        let mut labels = Collected::default();
        for step in sample.steps() {
            let mut values = step.recorded.environment()[step.step * n..][..n].to_vec();
            stats.normalise(&mut values);
            labels.push(&values, step.weight);
        }
        Some(term(labels.finish()))
    }
}

/// The loss against targets `[rows, n_environment]`.
pub(crate) fn term(target: Target) -> Term {
    Term::new(move |taps, root| {
        let found = linear(root, NAME, &taps.hidden);
        Some(smooth_l1(ops::input(&found), target.clone(), BETA))
    })
}
