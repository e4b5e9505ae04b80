//! The imitation loss of an action head with several modes.

use burn::tensor::Tensor;

use super::loss::{Pinball, Target, log_sum_exp};
use super::{Forward, FusedOp, Input, apply};

/// The loss `[1]` of inputs `[chunks, logits]`, `[rows, n_mode * width]` and `[rows, n_mode]`, against a target
/// `[rows, width]`:
///
/// ```text
/// e_m  = sum_j w_j pinball(x_mj - t_j) / W,   W = sum_j w_j
/// loss = sum_rows -W T ln sum_m p_m exp(-e_m / T),   p = softmax(logits)
/// ```
///
/// This is the negative log-likelihood of a mixture of Laplace distributions of temperature `T` (Bishop, 1994). It is
/// scaled so that one mode gives [`super::loss::smooth_pinball`]. Every chunk learns from the labels that it is nearest
/// to, and the logits learn which chunk that is.
pub(crate) fn mixture(inputs: [Input; 2], target: Target, pinball: Pinball, temperature: f32) -> Tensor<1> {
    apply(Mixture { target, pinball, temperature }, inputs)
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
    chunks: &'a [f32],
    /// `[n_mode]`.
    logits: &'a [f32],
    /// `[width]`.
    values: &'a [f32],
    /// `[width]`.
    weights: &'a [f32],
}

impl Row<'_> {
    /// Index, error and weight of every value of `chunk` with a weight.
    fn errors(&self, chunk: &[f32]) -> impl Iterator<Item = (usize, f32, f32)> {
        let values = chunk.iter().zip(self.values).zip(self.weights).enumerate();
        values.filter(|(_, (_, w))| **w != 0.0).map(|(j, ((x, t), &w))| (j, x - t, w))
    }
}

impl Mixture {
    /// All steps with a weight, with their indices.
    fn rows<'a>(&'a self, chunks: &'a [f32], logits: &'a [f32]) -> impl Iterator<Item = (usize, Row<'a>)> {
        let len = self.target.values.len();
        let n_mode = chunks.len() / len.max(1);
        let width = chunks.len() / logits.len().max(1);
        assert!(n_mode * len == chunks.len() && width * logits.len() == chunks.len(), "one logit per chunk");
        let row = move |i: usize| Row {
            chunks: &chunks[i * n_mode * width..][..n_mode * width],
            logits: &logits[i * n_mode..][..n_mode],
            values: &self.target.values[i * width..][..width],
            weights: &self.target.weights[i * width..][..width],
        };
        (0..len / width.max(1))
            .map(move |i| (i, row(i)))
            .filter(|(_, row)| row.weights.iter().any(|&weight| weight != 0.0))
    }

    /// `ln(p_m) - e_m / T` of every mode up to the normalisation of the logits, and `W`.
    fn scores(&self, row: &Row) -> (Vec<f32>, f32) {
        let weight: f32 = row.weights.iter().sum();
        let error =
            |chunk: &[f32]| row.errors(chunk).map(|(j, e, w)| w * self.pinball.term(j, e)).sum::<f32>() / weight;
        let modes = row.chunks.chunks_exact(row.values.len()).zip(row.logits);
        (modes.map(|(chunk, logit)| logit - error(chunk) / self.temperature).collect(), weight)
    }
}

impl FusedOp<2, 1> for Mixture {
    type Saved = ();

    fn forward(&self, [chunks, logits]: [&[f32]; 2]) -> Forward<1, ()> {
        let loss = self.rows(chunks, logits).map(|(_, row)| {
            let (scores, weight) = self.scores(&row);
            f64::from(weight * self.temperature * (log_sum_exp(row.logits) - log_sum_exp(&scores)))
        });
        Forward { output: vec![loss.sum::<f64>() as f32], shape: [1], saved: () }
    }

    fn backward(&self, [chunks, logits]: [&[f32]; 2], (): &(), grad: &[f32], _: [bool; 2]) -> [Option<Vec<f32>>; 2] {
        let (mut d_chunks, mut d_logits) = (vec![0.0; chunks.len()], vec![0.0; logits.len()]);
        for (i, row) in self.rows(chunks, logits) {
            let (scores, weight) = self.scores(&row);
            let (n_mode, width) = (row.logits.len(), row.values.len());
            let (sum, prior_sum) = (log_sum_exp(&scores), log_sum_exp(row.logits));
            for (m, chunk) in row.chunks.chunks_exact(width).enumerate() {
                // Responsibility of the mode for this label: posterior and prior.
                let (share, prior) = ((scores[m] - sum).exp(), (row.logits[m] - prior_sum).exp());
                d_logits[i * n_mode + m] = grad[0] * weight * self.temperature * (prior - share);
                let d_chunk = &mut d_chunks[(i * n_mode + m) * width..][..width];
                for (j, e, w) in row.errors(chunk) {
                    d_chunk[j] = grad[0] * w * share * self.pinball.slope(j, e);
                }
            }
        }
        [Some(d_chunks), Some(d_logits)]
    }
}
