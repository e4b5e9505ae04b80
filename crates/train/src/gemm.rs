//! Dense products on plain slices, the three that a linear layer needs.
//!
//! Everything is row-major; weights have PyTorch's layout `[n_out, n_in]`. Products run on the current
//! rayon pool, so that a caller inside a pool of one thread gets a single-threaded product.

use rayon::prelude::*;
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;

/// What a product does with the earlier contents of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// Overwrites them.
    Set,
    /// Adds to them.
    Add,
}

/// `y = x W^T + bias`: `x` `[rows, n_in]`, `w` `[n_out, n_in]`, `y` `[rows, n_out]`.
pub(crate) fn forward(write: Write, x: &[f32], (w, bias): (&[f32], Option<&[f32]>), n_in: usize, y: &mut [f32]) {
    let (rows, n_out) = (x.len() / n_in, w.len() / n_in);
    product(write, view(x, [rows, n_in]), transposed(w, [n_out, n_in]), bias, y);
}

/// `dx = dy W`: `dy` `[rows, n_out]`, `w` `[n_out, n_in]`, `dx` `[rows, n_in]`.
pub(crate) fn backward_input(write: Write, dy: &[f32], w: &[f32], n_in: usize, dx: &mut [f32]) {
    let n_out = w.len() / n_in;
    product(write, view(dy, [dy.len() / n_out, n_out]), view(w, [n_out, n_in]), None, dx);
}

/// `dw = dy^T x`: `dy` `[rows, n_out]`, `x` `[rows, n_in]`, `dw` `[n_out, n_in]`.
pub(crate) fn backward_weight(write: Write, dy: &[f32], x: &[f32], n_in: usize, dw: &mut [f32]) {
    let n_out = dw.len() / n_in;
    sum_over_rows(write, (dy, n_out), (x, n_in), dw, |write, dy, x, dw| {
        let rows = x.len() / n_in;
        product(write, transposed(dy, [rows, n_out]), view(x, [rows, n_in]), None, dw);
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

type View<'a> = NdTensorView<'a, f32, 2>;

fn view(data: &[f32], shape: [usize; 2]) -> View<'_> {
    NdTensorView::from_data(shape, data)
}

/// The transpose of row-major `data` of `shape`.
fn transposed(data: &[f32], [rows, columns]: [usize; 2]) -> View<'_> {
    NdTensorView::from_slice_with_strides([columns, rows], data, [1, columns])
        .expect("the shape was derived from the length")
}

fn product(write: Write, a: View, b: View, bias: Option<&[f32]>, out: &mut [f32]) {
    let options = GemmOptions {
        beta: if write == Write::Add { 1.0 } else { 0.0 },
        bias: bias.map(BiasVector::Row),
        ..GemmOptions::default()
    };
    GemmExecutor::new()
        .gemm(out, GemmInputA::Unpacked(a), GemmInputB::Unpacked(b), options)
        .expect("the callers derive all shapes from the lengths");
}
