//! Products of factors in bf16: values are rounded when they arrive, their products are summed in f32.
//!
//! The mixed precision of Micikevicius et al., arXiv 1710.03740, with the format of Kalamkar et al., arXiv 1905.12322.
//! Two successive values of the depth lie in a word, as the dot-product instructions take them; an odd depth is filled
//! up with zeros.

use std::cell::Cell;
use std::ops::Range;
use std::thread::LocalKey;

use super::gemm::{Element, Left, PANEL};
use super::pack::{Pack, column_stride, grow};
use crate::parallel::{SharedRows, for_each};
use crate::simd::{MAX_LANES, Op, Simd};
use crate::{Kernels, Rows, RowsMut, Threads};

/// Rows that are rounded at a time.
const STRIPE: usize = 16;
/// Fewer values than these are not worth a second thread.
const PARALLEL_MIN: usize = 1 << 15;

/// Two successive values of the depth as bf16, the first in the lower half.
pub(crate) type Pair = i32;

impl Element for Pair {
    type Register<S: Simd> = S::I;
    const VALUES: usize = 2;

    #[inline]
    fn run<O: Op>(kernels: Kernels, op: O) -> O::Output {
        kernels.run_bf16(op)
    }

    #[inline(always)]
    fn tile_rows<S: Simd>() -> usize {
        S::TILE_ROWS_DOT
    }

    #[inline(always)]
    fn splat<S: Simd>(s: S, x: Self) -> S::I {
        s.splat_i32(x)
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, src: &[Self]) -> S::I {
        s.load_i32(src)
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(s: S, a: S::I, b: S::I, acc: S::V) -> S::V {
        s.dot2(acc, a, b)
    }
}

impl Pack for Pair {
    fn rooms() -> &'static LocalKey<Cell<[Vec<Self>; 2]>> {
        thread_local! {
            static ROOMS: Cell<[Vec<Pair>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
        }
        &ROOMS
    }

    fn left_len(rows: usize, depth: usize) -> usize {
        (rows * row_stride(depth)).max(Self::depth(depth) * column_stride(rows))
    }

    #[inline(always)]
    fn left<'a, S: Simd>(s: S, values: Left<'a>, room: &'a mut [Self]) -> Left<'a, Self> {
        let Left { data, rows, depth, row_stride: across, depth_stride: along } = values;
        let pairs = Self::depth(depth);
        if along == 1 {
            let stride = row_stride(depth);
            for (row, words) in room.chunks_exact_mut(stride.max(1)).take(rows).enumerate() {
                round_row(s, &data[row * across..][..depth], words);
            }
            return Left { data: room, rows, depth: pairs, row_stride: stride, depth_stride: 1 };
        }
        let panel = column_stride(rows);
        let words = SharedRows::flat(room);
        for pair in 0..pairs {
            let rows = pair_of_rows(Rows::strided(data, along), (depth, rows), pair);
            // Safety: nobody else has the room.
            unsafe { zip_rows(s, rows, (pair, pairs), panel, &words) };
        }
        Left { data: room, rows, depth: pairs, row_stride: 1, depth_stride: panel }
    }

    #[inline(always)]
    fn pack<'a, S: Simd>(s: S, mut rows: impl Iterator<Item = &'a [f32]>, depth: usize, panels: &mut [Self]) {
        let words = SharedRows::flat(panels);
        for pair in 0..Self::depth(depth) {
            let rows = [rows.next().unwrap_or_default(), rows.next().unwrap_or_default()];
            // Safety: the panels are borrowed mutably.
            unsafe { zip_rows(s, rows, (pair, Self::depth(depth)), PANEL, &words) };
        }
    }

    #[inline(always)]
    fn round<S: Simd>(s: S, values: &[f32], words: &mut [i32]) {
        let (low, high) = values.split_at(values.len().min(S::LANES));
        let (low_words, high_words) = words.split_at_mut(S::LANES / 2);
        s.store_bf16(s.load_partial(low), low_words);
        s.store_bf16(s.load_partial(high), high_words);
    }

    fn words(elements: &mut [Self]) -> &mut [i32] {
        elements
    }
}

/// Words from one row of a left factor to the next.
fn row_stride(depth: usize) -> usize {
    Pair::depth(depth).next_multiple_of(MAX_LANES / 2)
}

/// Rounds a row of a left factor.
#[inline(always)]
fn round_row<S: Simd>(s: S, values: &[f32], words: &mut [Pair]) {
    for (values, words) in values.chunks(S::LANES).zip(words.chunks_exact_mut(S::LANES / 2)) {
        s.store_bf16(s.load_partial(values), words);
    }
}

/// The rows `2 * pair` and `2 * pair + 1` of `x` `[depth, width]`; the second is empty where there is none.
#[inline(always)]
fn pair_of_rows<'a>(x: Rows<'a>, (depth, width): (usize, usize), pair: usize) -> [&'a [f32]; 2] {
    [x.row(2 * pair, width), if 2 * pair + 1 < depth { x.row(2 * pair + 1, width) } else { &[] }]
}

/// Rounds two successive rows of a factor into the words of `pair` of panels `[width / panel, n_pair, panel]`.
///
/// # Safety
/// Nothing else may use these words meanwhile.
#[inline(always)]
unsafe fn zip_rows<S: Simd>(
    s: S,
    [low, high]: [&[f32]; 2],
    (pair, n_pair): (usize, usize),
    panel: usize,
    words: &SharedRows<Pair>,
) {
    for column in (0..low.len()).step_by(S::LANES) {
        let end = column + S::LANES;
        let (low, high) = (&low[column..end.min(low.len())], &high[column.min(high.len())..end.min(high.len())]);
        let first = (column / panel * n_pair + pair) * panel + column % panel;
        // Safety: the caller's promise.
        let words = unsafe { words.part(0, first..first + S::LANES) };
        s.store_i32(s.zip_bf16(s.load_partial(low), s.load_partial(high)), words);
    }
}

/// Rows of a left factor in bf16, and the memory for them; one serves any number of products, one at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct RoundedRows {
    words: Vec<Pair>,
}

impl RoundedRows {
    /// Bytes held at present.
    pub(super) fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<Pair>()
    }

    /// Rounds `x` `[rows, depth]`.
    pub(super) fn fill(&mut self, kernels: Kernels, (rows, depth): (usize, usize), x: Rows) -> Left<'_, Pair> {
        let stride = row_stride(depth);
        grow(&mut self.words, rows * stride);
        let words = SharedRows::new(RowsMut::new(&mut self.words, stride));
        in_stripes(kernels, rows, depth, |rows| {
            kernels.run_bf16(RoundRows { x, rows, depth, words: &words });
        });
        Left { data: &self.words, rows, depth: Pair::depth(depth), row_stride: stride, depth_stride: 1 }
    }
}

/// Weight `(column, k)` of packed panels.
pub(super) fn at(panels: &[Pair], column: usize, k: usize, depth: usize) -> f32 {
    let word = panels[(column / PANEL * Pair::depth(depth) + k / 2) * PANEL + column % PANEL].cast_unsigned();
    f32::from_bits(if k.is_multiple_of(2) { word << 16 } else { word & 0xffff_0000 })
}

/// Calls `work` with ranges that together are `0..count`, each of which is about `width` values.
fn in_stripes(kernels: Kernels, count: usize, width: usize, work: impl Fn(Range<usize>) + Send + Sync) {
    let threads = if count * width < PARALLEL_MIN { Threads::One } else { kernels.threads() };
    for_each(threads, count.div_ceil(STRIPE), |stripe| work(stripe * STRIPE..count.min((stripe + 1) * STRIPE)));
}

/// Rounds the rows `rows` of `x` as a left factor.
struct RoundRows<'a> {
    x: Rows<'a>,
    rows: Range<usize>,
    depth: usize,
    words: &'a SharedRows<'a, Pair>,
}

impl Op for RoundRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.rows {
            // Safety: every stripe has rows of its own.
            let words = unsafe { self.words.part(row, 0..row_stride(self.depth)) };
            round_row(s, self.x.row(row, self.depth), words);
        }
    }
}
