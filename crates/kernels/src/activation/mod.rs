//! Elementwise activations and the derivatives that training needs.
//!
//! Names follow PyTorch: `silu`, `gelu` (exact), `gelu(approximate="tanh")`, and CLIP's `quick_gelu`.

mod lanes;
pub mod reference;

use crate::error::check_len;
use crate::{KernelError, Kernels};

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x sigmoid(x)`.
    Silu,
    /// `x Phi(x)`, the exact GELU.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// `x sigmoid(1.702 x)`, as in CLIP.
    GeluQuick,
    /// `ln(1 + exp(x))`, without overflow.
    Softplus,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    Relu,
}

/// `y = f(x)`, elementwise.
///
/// # Errors
/// When the lengths differ.
pub fn forward(kernels: Kernels, activation: Activation, x: &[f32], y: &mut [f32]) -> Result<(), KernelError> {
    check_len("y", y.len(), x.len())?;
    y.copy_from_slice(x);
    apply(kernels, activation, y);
    Ok(())
}

/// `x = f(x)`, elementwise in place.
pub fn apply(kernels: Kernels, activation: Activation, x: &mut [f32]) {
    lanes::apply(kernels, activation, x);
}

/// `grad_x = f'(x) grad_y`, elementwise.
///
/// # Errors
/// When the lengths differ.
pub fn backward(
    kernels: Kernels,
    activation: Activation,
    (x, grad_y): (&[f32], &[f32]),
    grad_x: &mut [f32],
) -> Result<(), KernelError> {
    check_len("grad of y", grad_y.len(), x.len())?;
    check_len("grad of x", grad_x.len(), x.len())?;
    lanes::backward(kernels, activation, (x, grad_y), grad_x);
    Ok(())
}
