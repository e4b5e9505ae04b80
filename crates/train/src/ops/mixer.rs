//! The inside of a Mamba block between `in_proj` and `out_proj` as one operation.
//!
//! Gu and Dao, arXiv 2312.00752, figure 3; upstream `mamba_inner_fn` in state-spaces/mamba, from which the
//! layout departs: rows are steps, `[batch * seq_len, width]`.
//!
//! ```text
//! (x, z)          = xz                              [rows, d_inner] each
//! u               = silu(conv1d(x))                 [rows, d_inner]
//! (delta_r, B, C) = u x_proj^T                      [rows, dt_rank], [rows, d_state], [rows, d_state]
//! delta           = delta_r dt_proj^T               [rows, d_inner], its bias goes into the scan
//! y               = scan(u, delta, A, B, C, D) silu(z)
//! ```

use std::sync::{Arc, Mutex};

use burn::tensor::Tensor;
use robomamba_kernels::conv1d::{self, ConvGradOutput, ConvGrads, ConvInput, ConvOutput, ConvShape};
use robomamba_kernels::scan::{
    self, ScanCheckpoints, ScanGradOutput, ScanGrads, ScanInput, ScanOutput, ScanParams, ScanShape,
};
use robomamba_kernels::{Rows, RowsMut};

use super::{Forward, FusedOp, Input, apply, kernels};
use crate::gemm::{self, Write};

/// Sizes of a mixer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MixerShape {
    /// Independent sequences.
    pub batch: usize,
    /// Steps per sequence.
    pub seq_len: usize,
    /// Channels.
    pub d_inner: usize,
    /// States per channel.
    pub d_state: usize,
    /// Taps of the convolution.
    pub d_conv: usize,
    /// Rank of the step size's projection.
    pub dt_rank: usize,
}

/// What one block carries from step to step, for every sequence of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BlockState {
    /// State of the scan, `[batch, d_inner, d_state]`.
    pub ssm: Vec<f32>,
    /// Last inputs of the convolution, `[batch, d_inner, d_conv - 1]`.
    pub conv: Vec<f32>,
}

/// Parameters in the order `conv1d.weight, conv1d.bias, x_proj.weight, dt_proj.weight, dt_proj.bias, A_log, D`.
pub(crate) type MixerParameters = [Input; 7];

/// Runs the mixer over `xz` `[batch * seq_len, 2 * d_inner]`, from `initial` (zeros when absent), through
/// which no gradient flows. Returns `[batch * seq_len, d_inner]` and the state after the last step.
pub(crate) fn mixer(
    shape: MixerShape,
    initial: Option<BlockState>,
    xz: Input,
    parameters: MixerParameters,
) -> (Tensor<2>, BlockState) {
    let last = Arc::new(Mutex::new(None));
    let [conv_w, conv_b, x_proj, dt_w, dt_b, a_log, d] = parameters;
    let op = Mixer { shape, initial: initial.map(Arc::new), last: Arc::clone(&last) };
    let y = apply(op, [xz, conv_w, conv_b, x_proj, dt_w, dt_b, a_log, d]);
    let last = last.lock().expect("the forward pass did not panic").take().expect("the forward pass has run");
    (y, last)
}

#[derive(Clone, Debug)]
struct Mixer {
    shape: MixerShape,
    initial: Option<Arc<BlockState>>,
    last: Arc<Mutex<Option<BlockState>>>,
}

/// Intermediate results that the backward pass reads again.
#[derive(Clone, Debug)]
struct Saved {
    /// `[rows, d_inner]`.
    u: Arc<Vec<f32>>,
    /// `[rows, dt_rank + 2 * d_state]`.
    projected: Arc<Vec<f32>>,
    /// `[rows, d_inner]`.
    delta: Arc<Vec<f32>>,
    checkpoints: Arc<ScanCheckpoints>,
}

impl MixerShape {
    fn rows(&self) -> usize {
        self.batch * self.seq_len
    }

    fn n_projected(&self) -> usize {
        self.dt_rank + 2 * self.d_state
    }

    fn conv(&self) -> ConvShape {
        ConvShape { batch: self.batch, seq_len: self.seq_len, d_inner: self.d_inner, d_conv: self.d_conv }
    }

    fn scan(&self) -> ScanShape {
        ScanShape { batch: self.batch, seq_len: self.seq_len, d_inner: self.d_inner, d_state: self.d_state }
    }
}

impl Mixer {
    fn conv_input<'a>(&'a self, xz: &'a [f32], weight: &'a [f32], bias: &'a [f32]) -> ConvInput<'a> {
        ConvInput {
            shape: self.shape.conv(),
            x: Rows::strided(xz, 2 * self.shape.d_inner),
            weight,
            bias,
            state: self.initial.as_ref().map(|state| &state.conv[..]),
        }
    }

    fn scan_input<'a>(
        &'a self,
        xz: &'a [f32],
        saved: (&'a [f32], &'a [f32], &'a [f32]),
        params: ScanParams<'a>,
    ) -> ScanInput<'a> {
        let (shape, (u, projected, delta)) = (&self.shape, saved);
        ScanInput {
            shape: shape.scan(),
            params,
            u: Rows::new(u, shape.d_inner),
            delta: Rows::new(delta, shape.d_inner),
            b: Rows::strided(&projected[shape.dt_rank..], shape.n_projected()),
            c: Rows::strided(&projected[shape.dt_rank + shape.d_state..], shape.n_projected()),
            z: Some(Rows::strided(&xz[shape.d_inner..], 2 * shape.d_inner)),
            h0: self.initial.as_ref().map(|state| &state.ssm[..]),
        }
    }

    /// The step size's input `[rows, dt_rank]` out of `projected`.
    fn low_rank(&self, projected: &[f32]) -> Vec<f32> {
        projected.chunks_exact(self.shape.n_projected()).flat_map(|row| &row[..self.shape.dt_rank]).copied().collect()
    }
}

impl FusedOp<8, 2> for Mixer {
    type Saved = Saved;

    fn forward(&self, [xz, conv_w, conv_b, x_proj, dt_w, dt_b, a_log, d]: [&[f32]; 8]) -> Forward<2, Saved> {
        let MixerShape { d_inner, dt_rank, .. } = self.shape;
        let (rows, n_projected) = (self.shape.rows(), self.shape.n_projected());
        let mut state = BlockState {
            ssm: vec![0.0; self.shape.scan().state_len()],
            conv: vec![0.0; self.shape.conv().state_len()],
        };
        let mut u = vec![0.0; rows * d_inner];
        let conv_out = ConvOutput { y: RowsMut::new(&mut u, d_inner), state_last: &mut state.conv };
        conv1d::forward(kernels(), &self.conv_input(xz, conv_w, conv_b), conv_out).expect("matching shapes");
        let mut projected = vec![0.0; rows * n_projected];
        gemm::forward(Write::Set, &u, (x_proj, None), d_inner, &mut projected);
        let mut delta = vec![0.0; rows * d_inner];
        gemm::forward(Write::Set, &self.low_rank(&projected), (dt_w, None), dt_rank, &mut delta);
        let (mut output, mut checkpoints) = (vec![0.0; rows * d_inner], ScanCheckpoints::default());
        let scan_out = ScanOutput { y: RowsMut::new(&mut output, d_inner), h_last: &mut state.ssm };
        let params = ScanParams { a_log, d, dt_bias: dt_b };
        let scan_in = self.scan_input(xz, (&u, &projected, &delta), params);
        scan::forward(kernels(), &scan_in, scan_out, Some(&mut checkpoints)).expect("matching shapes");
        *self.last.lock().expect("nobody panics while holding the lock") = Some(state);
        let saved = Saved {
            u: u.into(),
            projected: projected.into(),
            delta: delta.into(),
            checkpoints: checkpoints.into(),
        };
        Forward { output, shape: [rows, d_inner], saved }
    }

    fn backward(
        &self,
        [xz, conv_w, conv_b, x_proj, dt_w, dt_b, a_log, d]: [&[f32]; 8],
        saved: &Saved,
        grad: &[f32],
        _: [bool; 8],
    ) -> [Option<Vec<f32>>; 8] {
        let MixerShape { d_inner, d_state, dt_rank, .. } = self.shape;
        let (rows, n_projected) = (self.shape.rows(), self.shape.n_projected());
        let [mut d_u, mut d_delta] = [(); 2].map(|()| vec![0.0; rows * d_inner]);
        let [mut d_b, mut d_c] = [(); 2].map(|()| vec![0.0; rows * d_state]);
        let mut d_xz = vec![0.0; xz.len()];
        let [mut d_a_log, mut d_d, mut d_dt_b] = [a_log, d, dt_b].map(|p| vec![0.0; p.len()]);
        let scan_grads = ScanGrads {
            u: RowsMut::new(&mut d_u, d_inner),
            delta: RowsMut::new(&mut d_delta, d_inner),
            b: RowsMut::new(&mut d_b, d_state),
            c: RowsMut::new(&mut d_c, d_state),
            z: Some(RowsMut::strided(&mut d_xz[d_inner..], 2 * d_inner)),
            h0: None,
            a_log: &mut d_a_log,
            d: &mut d_d,
            dt_bias: &mut d_dt_b,
        };
        let params = ScanParams { a_log, d, dt_bias: dt_b };
        let scan_in = self.scan_input(xz, (&saved.u, &saved.projected, &saved.delta), params);
        let scan_grad = ScanGradOutput { y: Rows::new(grad, d_inner), h_last: None };
        scan::backward(kernels(), &scan_in, &saved.checkpoints, scan_grad, scan_grads).expect("matching shapes");

        let low_rank = self.low_rank(&saved.projected);
        let (mut d_dt_w, mut d_low_rank) = (vec![0.0; dt_w.len()], vec![0.0; low_rank.len()]);
        gemm::backward_weight(Write::Set, &d_delta, &low_rank, dt_rank, &mut d_dt_w);
        gemm::backward_input(Write::Set, &d_delta, dt_w, dt_rank, &mut d_low_rank);
        let mut d_projected = Vec::with_capacity(rows * n_projected);
        let parts = d_low_rank.chunks_exact(dt_rank).zip(d_b.chunks_exact(d_state)).zip(d_c.chunks_exact(d_state));
        for ((low_rank, b), c) in parts {
            d_projected.extend_from_slice(low_rank);
            d_projected.extend_from_slice(b);
            d_projected.extend_from_slice(c);
        }
        let mut d_x_proj = vec![0.0; x_proj.len()];
        gemm::backward_weight(Write::Set, &d_projected, &saved.u, d_inner, &mut d_x_proj);
        gemm::backward_input(Write::Add, &d_projected, x_proj, d_inner, &mut d_u);

        let (mut d_conv_w, mut d_conv_b) = (vec![0.0; conv_w.len()], vec![0.0; conv_b.len()]);
        let conv_grads = ConvGrads {
            x: RowsMut::strided(&mut d_xz, 2 * d_inner),
            weight: &mut d_conv_w,
            bias: &mut d_conv_b,
            state: None,
        };
        let conv_grad = ConvGradOutput { y: Rows::new(&d_u, d_inner), state_last: None };
        conv1d::backward(kernels(), &self.conv_input(xz, conv_w, conv_b), conv_grad, conv_grads).expect("matching shapes");
        [d_xz, d_conv_w, d_conv_b, d_x_proj, d_dt_w, d_dt_b, d_a_log, d_d].map(Some)
    }
}
