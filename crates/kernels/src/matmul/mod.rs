//! Products with prepacked weights, `y = x W^T + bias`, the linear layer of PyTorch.

pub(crate) mod gemm;
pub mod reference;

use std::ops::Range;

use crate::error::check_len;
use crate::parallel::{SharedRows, for_each};
use crate::simd::{Op, Simd};
use crate::{KernelError, Kernels, Rows, RowsMut, Threads};
use gemm::{Left, Output, PANEL, Right};

/// Products below this many multiplications are not worth a second thread.
const PARALLEL_MIN: usize = 1 << 18;

/// A weight matrix `[n_out, n_in]` in the order in which the kernels read it: panels of 32 outputs, each
/// `[n_in, 32]`. The layout is the same for every instruction set.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    data: Vec<f32>,
    bias: Option<Vec<f32>>,
    n_out: usize,
    n_in: usize,
}

impl PackedMatrix {
    /// Packs `weight` `[n_out, n_in]`, row-major, with an optional `bias` `[n_out]`.
    ///
    /// # Errors
    /// When a length does not fit.
    pub fn new((n_out, n_in): (usize, usize), weight: &[f32], bias: Option<&[f32]>) -> Result<Self, KernelError> {
        check_len("weight", weight.len(), n_out * n_in)?;
        bias.map_or(Ok(()), |bias| check_len("bias", bias.len(), n_out))?;
        let mut data = vec![0.0; gemm::packed_len(n_in, n_out)];
        gemm::pack_transposed(weight.chunks_exact(n_in.max(1)), n_in, &mut data);
        Ok(Self { data, bias: bias.map(<[f32]>::to_vec), n_out, n_in })
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
        (self.data.len() + self.bias.as_ref().map_or(0, Vec::len)) * size_of::<f32>()
    }

    /// `y = x W^T + bias` for `rows` rows: `x` `[rows, n_in]`, `y` `[rows, n_out]`.
    ///
    /// A single row streams every weight exactly once. Allocates nothing on one thread.
    ///
    /// # Errors
    /// When `x` or `y` is too short; nothing is written then.
    pub fn apply(&self, kernels: Kernels, rows: usize, x: Rows, y: RowsMut) -> Result<(), KernelError> {
        x.check("x", rows, self.n_in)?;
        y.check("y", rows, self.n_out)?;
        let left = Left { data: x.data, rows, depth: self.n_in, row_stride: x.stride, depth_stride: 1 };
        let y = SharedRows::new(y);
        let panels = self.n_out.div_ceil(PANEL);
        let pieces = self.pieces(kernels, rows);
        for_each(kernels.threads(), pieces, |piece| {
            let panels = piece * panels / pieces..(piece + 1) * panels / pieces;
            kernels.run(Apply { matrix: self, left, y: &y, panels });
        });
        Ok(())
    }

    /// In how many pieces the outputs are cut for the threads.
    fn pieces(&self, kernels: Kernels, rows: usize) -> usize {
        let work = rows * self.n_out * self.n_in;
        match kernels.threads() {
            Threads::Rayon if work >= PARALLEL_MIN => {
                // Several per thread, so that none waits long for the last.
                (4 * rayon::current_num_threads()).min(self.n_out.div_ceil(PANEL)).max(1)
            }
            _ => 1,
        }
    }

    /// Weight `(row, column)` of the original matrix.
    fn at(&self, row: usize, column: usize) -> f32 {
        self.data[(row / PANEL * self.n_in + column) * PANEL + row % PANEL]
    }
}

/// Some panels of a product.
struct Apply<'a> {
    matrix: &'a PackedMatrix,
    left: Left<'a>,
    y: &'a SharedRows<'a>,
    panels: Range<usize>,
}

impl Op for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let right = Right { panels: &self.matrix.data, columns: self.matrix.n_out };
        let output = Output { rows: self.y, first_row: 0, first_column: 0 };
        // Safety: every piece has panels, and so columns, of its own.
        unsafe { gemm::product(s, (&self.left, &right), self.matrix.bias.as_deref(), output, self.panels) }
    }
}
