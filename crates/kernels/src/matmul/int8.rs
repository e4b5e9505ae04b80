//! The matrix product in 8-bit integers.
//!
//! Weights are symmetric per output, inputs symmetric per row and quantised when they arrive: `w = w_q s_w`,
//! `x = x_q s_x` with `|w_q|, |x_q| <= 127`, so that `y = s_x s_w sum x_q w_q + bias`, the sum being exact. (The scheme
//! of LLM.int8(), Dettmers et al., arXiv 2208.07339, without its outliers.) Four values of the depth lie side by side,
//! as the dot-product instructions take them.
//!
//! A single row, such as a control step's in the backbone, waits for its weights and not for the arithmetic, so its
//! input has 15 bits: words of 16 where the processor multiplies those ([`Simd::WORDS`]), or two rows of bytes, of
//! which the second is what 8 bits leave over, with a scale of its own.

use std::ops::Range;

use super::gemm::{PANEL, PANELS_AT_ONCE, WEIGHTS_AHEAD, even_height, prefetch_stream};
#[cfg(target_arch = "x86_64")]
use super::tiles::{BLOCK, Sums, TILE, Tiles};
use crate::parallel::{SharedRows, for_each};
use crate::simd::{Op, ROUND, Simd, prefetch};
use crate::{Kernels, Rows, RowsMut, Threads};

/// Depth that one lane of an instruction takes.
const GROUP: usize = 4;
/// Depths are padded to multiples of this, what a tile takes, so that no product has a tail.
const DEPTH_STEP: usize = 64;
/// Largest magnitude of a quantised value; -128 is left out, so that magnitudes have a byte to themselves.
const LARGEST: f32 = 127.0;
/// Rows that are quantised at a time.
const ROWS: usize = 16;
/// Fewer values than these are not worth a second thread.
const QUANTISE_PARALLEL_MIN: usize = 1 << 15;
/// Rows of the highest tile of vector registers.
const TILE_ROWS_MAX: usize = 12;
/// Rows of bytes that a single one is quantised to, or bytes of its words.
const SPLIT: usize = 2;
/// Steps of the second of them in one of the first.
const FINER: f32 = 128.0;
/// Groups of the depth of which words are summed in integers, at most `2^31 / (4 * 127 * 127 * 128)`.
const GROUPS_OF_WORDS: usize = 256;
/// Columns of a strip.
const STRIP: usize = 16;
/// Strips of a panel.
const STRIPS: usize = PANEL / STRIP;
/// Bytes of a cache line; a strip has one for each group of the depth.
const LINE: usize = STRIP * GROUP;
/// Rows that a product may read beyond the last one: all but one of the highest block.
const ROWS_BEYOND: usize = 31;
/// Rows from which on matrix tiles of 16 rows are faster.
#[cfg(target_arch = "x86_64")]
const MATRIX_ROWS_MIN: usize = 5;

/// A weight matrix in strips `[columns / 16, depth / 4, 16, 4]`, padded with zeros: columns to multiples of 32, the
/// depth to multiples of 64. Whatever the width of registers is, they read whole lines of the cache, one after the
/// other.
#[derive(Clone, Debug)]
pub(super) struct Int8Strips {
    data: Vec<i8>,
    /// Sum of the quantised weights of each column.
    sums: Vec<i32>,
    /// Of each column.
    scales: Vec<f32>,
}

impl Int8Strips {
    /// Quantises and packs `rows` `[columns, depth]`.
    pub(super) fn new<'a>(rows: impl ExactSizeIterator<Item = &'a [f32]>, depth: usize) -> Self {
        let columns = rows.len().next_multiple_of(PANEL);
        let data = vec![0; columns / STRIP * strip_len(depth)];
        let mut strips = Self { data, sums: vec![0; columns], scales: vec![0.0; columns] };
        for (column, row) in rows.enumerate() {
            let scale = scale_of(row.iter().fold(0.0, |largest: f32, x| largest.max(x.abs())));
            let start = column_start(column, depth);
            for (k, &x) in row.iter().enumerate() {
                let quantised = (x / scale).round_ties_even() as i8;
                strips.data[start + k / GROUP * LINE + k % GROUP] = quantised;
                strips.sums[column] += i32::from(quantised);
            }
            strips.scales[column] = scale;
        }
        strips
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len() + self.sums.len() * size_of::<i32>() + self.scales.len() * size_of::<f32>()
    }

    /// Weight `(column, k)` as it is computed with.
    pub(super) fn at(&self, column: usize, k: usize, depth: usize) -> f32 {
        let index = column_start(column, depth) + k / GROUP * LINE + k % GROUP;
        f32::from(self.data[index]) * self.scales[column]
    }
}

/// Values of one strip.
fn strip_len(depth: usize) -> usize {
    depth.next_multiple_of(DEPTH_STEP) * STRIP
}

/// Where a column begins; its next group is a line further.
fn column_start(column: usize, depth: usize) -> usize {
    column / STRIP * strip_len(depth) + column % STRIP * GROUP
}

/// The scale that maps `largest` to 127; 1 when all values are zero, or not numbers.
#[inline(always)]
fn scale_of(largest: f32) -> f32 {
    if largest > 0.0 { largest / LARGEST } else { 1.0 }
}

/// Rows in 8 bits, and the memory for them; one serves any number of products, one at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct QuantisedRows {
    /// `[rows, depth]`, the depth padded with anything to a multiple of 64; quantised values as the processor's dot
    /// product takes them. A single row has a second one behind it, or consists of words.
    data: Vec<u8>,
    /// Of each row.
    scales: Vec<f32>,
    stride: usize,
}

impl QuantisedRows {
    /// Bytes held at present.
    pub(super) fn bytes(&self) -> usize {
        self.data.capacity() + self.scales.capacity() * size_of::<f32>()
    }

    /// Quantises `rows` rows of `depth` values.
    pub(super) fn fill(&mut self, kernels: Kernels, (rows, depth): (usize, usize), x: Rows) {
        self.resize(rows, depth);
        if rows == 1 {
            let (data, scale) = (&mut self.data[..SPLIT * self.stride], &mut self.scales[0]);
            return kernels.run_int8(QuantiseFinely { x: x.row(0, depth), stride: self.stride, data, scale });
        }
        let (data, scales) = (&mut self.data, &mut self.scales);
        let data = SharedRows::new(RowsMut::new(data, self.stride));
        let scales = SharedRows::new(RowsMut::new(scales, 1));
        let threads = if rows * depth < QUANTISE_PARALLEL_MIN { Threads::One } else { kernels.threads() };
        for_each(threads, rows.div_ceil(ROWS), |piece| {
            let rows = piece * ROWS..rows.min((piece + 1) * ROWS);
            kernels.run_int8(Quantise { x, rows, depth, stride: self.stride, data: &data, scales: &scales });
        });
    }

    /// Makes room for `rows` x `depth` values and for the rows that the last tile reads beyond them.
    fn resize(&mut self, rows: usize, depth: usize) {
        self.stride = depth.next_multiple_of(DEPTH_STEP);
        let len = if rows == 1 { SPLIT * self.stride } else { (rows + ROWS_BEYOND) * self.stride };
        if self.data.len() < len {
            self.data.resize(len, 0);
        }
        if self.scales.len() < rows {
            self.scales.resize(rows, 0.0);
        }
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.data[row * self.stride..][..self.stride]
    }
}

/// Quantises the rows `rows` of `x`.
struct Quantise<'a> {
    x: Rows<'a>,
    rows: Range<usize>,
    depth: usize,
    /// Bytes of a row of `data`.
    stride: usize,
    data: &'a SharedRows<'a, u8>,
    scales: &'a SharedRows<'a>,
}

impl Op for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, rows, depth, stride, data, scales } = self;
        for row in rows {
            let values = x.row(row, depth);
            let scale = scale_of(largest(s, values));
            let inverse = s.splat(scale.recip());
            // Safety: every piece has rows of its own.
            let (bytes, to) = unsafe { (data.part(row, 0..stride), scales.part(row, 0..1)) };
            to[0] = scale;
            for (values, bytes) in values.chunks(S::LANES).zip(bytes.chunks_exact_mut(S::LANES)) {
                s.store_bytes(s.mul(s.load_partial(values), inverse), bytes);
            }
        }
    }
}

/// Quantises a single row to words, or to two rows of bytes: the values, and what is left over of them in finer steps.
struct QuantiseFinely<'a> {
    x: &'a [f32],
    /// Bytes of a row of `data`.
    stride: usize,
    /// `[2, stride]`.
    data: &'a mut [u8],
    /// Of the first row.
    scale: &'a mut f32,
}

impl Op for QuantiseFinely<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let scale = scale_of(largest(s, self.x));
        *self.scale = scale;
        let inverse = s.splat(scale.recip());
        if S::WORDS {
            for (values, words) in self.x.chunks(S::LANES).zip(self.data.chunks_exact_mut(2 * S::LANES)) {
                s.store_words(s.mul(s.mul(s.load_partial(values), inverse), s.splat(FINER)), words);
            }
            return;
        }
        let (coarse, fine) = self.data.split_at_mut(self.stride);
        let bytes = coarse.chunks_exact_mut(S::LANES).zip(fine.chunks_exact_mut(S::LANES));
        for (values, (coarse, fine)) in self.x.chunks(S::LANES).zip(bytes) {
            let steps = s.mul(s.load_partial(values), inverse);
            let nearest = s.sub(s.add(steps, s.splat(ROUND)), s.splat(ROUND));
            s.store_bytes(steps, coarse);
            s.store_bytes(s.mul(s.sub(steps, nearest), s.splat(FINER)), fine);
        }
    }
}

/// The largest magnitude of `values`.
#[inline(always)]
fn largest<S: Simd>(s: S, values: &[f32]) -> f32 {
    let largest = values.chunks(S::LANES).fold(s.zero(), |largest, values| {
        let magnitude = s.abs(s.load_partial(values));
        s.max(magnitude, largest)
    });
    s.reduce_max(largest)
}

/// The panels `panels` of a product.
pub(super) struct Int8Product<'a> {
    pub(super) x: &'a QuantisedRows,
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) weights: &'a Int8Strips,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) columns: usize,
    pub(super) y: &'a SharedRows<'a>,
    pub(super) panels: Range<usize>,
    /// Whether the kernels are those of [`Isa::Amx`](crate::Isa::Amx).
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only these processors have tiles"))]
    pub(super) amx: bool,
}

impl Op for Int8Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        #[cfg(target_arch = "x86_64")]
        if self.amx && self.rows >= MATRIX_ROWS_MIN {
            return self.in_tiles(s);
        }
        if self.rows == 1 && S::WORDS {
            for panel in self.panels.clone().step_by(PANELS_AT_ONCE) {
                match self.panels.end - panel {
                    1 => self.single_words::<S, STRIPS>(s, panel * PANEL),
                    _ => self.single_words::<S, { PANELS_AT_ONCE * STRIPS }>(s, panel * PANEL),
                }
            }
            return;
        }
        let columns = self.panels.start * PANEL..self.columns.min(self.panels.end * PANEL);
        for first in columns.step_by(2 * S::LANES) {
            if self.rows == 1 {
                self.single(s, first);
            } else {
                self.tiles(s, first);
            }
        }
    }
}

impl Int8Product<'_> {
    /// All rows, with two registers of columns, from `first` on.
    #[inline(always)]
    fn tiles<S: Simd>(&self, s: S, first: usize) {
        let (mut row, mut number) = (0, 0);
        // A tile costs what its rows cost, so the lowest that holds what is left is the best, even if it reaches beyond
        // the last row.
        while row < self.rows {
            let left = self.rows - row;
            let height = even_height(left, S::TILE_ROWS_DOT);
            let next = self.next_weights::<S>(first, number);
            number += 1;
            row += if left == 1 {
                self.tile::<S, 1>(s, row, first, next);
                1
            } else if height <= 4 || S::TILE_ROWS_DOT < 6 {
                self.tile::<S, 4>(s, row, first, next);
                4
            } else if height <= 6 || S::TILE_ROWS_DOT < TILE_ROWS_MAX {
                self.tile::<S, 6>(s, row, first, next);
                6
            } else if height <= 8 {
                self.tile::<S, 8>(s, row, first, next);
                8
            } else if height <= 10 {
                self.tile::<S, 10>(s, row, first, next);
                10
            } else {
                self.tile::<S, TILE_ROWS_MAX>(s, row, first, next);
                TILE_ROWS_MAX
            };
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize>(&self, s: S, row: usize, first: usize, next: &[i8]) {
        for row in row..self.rows.min(row + R) {
            self.y.prefetch(row, first);
            self.y.prefetch(row, first + S::LANES);
        }
        let sums = self.sums::<S, R>(s, row, first, next);
        self.write::<S, R>(s, sums, row, first);
    }

    /// What tile number `number` of the columns from `first` on prefetches, a cache line for each group of the depth:
    /// the first ones ask for the columns after those.
    #[inline(always)]
    fn next_weights<S: Simd>(&self, first: usize, number: usize) -> &[i8] {
        let start = column_start(first + 2 * S::LANES, self.depth) + number * strip_len(self.depth);
        self.weights.data.get(start..).unwrap_or_default()
    }

    /// The product of a single row, which is two quantised ones.
    #[inline(always)]
    fn single<S: Simd>(&self, s: S, first: usize) {
        let finer = s.splat(FINER.recip());
        let [coarse, fine] = self.sums::<S, SPLIT>(s, 0, first, &[]);
        for (half, (coarse, fine)) in coarse.into_iter().zip(fine).enumerate() {
            let first = first + half * S::LANES;
            if first >= self.columns {
                break;
            }
            let epilogue = self.epilogue(s, first);
            let coarse = s.unbiased(coarse, epilogue.sums);
            let sum = s.fma(s.unbiased(fine, epilogue.sums), finer, coarse);
            self.write_row(s, sum, 0, &epilogue);
        }
    }

    /// The product of a single row of words with `N` strips at once, each two registers wide, from column `first` on: a
    /// processor follows several streams of memory faster than one.
    #[inline(always)]
    fn single_words<S: Simd, const N: usize>(&self, s: S, first: usize) {
        let (groups, finer) = (self.depth.div_ceil(GROUP), s.splat(FINER.recip()));
        let x = &self.x.data[..groups * GROUP * SPLIT];
        let mut strips: [&[[i8; LINE]]; N] = [&[]; N];
        for (n, strip) in strips.iter_mut().enumerate() {
            let start = column_start(first + n * STRIP, self.depth);
            *strip = &self.weights.data[start..start + groups * LINE].as_chunks().0[..groups];
        }
        for n in N..2 * N {
            prefetch_stream(&self.weights.data, column_start(first + n * STRIP, self.depth));
        }
        let mut all = [[s.zero(); 2]; N];
        for piece in (0..groups).step_by(GROUPS_OF_WORDS) {
            let mut sums = [[s.splat_i32(0); 2]; N];
            for k in piece..groups.min(piece + GROUPS_OF_WORDS) {
                let x = &x[k * GROUP * SPLIT..][..GROUP * SPLIT];
                for (sums, strip) in sums.iter_mut().zip(&strips) {
                    // Not beyond the strip: there is the next one, which is read at the same time.
                    prefetch(strip, k + WEIGHTS_AHEAD / LINE);
                    // Safety: `k` counts the groups, and a strip has a line for each.
                    let (low, high) = unsafe { strip.get_unchecked(k) }.split_at(LINE / 2);
                    *sums = [s.dot4_words(sums[0], x, low), s.dot4_words(sums[1], x, high)];
                }
            }
            for (all, sums) in all.iter_mut().zip(sums) {
                for (all, sum) in all.iter_mut().zip(sums) {
                    *all = s.fma(s.unbiased(sum, s.splat_i32(0)), finer, *all);
                }
            }
        }
        for (half, sum) in all.into_iter().flatten().enumerate() {
            let first = first + half * S::LANES;
            if first < self.columns {
                self.write_row(s, sum, 0, &self.epilogue(s, first));
            }
        }
    }

    /// The lines of two registers of columns, from `first` on, and where in each line a register begins.
    #[inline(always)]
    fn lines<S: Simd>(&self, first: usize) -> [(&[[i8; LINE]], usize); 2] {
        [first, first + S::LANES].map(|column| {
            let strip = &self.weights.data[column / STRIP * strip_len(self.depth)..];
            (strip[..self.depth.div_ceil(GROUP) * LINE].as_chunks().0, column % STRIP * GROUP)
        })
    }

    /// Integer products of `R` rows with two registers of columns.
    #[inline(always)]
    fn sums<S: Simd, const R: usize>(&self, s: S, row: usize, first: usize, next: &[i8]) -> [[S::I; 2]; R] {
        let groups = self.depth.div_ceil(GROUP);
        // No closures here: one that is not inlined lacks the instruction set, and its loads become calls.
        let mut rows: [&[u8]; R] = [&[]; R];
        for (r, x) in rows.iter_mut().enumerate() {
            *x = &self.x.row(row + r)[..groups * GROUP];
        }
        let [low, high] = self.lines::<S>(first);
        let mut sums = [[s.splat_i32(0); 2]; R];
        for (k, (low_line, high_line)) in low.0.iter().zip(high.0).enumerate() {
            if R > 4 {
                prefetch(next, k * LINE);
            }
            let weights = [s.load_bytes(&low_line[low.1..]), s.load_bytes(&high_line[high.1..])];
            for (sums, x) in sums.iter_mut().zip(&rows) {
                // Safety: `k` counts the groups, and each row has four bytes for every one.
                let x = s.splat_i32(i32::from_le_bytes(unsafe { x.as_ptr().cast::<[u8; GROUP]>().add(k).read() }));
                *sums = [s.dot4(sums[0], x, weights[0]), s.dot4(sums[1], x, weights[1])];
            }
        }
        sums
    }

    /// The product on matrix tiles.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn in_tiles<S: Simd>(&self, s: S) {
        // Safety: `amx` says that there are tiles.
        let tiles = unsafe { Tiles::new() };
        let steps = self.depth.div_ceil(DEPTH_STEP);
        let mut sums = Sums([[0; BLOCK]; BLOCK]);
        let len = strip_len(self.depth);
        for panel in self.panels.clone() {
            let weights = [0, 1].map(|strip| self.weights.data[(2 * panel + strip) * len..][..len].as_ptr());
            for row in (0..self.rows).step_by(BLOCK) {
                let rows = BLOCK.min(self.rows - row);
                let x = &self.x.data[row * self.x.stride..][..rows.next_multiple_of(TILE) * self.x.stride];
                let x = (x.as_ptr(), self.x.stride);
                // Safety: the slices are as long as a block needs.
                unsafe {
                    if rows <= TILE {
                        tiles.product::<true>(x, weights, steps, &mut sums);
                    } else {
                        tiles.product::<false>(x, weights, steps, &mut sums);
                    }
                }
                self.write_block(s, &sums, row..row + rows, panel * PANEL);
            }
        }
    }

    /// Writes the sums of `rows` and of the panel that begins with column `first`.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn write_block<S: Simd>(&self, s: S, sums: &Sums, rows: Range<usize>, first: usize) {
        for offset in (0..PANEL).step_by(S::LANES) {
            let first = first + offset;
            if first >= self.columns {
                break;
            }
            let epilogue = self.epilogue(s, first);
            for (row, sums) in rows.clone().zip(&sums.0) {
                self.write_row(s, s.unbiased(s.load_i32(&sums[offset..]), epilogue.sums), row, &epilogue);
            }
        }
    }

    /// What the columns from `first` on, at most a register of them, make of integer sums.
    #[inline(always)]
    fn epilogue<S: Simd>(&self, s: S, first: usize) -> Epilogue<S> {
        let columns = first..self.columns.min(first + S::LANES);
        Epilogue {
            sums: s.load_i32(&self.weights.sums[first..]),
            scales: s.load(&self.weights.scales[first..]),
            bias: self.bias.map_or(s.zero(), |bias| s.load_partial(&bias[columns.clone()])),
            columns,
        }
    }

    #[inline(always)]
    fn write_row<S: Simd>(&self, s: S, sums: S::V, row: usize, epilogue: &Epilogue<S>) {
        let scale = s.mul(epilogue.scales, s.splat(self.x.scales[row]));
        let y = s.fma(sums, scale, epilogue.bias);
        // Safety: every piece of the product has columns of its own.
        s.store_partial(y, unsafe { self.y.part(row, epilogue.columns.clone()) });
    }

    #[inline(always)]
    fn write<S: Simd, const R: usize>(&self, s: S, sums: [[S::I; 2]; R], row: usize, first: usize) {
        for half in 0..2 {
            let first = first + half * S::LANES;
            if first >= self.columns {
                break;
            }
            let epilogue = self.epilogue(s, first);
            for (r, sums) in sums.iter().enumerate().take(self.rows - row) {
                self.write_row(s, s.unbiased(sums[half], epilogue.sums), row + r, &epilogue);
            }
        }
    }
}

/// Turns the integer sums of a register of columns into outputs.
struct Epilogue<S: Simd> {
    /// Sums of the quantised weights.
    sums: S::I,
    scales: S::V,
    bias: S::V,
    columns: Range<usize>,
}
