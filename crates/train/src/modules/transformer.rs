//! The baseline backbone, `transformers.LlamaModel`: RMSNorm, rotary positions, causal attention, SwiGLU.
//!
//! Attention stays within a segment: keys of an earlier segment of the episode are not carried over.

use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_model::TransformerConfig;

use super::layers::{linear_unbiased, rms_norm};
use crate::ops::attention::{Heads, causal_attention, rotate};
use crate::ops::{self, pointwise::gated};
use crate::parameters::Scope;

/// Runs `x` `[rows, d_model]`, sequences of `lengths` one after the other, through the backbone.
pub(crate) fn forward(
    config: &TransformerConfig,
    scope: &Scope,
    lengths: &Arc<[usize]>,
    mut x: Tensor<2>,
) -> Tensor<2> {
    let heads = Heads { count: config.num_attention_heads, dim: config.d_model / config.num_attention_heads };
    let eps = config.rms_norm_eps;
    for i in 0..config.n_layer {
        let layer = scope.under(&format!("layers.{i}"));
        let attn = layer.under("self_attn");
        let normed = rms_norm(&layer, "input_layernorm", &x, eps);
        let [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(|p| linear_unbiased(&attn, p, &normed));
        let [q, k] = [q, k].map(|x| rotate(ops::input(&x), lengths, heads, config.rope_theta));
        let attended = causal_attention(scope.precision(), lengths, heads, [&q, &k, &v].map(ops::input));
        x = x + linear_unbiased(&attn, "o_proj", &attended);
        let normed = rms_norm(&layer, "post_attention_layernorm", &x, eps);
        let [gate, up] = ["mlp.gate_proj", "mlp.up_proj"].map(|p| linear_unbiased(&layer, p, &normed));
        let inner = gated(ops::input(&gate), ops::input(&up), config.intermediate_size);
        x = x + linear_unbiased(&layer, "mlp.down_proj", &inner);
    }
    rms_norm(scope, "norm_f", &x, eps)
}
