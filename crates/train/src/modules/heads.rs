//! The heads on the backbone's output.

use burn::tensor::Tensor;
use robomamba_kernels::activation::Activation;

use super::layers::{linear, mlp};
use crate::ops::{self, pointwise::activate};
use crate::parameters::Scope;

/// Normalised action chunks of all modes `[rows, n_mode * chunk_size * action_dim]`. Several modes also have logits
/// `[rows, n_mode]`.
pub(crate) fn action(scope: &Scope, n_mode: usize, hidden: &Tensor<2>) -> (Tensor<2>, Option<Tensor<2>>) {
    let x = mlp(scope, ["fc1", "fc2"], hidden);
    let width = x.dims()[1];
    let x = activate(ops::input(&x), width, Activation::Gelu);
    (linear(scope, "fc3", &x), (n_mode > 1).then(|| linear(scope, "mode", &x)))
}

/// Logits of the episode's success, `[rows, 1]`.
pub(crate) fn confidence(scope: &Scope, hidden: &Tensor<2>) -> Tensor<2> {
    mlp(scope, ["fc1", "fc2"], hidden)
}
