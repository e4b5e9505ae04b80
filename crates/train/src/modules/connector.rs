//! From patches and words to one vector per frame: see the formulas of [`super`].

use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_kernels::attention::AttentionShape;
use robomamba_model::ModelConfig;

use super::batch::{ConnectorAttention, Pictures};
use super::layers::{layer_norm, linear, mlp};
use crate::ops::attention::attention;
use crate::ops::rows::{KeyLayout, join_keys, mean_rows, shifted_queries};
use crate::ops::{self};
use crate::parameters::Scope;

/// What the connector pools.
pub(crate) struct Inputs<'a> {
    /// Instructions of the frames.
    pub pictures: &'a Pictures,
    /// Patch tokens, `[n_frame * n_camera * n_patch, vision.hidden_size]`.
    pub patches: &'a Tensor<2>,
    /// Word tokens, `[n_instruction * n_word, text.hidden_size]`.
    pub words: &'a Tensor<2>,
}

/// The token of each frame `[n_frame, d_model]` before the state is added, and the attention of the last layer.
pub(crate) fn forward(config: &ModelConfig, scope: &Scope, inputs: Inputs) -> (Tensor<2>, ConnectorAttention) {
    let Inputs { pictures: frames, patches, words } = inputs;
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
    let mut last = None;
    for i in 0..connector.num_hidden_layers {
        let layer = scope.under(&format!("layers.{i}"));
        let attn = layer.under("attn");
        let q = linear(&attn, "q_proj", &layer_norm(&layer, "norm_q", &x, eps));
        let [k, v] = ["k_proj", "v_proj"].map(|p| linear(&attn, p, &kv));
        let attended = attention(scope.precision(), shape, Arc::clone(&n_visible), [&q, &k, &v].map(ops::input));
        x = x + linear(&attn, "out_proj", &attended);
        last = Some(ConnectorAttention { shape, n_visible: Arc::clone(&n_visible), queries: q, keys: k });
        let branch = mlp(&layer, ["mlp.fc1", "mlp.fc2"], &layer_norm(&layer, "norm_mlp", &x, eps));
        x = x + branch;
    }
    let flat = layer_norm(scope, "norm_out", &x, eps).reshape([n_frame, connector.n_query * d]);
    (linear(scope, "out_proj", &flat), last.expect("a checked configuration has at least one layer"))
}

/// The encoded state `[rows, d_model]`, which is added to the token of each step.
pub(crate) fn state(scope: &Scope, state: &Tensor<2>) -> Tensor<2> {
    mlp(scope, ["state_proj.fc1", "state_proj.fc2"], state)
}
