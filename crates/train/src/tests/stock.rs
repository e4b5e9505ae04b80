//! Fused operations and their gradients against the same formulas in burn's own operations.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, silu, softmax};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use robomamba_kernels::activation::Activation;
use robomamba_kernels::attention::AttentionShape;

use crate::Precision;
use crate::ops::attention::attention;
use crate::ops::linear::mlp;
use crate::ops::norm::{layer_norm, rms_norm};
use crate::ops::pointwise::gated;
use crate::ops::rows::gather;
use crate::ops::{self, input};

const TOLERANCE: f32 = 1e-4;
const EPS: f32 = 1e-5;

type Formula = fn(&[Tensor<2>]) -> Tensor<2>;

/// A fused operation, the same in burn's operations, and the shapes of the inputs.
struct Case {
    name: &'static str,
    fused: Formula,
    stock: Formula,
    shapes: &'static [[usize; 2]],
}

const CASES: [Case; 6] = [
    Case {
        name: "mlp",
        fused: |x| {
            let [w1, b1, w2, b2] = [1, 2, 3, 4].map(|i| input(&flat(&x[i])));
            mlp(Precision::F32, 7, Activation::Gelu, [input(&x[0]), w1, b1, w2, b2])
        },
        stock: |x| {
            let hidden = x[0].clone().matmul(x[1].clone().transpose()) + x[2].clone();
            gelu(hidden).matmul(x[3].clone().transpose()) + x[4].clone()
        },
        shapes: &[[5, 7], [11, 7], [1, 11], [3, 11], [1, 3]],
    },
    Case {
        name: "layer_norm",
        fused: |x| layer_norm(input(&x[0]), input(&flat(&x[1])), input(&flat(&x[2])), EPS),
        stock: |x| {
            let centred = x[0].clone() - x[0].clone().mean_dim(1);
            let variance = centred.clone().powf_scalar(2.0).mean_dim(1);
            centred / (variance + EPS).sqrt() * x[1].clone() + x[2].clone()
        },
        shapes: &[[6, 33], [1, 33], [1, 33]],
    },
    Case {
        name: "rms_norm",
        fused: |x| rms_norm(input(&x[0]), input(&flat(&x[1])), EPS),
        stock: |x| {
            let square = x[0].clone().powf_scalar(2.0).mean_dim(1);
            x[0].clone() / (square + EPS).sqrt() * x[1].clone()
        },
        shapes: &[[6, 20], [1, 20]],
    },
    Case {
        name: "attention, one head, keys of the padding hidden",
        fused: |x| {
            let shape = AttentionShape { batch: 1, n_query: 4, n_key: 9, n_head: 1, head_dim: 16 };
            attention(Precision::F32, shape, vec![6].into(), [0, 1, 2].map(|i| input(&x[i])))
        },
        stock: |x| {
            let [k, v] = [1, 2].map(|i| x[i].clone().slice([0..6, 0..16]));
            softmax(x[0].clone().matmul(k.transpose()) / 4.0, 1).matmul(v)
        },
        shapes: &[[4, 16], [9, 16], [9, 16]],
    },
    Case {
        name: "gated",
        fused: |x| gated(input(&x[0]), input(&x[1]), 13),
        stock: |x| silu(x[0].clone()) * x[1].clone(),
        shapes: &[[4, 13], [4, 13]],
    },
    Case {
        name: "gather",
        fused: |x| gather(input(&x[0]), vec![2, 0, 2].into(), 5),
        stock: |x| {
            Tensor::cat(
                vec![
                    x[0].clone().slice([2..3, 0..5]),
                    x[0].clone().slice([0..1, 0..5]),
                    x[0].clone().slice([2..3, 0..5]),
                ],
                0,
            )
        },
        shapes: &[[3, 5]],
    },
];

fn flat(x: &Tensor<2>) -> Tensor<1> {
    let [rows, width] = x.dims();
    x.clone().reshape([rows * width])
}

/// The output, then the gradient of every input for a fixed weighting of the output.
fn evaluate(formula: Formula, inputs: &[Vec<f32>], shapes: &[[usize; 2]]) -> Vec<Vec<f32>> {
    let leaves: Vec<_> =
        inputs.iter().zip(shapes).map(|(x, &shape)| ops::constant(x.clone(), shape).require_grad()).collect();
    let output = formula(&leaves);
    let [rows, width] = output.dims();
    let weights = (0..rows * width).map(|i| (i as f32 * 0.7).sin()).collect();
    let gradients = (output.clone() * ops::constant(weights, [rows, width])).sum().backward();
    let grads = leaves.iter().map(|leaf| ops::values(leaf.grad(&gradients).unwrap()));
    std::iter::once(ops::values(output)).chain(grads).collect()
}

#[test]
fn fused_operations_agree_with_stock_operations() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for case in CASES {
        let inputs: Vec<Vec<f32>> = case
            .shapes
            .iter()
            .map(|[rows, width]| (0..rows * width).map(|_| rng.random_range(-1.5..1.5)).collect())
            .collect();
        let [fused, stock] = [case.fused, case.stock].map(|formula| evaluate(formula, &inputs, case.shapes));
        for (i, (fused, stock)) in fused.iter().zip(&stock).enumerate() {
            let worst = fused.iter().zip(stock).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < TOLERANCE, "{}: result {i} differs by {worst}", case.name);
        }
    }
}
