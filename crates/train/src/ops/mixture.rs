//! The action loss of a head that chooses among several plans.

use burn::tensor::Tensor;

use super::loss::{Pinball, Target, log_sum_exp};
use super::{Forward, FusedOp, Input, apply};

/// The loss `[1]` of `plans` `[rows, n_mode * width]` with `logits` `[rows, n_mode]` against a target of `[rows, width]`:
///
/// ```text
/// e_m  = sum_j w_j pinball(x_mj - t_j) / W,   W = sum_j w_j
/// loss = sum_rows -W T ln sum_m p_m exp(-e_m / T),   p = softmax(logits)
/// ```
///
/// For a temperature `T` the negative log-likelihood of a mixture of Laplace distributions (Bishop, 1994), scaled so that one mode gives
/// [`super::loss::smooth_pinball`]: every plan learns from the labels it is nearest to, and the logits learn which one that is.
pub(crate) fn mixture(plans: Input, logits: Input, target: Target, pinball: Pinball, temperature: f32) -> Tensor<1> {
    apply(Mixture { target, pinball, temperature }, [plans, logits])
}

#[derive(Clone, Debug)]
struct Mixture {
    target: Target,
    pinball: Pinball,
    temperature: f32,
}

/// One step of the batch.
struct Row<'a> {
    /// `[n_mode, width]`.
    plans: &'a [f32],
    /// `[n_mode]`.
    logits: &'a [f32],
    /// `[width]`.
    values: &'a [f32],
    /// `[width]`.
    weights: &'a [f32],
}

impl Row<'_> {
    /// Place, error and weight of every value of `plan` that counts.
    fn errors(&self, plan: &[f32]) -> impl Iterator<Item = (usize, f32, f32)> {
        let values = plan.iter().zip(self.values).zip(self.weights).enumerate();
        values.filter(|(_, (_, w))| **w != 0.0).map(|(j, ((x, t), &w))| (j, x - t, w))
    }
}

impl Mixture {
    /// All steps that count, with their numbers.
    fn rows<'a>(&'a self, plans: &'a [f32], logits: &'a [f32]) -> impl Iterator<Item = (usize, Row<'a>)> {
        let len = self.target.values.len();
        let n_mode = plans.len() / len.max(1);
        let width = plans.len() / logits.len().max(1);
        assert!(n_mode * len == plans.len() && width * logits.len() == plans.len(), "a logit for every plan");
        let row = move |i: usize| Row {
            plans: &plans[i * n_mode * width..][..n_mode * width],
            logits: &logits[i * n_mode..][..n_mode],
            values: &self.target.values[i * width..][..width],
            weights: &self.target.weights[i * width..][..width],
        };
        (0..len / width.max(1))
            .map(move |i| (i, row(i)))
            .filter(|(_, row)| row.weights.iter().any(|&weight| weight != 0.0))
    }

    /// `ln(p_m) - e_m / T` of every mode, without the constant that the logits have in common, and `W`.
    fn scores(&self, row: &Row) -> (Vec<f32>, f32) {
        let weight: f32 = row.weights.iter().sum();
        let error = |plan: &[f32]| row.errors(plan).map(|(j, e, w)| w * self.pinball.term(j, e)).sum::<f32>() / weight;
        let modes = row.plans.chunks_exact(row.values.len()).zip(row.logits);
        (modes.map(|(plan, logit)| logit - error(plan) / self.temperature).collect(), weight)
    }
}

impl FusedOp<2, 1> for Mixture {
    type Saved = ();

    fn forward(&self, [plans, logits]: [&[f32]; 2]) -> Forward<1, ()> {
        let loss = self.rows(plans, logits).map(|(_, row)| {
            let (scores, weight) = self.scores(&row);
            f64::from(weight * self.temperature * (log_sum_exp(row.logits) - log_sum_exp(&scores)))
        });
        Forward { output: vec![loss.sum::<f64>() as f32], shape: [1], saved: () }
    }

    fn backward(&self, [plans, logits]: [&[f32]; 2], (): &(), grad: &[f32], _: [bool; 2]) -> [Option<Vec<f32>>; 2] {
        let (mut d_plans, mut d_logits) = (vec![0.0; plans.len()], vec![0.0; logits.len()]);
        for (i, row) in self.rows(plans, logits) {
            let (scores, weight) = self.scores(&row);
            let (n_mode, width) = (row.logits.len(), row.values.len());
            let (sum, prior_sum) = (log_sum_exp(&scores), log_sum_exp(row.logits));
            for (m, plan) in row.plans.chunks_exact(width).enumerate() {
                // What the mode has of this label, after and before it was seen.
                let (share, prior) = ((scores[m] - sum).exp(), (row.logits[m] - prior_sum).exp());
                d_logits[i * n_mode + m] = grad[0] * weight * self.temperature * (prior - share);
                let d_plan = &mut d_plans[(i * n_mode + m) * width..][..width];
                for (j, e, w) in row.errors(plan) {
                    d_plan[j] = grad[0] * w * share * self.pinball.slope(j, e);
                }
            }
        }
        [Some(d_plans), Some(d_logits)]
    }
}
