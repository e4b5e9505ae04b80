//! Grounding: an attention that is told where to look.
//!
//! A policy that is trained on actions alone has to find out by trial which of the things in the picture an
//! instruction speaks of, and long learns nothing of either. Where the data knows the place of a named thing, the
//! cross-entropy between a query's attention and that place teaches both at once, picture and words.

use std::sync::Arc;

use burn::tensor::Tensor;
use rayon::prelude::*;
use robomamba_kernels::attention::AttentionShape;

use super::loss::log_sum_exp;
use super::{Forward, FusedOp, Input, apply};

/// Where one query of one frame is to look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pointer {
    /// Frame of the batch.
    pub frame: usize,
    /// Query.
    pub query: usize,
    /// Keys and their shares of the attention, which sum to 1; a share of 0 counts for nothing.
    pub keys: [(usize, f32); 4],
}

impl Pointer {
    /// A pointer at `point`, fractions of the width and height of a picture that is cut into `grid` x `grid` patches,
    /// whose keys begin at `first_key`: the four nearest patches, by bilinear interpolation of their centres.
    pub(crate) fn at(frame: usize, query: usize, point: [f32; 2], grid: usize, first_key: usize) -> Self {
        let [(x, right), (y, below)] = point.map(|fraction| {
            let at = (fraction * grid as f32 - 0.5).clamp(0.0, (grid - 1) as f32);
            (at as usize, at.fract())
        });
        let key = |x: usize, y: usize| first_key + y.min(grid - 1) * grid + x.min(grid - 1);
        let keys = [
            (key(x, y), (1.0 - right) * (1.0 - below)),
            (key(x + 1, y), right * (1.0 - below)),
            (key(x, y + 1), (1.0 - right) * below),
            (key(x + 1, y + 1), right * below),
        ];
        Self { frame, query, keys }
    }
}

/// Mean cross-entropy `[1]` between where `pointers` say and the attention of `q` `[batch * n_query, width]` over
/// `k` `[batch * n_key, width]`, every head for itself; frame `i` sees its first `lengths[i]` keys. Zero without
/// pointers.
pub(crate) fn grounding(
    shape: AttentionShape,
    lengths: Arc<[usize]>,
    pointers: Arc<[Pointer]>,
    [q, k]: [Input; 2],
) -> Tensor<1> {
    apply(Grounding { shape, lengths, pointers }, [q, k])
}

#[derive(Clone, Debug)]
struct Grounding {
    shape: AttentionShape,
    lengths: Arc<[usize]>,
    pointers: Arc<[Pointer]>,
}

impl Grounding {
    fn scale(&self) -> f32 {
        (self.shape.head_dim as f32).sqrt().recip()
    }

    /// Row of the query of a pointer and rows of its frame's keys.
    fn rows<'a>(&self, pointer: &Pointer, [q, k]: [&'a [f32]; 2]) -> [&'a [f32]; 2] {
        let AttentionShape { n_query, n_key, n_head, head_dim, .. } = self.shape;
        let width = n_head * head_dim;
        let query = &q[(pointer.frame * n_query + pointer.query) * width..][..width];
        [query, &k[pointer.frame * n_key * width..][..self.lengths[pointer.frame] * width]]
    }

    /// Attention of one head; `logits` gets the probabilities. Returns the cross-entropy.
    fn attend(&self, pointer: &Pointer, [query, keys]: [&[f32]; 2], head: usize, logits: &mut Vec<f32>) -> f32 {
        let (dim, scale) = (self.shape.head_dim, self.scale());
        let query = &query[head * dim..][..dim];
        logits.clear();
        logits.extend(keys.chunks_exact(self.shape.n_head * dim).map(|key| {
            let key = &key[head * dim..][..dim];
            scale * query.iter().zip(key).map(|(q, k)| q * k).sum::<f32>()
        }));
        let log_sum = log_sum_exp(logits);
        let loss = pointer.keys.iter().map(|&(key, share)| share * (log_sum - logits[key])).sum();
        logits.iter_mut().for_each(|logit| *logit = (*logit - log_sum).exp());
        loss
    }
}

impl FusedOp<2, 1> for Grounding {
    type Saved = ();

    fn forward(&self, inputs: [&[f32]; 2]) -> Forward<1, ()> {
        let count = (self.pointers.len() * self.shape.n_head).max(1);
        let losses: Vec<f64> = self
            .pointers
            .par_iter()
            .map_init(Vec::new, |logits, pointer| {
                let rows = self.rows(pointer, inputs);
                (0..self.shape.n_head).map(|head| f64::from(self.attend(pointer, rows, head, logits))).sum()
            })
            .collect();
        Forward { output: vec![(losses.iter().sum::<f64>() / count as f64) as f32], shape: [1], saved: () }
    }

    fn backward(&self, inputs: [&[f32]; 2], (): &(), grad: &[f32], _: [bool; 2]) -> [Option<Vec<f32>>; 2] {
        let AttentionShape { n_query, n_key, n_head, head_dim, .. } = self.shape;
        let width = n_head * head_dim;
        let slope = self.scale() * grad[0] / (self.pointers.len() * n_head).max(1) as f32;
        let [mut dq, mut dk] = inputs.map(|input| vec![0.0; input.len()]);
        let mut logits = Vec::new();
        for pointer in self.pointers.iter() {
            let rows = self.rows(pointer, inputs);
            let dq = &mut dq[(pointer.frame * n_query + pointer.query) * width..][..width];
            let dk = &mut dk[pointer.frame * n_key * width..][..n_key * width];
            for head in 0..n_head {
                self.attend(pointer, rows, head, &mut logits);
                pointer.keys.iter().for_each(|&(key, share)| logits[key] -= share);
                let lanes = head * head_dim..(head + 1) * head_dim;
                let (query, dq) = (&rows[0][lanes.clone()], &mut dq[lanes.clone()]);
                for ((key, dk), p) in rows[1].chunks_exact(width).zip(dk.chunks_exact_mut(width)).zip(&logits) {
                    let p = p * slope;
                    dq.iter_mut().zip(&key[lanes.clone()]).for_each(|(dq, k)| *dq += p * k);
                    dk[lanes.clone()].iter_mut().zip(query).for_each(|(dk, q)| *dk += p * q);
                }
            }
        }
        [Some(dq), Some(dk)]
    }
}
