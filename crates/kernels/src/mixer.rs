//! One step of a Mamba block's mixer: all that lies between the block's norm and its residual stream.
//!
//! Gu and Dao, arXiv 2312.00752; upstream `Mamba.step` of state-spaces/mamba. The results are those of [`PackedMatrix::apply`], [`conv1d::step`] and
//! [`scan::step`] one after the other, bit for bit, but threads wait for each other four times instead of six, since what needs only the channels that a
//! thread has just computed follows on the same thread, and what nothing waits for yet fills up other work:
//!
//! 1. the inputs of `in_proj`, and the convolution of their channels;
//! 2. `x_proj`, which has few outputs, and the gates of `in_proj`;
//! 3. `dt_proj`, and the scan of its channels;
//! 4. `out_proj`.

use crate::error::check_len;
use crate::matmul::pack::grow;
use crate::matmul::{ConvertedRows, PackedMatrix};
use crate::parallel::{SharedRows, for_each, share};
use crate::scan::StepInput;
use crate::{KernelError, Kernels, Rows, RowsMut, Threads, conv1d, scan};

/// The parameters of a mixer with `d_inner` channels, for single steps.
#[derive(Clone, Copy, Debug)]
pub struct StepWeights<'a> {
    /// `[2 * d_inner, d_model]`: inputs, then gates.
    pub in_proj: &'a PackedMatrix,
    /// Of `d_inner` channels.
    pub conv: &'a conv1d::StepWeights,
    /// `[dt_rank + 2 * d_state, d_inner]`: step sizes of low rank, `B` and `C`.
    pub x_proj: &'a PackedMatrix,
    /// `[d_inner, dt_rank]`, without its bias, which the scan adds.
    pub dt_proj: &'a PackedMatrix,
    /// Of `[d_inner, d_state]`.
    pub scan: &'a scan::StepWeights,
    /// `[d_model, d_inner]`.
    pub out_proj: &'a PackedMatrix,
}

impl StepWeights<'_> {
    /// Checks that all belong to one mixer.
    fn check(&self) -> Result<(), KernelError> {
        let (d_inner, d_state, d_model) = (self.scan.d_inner(), self.scan.d_state(), self.in_proj.n_in());
        let sizes = [
            ("outputs of in_proj", "twice the channels of the scan", self.in_proj.n_out(), 2 * d_inner),
            ("channels of the convolution", "as many as of the scan", self.conv.d_inner(), d_inner),
            ("inputs of x_proj", "the channels of the scan", self.x_proj.n_in(), d_inner),
            ("outputs of x_proj", "dt_rank + 2 * d_state", self.x_proj.n_out(), self.dt_proj.n_in() + 2 * d_state),
            ("outputs of dt_proj", "the channels of the scan", self.dt_proj.n_out(), d_inner),
            ("inputs of out_proj", "the channels of the scan", self.out_proj.n_in(), d_inner),
            ("outputs of out_proj", "the inputs of in_proj", self.out_proj.n_out(), d_model),
        ];
        for (dimension, expected, found, size) in sizes {
            if found != size {
                return Err(KernelError::Dimension { dimension, expected, found });
            }
        }
        Ok(())
    }
}

/// What a mixer carries from step to step.
#[derive(Debug)]
pub struct StepState<'a> {
    /// Window of the convolution, `[d_inner, d_conv - 1]`, oldest first.
    pub conv: &'a mut [f32],
    /// `[d_inner, d_state]`.
    pub ssm: &'a mut [f32],
}

/// Working memory of a step, which grows to what the largest mixer needs; one serves any number of them, one at a time.
#[derive(Clone, Debug, Default)]
pub struct StepScratch {
    /// Inputs and gates, `[2, d_inner]`.
    projected: Vec<f32>,
    /// Output of the convolution, `[d_inner]`.
    mixed: Vec<f32>,
    /// Step sizes of low rank, `B` and `C`.
    narrow: Vec<f32>,
    /// `[d_inner]`.
    delta: Vec<f32>,
    /// Output of the scan, `[d_inner]`.
    hidden: Vec<f32>,
    /// Inputs of `in_proj` and `out_proj`,
    outer: ConvertedRows,
    /// and those of `x_proj` and `dt_proj`.
    inner: ConvertedRows,
}

impl StepScratch {
    /// Bytes held at present.
    pub fn bytes(&self) -> usize {
        let buffers = [&self.projected, &self.mixed, &self.narrow, &self.delta, &self.hidden];
        buffers.iter().map(|buffer| buffer.capacity() * size_of::<f32>()).sum::<usize>()
            + self.outer.bytes()
            + self.inner.bytes()
    }
}

/// Takes `x` `[d_model]`, advances `state` and writes `y` `[d_model]`. Allocates nothing with one thread once `scratch` has grown.
///
/// # Errors
/// When the weights do not belong to one mixer or an argument does not fit them; nothing is written then.
pub fn step(
    kernels: Kernels,
    weights: &StepWeights,
    x: &[f32],
    state: StepState,
    y: &mut [f32],
    scratch: &mut StepScratch,
) -> Result<(), KernelError> {
    weights.check()?;
    let (d_model, d_inner) = (weights.in_proj.n_in(), weights.scan.d_inner());
    check_len("x", x.len(), d_model)?;
    check_len("y", y.len(), d_model)?;
    check_len("state.conv", state.conv.len(), d_inner * (weights.conv.d_conv() - 1))?;
    check_len("state.ssm", state.ssm.len(), d_inner * weights.scan.d_state())?;

    let StepScratch { projected, mixed, narrow, delta, hidden, outer, inner } = scratch;
    let job = Job { kernels, weights };
    let (projected, mixed) = (room(projected, 2 * d_inner), room(mixed, d_inner));
    let (narrow, hidden) = (room(narrow, weights.x_proj.n_out()), room(hidden, d_inner));
    job.project(x, state.conv, (projected, mixed, narrow), (outer, inner));
    job.scan((projected, mixed, narrow), state.ssm, (room(delta, d_inner), hidden), inner);
    weights.out_proj.apply(kernels, 1, Rows::new(hidden, d_inner), RowsMut::new(y, d_model), outer)
}

/// A step of one mixer, whose shapes have been checked.
struct Job<'a> {
    kernels: Kernels,
    weights: &'a StepWeights<'a>,
}

impl Job<'_> {
    /// `x` to inputs and gates `projected`, those inputs through the convolution to `mixed`, and that to `narrow`.
    fn project(
        &self,
        x: &[f32],
        state: &mut [f32],
        (projected, mixed, narrow): (&mut [f32], &mut [f32], &mut [f32]),
        (outer, inner): (&mut ConvertedRows, &mut ConvertedRows),
    ) {
        let StepWeights { in_proj, conv, x_proj, .. } = *self.weights;
        let (kernels, d_inner) = (self.kernels, conv.d_inner());
        let x = in_proj.convert(kernels, 1, Rows::new(x, x.len()), outer);
        // The panel between them may hold the last inputs and the first gates.
        let (inputs, all) = (in_proj.panels_of(d_inner), in_proj.panels());
        let is_parallel = in_proj.is_parallel(1);
        let (projected, state) = (SharedRows::flat(projected), SharedRows::flat(state));

        let shared = SharedRows::flat(mixed);
        let pieces = in_proj.pieces_of(kernels, inputs, is_parallel);
        for_each(kernels.threads(), pieces, |piece| {
            let panels = share(0..inputs, piece, pieces);
            let columns = in_proj.outputs(&panels);
            let channels = columns.start..columns.end.min(d_inner);
            // Safety: every piece has panels, and so columns and channels, of its own.
            unsafe {
                in_proj.multiply(kernels, &x, &projected, panels);
                let x = projected.part(0, channels.clone());
                conv1d::step_channels(kernels, conv, x, channels, &state, &shared);
            }
        });

        let mixed = x_proj.convert(kernels, 1, Rows::new(mixed, d_inner), inner);
        let narrow = SharedRows::flat(narrow);
        let pieces = x_proj.pieces_of(kernels, x_proj.panels(), is_parallel);
        let gates = in_proj.pieces_of(kernels, all - inputs, is_parallel);
        let threads = if is_parallel { kernels.threads() } else { Threads::One };
        for_each(threads, pieces + gates, |piece| {
            // Safety: every piece has panels, and so columns, of its own.
            unsafe {
                if piece < pieces {
                    x_proj.multiply(kernels, &mixed, &narrow, share(0..x_proj.panels(), piece, pieces));
                } else {
                    in_proj.multiply(kernels, &x, &projected, share(inputs..all, piece - pieces, gates));
                }
            }
        });
    }

    /// The step sizes `delta` and the gated scan `hidden`.
    fn scan(
        &self,
        (projected, mixed, narrow): (&[f32], &[f32], &[f32]),
        state: &mut [f32],
        (delta, hidden): (&mut [f32], &mut [f32]),
        inner: &mut ConvertedRows,
    ) {
        let StepWeights { dt_proj, scan, .. } = *self.weights;
        let (kernels, (low_rank, b_and_c)) = (self.kernels, narrow.split_at(dt_proj.n_in()));
        let low_rank = dt_proj.convert(kernels, 1, Rows::new(low_rank, low_rank.len()), inner);
        let (b, c) = b_and_c.split_at(scan.d_state());
        let gates = &projected[scan.d_inner()..];
        let (state, delta, hidden) = (SharedRows::flat(state), SharedRows::flat(delta), SharedRows::flat(hidden));
        let pieces = dt_proj.pieces_of(kernels, dt_proj.panels(), dt_proj.is_parallel(1) || scan.is_parallel());
        for_each(kernels.threads(), pieces, |piece| {
            let panels = share(0..dt_proj.panels(), piece, pieces);
            let channels = dt_proj.outputs(&panels);
            let (u, z) = (&mixed[channels.clone()], Some(&gates[channels.clone()]));
            // Safety: every piece has panels, and so channels, of its own.
            unsafe {
                dt_proj.multiply(kernels, &low_rank, &delta, panels);
                let input = StepInput { u, delta: delta.part(0, channels.clone()), b, c, z };
                scan::step_channels(kernels, scan, &input, channels, &state, &hidden);
            }
        });
    }
}

/// The first `len` values of `buffer`, which grows if it has to.
fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    grow(buffer, len);
    &mut buffer[..len]
}
