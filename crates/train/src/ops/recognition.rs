//! Recognition: patch tokens that are told what the picture shows.
//!
//! What an action loss says about a picture arrives through everything that lies between them, and speaks of one thing at
//! a time. Where the data knows what lies where, a linear layer on the patch tokens teaches the vision encoder every
//! thing of every picture: its kind, its colour, and where in its patch the middle of it is, as a detector's head does
//! (Redmon et al., arXiv 1506.02640). Patches are wide, and who is to grasp needs a tenth of one.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::grounding::Pointer;
use super::loss::{huber, huber_slope, log_sum_exp};
use super::{Forward, FusedOp, Input, apply};

/// Attributes of a thing: its kind and its colour.
pub(crate) const ATTRIBUTES: usize = 2;
/// Classes of each attribute.
pub(crate) const CLASSES: usize = 8;
/// Logits of the classifier.
const LOGITS: usize = ATTRIBUTES * CLASSES;
/// Outputs of the linear layer: the logits, and x and y in the patch.
pub(crate) const OUTPUTS: usize = LOGITS + 2;
/// Transition of the loss of a place from quadratic to linear, in widths of a patch.
const PLACE_BETA: f32 = 0.1;

/// A thing in a picture of the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thing {
    /// The patch tokens around it and their shares, which sum to 1, as in [`Pointer`].
    pub tokens: [(usize, f32); 4],
    /// What it is.
    pub classes: [usize; ATTRIBUTES],
    /// The token of the patch that its middle is in. It is asked alone: shares of the others would give the place away.
    pub patch: usize,
    /// Its middle as seen from that of the patch, in widths of a patch.
    pub place: [f32; 2],
}

impl Thing {
    /// A thing of `classes` at `point` in picture number `image`, both as in [`Pointer::at`].
    pub(crate) fn at(image: usize, point: [f32; 2], grid: usize, classes: [usize; ATTRIBUTES]) -> Self {
        let first = image * grid * grid;
        let [x, y] = point.map(|fraction| fraction * grid as f32);
        let [column, row] = [x, y].map(|at| (at.max(0.0) as usize).min(grid - 1));
        Self {
            tokens: Pointer::at(0, 0, point, grid, first).keys,
            classes,
            patch: first + row * grid + column,
            place: [x - column as f32 - 0.5, y - row as f32 - 0.5],
        }
    }
}

/// How far from the truth about `things` the linear layer `weight` `[OUTPUTS, width]`, `bias` `[OUTPUTS]` on the patch
/// `tokens` `[n_token, width]` is, `[1]`: the mean cross-entropy of their attributes, read off the shared tokens, and the
/// mean smooth L1 distance of their places, read off their own patch. Zero without things.
pub(crate) fn recognition(things: Arc<[Thing]>, inputs: [Input; 3]) -> Tensor<1> {
    apply(Recognition { things }, inputs)
}

#[derive(Clone, Debug)]
struct Recognition {
    things: Arc<[Thing]>,
}

/// What is computed for one thing; kept from thing to thing to save the allocations.
struct Seen {
    /// The shared token, `[width]`.
    shared: Vec<f32>,
    /// Derivative of the thing's loss by every output.
    slope: [f32; OUTPUTS],
}

impl Seen {
    fn new() -> Self {
        Self { shared: Vec::new(), slope: [0.0; OUTPUTS] }
    }
}

impl Recognition {
    /// The loss of one thing.
    fn look(&self, thing: &Thing, [tokens, weight, bias]: [&[f32]; 3], seen: &mut Seen) -> f32 {
        let width = weight.len() / OUTPUTS;
        let token = |row: usize| &tokens[row * width..][..width];
        seen.shared.clear();
        seen.shared.resize(width, 0.0);
        for &(row, share) in &thing.tokens {
            add_scaled(&mut seen.shared, share, token(row));
        }
        let mut outputs = [0.0; OUTPUTS];
        for (i, output) in outputs.iter_mut().enumerate() {
            let asked = if i < LOGITS { &seen.shared } else { token(thing.patch) };
            let weight = &weight[i * width..][..width];
            *output = bias[i] + weight.iter().zip(asked).map(|(w, x)| w * x).sum::<f32>();
        }
        let (logits, place) = outputs.split_at_mut(LOGITS);
        let mut loss = 0.0;
        for (attribute, (logits, class)) in logits.chunks_exact_mut(CLASSES).zip(thing.classes).enumerate() {
            loss += cross_entropy(logits, class) / ATTRIBUTES as f32;
            logits[class] -= 1.0;
            let slopes = &mut seen.slope[attribute * CLASSES..][..CLASSES];
            slopes.iter_mut().zip(logits).for_each(|(slope, error)| *slope = *error / ATTRIBUTES as f32);
        }
        for (i, (found, truth)) in place.iter().zip(thing.place).enumerate() {
            loss += 0.5 * huber(found - truth, PLACE_BETA);
            seen.slope[LOGITS + i] = 0.5 * huber_slope(found - truth, PLACE_BETA);
        }
        loss
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

impl FusedOp<3, 1> for Recognition {
    type Saved = ();

    fn forward(&self, inputs: [&[f32]; 3]) -> Forward<1, ()> {
        let mut seen = Seen::new();
        let total: f64 = self.things.iter().map(|thing| f64::from(self.look(thing, inputs, &mut seen))).sum();
        Forward { output: vec![total as f32 / self.count()], shape: [1], saved: () }
    }

    fn backward(&self, inputs: [&[f32]; 3], (): &(), grad: &[f32], _: [bool; 3]) -> [Option<Vec<f32>>; 3] {
        let slope = grad[0] / self.count();
        let [mut d_tokens, mut d_weight, mut d_bias] = inputs.map(|input| vec![0.0; input.len()]);
        let width = inputs[1].len() / OUTPUTS;
        let (mut seen, mut d_shared) = (Seen::new(), vec![0.0; width]);
        for thing in self.things.iter() {
            self.look(thing, inputs, &mut seen);
            d_shared.fill(0.0);
            for (i, error) in seen.slope.iter().map(|error| error * slope).enumerate() {
                let row = i * width..(i + 1) * width;
                let own = thing.patch * width..(thing.patch + 1) * width;
                let (asked, d_asked) = if i < LOGITS {
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
