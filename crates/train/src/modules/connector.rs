//! From patches and words to one vector per frame: see the formulas of [`super`].

use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_kernels::attention::AttentionShape;
use robomamba_model::ModelConfig;

use super::policy::Pictures;
use super::{layer_norm, linear, mlp};
use crate::ops::attention::attention;
use crate::ops::grounding::grounding;
use crate::ops::rows::{KeyLayout, join_keys, mean_rows, shifted_queries};
use crate::ops::{self};
use crate::parameters::Scope;

/// What the connector makes of each frame, `[n_frame, d_model]`, the state not yet added, and how far the attention
/// of its last layer is from where the frames' pointers say.
pub(crate) fn forward(
    config: &ModelConfig,
    scope: &Scope,
    frames: &Pictures,
    (patches, words): (&Tensor<2>, &Tensor<2>),
) -> (Tensor<2>, Option<Tensor<1>>) {
    let (connector, texts) = (&config.connector, &frames.texts);
    let (d, eps, n_frame) = (connector.hidden_size, connector.layer_norm_eps, frames.instruction.len());
    let layout = KeyLayout {
        instruction: Arc::clone(&frames.instruction),
        n_camera: config.features.cameras.len(),
        n_patch: config.vision.n_patch(),
        n_word: texts.n_word,
        width: d,
    };
    let shape = AttentionShape {
        batch: n_frame,
        n_query: connector.n_query,
        n_key: layout.n_key(),
        n_head: connector.num_attention_heads,
        head_dim: d / connector.num_attention_heads,
    };
    let n_seen = layout.n_key() - layout.n_word;
    let n_visible: Arc<[usize]> = frames.instruction.iter().map(|&i| n_seen + texts.lengths[i]).collect();

    let seen = linear(scope, "vision_proj", patches);
    let said = linear(scope, "text_proj", words);
    let keys = join_keys(layout, ops::input(&seen), scope.input("camera_embedding"), ops::input(&said));
    let kv = layer_norm(scope, "norm_kv", &keys, eps);

    let sentence = mean_rows(ops::input(words), Arc::clone(&texts.lengths), texts.n_word);
    let shift = linear(scope, "query_text", &sentence);
    let mut x = shifted_queries(scope.input("query"), ops::input(&shift), Arc::clone(&frames.instruction), d);
    let mut pointing = None;
    for i in 0..connector.num_hidden_layers {
        let layer = scope.under(&format!("layers.{i}"));
        let attn = layer.under("attn");
        let q = linear(&attn, "q_proj", &layer_norm(&layer, "norm_q", &x, eps));
        let [k, v] = ["k_proj", "v_proj"].map(|p| linear(&attn, p, &kv));
        if i + 1 == connector.num_hidden_layers && !frames.pointers.is_empty() {
            let pointers = Arc::clone(&frames.pointers);
            pointing = Some(grounding(shape, Arc::clone(&n_visible), pointers, [&q, &k].map(ops::input)));
        }
        let attended = attention(scope.precision(), shape, Arc::clone(&n_visible), [&q, &k, &v].map(ops::input));
        x = x + linear(&attn, "out_proj", &attended);
        let branch = mlp(&layer, ["mlp.fc1", "mlp.fc2"], &layer_norm(&layer, "norm_mlp", &x, eps));
        x = x + branch;
    }
    let flat = layer_norm(scope, "norm_out", &x, eps).reshape([n_frame, connector.n_query * d]);
    (linear(scope, "out_proj", &flat), pointing)
}

/// What the state adds to the token of each step, `[rows, d_model]`.
pub(crate) fn state(scope: &Scope, state: &Tensor<2>) -> Tensor<2> {
    mlp(scope, ["state_proj.fc1", "state_proj.fc2"], state)
}
