//! Activations of a whole register.

use super::Activation;
use crate::parallel::{SharedRows, for_each};
use crate::simd::{Op, Simd, math};
use crate::{Kernels, Threads};

/// Values that one thread works on at a time.
const PIECE: usize = 1 << 14;

/// Factor inside GELU's tanh approximation, `sqrt(2 / pi)`.
const TANH_SCALE: f32 = 0.797_884_6;
const TANH_CUBE: f32 = 0.044_715;
/// Factor of `x` inside CLIP's GELU.
const QUICK: f32 = 1.702;

/// Applies `activation` to `x` in place.
pub(super) fn apply(kernels: Kernels, activation: Activation, x: &mut [f32]) {
    in_pieces(kernels, x, |_, x| kernels.run(Apply { activation, x }));
}

/// Writes `f'(x) grad_y`.
pub(super) fn backward(kernels: Kernels, activation: Activation, (x, dy): (&[f32], &[f32]), dx: &mut [f32]) {
    in_pieces(kernels, dx, |range, dx| {
        kernels.run(Backward { activation, x: &x[range.clone()], dy: &dy[range], dx });
    });
}

/// Calls `work` with disjoint pieces of `values` and where they lie.
fn in_pieces(kernels: Kernels, values: &mut [f32], work: impl Fn(std::ops::Range<usize>, &mut [f32]) + Send + Sync) {
    let len = values.len();
    if kernels.threads() == Threads::One || len <= PIECE {
        return work(0..len, values);
    }
    let values = SharedRows::flat(values);
    for_each(kernels.threads(), len.div_ceil(PIECE), |index| {
        let range = index * PIECE..len.min((index + 1) * PIECE);
        // Safety: pieces do not overlap.
        work(range.clone(), unsafe { values.part(0, range) });
    });
}

struct Apply<'a> {
    activation: Activation,
    x: &'a mut [f32],
}

impl Op for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.x.chunks_mut(S::LANES) {
            s.store_partial(value(s, self.activation, s.load_partial(x)), x);
        }
    }
}

struct Backward<'a> {
    activation: Activation,
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Op for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let inputs = self.x.chunks(S::LANES).zip(self.dy.chunks(S::LANES));
        for ((x, dy), dx) in inputs.zip(self.dx.chunks_mut(S::LANES)) {
            let slope = derivative(s, self.activation, s.load_partial(x));
            s.store_partial(s.mul(slope, s.load_partial(dy)), dx);
        }
    }
}

#[inline(always)]
fn value<S: Simd>(s: S, activation: Activation, x: S::V) -> S::V {
    match activation {
        Activation::Silu => math::silu(s, x),
        Activation::Gelu => s.mul(x, normal_cdf(s, x)),
        Activation::GeluTanh => s.mul(x, math::sigmoid(s, gelu_argument(s, x))),
        Activation::GeluQuick => s.mul(x, math::sigmoid(s, s.mul(s.splat(QUICK), x))),
        Activation::Softplus => math::softplus(s, x),
        Activation::Sigmoid => math::sigmoid(s, x),
        Activation::Tanh => math::tanh(s, x),
        Activation::Relu => s.max(s.zero(), x),
    }
}

#[inline(always)]
fn derivative<S: Simd>(s: S, activation: Activation, x: S::V) -> S::V {
    let one = s.splat(1.0);
    match activation {
        Activation::Silu => math::silu_with_grad(s, x).1,
        Activation::Gelu => {
            let density = s.mul(s.splat(TANH_SCALE * 0.5), math::exp(s, s.mul(s.splat(-0.5), s.mul(x, x))));
            s.fma(x, density, normal_cdf(s, x))
        }
        Activation::GeluTanh => {
            let argument = gelu_argument(s, x);
            let slope = s.fma(s.splat(6.0 * TANH_SCALE * TANH_CUBE), s.mul(x, x), s.splat(2.0 * TANH_SCALE));
            // 1 - sigmoid(a) = sigmoid(-a), without the cancellation.
            let (yes, no) = (math::sigmoid(s, argument), math::sigmoid(s, s.sub(s.zero(), argument)));
            s.fma(s.mul(x, slope), s.mul(yes, no), yes)
        }
        Activation::GeluQuick => math::silu_with_grad(s, s.mul(s.splat(QUICK), x)).1,
        Activation::Softplus => math::sigmoid(s, x),
        Activation::Sigmoid => {
            let y = math::sigmoid(s, x);
            s.fnma(y, y, y)
        }
        Activation::Tanh => {
            let y = math::tanh(s, x);
            s.fnma(y, y, one)
        }
        Activation::Relu => s.select_lt(s.zero(), x, one, s.zero()),
    }
}

/// `Phi(x)`, the distribution function of the normal distribution.
#[inline(always)]
fn normal_cdf<S: Simd>(s: S, x: S::V) -> S::V {
    let erf = math::erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    s.fma(s.splat(0.5), erf, s.splat(0.5))
}

/// The `a` for which `sigmoid(a)` is `(1 + tanh(a / 2)) / 2`, the factor of GELU's tanh approximation.
#[inline(always)]
fn gelu_argument<S: Simd>(s: S, x: S::V) -> S::V {
    let cube = s.mul(s.mul(x, x), x);
    s.mul(s.splat(2.0 * TANH_SCALE), s.fma(s.splat(TANH_CUBE), cube, x))
}
