//! Recognition: a linear layer on the patch tokens detects the things in the picture.
//!
//! The imitation loss says little about a picture: it concerns one thing at a time and arrives through the whole model.
//! Where the data has the place of every thing, this layer teaches the vision encoder kinds, colours, and exact places
//! within patches. It works like the head of a one-stage detector (Redmon et al., arXiv 1506.02640).

use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_model::Part;

use super::objective::{Need, Objective, Sample, Stage, Term};
use super::patches::{Shares, shares};
use crate::classes::Classes;
use crate::corpus::Knowledge;
use crate::ops::loss::{huber, huber_slope, log_sum_exp};
use crate::ops::{self, Forward, FusedOp, Input, apply};
use crate::parameters::TrainingHead;

const NAME: &str = "recognition";

/// Attributes of a thing: its kind and its colour.
const ATTRIBUTES: usize = 2;
/// Transition of the loss of a place from quadratic to linear, in widths of a patch.
const PLACE_BETA: f32 = 0.1;

/// Classification and localisation of the things in the picture.
pub(crate) struct Recognition;

impl Objective for Recognition {
    fn name(&self) -> &'static str {
        NAME
    }

    fn colour(&self) -> &'static str {
        "#7b3294"
    }

    fn stage(&self) -> Stage {
        Stage::Encoders
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Things]
    }

    fn head(&self, knowledge: &Knowledge) -> Option<TrainingHead> {
        TrainingHead::new(NAME, Part::Vision, n_output(knowledge.classes?))
    }

    fn term(&self, sample: &Sample) -> Option<Term> {
        let grid = sample.model.vision.grid();
        let n_camera = sample.model.features.cameras.len();
        let mut things = Vec::new();
        for (index, frame) in sample.frames.as_ref()?.iter().enumerate() {
            for places in &frame.recorded.things {
                for (_, [x, y, kind, colour]) in places.of_step(frame.step) {
                    let at = PicturePoint {
                        picture: index * n_camera + places.camera,
                        point: sample.place(frame, places.camera, [x, y]),
                    };
                    things.push(Thing::at(at, grid, [kind, colour].map(|class| class as usize)));
                }
            }
        }
        term(things.into(), sample.knowledge.classes?)
    }
}

/// Outputs of the head: the logits of kinds and colours, then x and y in the patch.
pub(crate) fn n_output(classes: Classes) -> usize {
    classes.kinds + classes.colours + 2
}

/// A point of one picture of the batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PicturePoint {
    /// The picture: the cameras of a frame side by side.
    pub picture: usize,
    /// Fractions of its width and height.
    pub point: [f32; 2],
}

/// A thing in a picture of the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thing {
    /// The patch tokens around it, from whose mean its classes are read.
    pub tokens: Shares,
    /// Kind and colour.
    pub classes: [usize; ATTRIBUTES],
    /// The token of the patch that contains its middle, from which the place is read: the shares would give it away.
    pub patch: usize,
    /// Its middle relative to that of the patch, in widths of a patch.
    pub place: [f32; 2],
}

impl Thing {
    /// A thing of these classes in a picture of `grid` x `grid` patches.
    pub(crate) fn at(at: PicturePoint, grid: usize, classes: [usize; ATTRIBUTES]) -> Self {
        let first = at.picture * grid * grid;
        let [x, y] = at.point.map(|fraction| fraction * grid as f32);
        let [column, row] = [x, y].map(|at| (at.max(0.0) as usize).min(grid - 1));
        Self {
            tokens: shares(at.point, grid, first),
            classes,
            patch: first + row * grid + column,
            place: [x - column as f32 - 0.5, y - row as f32 - 0.5],
        }
    }
}

/// The loss of the frames' patch tokens; `None` without things.
pub(crate) fn term(things: Arc<[Thing]>, classes: Classes) -> Option<Term> {
    let is_empty = things.is_empty();
    let term = Term::new(move |taps, root| {
        let head = root.under(NAME);
        let tokens = ops::input(&taps.frames.as_ref()?.patches);
        Some(detection(Arc::clone(&things), classes, [tokens, head.input("weight"), head.input("bias")]))
    });
    (!is_empty).then_some(term)
}

/// Error `[1]` of a linear layer on patch tokens, for inputs `[tokens, weight, bias]`: `[n_token, width]`,
/// `[n_output, width]` and `[n_output]`. It is the mean cross-entropy of the attributes plus the mean smooth L1
/// distance of the places. Attributes are read from the shared tokens, places from the things' own patches. Zero
/// without things.
pub(crate) fn detection(things: Arc<[Thing]>, classes: Classes, inputs: [Input; 3]) -> Tensor<1> {
    apply(Detection { things, classes }, inputs)
}

#[derive(Clone, Debug)]
struct Detection {
    things: Arc<[Thing]>,
    classes: Classes,
}

/// Working memory for one thing, reused from thing to thing.
struct Seen {
    /// The shared token, `[width]`.
    shared: Vec<f32>,
    /// Outputs of the head, `[n_output]`.
    outputs: Vec<f32>,
    /// Derivative of the thing's loss by every output, `[n_output]`.
    slope: Vec<f32>,
}

impl Detection {
    fn n_logit(&self) -> usize {
        self.classes.kinds + self.classes.colours
    }

    fn seen(&self) -> Seen {
        let zeros = || vec![0.0; n_output(self.classes)];
        Seen { shared: Vec::new(), outputs: zeros(), slope: zeros() }
    }

    /// Returns the loss of one thing and fills `seen`.
    fn look(&self, thing: &Thing, inputs: [&[f32]; 3], seen: &mut Seen) -> f32 {
        self.predict(thing, inputs, seen);
        let Seen { outputs, slope, .. } = seen;
        let (mut logits, place) = outputs.split_at_mut(self.n_logit());
        let (mut slopes, place_slopes) = slope.split_at_mut(self.n_logit());
        let mut loss = 0.0;
        for (class, count) in thing.classes.into_iter().zip([self.classes.kinds, self.classes.colours]) {
            let (of_attribute, rest) = logits.split_at_mut(count);
            let (of_slope, rest_slopes) = slopes.split_at_mut(count);
            (logits, slopes) = (rest, rest_slopes);
            loss += cross_entropy(of_attribute, class) / ATTRIBUTES as f32;
            of_attribute[class] -= 1.0;
            of_slope.iter_mut().zip(of_attribute).for_each(|(slope, error)| *slope = *error / ATTRIBUTES as f32);
        }
        for ((found, truth), slope) in place.iter().zip(thing.place).zip(place_slopes) {
            loss += 0.5 * huber(found - truth, PLACE_BETA);
            *slope = 0.5 * huber_slope(found - truth, PLACE_BETA);
        }
        loss
    }

    /// Fills the shared token and the outputs.
    fn predict(&self, thing: &Thing, [tokens, weight, bias]: [&[f32]; 3], seen: &mut Seen) {
        let width = weight.len() / bias.len();
        let token = |row: usize| &tokens[row * width..][..width];
        seen.shared.clear();
        seen.shared.resize(width, 0.0);
        for &(row, share) in &thing.tokens {
            add_scaled(&mut seen.shared, share, token(row));
        }
        for (i, output) in seen.outputs.iter_mut().enumerate() {
            let asked = if i < self.n_logit() { &seen.shared } else { token(thing.patch) };
            let weight = &weight[i * width..][..width];
            *output = bias[i] + weight.iter().zip(asked).map(|(w, x)| w * x).sum::<f32>();
        }
    }

    fn count(&self) -> f32 {
        self.things.len().max(1) as f32
    }
}

/// Cross-entropy with `class`; `logits` become probabilities.
fn cross_entropy(logits: &mut [f32], class: usize) -> f32 {
    let log_sum = log_sum_exp(logits);
    let loss = log_sum - logits[class];
    logits.iter_mut().for_each(|logit| *logit = (*logit - log_sum).exp());
    loss
}

fn add_scaled(sum: &mut [f32], scale: f32, values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += scale * value);
}

impl FusedOp<3, 1> for Detection {
    type Saved = ();

    fn forward(&self, inputs: [&[f32]; 3]) -> Forward<1, ()> {
        let mut seen = self.seen();
        let total: f64 = self.things.iter().map(|thing| f64::from(self.look(thing, inputs, &mut seen))).sum();
        Forward { output: vec![total as f32 / self.count()], shape: [1], saved: () }
    }

    fn backward(&self, inputs: [&[f32]; 3], (): &(), grad: &[f32], _: [bool; 3]) -> [Option<Vec<f32>>; 3] {
        let slope = grad[0] / self.count();
        let [mut d_tokens, mut d_weight, mut d_bias] = inputs.map(|input| vec![0.0; input.len()]);
        let width = inputs[1].len() / inputs[2].len();
        let (mut seen, mut d_shared) = (self.seen(), vec![0.0; width]);
        for thing in self.things.iter() {
            self.look(thing, inputs, &mut seen);
            d_shared.fill(0.0);
            for (i, error) in seen.slope.iter().map(|error| error * slope).enumerate() {
                let row = i * width..(i + 1) * width;
                let own = thing.patch * width..(thing.patch + 1) * width;
                let (asked, d_asked) = if i < self.n_logit() {
                    (&seen.shared[..], &mut d_shared[..])
                } else {
                    (&inputs[0][own.clone()], &mut d_tokens[own])
                };
                d_bias[i] += error;
                add_scaled(&mut d_weight[row.clone()], error, asked);
                add_scaled(d_asked, error, &inputs[1][row]);
            }
            for &(row, share) in &thing.tokens {
                add_scaled(&mut d_tokens[row * width..][..width], share, &d_shared);
            }
        }
        [Some(d_tokens), Some(d_weight), Some(d_bias)]
    }
}
