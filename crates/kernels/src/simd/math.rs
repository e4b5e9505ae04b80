//! Elementary functions of a whole register, each with the largest error that the tests allow.
//!
//! Polynomials without another source are minimax fits (Remez exchange at 40 digits) of the relative
//! error over the interval that is named.

use std::f32::consts::LOG2_E;

use super::Simd;

/// Horner's rule; the coefficient of the highest power comes first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut sum = s.splat(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = s.fma(sum, x, s.splat(coefficient));
    }
    sum
}

/// `2^x` on `[0, 1]`: a fit that meets both ends exactly (9.2e-8), so that decays close to 1 carry no bias.
const EXP2: [f32; 6] = [0.001_879_318_7, 0.008_990_995, 0.055_818_676, 0.240_159_27, 0.693_151_7, 1.0];

/// `2^x`, relative error below 2e-7 of the exact power of the f32 `x`; exactly 1 at 0.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    s.scale_floor(polynomial(s, s.fraction(x), EXP2), x)
}

/// `e^x`, relative error below 4e-7; saturates at the ends of the range of f32.
///
/// `e^x = 2^n 2^f` with `n + f = x log2 e`; `f` comes from `x - n ln 2`, which loses no digits.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // The logarithm of 2 in two parts, of which the first has trailing zeros (Cody and Waite).
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = s.min(s.splat(88.7), s.max(s.splat(-87.3), x));
    let product = s.mul(x, s.splat(LOG2_E));
    let n = s.sub(product, s.fraction(product));
    let r = s.fnma(n, s.splat(LN_2_LOW), s.fnma(n, s.splat(LN_2_HIGH), x));
    s.scale_floor(polynomial(s, s.mul(r, s.splat(LOG2_E)), EXP2), n)
}

/// `ln(1 + x)` for `x` in `[0, 1]`, relative error below 3e-7.
///
/// `ln(1 + x) = 2 artanh(s)` with `s = x / (2 + x)`, whose series in `s^2 <= 1/9` is cut by a fit (4e-9).
#[inline(always)]
fn ln_1p_unit<S: Simd>(s: S, x: S::V) -> S::V {
    const P: [f32; 5] = [0.281_783_34, 0.279_606_03, 0.400_249_1, 0.666_663_15, 2.0];
    let ratio = s.div_fast(x, s.add(x, s.splat(2.0)));
    s.mul(ratio, polynomial(s, s.mul(ratio, ratio), P))
}

/// `softplus(x) = ln(1 + e^x)` and `sigmoid(x)`, its derivative, which share an exponential.
///
/// `softplus(x) = max(x, 0) + ln(1 + e^-|x|)` never overflows and equals `x` in f32 beyond 20.
#[inline(always)]
pub(crate) fn softplus_sigmoid<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let e = exp(s, s.sub(s.zero(), s.abs(x)));
    let softplus = s.add(s.max(s.zero(), x), ln_1p_unit(s, e));
    let top = s.select_lt(x, s.zero(), e, s.splat(1.0));
    (softplus, s.div_fast(top, s.add(s.splat(1.0), e)))
}

/// `softplus(x) = ln(1 + e^x)`, relative error below 4e-7.
#[inline(always)]
pub(crate) fn softplus<S: Simd>(s: S, x: S::V) -> S::V {
    softplus_sigmoid(s, x).0
}

/// `1 / (1 + e^-x)`, relative error below 4e-7.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let e = exp(s, s.sub(s.zero(), x));
    s.div_fast(s.splat(1.0), s.add(s.splat(1.0), e))
}

/// `x sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    let e = exp(s, s.sub(s.zero(), x));
    s.div_fast(x, s.add(s.splat(1.0), e))
}

/// `silu(x)` and its derivative `sigmoid(x) (1 + x (1 - sigmoid(x)))`.
#[inline(always)]
pub(crate) fn silu_with_grad<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let sigmoid = sigmoid(s, x);
    let silu = s.mul(x, sigmoid);
    (silu, s.fma(silu, s.sub(s.splat(1.0), sigmoid), sigmoid))
}

/// The error function, absolute error below 5e-7: the rational fit of Eigen's `perf`.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    const P: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_5e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    /// Beyond it the error function is 1 in f32.
    const ERF_MAX: f32 = 3.925;
    const Q: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_474e-2];
    odd_rational(s, x, (P, Q), ERF_MAX)
}

/// The hyperbolic tangent, absolute error below 5e-7: the rational fit of Eigen's `ptanh`.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    const P: [f32; 7] =
        [-2.760_768_5e-16, 2.000_188e-13, -8.604_672e-11, 5.122_297e-8, 1.485_722_4e-5, 6.372_619_3e-4, 4.893_524_6e-3];
    /// Beyond it the function is 1 to within the error.
    const TANH_MAX: f32 = 7.9;
    const Q: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];
    odd_rational(s, x, (P, Q), TANH_MAX)
}

/// `x P(x^2) / Q(x^2)` up to `max`, and exactly 1 or -1 beyond it, so that products with large numbers
/// vanish where they should.
#[inline(always)]
fn odd_rational<S: Simd, const N: usize, const M: usize>(
    s: S,
    x: S::V,
    (p, q): ([f32; N], [f32; M]),
    max: f32,
) -> S::V {
    let (low, high) = (s.splat(-max), s.splat(max));
    let inner = s.min(high, s.max(low, x));
    let square = s.mul(inner, inner);
    let value = s.div_fast(s.mul(inner, polynomial(s, square, p)), polynomial(s, square, q));
    s.select_lt(x, low, s.splat(-1.0), s.select_lt(high, x, s.splat(1.0), value))
}
