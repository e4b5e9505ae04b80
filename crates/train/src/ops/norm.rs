//! LayerNorm and RMSNorm over the last dimension.

use burn::tensor::Tensor;
use robomamba_kernels::norm::{self, Norm, NormGrads, NormKind};
use robomamba_kernels::{Rows, RowsMut};

use super::{Forward, FusedOp, Input, apply, kernels};

/// LayerNorm of `x` `[rows, width]` with `weight` and `bias` `[width]`.
pub(crate) fn layer_norm(x: Input, weight: Input, bias: Input, eps: f32) -> Tensor<2> {
    apply(NormOp { kind: NormKind::Layer, eps }, [x, weight, bias])
}

/// RMSNorm of `x` `[rows, width]` with `weight` `[width]`.
pub(crate) fn rms_norm(x: Input, weight: Input, eps: f32) -> Tensor<2> {
    apply(NormOp { kind: NormKind::Rms, eps }, [x, weight])
}

#[derive(Clone, Copy, Debug)]
struct NormOp {
    kind: NormKind,
    eps: f32,
}

impl NormOp {
    fn norm<'a>(&self, weight: &'a [f32], bias: Option<&'a [f32]>) -> Norm<'a> {
        Norm { kind: self.kind, weight, bias, eps: self.eps }
    }

    fn run(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Forward<2, ()> {
        let (width, rows) = (weight.len(), x.len() / weight.len());
        let mut output = vec![0.0; x.len()];
        norm::forward(kernels(), &self.norm(weight, bias), rows, Rows::new(x, width), RowsMut::new(&mut output, width))
            .expect("the shapes were derived from the lengths");
        Forward { output, shape: [rows, width], saved: () }
    }

    /// Gradients of `x`, `weight` and, if there is one, `bias`.
    fn grads(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, grad: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let (width, rows) = (weight.len(), x.len() / weight.len());
        let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
        let grads =
            NormGrads { x: RowsMut::new(&mut dx, width), weight: &mut dw, bias: bias.is_some().then_some(&mut db) };
        norm::backward(kernels(), &self.norm(weight, bias), rows, (Rows::new(x, width), Rows::new(grad, width)), grads)
            .expect("the shapes were derived from the lengths");
        (dx, dw, db)
    }
}

impl FusedOp<3, 2> for NormOp {
    type Saved = ();

    fn forward(&self, [x, weight, bias]: [&[f32]; 3]) -> Forward<2, ()> {
        self.run(x, weight, Some(bias))
    }

    fn backward(&self, [x, weight, bias]: [&[f32]; 3], (): &(), grad: &[f32], _: [bool; 3]) -> [Option<Vec<f32>>; 3] {
        let (dx, dw, db) = self.grads(x, weight, Some(bias), grad);
        [Some(dx), Some(dw), Some(db)]
    }
}

impl FusedOp<2, 2> for NormOp {
    type Saved = ();

    fn forward(&self, [x, weight]: [&[f32]; 2]) -> Forward<2, ()> {
        self.run(x, weight, None)
    }

    fn backward(&self, [x, weight]: [&[f32]; 2], (): &(), grad: &[f32], _: [bool; 2]) -> [Option<Vec<f32>>; 2] {
        let (dx, dw, _) = self.grads(x, weight, None, grad);
        [Some(dx), Some(dw)]
    }
}
