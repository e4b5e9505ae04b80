//! Causal depthwise convolution with bias and SiLU, the short filter in front of the selective scan.
//!
//! Upstream `causal_conv1d_ref(activation="silu")` in Dao-AILab/causal-conv1d:
//!
//! ```text
//! p[t, c] = bias[c] + sum_k weight[c, k] x[t - (d_conv - 1) + k, c]
//! y[t, c] = silu(p[t, c])
//! ```
//!
//! Inputs before the first step come from the state `[batch, d_inner, d_conv - 1]`, oldest first (zeros
//! when absent); upstream's own state also repeats the newest input. Any `d_conv >= 1` works.

pub mod reference;
mod step;
mod tile;

pub use step::{StepWeights, step};

use crate::error::check_len;
use crate::{KernelError, Kernels, Rows, RowsMut};

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Independent sequences.
    pub batch: usize,
    /// Steps per sequence.
    pub seq_len: usize,
    /// Channels.
    pub d_inner: usize,
    /// Taps per channel, at least 1.
    pub d_conv: usize,
}

impl ConvShape {
    /// Rows of the sequence tensors, `batch * seq_len`.
    pub fn rows(&self) -> usize {
        self.batch * self.seq_len
    }

    /// Values of the state, `batch * d_inner * (d_conv - 1)`.
    pub fn state_len(&self) -> usize {
        self.batch * self.d_inner * (self.d_conv - 1)
    }

    fn check(&self) -> Result<(), KernelError> {
        if self.d_conv == 0 {
            return Err(KernelError::Dimension { dimension: "d_conv", expected: "at least 1", found: 0 });
        }
        Ok(())
    }
}

/// Everything that a convolution reads.
#[derive(Clone, Copy, Debug)]
pub struct ConvInput<'a, T = f32> {
    /// Sizes of all the others.
    pub shape: ConvShape,
    /// `[batch * seq_len, d_inner]`.
    pub x: Rows<'a, T>,
    /// `[d_inner, d_conv]`, the last tap meets the newest input.
    pub weight: &'a [T],
    /// `[d_inner]`.
    pub bias: &'a [T],
    /// Inputs before the first step, `[batch, d_inner, d_conv - 1]`, oldest first; zeros when absent.
    pub state: Option<&'a [T]>,
}

/// Everything that a convolution writes.
#[derive(Debug)]
pub struct ConvOutput<'a, T = f32> {
    /// `[batch * seq_len, d_inner]`.
    pub y: RowsMut<'a, T>,
    /// The last inputs, `[batch, d_inner, d_conv - 1]`, oldest first.
    pub state_last: &'a mut [T],
}

/// Gradients that come into the backward pass.
#[derive(Clone, Copy, Debug)]
pub struct ConvGradOutput<'a, T = f32> {
    /// With respect to `y`, `[batch * seq_len, d_inner]`.
    pub y: Rows<'a, T>,
    /// With respect to the last state, `[batch, d_inner, d_conv - 1]`; zeros when absent.
    pub state_last: Option<&'a [T]>,
}

/// Gradients that the backward pass writes; earlier contents are overwritten, not added to.
#[derive(Debug)]
pub struct ConvGrads<'a, T = f32> {
    /// `[batch * seq_len, d_inner]`.
    pub x: RowsMut<'a, T>,
    /// `[d_inner, d_conv]`, summed over the batch.
    pub weight: &'a mut [T],
    /// `[d_inner]`, summed over the batch.
    pub bias: &'a mut [T],
    /// With respect to the first state, `[batch, d_inner, d_conv - 1]`, if wanted.
    pub state: Option<&'a mut [T]>,
}

impl<T> ConvInput<'_, T> {
    fn check(&self) -> Result<(), KernelError> {
        let ConvShape { d_inner, d_conv, .. } = self.shape;
        self.shape.check()?;
        self.x.check("x", self.shape.rows(), d_inner)?;
        check_len("weight", self.weight.len(), d_inner * d_conv)?;
        check_len("bias", self.bias.len(), d_inner)?;
        self.state.map_or(Ok(()), |state| check_len("state", state.len(), self.shape.state_len()))
    }
}

impl<T> ConvOutput<'_, T> {
    fn check(&self, shape: &ConvShape) -> Result<(), KernelError> {
        self.y.check("y", shape.rows(), shape.d_inner)?;
        check_len("state_last", self.state_last.len(), shape.state_len())
    }
}

impl<T> ConvGrads<'_, T> {
    fn check(&self, shape: &ConvShape) -> Result<(), KernelError> {
        self.x.check("grad of x", shape.rows(), shape.d_inner)?;
        check_len("grad of weight", self.weight.len(), shape.d_inner * shape.d_conv)?;
        check_len("grad of bias", self.bias.len(), shape.d_inner)?;
        self.state.as_ref().map_or(Ok(()), |state| check_len("grad of state", state.len(), shape.state_len()))
    }
}

/// Convolves whole sequences.
///
/// # Errors
/// When an argument does not fit `input.shape`; nothing is written then.
pub fn forward(kernels: Kernels, input: &ConvInput, output: ConvOutput) -> Result<(), KernelError> {
    input.check()?;
    output.check(&input.shape)?;
    tile::forward(kernels, input, output);
    Ok(())
}

/// Gradients of everything that [`forward`] read; the values before SiLU are computed again.
///
/// # Errors
/// When an argument does not fit `input.shape`; nothing is written then.
pub fn backward(
    kernels: Kernels,
    input: &ConvInput,
    grad_output: ConvGradOutput,
    grads: ConvGrads,
) -> Result<(), KernelError> {
    input.check()?;
    grad_output.y.check("grad of y", input.shape.rows(), input.shape.d_inner)?;
    grad_output.state_last.map_or(Ok(()), |g| check_len("grad of state_last", g.len(), input.shape.state_len()))?;
    grads.check(&input.shape)?;
    tile::backward(kernels, input, grad_output, grads);
    Ok(())
}
