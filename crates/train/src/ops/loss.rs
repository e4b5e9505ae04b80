//! Losses as weighted sums: an element of weight 0 is masked out and gets no gradient.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::{Forward, FusedOp, Input, apply};

/// What a prediction is compared with, and how much each element counts; both of the prediction's length.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The values aimed at.
    pub values: Arc<[f32]>,
    /// Weights; they usually sum to 1, so that the loss is a mean.
    pub weights: Arc<[f32]>,
}

/// `sum_i w_i huber(x_i - t_i)` `[1]` with `huber(e) = e^2 / (2 beta)` below `beta` and `|e| - beta / 2`
/// above, PyTorch's `smooth_l1_loss`; `beta` 0 is the L1 loss.
pub(crate) fn smooth_l1(prediction: Input, target: Target, beta: f32) -> Tensor<1> {
    smooth_pinball(prediction, target, Pinball { beta, quantiles: [0.5].into() })
}

/// The sum of [`Pinball`]'s terms `[1]`.
pub(crate) fn smooth_pinball(prediction: Input, target: Target, pinball: Pinball) -> Tensor<1> {
    apply(SmoothPinball { target, pinball }, [prediction])
}

/// The pinball loss (Koenker and Bassett, 1978), smoothed like [`smooth_l1`]: draws to a quantile `q` of the target
/// instead of its median. The factor of a term is `2 q` where the prediction is too low, else `2 (1 - q)`. Element `i`
/// has `q = quantiles[i % quantiles.len()]`.
#[derive(Clone, Debug)]
pub(crate) struct Pinball {
    /// Transition from quadratic to linear.
    pub beta: f32,
    /// Of each dimension.
    pub quantiles: Arc<[f32]>,
}

impl Pinball {
    /// The term of element `i` for a prediction that is `e` too high.
    pub(crate) fn term(&self, i: usize, e: f32) -> f32 {
        self.side(i, e) * huber(e, self.beta)
    }

    /// Its derivative.
    pub(crate) fn slope(&self, i: usize, e: f32) -> f32 {
        self.side(i, e) * huber_slope(e, self.beta)
    }

    /// The weight of an error of `e` in element `i`.
    fn side(&self, i: usize, e: f32) -> f32 {
        let quantile = self.quantiles[i % self.quantiles.len()];
        2.0 * if e < 0.0 { quantile } else { 1.0 - quantile }
    }
}

/// `sum_i w_i bce(sigmoid(x_i), t_i)` `[1]`, PyTorch's `binary_cross_entropy_with_logits`.
pub(crate) fn bce_with_logits(logits: Input, target: Target) -> Tensor<1> {
    apply(Bce { target }, [logits])
}

/// `ln(sum_i exp(x_i))`, of which a cross-entropy subtracts the logit of the class.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f32>().ln()
}

/// The term of [`smooth_l1`] for an error of `e`.
pub(crate) fn huber(e: f32, beta: f32) -> f32 {
    let e = e.abs();
    if e < beta { e * e / (2.0 * beta) } else { e - beta / 2.0 }
}

/// Its derivative.
pub(crate) fn huber_slope(e: f32, beta: f32) -> f32 {
    match e {
        0.0 => 0.0,
        e if e.abs() < beta => e / beta,
        e => e.signum(),
    }
}

#[derive(Clone, Debug)]
struct SmoothPinball {
    target: Target,
    pinball: Pinball,
}

impl FusedOp<1, 1> for SmoothPinball {
    type Saved = ();

    fn forward(&self, [x]: [&[f32]; 1]) -> Forward<1, ()> {
        let loss = self.target.sum(x, |i, x, t| self.pinball.term(i, x - t));
        Forward { output: vec![loss], shape: [1], saved: () }
    }

    fn backward(&self, [x]: [&[f32]; 1], (): &(), grad: &[f32], _: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [Some(self.target.grad(x, grad[0], |i, x, t| self.pinball.slope(i, x - t)))]
    }
}

#[derive(Clone, Debug)]
struct Bce {
    target: Target,
}

impl FusedOp<1, 1> for Bce {
    type Saved = ();

    fn forward(&self, [x]: [&[f32]; 1]) -> Forward<1, ()> {
        let loss = self.target.sum(x, |_, x, t| x.max(0.0) - x * t + (-x.abs()).exp().ln_1p());
        Forward { output: vec![loss], shape: [1], saved: () }
    }

    fn backward(&self, [x]: [&[f32]; 1], (): &(), grad: &[f32], _: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [Some(self.target.grad(x, grad[0], |_, x, t| 1.0 / (1.0 + (-x).exp()) - t))]
    }
}

impl Target {
    /// The weighted sum of `loss(index, prediction, value)`.
    fn sum(&self, x: &[f32], loss: impl Fn(usize, f32, f32) -> f32) -> f32 {
        let terms = x.iter().zip(self.values.iter()).zip(self.weights.iter()).enumerate();
        let counted = terms.filter(|&(_, (_, &w))| w != 0.0);
        counted.map(|(i, ((&x, &t), &w))| f64::from(w * loss(i, x, t))).sum::<f64>() as f32
    }

    fn grad(&self, x: &[f32], scale: f32, slope: impl Fn(usize, f32, f32) -> f32) -> Vec<f32> {
        let terms = x.iter().zip(self.values.iter()).zip(self.weights.iter()).enumerate();
        terms.map(|(i, ((&x, &t), &w))| if w == 0.0 { 0.0 } else { scale * w * slope(i, x, t) }).collect()
    }
}
