//! Products with prepacked weights, `y = x W^T + bias`, the linear layer of PyTorch, and for training products of any
//! two factors.

mod bf16;
mod factors;
pub(crate) mod gemm;
mod int8;
pub(crate) mod pack;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod tiles;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::activation::{self, Activation};
use crate::error::check_len;
use crate::parallel::{SharedRows, for_each};
use crate::simd::{Op, Simd};
use crate::{Bf16Products, Isa, KernelError, Kernels, Rows, RowsMut, Threads};
pub(crate) use bf16::Pair;
use bf16::RoundedRows;
use gemm::{Element, Left, Output, PANEL, Right};
use int8::{Int8Product, Int8Strips, QuantisedRows};
use pack::Pack;

pub use factors::{Factor, multiply_bf16, multiply_f32};
pub use gemm::Write;
#[cfg(target_arch = "x86_64")]
pub(crate) use tiles::multiply as multiply_tiles;

/// Products with fewer multiplications run on one thread.
const PARALLEL_MIN: usize = 1 << 18;
/// A single row is shared between threads from this many bytes of weights on, since it is bound by memory.
const PARALLEL_MIN_BYTES: usize = 1 << 17;

/// Number format in which weights are stored and multiplied. Inputs and outputs are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// 32-bit floats.
    #[default]
    F32,
    /// The format bfloat16. Inputs are rounded, and products are summed in f32. With [`Bf16Products::AsF32`] weights
    /// are widened and inputs are not rounded, except those of a single row, which is bound by memory.
    Bf16,
    /// 8-bit integers with a scale per output. Inputs are quantised with a scale per row, a single row to 15 bits.
    Int8,
}

impl Format {
    /// All formats, the most exact first.
    pub const ALL: [Format; 3] = [Format::F32, Format::Bf16, Format::Int8];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Format {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|format| format.to_string() == name);
        found.ok_or_else(|| KernelError::Format { found: name.into() })
    }
}

/// A weight matrix `[n_out, n_in]`, packed in panels of 32 outputs, each `[n_in, 32]`.
///
/// In 8 bits a panel is two strips `[n_in, 16]`. Several inputs may share an element. The layout is the same for every
/// instruction set.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    panels: Panels,
    bias: Option<Vec<f32>>,
    activation: Option<Activation>,
    n_out: usize,
    n_in: usize,
}

#[derive(Clone, Debug)]
enum Panels {
    F32(Vec<f32>),
    /// `[n_in / 2, 32]` per panel.
    Bf16(Vec<Pair>),
    Int8(Int8Strips),
}

impl PackedMatrix {
    /// Packs `weight` `[n_out, n_in]`, row-major, with an optional `bias` `[n_out]`, in this format.
    ///
    /// # Errors
    /// When a length does not fit.
    pub fn new(
        format: Format,
        (n_out, n_in): (usize, usize),
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self, KernelError> {
        check_len("weight", weight.len(), n_out * n_in)?;
        bias.map_or(Ok(()), |bias| check_len("bias", bias.len(), n_out))?;
        let rows = (0..n_out).map(|row| &weight[row * n_in..][..n_in]);
        let panels = match format {
            Format::F32 => Panels::F32(packed(weight, (n_out, n_in))),
            Format::Bf16 => Panels::Bf16(packed(weight, (n_out, n_in))),
            Format::Int8 => Panels::Int8(Int8Strips::new(rows, n_in)),
        };
        Ok(Self { panels, bias: bias.map(<[f32]>::to_vec), activation: None, n_out, n_in })
    }

    /// The same matrix with a fused activation, `y = f(x W^T + bias)`.
    pub fn activated(self, activation: Activation) -> Self {
        Self { activation: Some(activation), ..self }
    }

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        match self.panels {
            Panels::F32(_) => Format::F32,
            Panels::Bf16(_) => Format::Bf16,
            Panels::Int8(_) => Format::Int8,
        }
    }

    /// Outputs.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Inputs.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let weights = match &self.panels {
            Panels::F32(data) => data.len() * size_of::<f32>(),
            Panels::Bf16(data) => data.len() * size_of::<Pair>(),
            Panels::Int8(panels) => panels.bytes(),
        };
        weights + self.bias.as_ref().map_or(0, Vec::len) * size_of::<f32>()
    }

    /// `y = x W^T + bias`, activated if so wanted, for `rows` rows: `x` `[rows, n_in]`, `y` `[rows, n_out]`.
    ///
    /// A single row streams every weight exactly once. With one thread nothing is allocated once `converted` has
    /// grown to the largest product; [`Format::F32`] does not use it.
    ///
    /// # Errors
    /// When `x` or `y` is too short; nothing is written then.
    pub fn apply(
        &self,
        kernels: Kernels,
        rows: usize,
        x: Rows,
        y: RowsMut,
        converted: &mut ConvertedRows,
    ) -> Result<(), KernelError> {
        x.check("x", rows, self.n_in)?;
        y.check("y", rows, self.n_out)?;
        let y = SharedRows::new(y);
        let columns = self.n_out;
        match &self.panels {
            Panels::F32(panels) => {
                let left = Left { data: x.data, rows, depth: self.n_in, row_stride: x.stride, depth_stride: 1 };
                let (right, bias) = (Right { panels, columns }, self.bias.as_deref());
                self.in_pieces(kernels, rows, &y, |panels| kernels.run(Apply { left, right, bias, y: &y, panels }));
            }
            Panels::Bf16(panels) if rows > 1 && kernels.bf16() == Bf16Products::AsF32 => {
                let left = Left { data: x.data, rows, depth: self.n_in, row_stride: x.stride, depth_stride: 1 };
                let (right, bias) = (Right { panels, columns }, self.bias.as_deref());
                self.in_pieces(kernels, rows, &y, |panels| {
                    kernels.run(ApplyWidened { left, right, bias, y: &y, panels })
                });
            }
            Panels::Bf16(panels) => {
                let left = converted.rounded.fill(kernels, (rows, self.n_in), x);
                let (right, bias) = (Right { panels, columns }, self.bias.as_deref());
                self.in_pieces(kernels, rows, &y, |panels| {
                    kernels.run_bf16(Apply { left, right, bias, y: &y, panels })
                });
            }
            Panels::Int8(weights) => {
                let quantised = &mut converted.quantised;
                quantised.fill(kernels, (rows, self.n_in), x);
                let (x, bias, depth, amx) = (&*quantised, self.bias.as_deref(), self.n_in, kernels.isa() == Isa::Amx);
                self.in_pieces(kernels, rows, &y, |panels| {
                    kernels.run_int8(Int8Product { x, rows, depth, weights, bias, columns, y: &y, panels, amx });
                });
            }
        }
        Ok(())
    }

    /// Calls `work` with the panels of each piece, on the threads of `kernels`, and activates what it wrote to `y`.
    fn in_pieces(&self, kernels: Kernels, rows: usize, y: &SharedRows, work: impl Fn(Range<usize>) + Send + Sync) {
        let panels = self.n_out.div_ceil(PANEL);
        let pieces = self.pieces(kernels, rows);
        for_each(kernels.threads(), pieces, |piece| {
            let panels = piece * panels / pieces..(piece + 1) * panels / pieces;
            let columns = panels.start * PANEL..self.n_out.min(panels.end * PANEL);
            work(panels);
            let Some(activation) = self.activation else { return };
            for row in 0..rows {
                // Safety: every piece has columns of its own.
                let y = unsafe { y.part(row, columns.clone()) };
                activation::apply(kernels.with_threads(Threads::One), activation, y);
            }
        });
    }

    /// Number of pieces that the outputs are divided into for the threads.
    fn pieces(&self, kernels: Kernels, rows: usize) -> usize {
        let work = rows * self.n_out * self.n_in;
        let is_large = work >= PARALLEL_MIN || rows == 1 && self.bytes() >= PARALLEL_MIN_BYTES;
        match kernels.threads() {
            Threads::Rayon if is_large => {
                // Several per thread, so that none waits long for the last.
                (4 * rayon::current_num_threads()).min(self.n_out.div_ceil(PANEL)).max(1)
            }
            _ => 1,
        }
    }

    /// Weight `(row, column)` as stored, after rounding or quantisation.
    fn at(&self, row: usize, column: usize) -> f32 {
        match &self.panels {
            Panels::F32(data) => data[(row / PANEL * self.n_in + column) * PANEL + row % PANEL],
            Panels::Bf16(panels) => bf16::at(panels, row, column, self.n_in),
            Panels::Int8(panels) => panels.at(row, column, self.n_in),
        }
    }
}

/// Scratch memory for input rows in bf16 or in 8 bits; one serves any number of products, one at a time.
#[derive(Clone, Debug, Default)]
pub struct ConvertedRows {
    rounded: RoundedRows,
    quantised: QuantisedRows,
}

impl ConvertedRows {
    /// Bytes held at present.
    pub fn bytes(&self) -> usize {
        self.rounded.bytes() + self.quantised.bytes()
    }
}

/// The transpose of `weight` `[columns, depth]` as a right factor.
fn packed<E: Pack>(weight: &[f32], (columns, depth): (usize, usize)) -> Vec<E> {
    let mut panels = vec![E::default(); gemm::packed_len(E::depth(depth), columns)];
    E::run(Kernels::detect(), PackTransposed { weight, columns, depth, panels: &mut panels });
    panels
}

struct PackTransposed<'a, E> {
    weight: &'a [f32],
    columns: usize,
    depth: usize,
    panels: &'a mut [E],
}

impl<E: Pack> Op for PackTransposed<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = (0..self.columns).map(|row| &self.weight[row * self.depth..][..self.depth]);
        E::pack_transposed(s, rows, self.depth, self.panels);
    }
}

/// Some panels of a product summed in f32.
struct Apply<'a, E> {
    left: Left<'a, E>,
    right: Right<'a, E>,
    bias: Option<&'a [f32]>,
    y: &'a SharedRows<'a>,
    panels: Range<usize>,
}

/// The same with weights in bf16 that are widened to f32.
struct ApplyWidened<'a> {
    left: Left<'a>,
    right: Right<'a, Pair>,
    bias: Option<&'a [f32]>,
    y: &'a SharedRows<'a>,
    panels: Range<usize>,
}

impl Op for ApplyWidened<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let output = Output::whole(self.y);
        // Safety: every piece has panels, and so columns, of its own.
        unsafe { gemm::widened_product(s, (&self.left, &self.right), self.bias, output, self.panels) }
    }
}

impl<E: Element> Op for Apply<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let output = Output::whole(self.y);
        // Safety: every piece has panels, and so columns, of its own.
        unsafe { gemm::product(s, (&self.left, &self.right), self.bias, output, self.panels) }
    }
}
