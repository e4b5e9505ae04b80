//! Multi-head attention and rotary positions.

use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_kernels::attention::{
    self as kernel, AttentionGrads, AttentionInput, AttentionScratch, AttentionShape, Mask,
};
use robomamba_kernels::{Rows, RowsMut};

use super::{Forward, FusedOp, Input, apply, kernels};
use crate::gemm::Precision;

/// Heads side by side in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Number of heads.
    pub count: usize,
    /// Width of one.
    pub dim: usize,
}

impl Heads {
    /// Width of a row.
    fn width(self) -> usize {
        self.count * self.dim
    }
}

/// `softmax(q k^T / sqrt(head_dim)) v` for every sequence of a batch: `q` `[batch * n_query, width]`, `k` and
/// `v` `[batch * n_key, width]`; sequence `i` sees its first `lengths[i]` keys.
pub(crate) fn attention(
    precision: Precision,
    shape: AttentionShape,
    lengths: Arc<[usize]>,
    inputs: [Input; 3],
) -> Tensor<2> {
    let heads = Heads { count: shape.n_head, dim: shape.head_dim };
    apply(Attention { precision, heads, kind: Kind::Padded { shape, lengths } }, inputs)
}

/// Causal self-attention in sequences of `lengths` that lie one after the other in the rows of `q`, `k` and
/// `v` `[rows, width]`.
pub(crate) fn causal_attention(
    precision: Precision,
    lengths: &Arc<[usize]>,
    heads: Heads,
    inputs: [Input; 3],
) -> Tensor<2> {
    apply(Attention { precision, heads, kind: Kind::Causal { lengths: Arc::clone(lengths) } }, inputs)
}

#[derive(Clone, Debug)]
struct Attention {
    precision: Precision,
    heads: Heads,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Padded { shape: AttentionShape, lengths: Arc<[usize]> },
    Causal { lengths: Arc<[usize]> },
}

impl Attention {
    /// The kernel calls that make up the operation: shape, mask, first row of the queries and of the keys.
    fn calls(&self) -> Vec<(AttentionShape, Mask<'_>, usize)> {
        match &self.kind {
            Kind::Padded { shape, lengths } => vec![(*shape, Mask::KeyLengths(lengths), 0)],
            Kind::Causal { lengths } => spans(lengths)
                .map(|(start, len)| {
                    let Heads { count: n_head, dim: head_dim } = self.heads;
                    let shape = AttentionShape { batch: 1, n_query: len, n_key: len, n_head, head_dim };
                    (shape, Mask::Causal, start)
                })
                .collect(),
        }
    }

    fn input<'a>(
        &self,
        (shape, mask, start): (AttentionShape, Mask<'a>, usize),
        inputs: [&'a [f32]; 3],
    ) -> AttentionInput<'a> {
        let width = self.heads.width();
        let [q, k, v] = inputs.map(|input| Rows::new(&input[start * width..], width));
        let scale = (self.heads.dim as f32).sqrt().recip();
        AttentionInput { shape, q, k, v, scale, mask, format: self.precision.format() }
    }
}

impl FusedOp<3, 2> for Attention {
    type Saved = ();

    fn forward(&self, inputs: [&[f32]; 3]) -> Forward<2, ()> {
        let width = self.heads.width();
        let mut output = vec![0.0; inputs[0].len()];
        let mut scratch = AttentionScratch::default();
        for call in self.calls() {
            let out = RowsMut::new(&mut output[call.2 * width..], width);
            kernel::forward(kernels(), &self.input(call, inputs), out, &mut scratch)
                .expect("the callers pass matching shapes");
        }
        Forward { shape: [output.len() / width, width], output, saved: () }
    }

    fn backward(&self, inputs: [&[f32]; 3], (): &(), grad: &[f32], _: [bool; 3]) -> [Option<Vec<f32>>; 3] {
        let width = self.heads.width();
        let mut grads = inputs.map(|input| vec![0.0; input.len()]);
        let mut scratch = AttentionScratch::default();
        for call in self.calls() {
            let start = call.2 * width;
            let [q, k, v] = grads.each_mut().map(|grad| RowsMut::new(&mut grad[start..], width));
            let grad = Rows::new(&grad[start..], width);
            kernel::backward(kernels(), &self.input(call, inputs), grad, AttentionGrads { q, k, v }, &mut scratch)
                .expect("the callers pass matching shapes");
        }
        grads.map(Some)
    }
}

/// First row and length of each sequence.
fn spans(lengths: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    lengths.iter().scan(0, |end, &len| {
        *end += len;
        Some((*end - len, len))
    })
}

/// Rotary position embedding of `x` `[rows, width]` in the half-split layout of `transformers.LlamaModel` (Su
/// et al. 2021, arXiv 2104.09864): dimensions `i` and `i + head_dim / 2` of a head turn by
/// `position * theta^(-2 i / head_dim)`. Positions count from 0 in every sequence; only their differences
/// matter to attention.
pub(crate) fn rotate(x: Input, lengths: &Arc<[usize]>, heads: Heads, theta: f32) -> Tensor<2> {
    apply(Rotate { lengths: Arc::clone(lengths), heads, theta }, [x])
}

#[derive(Clone, Debug)]
struct Rotate {
    lengths: Arc<[usize]>,
    heads: Heads,
    theta: f32,
}

impl Rotate {
    /// Turns by the positions times `direction`, 1 or -1; the gradient turns back.
    fn turn(&self, x: &[f32], direction: f64) -> Vec<f32> {
        let (dim, half) = (self.heads.dim, self.heads.dim / 2);
        let mut out = x.to_vec();
        let positions = self.lengths.iter().flat_map(|&len| 0..len);
        for (values, position) in out.chunks_exact_mut(self.heads.width()).zip(positions) {
            for i in 0..half {
                let angle = direction * position as f64 * f64::from(self.theta).powf(-2.0 * i as f64 / dim as f64);
                let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
                for head in values.chunks_exact_mut(dim) {
                    let (a, b) = (head[i], head[i + half]);
                    (head[i], head[i + half]) = (a * cos - b * sin, b * cos + a * sin);
                }
            }
        }
        out
    }
}

impl FusedOp<1, 2> for Rotate {
    type Saved = ();

    fn forward(&self, [x]: [&[f32]; 1]) -> Forward<2, ()> {
        let width = self.heads.width();
        Forward { output: self.turn(x, 1.0), shape: [x.len() / width, width], saved: () }
    }

    fn backward(&self, _: [&[f32]; 1], (): &(), grad: &[f32], _: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [Some(self.turn(grad, -1.0))]
    }
}
