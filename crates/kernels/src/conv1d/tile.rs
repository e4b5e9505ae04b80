//! The convolution, vectorised over channels; forward and backward over one tile of channels of one batch
//! element.
//!
//! Input number `past` of a sequence counts from the oldest value of the state, so that tap `k` of step
//! `t` meets input `t + k`.

use std::ops::Range;

use super::{ConvGradOutput, ConvGrads, ConvInput, ConvOutput, ConvShape};
use crate::parallel::{SharedRows, for_each, map};
use crate::simd::layout::{load_transposed, store_transposed};
use crate::simd::{Op, Simd, math};
use crate::{Kernels, Rows};

/// Channels of a tile; fixed, so that results do not depend on the number of threads.
const TILE: usize = 256;

#[derive(Clone, Copy)]
struct Tile {
    shape: ConvShape,
    batch: usize,
    first: usize,
    last: usize,
}

impl Tile {
    fn count(shape: &ConvShape) -> usize {
        shape.batch * shape.d_inner.div_ceil(TILE)
    }

    fn new(shape: ConvShape, index: usize) -> Self {
        let tiles = shape.d_inner.div_ceil(TILE);
        let first = index % tiles * TILE;
        Self { shape, batch: index / tiles, first, last: (first + TILE).min(shape.d_inner) }
    }

    fn channels(&self) -> Range<usize> {
        self.first..self.last
    }

    /// Values per channel in the state.
    fn memory(&self) -> usize {
        self.shape.d_conv - 1
    }

    /// Its part of a state `[batch, d_inner, d_conv - 1]`.
    fn states(&self) -> Range<usize> {
        let first = self.batch * self.shape.d_inner;
        (first + self.first) * self.memory()..(first + self.last) * self.memory()
    }

    /// Its part of the weights `[d_inner, d_conv]`.
    fn weights(&self) -> Range<usize> {
        self.first * self.shape.d_conv..self.last * self.shape.d_conv
    }

    fn row(&self, t: usize) -> usize {
        self.batch * self.shape.seq_len + t
    }

    fn blocks<S: Simd>(&self) -> usize {
        (self.last - self.first).div_ceil(S::LANES)
    }

    #[inline(always)]
    fn block<S: Simd>(&self, block: usize) -> Range<usize> {
        let first = self.first + block * S::LANES;
        first..(first + S::LANES).min(self.last)
    }

    #[inline(always)]
    fn load<S: Simd>(&self, s: S, rows: &Rows, t: usize, block: usize) -> S::V {
        s.load_partial(&rows.data[self.row(t) * rows.stride..][self.block::<S>(block)])
    }
}

/// Parameters and first state of a tile in registers.
struct Filter<'a, S: Simd> {
    input: &'a ConvInput<'a>,
    tile: Tile,
    /// `[block, d_conv]`.
    weight: Vec<S::V>,
    /// `[block]`.
    bias: Vec<S::V>,
    /// `[block, d_conv - 1]`.
    state: Vec<S::V>,
}

impl<'a, S: Simd> Filter<'a, S> {
    #[inline(always)]
    fn new(s: S, input: &'a ConvInput<'a>, tile: Tile) -> Self {
        let memory = tile.memory();
        let state = match input.state {
            Some(state) if memory > 0 => load_transposed(s, &state[tile.states()], memory),
            _ => vec![s.zero(); tile.blocks::<S>() * memory],
        };
        Self {
            input,
            tile,
            weight: load_transposed(s, &input.weight[tile.weights()], tile.shape.d_conv),
            bias: (0..tile.blocks::<S>()).map(|block| s.load_partial(&input.bias[tile.block::<S>(block)])).collect(),
            state,
        }
    }

    /// Input number `past` of one block.
    #[inline(always)]
    fn input(&self, s: S, past: usize, block: usize) -> S::V {
        let memory = self.tile.memory();
        match past.checked_sub(memory) {
            Some(t) => self.tile.load(s, &self.input.x, t, block),
            None => self.state[block * memory + past],
        }
    }

    /// One block of one step before SiLU.
    #[inline(always)]
    fn before_silu(&self, s: S, t: usize, block: usize) -> S::V {
        let mut sum = self.bias[block];
        for k in 0..self.tile.shape.d_conv {
            sum = s.fma(self.weight[block * self.tile.shape.d_conv + k], self.input(s, t + k, block), sum);
        }
        sum
    }
}

/// Runs all tiles.
pub(super) fn forward(kernels: Kernels, input: &ConvInput, output: ConvOutput) {
    let y = SharedRows::new(output.y);
    let state_last = SharedRows::flat(output.state_last);
    for_each(kernels.threads(), Tile::count(&input.shape), |index| {
        let tile = Tile::new(input.shape, index);
        kernels.run(ForwardTile { input, tile, y: &y, state_last: &state_last });
    });
}

struct ForwardTile<'a> {
    input: &'a ConvInput<'a>,
    tile: Tile,
    y: &'a SharedRows<'a>,
    state_last: &'a SharedRows<'a>,
}

impl Op for ForwardTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let tile = self.tile;
        let filter = Filter::new(s, self.input, tile);
        for t in 0..tile.shape.seq_len {
            for block in 0..tile.blocks::<S>() {
                let y = math::silu(s, filter.before_silu(s, t, block));
                // Safety: every tile has columns of its own.
                s.store_partial(y, unsafe { self.y.part(tile.row(t), tile.block::<S>(block)) });
            }
        }
        let mut last = Vec::with_capacity(filter.state.len());
        for block in 0..tile.blocks::<S>() {
            for k in 0..tile.memory() {
                last.push(filter.input(s, tile.shape.seq_len + k, block));
            }
        }
        if tile.memory() > 0 {
            // Safety: every tile has states of its own.
            store_transposed(s, &last, unsafe { self.state_last.part(0, tile.states()) }, tile.memory());
        }
    }
}

/// Runs all tiles backward and sums what the batch shares, in a fixed order.
pub(super) fn backward(kernels: Kernels, input: &ConvInput, grad_output: ConvGradOutput, grads: ConvGrads) {
    let ConvGrads { x, weight, bias, state } = grads;
    let x = SharedRows::new(x);
    let state = state.map(SharedRows::flat);
    let sums = map(kernels.threads(), Tile::count(&input.shape), |index| {
        let tile = Tile::new(input.shape, index);
        kernels.run(BackwardTile { input, tile, grad_output, x: &x, state: state.as_ref() })
    });
    weight.fill(0.0);
    bias.fill(0.0);
    for (index, (weights, biases)) in sums.iter().enumerate() {
        let tile = Tile::new(input.shape, index);
        let add = |sum: &mut [f32], values: &[f32]| sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        add(&mut weight[tile.weights()], weights);
        add(&mut bias[tile.channels()], biases);
    }
}

struct BackwardTile<'a> {
    input: &'a ConvInput<'a>,
    tile: Tile,
    grad_output: ConvGradOutput<'a>,
    x: &'a SharedRows<'a>,
    state: Option<&'a SharedRows<'a>>,
}

impl Op for BackwardTile<'_> {
    /// Gradients of the tile's weights `[channels, d_conv]` and biases `[channels]`.
    type Output = (Vec<f32>, Vec<f32>);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let tile = self.tile;
        let filter = Filter::new(s, self.input, tile);
        let state_last = match self.grad_output.state_last {
            Some(state) if tile.memory() > 0 => load_transposed(s, &state[tile.states()], tile.memory()),
            _ => vec![s.zero(); filter.state.len()],
        };
        let mut dweight = vec![s.zero(); filter.weight.len()];
        let mut dbias = vec![0.0; tile.channels().len()];
        let mut dstate = vec![s.zero(); filter.state.len()];
        // Gradients before SiLU, `[seq_len]`.
        let mut before = vec![s.zero(); tile.shape.seq_len];
        for (block, dbias) in dbias.chunks_mut(S::LANES).enumerate() {
            let taps = block * tile.shape.d_conv..(block + 1) * tile.shape.d_conv;
            let sum = self.undo_silu(s, (&filter, block), &mut before, &mut dweight[taps.clone()]);
            s.store_partial(sum, dbias);
            let states = block * tile.memory()..(block + 1) * tile.memory();
            let carried = (&state_last[states.clone()], &mut dstate[states]);
            self.correlate(s, (&before, &filter.weight[taps]), carried, block);
        }
        if let (Some(state), true) = (self.state, tile.memory() > 0) {
            // Safety: every tile has states of its own.
            store_transposed(s, &dstate, unsafe { state.part(0, tile.states()) }, tile.memory());
        }
        let mut weights = vec![0.0; tile.weights().len()];
        store_transposed(s, &dweight, &mut weights, tile.shape.d_conv);
        (weights, dbias)
    }
}

impl BackwardTile<'_> {
    /// Writes the gradients of one block before SiLU, adds to those of the weights and returns that of the
    /// bias.
    #[inline(always)]
    fn undo_silu<S: Simd>(
        &self,
        s: S,
        (filter, block): (&Filter<S>, usize),
        before: &mut [S::V],
        dweight: &mut [S::V],
    ) -> S::V {
        let mut dbias = s.zero();
        for (t, before) in before.iter_mut().enumerate() {
            let (_, slope) = math::silu_with_grad(s, filter.before_silu(s, t, block));
            *before = s.mul(slope, self.tile.load(s, &self.grad_output.y, t, block));
            dbias = s.add(dbias, *before);
            for (k, dweight) in dweight.iter_mut().enumerate() {
                *dweight = s.fma(*before, filter.input(s, t + k, block), *dweight);
            }
        }
        dbias
    }

    /// Gradients of all inputs of one block, those of the state included.
    #[inline(always)]
    fn correlate<S: Simd>(
        &self,
        s: S,
        (before, weight): (&[S::V], &[S::V]),
        (state_last, dstate): (&[S::V], &mut [S::V]),
        block: usize,
    ) {
        let memory = self.tile.memory();
        for past in 0..memory + before.len() {
            let mut sum = match past.checked_sub(before.len()) {
                Some(k) => state_last[k],
                None => s.zero(),
            };
            for (k, &weight) in weight.iter().enumerate() {
                if let Some(&before) = past.checked_sub(k).and_then(|t| before.get(t)) {
                    sum = s.fma(weight, before, sum);
                }
            }
            if let Some(dstate) = dstate.get_mut(past) {
                *dstate = sum;
            } else {
                let (row, columns) = (self.tile.row(past - memory), self.tile.block::<S>(block));
                // Safety: every tile has columns of its own.
                s.store_partial(sum, unsafe { self.x.part(row, columns) });
            }
        }
    }
}
