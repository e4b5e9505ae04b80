//! Success: the confidence head predicts whether the episode succeeds, at every step.

use super::objective::{Collected, Objective, Sample, Stage, Term};
use crate::ops::loss::{Target, bce_with_logits};
use crate::ops::{self};

/// Binary cross-entropy of the success prediction.
pub(crate) struct Confidence;

impl Objective for Confidence {
    fn name(&self) -> &'static str {
        "confidence"
    }

    fn default_weight(&self) -> f32 {
        0.05
    }

    fn colour(&self) -> &'static str {
        "#b2182b"
    }

    fn stage(&self) -> Stage {
        Stage::Backbone
    }

    /// Always: its head is part of the policy, so its error is measured at a weight of zero too.
    fn is_active(&self, _: f32) -> bool {
        true
    }

    /// Steps of episodes without a known outcome have no weight.
    fn term(&self, sample: &Sample) -> Option<Term> {
        let mut labels = Collected::default();
        for step in sample.steps() {
            let success = step.recorded.success;
            let weight = if success.is_some() { step.weight } else { 0.0 };
            labels.push(&[f32::from(u8::from(success == Some(true)))], weight);
        }
        Some(term(labels.finish()))
    }
}

/// The loss against targets `[rows]`.
pub(crate) fn term(target: Target) -> Term {
    Term::new(move |taps, _| Some(bce_with_logits(ops::input(&taps.confidence), target.clone())))
}
