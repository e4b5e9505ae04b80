//! The model as a differentiable graph.
//!
//! Parameters have the names and shapes of [`robomamba_model::param_specs`]; the graph is the runtime's
//! function, batched: unique frames and instructions are encoded once, then gathered into the steps of
//! the episodes.
//!
//! ```text
//! patches_i = vision(camera_i), without the class token
//! words     = text(instruction)
//! kv        = norm_kv(concat over cameras of (vision_proj(patches_i) + camera_embedding[i]), text_proj(words))
//! x         = query + reshape(query_text(mean(words)), [n_query, d])
//! per layer   x += out_proj(MHA(q_proj(norm_q(x)), k_proj(kv), v_proj(kv)));  x += mlp(norm_mlp(x))
//! token     = out_proj(flatten(norm_out(x))) + state_proj(normalised state)
//! h         = norm_f(blocks(token)), carried along the episode
//! x         = gelu(fc2(gelu(fc1(h))));  action = fc3(x) of every mode, mode(x) their logits;  confidence = fc2(gelu(fc1(h)))
//! ```

mod connector;
mod heads;
mod mamba;
mod policy;
mod text;
mod transformer;
mod vision;

use burn::tensor::Tensor;
use robomamba_kernels::activation::Activation;

use crate::ops;
use crate::parameters::Scope;

pub(crate) use mamba::SequenceState;
pub(crate) use policy::{Batch, Episodes, Frames, Pictures, PolicyModel, Texts};

/// The kernel of an activation of the model crate.
pub(crate) fn activation(activation: robomamba_model::Activation) -> Activation {
    match activation {
        robomamba_model::Activation::Gelu => Activation::Gelu,
        robomamba_model::Activation::GeluTanh => Activation::GeluTanh,
        robomamba_model::Activation::QuickGelu => Activation::GeluQuick,
    }
}

/// `x` `[rows, n_in]` through the linear layer `name`.
fn linear(scope: &Scope, name: &str, x: &Tensor<2>) -> Tensor<2> {
    let layer = scope.under(name);
    ops::linear::linear(scope.precision(), ops::input(x), layer.input("weight"), layer.input("bias"), x.dims()[1])
}

/// `x` `[rows, n_in]` through the linear layer `name` that has no bias.
fn linear_unbiased(scope: &Scope, name: &str, x: &Tensor<2>) -> Tensor<2> {
    ops::linear::linear_unbiased(scope.precision(), ops::input(x), scope.under(name).input("weight"), x.dims()[1])
}

/// `x` through the linear layers `names` with an exact GELU between them.
fn mlp(scope: &Scope, names: [&str; 2], x: &Tensor<2>) -> Tensor<2> {
    let [first, second] = names.map(|name| scope.under(name));
    let parameters = [first.input("weight"), first.input("bias"), second.input("weight"), second.input("bias")];
    ops::linear::mlp(scope.precision(), ops::input(x), parameters, x.dims()[1], Activation::Gelu)
}

/// `x` through the LayerNorm `name`.
fn layer_norm(scope: &Scope, name: &str, x: &Tensor<2>, eps: f32) -> Tensor<2> {
    let norm = scope.under(name);
    ops::norm::layer_norm(ops::input(x), norm.input("weight"), norm.input("bias"), eps)
}

/// `x` through the RMSNorm `name`.
fn rms_norm(scope: &Scope, name: &str, x: &Tensor<2>, eps: f32) -> Tensor<2> {
    ops::norm::rms_norm(ops::input(x), scope.under(name).input("weight"), eps)
}
