//! The inside of a Mamba block between `in_proj` and `out_proj` as one operation.
//!
//! Gu and Dao, arXiv 2312.00752, figure 3; upstream `mamba_inner_fn` in state-spaces/mamba, from which the
//! layout departs: rows are steps, `[rows, width]`, of sequences of different lengths one after the other.
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

/// Sizes of a mixer. The sequences lie one after the other in the rows, each with a length of its own, so
/// that nothing is padded.
#[derive(Clone, Debug)]
pub(crate) struct MixerShape {
    /// Steps of each sequence, at least one; their sum is the number of rows.
    pub lengths: Arc<[usize]>,
    /// Channels.
    pub d_inner: usize,
    /// States per channel.
    pub d_state: usize,
    /// Taps of the convolution.
    pub d_conv: usize,
    /// Rank of the step size's projection.
    pub dt_rank: usize,
}

/// What one block carries from step to step of one sequence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BlockState {
    /// State of the scan, `[d_inner, d_state]`.
    pub ssm: Vec<f32>,
    /// Last inputs of the convolution, `[d_inner, d_conv - 1]`.
    pub conv: Vec<f32>,
}

/// Parameters in the order `conv1d.weight, conv1d.bias, x_proj.weight, dt_proj.weight, dt_proj.bias, A_log, D`.
pub(crate) type MixerParameters = [Input; 7];

/// Runs the mixer over `xz` `[rows, 2 * d_inner]`, each sequence from its own state in `initial`, through
/// which no gradient flows. Returns `[rows, d_inner]` and the state of each sequence after its last step.
pub(crate) fn mixer(
    shape: MixerShape,
    initial: Vec<BlockState>,
    xz: Input,
    parameters: MixerParameters,
) -> (Tensor<2>, Vec<BlockState>) {
    let last = Arc::new(Mutex::new(Vec::new()));
    let [conv_w, conv_b, x_proj, dt_w, dt_b, a_log, d] = parameters;
    let op = Mixer { shape, initial: initial.into(), last: Arc::clone(&last) };
    let y = apply(op, [xz, conv_w, conv_b, x_proj, dt_w, dt_b, a_log, d]);
    let last = std::mem::take(&mut *last.lock().expect("the forward pass did not panic"));
    (y, last)
}

#[derive(Clone, Debug)]
struct Mixer {
    shape: MixerShape,
    initial: Arc<[BlockState]>,
    last: Arc<Mutex<Vec<BlockState>>>,
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
    /// One per sequence.
    checkpoints: Arc<Vec<ScanCheckpoints>>,
}

impl MixerShape {
    fn rows(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn n_projected(&self) -> usize {
        self.dt_rank + 2 * self.d_state
    }

    /// First row and length of each sequence.
    fn spans(&self) -> impl Iterator<Item = (usize, usize)> {
        self.lengths.iter().scan(0, |end, &len| {
            *end += len;
            Some((*end - len, len))
        })
    }

    fn conv(&self, seq_len: usize) -> ConvShape {
        ConvShape { batch: 1, seq_len, d_inner: self.d_inner, d_conv: self.d_conv }
    }

    fn scan(&self, seq_len: usize) -> ScanShape {
        ScanShape { batch: 1, seq_len, d_inner: self.d_inner, d_state: self.d_state }
    }

    /// The state at the start of an episode.
    pub(crate) fn zero_state(&self) -> BlockState {
        BlockState { ssm: vec![0.0; self.d_inner * self.d_state], conv: vec![0.0; self.d_inner * (self.d_conv - 1)] }
    }
}

/// What the scan of one sequence reads beside its parameters.
#[derive(Clone, Copy)]
struct ScanReads<'a> {
    xz: &'a [f32],
    u: &'a [f32],
    projected: &'a [f32],
    delta: &'a [f32],
    /// First row and length.
    span: (usize, usize),
    h0: &'a [f32],
}

impl Mixer {
    fn conv_input<'a>(
        &self,
        xz: &'a [f32],
        (weight, bias): (&'a [f32], &'a [f32]),
        (start, len): (usize, usize),
        state: &'a BlockState,
    ) -> ConvInput<'a> {
        let width = 2 * self.shape.d_inner;
        let x = Rows::strided(&xz[start * width..], width);
        ConvInput { shape: self.shape.conv(len), x, weight, bias, state: Some(&state.conv) }
    }

    fn scan_input<'a>(&self, reads: ScanReads<'a>, params: ScanParams<'a>) -> ScanInput<'a> {
        let MixerShape { d_inner, d_state, dt_rank, .. } = self.shape;
        let (n_projected, (start, len)) = (self.shape.n_projected(), reads.span);
        let projected = &reads.projected[start * n_projected..];
        ScanInput {
            shape: self.shape.scan(len),
            params,
            u: Rows::new(&reads.u[start * d_inner..], d_inner),
            delta: Rows::new(&reads.delta[start * d_inner..], d_inner),
            b: Rows::strided(&projected[dt_rank..], n_projected),
            c: Rows::strided(&projected[dt_rank + d_state..], n_projected),
            z: Some(Rows::strided(&reads.xz[start * 2 * d_inner + d_inner..], 2 * d_inner)),
            h0: Some(reads.h0),
        }
    }

    /// The step size's input `[rows, dt_rank]` out of `projected`.
    fn low_rank(&self, projected: &[f32]) -> Vec<f32> {
        projected.chunks_exact(self.shape.n_projected()).flat_map(|row| &row[..self.shape.dt_rank]).copied().collect()
    }

    /// Gradients with respect to `u`, `delta`, `B`, `C` and the parameters of the scan; that of `z` goes
    /// into the second half of `d_xz`.
    fn scan_backward(
        &self,
        xz: &[f32],
        saved: &Saved,
        params: ScanParams,
        grad: &[f32],
        d_xz: &mut [f32],
    ) -> ScanGradients {
        let MixerShape { d_inner, d_state, .. } = self.shape;
        let mut all = ScanGradients::zeros(&self.shape);
        let mut part = ScanGradients::zeros(&MixerShape { lengths: Arc::from([]), ..self.shape.clone() });
        for (i, (start, len)) in self.shape.spans().enumerate() {
            let (channels, states) = (start * d_inner, start * d_state);
            let grads = ScanGrads {
                u: RowsMut::new(&mut all.u[channels..], d_inner),
                delta: RowsMut::new(&mut all.delta[channels..], d_inner),
                b: RowsMut::new(&mut all.b[states..], d_state),
                c: RowsMut::new(&mut all.c[states..], d_state),
                z: Some(RowsMut::strided(&mut d_xz[2 * channels + d_inner..], 2 * d_inner)),
                h0: None,
                a_log: &mut part.a_log,
                d: &mut part.d,
                dt_bias: &mut part.dt_bias,
            };
            let reads = ScanReads {
                xz,
                u: &saved.u,
                projected: &saved.projected,
                delta: &saved.delta,
                span: (start, len),
                h0: &self.initial[i].ssm,
            };
            let grad = ScanGradOutput { y: Rows::new(&grad[channels..], d_inner), h_last: None };
            let input = self.scan_input(reads, params);
            scan::backward(kernels(), &input, &saved.checkpoints[i], grad, grads).expect("matching shapes");
            add(&mut all.a_log, &part.a_log);
            add(&mut all.d, &part.d);
            add(&mut all.dt_bias, &part.dt_bias);
        }
        all
    }

    /// Gradients with respect to weight and bias of the convolution; that of `x` goes into the first half of `d_xz`.
    fn conv_backward(
        &self,
        xz: &[f32],
        parameters: (&[f32], &[f32]),
        d_u: &[f32],
        d_xz: &mut [f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let width = 2 * self.shape.d_inner;
        let [mut weight, mut bias] = [parameters.0, parameters.1].map(|p| vec![0.0; p.len()]);
        let [mut part_weight, mut part_bias] = [weight.clone(), bias.clone()];
        for ((start, len), state) in self.shape.spans().zip(self.initial.iter()) {
            let grads = ConvGrads {
                x: RowsMut::strided(&mut d_xz[start * width..], width),
                weight: &mut part_weight,
                bias: &mut part_bias,
                state: None,
            };
            let y = Rows::new(&d_u[start * self.shape.d_inner..], self.shape.d_inner);
            let input = self.conv_input(xz, parameters, (start, len), state);
            conv1d::backward(kernels(), &input, ConvGradOutput { y, state_last: None }, grads)
                .expect("matching shapes");
            add(&mut weight, &part_weight);
            add(&mut bias, &part_bias);
        }
        (weight, bias)
    }
}

/// Gradients of the scan over all sequences.
struct ScanGradients {
    u: Vec<f32>,
    delta: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    a_log: Vec<f32>,
    d: Vec<f32>,
    dt_bias: Vec<f32>,
}

impl ScanGradients {
    fn zeros(shape: &MixerShape) -> Self {
        let [u, delta] = [(); 2].map(|()| vec![0.0; shape.rows() * shape.d_inner]);
        let [b, c] = [(); 2].map(|()| vec![0.0; shape.rows() * shape.d_state]);
        let [d, dt_bias] = [(); 2].map(|()| vec![0.0; shape.d_inner]);
        Self { u, delta, b, c, a_log: vec![0.0; shape.d_inner * shape.d_state], d, dt_bias }
    }
}

impl FusedOp<8, 2> for Mixer {
    type Saved = Saved;

    fn forward(&self, [xz, conv_w, conv_b, x_proj, dt_w, dt_b, a_log, d]: [&[f32]; 8]) -> Forward<2, Saved> {
        let MixerShape { d_inner, dt_rank, .. } = self.shape;
        let rows = self.shape.rows();
        let mut last: Vec<_> = self.initial.iter().map(|_| self.shape.zero_state()).collect();
        let mut u = vec![0.0; rows * d_inner];
        for (i, (start, len)) in self.shape.spans().enumerate() {
            let y = RowsMut::new(&mut u[start * d_inner..], d_inner);
            let output = ConvOutput { y, state_last: &mut last[i].conv };
            let input = self.conv_input(xz, (conv_w, conv_b), (start, len), &self.initial[i]);
            conv1d::forward(kernels(), &input, output).expect("matching shapes");
        }
        let mut projected = vec![0.0; rows * self.shape.n_projected()];
        gemm::forward(Write::Set, &u, (x_proj, None), d_inner, &mut projected);
        let mut delta = vec![0.0; rows * d_inner];
        gemm::forward(Write::Set, &self.low_rank(&projected), (dt_w, None), dt_rank, &mut delta);
        let mut output = vec![0.0; rows * d_inner];
        let mut checkpoints = vec![ScanCheckpoints::default(); self.initial.len()];
        let params = ScanParams { a_log, d, dt_bias: dt_b };
        for (i, span) in self.shape.spans().enumerate() {
            let y = RowsMut::new(&mut output[span.0 * d_inner..], d_inner);
            let h0 = &self.initial[i].ssm;
            let reads = ScanReads { xz, u: &u, projected: &projected, delta: &delta, span, h0 };
            let output = ScanOutput { y, h_last: &mut last[i].ssm };
            scan::forward(kernels(), &self.scan_input(reads, params), output, Some(&mut checkpoints[i]))
                .expect("matching shapes");
        }
        *self.last.lock().expect("nobody panics while holding the lock") = last;
        let saved =
            Saved { u: u.into(), projected: projected.into(), delta: delta.into(), checkpoints: checkpoints.into() };
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
        let mut d_xz = vec![0.0; xz.len()];
        let mut scan = self.scan_backward(xz, saved, ScanParams { a_log, d, dt_bias: dt_b }, grad, &mut d_xz);

        let low_rank = self.low_rank(&saved.projected);
        let (mut d_dt_w, mut d_low_rank) = (vec![0.0; dt_w.len()], vec![0.0; low_rank.len()]);
        gemm::backward_weight(Write::Set, &scan.delta, &low_rank, dt_rank, &mut d_dt_w);
        gemm::backward_input(Write::Set, &scan.delta, dt_w, dt_rank, &mut d_low_rank);
        let mut d_projected = Vec::with_capacity(saved.projected.len());
        let states = scan.b.chunks_exact(d_state).zip(scan.c.chunks_exact(d_state));
        for (low_rank, (b, c)) in d_low_rank.chunks_exact(dt_rank).zip(states) {
            d_projected.extend_from_slice(low_rank);
            d_projected.extend_from_slice(b);
            d_projected.extend_from_slice(c);
        }
        let mut d_x_proj = vec![0.0; x_proj.len()];
        gemm::backward_weight(Write::Set, &d_projected, &saved.u, d_inner, &mut d_x_proj);
        gemm::backward_input(Write::Add, &d_projected, x_proj, d_inner, &mut scan.u);

        let (d_conv_w, d_conv_b) = self.conv_backward(xz, (conv_w, conv_b), &scan.u, &mut d_xz);
        [d_xz, d_conv_w, d_conv_b, d_x_proj, d_dt_w, scan.dt_bias, scan.a_log, scan.d].map(Some)
    }
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}
