//! Dense products on plain slices, the three that a linear layer needs.
//!
//! Everything is row-major; weights have PyTorch's layout `[n_out, n_in]`. Products run on the current
//! rayon pool, so that a caller inside a pool of one thread gets a single-threaded product.

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
    let (rows, n_out) = (x.len() / n_in, dw.len() / n_in);
    product(write, transposed(dy, [rows, n_out]), view(x, [rows, n_in]), None, dw);
}

/// `db = sum of the rows of dy` `[rows, n_out]`.
pub(crate) fn backward_bias(write: Write, dy: &[f32], db: &mut [f32]) {
    if write == Write::Set {
        db.fill(0.0);
    }
    for row in dy.chunks_exact(db.len()) {
        for (sum, value) in db.iter_mut().zip(row) {
            *sum += value;
        }
    }
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
