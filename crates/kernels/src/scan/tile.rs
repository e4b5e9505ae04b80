//! What the forward and the backward pass share: how a scan is cut into tiles of channels and chunks of
//! steps, and how a tile is laid out for the registers.
//!
//! Inside a tile, a *block* is one register of channels. Rates and states lie as `[block, d_state]`
//! registers, per-step values as `[block, CHUNK]` registers.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::ScanShape;
use crate::Rows;
use crate::simd::layout::load_transposed;
use crate::simd::{MAX_LANES, Simd, math, prefetch};

/// Steps between two checkpoints of the state, and steps that are worked on at a time.
pub(super) const CHUNK: usize = 16;

/// Channels that are worked on at a time, a multiple of every register's lanes. Fixed, so that results do
/// not depend on the number of threads.
const TILE: usize = 256;

/// One tile of channels of one batch element.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) shape: ScanShape,
    pub(super) batch: usize,
    first: usize,
    last: usize,
    index: usize,
}

impl Tile {
    /// Tiles of a whole scan.
    pub(super) fn count(shape: &ScanShape) -> usize {
        shape.batch * shape.d_inner.div_ceil(TILE)
    }

    /// Tile number `index` of `count`.
    pub(super) fn new(shape: ScanShape, index: usize) -> Self {
        let tiles = shape.d_inner.div_ceil(TILE);
        let first = index % tiles * TILE;
        Self { shape, batch: index / tiles, first, last: (first + TILE).min(shape.d_inner), index }
    }

    /// Its channels.
    pub(super) fn columns(&self) -> Range<usize> {
        self.first..self.last
    }

    /// Its part of a state `[batch, d_inner, d_state]`.
    pub(super) fn states(&self) -> Range<usize> {
        let d_state = self.shape.d_state;
        let first = self.batch * self.shape.d_inner + self.first;
        first * d_state..(first + self.last - self.first) * d_state
    }

    /// The row of step `t`.
    pub(super) fn row(&self, t: usize) -> usize {
        self.batch * self.shape.seq_len + t
    }

    /// Registers that hold its channels.
    pub(super) fn blocks<S: Simd>(&self) -> usize {
        (self.last - self.first).div_ceil(S::LANES)
    }

    /// Channels of one block; the last may have fewer than a register has lanes.
    #[inline(always)]
    pub(super) fn block<S: Simd>(&self, block: usize) -> Range<usize> {
        let first = self.first + block * S::LANES;
        first..(first + S::LANES).min(self.last)
    }

    /// The value of one block at one row of a sequence tensor.
    #[inline(always)]
    pub(super) fn load<S: Simd>(&self, s: S, rows: &Rows, row: usize, block: usize) -> S::V {
        let columns = self.block::<S>(block);
        s.load_partial(&rows.data[row * rows.stride..][columns])
    }

    /// Prefetches one block of some rows; rows beyond the data are ignored.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(&self, data: &Rows, rows: Range<usize>, block: usize) {
        let first = rows.start * data.stride + self.first + block * S::LANES;
        for i in 0..rows.len() {
            prefetch(data.data, first + i * data.stride);
        }
    }

    /// Its part of a parameter `[d_inner]`, one register per block.
    #[inline(always)]
    pub(super) fn load_channels<S: Simd>(&self, s: S, values: &[f32]) -> Vec<S::V> {
        (0..self.blocks::<S>()).map(|block| s.load_partial(&values[self.block::<S>(block)])).collect()
    }

    /// Values of checkpoint per tile, the same for all tiles.
    pub(super) fn checkpoint_len(shape: &ScanShape) -> usize {
        let channels = TILE.min(shape.d_inner.next_multiple_of(MAX_LANES));
        shape.seq_len.div_ceil(CHUNK) * channels * shape.d_state
    }

    /// The checkpoint of the state before chunk `chunk`, within all checkpoints.
    pub(super) fn checkpoint<S: Simd>(&self, chunk: usize) -> Range<usize> {
        let len = Self::checkpoint_len(&self.shape);
        let per_chunk = len / self.shape.seq_len.div_ceil(CHUNK);
        let first = self.index * len + chunk * per_chunk;
        first..first + self.blocks::<S>() * self.shape.d_state * S::LANES
    }
}

/// The decay rates `-exp(A_log) log2 e` of a tile, so that `exp(delta A) = exp2(delta rate)`.
#[inline(always)]
pub(super) fn load_rates<S: Simd>(s: S, a_log: &[f32], d_state: usize) -> Vec<S::V> {
    let mut rates = load_transposed(s, a_log, d_state);
    for rate in &mut rates {
        *rate = s.mul(s.splat(-LOG2_E), math::exp(s, *rate));
    }
    rates
}

/// Copies registers to plain memory.
#[inline(always)]
pub(super) fn store_registers<S: Simd>(s: S, registers: &[S::V], values: &mut [f32]) {
    for (&register, values) in registers.iter().zip(values.chunks_exact_mut(S::LANES)) {
        s.store(register, values);
    }
}

/// Runs `$body::<S, N>` with the largest number `N` of states that fits the registers (at most `$most`)
/// and what is left, until all `$d_state` states are done. `$n` is the first state of the group.
macro_rules! for_state_groups {
    ($d_state:expr, $most:expr, $n:ident, $body:ident::<$simd:ident>($($arg:expr),* $(,)?)) => {
        let mut $n = 0;
        while $n < $d_state {
            let left = $d_state - $n;
            if $most >= 16 && left >= 16 {
                $body::<$simd, 16>($($arg),*);
                $n += 16;
            } else if $most >= 8 && left >= 8 {
                $body::<$simd, 8>($($arg),*);
                $n += 8;
            } else if left >= 4 {
                $body::<$simd, 4>($($arg),*);
                $n += 4;
            } else {
                $body::<$simd, 1>($($arg),*);
                $n += 1;
            }
        }
    };
}
pub(super) use for_state_groups;
