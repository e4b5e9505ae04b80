//! Multi-head attention and rotary positions.

use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_kernels::attention::{
    self as kernel, AttentionGrads, AttentionInput, AttentionScratch, AttentionShape, Mask,
};
use robomamba_kernels::{Rows, RowsMut};

use super::{Forward, FusedOp, Input, apply, kernels};

/// Which keys a query sees; the owned twin of [`Mask`].
#[derive(Clone, Debug)]
pub(crate) enum Visible {
    /// The first so many keys of each sequence.
    Lengths(Arc<[usize]>),
    /// Those up to its own position.
    Causal,
}

impl Visible {
    fn mask(&self) -> Mask<'_> {
        match self {
            Self::Lengths(lengths) => Mask::KeyLengths(lengths),
            Self::Causal => Mask::Causal,
        }
    }
}

/// `softmax(q k^T / sqrt(head_dim)) v`: `q` `[batch * n_query, width]`, `k` and `v` `[batch * n_key, width]`.
pub(crate) fn attention(shape: AttentionShape, visible: Visible, [q, k, v]: [Input; 3]) -> Tensor<2> {
    apply(Attention { shape, visible }, [q, k, v])
}

#[derive(Clone, Debug)]
struct Attention {
    shape: AttentionShape,
    visible: Visible,
}

impl Attention {
    fn input<'a>(&'a self, [q, k, v]: [&'a [f32]; 3]) -> AttentionInput<'a> {
        let width = self.shape.width();
        AttentionInput {
            shape: self.shape,
            q: Rows::new(q, width),
            k: Rows::new(k, width),
            v: Rows::new(v, width),
            scale: (self.shape.head_dim as f32).sqrt().recip(),
            mask: self.visible.mask(),
        }
    }
}

impl FusedOp<3, 2> for Attention {
    type Saved = ();

    fn forward(&self, inputs: [&[f32]; 3]) -> Forward<2, ()> {
        let width = self.shape.width();
        let mut output = vec![0.0; inputs[0].len()];
        let mut scratch = AttentionScratch::default();
        kernel::forward(kernels(), &self.input(inputs), RowsMut::new(&mut output, width), &mut scratch)
            .expect("the callers pass matching shapes");
        Forward { output, shape: [self.shape.batch * self.shape.n_query, width], saved: () }
    }

    fn backward(&self, inputs: [&[f32]; 3], (): &(), grad: &[f32], _: [bool; 3]) -> [Option<Vec<f32>>; 3] {
        let width = self.shape.width();
        let [mut dq, mut dk, mut dv] = inputs.map(|input| vec![0.0; input.len()]);
        let grads = AttentionGrads {
            q: RowsMut::new(&mut dq, width),
            k: RowsMut::new(&mut dk, width),
            v: RowsMut::new(&mut dv, width),
        };
        let mut scratch = AttentionScratch::default();
        kernel::backward(kernels(), &self.input(inputs), Rows::new(grad, width), grads, &mut scratch)
            .expect("the callers pass matching shapes");
        [Some(dq), Some(dk), Some(dv)]
    }
}

/// Rotary position embedding of `x` `[batch * seq_len, n_head * head_dim]` in the half-split layout of
/// `transformers.LlamaModel` (Su et al. 2021, arXiv 2104.09864): dimensions `i` and `i + head_dim / 2` of
/// a head turn by `position * theta^(-2 i / head_dim)`. Positions count from 0 in every sequence; only
/// their differences matter to attention.
pub(crate) fn rotate(x: Input, seq_len: usize, head_dim: usize, width: usize, theta: f32) -> Tensor<2> {
    apply(Rotate { seq_len, head_dim, width, theta }, [x])
}

#[derive(Clone, Copy, Debug)]
struct Rotate {
    seq_len: usize,
    head_dim: usize,
    width: usize,
    theta: f32,
}

impl Rotate {
    /// Turns by the positions times `direction`, 1 or -1; the gradient turns back.
    fn turn(&self, x: &[f32], direction: f64) -> Vec<f32> {
        let half = self.head_dim / 2;
        let mut out = x.to_vec();
        for (row, values) in out.chunks_exact_mut(self.width).enumerate() {
            let position = (row % self.seq_len) as f64 * direction;
            for i in 0..half {
                let angle = position * f64::from(self.theta).powf(-2.0 * i as f64 / self.head_dim as f64);
                let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
                for head in values.chunks_exact_mut(self.head_dim) {
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
        Forward { output: self.turn(x, 1.0), shape: [x.len() / self.width, self.width], saved: () }
    }

    fn backward(&self, _: [&[f32]; 1], (): &(), grad: &[f32], _: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [Some(self.turn(grad, -1.0))]
    }
}
