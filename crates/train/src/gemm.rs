//! Dense products on plain slices, the three that a linear layer needs.
//!
//! Everything is row-major; weights have PyTorch's layout `[n_out, n_in]`. Products run on the current
//! rayon pool, so that a caller inside a pool of one thread gets a single-threaded product.

use std::fmt;

use rayon::prelude::*;
use robomamba_kernels::Kernels;
use robomamba_kernels::matmul::{Factor, Format, multiply_bf16, multiply_f32};
use serde::{Deserialize, Serialize};

pub(crate) use robomamba_kernels::matmul::Write;

/// Numbers in which the products of linear layers and of attention are computed, forward and backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Both factors are rounded to bf16, sums are f32, as are weights, activations, gradients and the optimiser: the mixed
    /// precision of Micikevicius et al., arXiv 1710.03740, PyTorch's `autocast`. On a Zen 4 `tabletop` learns from one and
    /// a half times as many images per second. Where products in bf16 are clearly slower than in f32, or there is no
    /// instruction for them, it is [`Precision::F32`]; see `Bf16Products` of the kernels.
    Bf16,
}

impl Precision {
    /// The same for the kernels.
    pub(crate) fn format(self) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::Bf16 => Format::Bf16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// `y = x W^T + bias`: `x` `[rows, n_in]`, `w` `[n_out, n_in]`, `y` `[rows, n_out]`.
pub(crate) fn forward(
    precision: Precision,
    write: Write,
    x: &[f32],
    (w, bias): (&[f32], Option<&[f32]>),
    n_in: usize,
    y: &mut [f32],
) {
    let (rows, n_out) = (x.len() / n_in, w.len() / n_in);
    product(precision, write, [Factor::new(x, [rows, n_in]), Factor::transposed(w, [n_out, n_in])], bias, y);
}

/// `dx = dy W`: `dy` `[rows, n_out]`, `w` `[n_out, n_in]`, `dx` `[rows, n_in]`.
pub(crate) fn backward_input(precision: Precision, write: Write, dy: &[f32], w: &[f32], n_in: usize, dx: &mut [f32]) {
    let n_out = w.len() / n_in;
    product(precision, write, [Factor::new(dy, [dy.len() / n_out, n_out]), Factor::new(w, [n_out, n_in])], None, dx);
}

/// `dw = dy^T x`: `dy` `[rows, n_out]`, `x` `[rows, n_in]`, `dw` `[n_out, n_in]`.
pub(crate) fn backward_weight(precision: Precision, write: Write, dy: &[f32], x: &[f32], n_in: usize, dw: &mut [f32]) {
    let n_out = dw.len() / n_in;
    sum_over_rows(write, (dy, n_out), (x, n_in), dw, |write, dy, x, dw| {
        let rows = x.len() / n_in;
        product(precision, write, [Factor::transposed(dy, [rows, n_out]), Factor::new(x, [rows, n_in])], None, dw);
    });
}

/// `db = sum of the rows of dy` `[rows, n_out]`.
pub(crate) fn backward_bias(write: Write, dy: &[f32], db: &mut [f32]) {
    let n_out = db.len();
    sum_over_rows(write, (dy, n_out), (dy, n_out), db, |write, dy, _, db| {
        if write == Write::Set {
            db.fill(0.0);
        }
        dy.chunks_exact(n_out).for_each(|row| add(db, row));
    });
}

/// Rows of one part of a sum over rows. It does not depend on the number of threads, so that sums are the same to the
/// bit.
const PART_ROWS: usize = 2048;

/// Computes a sum over the rows of `a` and `b`, each a matrix and its width, as the sum of what `part(write, rows of a,
/// rows of b, out)` gives for runs of rows. The products themselves share only their output between threads, and that of
/// a weight is small.
fn sum_over_rows(
    write: Write,
    (a, a_width): (&[f32], usize),
    (b, b_width): (&[f32], usize),
    out: &mut [f32],
    part: impl Fn(Write, &[f32], &[f32], &mut [f32]) + Sync,
) {
    if a.len() / a_width <= PART_ROWS {
        return part(write, a, b, out);
    }
    let parts: Vec<Vec<f32>> = a
        .par_chunks(PART_ROWS * a_width)
        .zip(b.par_chunks(PART_ROWS * b_width))
        .map(|(a, b)| {
            let mut sum = vec![0.0; out.len()];
            part(Write::Add, a, b, &mut sum);
            sum
        })
        .collect();
    if write == Write::Set {
        out.fill(0.0);
    }
    parts.iter().for_each(|part| add(out, part));
}

/// `sum += values`, value by value.
pub(crate) fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

fn product(precision: Precision, write: Write, factors: [Factor; 2], bias: Option<&[f32]>, out: &mut [f32]) {
    let multiply = match precision {
        Precision::F32 => multiply_f32,
        Precision::Bf16 => multiply_bf16,
    };
    multiply(Kernels::detect(), write, factors, bias, out).expect("the callers derive all shapes from the lengths");
}
