//! Products of any two factors, for training. Nothing is packed beforehand: each piece of a product packs its factors
//! into thread-local memory that stays in cache.

use std::ops::Range;

use super::gemm::{self, Left, Output, PANEL, Right, Write, packed_len};
use super::pack::{Pack, grow};
use super::{PARALLEL_MIN, Pair};
use crate::error::check_len;
use crate::parallel::{SharedRows, for_each};
use crate::simd::{Op, Simd, prefetch};
use crate::{Bf16Products, KernelError, Kernels, RowsMut, Threads};

/// Most rows of a left factor per piece: with a panel's depth a quarter of a megabyte, which stays in the second-level
/// cache. A multiple of the highest tile.
const HEIGHT_MAX: usize = 264;
/// Rows are cut in multiples of the highest tile.
const TILE_ROWS_MAX: usize = 12;
/// Most elements of a right factor per piece: half a megabyte, which stays in the second-level cache.
const RIGHT_MAX: usize = 1 << 17;
/// Prefetch distance in rows of a right factor that is being packed.
const ROWS_AHEAD: usize = 8;
/// Values of a cache line.
const LINE: usize = 16;

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

    /// A row of `data`.
    fn row(&self, index: usize) -> &'a [f32] {
        let width = self.shape[1];
        &self.data[index * width..][..width]
    }

    /// Prefetches columns of a row of `data`.
    #[inline(always)]
    fn prefetch(&self, row: usize, columns: Range<usize>) {
        let first = row * self.shape[1];
        columns.step_by(LINE).for_each(|column| prefetch(self.data, first + column));
    }

    /// The rows `rows` as a left factor.
    fn left(&self, rows: Range<usize>) -> Left<'a> {
        let (width, [_, depth]) = (self.shape[1], self.shape());
        let (row_stride, depth_stride) = if self.transposed { (1, width) } else { (width, 1) };
        // Without depth there is no data.
        let data = self.data.get(rows.start * row_stride..).unwrap_or_default();
        Left { data, rows: rows.len(), depth, row_stride, depth_stride }
    }
}

/// `y = a b + bias`, or the same added to `y`: `a` `[rows, depth]`, `b` `[depth, columns]`, `y` `[rows, columns]`,
/// `bias` `[columns]`, all f32. The result does not depend on the number of threads.
///
/// # Errors
/// When a length or the two depths do not fit; nothing is written then.
pub fn multiply_f32(
    kernels: Kernels,
    write: Write,
    factors: [Factor; 2],
    bias: Option<&[f32]>,
    y: &mut [f32],
) -> Result<(), KernelError> {
    multiply::<f32>(kernels, write, factors, bias, y)
}

/// The same with both factors rounded to bf16; sums, `bias` and `y` are f32. With [`Bf16Products::AsF32`] nothing is
/// rounded: it is [`multiply_f32`].
///
/// # Errors
/// As [`multiply_f32`].
pub fn multiply_bf16(
    kernels: Kernels,
    write: Write,
    factors: [Factor; 2],
    bias: Option<&[f32]>,
    y: &mut [f32],
) -> Result<(), KernelError> {
    match kernels.bf16() {
        Bf16Products::Native => multiply::<Pair>(kernels, write, factors, bias, y),
        Bf16Products::AsF32 => multiply::<f32>(kernels, write, factors, bias, y),
    }
}

fn multiply<E: Pack>(
    kernels: Kernels,
    write: Write,
    [a, b]: [Factor; 2],
    bias: Option<&[f32]>,
    y: &mut [f32],
) -> Result<(), KernelError> {
    let ([rows, depth], [found, columns]) = (a.shape(), b.shape());
    if found != depth {
        return Err(KernelError::Dimension { dimension: "rows of b", expected: "the columns of a", found });
    }
    check_len("a", a.data.len(), rows * depth)?;
    check_len("b", b.data.len(), depth * columns)?;
    check_len("y", y.len(), rows * columns)?;
    bias.map_or(Ok(()), |bias| check_len("bias", bias.len(), columns))?;
    let y = SharedRows::new(RowsMut::new(y, columns));
    in_pieces(kernels, (rows, E::depth(depth), columns), |rows, columns| {
        let mut rooms = E::rooms().take();
        E::run(kernels, Piece { factors: [a, b], bias, y: &y, write, rows, columns, rooms: &mut rooms });
        E::rooms().set(rooms);
    });
    Ok(())
}

/// Calls `work` with rows and columns of pieces that together are all of a product. How rows are cut does not depend on
/// the threads.
fn in_pieces(
    kernels: Kernels,
    (rows, depth, columns): (usize, usize, usize),
    work: impl Fn(Range<usize>, Range<usize>) + Send + Sync,
) {
    let height = rows.div_ceil(rows.div_ceil(HEIGHT_MAX).max(1)).max(1).next_multiple_of(TILE_ROWS_MAX);
    let (blocks, panels) = (rows.div_ceil(height), columns.div_ceil(PANEL));
    let threads = if rows * depth * columns < PARALLEL_MIN { Threads::One } else { kernels.threads() };
    let n_thread = match threads {
        Threads::One => 1,
        Threads::Rayon => rayon::current_num_threads(),
    };
    let groups = groups(blocks, n_thread).max((panels * PANEL * depth).div_ceil(RIGHT_MAX)).min(panels);
    for_each(threads, blocks * groups, |index| {
        let (block, group) = (index / groups, index % groups);
        let [first, last] = [group, group + 1].map(|group| columns.min(group * panels / groups * PANEL));
        work(block * height..rows.min((block + 1) * height), first..last);
    });
}

/// Number of groups of panels per block of rows: several pieces per thread for load balance, equally many if possible.
fn groups(blocks: usize, threads: usize) -> usize {
    if threads == 1 {
        return 1;
    }
    let several = (4 * threads).div_ceil(blocks.max(1));
    (several..several + threads).find(|groups| (blocks * groups).is_multiple_of(threads)).unwrap_or(several)
}

/// A piece of a product.
struct Piece<'a, E> {
    factors: [Factor<'a>; 2],
    bias: Option<&'a [f32]>,
    y: &'a SharedRows<'a>,
    write: Write,
    rows: Range<usize>,
    /// From the first of a panel to the last of another, or of all.
    columns: Range<usize>,
    rooms: &'a mut [Vec<E>; 2],
}

impl<E: Pack> Op for Piece<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { factors: [a, b], bias, y, write, rows, columns, rooms: [left, right] } = self;
        let depth = a.shape()[1];
        grow(left, E::left_len(rows.len(), depth));
        grow(right, packed_len(E::depth(depth), columns.len()));
        if b.transposed {
            E::pack_transposed(s, columns.clone().map(|column| b.row(column)), depth, right);
        } else {
            let rows = (0..depth).map(|k| {
                b.prefetch(k + ROWS_AHEAD, columns.clone());
                &b.row(k)[columns.clone()]
            });
            E::pack(s, rows, depth, right);
        }
        let left = E::left(s, a.left(rows.clone()), left);
        let right = Right { panels: right, columns: columns.len() };
        let output = Output { rows: y, first_row: rows.start, first_column: columns.start, write };
        let panels = 0..columns.len().div_ceil(PANEL);
        let bias = bias.map(|bias| &bias[columns]);
        // Safety: every piece has rows or columns of its own.
        unsafe { gemm::product(s, (&left, &right), bias, output, panels) }
    }
}
