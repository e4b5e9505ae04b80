//! The inside of a Mamba block between `in_proj` and `out_proj` as one operation.
//!
//! Gu and Dao, arXiv 2312.00752, figure 3; `mamba_inner_fn` in state-spaces/mamba. The layout differs from upstream:
//! rows are steps, `[rows, width]`, of sequences of different lengths, one after the other.
//!
//! ```text
//! (x, z)          = xz                              [rows, d_inner] each
//! u               = silu(conv1d(x))                 [rows, d_inner]
//! (delta_r, B, C) = u x_proj^T                      [rows, dt_rank], [rows, d_state], [rows, d_state]
//! delta           = delta_r dt_proj^T               [rows, d_inner], its bias goes into the scan
//! y               = scan(u, delta, A, B, C, D) silu(z)
//! ```

use std::ops::Range;
use std::sync::{Arc, Mutex};

use burn::tensor::Tensor;
use rayon::prelude::*;
use robomamba_kernels::conv1d::{self, ConvGradOutput, ConvGrads, ConvInput, ConvOutput, ConvShape};
use robomamba_kernels::scan::{
    self, ScanCheckpoints, ScanGradOutput, ScanGrads, ScanInput, ScanOutput, ScanParams, ScanShape,
};
use robomamba_kernels::{Kernels, Rows, RowsMut, Threads};

use super::{Forward, FusedOp, Input, apply, kernels};
use crate::gemm::{self, Layer, Mode, Precision, Write, add};

/// Sizes of a mixer. The sequences lie one after the other in the rows, each with its own length, without padding.
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

/// Sizes and states that a mixer starts from.
pub(crate) struct MixerStart {
    /// Sizes.
    pub shape: MixerShape,
    /// State of each sequence before its first step (zeros where absent), through which no gradient flows.
    pub initial: Vec<Option<BlockState>>,
    /// Number format of the products.
    pub precision: Precision,
}

/// Runs the mixer over `xz` `[rows, 2 * d_inner]`. Returns `[rows, d_inner]`, and the state of each sequence after its
/// last step.
pub(crate) fn mixer(start: MixerStart, xz: Input, parameters: MixerParameters) -> (Tensor<2>, Vec<BlockState>) {
    let MixerStart { shape, initial, precision } = start;
    let last = Arc::new(Mutex::new(Vec::new()));
    let [conv_w, conv_b, x_proj, dt_w, dt_b, a_log, d] = parameters;
    let op = Mixer { precision, shape, initial: initial.into(), last: Arc::clone(&last) };
    let y = apply(op, [xz, conv_w, conv_b, x_proj, dt_w, dt_b, a_log, d]);
    let last = std::mem::take(&mut *last.lock().expect("the forward pass did not panic"));
    (y, last)
}

#[derive(Clone, Debug)]
struct Mixer {
    precision: Precision,
    shape: MixerShape,
    initial: Arc<[Option<BlockState>]>,
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

    /// The sequences in at most [`N_SHARE`] runs of about equal count.
    fn shares(&self) -> Vec<Share> {
        let count = self.lengths.len().div_ceil(N_SHARE).max(1);
        let mut row = 0;
        let share = |(i, lengths): (usize, &[usize])| {
            let first_row = row;
            row += lengths.iter().sum::<usize>();
            Share { sequences: i * count..i * count + lengths.len(), rows: first_row..row }
        };
        self.lengths.chunks(count).enumerate().map(share).collect()
    }

    /// The sequences of a share.
    fn spans(&self, share: &Share) -> impl Iterator<Item = Span> {
        share.sequences.clone().scan(0, |end, sequence| {
            let (start, len) = (*end, self.lengths[sequence]);
            *end += len;
            Some(Span { sequence, start, len })
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

/// Largest number of shares. It does not depend on the number of threads, so sums are reproducible to the bit.
const N_SHARE: usize = 16;

/// Consecutive sequences that one thread handles.
#[derive(Clone, Debug)]
struct Share {
    sequences: Range<usize>,
    rows: Range<usize>,
}

/// A sequence of a share.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// Its index among all sequences.
    sequence: usize,
    /// Its first row among those of the share.
    start: usize,
    len: usize,
}

/// Runs `work` on every share: one thread each if there are enough shares, else one share at a time on all threads.
fn for_shares<T: Send, R: Send>(shares: Vec<T>, work: impl Fn(Kernels, T) -> R + Sync) -> Vec<R> {
    if shares.len() < 2 * rayon::current_num_threads() {
        return shares.into_iter().map(|share| work(kernels(), share)).collect();
    }
    let alone = kernels().with_threads(Threads::One);
    shares.into_par_iter().map(|share| work(alone, share)).collect()
}

/// Cuts `rows` of `width` into those of each share.
fn cut<'a>(shares: &[Share], mut rows: &'a mut [f32], width: usize) -> Vec<&'a mut [f32]> {
    let part = |share: &Share| rows.split_off_mut(..share.rows.len() * width).expect("shares cover the rows");
    shares.iter().map(part).collect()
}

/// What the scan reads beside its parameters, a row per step.
#[derive(Clone, Copy)]
struct ScanReads<'a> {
    xz: &'a [f32],
    u: &'a [f32],
    projected: &'a [f32],
    delta: &'a [f32],
}

impl ScanReads<'_> {
    /// Without the rows before `first`.
    fn skip(self, first: usize, shape: &MixerShape) -> Self {
        Self {
            xz: &self.xz[first * 2 * shape.d_inner..],
            u: &self.u[first * shape.d_inner..],
            projected: &self.projected[first * shape.n_projected()..],
            delta: &self.delta[first * shape.d_inner..],
        }
    }
}

impl Mixer {
    fn conv_input<'a>(
        &'a self,
        xz: &'a [f32],
        ConvParams { weight, bias }: ConvParams<'a>,
        Span { sequence, start, len }: Span,
    ) -> ConvInput<'a> {
        let width = 2 * self.shape.d_inner;
        let x = Rows::strided(&xz[start * width..], width);
        let state = self.initial[sequence].as_ref().map(|state| &*state.conv);
        ConvInput { shape: self.shape.conv(len), x, weight, bias, state }
    }

    fn scan_input<'a>(
        &'a self,
        reads: ScanReads<'a>,
        params: ScanParams<'a>,
        Span { sequence, start, len }: Span,
    ) -> ScanInput<'a> {
        let MixerShape { d_inner, d_state, dt_rank, .. } = self.shape;
        let n_projected = self.shape.n_projected();
        let projected = &reads.projected[start * n_projected..];
        ScanInput {
            shape: self.shape.scan(len),
            params,
            u: Rows::new(&reads.u[start * d_inner..], d_inner),
            delta: Rows::new(&reads.delta[start * d_inner..], d_inner),
            b: Rows::strided(&projected[dt_rank..], n_projected),
            c: Rows::strided(&projected[dt_rank + d_state..], n_projected),
            z: Some(Rows::strided(&reads.xz[start * 2 * d_inner + d_inner..], 2 * d_inner)),
            h0: self.initial[sequence].as_ref().map(|state| &*state.ssm),
        }
    }

    fn mode(&self, write: Write) -> Mode {
        Mode { precision: self.precision, write }
    }

    /// The step size's input `[rows, dt_rank]` out of `projected`.
    fn low_rank(&self, projected: &[f32]) -> Vec<f32> {
        projected.chunks_exact(self.shape.n_projected()).flat_map(|row| &row[..self.shape.dt_rank]).copied().collect()
    }

    /// The convolution of every sequence, `[rows, d_inner]`; its state after the last step goes into `last`.
    fn conv_forward(&self, xz: &[f32], params: ConvParams, last: &mut [BlockState]) -> Vec<f32> {
        let (shares, d_inner) = (self.shape.shares(), self.shape.d_inner);
        let mut u = vec![0.0; self.shape.rows() * d_inner];
        let work = cut(&shares, &mut u, d_inner).into_iter().zip(cut_sequences(&shares, last)).zip(&shares).collect();
        for_shares(work, |kernels, ((u, last), share): ((&mut [f32], &mut [BlockState]), &Share)| {
            let xz = &xz[share.rows.start * 2 * d_inner..];
            for (span, last) in self.shape.spans(share).zip(last) {
                let y = RowsMut::new(&mut u[span.start * d_inner..], d_inner);
                let output = ConvOutput { y, state_last: &mut last.conv };
                conv1d::forward(kernels, &self.conv_input(xz, params, span), output).expect("matching shapes");
            }
        });
        u
    }

    /// The scan of every sequence, `[rows, d_inner]`; its state after the last step goes into `last`.
    fn scan_forward(
        &self,
        reads: ScanReads,
        params: ScanParams,
        last: &mut [BlockState],
    ) -> (Vec<f32>, Vec<ScanCheckpoints>) {
        let (shares, d_inner) = (self.shape.shares(), self.shape.d_inner);
        let mut y = vec![0.0; self.shape.rows() * d_inner];
        let work = cut(&shares, &mut y, d_inner).into_iter().zip(cut_sequences(&shares, last)).zip(&shares).collect();
        let checkpoints = for_shares(work, |kernels, ((y, last), share): ((&mut [f32], &mut [BlockState]), &Share)| {
            let reads = reads.skip(share.rows.start, &self.shape);
            let sequence = |(span, last): (Span, &mut BlockState)| {
                let mut checkpoints = ScanCheckpoints::default();
                let output =
                    ScanOutput { y: RowsMut::new(&mut y[span.start * d_inner..], d_inner), h_last: &mut last.ssm };
                scan::forward(kernels, &self.scan_input(reads, params, span), output, Some(&mut checkpoints))
                    .expect("matching shapes");
                checkpoints
            };
            self.shape.spans(share).zip(last).map(sequence).collect::<Vec<_>>()
        });
        (y, checkpoints.into_iter().flatten().collect())
    }

    /// Gradients with respect to `u`, `delta`, `B`, `C` and the parameters of the scan. The gradient of `z` goes into
    /// the second half of `d_xz`.
    fn scan_backward(&self, pass: ScanPass, grad: &[f32], d_xz: &mut [f32]) -> ScanGradients {
        let ScanPass { reads, checkpoints, params } = pass;
        let (shares, d_inner) = (self.shape.shares(), self.shape.d_inner);
        let mut all = ScanGradients::zeros(&self.shape);
        let mut rows = all.cut(&shares, self.shape.d_state);
        let work = cut(&shares, d_xz, 2 * d_inner).into_iter().zip(&mut rows).zip(&shares).collect();
        let sums = for_shares(work, |kernels, ((d_xz, rows), share): ((&mut [f32], &mut ScanRows), &Share)| {
            let mut sum = ParameterSums::zeros(&self.shape);
            let mut part = sum.clone();
            let first = share.rows.start;
            let (reads, grad) = (reads.skip(first, &self.shape), &grad[first * d_inner..]);
            for span in self.shape.spans(share) {
                let grads = rows.gradients(span.start, &self.shape, &mut part, &mut d_xz[2 * span.start * d_inner..]);
                let grad = ScanGradOutput { y: Rows::new(&grad[span.start * d_inner..], d_inner), h_last: None };
                let input = self.scan_input(reads, params, span);
                scan::backward(kernels, &input, &checkpoints[span.sequence], grad, grads).expect("matching shapes");
                sum.add(&part);
            }
            sum
        });
        drop(rows);
        sums.iter().for_each(|sum| all.parameters.add(sum));
        all
    }

    /// Gradients with respect to weight and bias of the convolution; that of `x` goes into the first half of `d_xz`.
    fn conv_backward(&self, xz: &[f32], params: ConvParams, d_u: &[f32], d_xz: &mut [f32]) -> (Vec<f32>, Vec<f32>) {
        let (shares, d_inner) = (self.shape.shares(), self.shape.d_inner);
        let width = 2 * d_inner;
        let zeros = || [params.weight, params.bias].map(|p| vec![0.0; p.len()]);
        let work = cut(&shares, d_xz, width).into_iter().zip(&shares).collect();
        let sums = for_shares(work, |kernels, (d_xz, share): (&mut [f32], &Share)| {
            let ([mut weight, mut bias], [mut part_weight, mut part_bias]) = (zeros(), zeros());
            let (xz, d_u) = (&xz[share.rows.start * width..], &d_u[share.rows.start * d_inner..]);
            for span in self.shape.spans(share) {
                let grads = ConvGrads {
                    x: RowsMut::strided(&mut d_xz[span.start * width..], width),
                    weight: &mut part_weight,
                    bias: &mut part_bias,
                    state: None,
                };
                let y = Rows::new(&d_u[span.start * d_inner..], d_inner);
                let input = self.conv_input(xz, params, span);
                conv1d::backward(kernels, &input, ConvGradOutput { y, state_last: None }, grads)
                    .expect("matching shapes");
                add(&mut weight, &part_weight);
                add(&mut bias, &part_bias);
            }
            [weight, bias]
        });
        let [mut weight, mut bias] = zeros();
        for [part_weight, part_bias] in &sums {
            add(&mut weight, part_weight);
            add(&mut bias, part_bias);
        }
        (weight, bias)
    }
}

/// A linear layer without a bias.
fn unbiased(weight: &[f32], n_in: usize) -> Layer<'_> {
    Layer { weight, bias: None, n_in }
}

/// Weight `[d_inner, d_conv]` and bias `[d_inner]` of the convolution.
#[derive(Clone, Copy)]
struct ConvParams<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
}

/// What the backward pass of the scan reads.
struct ScanPass<'a> {
    reads: ScanReads<'a>,
    checkpoints: &'a [ScanCheckpoints],
    params: ScanParams<'a>,
}

/// The states of the sequences of each share.
fn cut_sequences<'a>(shares: &[Share], mut states: &'a mut [BlockState]) -> Vec<&'a mut [BlockState]> {
    let part = |share: &Share| states.split_off_mut(..share.sequences.len()).expect("shares cover the sequences");
    shares.iter().map(part).collect()
}

/// Gradients of the scan over all sequences.
struct ScanGradients {
    u: Vec<f32>,
    delta: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    parameters: ParameterSums,
}

impl ScanGradients {
    fn zeros(shape: &MixerShape) -> Self {
        let [u, delta] = [(); 2].map(|()| vec![0.0; shape.rows() * shape.d_inner]);
        let [b, c] = [(); 2].map(|()| vec![0.0; shape.rows() * shape.d_state]);
        Self { u, delta, b, c, parameters: ParameterSums::zeros(shape) }
    }

    /// The rows of each share.
    fn cut(&mut self, shares: &[Share], d_state: usize) -> Vec<ScanRows<'_>> {
        let d_inner = self.u.len() / (self.b.len() / d_state).max(1);
        let channels = cut(shares, &mut self.u, d_inner).into_iter().zip(cut(shares, &mut self.delta, d_inner));
        let states = cut(shares, &mut self.b, d_state).into_iter().zip(cut(shares, &mut self.c, d_state));
        channels.zip(states).map(|((u, delta), (b, c))| ScanRows { u, delta, b, c }).collect()
    }
}

/// Gradients of the scan over the rows of a share.
struct ScanRows<'a> {
    u: &'a mut [f32],
    delta: &'a mut [f32],
    b: &'a mut [f32],
    c: &'a mut [f32],
}

impl ScanRows<'_> {
    /// Where the gradients of the sequence that starts at `row` go; `d_xz` starts there too.
    fn gradients<'a>(
        &'a mut self,
        row: usize,
        shape: &MixerShape,
        sums: &'a mut ParameterSums,
        d_xz: &'a mut [f32],
    ) -> ScanGrads<'a> {
        let MixerShape { d_inner, d_state, .. } = *shape;
        let (channels, states) = (row * d_inner, row * d_state);
        ScanGrads {
            u: RowsMut::new(&mut self.u[channels..], d_inner),
            delta: RowsMut::new(&mut self.delta[channels..], d_inner),
            b: RowsMut::new(&mut self.b[states..], d_state),
            c: RowsMut::new(&mut self.c[states..], d_state),
            z: Some(RowsMut::strided(&mut d_xz[d_inner..], 2 * d_inner)),
            h0: None,
            a_log: &mut sums.a_log,
            d: &mut sums.d,
            dt_bias: &mut sums.dt_bias,
        }
    }
}

/// Gradients with respect to the parameters of the scan.
#[derive(Clone)]
struct ParameterSums {
    a_log: Vec<f32>,
    d: Vec<f32>,
    dt_bias: Vec<f32>,
}

impl ParameterSums {
    fn zeros(shape: &MixerShape) -> Self {
        let [d, dt_bias] = [(); 2].map(|()| vec![0.0; shape.d_inner]);
        Self { a_log: vec![0.0; shape.d_inner * shape.d_state], d, dt_bias }
    }

    fn add(&mut self, other: &Self) {
        add(&mut self.a_log, &other.a_log);
        add(&mut self.d, &other.d);
        add(&mut self.dt_bias, &other.dt_bias);
    }
}

impl FusedOp<8, 2> for Mixer {
    type Saved = Saved;

    fn forward(&self, [xz, conv_w, conv_b, x_proj, dt_w, dt_b, a_log, d]: [&[f32]; 8]) -> Forward<2, Saved> {
        let MixerShape { d_inner, dt_rank, .. } = self.shape;
        let rows = self.shape.rows();
        let mut last: Vec<_> = self.initial.iter().map(|_| self.shape.zero_state()).collect();
        let u = self.conv_forward(xz, ConvParams { weight: conv_w, bias: conv_b }, &mut last);
        let mut projected = vec![0.0; rows * self.shape.n_projected()];
        gemm::forward(self.mode(Write::Set), unbiased(x_proj, d_inner), &u, &mut projected);
        let mut delta = vec![0.0; rows * d_inner];
        gemm::forward(self.mode(Write::Set), unbiased(dt_w, dt_rank), &self.low_rank(&projected), &mut delta);
        let reads = ScanReads { xz, u: &u, projected: &projected, delta: &delta };
        let params = ScanParams { a_log, d, dt_bias: dt_b };
        let (output, checkpoints) = self.scan_forward(reads, params, &mut last);
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
        let reads = ScanReads { xz, u: &saved.u, projected: &saved.projected, delta: &saved.delta };
        let params = ScanParams { a_log, d, dt_bias: dt_b };
        let mut scan = self.scan_backward(ScanPass { reads, checkpoints: &saved.checkpoints, params }, grad, &mut d_xz);

        let low_rank = self.low_rank(&saved.projected);
        let (mut d_dt_w, mut d_low_rank) = (vec![0.0; dt_w.len()], vec![0.0; low_rank.len()]);
        gemm::backward_weight(self.mode(Write::Set), dt_rank, [&scan.delta, &low_rank], &mut d_dt_w);
        gemm::backward_input(self.mode(Write::Set), unbiased(dt_w, dt_rank), &scan.delta, &mut d_low_rank);
        let mut d_projected = Vec::with_capacity(saved.projected.len());
        let states = scan.b.chunks_exact(d_state).zip(scan.c.chunks_exact(d_state));
        for (low_rank, (b, c)) in d_low_rank.chunks_exact(dt_rank).zip(states) {
            d_projected.extend_from_slice(low_rank);
            d_projected.extend_from_slice(b);
            d_projected.extend_from_slice(c);
        }
        let mut d_x_proj = vec![0.0; x_proj.len()];
        gemm::backward_weight(self.mode(Write::Set), d_inner, [&d_projected, &saved.u], &mut d_x_proj);
        gemm::backward_input(self.mode(Write::Add), unbiased(x_proj, d_inner), &d_projected, &mut scan.u);

        let (d_conv_w, d_conv_b) =
            self.conv_backward(xz, ConvParams { weight: conv_w, bias: conv_b }, &scan.u, &mut d_xz);
        let ParameterSums { a_log, d, dt_bias } = scan.parameters;
        [d_xz, d_conv_w, d_conv_b, d_x_proj, d_dt_w, dt_bias, a_log, d].map(Some)
    }
}
