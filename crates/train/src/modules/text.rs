//! BERT (Devlin et al. 2019), `transformers.BertModel` without the pooler: post-norm, exact GELU.

use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_kernels::attention::AttentionShape;
use robomamba_model::TextConfig;

use super::batch::Texts;
use super::layers::{layer_norm, linear, mlp};
use crate::ops::attention::attention;
use crate::ops::{self, rows::gather};
use crate::parameters::Scope;

/// Tokens `[n_instruction * n_word, hidden_size]`; rows past an instruction's length are padding.
pub(crate) fn forward(config: &TextConfig, scope: &Scope, texts: &Texts) -> Tensor<2> {
    let shape = AttentionShape {
        batch: texts.lengths.len(),
        n_query: texts.n_word,
        n_key: texts.n_word,
        n_head: config.num_attention_heads,
        head_dim: config.hidden_size / config.num_attention_heads,
    };
    let mut x = embed(config, &scope.under("embeddings"), texts);
    for i in 0..config.num_hidden_layers {
        let layer = scope.under(&format!("encoder.layer.{i}"));
        let [q, k, v] = ["query", "key", "value"].map(|p| linear(&layer.under("attention.self"), p, &x));
        let attended = attention(scope.precision(), shape, Arc::clone(&texts.lengths), [&q, &k, &v].map(ops::input));
        let branch = linear(&layer, "attention.output.dense", &attended);
        x = layer_norm(&layer, "attention.output.LayerNorm", &(x + branch), config.layer_norm_eps);
        let branch = mlp(&layer, ["intermediate.dense", "output.dense"], &x);
        x = layer_norm(&layer, "output.LayerNorm", &(x + branch), config.layer_norm_eps);
    }
    x
}

fn embed(config: &TextConfig, scope: &Scope, texts: &Texts) -> Tensor<2> {
    let look_up =
        |table: &str, index: Arc<[usize]>| gather(scope.under(table).input("weight"), index, config.hidden_size);
    let words = look_up("word_embeddings", Arc::clone(&texts.ids));
    let positions = look_up("position_embeddings", (0..texts.ids.len()).map(|i| i % texts.n_word).collect());
    let segments = look_up("token_type_embeddings", vec![0; texts.ids.len()].into());
    layer_norm(scope, "LayerNorm", &(words + positions + segments), config.layer_norm_eps)
}
