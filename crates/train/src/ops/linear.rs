//! Linear layers and the two-layer MLP.

use burn::tensor::Tensor;
use rayon::iter::ParallelIterator;
use robomamba_kernels::activation::{self, Activation};

use super::{Forward, FusedOp, Input, apply, kernels};
use crate::gemm::{self, Layer, Mode, Precision, Write};

/// `y = x W^T + bias` for inputs `[x, W, bias]`: `x` `[rows, n_in]`, `W` `[n_out, n_in]`, `bias` `[n_out]`.
pub(crate) fn linear(precision: Precision, n_in: usize, inputs: [Input; 3]) -> Tensor<2> {
    apply(Linear { n_in, precision }, inputs)
}

/// `y = x W^T` for inputs `[x, W]`.
pub(crate) fn linear_unbiased(precision: Precision, n_in: usize, inputs: [Input; 2]) -> Tensor<2> {
    apply(Linear { n_in, precision }, inputs)
}

/// `y = f(x W1^T + b1) W2^T + b2` for inputs `[x, W1, b1, W2, b2]`: `W1` `[n_hidden, n_in]`.
pub(crate) fn mlp(precision: Precision, n_in: usize, activation: Activation, inputs: [Input; 5]) -> Tensor<2> {
    apply(Mlp { n_in, activation, precision }, inputs)
}

#[derive(Clone, Copy, Debug)]
struct Linear {
    n_in: usize,
    precision: Precision,
}

impl Linear {
    fn mode(&self) -> Mode {
        Mode { precision: self.precision, write: Write::Set }
    }

    fn layer<'a>(&self, weight: &'a [f32], bias: Option<&'a [f32]>) -> Layer<'a> {
        Layer { weight, bias, n_in: self.n_in }
    }

    fn run(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Forward<2, ()> {
        let (rows, n_out) = (x.len() / self.n_in, weight.len() / self.n_in);
        let mut output = vec![0.0; rows * n_out];
        gemm::forward(self.mode(), self.layer(weight, bias), x, &mut output);
        Forward { output, shape: [rows, n_out], saved: () }
    }

    fn grad_input(&self, weight: &[f32], grad: &[f32]) -> Vec<f32> {
        let n_out = weight.len() / self.n_in;
        let mut dx = vec![0.0; grad.len() / n_out * self.n_in];
        gemm::backward_input(self.mode(), self.layer(weight, None), grad, &mut dx);
        dx
    }

    fn grad_weight(&self, x: &[f32], grad: &[f32], len: usize) -> Vec<f32> {
        // In parallel: weights are long, and the other threads would wait for one that fills them with zeros.
        let mut dw: Vec<f32> = rayon::iter::repeat_n(0.0, len).collect();
        gemm::backward_weight(self.mode(), self.n_in, [grad, x], &mut dw);
        dw
    }
}

impl FusedOp<3, 2> for Linear {
    type Saved = ();

    fn forward(&self, [x, weight, bias]: [&[f32]; 3]) -> Forward<2, ()> {
        self.run(x, weight, Some(bias))
    }

    fn backward(
        &self,
        [x, weight, bias]: [&[f32]; 3],
        (): &(),
        grad: &[f32],
        wanted: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        [
            wanted[0].then(|| self.grad_input(weight, grad)),
            wanted[1].then(|| self.grad_weight(x, grad, weight.len())),
            wanted[2].then(|| grad_bias(grad, bias.len())),
        ]
    }
}

impl FusedOp<2, 2> for Linear {
    type Saved = ();

    fn forward(&self, [x, weight]: [&[f32]; 2]) -> Forward<2, ()> {
        self.run(x, weight, None)
    }

    fn backward(&self, [x, weight]: [&[f32]; 2], (): &(), grad: &[f32], wanted: [bool; 2]) -> [Option<Vec<f32>>; 2] {
        [wanted[0].then(|| self.grad_input(weight, grad)), wanted[1].then(|| self.grad_weight(x, grad, weight.len()))]
    }
}

fn grad_bias(grad: &[f32], n_out: usize) -> Vec<f32> {
    let mut db = vec![0.0; n_out];
    gemm::backward_bias(Write::Set, grad, &mut db);
    db
}

#[derive(Clone, Copy, Debug)]
struct Mlp {
    n_in: usize,
    activation: Activation,
    precision: Precision,
}

impl Mlp {
    /// The layers before and after the activation.
    fn layers(&self, n_hidden: usize) -> [Linear; 2] {
        [self.n_in, n_hidden].map(|n_in| Linear { n_in, precision: self.precision })
    }
}

/// The hidden layer before and after the activation, `[rows, n_hidden]` each.
#[derive(Clone, Debug)]
struct Hidden {
    before: std::sync::Arc<Vec<f32>>,
    after: std::sync::Arc<Vec<f32>>,
}

impl FusedOp<5, 2> for Mlp {
    type Saved = Hidden;

    fn forward(&self, [x, w1, b1, w2, b2]: [&[f32]; 5]) -> Forward<2, Hidden> {
        let [inner, outer] = self.layers(b1.len());
        let before = inner.run(x, w1, Some(b1)).output;
        let mut after = vec![0.0; before.len()];
        activation::forward(kernels(), self.activation, &before, &mut after).expect("equal lengths");
        let Forward { output, shape, .. } = outer.run(&after, w2, Some(b2));
        Forward { output, shape, saved: Hidden { before: before.into(), after: after.into() } }
    }

    fn backward(
        &self,
        [x, w1, b1, w2, b2]: [&[f32]; 5],
        hidden: &Hidden,
        grad: &[f32],
        wanted: [bool; 5],
    ) -> [Option<Vec<f32>>; 5] {
        let [inner, outer] = self.layers(b1.len());
        let d_after = outer.grad_input(w2, grad);
        let mut d_before = vec![0.0; d_after.len()];
        activation::backward(kernels(), self.activation, (&hidden.before, &d_after), &mut d_before)
            .expect("equal lengths");
        [
            wanted[0].then(|| inner.grad_input(w1, &d_before)),
            wanted[1].then(|| inner.grad_weight(x, &d_before, w1.len())),
            wanted[2].then(|| grad_bias(&d_before, b1.len())),
            wanted[3].then(|| outer.grad_weight(&hidden.after, grad, w2.len())),
            wanted[4].then(|| grad_bias(grad, b2.len())),
        ]
    }
}
