//! Elementwise operations.

use burn::tensor::Tensor;
use robomamba_kernels::activation::{self, Activation};

use super::{Forward, FusedOp, Input, apply, kernels};

/// `f(x)` for `x` `[rows, width]`.
pub(crate) fn activate(x: Input, width: usize, activation: Activation) -> Tensor<2> {
    apply(Activate { width, activation }, [x])
}

/// `silu(gate) * up` for `gate` and `up` `[rows, width]`, the middle of a SwiGLU.
pub(crate) fn gated(gate: Input, up: Input, width: usize) -> Tensor<2> {
    apply(Gated { width }, [gate, up])
}

#[derive(Clone, Copy, Debug)]
struct Activate {
    width: usize,
    activation: Activation,
}

impl FusedOp<1, 2> for Activate {
    type Saved = ();

    fn forward(&self, [x]: [&[f32]; 1]) -> Forward<2, ()> {
        Forward { output: apply_activation(self.activation, x), shape: [x.len() / self.width, self.width], saved: () }
    }

    fn backward(&self, [x]: [&[f32]; 1], (): &(), grad: &[f32], _: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [Some(activation_grad(self.activation, x, grad))]
    }
}

#[derive(Clone, Copy, Debug)]
struct Gated {
    width: usize,
}

impl FusedOp<2, 2> for Gated {
    type Saved = ();

    fn forward(&self, [gate, up]: [&[f32]; 2]) -> Forward<2, ()> {
        let output = product(apply_activation(Activation::Silu, gate), up);
        Forward { output, shape: [up.len() / self.width, self.width], saved: () }
    }

    fn backward(&self, [gate, up]: [&[f32]; 2], (): &(), grad: &[f32], _: [bool; 2]) -> [Option<Vec<f32>>; 2] {
        let d_gate = product(activation_grad(Activation::Silu, gate, grad), up);
        let d_up = product(apply_activation(Activation::Silu, gate), grad);
        [Some(d_gate), Some(d_up)]
    }
}

fn product(mut a: Vec<f32>, b: &[f32]) -> Vec<f32> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
    a
}

fn apply_activation(activation: Activation, x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    activation::forward(kernels(), activation, x, &mut y).expect("equal lengths");
    y
}

fn activation_grad(activation: Activation, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut dx = vec![0.0; x.len()];
    activation::backward(kernels(), activation, (x, grad), &mut dx).expect("equal lengths");
    dx
}
