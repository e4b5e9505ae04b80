//! The norms, vectorised over the values of a row.

use super::{Norm, NormGrads, NormKind};
use crate::parallel::{SharedRows, for_each, map};
use crate::simd::{Op, Simd};
use crate::{Kernels, Rows, RowsMut};

/// Rows that are worked on at a time; fixed, so that results do not depend on the number of threads.
const ROWS: usize = 32;

fn piece(index: usize, rows: usize) -> std::ops::Range<usize> {
    index * ROWS..rows.min((index + 1) * ROWS)
}

/// Normalises all rows.
pub(super) fn forward(kernels: Kernels, norm: &Norm, rows: usize, x: Rows, y: RowsMut) {
    let y = SharedRows::new(y);
    for_each(kernels.threads(), rows.div_ceil(ROWS), |index| {
        kernels.run(Forward { norm, x, y: &y, rows: piece(index, rows) });
    });
}

/// Adds `x` to `residual` and normalises all rows of it.
pub(super) fn add_forward(kernels: Kernels, norm: &Norm, x: &[f32], residual: &mut [f32], y: &mut [f32]) {
    let width = norm.width();
    let rows = x.len().checked_div(width).unwrap_or(0);
    let x = Rows::new(x, width);
    let residual = SharedRows::new(RowsMut::new(residual, width));
    let y = SharedRows::new(RowsMut::new(y, width));
    for_each(kernels.threads(), rows.div_ceil(ROWS), |index| {
        kernels.run(AddForward { norm, x, residual: &residual, y: &y, rows: piece(index, rows) });
    });
}

struct Forward<'a> {
    norm: &'a Norm<'a>,
    x: Rows<'a>,
    y: &'a SharedRows<'a>,
    rows: std::ops::Range<usize>,
}

impl Op for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.norm.width();
        for row in self.rows {
            // Safety: every piece has rows of its own.
            normalise(s, self.norm, self.x.row(row, width), unsafe { self.y.part(row, 0..width) });
        }
    }
}

struct AddForward<'a> {
    norm: &'a Norm<'a>,
    x: Rows<'a>,
    residual: &'a SharedRows<'a>,
    y: &'a SharedRows<'a>,
    rows: std::ops::Range<usize>,
}

impl Op for AddForward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.norm.width();
        for row in self.rows {
            // Safety: every piece has rows of its own.
            let (residual, y) = unsafe { (self.residual.part(row, 0..width), self.y.part(row, 0..width)) };
            for (sum, x) in residual.chunks_mut(S::LANES).zip(self.x.row(row, width).chunks(S::LANES)) {
                s.store_partial(s.add(s.load_partial(sum), s.load_partial(x)), sum);
            }
            normalise(s, self.norm, residual, y);
        }
    }
}

/// Shift and inverse scale of one row: `normalised = (x - shift) * inverse`.
#[inline(always)]
fn statistics<S: Simd>(s: S, norm: &Norm, x: &[f32]) -> (f32, f32) {
    let shift = match norm.kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => sum(s, x) / x.len() as f32,
    };
    (shift, 1.0 / (sum_of_squares(s, x, shift) / x.len() as f32 + norm.eps).sqrt())
}

#[inline(always)]
fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut sums = [s.zero(); 4];
    for (i, x) in x.chunks(S::LANES).enumerate() {
        sums[i % 4] = s.add(sums[i % 4], s.load_partial(x));
    }
    s.reduce_sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

#[inline(always)]
fn sum_of_squares<S: Simd>(s: S, x: &[f32], shift: f32) -> f32 {
    let mut sums = [s.zero(); 4];
    let whole = x.chunks_exact(S::LANES);
    // Lanes without a value would add the shift's square, so the rest is summed by itself.
    let rest: f32 = whole.remainder().iter().map(|x| (x - shift) * (x - shift)).sum();
    for (i, x) in whole.enumerate() {
        let x = s.sub(s.load(x), s.splat(shift));
        sums[i % 4] = s.fma(x, x, sums[i % 4]);
    }
    rest + s.reduce_sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

#[inline(always)]
fn normalise<S: Simd>(s: S, norm: &Norm, x: &[f32], y: &mut [f32]) {
    let (shift, inverse) = statistics(s, norm, x);
    let (shift, inverse) = (s.splat(shift), s.splat(inverse));
    for i in (0..x.len()).step_by(S::LANES) {
        let lanes = i..(i + S::LANES).min(x.len());
        let normalised = s.mul(s.sub(s.load_partial(&x[lanes.clone()]), shift), inverse);
        let bias = norm.bias.map_or(s.zero(), |bias| s.load_partial(&bias[lanes.clone()]));
        let scaled = s.fma(normalised, s.load_partial(&norm.weight[lanes.clone()]), bias);
        s.store_partial(scaled, &mut y[lanes]);
    }
}

/// Gradients of all rows; those of the parameters are summed in a fixed order.
pub(super) fn backward(kernels: Kernels, norm: &Norm, rows: usize, (x, grad_y): (Rows, Rows), grads: NormGrads) {
    let NormGrads { x: grad_x, weight, mut bias } = grads;
    let grad_x = SharedRows::new(grad_x);
    let sums = map(kernels.threads(), rows.div_ceil(ROWS), |index| {
        kernels.run(Backward { norm, x, grad_y, grad_x: &grad_x, rows: piece(index, rows) })
    });
    weight.fill(0.0);
    bias.iter_mut().for_each(|bias| bias.fill(0.0));
    for (weights, biases) in &sums {
        weight.iter_mut().zip(weights).for_each(|(sum, value)| *sum += value);
        if let Some(bias) = &mut bias {
            bias.iter_mut().zip(biases).for_each(|(sum, value)| *sum += value);
        }
    }
}

struct Backward<'a> {
    norm: &'a Norm<'a>,
    x: Rows<'a>,
    grad_y: Rows<'a>,
    grad_x: &'a SharedRows<'a>,
    rows: std::ops::Range<usize>,
}

impl Op for Backward<'_> {
    /// Gradients of weight and bias, `[width]` each.
    type Output = (Vec<f32>, Vec<f32>);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let width = self.norm.width();
        let (mut dweight, mut dbias) = (vec![0.0; width], vec![0.0; width]);
        for row in self.rows {
            let rows = (self.x.row(row, width), self.grad_y.row(row, width));
            // Safety: every piece has rows of its own.
            let dx = unsafe { self.grad_x.part(row, 0..width) };
            backward_row(s, self.norm, rows, dx, (&mut dweight, &mut dbias));
        }
        (dweight, dbias)
    }
}

/// With `n` the normalised row and `g = weight dy`:
/// `dx = inverse (g - mean(g) [layer only] - n mean(g n))`.
#[inline(always)]
fn backward_row<S: Simd>(
    s: S,
    norm: &Norm,
    (x, dy): (&[f32], &[f32]),
    dx: &mut [f32],
    (dweight, dbias): (&mut [f32], &mut [f32]),
) {
    let (shift, inverse) = statistics(s, norm, x);
    let (shift, inverse) = (s.splat(shift), s.splat(inverse));
    let (mut sum_g, mut sum_gn) = (s.zero(), s.zero());
    let lanes = |i: usize| i..(i + S::LANES).min(x.len());
    for i in (0..x.len()).step_by(S::LANES) {
        let lanes = lanes(i);
        let normalised = s.mul(s.sub(s.load_partial(&x[lanes.clone()]), shift), inverse);
        let dy = s.load_partial(&dy[lanes.clone()]);
        let g = s.mul(dy, s.load_partial(&norm.weight[lanes.clone()]));
        sum_g = s.add(sum_g, g);
        sum_gn = s.fma(g, normalised, sum_gn);
        let (dweight, dbias) = (&mut dweight[lanes.clone()], &mut dbias[lanes]);
        s.store_partial(s.fma(dy, normalised, s.load_partial(dweight)), dweight);
        s.store_partial(s.add(dy, s.load_partial(dbias)), dbias);
    }
    let mean_g = match norm.kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => s.reduce_sum(sum_g) / x.len() as f32,
    };
    let (mean_g, mean_gn) = (s.splat(mean_g), s.splat(s.reduce_sum(sum_gn) / x.len() as f32));
    for i in (0..x.len()).step_by(S::LANES) {
        let lanes = lanes(i);
        let normalised = s.mul(s.sub(s.load_partial(&x[lanes.clone()]), shift), inverse);
        let g = s.mul(s.load_partial(&dy[lanes.clone()]), s.load_partial(&norm.weight[lanes.clone()]));
        let value = s.mul(inverse, s.fnma(normalised, mean_gn, s.sub(g, mean_g)));
        s.store_partial(value, &mut dx[lanes]);
    }
}
