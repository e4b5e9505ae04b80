//! Products with prepacked weights, `y = x W^T + bias`, the linear layer of PyTorch.

pub mod reference;

use crate::error::check_len;
use crate::{KernelError, Kernels, Rows, RowsMut};

/// Columns of `W^T` that lie side by side in the packed layout.
const PANEL: usize = 32;

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
        let mut data = vec![0.0; n_out.div_ceil(PANEL) * n_in * PANEL];
        for (row, values) in weight.chunks_exact(n_in.max(1)).enumerate() {
            let panel = &mut data[row / PANEL * n_in * PANEL..];
            for (k, &value) in values.iter().enumerate() {
                panel[k * PANEL + row % PANEL] = value;
            }
        }
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

    /// `y = x W^T + bias` for `rows` rows: `x` `[rows, n_in]`, `y` `[rows, n_out]`. Allocates nothing.
    ///
    /// # Errors
    /// When `x` or `y` is too short; nothing is written then.
    pub fn apply(&self, kernels: Kernels, rows: usize, x: Rows, y: RowsMut) -> Result<(), KernelError> {
        let _ = kernels;
        x.check("x", rows, self.n_in)?;
        y.check("y", rows, self.n_out)?;
        reference::apply(self, rows, x, y);
        Ok(())
    }

    /// Weight `(row, column)` of the original matrix.
    fn at(&self, row: usize, column: usize) -> f32 {
        self.data[(row / PANEL * self.n_in + column) * PANEL + row % PANEL]
    }
}
