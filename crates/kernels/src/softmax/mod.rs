//! Softmax over the last dimension, with the row's maximum subtracted first.

pub mod reference;
pub(crate) mod rows;

use crate::error::check_len;
use crate::{KernelError, Kernels};

/// `x = softmax(x)` over every row of the contiguous `x` `[rows, width]`, in place.
///
/// # Errors
/// When `x` does not hold whole rows.
pub fn apply(kernels: Kernels, width: usize, x: &mut [f32]) -> Result<(), KernelError> {
    check_rows(x.len(), width)?;
    rows::apply(kernels, width, x);
    Ok(())
}

/// `grad_x = y (grad_y - sum(y grad_y))` over every row, from the softmax's output `y`; all `[rows, width]`.
///
/// # Errors
/// When the lengths differ or are not whole rows.
pub fn backward(
    kernels: Kernels,
    width: usize,
    (y, grad_y): (&[f32], &[f32]),
    grad_x: &mut [f32],
) -> Result<(), KernelError> {
    check_rows(y.len(), width)?;
    check_len("grad of y", grad_y.len(), y.len())?;
    check_len("grad of x", grad_x.len(), y.len())?;
    rows::backward(kernels, width, (y, grad_y), grad_x);
    Ok(())
}

fn check_rows(len: usize, width: usize) -> Result<(), KernelError> {
    check_len("x", len, len.checked_div(width).unwrap_or(0) * width)
}
