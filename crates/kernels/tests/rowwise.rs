//! Norms, softmax and activations on every instruction set against their f64 references, whose
//! derivatives are checked against differences.

mod common;

use common::{Random, all_kernels, assert_close, assert_gradient, wide, worst};
use robomamba_kernels::activation::{self, Activation};
use robomamba_kernels::norm::{self, Norm, NormGrads, NormKind};
use robomamba_kernels::softmax;
use robomamba_kernels::{KernelError, Kernels, Rows, RowsMut};

const ACTIVATIONS: [Activation; 8] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::GeluQuick,
    Activation::Softplus,
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Relu,
];

/// Rows of `[rows, width]` that fill registers, and that do not.
const SHAPES: [(usize, usize); 7] = [(1, 1), (2, 3), (3, 16), (5, 33), (33, 64), (70, 101), (2, 768)];

#[test]
fn activations_agree_with_their_definitions() {
    let x: Vec<f32> =
        (-40_000..=40_000).map(|i| i as f32 / 1_000.0).chain([-1e4, -90.0, 90.0, 1e4, 0.0, 1e-6]).collect();
    let ones = vec![1.0; x.len()];
    for f in ACTIVATIONS {
        let expected: Vec<f64> = x.iter().map(|&x| activation::reference::apply(f, f64::from(x))).collect();
        let slope: Vec<f64> = x.iter().map(|&x| activation::reference::derivative(f, f64::from(x))).collect();
        for kernels in all_kernels() {
            let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            activation::forward(kernels, f, &x, &mut y).unwrap();
            activation::backward(kernels, f, (&x, &ones), &mut dx).unwrap();
            assert!(worst(&y, &expected) < 1e-6, "{f:?} on {kernels:?}: {:e}", worst(&y, &expected));
            assert!(worst(&dx, &slope) < 2e-6, "{f:?}' on {kernels:?}: {:e}", worst(&dx, &slope));
        }
    }
}

#[test]
fn small_values_keep_their_digits() {
    // softplus(-x) and sigmoid(-x) are step sizes and gates near zero: the error must be relative.
    let x: Vec<f32> = (0..8_000).map(|i| -i as f32 / 100.0).collect();
    for f in [Activation::Softplus, Activation::Sigmoid] {
        for kernels in all_kernels() {
            let mut y = vec![0.0; x.len()];
            activation::forward(kernels, f, &x, &mut y).unwrap();
            for (&x, &y) in x.iter().zip(&y) {
                let expected = activation::reference::apply(f, f64::from(x));
                let error = (f64::from(y) - expected).abs() / expected;
                assert!(error < 1e-6, "{f:?}({x}) on {kernels:?}: found {y}, expected {expected}, error {error:e}");
            }
        }
    }
}

#[test]
fn activation_derivatives_are_differences() {
    let x = wide(&Random(5).vec(40, -4.0, 4.0));
    for f in ACTIVATIONS {
        let slope: Vec<f64> = x.iter().map(|&x| activation::reference::derivative(f, x)).collect();
        assert_gradient(&format!("{f:?}"), &x, &slope, |x| x.iter().map(|&x| activation::reference::apply(f, x)).sum());
    }
}

#[test]
fn nan_stays_nan() {
    for f in ACTIVATIONS.into_iter().filter(|&f| f != Activation::Relu) {
        for kernels in all_kernels() {
            let mut x = [1.0, f32::NAN, 2.0];
            activation::apply(kernels, f, &mut x);
            assert!(x[1].is_nan() && x[0].is_finite(), "{f:?} on {kernels:?}: {x:?}");
        }
    }
}

/// Owned arguments of a norm.
struct NormCase<T> {
    x: Vec<T>,
    weight: Vec<T>,
    bias: Vec<T>,
    dy: Vec<T>,
}

impl<T: num_traits::Float> NormCase<T> {
    /// RMSNorm without a bias, LayerNorm with one.
    fn norm(&self, kind: NormKind) -> Norm<'_, T> {
        let bias = (kind == NormKind::Layer).then_some(self.bias.as_slice());
        Norm { kind, weight: &self.weight, bias, eps: T::from(1e-5).unwrap() }
    }

    /// Output, and gradients of input, weight and bias.
    fn reference(&self, kind: NormKind, rows: usize) -> [Vec<T>; 4] {
        let width = self.weight.len();
        let (mut y, mut dx) = (self.x.clone(), self.x.clone());
        let (mut dweight, mut dbias) = (self.weight.clone(), self.bias.clone());
        norm::reference::forward(&self.norm(kind), rows, Rows::new(&self.x, width), RowsMut::new(&mut y, width));
        let grads = NormGrads {
            x: RowsMut::new(&mut dx, width),
            weight: &mut dweight,
            bias: (kind == NormKind::Layer).then_some(&mut dbias),
        };
        let inputs = (Rows::new(&self.x, width), Rows::new(&self.dy, width));
        norm::reference::backward(&self.norm(kind), rows, inputs, grads);
        [y, dx, dweight, dbias]
    }
}

fn norm_case(seed: u64, (rows, width): (usize, usize)) -> (NormCase<f32>, NormCase<f64>) {
    let mut random = Random(seed);
    let case = NormCase {
        x: random.vec(rows * width, -1.0, 3.0),
        weight: random.vec(width, -1.0, 2.0),
        bias: random.vec(width, -1.0, 1.0),
        dy: random.vec(rows * width, -1.0, 1.0),
    };
    let wide = NormCase { x: wide(&case.x), weight: wide(&case.weight), bias: wide(&case.bias), dy: wide(&case.dy) };
    (case, wide)
}

#[test]
fn norms_agree_with_the_reference() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let (rows, width) = shape;
        let (case, wide_case) = norm_case(seed as u64, shape);
        for kind in [NormKind::Rms, NormKind::Layer] {
            let expected = wide_case.reference(kind, rows);
            // The derivative of a LayerNorm of width 1 is a difference of equal numbers over sqrt(eps).
            let tolerance = if width == 1 { 1e-3 } else { 1e-5 };
            for kernels in all_kernels() {
                let (mut y, mut dx) = (vec![f32::NAN; case.x.len()], vec![f32::NAN; case.x.len()]);
                let (mut dweight, mut dbias) = (vec![f32::NAN; width], case.bias.clone());
                let x = Rows::new(&case.x, width);
                norm::forward(kernels, &case.norm(kind), rows, x, RowsMut::new(&mut y, width)).unwrap();
                let grads = NormGrads {
                    x: RowsMut::new(&mut dx, width),
                    weight: &mut dweight,
                    bias: (kind == NormKind::Layer).then_some(&mut dbias),
                };
                norm::backward(kernels, &case.norm(kind), rows, (x, Rows::new(&case.dy, width)), grads).unwrap();
                let name = |tensor: &str| format!("{tensor} of {kind:?} {shape:?} on {kernels:?}");
                assert_close(&name("y"), &y, &expected[0], 2e-6);
                assert_close(&name("dx"), &dx, &expected[1], tolerance);
                assert_close(&name("dweight"), &dweight, &expected[2], 1e-5);
                assert_close(&name("dbias"), &dbias, &expected[3], 1e-5);
            }
        }
    }
}

#[test]
fn norm_gradients_are_differences() {
    let (_, case) = norm_case(3, (2, 5));
    for kind in [NormKind::Rms, NormKind::Layer] {
        let [_, dx, dweight, dbias] = case.reference(kind, 2);
        let loss = |x: &[f64], weight: &[f64], bias: &[f64]| {
            let moved = NormCase { x: x.to_vec(), weight: weight.to_vec(), bias: bias.to_vec(), dy: case.dy.clone() };
            moved.reference(kind, 2)[0].iter().zip(&case.dy).map(|(y, dy)| y * dy).sum::<f64>()
        };
        assert_gradient("x", &case.x, &dx, |x| loss(x, &case.weight, &case.bias));
        assert_gradient("weight", &case.weight, &dweight, |weight| loss(&case.x, weight, &case.bias));
        if kind == NormKind::Layer {
            assert_gradient("bias", &case.bias, &dbias, |bias| loss(&case.x, &case.weight, bias));
        }
    }
}

#[test]
fn fused_addition_is_addition_then_norm() {
    for (seed, (rows, width)) in SHAPES.into_iter().enumerate() {
        let (case, _) = norm_case(seed as u64, (rows, width));
        for kernels in all_kernels() {
            let norm = case.norm(NormKind::Rms);
            let mut residual = case.dy.clone();
            let mut y = vec![f32::NAN; residual.len()];
            norm::add_forward(kernels, &norm, &case.x, &mut residual, &mut y).unwrap();
            let sums: Vec<f32> = case.x.iter().zip(&case.dy).map(|(a, b)| a + b).collect();
            assert_eq!(residual, sums);
            let mut expected = vec![0.0; y.len()];
            norm::forward(kernels, &norm, rows, Rows::new(&sums, width), RowsMut::new(&mut expected, width)).unwrap();
            assert_eq!(y, expected);
        }
    }
}

#[test]
fn softmax_agrees_with_the_reference() {
    for (seed, (rows, width)) in SHAPES.into_iter().enumerate() {
        let mut random = Random(seed as u64);
        let (x, dy) = (random.vec(rows * width, -60.0, 60.0), random.vec(rows * width, -1.0, 1.0));
        let mut expected = wide(&x);
        expected.chunks_exact_mut(width).for_each(softmax::reference::apply);
        let mut expected_dx = vec![0.0; x.len()];
        for (i, dx) in expected_dx.chunks_exact_mut(width).enumerate() {
            let row = i * width..(i + 1) * width;
            softmax::reference::backward((&expected[row.clone()], &wide(&dy)[row]), dx);
        }
        for kernels in all_kernels() {
            let (mut y, mut dx) = (x.clone(), vec![f32::NAN; x.len()]);
            softmax::apply(kernels, width, &mut y).unwrap();
            assert_close("softmax", &y, &expected, 1e-6);
            softmax::backward(kernels, width, (&y, &dy), &mut dx).unwrap();
            assert_close("softmax gradient", &dx, &expected_dx, 2e-6);
        }
    }
}

#[test]
fn softmax_gradient_is_differences() {
    let (x, dy) = (wide(&Random(1).vec(6, -2.0, 2.0)), wide(&Random(2).vec(6, -1.0, 1.0)));
    let softmax = |x: &[f64]| {
        let mut y = x.to_vec();
        softmax::reference::apply(&mut y);
        y
    };
    let mut dx = vec![0.0; 6];
    softmax::reference::backward((&softmax(&x), &dy), &mut dx);
    assert_gradient("x", &x, &dx, |x| softmax(x).iter().zip(&dy).map(|(y, dy)| y * dy).sum());
}

#[test]
fn misfits_are_named() {
    let error = softmax::apply(Kernels::detect(), 4, &mut [0.0; 6]).unwrap_err();
    assert_eq!(error, KernelError::Length { tensor: "x", expected: 4, found: 6 });
    let error = activation::forward(Kernels::detect(), Activation::Silu, &[0.0; 3], &mut [0.0; 2]).unwrap_err();
    assert_eq!(error, KernelError::Length { tensor: "y", expected: 3, found: 2 });
}
