//! Dense products on plain slices, the three that a linear layer needs.
//!
//! Everything is row-major; weights have PyTorch's layout `[n_out, n_in]`. Products run on the current rayon pool, so a
//! caller inside a pool of one thread gets a single-threaded product.

use std::fmt;

use rayon::prelude::*;
use robomamba_kernels::Kernels;
use robomamba_kernels::matmul::{Factor, Format, multiply_bf16, multiply_f32};
use serde::{Deserialize, Serialize};

pub(crate) use robomamba_kernels::matmul::Write;

/// Number format of the products of linear layers and attention, forward and backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// The format f32.
    #[default]
    F32,
    /// Factors are rounded to bf16; sums, weights, activations, gradients and the optimiser stay f32. This is the mixed
    /// precision of Micikevicius et al., arXiv 1710.03740, and PyTorch's `autocast`. On a Zen 4 `tabletop` trains on
    /// 1.5 times as many images per second. Where bf16 is clearly slower than f32 it is [`Precision::F32`]; see
    /// [`Bf16Products`](robomamba_kernels::Bf16Products).
    Bf16,
}

impl Precision {
    /// The format of the kernels.
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

/// How a product is computed, and what becomes of the values at its destination.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// Number format.
    pub precision: Precision,
    /// Whether the product replaces the values or is added to them.
    pub write: Write,
}

/// The parameters of a linear layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer<'a> {
    /// `[n_out, n_in]`.
    pub weight: &'a [f32],
    /// `[n_out]`.
    pub bias: Option<&'a [f32]>,
    /// Width of its input.
    pub n_in: usize,
}

impl Layer<'_> {
    /// Width of its output.
    pub(crate) fn n_out(&self) -> usize {
        self.weight.len() / self.n_in
    }
}

/// `y = x W^T + bias`: `x` `[rows, n_in]`, `y` `[rows, n_out]`.
pub(crate) fn forward(mode: Mode, layer: Layer, x: &[f32], y: &mut [f32]) {
    let factors = [Factor::new(x, [x.len() / layer.n_in, layer.n_in]), transposed(layer.weight, layer.n_in)];
    product(mode, factors, layer.bias, y);
}

/// `dx = dy W`: `dy` `[rows, n_out]`, `dx` `[rows, n_in]`.
pub(crate) fn backward_input(mode: Mode, layer: Layer, dy: &[f32], dx: &mut [f32]) {
    let n_out = layer.n_out();
    let factors = [Factor::new(dy, [dy.len() / n_out, n_out]), Factor::new(layer.weight, [n_out, layer.n_in])];
    product(mode, factors, None, dx);
}

/// `dw = dy^T x`: `dy` `[rows, n_out]`, `x` `[rows, n_in]`, `dw` `[n_out, n_in]`.
pub(crate) fn backward_weight(mode: Mode, n_in: usize, [dy, x]: [&[f32]; 2], dw: &mut [f32]) {
    let n_out = dw.len() / n_in;
    let matrices = [Matrix { values: dy, width: n_out }, Matrix { values: x, width: n_in }];
    sum_over_rows(mode.write, matrices, dw, |write, [dy, x], dw| {
        let factors = [transposed(dy, n_out), Factor::new(x, [x.len() / n_in, n_in])];
        product(Mode { write, ..mode }, factors, None, dw);
    });
}

/// The matrix with rows of `width`, transposed.
fn transposed(values: &[f32], width: usize) -> Factor<'_> {
    Factor::transposed(values, [values.len() / width, width])
}

/// `db = sum of the rows of dy` `[rows, n_out]`.
pub(crate) fn backward_bias(write: Write, dy: &[f32], db: &mut [f32]) {
    let n_out = db.len();
    sum_over_rows(write, [Matrix { values: dy, width: n_out }; 2], db, |write, [dy, _], db| {
        if write == Write::Set {
            db.fill(0.0);
        }
        dy.chunks_exact(n_out).for_each(|row| add(db, row));
    });
}

/// Rows of one part of a sum over rows. It does not depend on the number of threads, so sums are reproducible.
const PART_ROWS: usize = 2048;

/// Values in rows of `width`.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    values: &'a [f32],
    width: usize,
}

/// Adds up `part(write, rows of both, out)` over runs of rows of two matrices. The products themselves only divide
/// their output among threads, and that of a weight is small.
fn sum_over_rows(
    write: Write,
    matrices: [Matrix; 2],
    out: &mut [f32],
    part: impl Fn(Write, [&[f32]; 2], &mut [f32]) + Sync,
) {
    let [a, b] = matrices;
    if a.values.len() / a.width <= PART_ROWS {
        return part(write, [a.values, b.values], out);
    }
    let parts: Vec<Vec<f32>> = (a.values.par_chunks(PART_ROWS * a.width))
        .zip(b.values.par_chunks(PART_ROWS * b.width))
        .map(|(a, b)| {
            let mut sum = vec![0.0; out.len()];
            part(Write::Add, [a, b], &mut sum);
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

fn product(mode: Mode, factors: [Factor; 2], bias: Option<&[f32]>, out: &mut [f32]) {
    let multiply = match mode.precision {
        Precision::F32 => multiply_f32,
        Precision::Bf16 => multiply_bf16,
    };
    multiply(Kernels::detect(), mode.write, factors, bias, out)
        .expect("the callers derive all shapes from the lengths");
}
