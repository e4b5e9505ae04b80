//! The scan forward, vectorised over channels and sequential in time.
//!
//! A tile of channels runs through the sequence in chunks of steps, each in three phases: step sizes for
//! the whole tile, then the recurrence block by block with its states in registers, then skip and gate.

use super::tile::{CHUNK, Tile, for_state_groups, load_rates, store_registers};
use super::{ScanInput, ScanOutput};
use crate::parallel::{SharedRows, for_each};
use crate::simd::layout::{load_transposed, store_transposed};
use crate::simd::{Op, Simd, math};
use crate::{Kernels, Rows};

/// Runs all tiles; `checkpoints` has room for all of them.
pub(super) fn run(kernels: Kernels, input: &ScanInput, output: ScanOutput, checkpoints: Option<&mut [f32]>) {
    let y = SharedRows::new(output.y);
    let h_last = SharedRows::flat(output.h_last);
    let checkpoints = checkpoints.map(SharedRows::flat);
    for_each(kernels.threads(), Tile::count(&input.shape), |index| {
        let tile = Tile::new(input.shape, index);
        kernels.run(ForwardTile { input, tile, y: &y, h_last: &h_last, checkpoints: checkpoints.as_ref() });
    });
}

struct ForwardTile<'a> {
    input: &'a ScanInput<'a>,
    tile: Tile,
    y: &'a SharedRows<'a>,
    h_last: &'a SharedRows<'a>,
    checkpoints: Option<&'a SharedRows<'a>>,
}

impl Op for ForwardTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (tile, d_state, seq_len) = (self.tile, self.tile.shape.d_state, self.tile.shape.seq_len);
        let columns = tile.columns();
        let a_log = &self.input.params.a_log[columns.start * d_state..columns.end * d_state];
        let rates = load_rates(s, a_log, d_state);
        let mut h = match self.input.h0 {
            Some(h0) => load_transposed(s, &h0[tile.states()], d_state),
            None => vec![s.zero(); rates.len()],
        };
        let mut chunk = Chunk::new(s, &self);
        for start in (0..seq_len).step_by(CHUNK) {
            self.save(s, start / CHUNK, &h);
            chunk.rows = tile.row(start)..tile.row(seq_len.min(start + CHUNK));
            chunk.prepare(s, &self);
            chunk.recur(s, &self, (&rates, &mut h));
            chunk.finish(s, &self);
        }
        // Safety: every tile has states of its own.
        store_transposed(s, &h, unsafe { self.h_last.part(0, tile.states()) }, d_state);
    }
}

impl ForwardTile<'_> {
    #[inline(always)]
    fn save<S: Simd>(&self, s: S, chunk: usize, h: &[S::V]) {
        if let Some(checkpoints) = self.checkpoints {
            // Safety: every tile has checkpoints of its own.
            store_registers(s, h, unsafe { checkpoints.part(0, self.tile.checkpoint::<S>(chunk)) });
        }
    }
}

/// Values of some steps of a tile, `[block, CHUNK]`.
struct Chunk<S: Simd> {
    rows: std::ops::Range<usize>,
    /// Skip weight and bias of the step size, `[block]`.
    d: Vec<S::V>,
    dt_bias: Vec<S::V>,
    delta: Vec<S::V>,
    /// `delta * u`.
    delta_u: Vec<S::V>,
    /// `sum_n C h`, then plus `D u`.
    y: Vec<S::V>,
}

impl<S: Simd> Chunk<S> {
    #[inline(always)]
    fn new(s: S, forward: &ForwardTile) -> Self {
        let (tile, params) = (forward.tile, &forward.input.params);
        let buffer = || vec![s.zero(); tile.blocks::<S>() * CHUNK];
        Self {
            rows: 0..0,
            d: tile.load_channels(s, params.d),
            dt_bias: tile.load_channels(s, params.dt_bias),
            delta: buffer(),
            delta_u: buffer(),
            y: buffer(),
        }
    }

    /// Step sizes, and the skip connection as the first term of the output.
    #[inline(always)]
    fn prepare(&mut self, s: S, forward: &ForwardTile) {
        let ForwardTile { input, tile, .. } = forward;
        for (t, row) in self.rows.clone().enumerate() {
            for block in 0..self.d.len() {
                let raw = tile.load(s, &input.delta, row, block);
                let u = tile.load(s, &input.u, row, block);
                let delta = math::softplus(s, s.add(raw, self.dt_bias[block]));
                self.delta[block * CHUNK + t] = delta;
                self.delta_u[block * CHUNK + t] = s.mul(delta, u);
                self.y[block * CHUNK + t] = s.mul(self.d[block], u);
            }
        }
    }

    #[inline(always)]
    fn recur(&mut self, s: S, forward: &ForwardTile, (rates, h): (&[S::V], &mut [S::V])) {
        let d_state = forward.tile.shape.d_state;
        let steps = self.rows.len();
        // The recurrence leaves the memory idle, so it fetches what the next chunk will read.
        let next = self.rows.end..self.rows.end + CHUNK;
        for block in 0..self.d.len() {
            forward.tile.prefetch::<S>(&forward.input.u, next.clone(), block);
            forward.tile.prefetch::<S>(&forward.input.delta, next.clone(), block);
            if let Some(z) = &forward.input.z {
                forward.tile.prefetch::<S>(z, self.rows.clone(), block);
            }
            let states = block * d_state..(block + 1) * d_state;
            let mut recurrence = Recurrence {
                rates: &rates[states.clone()],
                h: &mut h[states],
                delta: &self.delta[block * CHUNK..][..steps],
                delta_u: &self.delta_u[block * CHUNK..][..steps],
                y: &mut self.y[block * CHUNK..][..steps],
                b: from_row(forward.input.b, self.rows.start),
                c: from_row(forward.input.c, self.rows.start),
            };
            for_state_groups!(d_state, S::STATES, n, recur_group::<S>(s, &mut recurrence, n));
        }
    }

    /// Applies the gate and writes the output.
    #[inline(always)]
    fn finish(&self, s: S, forward: &ForwardTile) {
        let ForwardTile { input, tile, y, .. } = forward;
        for (t, row) in self.rows.clone().enumerate() {
            for block in 0..self.d.len() {
                let sum = self.y[block * CHUNK + t];
                let gated = match &input.z {
                    Some(z) => s.mul(sum, math::silu(s, tile.load(s, z, row, block))),
                    None => sum,
                };
                // Safety: every tile has columns of its own.
                s.store_partial(gated, unsafe { y.part(row, tile.block::<S>(block)) });
            }
        }
    }
}

/// The view that starts at `row`.
#[inline(always)]
pub(super) fn from_row(rows: Rows, row: usize) -> Rows {
    Rows { data: &rows.data[row * rows.stride..], stride: rows.stride }
}

/// The recurrence of one block over the steps of a chunk.
struct Recurrence<'a, V> {
    /// `[d_state]`.
    rates: &'a [V],
    /// `[d_state]`.
    h: &'a mut [V],
    /// `[steps]`.
    delta: &'a [V],
    /// `[steps]`.
    delta_u: &'a [V],
    /// `[steps]`.
    y: &'a mut [V],
    /// `[steps, d_state]`.
    b: Rows<'a>,
    /// `[steps, d_state]`.
    c: Rows<'a>,
}

/// Runs the states `first..first + N`, which stay in registers for the whole chunk.
#[inline(always)]
fn recur_group<S: Simd, const N: usize>(s: S, block: &mut Recurrence<S::V>, first: usize) {
    let (Some(rates), Some(h_out)) = (block.rates[first..].first_chunk::<N>(), block.h[first..].first_chunk_mut::<N>())
    else {
        return;
    };
    let mut h = *h_out;
    for (t, y) in block.y.iter_mut().enumerate() {
        let (delta, delta_u) = (block.delta[t], block.delta_u[t]);
        let (b, c) = (&block.b.row(t, first + N)[first..], &block.c.row(t, first + N)[first..]);
        // Two sums, so that no chain of additions is longer than the rest takes.
        let mut sums = [*y, s.zero()];
        for n in 0..N {
            let a = math::exp2(s, s.mul(delta, rates[n]));
            h[n] = s.fma(a, h[n], s.mul(delta_u, s.splat(b[n])));
            sums[n % 2] = s.fma(h[n], s.splat(c[n]), sums[n % 2]);
        }
        *y = s.add(sums[0], sums[1]);
    }
    *h_out = h;
}
