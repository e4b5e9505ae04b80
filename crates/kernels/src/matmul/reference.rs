//! The product as its definition says.

use super::{Format, PackedMatrix};
use crate::activation::reference as activation;
use crate::{Rows, RowsMut};

/// `y = x W^T + bias`, summed in f64, with the weights as they are stored and the rows of `x` as they are computed
/// with, to the nearest bf16 for [`Format::Bf16`] and to multiples of `max |x| / 127` for [`Format::Int8`], of a 128th
/// of that where there is one row, and activated; see [`PackedMatrix::apply`]. Arguments must fit the shape.
pub fn apply(matrix: &PackedMatrix, rows: usize, x: Rows, mut y: RowsMut) {
    for row in 0..rows {
        let x = x.row(row, matrix.n_in);
        let step =
            x.iter().fold(0.0, |largest: f32, x| largest.max(x.abs())) / if rows == 1 { 127.0 * 128.0 } else { 127.0 };
        let rounded = |x: f32| match matrix.format() {
            Format::F32 => f64::from(x),
            Format::Bf16 => half::bf16::from_f32(x).to_f64(),
            Format::Int8 if step > 0.0 => f64::from((x * step.recip()).round_ties_even() * step),
            Format::Int8 => x.into(),
        };
        for (out, y) in y.row(row, matrix.n_out).iter_mut().enumerate() {
            let bias = matrix.bias.as_ref().map_or(0.0, |bias| bias[out].into());
            let terms = x.iter().enumerate().map(|(k, &x)| rounded(x) * f64::from(matrix.at(out, k)));
            let sum: f64 = terms.fold(bias, |sum, term| sum + term);
            *y = matrix.activation.map_or(sum, |activation| activation::apply(activation, sum)) as f32;
        }
    }
}
