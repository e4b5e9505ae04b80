//! RMSNorm and LayerNorm over the last dimension.
//!
//! RMSNorm: Zhang and Sennrich, arXiv 1910.07467; LayerNorm: Ba et al., arXiv 1607.06450; both with
//! `eps` under the root, as in PyTorch and in `mamba_ssm.ops.triton.layer_norm`:
//!
//! ```text
//! rms:   y = x / sqrt(mean(x^2) + eps) * weight + bias
//! layer: y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
//! ```

pub mod reference;
mod rows;

use crate::error::check_len;
use crate::{KernelError, Kernels, Rows, RowsMut};

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Divides by the root of the mean square.
    Rms,
    /// Subtracts the mean, divides by the standard deviation.
    Layer,
}

/// A normalisation with its parameters.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a, T = f32> {
    /// Which one.
    pub kind: NormKind,
    /// `[width]`; its length is the width of a row.
    pub weight: &'a [T],
    /// `[width]`, if there is one.
    pub bias: Option<&'a [T]>,
    /// Added to the variance or mean square.
    pub eps: T,
}

/// Gradients that [`backward`] writes; earlier contents are overwritten, not added to.
#[derive(Debug)]
pub struct NormGrads<'a, T = f32> {
    /// `[rows, width]`.
    pub x: RowsMut<'a, T>,
    /// `[width]`, summed over the rows.
    pub weight: &'a mut [T],
    /// `[width]`, summed over the rows; present exactly when the norm has a bias.
    pub bias: Option<&'a mut [T]>,
}

impl<T> Norm<'_, T> {
    /// Values per row.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    fn check(&self) -> Result<(), KernelError> {
        self.bias.map_or(Ok(()), |bias| check_len("bias", bias.len(), self.width()))
    }
}

/// `y = norm(x)` for `rows` rows.
///
/// # Errors
/// When an argument does not hold `[rows, width]`; nothing is written then.
pub fn forward(kernels: Kernels, norm: &Norm, rows: usize, x: Rows, y: RowsMut) -> Result<(), KernelError> {
    norm.check()?;
    x.check("x", rows, norm.width())?;
    y.check("y", rows, norm.width())?;
    rows::forward(kernels, norm, rows, x, y);
    Ok(())
}

/// `residual += x; y = norm(residual)` for contiguous `residual`, `x` and `y` `[rows, width]`, the fused
/// opening of a block of a pre-norm network.
///
/// # Errors
/// When the arguments do not hold the same whole number of rows; nothing is written then.
pub fn add_forward(
    kernels: Kernels,
    norm: &Norm,
    x: &[f32],
    residual: &mut [f32],
    y: &mut [f32],
) -> Result<(), KernelError> {
    let width = norm.width();
    let rows = x.len().checked_div(width).unwrap_or(0);
    check_len("x", x.len(), rows * width)?;
    check_len("residual", residual.len(), x.len())?;
    check_len("y", y.len(), x.len())?;
    norm.check()?;
    rows::add_forward(kernels, norm, x, residual, y);
    Ok(())
}

/// Gradients of [`forward`] for `rows` rows; the statistics are computed again.
///
/// # Errors
/// When an argument does not hold `[rows, width]`; nothing is written then.
pub fn backward(
    kernels: Kernels,
    norm: &Norm,
    rows: usize,
    (x, grad_y): (Rows, Rows),
    grads: NormGrads,
) -> Result<(), KernelError> {
    norm.check()?;
    x.check("x", rows, norm.width())?;
    grad_y.check("grad of y", rows, norm.width())?;
    grads.x.check("grad of x", rows, norm.width())?;
    check_len("grad of weight", grads.weight.len(), norm.width())?;
    match (norm.bias, &grads.bias) {
        (Some(_), Some(bias)) => check_len("grad of bias", bias.len(), norm.width())?,
        (None, None) => {}
        (Some(_), None) => return Err(KernelError::Missing { present: "bias", missing: "grad of bias" }),
        (None, Some(_)) => return Err(KernelError::Missing { present: "grad of bias", missing: "bias" }),
    }
    rows::backward(kernels, norm, rows, (x, grad_y), grads);
    Ok(())
}
