//! Grounding: the connector's attention is told where to look.
//!
//! A policy that is trained on actions alone finds out by trial which of the visible things an instruction names. Until
//! then it learns little about either. Where the data has the place of a named thing, the cross-entropy between a
//! query's attention and that place teaches both, pictures and words.

use std::sync::Arc;

use burn::tensor::Tensor;
use rayon::prelude::*;
use robomamba_kernels::attention::AttentionShape;

use super::objective::{Need, Objective, Sample, Stage, Term};
use super::patches::{Shares, shares};
use crate::modules::batch::ConnectorAttention;
use crate::ops::loss::log_sum_exp;
use crate::ops::{self, Forward, FusedOp, apply};

/// Cross-entropy of the connector's attention.
pub(crate) struct Grounding;

impl Objective for Grounding {
    fn name(&self) -> &'static str {
        "grounding"
    }

    fn colour(&self) -> &'static str {
        "#e08214"
    }

    fn stage(&self) -> Stage {
        Stage::Encoders
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Grounding]
    }

    /// Query `i` looks at point `i`; points beyond the last query are left out.
    fn term(&self, sample: &Sample) -> Option<Term> {
        let (vision, n_query) = (&sample.model.vision, sample.model.connector.n_query);
        let mut pointers = Vec::new();
        for (index, frame) in sample.frames.as_ref()?.iter().enumerate() {
            for places in &frame.recorded.grounding {
                for (query, point) in places.of_step(frame.step).filter(|(query, _)| *query < n_query) {
                    let point = sample.place(frame, places.camera, point);
                    let keys = shares(point, vision.grid(), places.camera * vision.n_patch());
                    pointers.push(Pointer { frame: index, query, keys });
                }
            }
        }
        term(pointers.into())
    }
}

/// Where one query of one frame is to look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pointer {
    /// Frame of the batch.
    pub frame: usize,
    /// Query.
    pub query: usize,
    /// Keys of the frame and their shares of the attention.
    pub keys: Shares,
}

/// The loss of the frames' attention; `None` without pointers.
pub(crate) fn term(pointers: Arc<[Pointer]>) -> Option<Term> {
    let is_empty = pointers.is_empty();
    let term = Term::new(move |taps, _| Some(cross_entropy(&taps.frames.as_ref()?.attention, Arc::clone(&pointers))));
    (!is_empty).then_some(term)
}

/// Mean cross-entropy `[1]` between the pointers and the attention, over all pointers and heads. Zero without pointers.
pub(crate) fn cross_entropy(attention: &ConnectorAttention, pointers: Arc<[Pointer]>) -> Tensor<1> {
    let ConnectorAttention { shape, n_visible, queries, keys } = attention;
    apply(Attended { shape: *shape, lengths: Arc::clone(n_visible), pointers }, [queries, keys].map(ops::input))
}

#[derive(Clone, Debug)]
struct Attended {
    shape: AttentionShape,
    lengths: Arc<[usize]>,
    pointers: Arc<[Pointer]>,
}

impl Attended {
    fn scale(&self) -> f32 {
        (self.shape.head_dim as f32).sqrt().recip()
    }

    /// The row of the pointer's query and the rows of its frame's keys.
    fn rows<'a>(&self, pointer: &Pointer, [q, k]: [&'a [f32]; 2]) -> [&'a [f32]; 2] {
        let AttentionShape { n_query, n_key, n_head, head_dim, .. } = self.shape;
        let width = n_head * head_dim;
        let query = &q[(pointer.frame * n_query + pointer.query) * width..][..width];
        [query, &k[pointer.frame * n_key * width..][..self.lengths[pointer.frame] * width]]
    }

    /// Returns the cross-entropy of one head; `logits` gets the attention probabilities.
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

impl FusedOp<2, 1> for Attended {
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
