//! Activations as their definitions say, in any float type.

use num_traits::{Float, NumCast};

use super::Activation;

fn of<T: Float>(value: f64) -> T {
    <T as NumCast>::from(value).unwrap_or_else(T::nan)
}

/// `1 / (1 + exp(-x))`.
pub fn sigmoid<T: Float>(x: T) -> T {
    if x >= T::zero() { T::one() / (T::one() + (-x).exp()) } else { x.exp() / (T::one() + x.exp()) }
}

/// `ln(1 + exp(x))` without overflow; above 20 it is `x`, as in PyTorch.
pub fn softplus<T: Float>(x: T) -> T {
    if x > of(20.0) { x } else { x.exp().ln_1p() }
}

/// `x * sigmoid(x)`.
pub fn silu<T: Float>(x: T) -> T {
    x * sigmoid(x)
}

/// Derivative of [`silu`].
pub fn silu_grad<T: Float>(x: T) -> T {
    let s = sigmoid(x);
    s * (T::one() + x * (T::one() - s))
}

/// The error function.
pub fn erf<T: Float>(x: T) -> T {
    of(libm::erf(x.to_f64().unwrap_or(f64::NAN)))
}

/// `x Phi(x)` with the normal distribution's `Phi`: GELU as defined.
pub fn gelu<T: Float>(x: T) -> T {
    of::<T>(0.5) * x * (T::one() + erf(x * of(std::f64::consts::FRAC_1_SQRT_2)))
}

/// Derivative of [`gelu`]: `Phi(x) + x phi(x)`.
pub fn gelu_grad<T: Float>(x: T) -> T {
    let cdf = of::<T>(0.5) * (T::one() + erf(x * of(std::f64::consts::FRAC_1_SQRT_2)));
    let density =
        (-of::<T>(0.5) * x * x).exp() * of(0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
    cdf + x * density
}

/// The tanh approximation of GELU (`gelu_new` in `transformers`).
pub fn gelu_tanh<T: Float>(x: T) -> T {
    let inner = of::<T>(std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2)
        * (x + of::<T>(0.044_715) * x * x * x);
    of::<T>(0.5) * x * (T::one() + inner.tanh())
}

/// The sigmoid approximation of GELU (`quick_gelu` of CLIP).
pub fn gelu_quick<T: Float>(x: T) -> T {
    x * sigmoid(of::<T>(1.702) * x)
}

/// Any activation.
pub fn apply<T: Float>(activation: Activation, x: T) -> T {
    match activation {
        Activation::Silu => silu(x),
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => gelu_tanh(x),
        Activation::GeluQuick => gelu_quick(x),
        Activation::Softplus => softplus(x),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Relu => x.max(T::zero()),
    }
}

/// The derivative of any activation.
pub fn derivative<T: Float>(activation: Activation, x: T) -> T {
    let one = T::one();
    match activation {
        Activation::Silu => silu_grad(x),
        Activation::Gelu => gelu_grad(x),
        Activation::GeluTanh => gelu_tanh_grad(x),
        Activation::GeluQuick => silu_grad(of::<T>(1.702) * x),
        Activation::Softplus => sigmoid(x),
        Activation::Sigmoid => sigmoid(x) * (one - sigmoid(x)),
        Activation::Tanh => one - x.tanh() * x.tanh(),
        Activation::Relu => {
            if x > T::zero() {
                one
            } else {
                T::zero()
            }
        }
    }
}

/// Derivative of [`gelu_tanh`].
pub fn gelu_tanh_grad<T: Float>(x: T) -> T {
    let (one, half) = (T::one(), of::<T>(0.5));
    let scale = of::<T>(std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
    let cube = of::<T>(0.044_715) * x * x;
    let tanh = (scale * x * (one + cube)).tanh();
    half * (one + tanh) + half * x * (one - tanh * tanh) * scale * (one + of::<T>(3.0) * cube)
}
