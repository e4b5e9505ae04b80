//! Recognition: patch tokens that are told what the picture shows.
//!
//! What an action loss says about a picture arrives through everything that lies between them, and speaks of one thing at
//! a time. Where the data knows what lies where, a linear classifier on the patch tokens teaches the vision encoder every
//! thing of every picture.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::grounding::Pointer;
use super::loss::log_sum_exp;
use super::{Forward, FusedOp, Input, apply};

/// Attributes of a thing: its kind and its colour.
pub(crate) const ATTRIBUTES: usize = 2;
/// Classes of each attribute.
pub(crate) const CLASSES: usize = 8;
/// Outputs of the classifier.
pub(crate) const OUTPUTS: usize = ATTRIBUTES * CLASSES;

/// A thing in a picture of the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thing {
    /// The patch tokens around it and their shares, which sum to 1, as in [`Pointer`].
    pub tokens: [(usize, f32); 4],
    /// What it is.
    pub classes: [usize; ATTRIBUTES],
}

impl Thing {
    /// A thing of `classes` at `point` in picture number `image`, both as in [`Pointer::at`].
    pub(crate) fn at(image: usize, point: [f32; 2], grid: usize, classes: [usize; ATTRIBUTES]) -> Self {
        Self { tokens: Pointer::at(0, 0, point, grid, image * grid * grid).keys, classes }
    }
}

/// Mean cross-entropy `[1]` between the attributes of `things` and what the linear classifier `weight`
/// `[OUTPUTS, width]`, `bias` `[OUTPUTS]` makes of the shared patch `tokens` `[n_token, width]`. Zero without things.
pub(crate) fn recognition(things: Arc<[Thing]>, inputs: [Input; 3]) -> Tensor<1> {
    apply(Recognition { things }, inputs)
}

#[derive(Clone, Debug)]
struct Recognition {
    things: Arc<[Thing]>,
}

/// What is computed for one thing; kept from thing to thing to save the allocations.
#[derive(Default)]
struct Seen {
    /// The shared token, `[width]`.
    token: Vec<f32>,
    /// Probability of every class, each attribute for itself.
    probability: [f32; OUTPUTS],
}

impl Recognition {
    /// Cross-entropies of one thing, added up over the attributes.
    fn look(&self, thing: &Thing, [tokens, weight, bias]: [&[f32]; 3], seen: &mut Seen) -> f32 {
        let width = weight.len() / OUTPUTS;
        seen.token.clear();
        seen.token.resize(width, 0.0);
        for &(row, share) in &thing.tokens {
            add_scaled(&mut seen.token, share, &tokens[row * width..][..width]);
        }
        for ((logit, weight), bias) in seen.probability.iter_mut().zip(weight.chunks_exact(width)).zip(bias) {
            *logit = bias + weight.iter().zip(&seen.token).map(|(w, x)| w * x).sum::<f32>();
        }
        let attributes = seen.probability.chunks_exact_mut(CLASSES).zip(thing.classes);
        attributes.map(|(logits, class)| cross_entropy(logits, class)).sum()
    }

    fn count(&self) -> f32 {
        (self.things.len() * ATTRIBUTES).max(1) as f32
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
        let mut seen = Seen::default();
        let total: f64 = self.things.iter().map(|thing| f64::from(self.look(thing, inputs, &mut seen))).sum();
        Forward { output: vec![total as f32 / self.count()], shape: [1], saved: () }
    }

    fn backward(&self, inputs: [&[f32]; 3], (): &(), grad: &[f32], _: [bool; 3]) -> [Option<Vec<f32>>; 3] {
        let slope = grad[0] / self.count();
        let [mut d_tokens, mut d_weight, mut d_bias] = inputs.map(|input| vec![0.0; input.len()]);
        let width = inputs[1].len() / OUTPUTS;
        let (mut seen, mut d_token) = (Seen::default(), vec![0.0; width]);
        for thing in self.things.iter() {
            self.look(thing, inputs, &mut seen);
            for (probability, class) in seen.probability.chunks_exact_mut(CLASSES).zip(thing.classes) {
                probability[class] -= 1.0;
            }
            d_token.fill(0.0);
            for (i, error) in seen.probability.iter().enumerate() {
                let (error, row) = (error * slope, i * width..(i + 1) * width);
                d_bias[i] += error;
                add_scaled(&mut d_weight[row.clone()], error, &seen.token);
                add_scaled(&mut d_token, error, &inputs[1][row]);
            }
            for &(row, share) in &thing.tokens {
                add_scaled(&mut d_tokens[row * width..][..width], share, &d_token);
            }
        }
        [Some(d_tokens), Some(d_weight), Some(d_bias)]
    }
}
