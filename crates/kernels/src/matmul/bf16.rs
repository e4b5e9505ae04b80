//! Products of factors in bf16: values are rounded when they arrive, their products are summed in f32.
//!
//! The mixed precision of Micikevicius et al., arXiv 1710.03740, with the format of Kalamkar et al., arXiv 1905.12322. Two
//! successive values of the depth lie in a word, as the dot-product instructions take them; an odd depth is filled up with zeros.

use std::ops::Range;

use super::gemm::{self, Element, Left, Output, PANEL, Right, Write, grow, packed_len};
use crate::error::check_len;
use crate::parallel::{SharedRows, for_each};
use crate::simd::{MAX_LANES, Op, Simd};
use crate::{KernelError, Kernels, Rows, RowsMut, Threads};

/// Rows, columns or pairs of rows that are rounded at a time.
const STRIPE: usize = 16;
/// Fewer values than these are not worth a second thread.
const PARALLEL_MIN: usize = 1 << 15;
/// Words of a left factor that should stay in the second-level cache while all panels pass: a quarter of a megabyte.
const BLOCK_WORDS: usize = 1 << 16;
/// Rows are cut in multiples of the highest tile.
const TILE_ROWS_MAX: usize = 12;

/// Two successive values of the depth as bf16, the first in the lower half.
pub(crate) type Pair = i32;

impl Element for Pair {
    type Register<S: Simd> = S::I;

    #[inline]
    fn run<O: Op>(kernels: Kernels, op: O) -> O::Output {
        kernels.run_bf16(op)
    }

    fn depth(values: usize) -> usize {
        values.div_ceil(2)
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
    fn pack_transposed<'a, S: Simd>(s: S, rows: impl Iterator<Item = &'a [f32]>, depth: usize, panels: &mut [Self]) {
        let (len, mut rows) = (Self::depth(depth) * PANEL, rows);
        for first in (0..).step_by(S::LANES) {
            let (mut columns, mut count) = ([&[] as &[f32]; MAX_LANES], 0);
            while let Some(row) = (count < S::LANES).then(|| rows.next()).flatten() {
                columns[count] = row;
                count += 1;
            }
            if count == 0 {
                break;
            }
            round_columns(s, &columns[..count], first % PANEL, &mut panels[first / PANEL * len..][..len]);
        }
    }

    #[inline(always)]
    fn tile_rows<S: Simd>() -> usize {
        S::TILE_ROWS_DOT
    }

    #[inline(always)]
    fn splat<S: Simd>(s: S, x: Self) -> S::I {
        s.splat_bytes(x.to_le_bytes())
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

/// Words from one row of a left factor to the next.
fn row_stride(depth: usize) -> usize {
    Pair::depth(depth).next_multiple_of(MAX_LANES / 2)
}

/// Words from one pair of the depth to the next where a left factor is transposed.
fn column_stride(rows: usize) -> usize {
    rows.next_multiple_of(MAX_LANES)
}

/// Rounds a row of a left factor.
#[inline(always)]
fn round_row<S: Simd>(s: S, values: &[f32], words: &mut [Pair]) {
    for (values, words) in values.chunks(S::LANES).zip(words.chunks_exact_mut(S::LANES / 2)) {
        s.store_bf16(s.load_partial(values), words);
    }
}

/// Rounds rows of the transpose of a right factor, a register's lanes of them at most, which become the columns of a panel from `first` on.
#[inline(always)]
fn round_columns<S: Simd>(s: S, rows: &[&[f32]], first: usize, panel: &mut [Pair]) {
    let mut block = [0; MAX_LANES * MAX_LANES];
    for (i, panel) in panel.chunks_mut(S::LANES * PANEL).enumerate() {
        for (row, words) in rows.iter().zip(block.chunks_exact_mut(S::LANES)) {
            let values = &row[row.len().min(2 * i * S::LANES)..];
            let (low, high) = values.split_at(values.len().min(S::LANES));
            let (low_words, high_words) = words.split_at_mut(S::LANES / 2);
            s.store_bf16(s.load_partial(low), low_words);
            s.store_bf16(s.load_partial(high), high_words);
        }
        s.transpose(&mut block[..S::LANES * S::LANES]);
        for (panel, words) in panel.chunks_exact_mut(PANEL).zip(block.chunks_exact(S::LANES)) {
            let columns = &mut panel[first..];
            if rows.len() == S::LANES {
                columns[..S::LANES].copy_from_slice(&words[..S::LANES]);
            } else {
                columns[..rows.len()].copy_from_slice(&words[..rows.len()]);
            }
        }
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

    /// Rounds the transpose of `x` `[depth, rows]`.
    fn fill_transposed(&mut self, kernels: Kernels, (rows, depth): (usize, usize), x: Rows) -> Left<'_, Pair> {
        let panel = column_stride(rows);
        grow(&mut self.words, Pair::depth(depth) * panel);
        zip_all(kernels, (depth, rows), x, panel, &mut self.words);
        Left { data: &self.words, rows, depth: Pair::depth(depth), row_stride: 1, depth_stride: panel }
    }
}

/// Rounds and packs the right factor that is the transpose of `weight` `[columns, depth]`.
pub(super) fn packed(weight: &[f32], (columns, depth): (usize, usize)) -> Vec<Pair> {
    let mut panels = vec![0; packed_len(Pair::depth(depth), columns)];
    pack_transposed(
        Kernels::detect().with_threads(Threads::One),
        (columns, depth),
        Rows::new(weight, depth),
        &mut panels,
    );
    panels
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

/// Rounds `x` `[depth, width]` into panels of `panel` columns, `[width / panel, depth / 2, panel]`.
fn zip_all(kernels: Kernels, (depth, width): (usize, usize), x: Rows, panel: usize, panels: &mut [Pair]) {
    let words = SharedRows::flat(panels);
    in_stripes(kernels, Pair::depth(depth), 2 * width, |pairs| {
        kernels.run_bf16(ZipRows { x, pairs, shape: (depth, width), panel, words: &words });
    });
}

/// Rounds the pairs of rows `pairs` of `x`.
struct ZipRows<'a> {
    x: Rows<'a>,
    pairs: Range<usize>,
    shape: (usize, usize),
    panel: usize,
    words: &'a SharedRows<'a, Pair>,
}

impl Op for ZipRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, pairs, shape, panel, words } = self;
        for pair in pairs {
            let rows = pair_of_rows(x, shape, pair);
            // Safety: every stripe has pairs of rows of its own.
            unsafe { zip_rows(s, rows, (pair, Pair::depth(shape.0)), panel, words) };
        }
    }
}

/// Rounds the transpose of `x` `[columns, depth]` into panels.
fn pack_transposed(kernels: Kernels, (columns, depth): (usize, usize), x: Rows, panels: &mut [Pair]) {
    let stride = Pair::depth(depth) * PANEL;
    let words = SharedRows::new(RowsMut::new(panels, stride));
    let threads = if columns * depth < PARALLEL_MIN { Threads::One } else { kernels.threads() };
    for_each(threads, columns.div_ceil(PANEL), |panel| {
        // Safety: every panel is one item.
        let words = unsafe { words.part(panel, 0..stride) };
        let columns = panel * PANEL..columns.min((panel + 1) * PANEL);
        kernels.run_bf16(RoundColumns { x, columns, depth, panel: words });
    });
}

/// Rounds the rows `columns` of `x`, which become the columns of a panel.
struct RoundColumns<'a> {
    x: Rows<'a>,
    columns: Range<usize>,
    depth: usize,
    panel: &'a mut [Pair],
}

impl Op for RoundColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.columns.map(|row| self.x.row(row, self.depth));
        Pair::pack_transposed(s, rows, self.depth, self.panel);
    }
}

/// A factor of a product: a row-major matrix, or the transpose of one.
#[derive(Clone, Copy, Debug)]
pub struct Factor<'a> {
    data: &'a [f32],
    /// Of `data`.
    shape: [usize; 2],
    transposed: bool,
}

impl<'a> Factor<'a> {
    /// The matrix `data` `[rows, columns]`.
    pub fn new(data: &'a [f32], shape: [usize; 2]) -> Self {
        Self { data, shape, transposed: false }
    }

    /// The transpose `[columns, rows]` of `data` `[rows, columns]`, which stays where it is.
    pub fn transposed(data: &'a [f32], shape: [usize; 2]) -> Self {
        Self { data, shape, transposed: true }
    }

    /// Rows and columns of the factor.
    pub fn shape(&self) -> [usize; 2] {
        let [rows, columns] = self.shape;
        if self.transposed { [columns, rows] } else { self.shape }
    }

    /// The matrix that it was made of.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// How far apart in [`Factor::data`] neighbours in a column and in a row of the factor are.
    pub fn strides(&self) -> [usize; 2] {
        let width = self.shape[1];
        if self.transposed { [1, width] } else { [width, 1] }
    }

    fn rows(&self) -> Rows<'a> {
        Rows::new(self.data, self.shape[1])
    }
}

/// Working memory of [`multiply_bf16`]; grows to what the largest product needs and is then reused.
#[derive(Clone, Debug, Default)]
pub struct Bf16Scratch {
    left: RoundedRows,
    right: Vec<Pair>,
}

impl Bf16Scratch {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { left: RoundedRows { words: Vec::new() }, right: Vec::new() }
    }
}

/// `y = a b + bias`, or the same added to `y`: `a` `[rows, depth]`, `b` `[depth, columns]`, `y` `[rows, columns]`, `bias`
/// `[columns]`. Both factors are rounded to bf16; sums, `bias` and `y` are f32. The result does not depend on the number of threads.
///
/// # Errors
/// When a length or the two depths do not fit; nothing is written then.
pub fn multiply_bf16(
    kernels: Kernels,
    write: Write,
    [a, b]: [Factor; 2],
    bias: Option<&[f32]>,
    y: &mut [f32],
    scratch: &mut Bf16Scratch,
) -> Result<(), KernelError> {
    let ([rows, depth], [found, columns]) = (a.shape(), b.shape());
    if found != depth {
        return Err(KernelError::Dimension { dimension: "rows of b", expected: "the columns of a", found });
    }
    check_len("a", a.data.len(), rows * depth)?;
    check_len("b", b.data.len(), depth * columns)?;
    check_len("y", y.len(), rows * columns)?;
    bias.map_or(Ok(()), |bias| check_len("bias", bias.len(), columns))?;
    let Bf16Scratch { left, right } = scratch;
    let left = if a.transposed {
        left.fill_transposed(kernels, (rows, depth), a.rows())
    } else {
        left.fill(kernels, (rows, depth), a.rows())
    };
    grow(right, packed_len(Pair::depth(depth), columns));
    if b.transposed {
        pack_transposed(kernels, (columns, depth), b.rows(), right);
    } else {
        zip_all(kernels, (depth, columns), b.rows(), PANEL, right);
    }
    let (right, y) = (Right { panels: right, columns }, SharedRows::new(RowsMut::new(y, columns)));
    in_blocks(kernels, left, columns.div_ceil(PANEL), |rows, panels| {
        kernels.run_bf16(Block { left, right, bias, y: &y, write, rows, panels });
    });
    Ok(())
}

/// Calls `work` with blocks of rows and panels that together are all of a product.
fn in_blocks(
    kernels: Kernels,
    left: Left<Pair>,
    panels: usize,
    work: impl Fn(Range<usize>, Range<usize>) + Send + Sync,
) {
    let height = (BLOCK_WORDS / left.depth.max(1)).max(4 * TILE_ROWS_MAX) / TILE_ROWS_MAX * TILE_ROWS_MAX;
    let blocks = left.rows.div_ceil(height);
    let is_small = left.rows * left.depth * panels * PANEL < super::PARALLEL_MIN;
    let groups = match kernels.threads() {
        // Several per thread, so that none waits long for the last.
        Threads::Rayon if !is_small => (4 * rayon::current_num_threads()).div_ceil(blocks.max(1)).min(panels).max(1),
        _ => 1,
    };
    let threads = if is_small { Threads::One } else { kernels.threads() };
    for_each(threads, blocks * groups, |index| {
        let (block, group) = (index / groups, index % groups);
        let rows = block * height..left.rows.min((block + 1) * height);
        work(rows, group * panels / groups..(group + 1) * panels / groups);
    });
}

/// A block of rows and panels of a product.
struct Block<'a> {
    left: Left<'a, Pair>,
    right: Right<'a, Pair>,
    bias: Option<&'a [f32]>,
    y: &'a SharedRows<'a>,
    write: Write,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl Op for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { left, right, bias, y, write, rows, panels } = self;
        let first = rows.start * left.row_stride;
        let left = Left { data: left.data.get(first..).unwrap_or_default(), rows: rows.len(), ..left };
        let output = Output { rows: y, first_row: rows.start, first_column: 0, write };
        // Safety: every block has rows or columns of its own.
        unsafe { gemm::product(s, (&left, &right), bias, output, panels) }
    }
}
