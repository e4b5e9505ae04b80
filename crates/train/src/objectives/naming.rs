//! Naming: a linear layer on the token of a frame classifies the colours of the things that the instruction names.
//!
//! A colour that hardly shows in the token, such as that of a lit lamp, cannot be remembered by the backbone.

use robomamba_model::Part;

use super::objective::{Collected, Frame, Need, Objective, Sample, Stage, Term};
use crate::corpus::{Knowledge, Places};
use crate::modules::layers::linear;
use crate::ops::loss::{Target, bce_with_logits};
use crate::ops::{self};
use crate::parameters::TrainingHead;

const NAME: &str = "naming";

/// A thing nearer to a named point than this fraction of the picture's width is the named thing.
const SAME_PLACE: f32 = 1e-3;

/// Binary cross-entropies of the colours of the named things.
pub(crate) struct Naming;

impl Objective for Naming {
    fn name(&self) -> &'static str {
        NAME
    }

    fn colour(&self) -> &'static str {
        "#c51b7d"
    }

    fn stage(&self) -> Stage {
        Stage::Encoders
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Grounding, Need::Things]
    }

    fn head(&self, knowledge: &Knowledge) -> Option<TrainingHead> {
        TrainingHead::new(NAME, Part::Connector, knowledge.n_point * knowledge.classes?.colours)
    }

    /// A point without a thing has no weight.
    fn term(&self, sample: &Sample) -> Option<Term> {
        let n_colour = sample.knowledge.classes?.colours;
        let mut labels = Collected::default();
        for frame in sample.frames.as_ref()? {
            let mut start = labels.push_absent(sample.knowledge.n_point * n_colour);
            for places in &frame.recorded.grounding {
                for (i, colour) in colours(frame, places) {
                    let mut one_hot = vec![0.0; n_colour];
                    one_hot[colour] = 1.0;
                    labels.set(start + i * n_colour, &one_hot);
                }
                start += places.n_place * n_colour;
            }
        }
        Some(term(labels.finish()))
    }
}

/// Index and colour of every point of a camera at which a thing is.
fn colours(frame: &Frame, places: &Places<2>) -> Vec<(usize, usize)> {
    let of_camera = frame.recorded.things.iter().filter(|things| things.camera == places.camera);
    let things: Vec<_> = of_camera.flat_map(|things| things.of_step(frame.step)).collect();
    let colour = |(i, [x, y]): (usize, [f32; 2])| {
        let mut here = things.iter().filter(|(_, at)| (at[0] - x).hypot(at[1] - y) < SAME_PLACE);
        here.next().map(|(_, [.., colour])| (i, *colour as usize))
    };
    places.of_step(frame.step).filter_map(colour).collect()
}

/// The loss against targets `[n_frame, n_point * n_colour]`.
pub(crate) fn term(target: Target) -> Term {
    Term::new(move |taps, root| {
        let logits = linear(root, NAME, &taps.frames.as_ref()?.tokens);
        Some(bce_with_logits(ops::input(&logits), target.clone()))
    })
}
