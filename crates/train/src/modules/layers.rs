//! Layers by the names of their parameters.

use burn::tensor::Tensor;
use robomamba_kernels::activation::Activation;

use crate::ops;
use crate::parameters::Scope;

/// `x` `[rows, n_in]` through the linear layer `name`.
pub(crate) fn linear(scope: &Scope, name: &str, x: &Tensor<2>) -> Tensor<2> {
    let layer = scope.under(name);
    let inputs = [ops::input(x), layer.input("weight"), layer.input("bias")];
    ops::linear::linear(scope.precision(), x.dims()[1], inputs)
}

/// `x` `[rows, n_in]` through the linear layer `name` that has no bias.
pub(crate) fn linear_unbiased(scope: &Scope, name: &str, x: &Tensor<2>) -> Tensor<2> {
    let inputs = [ops::input(x), scope.under(name).input("weight")];
    ops::linear::linear_unbiased(scope.precision(), x.dims()[1], inputs)
}

/// `x` through the linear layers `names` with an exact GELU between them.
pub(crate) fn mlp(scope: &Scope, names: [&str; 2], x: &Tensor<2>) -> Tensor<2> {
    let [first, second] = names.map(|name| scope.under(name));
    let [w1, b1, w2, b2] = [(&first, "weight"), (&first, "bias"), (&second, "weight"), (&second, "bias")]
        .map(|(layer, name)| layer.input(name));
    ops::linear::mlp(scope.precision(), x.dims()[1], Activation::Gelu, [ops::input(x), w1, b1, w2, b2])
}

/// `x` through the LayerNorm `name`.
pub(crate) fn layer_norm(scope: &Scope, name: &str, x: &Tensor<2>, eps: f32) -> Tensor<2> {
    let norm = scope.under(name);
    ops::norm::layer_norm(ops::input(x), norm.input("weight"), norm.input("bias"), eps)
}

/// `x` through the RMSNorm `name`.
pub(crate) fn rms_norm(scope: &Scope, name: &str, x: &Tensor<2>, eps: f32) -> Tensor<2> {
    ops::norm::rms_norm(ops::input(x), scope.under(name).input("weight"), eps)
}
