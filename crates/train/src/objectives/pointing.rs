//! Pointing: a linear layer on the token of a frame predicts the points that the instruction names.
//!
//! The loss concerns single frames, so what is visible need not be remembered by the backbone.

use robomamba_model::Part;

use super::objective::{Collected, Need, Objective, Sample, Stage, Term};
use crate::corpus::Knowledge;
use crate::modules::layers::linear;
use crate::ops::loss::{Target, smooth_l1};
use crate::ops::{self};
use crate::parameters::TrainingHead;

const NAME: &str = "pointing";

/// Transition from quadratic to linear: two hundredths of a picture's width.
const BETA: f32 = 0.04;

/// Smooth L1 loss of the named points.
pub(crate) struct Pointing;

impl Objective for Pointing {
    fn name(&self) -> &'static str {
        NAME
    }

    fn colour(&self) -> &'static str {
        "#666666"
    }

    fn stage(&self) -> Stage {
        Stage::Encoders
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Grounding]
    }

    fn head(&self, knowledge: &Knowledge) -> Option<TrainingHead> {
        TrainingHead::new(NAME, Part::Connector, 2 * knowledge.n_point)
    }

    /// Points are in `[-1, 1]` of the picture; absent ones have no weight.
    fn term(&self, sample: &Sample) -> Option<Term> {
        let mut labels = Collected::default();
        for frame in sample.frames.as_ref()? {
            let mut start = labels.push_absent(2 * sample.knowledge.n_point);
            for places in &frame.recorded.grounding {
                for (i, point) in places.of_step(frame.step) {
                    let point = sample.place(frame, places.camera, point);
                    labels.set(start + 2 * i, &point.map(|fraction| 2.0 * fraction - 1.0));
                }
                start += 2 * places.n_place;
            }
        }
        Some(term(labels.finish()))
    }
}

/// The loss against targets `[n_frame, 2 * n_point]`.
pub(crate) fn term(target: Target) -> Term {
    Term::new(move |taps, root| {
        let found = linear(root, NAME, &taps.frames.as_ref()?.tokens);
        Some(smooth_l1(ops::input(&found), target.clone(), BETA))
    })
}
