//! The norms as their formulas say, in any float type.

use num_traits::{Float, NumCast};

use super::{Norm, NormGrads, NormKind};
use crate::{Rows, RowsMut};

/// Shift and inverse scale of one row: `normalised = (x - shift) * inverse`.
fn statistics<T: Float>(norm: &Norm<T>, x: &[T]) -> (T, T) {
    let count = <T as NumCast>::from(x.len()).unwrap_or_else(T::one);
    let sum = |f: &dyn Fn(T) -> T| x.iter().fold(T::zero(), |sum, &x| sum + f(x));
    let shift = match norm.kind {
        NormKind::Rms => T::zero(),
        NormKind::Layer => sum(&|x| x) / count,
    };
    let spread = sum(&|x| (x - shift) * (x - shift)) / count;
    (shift, T::one() / (spread + norm.eps).sqrt())
}

/// `y = norm(x)`; see [`super::forward`]. Arguments must fit the shape.
pub fn forward<T: Float>(norm: &Norm<T>, rows: usize, x: Rows<T>, mut y: RowsMut<T>) {
    let width = norm.width();
    for row in 0..rows {
        let x = x.row(row, width);
        let (shift, inverse) = statistics(norm, x);
        for (i, y) in y.row(row, width).iter_mut().enumerate() {
            let bias = norm.bias.map_or(T::zero(), |bias| bias[i]);
            *y = (x[i] - shift) * inverse * norm.weight[i] + bias;
        }
    }
}

/// Gradients of the forward pass; see [`super::backward`].
///
/// With `n` the normalised row and `g = weight * dy`:
/// `dx = inverse * (g - mean(g) [layer only] - n * mean(g n))`.
pub fn backward<T: Float>(norm: &Norm<T>, rows: usize, (x, grad_y): (Rows<T>, Rows<T>), mut grads: NormGrads<T>) {
    let width = norm.width();
    let count = <T as NumCast>::from(width).unwrap_or_else(T::one);
    grads.weight.fill(T::zero());
    if let Some(bias) = &mut grads.bias {
        bias.fill(T::zero());
    }
    for row in 0..rows {
        let (x, dy) = (x.row(row, width), grad_y.row(row, width));
        let (shift, inverse) = statistics(norm, x);
        let normalised = |i: usize| (x[i] - shift) * inverse;
        let mut mean_g = T::zero();
        let mut mean_gn = T::zero();
        for i in 0..width {
            let g = norm.weight[i] * dy[i];
            mean_g = mean_g + g / count;
            mean_gn = mean_gn + g * normalised(i) / count;
            grads.weight[i] = grads.weight[i] + dy[i] * normalised(i);
            if let Some(bias) = &mut grads.bias {
                bias[i] = bias[i] + dy[i];
            }
        }
        if norm.kind == NormKind::Rms {
            mean_g = T::zero();
        }
        for (i, dx) in grads.x.row(row, width).iter_mut().enumerate() {
            *dx = inverse * (norm.weight[i] * dy[i] - mean_g - normalised(i) * mean_gn);
        }
    }
}
