//! The heads on the trunk's output.

use burn::tensor::Tensor;
use robomamba_kernels::activation::Activation;

use super::{linear, mlp};
use crate::ops::{self, pointwise::activate};
use crate::parameters::Scope;

/// Normalised action chunks `[rows, chunk_size * action_dim]`.
pub(crate) fn action(scope: &Scope, hidden: &Tensor<2>) -> Tensor<2> {
    let x = mlp(scope, ["fc1", "fc2"], hidden);
    let width = x.dims()[1];
    linear(scope, "fc3", &activate(ops::input(&x), width, Activation::Gelu))
}

/// Logits of the episode's success, `[rows, 1]`.
pub(crate) fn confidence(scope: &Scope, hidden: &Tensor<2>) -> Tensor<2> {
    mlp(scope, ["fc1", "fc2"], hidden)
}
