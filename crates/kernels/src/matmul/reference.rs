//! The product as its definition says.

use super::PackedMatrix;
use crate::{Rows, RowsMut};

/// `y = x W^T + bias`, summed in f64; see [`PackedMatrix::apply`]. Arguments must fit the shape.
pub fn apply(matrix: &PackedMatrix, rows: usize, x: Rows, mut y: RowsMut) {
    for row in 0..rows {
        let x = x.row(row, matrix.n_in);
        for (out, y) in y.row(row, matrix.n_out).iter_mut().enumerate() {
            let bias = matrix.bias.as_ref().map_or(0.0, |bias| bias[out] as f64);
            *y = x.iter().enumerate().fold(bias, |sum, (k, &x)| sum + x as f64 * matrix.at(out, k) as f64) as f32;
        }
    }
}
