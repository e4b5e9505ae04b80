//! AdamW with gradient clipping and an exponential moving average of the weights.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Parameters;

/// Settings of the optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimiserConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of matrices; everything else is spared.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; larger ones are scaled down to it.
    pub clip_norm: f64,
    /// Decay of the moving average of the weights that is exported, reached after a warm-up of
    /// `(1 + step) / (10 + step)`.
    pub ema_decay: f64,
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            weight_decay: 0.02,
            clip_norm: 1.0,
            ema_decay: 0.998,
        }
    }
}

/// Moments and averaged weights, one vector per parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OptimiserState {
    /// Steps taken.
    pub step: u64,
    /// First moments.
    pub first: Vec<Vec<f32>>,
    /// Second moments.
    pub second: Vec<Vec<f32>>,
    /// Averaged weights.
    pub ema: Vec<Vec<f32>>,
}

impl OptimiserState {
    /// No step taken: moments of zero, and the average is the present weights.
    pub(crate) fn new(parameters: &Parameters) -> Self {
        let zeros = || parameters.list.iter().map(|p| vec![0.0; p.values.len()]).collect();
        let ema = parameters.list.iter().map(|p| p.values.clone()).collect();
        Self { step: 0, first: zeros(), second: zeros(), ema }
    }
}

impl OptimiserConfig {
    /// One step of AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) for all parameters that are not frozen.
    /// The gradient is clipped to its global norm; returns the norm before clipping.
    pub(crate) fn step(
        &self,
        parameters: &mut Parameters,
        state: &mut OptimiserState,
        gradients: &[Vec<f32>],
        learning_rate: f64,
    ) -> f64 {
        let norm = global_norm(gradients);
        state.step += 1;
        let t = state.step as i32;
        let rates = Rates {
            clip: if norm > self.clip_norm { (self.clip_norm / norm) as f32 } else { 1.0 },
            beta: [self.beta1 as f32, self.beta2 as f32],
            correction: [self.beta1, self.beta2].map(|beta| (1.0 / (1.0 - beta.powi(t))) as f32),
            eps: self.eps as f32,
            learning_rate: learning_rate as f32,
            ema: self.ema_decay.min((1.0 + state.step as f64) / (10.0 + state.step as f64)) as f32,
        };
        let decay = (learning_rate * self.weight_decay) as f32;
        let moments = state.first.par_iter_mut().zip(&mut state.second).zip(&mut state.ema);
        let tensors = parameters.list.par_iter_mut().zip(gradients).zip(moments);
        tensors.filter(|((parameter, _), _)| !parameter.frozen).for_each(|((parameter, gradient), moments)| {
            let ((first, second), ema) = moments;
            let decay = if parameter.decays() { 1.0 - decay } else { 1.0 };
            rates.update(decay, Updated { values: &mut parameter.values, gradient, first, second, ema });
        });
        norm
    }
}

/// The scalars of one step.
struct Rates {
    clip: f32,
    beta: [f32; 2],
    correction: [f32; 2],
    eps: f32,
    learning_rate: f32,
    ema: f32,
}

/// One tensor with its gradient, moments and average.
struct Updated<'a> {
    values: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    ema: &'a mut [f32],
}

impl Rates {
    /// Updates one tensor; `decay` is the factor of the weight decay.
    fn update(&self, decay: f32, Updated { values, gradient, first, second, ema }: Updated) {
        let moments = first.iter_mut().zip(second);
        for (((value, &g), (m, v)), ema) in values.iter_mut().zip(gradient).zip(moments).zip(ema) {
            let g = g * self.clip;
            *m = self.beta[0] * *m + (1.0 - self.beta[0]) * g;
            *v = self.beta[1] * *v + (1.0 - self.beta[1]) * g * g;
            let direction = *m * self.correction[0] / ((*v * self.correction[1]).sqrt() + self.eps);
            *value = *value * decay - self.learning_rate * direction;
            *ema += (1.0 - self.ema) * (*value - *ema);
        }
    }
}

/// Summed tensor by tensor in order, so that the result does not depend on the threads.
fn global_norm(gradients: &[Vec<f32>]) -> f64 {
    let squares: Vec<f64> = gradients.par_iter().map(|gradient| sum_of_squares(gradient)).collect();
    squares.iter().sum::<f64>().sqrt()
}

fn sum_of_squares(values: &[f32]) -> f64 {
    /// Independent sums, so that no addition waits for the one before.
    const APART: usize = 16;
    let (blocks, rest) = values.as_chunks::<APART>();
    let mut sums = [0.0; APART];
    for block in blocks {
        for (sum, &x) in sums.iter_mut().zip(block) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
}
