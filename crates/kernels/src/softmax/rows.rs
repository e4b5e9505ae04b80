//! Softmax, vectorised over the values of a row.

use std::f32::consts::LOG2_E;

use crate::Kernels;
use crate::parallel::{SharedRows, for_each};
use crate::simd::{Op, Simd, math};

/// Rows that are worked on at a time.
const ROWS: usize = 32;

/// Softmax of every row of `x` `[rows, width]`.
pub(super) fn apply(kernels: Kernels, width: usize, x: &mut [f32]) {
    let (piece, len) = (ROWS * width.max(1), x.len());
    let x = SharedRows::flat(x);
    for_each(kernels.threads(), len.div_ceil(piece), |index| {
        // Safety: pieces do not overlap.
        let x = unsafe { x.part(0, index * piece..len.min((index + 1) * piece)) };
        kernels.run(Apply { width, x });
    });
}

/// Gradient of every row.
pub(super) fn backward(kernels: Kernels, width: usize, (y, dy): (&[f32], &[f32]), dx: &mut [f32]) {
    let (piece, len) = (ROWS * width.max(1), y.len());
    let dx = SharedRows::flat(dx);
    for_each(kernels.threads(), len.div_ceil(piece), |index| {
        let range = index * piece..len.min((index + 1) * piece);
        // Safety: pieces do not overlap.
        let dx = unsafe { dx.part(0, range.clone()) };
        kernels.run(Backward { width, y: &y[range.clone()], dy: &dy[range], dx });
    });
}

struct Apply<'a> {
    width: usize,
    x: &'a mut [f32],
}

impl Op for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.x.chunks_exact_mut(self.width) {
            softmax(s, row, 1.0);
        }
    }
}

struct Backward<'a> {
    width: usize,
    y: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Op for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.y.chunks_exact(self.width).zip(self.dy.chunks_exact(self.width));
        for ((y, dy), dx) in rows.zip(self.dx.chunks_exact_mut(self.width)) {
            dx.copy_from_slice(dy);
            softmax_backward(s, y, dx, 1.0);
        }
    }
}

/// `row = softmax(scale row)` for a row of at least one value.
#[inline(always)]
pub(crate) fn softmax<S: Simd>(s: S, row: &mut [f32], scale: f32) {
    let inverse = exponentials(s, row, scale);
    multiply(s, row, inverse);
}

/// `row = factor row`.
#[inline(always)]
pub(crate) fn multiply<S: Simd>(s: S, row: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    for x in row.chunks_mut(S::LANES) {
        s.store_partial(s.mul(s.load_partial(x), factor), x);
    }
}

/// The softmax but for its denominator, whose inverse is returned: `row = exp(scale (row - max(row)))`.
///
/// The exponent is one multiplication and addition to the base 2. What that loses grows with the distance from the
/// largest value, where the exponentials vanish.
#[inline(always)]
pub(crate) fn exponentials<S: Simd>(s: S, row: &mut [f32], scale: f32) -> f32 {
    let factor = s.splat(scale);
    let whole = row.chunks_exact(S::LANES);
    let rest = whole.remainder();
    let mut max = s.splat(f32::NEG_INFINITY);
    for x in whole {
        max = s.max(max, s.mul(s.load(x), factor));
    }
    let mut top = s.reduce_max(max);
    for x in rest {
        top = top.max(x * scale);
    }
    let (factor, offset) = (s.splat(scale * LOG2_E), s.splat(-top * LOG2_E));
    let mut sum = 0.0;
    let mut sums = s.zero();
    for x in row.chunks_mut(S::LANES) {
        let e = math::exp2(s, s.fma(s.load_partial(x), factor, offset));
        s.store_partial(e, x);
        if x.len() == S::LANES {
            sums = s.add(sums, e);
        } else {
            sum = x.iter().sum();
        }
    }
    1.0 / (sum + s.reduce_sum(sums))
}

/// Turns the gradient of `y = softmax(scale x)` into that of `x`, in place.
#[inline(always)]
pub(crate) fn softmax_backward<S: Simd>(s: S, y: &[f32], grad: &mut [f32], scale: f32) {
    let mut dot = s.zero();
    for (y, dy) in y.chunks(S::LANES).zip(grad.chunks(S::LANES)) {
        dot = s.fma(s.load_partial(y), s.load_partial(dy), dot);
    }
    let (dot, scale) = (s.splat(s.reduce_sum(dot)), s.splat(scale));
    for (y, grad) in y.chunks(S::LANES).zip(grad.chunks_mut(S::LANES)) {
        let value = s.mul(s.mul(s.load_partial(y), scale), s.sub(s.load_partial(grad), dot));
        s.store_partial(value, grad);
    }
}
