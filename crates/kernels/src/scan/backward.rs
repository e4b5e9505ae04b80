//! The scan backward, with the states recomputed chunk by chunk from the forward pass's checkpoints.
//!
//! Glossary beside that of the module: `dX` is the gradient of the loss with respect to `X`; `rate` is
//! `A log2 e`, so that `a = exp2(delta rate)`. From the last step to the first, for every channel and
//! state, with `dh` carrying what later steps ask of `h`:
//!
//! ```text
//! dh     += C dy                  dC += h dy             (summed over channels)
//! d(delta u) += dh B              dB += dh delta u       (summed over channels)
//! w       = dh a h_prev           d(delta) += w A        dA += w delta
//! dh      = dh a
//! ```

use std::f32::consts::LN_2;
use std::ops::Range;

use super::forward::from_row;
use super::tile::{CHUNK, Tile, for_state_groups, load_rates};
use super::{ScanCheckpoints, ScanGradOutput, ScanGrads, ScanInput};
use crate::parallel::{SharedRows, map};
use crate::simd::layout::{load_transposed, store_transposed};
use crate::simd::{MAX_LANES, Op, Simd, math};
use crate::{Kernels, Rows};

/// States whose gradients are kept in registers at once; the backward pass needs two registers for each.
const STATES_MAX: usize = 8;

/// Runs all tiles and sums what they share, in a fixed order.
pub(super) fn run(
    kernels: Kernels,
    input: &ScanInput,
    checkpoints: &ScanCheckpoints,
    grad_output: ScanGradOutput,
    grads: ScanGrads,
) {
    let ScanGrads { u, delta, mut b, mut c, z, h0, a_log, d, dt_bias } = grads;
    let rows = TileGrads {
        u: SharedRows::new(u),
        delta: SharedRows::new(delta),
        z: z.map(SharedRows::new),
        h0: h0.map(SharedRows::flat),
    };
    let shape = input.shape;
    let sums = map(kernels.threads(), Tile::count(&shape), |index| {
        let tile = Tile::new(shape, index);
        kernels.run(BackwardTile { input, tile, checkpoints: &checkpoints.states, grad_output, grads: &rows })
    });

    for row in 0..shape.rows() {
        b.row(row, shape.d_state).fill(0.0);
        c.row(row, shape.d_state).fill(0.0);
    }
    a_log.fill(0.0);
    d.fill(0.0);
    dt_bias.fill(0.0);
    for (index, sums) in sums.iter().enumerate() {
        let tile = Tile::new(shape, index);
        let columns = tile.columns();
        for t in 0..shape.seq_len {
            add(b.row(tile.row(t), shape.d_state), &sums.b[t * shape.d_state..]);
            add(c.row(tile.row(t), shape.d_state), &sums.c[t * shape.d_state..]);
        }
        add(&mut a_log[columns.start * shape.d_state..columns.end * shape.d_state], &sums.a_log);
        add(&mut d[columns.clone()], &sums.d);
        add(&mut dt_bias[columns], &sums.dt_bias);
    }
}

fn add(sum: &mut [f32], values: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}

/// Gradients of which every tile writes its own part.
struct TileGrads<'a> {
    u: SharedRows<'a>,
    delta: SharedRows<'a>,
    z: Option<SharedRows<'a>>,
    h0: Option<SharedRows<'a>>,
}

/// What a tile contributes to gradients that are sums over tiles.
struct TileSums {
    /// `[seq_len, d_state]`.
    b: Vec<f32>,
    /// `[seq_len, d_state]`.
    c: Vec<f32>,
    /// `[channels, d_state]`.
    a_log: Vec<f32>,
    /// `[channels]`.
    d: Vec<f32>,
    /// `[channels]`.
    dt_bias: Vec<f32>,
}

struct BackwardTile<'a> {
    input: &'a ScanInput<'a>,
    tile: Tile,
    checkpoints: &'a [f32],
    grad_output: ScanGradOutput<'a>,
    grads: &'a TileGrads<'a>,
}

impl Op for BackwardTile<'_> {
    type Output = TileSums;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> TileSums {
        let (d_state, seq_len) = (self.tile.shape.d_state, self.tile.shape.seq_len);
        let mut states = States::new(s, &self);
        let mut chunk = Chunk::new(s, &self);
        let mut sums = TileSums {
            b: vec![0.0; seq_len * d_state],
            c: vec![0.0; seq_len * d_state],
            a_log: vec![0.0; self.tile.columns().len() * d_state],
            d: vec![0.0; self.tile.columns().len()],
            dt_bias: vec![0.0; self.tile.columns().len()],
        };
        for start in (0..seq_len).step_by(CHUNK).rev() {
            let steps = start..seq_len.min(start + CHUNK);
            chunk.rows = self.tile.row(steps.start)..self.tile.row(steps.end);
            chunk.prepare(s, &self);
            let checkpoint = &self.checkpoints[self.tile.checkpoint::<S>(start / CHUNK)];
            chunk.recur(s, &self, (&mut states, checkpoint));
            chunk.finish(s, &self);
            let values = steps.start * d_state..steps.end * d_state;
            reduce_lanes(s, &chunk.b, &mut sums.b[values.clone()]);
            reduce_lanes(s, &chunk.c, &mut sums.c[values]);
        }
        states.finish(s, &self, &mut sums.a_log);
        store_channels(s, &chunk.d_sum, &mut sums.d);
        store_channels(s, &chunk.dt_bias_sum, &mut sums.dt_bias);
        sums
    }
}

#[inline(always)]
fn reduce_lanes<S: Simd>(s: S, registers: &[S::V], sums: &mut [f32]) {
    for (sum, &register) in sums.iter_mut().zip(registers) {
        *sum = s.reduce_sum(register);
    }
}

#[inline(always)]
fn store_channels<S: Simd>(s: S, registers: &[S::V], values: &mut [f32]) {
    for (&register, values) in registers.iter().zip(values.chunks_mut(S::LANES)) {
        s.store_partial(register, values);
    }
}

/// What is kept for the states of a tile from chunk to chunk, `[block, d_state]`.
struct States<S: Simd> {
    rates: Vec<S::V>,
    /// Gradient of the state after the steps that are still to come.
    dh: Vec<S::V>,
    /// Sum of `w delta`.
    drate: Vec<S::V>,
    /// States of a chunk of one block and group, `[CHUNK + 1, STATES_MAX]`, the checkpoint first.
    h: Vec<S::V>,
    /// Decays of a chunk of one block and group, `[CHUNK, STATES_MAX]`.
    a: Vec<S::V>,
}

impl<S: Simd> States<S> {
    #[inline(always)]
    fn new(s: S, backward: &BackwardTile) -> Self {
        let (tile, d_state) = (backward.tile, backward.tile.shape.d_state);
        let columns = tile.columns();
        let a_log = &backward.input.params.a_log[columns.start * d_state..columns.end * d_state];
        let rates = load_rates(s, a_log, d_state);
        let dh = match backward.grad_output.h_last {
            Some(dh) => load_transposed(s, &dh[tile.states()], d_state),
            None => vec![s.zero(); rates.len()],
        };
        Self {
            drate: vec![s.zero(); rates.len()],
            rates,
            dh,
            h: vec![s.zero(); (CHUNK + 1) * STATES_MAX],
            a: vec![s.zero(); CHUNK * STATES_MAX],
        }
    }

    /// Writes the gradients of `A_log` and of the first state.
    #[inline(always)]
    fn finish(&mut self, s: S, backward: &BackwardTile, a_log: &mut [f32]) {
        let (tile, d_state) = (backward.tile, backward.tile.shape.d_state);
        // da/drate = a delta ln 2, and drate/dA_log = rate, because A = -exp(A_log).
        for (drate, &rate) in self.drate.iter_mut().zip(&self.rates) {
            *drate = s.mul(s.mul(*drate, s.splat(LN_2)), rate);
        }
        store_transposed(s, &self.drate, a_log, d_state);
        if let Some(h0) = &backward.grads.h0 {
            // Safety: every tile has states of its own.
            store_transposed(s, &self.dh, unsafe { h0.part(0, tile.states()) }, d_state);
        }
    }
}

/// Values of some steps of a tile, `[block, CHUNK]`, and its sums.
struct Chunk<S: Simd> {
    rows: Range<usize>,
    /// Parameters and their gradients, `[block]`.
    d: Vec<S::V>,
    dt_bias: Vec<S::V>,
    d_sum: Vec<S::V>,
    dt_bias_sum: Vec<S::V>,
    u: Vec<S::V>,
    delta: Vec<S::V>,
    /// Derivative of the softplus that made `delta`.
    slope: Vec<S::V>,
    /// Gradient of the output before the gate.
    dy: Vec<S::V>,
    /// `sum_n C h`, recomputed.
    y: Vec<S::V>,
    /// `sum_n w rate`.
    dw: Vec<S::V>,
    /// `sum_n dh B`.
    ddelta_u: Vec<S::V>,
    /// Gradients of `B` and `C`, `[CHUNK, d_state]`, to be summed over the lanes.
    b: Vec<S::V>,
    c: Vec<S::V>,
}

impl<S: Simd> Chunk<S> {
    #[inline(always)]
    fn new(s: S, backward: &BackwardTile) -> Self {
        let (tile, params) = (backward.tile, &backward.input.params);
        let channels = || vec![s.zero(); tile.blocks::<S>()];
        let steps = || vec![s.zero(); tile.blocks::<S>() * CHUNK];
        let states = || vec![s.zero(); CHUNK * tile.shape.d_state];
        Self {
            rows: 0..0,
            d: tile.load_channels(s, params.d),
            dt_bias: tile.load_channels(s, params.dt_bias),
            d_sum: channels(),
            dt_bias_sum: channels(),
            u: steps(),
            delta: steps(),
            slope: steps(),
            dy: steps(),
            y: steps(),
            dw: steps(),
            ddelta_u: steps(),
            b: states(),
            c: states(),
        }
    }

    #[inline(always)]
    fn prepare(&mut self, s: S, backward: &BackwardTile) {
        let BackwardTile { input, tile, grad_output, .. } = backward;
        for (t, row) in self.rows.clone().enumerate() {
            for block in 0..self.d.len() {
                let i = block * CHUNK + t;
                let raw = tile.load(s, &input.delta, row, block);
                (self.delta[i], self.slope[i]) = math::softplus_sigmoid(s, s.add(raw, self.dt_bias[block]));
                self.u[i] = tile.load(s, &input.u, row, block);
                let dy = tile.load(s, &grad_output.y, row, block);
                self.dy[i] = match &input.z {
                    Some(z) => s.mul(dy, math::silu(s, tile.load(s, z, row, block))),
                    None => dy,
                };
            }
        }
        for sums in [&mut self.y, &mut self.dw, &mut self.ddelta_u, &mut self.b, &mut self.c] {
            sums.fill(s.zero());
        }
    }

    #[inline(always)]
    fn recur(&mut self, s: S, backward: &BackwardTile, (states, checkpoint): (&mut States<S>, &[f32])) {
        let d_state = backward.tile.shape.d_state;
        let count = self.rows.len();
        for block in 0..self.d.len() {
            let range = block * d_state..(block + 1) * d_state;
            let steps = block * CHUNK..block * CHUNK + count;
            let mut recurrence = Recurrence::<S> {
                d_state,
                checkpoint: &checkpoint[range.start * S::LANES..range.end * S::LANES],
                rates: &states.rates[range.clone()],
                dh: &mut states.dh[range.clone()],
                drate: &mut states.drate[range],
                h: &mut states.h,
                a: &mut states.a,
                u: &self.u[steps.clone()],
                delta: &self.delta[steps.clone()],
                dy: &self.dy[steps.clone()],
                y: &mut self.y[steps.clone()],
                dw: &mut self.dw[steps.clone()],
                ddelta_u: &mut self.ddelta_u[steps],
                b: from_row(backward.input.b, self.rows.start),
                c: from_row(backward.input.c, self.rows.start),
                db: &mut self.b,
                dc: &mut self.c,
            };
            for_state_groups!(d_state, S::STATES.min(STATES_MAX), n, recur_group::<S>(s, &mut recurrence, n));
        }
    }

    /// Writes the gradients of `u`, `delta` and `z`, and adds to those of `D` and `dt_bias`.
    #[inline(always)]
    fn finish(&mut self, s: S, backward: &BackwardTile) {
        let BackwardTile { input, tile, grad_output, grads, .. } = backward;
        for (t, row) in self.rows.clone().enumerate() {
            for block in 0..self.d.len() {
                let i = block * CHUNK + t;
                let columns = tile.block::<S>(block);
                let (u, d, dy) = (self.u[i], self.d[block], self.dy[i]);
                let du = s.fma(self.ddelta_u[i], self.delta[i], s.mul(d, dy));
                let ddelta = s.fma(self.ddelta_u[i], u, s.mul(self.dw[i], s.splat(LN_2)));
                let draw = s.mul(ddelta, self.slope[i]);
                self.d_sum[block] = s.fma(dy, u, self.d_sum[block]);
                self.dt_bias_sum[block] = s.add(self.dt_bias_sum[block], draw);
                // Safety: every tile has columns of its own.
                s.store_partial(du, unsafe { grads.u.part(row, columns.clone()) });
                // Safety: as above.
                s.store_partial(draw, unsafe { grads.delta.part(row, columns.clone()) });
                if let (Some(z), Some(dz)) = (&input.z, &grads.z) {
                    let (_, slope) = math::silu_with_grad(s, tile.load(s, z, row, block));
                    let dy_gated = tile.load(s, &grad_output.y, row, block);
                    let y = s.fma(d, u, self.y[i]);
                    // Safety: as above.
                    s.store_partial(s.mul(s.mul(dy_gated, y), slope), unsafe { dz.part(row, columns) });
                }
            }
        }
    }
}

/// The recurrence of one block over the steps of a chunk, there and back.
struct Recurrence<'a, S: Simd> {
    d_state: usize,
    /// The state before the chunk, `[d_state, lanes]`.
    checkpoint: &'a [f32],
    /// `[d_state]`.
    rates: &'a [S::V],
    dh: &'a mut [S::V],
    drate: &'a mut [S::V],
    /// Working memory for states and decays.
    h: &'a mut [S::V],
    a: &'a mut [S::V],
    /// `[steps]`.
    u: &'a [S::V],
    delta: &'a [S::V],
    dy: &'a [S::V],
    y: &'a mut [S::V],
    dw: &'a mut [S::V],
    ddelta_u: &'a mut [S::V],
    /// `[steps, d_state]`.
    b: Rows<'a>,
    c: Rows<'a>,
    /// `[steps, d_state]`.
    db: &'a mut [S::V],
    dc: &'a mut [S::V],
}

/// Runs the states `first..first + N`.
#[inline(always)]
fn recur_group<S: Simd, const N: usize>(s: S, block: &mut Recurrence<S>, first: usize) {
    recompute::<S, N>(s, block, first);
    go_back::<S, N>(s, block, first);
}

/// Recomputes the states and decays of the chunk, and what the states add to the output.
#[inline(always)]
fn recompute<S: Simd, const N: usize>(s: S, block: &mut Recurrence<S>, first: usize) {
    let (states, _) = block.h.as_chunks_mut::<N>();
    let (decays, _) = block.a.as_chunks_mut::<N>();
    let Some(rates) = block.rates[first..].first_chunk::<N>() else { return };
    let mut h = [s.zero(); N];
    for (n, h) in h.iter_mut().enumerate() {
        *h = s.load(&block.checkpoint[(first + n) * S::LANES..]);
    }
    states[0] = h;
    for (t, y) in block.y.iter_mut().enumerate() {
        let delta = block.delta[t];
        let delta_u = s.mul(delta, block.u[t]);
        let (b, c) = (&block.b.row(t, first + N)[first..], &block.c.row(t, first + N)[first..]);
        let (decays, states) = (&mut decays[t], &mut states[t + 1]);
        for n in 0..N {
            decays[n] = math::exp2(s, s.mul(delta, rates[n]));
            h[n] = s.fma(decays[n], h[n], s.mul(delta_u, s.splat(b[n])));
            *y = s.fma(h[n], s.splat(c[n]), *y);
        }
        *states = h;
    }
}

/// Carries the gradient of the state from the last step of the chunk to the first.
#[inline(always)]
fn go_back<S: Simd, const N: usize>(s: S, block: &mut Recurrence<S>, first: usize) {
    let (states, _) = block.h.as_chunks::<N>();
    let (decays, _) = block.a.as_chunks::<N>();
    let (Some(rates), Some(dh_out), Some(drate_out)) = (
        block.rates[first..].first_chunk::<N>(),
        block.dh[first..].first_chunk_mut::<N>(),
        block.drate[first..].first_chunk_mut::<N>(),
    ) else {
        return;
    };
    let (mut dh, mut drate) = (*dh_out, *drate_out);
    for t in (0..block.dy.len()).rev() {
        let (delta, dy) = (block.delta[t], block.dy[t]);
        let delta_u = s.mul(delta, block.u[t]);
        let (b, c) = (&block.b.row(t, first + N)[first..], &block.c.row(t, first + N)[first..]);
        let at = t * block.d_state + first;
        let (db, dc) = (&mut block.db[at..][..N], &mut block.dc[at..][..N]);
        let (h, h_prev, a) = (&states[t + 1], &states[t], &decays[t]);
        let (mut dw, mut ddelta_u) = (block.dw[t], block.ddelta_u[t]);
        for n in 0..N {
            dh[n] = s.fma(dy, s.splat(c[n]), dh[n]);
            dc[n] = s.fma(h[n], dy, dc[n]);
            db[n] = s.fma(dh[n], delta_u, db[n]);
            ddelta_u = s.fma(dh[n], s.splat(b[n]), ddelta_u);
            dh[n] = s.mul(dh[n], a[n]);
            let w = s.mul(dh[n], h_prev[n]);
            dw = s.fma(w, rates[n], dw);
            drate[n] = s.fma(w, delta, drate[n]);
        }
        (block.dw[t], block.ddelta_u[t]) = (dw, ddelta_u);
    }
    (*dh_out, *drate_out) = (dh, drate);
}

// A checkpoint is padded to whole blocks of the widest register.
const _: () = assert!(MAX_LANES == 16);
