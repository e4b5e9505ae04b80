//! The matrix product on packed panels.
//!
//! After BLIS (Van Zee and van de Geijn 2015): a tile of the output stays in registers while a panel of
//! weights, `[depth, 32]`, streams by; the depth is cut so that a panel's piece stays in cache
//! for all tiles of rows. A panel is as wide as two AVX-512 registers; narrower registers take it in
//! strips of two.

use std::ops::Range;

use super::Pair;
use crate::Kernels;
use crate::parallel::SharedRows;
use crate::simd::{Op, Simd, prefetch};

/// Columns of a panel.
pub(crate) const PANEL: usize = 32;

/// Panels that a single row is multiplied with at once, as parallel streams of memory.
pub(super) const PANELS_AT_ONCE: usize = 2;

/// Prefetch distance within a stream of weights in bytes.
pub(super) const WEIGHTS_AHEAD: usize = 512;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Bytes prefetched at the start of the next stream, which the hardware prefetcher does not foresee.
const STREAM_START: usize = 256;

/// Depth of a panel's piece that stays in the first-level cache: 32 KiB.
const DEPTH: usize = 256;
/// The same where registers are narrow. The piece stays in the second-level cache, since reloading sums costs more
/// there.
const DEPTH_NARROW: usize = 768;

/// A matrix `[rows, depth]` with any strides, the left factor.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a, E = f32> {
    pub(crate) data: &'a [E],
    pub(crate) rows: usize,
    pub(crate) depth: usize,
    pub(crate) row_stride: usize,
    pub(crate) depth_stride: usize,
}

/// A matrix `[depth, columns]` in panels `[columns / 32, depth, 32]`, the right factor.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a, E = f32> {
    pub(crate) panels: &'a [E],
    pub(crate) columns: usize,
}

/// Element of a packed factor: one value of the depth, or several successive ones.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// A register of elements.
    type Register<S: Simd>: Copy;
    /// Values of the depth in one.
    const VALUES: usize;

    /// Runs an operation on such factors.
    fn run<O: Op>(kernels: Kernels, op: O) -> O::Output;
    /// Elements that hold a depth of so many values.
    fn depth(values: usize) -> usize {
        values.div_ceil(Self::VALUES)
    }
    /// Rows of a tile.
    fn tile_rows<S: Simd>() -> usize;
    fn splat<S: Simd>(s: S, x: Self) -> Self::Register<S>;
    /// The first lanes of `src`, which must be long enough.
    fn load<S: Simd>(s: S, src: &[Self]) -> Self::Register<S>;
    /// `acc + a b`, lane by lane.
    fn multiply_add<S: Simd>(s: S, a: Self::Register<S>, b: Self::Register<S>, acc: S::V) -> S::V;
}

impl Element for f32 {
    type Register<S: Simd> = S::V;
    const VALUES: usize = 1;

    #[inline]
    fn run<O: Op>(kernels: Kernels, op: O) -> O::Output {
        kernels.run(op)
    }

    #[inline(always)]
    fn tile_rows<S: Simd>() -> usize {
        S::TILE_ROWS
    }

    #[inline(always)]
    fn splat<S: Simd>(s: S, x: Self) -> S::V {
        s.splat(x)
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, src: &[Self]) -> S::V {
        s.load(src)
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(s: S, a: S::V, b: S::V, acc: S::V) -> S::V {
        s.fma(a, b, acc)
    }
}

/// Values of packed panels.
pub(crate) fn packed_len(depth: usize, columns: usize) -> usize {
    columns.div_ceil(PANEL) * PANEL * depth
}

/// How a product treats the earlier contents of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Overwrites them.
    Set,
    /// Adds to them.
    Add,
}

/// The output `[rows, columns]` of a product, as part of something larger.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    pub(crate) rows: &'a SharedRows<'a>,
    pub(crate) first_row: usize,
    pub(crate) first_column: usize,
    pub(crate) write: Write,
}

impl<'a> Output<'a> {
    /// All of `rows`, overwritten.
    pub(crate) fn whole(rows: &'a SharedRows<'a>) -> Self {
        Self { rows, first_row: 0, first_column: 0, write: Write::Set }
    }
}

/// Writes `left right + bias` to the output, or adds it there, for the panels `panels` only.
///
/// # Safety
/// Nothing else may use these columns of the output meanwhile.
#[inline(always)]
pub(crate) unsafe fn product<S: Simd, E: Element>(
    s: S,
    (left, right): (&Left<E>, &Right<E>),
    bias: Option<&[f32]>,
    output: Output,
    panels: Range<usize>,
) {
    let last = left.rows.saturating_sub(1) * left.row_stride + left.depth.saturating_sub(1) * left.depth_stride;
    assert!(left.rows == 0 || left.depth == 0 || last < left.data.len(), "left factor");
    assert!(right.panels.len() >= packed_len(left.depth, right.columns), "right factor");
    // Few rows use a piece of a panel only once, so there the weights had better stream straight through.
    let depth = if left.rows < E::tile_rows::<S>() {
        left.depth.max(1)
    } else if is_narrow::<S>() {
        DEPTH_NARROW
    } else {
        DEPTH
    };
    let mut start = 0;
    loop {
        let piece = start..left.depth.min(start + depth);
        let mut job = Strip { left, right, bias, output, depth: piece.clone(), panel: panels.start };
        while job.panel < panels.end {
            // Safety: the bounds were checked above; the rest is the caller's promise.
            job.panel += unsafe {
                if left.rows == 1 {
                    single_row(s, &job, panels.end - job.panel)
                } else {
                    panel_product(s, &job);
                    1
                }
            };
        }
        start = piece.end;
        if start == left.depth {
            break;
        }
    }
}

/// Values of the depth that are widened at a time: with a panel's 32 columns 32 KiB, a piece that stays in cache.
const DEPTH_WIDENED: usize = 256;

/// [`product`] of `left` in f32 and `right` in bf16, whose panels are widened piece by piece.
///
/// # Safety
/// As [`product`].
#[inline(always)]
pub(crate) unsafe fn widened_product<S: Simd>(
    s: S,
    (left, right): (&Left<f32>, &Right<Pair>),
    bias: Option<&[f32]>,
    output: Output,
    panels: Range<usize>,
) {
    let mut widened = [0.0; DEPTH_WIDENED * PANEL];
    let pairs = Pair::depth(left.depth);
    for panel in panels {
        let columns = (right.columns - panel * PANEL).min(PANEL);
        let mut start = 0;
        loop {
            let depth = start..left.depth.min(start + DEPTH_WIDENED);
            widen(
                &right.panels[(panel * pairs + start / 2) * PANEL..][..Pair::depth(depth.len()) * PANEL],
                &mut widened,
            );
            let is_first = depth.start == 0;
            let piece = Left {
                data: &left.data[(start * left.depth_stride).min(left.data.len())..],
                depth: depth.len(),
                ..*left
            };
            let output = Output {
                first_column: output.first_column + panel * PANEL,
                write: if is_first { output.write } else { Write::Add },
                ..output
            };
            let bias = bias.filter(|_| is_first).map(|bias| &bias[panel * PANEL..][..columns]);
            // Safety: the panel's columns of the output are the caller's promise.
            unsafe { product(s, (&piece, &Right { panels: &widened, columns }), bias, output, 0..1) };
            start = depth.end;
            if start == left.depth {
                break;
            }
        }
    }
}

/// Two successive values of the depth from every word, `[pairs, 32]` to `[2 * pairs, 32]`.
#[inline(always)]
fn widen(words: &[Pair], values: &mut [f32]) {
    for (words, values) in words.chunks_exact(PANEL).zip(values.chunks_exact_mut(2 * PANEL)) {
        let (low, high) = values.split_at_mut(PANEL);
        for ((word, low), high) in words.iter().map(|word| word.cast_unsigned()).zip(low).zip(high) {
            (*low, *high) = (f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000));
        }
    }
}

/// Height of the fewest tiles of at most `max` rows that cover `rows`, all about equally high.
#[inline(always)]
pub(crate) fn even_height(rows: usize, max: usize) -> usize {
    rows.div_ceil(rows.div_ceil(max).max(1))
}

/// One panel and one piece of the depth.
struct Strip<'a, E> {
    left: &'a Left<'a, E>,
    right: &'a Right<'a, E>,
    bias: Option<&'a [f32]>,
    output: Output<'a>,
    depth: Range<usize>,
    panel: usize,
}

/// # Safety
/// Factors hold what their shapes say, and the output's columns are not used elsewhere.
#[inline(always)]
unsafe fn panel_product<S: Simd, E: Element>(s: S, job: &Strip<E>) {
    let mut row = 0;
    while row < job.left.rows {
        let height = even_height(job.left.rows - row, E::tile_rows::<S>());
        // Safety: the rows lie in the left factor; the rest is the caller's promise.
        unsafe {
            if E::tile_rows::<S>() >= 12 && height >= 12 {
                strips::<S, E, 12>(s, job, row);
                row += 12;
            } else if E::tile_rows::<S>() >= 12 && height >= 10 {
                strips::<S, E, 10>(s, job, row);
                row += 10;
            } else if E::tile_rows::<S>() >= 12 && height >= 8 {
                strips::<S, E, 8>(s, job, row);
                row += 8;
            } else if E::tile_rows::<S>() >= 6 && height >= 6 {
                strips::<S, E, 6>(s, job, row);
                row += 6;
            } else if height >= 4 {
                strips::<S, E, 4>(s, job, row);
                row += 4;
            } else if height >= 2 {
                strips::<S, E, 2>(s, job, row);
                row += 2;
            } else {
                strips::<S, E, 1>(s, job, row);
                row += 1;
            }
        }
    }
}

/// # Safety
/// As [`panel_product`], and rows `row..row + R` exist.
#[inline(always)]
unsafe fn strips<S: Simd, E: Element, const R: usize>(s: S, job: &Strip<E>, row: usize) {
    for offset in (0..PANEL).step_by(2 * S::LANES) {
        let first = job.panel * PANEL + offset;
        if first >= job.right.columns {
            break;
        }
        let columns = first..(first + 2 * S::LANES).min(job.right.columns);
        for r in row..row + R {
            let Output { rows, first_row, first_column, .. } = job.output;
            rows.prefetch(first_row + r, first_column + first);
            rows.prefetch(first_row + r, first_column + first + S::LANES);
        }
        // Safety: the caller's promise.
        unsafe {
            let sums = sums::<S, E, R>(s, job, (row, offset), next_weights::<S, E>(job, row, offset));
            write::<S, E, R, 2>(s, job, sums, row, columns);
        }
    }
}

/// Whether a panel is wider than two registers. Such processors gain from software prefetch; others have lost by it.
#[inline(always)]
pub(super) const fn is_narrow<S: Simd>() -> bool {
    2 * S::LANES < PANEL
}

/// Weights that the strip at `offset` prefetches, a cache line per step of the depth: the first tile prefetches the
/// next panel's piece, which is too short for the hardware prefetcher.
#[inline(always)]
fn next_weights<'a, S: Simd, E>(job: &Strip<'a, E>, row: usize, offset: usize) -> &'a [E] {
    if row > 0 || !is_narrow::<S>() {
        return &[];
    }
    let depth = (job.panel + 1) * job.left.depth + job.depth.start + job.depth.len() * offset / PANEL;
    job.right.panels.get(depth * PANEL..).unwrap_or_default()
}

/// Products of `R` rows with two registers of columns over a piece of the depth.
///
/// # Safety
/// As [`strips`].
#[inline(always)]
unsafe fn sums<S: Simd, E: Element, const R: usize>(
    s: S,
    job: &Strip<E>,
    (row, offset): (usize, usize),
    next: &[E],
) -> [[S::V; 2]; R] {
    let (left, depth) = (job.left, job.depth.clone());
    let panel = job.right.panels[job.panel * PANEL * left.depth..].as_ptr();
    let mut sums = [[s.zero(); 2]; R];
    // Safety: row < left.rows, k < left.depth, and a panel has 32 values for each k.
    unsafe {
        let first = left.data.as_ptr().add(row * left.row_stride);
        let load = |k: usize, half: usize| {
            let values = panel.add(k * PANEL + offset + half * S::LANES);
            E::load(s, std::slice::from_raw_parts(values, S::LANES))
        };
        for k in depth.clone() {
            prefetch(next, (k - depth.start) * 2 * S::LANES);
            let (b0, b1) = (load(k, 0), load(k, 1));
            let x = first.add(k * left.depth_stride);
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = E::splat(s, *x.add(r * left.row_stride));
                *sums = [E::multiply_add(s, x, b0, sums[0]), E::multiply_add(s, x, b1, sums[1])];
            }
        }
    }
    sums
}

/// The product of a single row with the next of `panels`; returns with how many. [`PANELS_AT_ONCE`] are taken at a
/// time, since a processor follows two streams of memory faster than one, unless there are too few registers. How a
/// column is summed does not depend on that.
///
/// # Safety
/// As [`strips`].
#[inline(always)]
unsafe fn single_row<S: Simd, E: Element>(s: S, job: &Strip<E>, panels: usize) -> usize {
    // Safety: the caller's promise.
    unsafe {
        match (PANEL / S::LANES, panels) {
            (2, PANELS_AT_ONCE..) => single::<S, E, 2, PANELS_AT_ONCE, 4>(s, job),
            (2, _) => single::<S, E, 2, 1, 4>(s, job),
            (4, PANELS_AT_ONCE..) => single::<S, E, 4, PANELS_AT_ONCE, 1>(s, job),
            (4, _) => single::<S, E, 4, 1, 1>(s, job),
            _ => single::<S, E, 8, 1, 1>(s, job),
        }
    }
}

/// The product of a single row with `P` panels at once, all `C` registers of each, so that weights are read
/// in the order in which they lie. Sums are kept apart over `APART` steps, so that no chain of additions is longer than
/// the loads take. Returns `P`.
///
/// # Safety
/// As [`strips`], for `P` panels.
#[inline(always)]
unsafe fn single<S: Simd, E: Element, const C: usize, const P: usize, const APART: usize>(
    s: S,
    job: &Strip<E>,
) -> usize {
    let (left, depth) = (job.left, job.depth.clone());
    let len = PANEL * left.depth;
    if is_narrow::<S>() {
        for p in P..2 * P {
            prefetch_stream(job.right.panels, (job.panel + p) * len);
        }
    }
    let mut apart = [[[s.zero(); C]; P]; APART];
    // Safety: k < left.depth, and each of the panels has 32 values for each k.
    unsafe {
        let (x, panels) = (left.data.as_ptr(), job.right.panels.as_ptr().add(job.panel * len));
        for k in depth.step_by(APART) {
            for (i, sums) in apart.iter_mut().enumerate().take(job.depth.end - k) {
                let x = E::splat(s, *x.add((k + i) * left.depth_stride));
                for (p, sums) in sums.iter_mut().enumerate() {
                    let row = p * len + (k + i) * PANEL;
                    if prefetches::<S, E>() {
                        let next = job.panel * len + row + WEIGHTS_AHEAD / size_of::<E>();
                        prefetch(job.right.panels, next);
                        prefetch(job.right.panels, next + PANEL / 2);
                    }
                    for (c, sum) in sums.iter_mut().enumerate() {
                        let values = std::slice::from_raw_parts(panels.add(row + c * S::LANES), S::LANES);
                        *sum = E::multiply_add(s, x, E::load(s, values), *sum);
                    }
                }
            }
        }
    }
    let mut count = APART;
    while count > 1 {
        count /= 2;
        for i in 0..count {
            let (left, right) = (apart[2 * i], apart[2 * i + 1]);
            for ((sums, left), right) in apart[i].iter_mut().zip(left).zip(right) {
                for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
                    *sum = s.add(left, right);
                }
            }
        }
    }
    for (p, sums) in apart[0].into_iter().enumerate() {
        let first = (job.panel + p) * PANEL;
        // Safety: the caller's promise.
        unsafe { write::<S, E, 1, C>(s, job, [sums], 0, first..(first + PANEL).min(job.right.columns)) }
    }
    P
}

/// Prefetches the start of the stream at `weights[start]`, if there is one.
#[inline(always)]
pub(super) fn prefetch_stream<T>(weights: &[T], start: usize) {
    for byte in (0..STREAM_START).step_by(LINE) {
        prefetch(weights, start + byte / size_of::<T>());
    }
}

/// Whether single rows prefetch weights. With two values per element too few loads are in flight without it; with one
/// value it has cost more than it gained.
#[inline(always)]
const fn prefetches<S: Simd, E: Element>() -> bool {
    is_narrow::<S>() && E::VALUES > 1
}

/// Adds sums to the output, at the first piece of the depth to the bias and to what the output is to keep.
///
/// # Safety
/// As [`strips`].
#[inline(always)]
unsafe fn write<S: Simd, E, const R: usize, const C: usize>(
    s: S,
    job: &Strip<E>,
    sums: [[S::V; C]; R],
    row: usize,
    columns: Range<usize>,
) {
    let Output { rows, first_row, first_column, write } = job.output;
    let bias = job.bias.filter(|_| job.depth.start == 0);
    let keeps = write == Write::Add || job.depth.start > 0;
    for (r, sums) in sums.into_iter().enumerate() {
        let range = first_column + columns.start..first_column + columns.end;
        // Safety: nothing else uses these columns.
        let out = unsafe { rows.part(first_row + row + r, range) };
        for (c, sum) in sums.into_iter().enumerate() {
            let first = c * S::LANES;
            if first >= out.len() {
                break;
            }
            let out = &mut out[first..columns.len().min(first + S::LANES)];
            let mut sum = sum;
            if let Some(bias) = bias {
                sum = s.add(s.load_partial(&bias[columns.start + first..][..out.len()]), sum);
            }
            if keeps {
                sum = s.add(s.load_partial(out), sum);
            }
            s.store_partial(sum, out);
        }
    }
}
