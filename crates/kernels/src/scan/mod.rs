//! Selective scan, the recurrence at the heart of Mamba-1.
//!
//! Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv 2312.00752,
//! equations 2 and 4 and algorithm 2; upstream `selective_scan_ref` and `selective_state_update_ref` in
//! state-spaces/mamba. For every channel `c` and state `n`:
//!
//! ```text
//! delta = softplus(delta_raw + dt_bias)       step size, > 0
//! a     = exp(delta A),  A = -exp(A_log)      decay, in (0, 1)
//! h     = a h + delta B u                     state
//! y     = (sum_n C h + D u) silu(z)           output; the gate is optional
//! ```
//!
//! | letter | is | shape |
//! |---|---|---|
//! | `u` | input after the convolution | `[batch, seq_len, d_inner]` |
//! | `delta` | raw step size, before bias and softplus | `[batch, seq_len, d_inner]` |
//! | `A_log` | logarithm of the negated decay rate | `[d_inner, d_state]` |
//! | `B`, `C` | input and output projections of the state | `[batch, seq_len, d_state]` |
//! | `D` | skip weight | `[d_inner]` |
//! | `z` | gate, before SiLU | `[batch, seq_len, d_inner]` |
//! | `h` | state; this layout is the public one everywhere | `[batch, d_inner, d_state]` |
//! | `y` | output | `[batch, seq_len, d_inner]` |
//!
//! Departures from upstream: sequence before channels (upstream `[batch, d_inner, seq_len]`), the softplus
//! and its bias are always applied, and states can be carried in and out with gradients.

mod backward;
mod forward;
pub mod reference;
mod step;
mod tile;

pub use step::{StepInput, StepWeights, step};

use crate::error::check_len;
use crate::{Isa, KernelError, Kernels, Rows, RowsMut};

/// Sizes of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanShape {
    /// Independent sequences.
    pub batch: usize,
    /// Steps per sequence.
    pub seq_len: usize,
    /// Channels.
    pub d_inner: usize,
    /// States per channel, at least 1; multiples of 4, 8 and 16 are fastest.
    pub d_state: usize,
}

impl ScanShape {
    /// Rows of the sequence tensors, `batch * seq_len`.
    pub fn rows(&self) -> usize {
        self.batch * self.seq_len
    }

    /// Values of the state, `batch * d_inner * d_state`.
    pub fn state_len(&self) -> usize {
        self.batch * self.d_inner * self.d_state
    }

    fn check(&self) -> Result<(), KernelError> {
        if self.d_state == 0 {
            return Err(KernelError::Dimension { dimension: "d_state", expected: "at least 1", found: 0 });
        }
        Ok(())
    }
}

/// Learned parameters of a scan.
#[derive(Clone, Copy, Debug)]
pub struct ScanParams<'a, T = f32> {
    /// `[d_inner, d_state]`.
    pub a_log: &'a [T],
    /// `[d_inner]`.
    pub d: &'a [T],
    /// `[d_inner]`, added to `delta` before the softplus.
    pub dt_bias: &'a [T],
}

/// Everything that a scan reads.
#[derive(Clone, Copy, Debug)]
pub struct ScanInput<'a, T = f32> {
    /// Sizes of all the others.
    pub shape: ScanShape,
    /// Learned parameters.
    pub params: ScanParams<'a, T>,
    /// `[batch * seq_len, d_inner]`.
    pub u: Rows<'a, T>,
    /// `[batch * seq_len, d_inner]`, raw.
    pub delta: Rows<'a, T>,
    /// `[batch * seq_len, d_state]`.
    pub b: Rows<'a, T>,
    /// `[batch * seq_len, d_state]`.
    pub c: Rows<'a, T>,
    /// `[batch * seq_len, d_inner]`; without it the output is not gated.
    pub z: Option<Rows<'a, T>>,
    /// `[batch, d_inner, d_state]`; zeros when absent.
    pub h0: Option<&'a [T]>,
}

/// Everything that a scan writes.
#[derive(Debug)]
pub struct ScanOutput<'a, T = f32> {
    /// `[batch * seq_len, d_inner]`.
    pub y: RowsMut<'a, T>,
    /// State after the last step, `[batch, d_inner, d_state]`.
    pub h_last: &'a mut [T],
}

/// Gradients that come into the backward pass.
#[derive(Clone, Copy, Debug)]
pub struct ScanGradOutput<'a, T = f32> {
    /// With respect to `y`, `[batch * seq_len, d_inner]`.
    pub y: Rows<'a, T>,
    /// With respect to the last state, `[batch, d_inner, d_state]`; zeros when absent.
    pub h_last: Option<&'a [T]>,
}

/// Gradients that the backward pass writes; earlier contents are overwritten, not added to.
#[derive(Debug)]
pub struct ScanGrads<'a, T = f32> {
    /// `[batch * seq_len, d_inner]`.
    pub u: RowsMut<'a, T>,
    /// With respect to the raw `delta`, `[batch * seq_len, d_inner]`.
    pub delta: RowsMut<'a, T>,
    /// `[batch * seq_len, d_state]`.
    pub b: RowsMut<'a, T>,
    /// `[batch * seq_len, d_state]`.
    pub c: RowsMut<'a, T>,
    /// `[batch * seq_len, d_inner]`; present exactly when the scan is gated.
    pub z: Option<RowsMut<'a, T>>,
    /// `[batch, d_inner, d_state]`, if wanted.
    pub h0: Option<&'a mut [T]>,
    /// `[d_inner, d_state]`, summed over the batch.
    pub a_log: &'a mut [T],
    /// `[d_inner]`, summed over the batch.
    pub d: &'a mut [T],
    /// `[d_inner]`, summed over the batch.
    pub dt_bias: &'a mut [T],
}

impl<T> ScanInput<'_, T> {
    fn check(&self) -> Result<(), KernelError> {
        let ScanShape { d_inner, d_state, .. } = self.shape;
        let rows = self.shape.rows();
        self.shape.check()?;
        check_len("A_log", self.params.a_log.len(), d_inner * d_state)?;
        check_len("D", self.params.d.len(), d_inner)?;
        check_len("dt_bias", self.params.dt_bias.len(), d_inner)?;
        self.u.check("u", rows, d_inner)?;
        self.delta.check("delta", rows, d_inner)?;
        self.b.check("B", rows, d_state)?;
        self.c.check("C", rows, d_state)?;
        self.z.as_ref().map_or(Ok(()), |z| z.check("z", rows, d_inner))?;
        self.h0.map_or(Ok(()), |h0| check_len("h0", h0.len(), self.shape.state_len()))
    }
}

impl<T> ScanOutput<'_, T> {
    fn check(&self, shape: &ScanShape) -> Result<(), KernelError> {
        self.y.check("y", shape.rows(), shape.d_inner)?;
        check_len("h_last", self.h_last.len(), shape.state_len())
    }
}

impl<T> ScanGradOutput<'_, T> {
    fn check(&self, shape: &ScanShape) -> Result<(), KernelError> {
        self.y.check("grad of y", shape.rows(), shape.d_inner)?;
        self.h_last.map_or(Ok(()), |h| check_len("grad of h_last", h.len(), shape.state_len()))
    }
}

impl<T> ScanGrads<'_, T> {
    fn check(&self, input: &ScanInput<T>) -> Result<(), KernelError> {
        let shape = &input.shape;
        let (rows, d_inner) = (shape.rows(), shape.d_inner);
        self.u.check("grad of u", rows, d_inner)?;
        self.delta.check("grad of delta", rows, d_inner)?;
        self.b.check("grad of B", rows, shape.d_state)?;
        self.c.check("grad of C", rows, shape.d_state)?;
        match (&input.z, &self.z) {
            (Some(_), Some(z)) => z.check("grad of z", rows, d_inner)?,
            (None, None) => {}
            (Some(_), None) => return Err(KernelError::Missing { present: "z", missing: "grad of z" }),
            (None, Some(_)) => return Err(KernelError::Missing { present: "grad of z", missing: "z" }),
        }
        self.h0.as_ref().map_or(Ok(()), |h| check_len("grad of h0", h.len(), shape.state_len()))?;
        check_len("grad of A_log", self.a_log.len(), d_inner * shape.d_state)?;
        check_len("grad of D", self.d.len(), d_inner)?;
        check_len("grad of dt_bias", self.dt_bias.len(), d_inner)
    }
}

/// States that the forward pass leaves behind every few steps, from which the backward pass recomputes
/// the others. Opaque and reusable; it grows to what the largest call needs.
#[derive(Clone, Debug, Default)]
pub struct ScanCheckpoints {
    states: Vec<f32>,
    made_for: Option<(ScanShape, Isa)>,
}

impl ScanCheckpoints {
    /// Bytes held at present.
    pub fn bytes(&self) -> usize {
        self.states.capacity() * size_of::<f32>()
    }

    /// Room for the checkpoints of a call.
    fn make_for(&mut self, shape: &ScanShape, isa: Isa) -> &mut [f32] {
        self.made_for = Some((*shape, isa));
        self.states.resize(tile::Tile::count(shape) * tile::Tile::checkpoint_len(shape), 0.0);
        &mut self.states
    }

    fn check(&self, shape: &ScanShape, isa: Isa) -> Result<(), KernelError> {
        if self.made_for == Some((*shape, isa)) {
            return Ok(());
        }
        let describe = |(shape, isa): (ScanShape, Isa)| format!("{shape:?} on {isa:?}");
        let expected = self.made_for.map_or("no call yet".to_owned(), describe);
        Err(KernelError::Checkpoints { expected, found: describe((*shape, isa)) })
    }
}

/// Runs the scan over whole sequences.
///
/// Pass `checkpoints` when [`backward`] will follow.
///
/// # Errors
/// When an argument does not fit `input.shape`; nothing is written then.
pub fn forward(
    kernels: Kernels,
    input: &ScanInput,
    output: ScanOutput,
    checkpoints: Option<&mut ScanCheckpoints>,
) -> Result<(), KernelError> {
    input.check()?;
    output.check(&input.shape)?;
    let states = checkpoints.map(|checkpoints| checkpoints.make_for(&input.shape, kernels.isa()));
    forward::run(kernels, input, output, states);
    Ok(())
}

/// Gradients of everything that [`forward`] read.
///
/// # Errors
/// When an argument does not fit `input.shape`, or `checkpoints` come from a call of another shape or
/// instruction set; nothing is written then.
pub fn backward(
    kernels: Kernels,
    input: &ScanInput,
    checkpoints: &ScanCheckpoints,
    grad_output: ScanGradOutput,
    grads: ScanGrads,
) -> Result<(), KernelError> {
    input.check()?;
    grad_output.check(&input.shape)?;
    grads.check(input)?;
    checkpoints.check(&input.shape, kernels.isa())?;
    backward::run(kernels, input, checkpoints, grad_output, grads);
    Ok(())
}
