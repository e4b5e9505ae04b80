//! The matrix product in 8-bit integers.
//!
//! Weights are symmetric per output, inputs symmetric per row and quantised when they arrive: `w = w_q s_w`,
//! `x = x_q s_x` with `|w_q|, |x_q| <= 127`, so that `y = s_x s_w sum x_q w_q + bias`, the sum being exact. (The scheme
//! of LLM.int8(), Dettmers et al., arXiv 2208.07339, without its outliers.) Four values of the depth lie side by side,
//! as the dot-product instructions take them.
//!
//! A single row, such as a control step's in the trunk, waits for its weights and not for the arithmetic, so its input has 15 bits: words of 16 where the
//! processor multiplies those ([`Simd::WORDS`]), or two rows of bytes, of which the second is what 8 bits leave over, with a scale of its own.

use std::ops::Range;

use super::gemm::{PANEL, WEIGHTS_AHEAD, even_height, is_narrow};
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
/// Groups of the depth of which words are summed in integers, at most `2^31 / (4 * 127 * 127 * 128)`.
const GROUPS_OF_WORDS: usize = 256;
/// Bytes of a line of the cache.
const LINE: usize = 64;
/// Steps of the second of them in one of the first.
const FINER: f32 = 128.0;
/// Rows that a product may read beyond the last one: all but one of the highest block.
const ROWS_BEYOND: usize = 31;
/// Rows from which on matrix tiles are worth their 16 rows.
#[cfg(target_arch = "x86_64")]
const MATRIX_ROWS_MIN: usize = 5;

/// A weight matrix in panels `[columns / 32, depth / 4, 32, 4]`, padded with zeros: columns to multiples of 32, the depth to
/// multiples of 64.
#[derive(Clone, Debug)]
pub(super) struct Int8Panels {
    data: Vec<i8>,
    /// Sum of the quantised weights of each column.
    sums: Vec<i32>,
    /// Of each column.
    scales: Vec<f32>,
}

impl Int8Panels {
    /// Quantises and packs `rows` `[columns, depth]`.
    pub(super) fn new<'a>(rows: impl ExactSizeIterator<Item = &'a [f32]>, depth: usize) -> Self {
        let columns = rows.len().next_multiple_of(PANEL);
        let stride = panel_len(depth);
        let mut panels =
            Self { data: vec![0; columns / PANEL * stride], sums: vec![0; columns], scales: vec![0.0; columns] };
        for (column, row) in rows.enumerate() {
            let scale = scale_of(row.iter().fold(0.0, |largest: f32, x| largest.max(x.abs())));
            let panel = &mut panels.data[column / PANEL * stride..][..stride];
            for (k, &x) in row.iter().enumerate() {
                let quantised = (x / scale).round_ties_even() as i8;
                panel[(k / GROUP * PANEL + column % PANEL) * GROUP + k % GROUP] = quantised;
                panels.sums[column] += i32::from(quantised);
            }
            panels.scales[column] = scale;
        }
        panels
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len() + self.sums.len() * size_of::<i32>() + self.scales.len() * size_of::<f32>()
    }

    /// Weight `(column, k)` as it is computed with.
    pub(super) fn at(&self, column: usize, k: usize, depth: usize) -> f32 {
        let stride = panel_len(depth);
        let index = column / PANEL * stride + (k / GROUP * PANEL + column % PANEL) * GROUP + k % GROUP;
        f32::from(self.data[index]) * self.scales[column]
    }
}

/// Values of one panel.
fn panel_len(depth: usize) -> usize {
    depth.next_multiple_of(DEPTH_STEP) * PANEL
}

/// The scale that maps `largest` to 127; 1 when all values are zero, or not numbers.
#[inline(always)]
fn scale_of(largest: f32) -> f32 {
    if largest > 0.0 { largest / LARGEST } else { 1.0 }
}

/// Rows in 8 bits, and the memory for them; one serves any number of products, one at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct QuantisedRows {
    /// `[rows, depth]`, the depth padded with anything to a multiple of 64; quantised values as the processor's dot product takes them. A single row
    /// has a second one behind it, or consists of words.
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
            return kernels.run(QuantiseFinely { x: x.row(0, depth), stride: self.stride, data, scale });
        }
        let (data, scales) = (&mut self.data, &mut self.scales);
        let data = SharedRows::new(RowsMut::new(data, self.stride));
        let scales = SharedRows::new(RowsMut::new(scales, 1));
        let threads = if rows * depth < QUANTISE_PARALLEL_MIN { Threads::One } else { kernels.threads() };
        for_each(threads, rows.div_ceil(ROWS), |piece| {
            let rows = piece * ROWS..rows.min((piece + 1) * ROWS);
            kernels.run(Quantise { x, rows, depth, stride: self.stride, data: &data, scales: &scales });
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
    pub(super) weights: &'a Int8Panels,
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
            // A whole panel at a time, so that weights are read in the order in which they lie.
            return match PANEL / S::LANES {
                2 => self.single_words::<S, 2>(s),
                4 => self.single_words::<S, 4>(s),
                _ => self.single_words::<S, 8>(s),
            };
        }
        if self.rows == 1 {
            return self.single(s);
        }
        for panel in self.panels.clone() {
            let (mut row, mut tile) = (0, 0);
            // A tile costs what its rows cost, so the lowest that holds what is left is the best, even if it reaches
            // beyond the last row.
            while row < self.rows {
                let left = self.rows - row;
                let height = even_height(left, S::TILE_ROWS_DOT);
                let next = self.next_weights(panel, tile);
                tile += 1;
                row += if left == 1 {
                    self.strips::<S, 1>(s, row, panel, next);
                    1
                } else if height <= 4 || S::TILE_ROWS_DOT < 6 {
                    self.strips::<S, 4>(s, row, panel, next);
                    4
                } else if height <= 6 || S::TILE_ROWS_DOT < TILE_ROWS_MAX {
                    self.strips::<S, 6>(s, row, panel, next);
                    6
                } else if height <= 8 {
                    self.strips::<S, 8>(s, row, panel, next);
                    8
                } else if height <= 10 {
                    self.strips::<S, 10>(s, row, panel, next);
                    10
                } else {
                    self.strips::<S, TILE_ROWS_MAX>(s, row, panel, next);
                    TILE_ROWS_MAX
                };
            }
        }
    }
}

impl Int8Product<'_> {
    #[inline(always)]
    fn strips<S: Simd, const R: usize>(&self, s: S, row: usize, panel: usize, next: &[i8]) {
        for offset in (0..PANEL).step_by(2 * S::LANES) {
            let first = panel * PANEL + offset;
            if first < self.columns {
                for row in row..self.rows.min(row + R) {
                    self.y.prefetch(row, first);
                    self.y.prefetch(row, first + S::LANES);
                }
                let sums = self.sums::<S, R>(s, row, (panel, offset), next);
                self.write::<S, R>(s, sums, row, first);
            }
        }
    }

    /// The part of the panel after `panel` that tile number `tile` of this one asks for, a line for each group of the depth.
    #[inline(always)]
    fn next_weights(&self, panel: usize, tile: usize) -> &[i8] {
        let first = (panel + 1) * panel_len(self.depth) + tile * self.depth.div_ceil(GROUP) * LINE;
        self.weights.data.get(first..).unwrap_or_default()
    }

    /// The product of a single row, which is two quantised ones.
    #[inline(always)]
    fn single<S: Simd>(&self, s: S) {
        let finer = s.splat(FINER.recip());
        for panel in self.panels.clone() {
            for offset in (0..PANEL).step_by(2 * S::LANES) {
                let first = panel * PANEL + offset;
                if first >= self.columns {
                    break;
                }
                let [coarse, fine] = self.sums::<S, SPLIT>(s, 0, (panel, offset), &[]);
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
        }
    }

    /// The product of a single row of words, `C` registers of columns, a panel, at a time.
    #[inline(always)]
    fn single_words<S: Simd, const C: usize>(&self, s: S) {
        let (groups, finer) = (self.depth.div_ceil(GROUP), s.splat(FINER.recip()));
        let x = &self.x.data[..groups * GROUP * SPLIT];
        for panel in self.panels.clone() {
            let start = panel * panel_len(self.depth);
            let weights = &self.weights.data[start..][..groups * GROUP * PANEL];
            let mut all = [s.zero(); C];
            for first in (0..groups).step_by(GROUPS_OF_WORDS) {
                let mut sums = [[s.splat_i32(0); 2]; C];
                for k in first..groups.min(first + GROUPS_OF_WORDS) {
                    if is_narrow::<S>() {
                        prefetch(&self.weights.data, start + k * GROUP * PANEL + WEIGHTS_AHEAD);
                        prefetch(&self.weights.data, start + k * GROUP * PANEL + WEIGHTS_AHEAD + LINE);
                    }
                    let (x, weights) =
                        (&x[k * GROUP * SPLIT..][..GROUP * SPLIT], &weights[k * GROUP * PANEL..][..GROUP * PANEL]);
                    for (c, sums) in sums.iter_mut().enumerate() {
                        *sums = s.dot4_words(*sums, x, &weights[c * S::LANES * GROUP..]);
                    }
                }
                for (all, sums) in all.iter_mut().zip(sums) {
                    *all = s.fma(s.unbiased(s.total(sums), s.splat_i32(0)), finer, *all);
                }
            }
            for (c, sum) in all.into_iter().enumerate() {
                let first = panel * PANEL + c * S::LANES;
                if first < self.columns {
                    self.write_row(s, sum, 0, &self.epilogue(s, first));
                }
            }
        }
    }

    /// Integer products of `R` rows with two registers of columns.
    #[inline(always)]
    fn sums<S: Simd, const R: usize>(
        &self,
        s: S,
        row: usize,
        (panel, offset): (usize, usize),
        next: &[i8],
    ) -> [[S::I; 2]; R] {
        let groups = self.depth.div_ceil(GROUP);
        let panel = &self.weights.data[panel * panel_len(self.depth)..][..groups * GROUP * PANEL];
        // No closures here: one that is not inlined lacks the instruction set, and its loads become calls.
        let mut rows: [&[u8]; R] = [&[]; R];
        for (r, x) in rows.iter_mut().enumerate() {
            *x = &self.x.row(row + r)[..groups * GROUP];
        }
        let mut sums = [[s.splat_i32(0); 2]; R];
        for (k, weights) in panel.chunks_exact(GROUP * PANEL).enumerate() {
            if R > 4 {
                prefetch(next, k * LINE);
            }
            let second = &weights[(offset + S::LANES) * GROUP..];
            let weights = [s.load_bytes(&weights[offset * GROUP..]), s.load_bytes(second)];
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
        let len = panel_len(self.depth);
        for panel in self.panels.clone() {
            let weights = &self.weights.data[panel * len..][..len];
            for row in (0..self.rows).step_by(BLOCK) {
                let rows = BLOCK.min(self.rows - row);
                let x = &self.x.data[row * self.x.stride..][..rows.next_multiple_of(TILE) * self.x.stride];
                let (x, weights) = ((x.as_ptr(), self.x.stride), weights.as_ptr());
                // Safety: both slices are as long as a block asks for.
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
